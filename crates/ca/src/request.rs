//! Certificate signing requests: which key asks, and whether it is in the asker's hands.
//!
//! In:    PEM, at most 16 KiB.
//! Out:   the key, and the identity that the asker believes to have.
//! Never: gives a name to a certificate. The names only serve to refuse who asks for another's.

use rcgen::SubjectPublicKeyInfo;
use rustls_pki_types::{CertificateSigningRequestDer, pem::PemObject as _};
use x509_parser::{
    certification_request::X509CertificationRequest,
    extensions::{GeneralName, ParsedExtension},
    oid_registry,
    prelude::FromDer as _,
    public_key::PublicKey,
    x509::SubjectPublicKeyInfo as Spki,
};

/// Largest request in PEM; one with an RSA-4096 key takes 2 kB.
const PEM_BYTES_MAX: usize = 16 << 10;
/// Shortest RSA key (NIST SP 800-131A).
const RSA_BITS_MIN: usize = 2048;
/// Longest RSA key: each peer pays for it in each handshake.
const RSA_BITS_MAX: usize = 8192;
/// Smallest public exponent (NIST SP 800-56B §6.2: above 2^16).
const RSA_EXPONENT_MIN: u64 = 65_537;

/// A request whose signature is good. Of all that it says, only the public key counts.
#[derive(Debug)]
pub struct SigningRequest {
    key: SubjectPublicKeyInfo,
    algorithm: &'static str,
    uris: Vec<String>,
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
        "the key is not accepted: use ECDSA P-256 or P-384, Ed25519, or RSA of {RSA_BITS_MIN} to \
         {RSA_BITS_MAX} bits"
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
        let spki = &request.certification_request_info.subject_pki;
        // Before the signature: to verify one of an absurd key costs an absurd time.
        let algorithm = accepted(spki).ok_or(RequestError::Key)?;
        request.verify_signature().map_err(|_| RequestError::Signature)?;
        let key = SubjectPublicKeyInfo::from_der(spki.raw).map_err(|_| RequestError::Key)?;
        Ok(Self { key, algorithm, uris: uris(&request) })
    }

    /// The URI names that it asks for.
    #[must_use]
    pub fn uris(&self) -> &[String] {
        &self.uris
    }

    /// The kind of its key.
    #[must_use]
    pub fn algorithm(&self) -> &'static str {
        self.algorithm
    }

    pub(crate) fn key(&self) -> &SubjectPublicKeyInfo {
        &self.key
    }
}

/// The name of the key's kind, if it is one of those that are signed.
fn accepted(spki: &Spki<'_>) -> Option<&'static str> {
    let oid = &spki.algorithm.algorithm;
    if *oid == oid_registry::OID_SIG_ED25519 {
        return Some("Ed25519");
    }
    if *oid == oid_registry::OID_KEY_TYPE_EC_PUBLIC_KEY {
        let curve = spki.algorithm.parameters.as_ref()?.as_oid().ok()?;
        return if curve == oid_registry::OID_EC_P256 {
            Some("ECDSA P-256")
        } else if curve == oid_registry::OID_NIST_EC_P384 {
            Some("ECDSA P-384")
        } else {
            None
        };
    }
    let Ok(PublicKey::RSA(key)) = spki.parsed() else { return None };
    let is_long_enough = (RSA_BITS_MIN..=RSA_BITS_MAX).contains(&key.key_size());
    let exponent = key.try_exponent().ok()?;
    (is_long_enough && exponent >= RSA_EXPONENT_MIN && exponent % 2 == 1).then_some("RSA")
}

fn uris(request: &X509CertificationRequest<'_>) -> Vec<String> {
    let extensions = request.requested_extensions().into_iter().flatten();
    let names = extensions.filter_map(|extension| match extension {
        ParsedExtension::SubjectAlternativeName(names) => Some(&names.general_names),
        _ => None,
    });
    let uri = |name: &GeneralName<'_>| match name {
        GeneralName::URI(uri) => Some((*uri).to_owned()),
        _ => None,
    };
    names.flatten().filter_map(uri).collect()
}
