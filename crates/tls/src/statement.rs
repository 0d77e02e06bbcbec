//! Statements signed by the key of a workload's certificate, and who made them.
//!
//! In:    bytes that say what they are for: the key is also that of TLS.
//! Out:   a signature with its scheme; the verified identity of the signer.
//! Never: takes a signature without a chain to the roots that held at the time.

use std::time::SystemTime;

use rustls::{SignatureScheme, pki_types::CertificateDer, sign::Signer};

use crate::{KeyPair, LeafError, PeerIdentity, Roots, peer_identity, provider};

/// The schemes that are used, by the names of TLS (RFC 8446 §4.2.3): the ones that workload keys are
/// made for.
const SCHEMES: [(SignatureScheme, &str); 4] = [
    (SignatureScheme::ECDSA_NISTP256_SHA256, "ecdsa_secp256r1_sha256"),
    (SignatureScheme::ECDSA_NISTP384_SHA384, "ecdsa_secp384r1_sha384"),
    (SignatureScheme::ED25519, "ed25519"),
    (SignatureScheme::RSA_PSS_SHA256, "rsa_pss_rsae_sha256"),
];

/// Why a statement is not believed, or cannot be made.
#[derive(Debug, thiserror::Error)]
pub enum StatementError {
    /// The key or the scheme is not one of those that are used.
    #[error("the signature scheme is not one that statements have")]
    Scheme,
    /// The key does not sign.
    #[error("the key does not sign: {0}")]
    Key(rustls::Error),
    /// The certificates lead to no root that is trusted, or were not valid then.
    #[error("the signer's certificate is not trusted: {0}")]
    Chain(rustls::Error),
    /// The certificate does not say who its holder is.
    #[error(transparent)]
    Leaf(#[from] LeafError),
    /// The signature is not of these bytes by this key.
    #[error("the signature is not of these bytes")]
    Signature,
}

/// Signs by one key.
pub struct StatementSigner {
    scheme: &'static str,
    signer: Box<dyn Signer>,
}

impl StatementSigner {
    /// Takes the key of a pair.
    ///
    /// # Errors
    ///
    /// [`StatementError::Scheme`] for a key of another kind.
    pub fn of(pair: &KeyPair) -> Result<Self, StatementError> {
        let offered = SCHEMES.map(|(scheme, _)| scheme);
        let signer = pair.certified().key.choose_scheme(&offered).ok_or(StatementError::Scheme)?;
        let (_, scheme) = SCHEMES
            .into_iter()
            .find(|(scheme, _)| *scheme == signer.scheme())
            .ok_or(StatementError::Scheme)?;
        Ok(Self { scheme, signer })
    }

    /// The scheme's name.
    #[must_use]
    pub fn scheme(&self) -> &'static str {
        self.scheme
    }

    /// Signs.
    ///
    /// # Errors
    ///
    /// [`StatementError::Key`].
    pub fn sign(&self, statement: &[u8]) -> Result<Vec<u8>, StatementError> {
        self.signer.sign(statement).map_err(StatementError::Key)
    }
}

/// Who made a statement: the chain is judged as it was at that time.
///
/// # Errors
///
/// [`StatementError`].
pub fn verify_statement(
    roots: &Roots,
    at: SystemTime,
    chain: &[CertificateDer<'static>],
    (scheme, statement, signature): (&str, &[u8], &[u8]),
) -> Result<PeerIdentity, StatementError> {
    let (leaf, intermediates) = chain.split_first().ok_or(LeafError::Absent)?;
    roots.accepts_client(leaf, intermediates, at).map_err(StatementError::Chain)?;
    let (scheme, _) =
        SCHEMES.into_iter().find(|(_, name)| *name == scheme).ok_or(StatementError::Scheme)?;
    let certificate = webpki::EndEntityCert::try_from(leaf)
        .map_err(|error| LeafError::Malformed(error.to_string()))?;
    let provider = provider();
    let mapping = provider.signature_verification_algorithms.mapping;
    let (_, algorithms) =
        mapping.iter().find(|(of, _)| *of == scheme).ok_or(StatementError::Scheme)?;
    let is_good = algorithms
        .iter()
        .any(|algorithm| certificate.verify_signature(*algorithm, statement, signature).is_ok());
    if !is_good {
        return Err(StatementError::Signature);
    }
    Ok(peer_identity(chain)?)
}
