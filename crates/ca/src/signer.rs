//! One certificate authority's certificates, in the layout of Istio's `cacerts`, checked before use.
//!
//! In:    four PEM texts: the signing certificate, its key, the chain above it, the roots.
//! Out:   a [`Signer`]; or which text breaks which rule.
//! Never: signs with what a peer would not accept: a probe is signed and verified first.
//!
//! Start at [`Signer::check`].

use std::{fmt, time::SystemTime};

use rcgen::{
    CertificateParams, DistinguishedName, ExtendedKeyUsagePurpose, IsCa, Issuer,
    KeyPair as SigningKey, KeyUsagePurpose, PKCS_ECDSA_P256_SHA256, PKCS_ECDSA_P384_SHA384,
    PKCS_RSA_SHA256, PublicKeyData, SanType,
};
use rustls_pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject as _};
use sluis_nouns::WorkloadId;
use sluis_tls::{KeyPair, Leaf, Roots, certificate_pem};
use x509_parser::{
    certificate::X509Certificate, extensions::ParsedExtension, prelude::FromDer as _,
    public_key::PublicKey,
};

/// Certificates between a leaf and its root. Public authorities have two.
const CHAIN_MAX: usize = 8;
/// Shortest RSA key (NIST SP 800-131A).
const RSA_BITS_MIN: usize = 2048;

/// The texts of one authority, named as in Istio's `cacerts`.
#[derive(Clone)]
pub struct CaFiles {
    /// `ca-cert.pem`: the certificate that signs.
    pub cert: String,
    /// `ca-key.pem`: its private key, PKCS#8, SEC1 or PKCS#1. A secret.
    pub key: String,
    /// `cert-chain.pem`: the certificates from there up; roots in it are left out. May be empty when
    /// a root has signed `cert`.
    pub chain: String,
    /// `root-cert.pem`: what peers are to trust.
    pub roots: String,
}

/// Why an authority's certificates cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum SignerError {
    /// A text is not PEM, or holds nothing.
    #[error("{file}: {detail}")]
    Pem {
        /// Which text.
        file: &'static str,
        /// What is wrong with it.
        detail: String,
    },
    /// The key is encrypted.
    #[error(
        "ca-key.pem: the key is encrypted; decrypt it: nobody is there to ask for a passphrase"
    )]
    Encrypted,
    /// The key is of another kind.
    #[error("ca-key.pem: use ECDSA P-256 or P-384, or RSA of {RSA_BITS_MIN} bits or more")]
    KeyKind,
    /// The key is another one's.
    #[error("ca-key.pem is not the key of ca-cert.pem: {0}")]
    KeyFit(String),
    /// A certificate of the chain may not sign certificates.
    #[error("{subject}: not an authority's certificate: {why}")]
    NotCa {
        /// Whose certificate.
        subject: String,
        /// What it lacks.
        why: &'static str,
    },
    /// RFC 5280 §4.2.1.9.
    #[error(
        "{subject}: its path length allows {allowed} authorities below it, and there are {below}"
    )]
    PathLength {
        /// Whose certificate.
        subject: String,
        /// What it allows.
        allowed: u32,
        /// How many there are.
        below: usize,
    },
    /// A certificate of the chain is not valid now.
    #[error("{subject}: not valid at this time")]
    Validity {
        /// Whose certificate.
        subject: String,
    },
    /// The chain does not reach a root.
    #[error(
        "{subject}: neither root-cert.pem nor cert-chain.pem holds the certificate that signed it"
    )]
    Broken {
        /// The last certificate that was found.
        subject: String,
    },
    /// What it signs would be refused by peers.
    #[error("what it signs would be refused: {0}")]
    Refused(String),
}

/// An authority that can sign.
pub(crate) struct Signer {
    issuer: Issuer<'static, SigningKey>,
    cert: Leaf,
    chain: Vec<String>,
    ends: SystemTime,
    starts: SystemTime,
    root_ends: SystemTime,
    algorithm: &'static str,
}

impl Signer {
    /// Reads and checks an authority's texts.
    ///
    /// `sample` is an identity of the kind that it will sign: name constraints are tried with it.
    pub(crate) fn check(
        files: &CaFiles,
        sample: &WorkloadId,
        clock: &sluis_tls::Clock,
    ) -> Result<Self, SignerError> {
        let certs = certificates("ca-cert.pem", &files.cert)?;
        let roots = certificates("root-cert.pem", &files.roots)?;
        let above = match files.chain.trim() {
            "" => Vec::new(),
            text => certificates("cert-chain.pem", text)?,
        };
        let own = certs[0].clone();
        let (key, algorithm) = signing_key(&files.key)?;
        let pair = KeyPair::from_pem(files.cert.as_bytes(), files.key.as_bytes())
            .map_err(|error| SignerError::KeyFit(error.to_string()))?;
        let pool: Vec<_> = certs[1..].iter().chain(&above).cloned().collect();
        let path = path_to_root(&own, &pool, &roots)?;
        let now = clock.now();
        let facts: Vec<Leaf> = path
            .iter()
            .enumerate()
            .map(|(at, der)| ca_facts(der, at, now))
            .collect::<Result<_, _>>()?;
        let sent = path.iter().filter(|der| !roots.contains(der));
        let issuer = Issuer::from_ca_cert_der(&own, key)
            .map_err(|error| SignerError::Pem { file: "ca-cert.pem", detail: error.to_string() })?;
        let signer = Self {
            issuer,
            cert: pair.leaf().clone(),
            chain: sent.map(|der| certificate_pem(der)).collect(),
            ends: facts.iter().map(|one| one.not_after).min().unwrap_or(now),
            starts: facts.iter().map(|one| one.not_before).max().unwrap_or(now),
            root_ends: facts.last().map_or(now, |root| root.not_after),
            algorithm,
        };
        signer.probe(sample, &files.roots, clock)?;
        Ok(signer)
    }

    /// Signs what a workload would get, and judges it as a peer would.
    fn probe(
        &self,
        sample: &WorkloadId,
        roots: &str,
        clock: &sluis_tls::Clock,
    ) -> Result<(), SignerError> {
        let refused = |error: &dyn fmt::Display| SignerError::Refused(error.to_string());
        let now = clock.now();
        let key = SigningKey::generate_for(&PKCS_ECDSA_P256_SHA256).map_err(|e| refused(&e))?;
        let uri = sample.to_string().try_into().map_err(|e: rcgen::Error| refused(&e))?;
        let mut params = leaf_params(vec![SanType::URI(uri)]);
        params.not_before = self.starts.into();
        params.not_after = self.ends.into();
        let leaf = params.signed_by(&key, &self.issuer).map_err(|e| refused(&e))?;
        let trusted = Roots::from_pem(roots.as_bytes()).map_err(|e| refused(&e))?;
        let between: Vec<_> = self
            .chain
            .iter()
            .filter_map(|pem| CertificateDer::from_pem_slice(pem.as_bytes()).ok())
            .collect();
        trusted.accepts_client(leaf.der(), &between, now).map_err(|error| refused(&error))
    }

    /// A leaf for a key, PEM.
    pub(crate) fn sign(
        &self,
        params: &CertificateParams,
        key: &impl PublicKeyData,
    ) -> Result<String, rcgen::Error> {
        Ok(params.signed_by(key, &self.issuer)?.pem())
    }

    /// The certificates between a leaf and its root, the signing one first; PEM.
    pub(crate) fn chain(&self) -> &[String] {
        &self.chain
    }

    /// When the first certificate of the chain, its root included, runs out.
    pub(crate) fn ends(&self) -> SystemTime {
        self.ends
    }

    /// From when all certificates of the chain are valid.
    pub(crate) fn starts(&self) -> SystemTime {
        self.starts
    }

    /// When the root runs out.
    pub(crate) fn root_ends(&self) -> SystemTime {
        self.root_ends
    }

    /// What the signing certificate says of itself.
    pub(crate) fn cert(&self) -> &Leaf {
        &self.cert
    }

    /// The kind of its key.
    pub(crate) fn algorithm(&self) -> &'static str {
        self.algorithm
    }
}

/// What every leaf has in common: no authority, both purposes, no subject, so that the names become
/// critical (RFC 5280 §4.1.2.6), as in Istio.
pub(crate) fn leaf_params(names: Vec<SanType>) -> CertificateParams {
    let mut params = CertificateParams::default();
    params.distinguished_name = DistinguishedName::new();
    params.subject_alt_names = names;
    params.is_ca = IsCa::ExplicitNoCa;
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature, KeyUsagePurpose::KeyEncipherment];
    params.extended_key_usages =
        vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
    params.use_authority_key_identifier_extension = true;
    params
}

/// All certificates of a PEM text.
pub(crate) fn certificates(
    file: &'static str,
    text: &str,
) -> Result<Vec<CertificateDer<'static>>, SignerError> {
    let certs: Vec<_> = CertificateDer::pem_slice_iter(text.as_bytes())
        .collect::<Result<_, _>>()
        .map_err(|error| SignerError::Pem { file, detail: error.to_string() })?;
    if certs.is_empty() {
        return Err(SignerError::Pem { file, detail: "it holds no certificate".to_owned() });
    }
    Ok(certs)
}

fn signing_key(text: &str) -> Result<(SigningKey, &'static str), SignerError> {
    if text.contains("ENCRYPTED") {
        return Err(SignerError::Encrypted);
    }
    let pem = |error: &dyn fmt::Display| SignerError::Pem {
        file: "ca-key.pem",
        detail: error.to_string(),
    };
    let der = PrivateKeyDer::from_pem_slice(text.as_bytes()).map_err(|error| pem(&error))?;
    let key = SigningKey::try_from(&der).map_err(|_| SignerError::KeyKind)?;
    let algorithm = key.algorithm();
    let name = if *algorithm == PKCS_ECDSA_P256_SHA256 {
        "ECDSA P-256"
    } else if *algorithm == PKCS_ECDSA_P384_SHA384 {
        "ECDSA P-384"
    } else if *algorithm == PKCS_RSA_SHA256 {
        "RSA"
    } else {
        return Err(SignerError::KeyKind);
    };
    Ok((key, name))
}

/// The certificates from the signing one to a root, both included.
fn path_to_root(
    own: &CertificateDer<'static>,
    pool: &[CertificateDer<'static>],
    roots: &[CertificateDer<'static>],
) -> Result<Vec<CertificateDer<'static>>, SignerError> {
    let mut path = vec![own.clone()];
    while let Some(last) = path.last().filter(|last| !roots.contains(last)) {
        let signed = |by: &&CertificateDer<'static>| *by != last && is_signed_by(last, by);
        let next = roots
            .iter()
            .find(signed)
            .or_else(|| pool.iter().filter(|one| !path.contains(one)).find(signed));
        match next {
            Some(next) if path.len() <= CHAIN_MAX => path.push(next.clone()),
            _ => return Err(SignerError::Broken { subject: subject(last) }),
        }
    }
    Ok(path)
}

fn is_signed_by(cert: &CertificateDer<'_>, by: &CertificateDer<'_>) -> bool {
    let (Ok((_, cert)), Ok((_, by))) =
        (X509Certificate::from_der(cert), X509Certificate::from_der(by))
    else {
        return false;
    };
    cert.issuer().as_raw() == by.subject().as_raw()
        && cert.verify_signature(Some(by.public_key())).is_ok()
}

/// What an authority's certificate says; `below` authorities stand between it and leaves.
fn ca_facts(der: &CertificateDer<'_>, below: usize, now: SystemTime) -> Result<Leaf, SignerError> {
    let subject = subject(der);
    let not_ca = |why| SignerError::NotCa { subject: subject.clone(), why };
    let (_, cert) = X509Certificate::from_der(der).map_err(|_| not_ca("it cannot be read"))?;
    let constraints =
        cert.basic_constraints().ok().flatten().ok_or(not_ca("no basic constraints"))?;
    if !constraints.value.ca {
        return Err(not_ca("CA is false"));
    }
    let allowed = constraints.value.path_len_constraint;
    if let Some(allowed) = allowed
        && (allowed as usize) < below
    {
        return Err(SignerError::PathLength { subject, allowed, below });
    }
    let usage = cert.extensions().iter().find_map(|extension| match extension.parsed_extension() {
        ParsedExtension::KeyUsage(usage) => Some(usage.key_cert_sign()),
        _ => None,
    });
    if usage == Some(false) {
        return Err(not_ca("its key usage does not allow to sign certificates"));
    }
    if let Ok(PublicKey::RSA(key)) = cert.public_key().parsed()
        && key.key_size() < RSA_BITS_MIN
    {
        return Err(not_ca("its RSA key is too short"));
    }
    let facts = Leaf::parse(der).map_err(|_| not_ca("it cannot be read"))?;
    if now < facts.not_before || now >= facts.not_after {
        return Err(SignerError::Validity { subject });
    }
    Ok(facts)
}

fn subject(der: &CertificateDer<'_>) -> String {
    X509Certificate::from_der(der)
        .map_or_else(|_| "(unreadable)".to_owned(), |(_, cert)| cert.subject().to_string())
}

impl fmt::Debug for CaFiles {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CaFiles").field("cert", &self.cert).finish_non_exhaustive()
    }
}

impl fmt::Debug for Signer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Signer").field("serial", &self.cert.serial).finish_non_exhaustive()
    }
}
