//! Secrets as values: a certificate chain with its key, and the roots that are trusted.
//!
//! In:    PEM text, from files, the certificate service or an Envoy `Secret`.
//! Out:   [`KeyPair`] and [`Roots`], parsed and checked once, ready for handshakes.
//! Never: prints a key. `Debug` shows fingerprints.

use std::{
    fmt,
    sync::Arc,
    time::{SystemTime, UNIX_EPOCH},
};

use envoy_types::pb::envoy::{
    config::core::v3::{DataSource, data_source::Specifier},
    extensions::transport_sockets::tls::v3::{
        CertificateValidationContext, Secret as EnvoySecret, TlsCertificate, secret::Type,
    },
};
use rustls::{
    RootCertStore,
    pki_types::{
        CertificateDer, CertificateRevocationListDer, PrivateKeyDer, UnixTime, pem::PemObject as _,
    },
    server::{WebPkiClientVerifier, danger::ClientCertVerifier},
    sign::CertifiedKey,
};

use crate::{GenericSecret, Leaf, LeafError, provider, verify::base64};

/// A certificate chain, leaf first, with the private key of the leaf.
pub struct KeyPair {
    leaf: Leaf,
    certified: Arc<CertifiedKey>,
    chain_pem: Vec<u8>,
    key_pem: Vec<u8>,
    fingerprint: String,
}

/// Authorities that are trusted to say who a peer is.
pub struct Roots {
    store: Arc<RootCertStore>,
    client_verifier: Arc<dyn ClientCertVerifier>,
    pem: Vec<u8>,
    fingerprint: String,
    crls: Option<Crls>,
}

/// Lists of certificates that were revoked before their time.
pub struct Crls {
    pub(crate) lists: Vec<webpki::CertRevocationList<'static>>,
    pem: Vec<u8>,
    fingerprint: String,
}

/// What a secret's name stands for now.
#[derive(Clone, Debug)]
pub enum Secret {
    /// A certificate with its key.
    KeyPair(Arc<KeyPair>),
    /// Trusted authorities.
    Roots(Arc<Roots>),
    /// Lists of revoked certificates.
    Crls(Arc<Crls>),
    /// Values for filters.
    Generic(Arc<GenericSecret>),
}

/// Why text is no secret that can be used.
#[derive(Debug, thiserror::Error)]
pub enum SecretError {
    /// The text is not PEM.
    #[error("the {what} is not valid PEM: {detail}")]
    Pem {
        /// Which of the texts: certificate chain, private key, roots.
        what: &'static str,
        /// What the parser met.
        detail: String,
    },
    /// The text holds no certificate.
    #[error("the {0} holds no certificate")]
    Empty(&'static str),
    /// The leaf cannot be read.
    #[error(transparent)]
    Leaf(#[from] LeafError),
    /// The key is not that of the certificate, or of no supported kind.
    #[error("the certificate and the private key do not fit: {0}")]
    Pair(rustls::Error),
    /// A root cannot serve as one.
    #[error("certificate {index} of the roots cannot be trusted: {source}")]
    Root {
        /// Which one, from 1.
        index: usize,
        /// Why.
        source: rustls::Error,
    },
    /// The roots cannot verify clients.
    #[error("the roots cannot be used: {0}")]
    Verifier(String),
    /// A generic secret cannot be used.
    #[error("the generic secret cannot be used: {0}")]
    Generic(&'static str),
    /// A list of revoked certificates cannot be used.
    #[error("the list of revoked certificates cannot be used: {0}")]
    Crl(String),
    /// An Envoy secret of a kind, or with a field, that is not supported.
    #[error("secret {name}: {what} is not supported")]
    Unsupported {
        /// The secret's name.
        name: String,
        /// The kind or field.
        what: &'static str,
    },
}

/// How roots that cannot be parsed are treated.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Strictness {
    /// Each certificate must be usable: what a user wrote.
    Each,
    /// At least one must be usable: an operating system's bundle.
    Any,
}

impl KeyPair {
    /// Parses a chain (leaf first) and the key of its leaf, and checks that they fit.
    ///
    /// # Errors
    ///
    /// [`SecretError`] says which part is wrong.
    pub fn from_pem(chain_pem: &[u8], key_pem: &[u8]) -> Result<Self, SecretError> {
        let chain = certificates("certificate chain", chain_pem)?;
        let leaf = Leaf::parse(&chain[0])?;
        let key = PrivateKeyDer::from_pem_slice(key_pem)
            .map_err(|e| SecretError::Pem { what: "private key", detail: e.to_string() })?;
        let fingerprint = fingerprint(&chain);
        let certified =
            CertifiedKey::from_der(chain, key, &provider()).map_err(SecretError::Pair)?;
        Ok(Self {
            leaf,
            certified: Arc::new(certified),
            chain_pem: chain_pem.to_vec(),
            key_pem: key_pem.to_vec(),
            fingerprint,
        })
    }

    /// What the leaf certificate says.
    #[must_use]
    pub fn leaf(&self) -> &Leaf {
        &self.leaf
    }

    /// The chain as DER, leaf first.
    #[must_use]
    pub fn chain(&self) -> &[CertificateDer<'static>] {
        &self.certified.cert
    }

    /// The key as PKCS#8 DER, for the workload itself and nobody else.
    ///
    /// # Errors
    ///
    /// When the key came in another form.
    pub fn pkcs8(&self) -> Result<Vec<u8>, SecretError> {
        match PrivateKeyDer::from_pem_slice(&self.key_pem) {
            Ok(PrivateKeyDer::Pkcs8(key)) => Ok(key.secret_pkcs8_der().to_vec()),
            Ok(_) => Err(SecretError::Pem {
                what: "private key",
                detail: "it is not in the form PKCS#8".to_owned(),
            }),
            Err(error) => Err(SecretError::Pem { what: "private key", detail: error.to_string() }),
        }
    }

    /// The chain and key for a handshake.
    #[must_use]
    pub fn certified(&self) -> Arc<CertifiedKey> {
        self.certified.clone()
    }
}

impl Roots {
    /// Parses certificates, each of which is trusted.
    ///
    /// # Errors
    ///
    /// When there is none, or one cannot be used.
    pub fn from_pem(pem: &[u8]) -> Result<Self, SecretError> {
        Self::parse(pem, Strictness::Each)
    }

    pub(crate) fn parse(pem: &[u8], strictness: Strictness) -> Result<Self, SecretError> {
        let certs = certificates("trusted roots", pem)?;
        let mut store = RootCertStore::empty();
        for (index, cert) in certs.iter().enumerate() {
            match (store.add(cert.clone()), strictness) {
                (Ok(()), _) | (Err(_), Strictness::Any) => {}
                (Err(source), Strictness::Each) => {
                    return Err(SecretError::Root { index: index + 1, source });
                }
            }
        }
        let store = Arc::new(store);
        let client_verifier =
            WebPkiClientVerifier::builder_with_provider(store.clone(), provider())
                .build()
                .map_err(|error| SecretError::Verifier(error.to_string()))?;
        let fingerprint = fingerprint(&certs);
        Ok(Self { store, client_verifier, pem: pem.to_vec(), fingerprint, crls: None })
    }

    /// Makes roots of certificates.
    ///
    /// # Errors
    ///
    /// As [`Roots::from_pem`].
    pub fn of(certificates: &[CertificateDer<'_>]) -> Result<Self, SecretError> {
        let pem: String = certificates.iter().map(|one| certificate_pem(one)).collect();
        Self::from_pem(pem.as_bytes())
    }

    /// The trusted certificates.
    #[must_use]
    pub fn certificates(&self) -> Vec<CertificateDer<'static>> {
        CertificateDer::pem_slice_iter(&self.pem).filter_map(Result::ok).collect()
    }

    /// Judges a chain as a server would judge its client's, at a time.
    ///
    /// # Errors
    ///
    /// What the handshake would say.
    pub fn accepts_client(
        &self,
        leaf: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: SystemTime,
    ) -> Result<(), rustls::Error> {
        let now = UnixTime::since_unix_epoch(now.duration_since(UNIX_EPOCH).unwrap_or_default());
        self.client_verifier.verify_client_cert(leaf, intermediates, now).map(drop)
    }

    /// The lists of revoked certificates that came with the roots.
    pub(crate) fn crls(&self) -> Option<&Crls> {
        self.crls.as_ref()
    }

    pub(crate) fn store(&self) -> &RootCertStore {
        &self.store
    }

    pub(crate) fn client_verifier(&self) -> &dyn ClientCertVerifier {
        self.client_verifier.as_ref()
    }
}

impl Crls {
    /// Parses lists.
    ///
    /// # Errors
    ///
    /// When there is none, or one cannot be read.
    pub fn from_pem(pem: &[u8]) -> Result<Self, SecretError> {
        let fault = |error: &dyn fmt::Display| SecretError::Crl(error.to_string());
        let mut lists = Vec::new();
        let mut digest = aws_lc_rs::digest::Context::new(&aws_lc_rs::digest::SHA256);
        for der in CertificateRevocationListDer::pem_slice_iter(pem) {
            let der = der.map_err(|error| fault(&error))?;
            digest.update(&der);
            let list = webpki::OwnedCertRevocationList::from_der(&der);
            lists.push(list.map_err(|error| fault(&error))?.into());
        }
        if lists.is_empty() {
            return Err(SecretError::Crl("it holds no list in PEM".to_owned()));
        }
        Ok(Self { lists, pem: pem.to_vec(), fingerprint: hex(digest.finish().as_ref()) })
    }
}

impl fmt::Debug for Crls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Crls").field("fingerprint", &self.fingerprint).finish_non_exhaustive()
    }
}

impl Secret {
    /// A digest of the certificates, in hexadecimal: equal secrets have equal ones. Of a generic
    /// secret it is the version's label: nothing is derived from its values.
    #[must_use]
    pub fn fingerprint(&self) -> &str {
        match self {
            Self::KeyPair(pair) => &pair.fingerprint,
            Self::Roots(roots) => &roots.fingerprint,
            Self::Crls(crls) => &crls.fingerprint,
            Self::Generic(secret) => secret.version(),
        }
    }

    /// The secret as Envoy's message, with inline data: for an SDS answer, never for a log.
    #[must_use]
    pub fn to_envoy(&self, name: &str) -> EnvoySecret {
        let kind = match self {
            Self::KeyPair(pair) => Type::TlsCertificate(TlsCertificate {
                certificate_chain: inline(&pair.chain_pem),
                private_key: inline(&pair.key_pem),
                ..TlsCertificate::default()
            }),
            Self::Roots(roots) => Type::ValidationContext(CertificateValidationContext {
                trusted_ca: inline(&roots.pem),
                crl: roots.crls.as_ref().and_then(|crls| inline(&crls.pem)),
                ..CertificateValidationContext::default()
            }),
            Self::Crls(crls) => Type::ValidationContext(CertificateValidationContext {
                crl: inline(&crls.pem),
                ..CertificateValidationContext::default()
            }),
            Self::Generic(secret) => Type::GenericSecret(secret.to_envoy()),
        };
        EnvoySecret { name: name.to_owned(), r#type: Some(kind) }
    }

    /// Reads Envoy's message. Only inline data is taken: a remote side names no files here.
    ///
    /// # Errors
    ///
    /// [`SecretError::Unsupported`] for another kind or for data that is not inline.
    pub fn from_envoy(secret: &EnvoySecret) -> Result<Self, SecretError> {
        let unsupported = |what| SecretError::Unsupported { name: secret.name.clone(), what };
        let data = |source: &Option<DataSource>, what| match source.as_ref()?.specifier.as_ref()? {
            Specifier::InlineBytes(bytes) => Some(Ok(bytes.clone())),
            Specifier::InlineString(text) => Some(Ok(text.clone().into_bytes())),
            _ => Some(Err(unsupported(what))),
        };
        match &secret.r#type {
            Some(Type::TlsCertificate(certificate)) => {
                let chain = data(&certificate.certificate_chain, "a certificate chain by file")
                    .unwrap_or_else(|| Err(unsupported("a certificate without a chain")))?;
                let key = data(&certificate.private_key, "a private key by file")
                    .unwrap_or_else(|| Err(unsupported("a certificate without a key")))?;
                Ok(Self::KeyPair(Arc::new(KeyPair::from_pem(&chain, &key)?)))
            }
            Some(Type::ValidationContext(context)) => {
                let known = CertificateValidationContext {
                    trusted_ca: context.trusted_ca.clone(),
                    crl: context.crl.clone(),
                    ..CertificateValidationContext::default()
                };
                if known != *context {
                    return Err(unsupported(
                        "a validation context with more than trusted_ca and crl",
                    ));
                }
                let pem = data(&context.trusted_ca, "trusted_ca by file")
                    .unwrap_or_else(|| Err(unsupported("a validation context without roots")))?;
                let mut roots = Roots::from_pem(&pem)?;
                if let Some(crl) = data(&context.crl, "crl by file").transpose()? {
                    let crls = Crls::from_pem(&crl)?;
                    roots.fingerprint.push_str(&crls.fingerprint);
                    roots.crls = Some(crls);
                }
                Ok(Self::Roots(Arc::new(roots)))
            }
            Some(Type::SessionTicketKeys(_)) => Err(unsupported("session_ticket_keys")),
            Some(Type::GenericSecret(generic)) => {
                Ok(Self::Generic(Arc::new(GenericSecret::from_envoy(&secret.name, generic)?)))
            }
            None => Err(unsupported("a secret without content")),
        }
    }
}

impl fmt::Debug for KeyPair {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("KeyPair").field("fingerprint", &self.fingerprint).finish_non_exhaustive()
    }
}

impl fmt::Debug for Roots {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Roots").field("fingerprint", &self.fingerprint).finish_non_exhaustive()
    }
}

fn inline(bytes: &[u8]) -> Option<DataSource> {
    let specifier = Some(Specifier::InlineBytes(bytes.to_vec()));
    Some(DataSource { specifier, ..DataSource::default() })
}

fn certificates(
    what: &'static str,
    pem: &[u8],
) -> Result<Vec<CertificateDer<'static>>, SecretError> {
    let certs: Vec<_> = CertificateDer::pem_slice_iter(pem)
        .collect::<Result<_, _>>()
        .map_err(|error| SecretError::Pem { what, detail: error.to_string() })?;
    if certs.is_empty() { Err(SecretError::Empty(what)) } else { Ok(certs) }
}

/// One certificate as PEM (RFC 7468).
#[must_use]
pub fn certificate_pem(der: &[u8]) -> String {
    let body = base64(der);
    let mut text = String::from("-----BEGIN CERTIFICATE-----\n");
    for at in (0..body.len()).step_by(64) {
        text.push_str(&body[at..body.len().min(at + 64)]);
        text.push('\n');
    }
    text.push_str("-----END CERTIFICATE-----\n");
    text
}

/// SHA-256 over the certificates. The key needs no part in it: it fits the leaf.
fn fingerprint(certs: &[CertificateDer<'_>]) -> String {
    let mut digest = aws_lc_rs::digest::Context::new(&aws_lc_rs::digest::SHA256);
    for cert in certs {
        digest.update(cert);
    }
    hex(digest.finish().as_ref())
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
