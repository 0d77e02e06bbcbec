//! Certificate signing requests: which key asks, and whether it is in the asker's hands.

use rcgen::SubjectPublicKeyInfo;
use rustls_pki_types::{CertificateSigningRequestDer, pem::PemObject as _};
use x509_parser::{
    certification_request::X509CertificationRequest, prelude::FromDer as _, public_key::PublicKey,
};

/// Largest request in PEM; one with an RSA-4096 key takes 2 kB.
const PEM_BYTES_MAX: usize = 16 << 10;
/// Shortest RSA key (NIST SP 800-131A).
const RSA_BITS_MIN: usize = 2048;

/// A request whose signature is good. Of all that it says, only the public key counts.
#[derive(Debug)]
pub struct SigningRequest {
    key: SubjectPublicKeyInfo,
}

/// Why a request is not accepted.
#[derive(Debug, thiserror::Error)]
pub enum RequestError {
    /// It is too large.
    #[error("the request is larger than {PEM_BYTES_MAX} bytes")]
    Large,
    /// It is not a PEM certificate request.
    #[error("the request is not a PEM certificate request: {0}")]
    Malformed(String),
    /// It is not signed by the key that it carries.
    #[error("the request is not signed by its own key")]
    Signature,
    /// The key is of a kind, or a size, that is not signed here.
    #[error(
        "the key is not accepted: use ECDSA P-256 or P-384, Ed25519, or RSA of {RSA_BITS_MIN} bits or more"
    )]
    Key,
}

impl SigningRequest {
    /// Reads a request and checks that its sender has the private key (RFC 2986 §4.2).
    ///
    /// # Errors
    ///
    /// [`RequestError`].
    pub fn from_pem(pem: &str) -> Result<Self, RequestError> {
        let malformed = |error: &dyn std::fmt::Display| RequestError::Malformed(error.to_string());
        if pem.len() > PEM_BYTES_MAX {
            return Err(RequestError::Large);
        }
        let der = CertificateSigningRequestDer::from_pem_slice(pem.as_bytes())
            .map_err(|error| malformed(&error))?;
        let (rest, request) =
            X509CertificationRequest::from_der(&der).map_err(|error| malformed(&error))?;
        if !rest.is_empty() {
            return Err(malformed(&"bytes after its end"));
        }
        request.verify_signature().map_err(|_| RequestError::Signature)?;
        let spki = &request.certification_request_info.subject_pki;
        if let Ok(PublicKey::RSA(key)) = spki.parsed()
            && key.key_size() < RSA_BITS_MIN
        {
            return Err(RequestError::Key);
        }
        let key = SubjectPublicKeyInfo::from_der(spki.raw).map_err(|_| RequestError::Key)?;
        Ok(Self { key })
    }

    pub(crate) fn key(&self) -> &SubjectPublicKeyInfo {
        &self.key
    }
}
