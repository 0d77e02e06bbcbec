//! The authority: its root, and the certificates that it signs.
//!
//! In:    a state directory; an identity that has been proven; a request that has been checked.
//! Out:   chains, leaf first and root last; a line in the log for each.
//! Never: takes a name from a request. The proven identity is the only name.

use std::{
    fmt,
    path::{Path, PathBuf},
    time::{Duration, SystemTime},
};

use aws_lc_rs::digest::{SHA256, digest};
use rcgen::{
    BasicConstraints, Certificate, CertificateParams, DistinguishedName, DnType,
    ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair as SigningKey, KeyUsagePurpose,
    PKCS_ECDSA_P256_SHA256, PublicKeyData, SanType, SerialNumber,
};
use sluis_nouns::{TrustDomain, WorkloadId};
use sluis_tls::{Clock, KeyPair, Leaf, Roots, SecretError};
use time::{OffsetDateTime, format_description::well_known::Rfc3339};

use crate::{
    Entry, FileError, Proof, SigningRequest,
    files::{self, Access},
    log::IssueLog,
};

const KEY_FILE: &str = "root-key.pem";
const CERT_FILE: &str = "root-cert.pem";
const LOG_FILE: &str = "issued.jsonl";

/// As Istio's self-signed root.
const ROOT_LIFETIME: Duration = Duration::from_secs(10 * 365 * 24 * 3600);
/// How far another machine's clock may be behind, as Istio allows.
const CLOCK_SKEW_MAX: Duration = Duration::from_secs(120);
/// Random, positive, and below the 20 bytes of RFC 5280 §4.1.2.2.
const SERIAL_BYTES: usize = 16;

/// What an authority may sign.
#[derive(Clone, Debug)]
pub struct AuthorityConfig {
    /// The trust domain of its identities.
    pub trust_domain: TrustDomain,
    /// Longest life of a certificate, and the life of one for which none was asked. Default 24 h.
    pub lifetime_max: Duration,
}

/// A certificate authority with its root in a directory.
pub struct Authority {
    config: AuthorityConfig,
    clock: Clock,
    issuer: Issuer<'static, SigningKey>,
    root_pem: String,
    root_path: PathBuf,
    root: Leaf,
    log: IssueLog,
}

/// A signed certificate.
#[derive(Clone, Debug)]
pub struct Issued {
    /// PEM texts: the leaf, then the root.
    pub chain: Vec<String>,
    /// The serial number, lower-case hexadecimal.
    pub serial: String,
    /// Until when it is valid.
    pub not_after: SystemTime,
}

/// Why there is no authority.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// A file cannot be used.
    #[error(transparent)]
    File(#[from] FileError),
    /// There is a root certificate, and its key is gone.
    #[error(
        "{cert} is there and its key {key} is not: restore the key, or move both away for a new root"
    )]
    NoKey {
        /// The certificate.
        cert: PathBuf,
        /// Where the key should be.
        key: PathBuf,
    },
    /// Key and certificate do not fit, or cannot be read.
    #[error("{path}: {source}")]
    Root {
        /// The certificate.
        path: PathBuf,
        /// Why.
        source: SecretError,
    },
    /// The root is no longer, or not yet, valid.
    #[error("{path}: the root certificate is not valid at this time")]
    Validity {
        /// The certificate.
        path: PathBuf,
    },
    /// The root could not be made or read.
    #[error("root: {0}")]
    Sign(#[from] rcgen::Error),
}

/// Why a certificate was not issued.
#[derive(Debug, thiserror::Error)]
pub enum IssueError {
    /// The identity is of another trust domain.
    #[error("{id} is not of the trust domain {domain}")]
    TrustDomain {
        /// The identity.
        id: WorkloadId,
        /// The authority's own.
        domain: TrustDomain,
    },
    /// The root has expired.
    #[error("the root certificate has expired")]
    RootExpired,
    /// Signing failed.
    #[error("signing: {0}")]
    Sign(#[from] rcgen::Error),
    /// The log cannot be written; what is not logged is not issued.
    #[error("issue log: {0}")]
    Log(#[from] std::io::Error),
    /// The machine gives no random numbers.
    #[error("no random numbers")]
    NoRandom,
    /// What was signed cannot be read back.
    #[error("the signed certificate: {0}")]
    Own(#[from] SecretError),
}

impl Default for AuthorityConfig {
    fn default() -> Self {
        let day = Duration::from_secs(24 * 3600);
        Self { trust_domain: TrustDomain::default(), lifetime_max: day }
    }
}

impl Authority {
    /// Opens the authority of a directory, and makes its root at the first start.
    ///
    /// # Errors
    ///
    /// [`OpenError`]. A root that cannot be used is never replaced by a new one.
    pub fn open(dir: &Path, config: AuthorityConfig, clock: Clock) -> Result<Self, OpenError> {
        files::make_dir(dir)?;
        let (key_path, cert_path) = (dir.join(KEY_FILE), dir.join(CERT_FILE));
        let key_pem = files::read(&key_path, Access::Private)?;
        let cert_pem = files::read(&cert_path, Access::Public)?;
        let (key, root_pem) = match (key_pem, cert_pem) {
            (Some(key_pem), Some(cert_pem)) => (SigningKey::from_pem(&key_pem)?, cert_pem),
            // A first start that was cut off between the two files.
            (Some(key_pem), None) => {
                let key = SigningKey::from_pem(&key_pem)?;
                let cert_pem = make_root(&key, &config.trust_domain, &clock)?;
                files::write(&cert_path, &cert_pem, Access::Public)?;
                (key, cert_pem)
            }
            (None, Some(_)) => return Err(OpenError::NoKey { cert: cert_path, key: key_path }),
            (None, None) => {
                let key = SigningKey::generate_for(&PKCS_ECDSA_P256_SHA256)?;
                let cert_pem = make_root(&key, &config.trust_domain, &clock)?;
                files::write(&key_path, &key.serialize_pem(), Access::Private)?;
                files::write(&cert_path, &cert_pem, Access::Public)?;
                (key, cert_pem)
            }
        };
        let pair = KeyPair::from_pem(root_pem.as_bytes(), key.serialize_pem().as_bytes())
            .map_err(|source| OpenError::Root { path: cert_path.clone(), source })?;
        let root = pair.leaf().clone();
        let now = clock.now();
        if now < root.not_before || now >= root.not_after {
            return Err(OpenError::Validity { path: cert_path });
        }
        Ok(Self {
            issuer: Issuer::from_ca_cert_pem(&root_pem, key)?,
            log: IssueLog::open(&dir.join(LOG_FILE))?,
            root_path: cert_path,
            root_pem,
            root,
            config,
            clock,
        })
    }

    /// The root certificate, PEM.
    #[must_use]
    pub fn root_pem(&self) -> &str {
        &self.root_pem
    }

    /// The file of the root certificate: what workloads recognise the authority by.
    #[must_use]
    pub fn root_path(&self) -> &Path {
        &self.root_path
    }

    /// Until when the root is valid.
    #[must_use]
    pub fn root_ends(&self) -> SystemTime {
        self.root.not_after
    }

    /// What the authority may sign.
    #[must_use]
    pub fn config(&self) -> &AuthorityConfig {
        &self.config
    }

    pub(crate) fn clock(&self) -> &Clock {
        &self.clock
    }

    /// Signs a certificate for a workload that has shown who it is.
    ///
    /// `wish` is the life that it asked for; it gets at most [`AuthorityConfig::lifetime_max`],
    /// and that when it asked for none.
    ///
    /// # Errors
    ///
    /// [`IssueError`].
    pub fn issue(
        &self,
        id: &WorkloadId,
        request: &SigningRequest,
        wish: Option<Duration>,
        proof: Proof,
    ) -> Result<Issued, IssueError> {
        if *id.trust_domain() != self.config.trust_domain {
            let domain = self.config.trust_domain.clone();
            return Err(IssueError::TrustDomain { id: id.clone(), domain });
        }
        let uri = SanType::URI(id.to_string().try_into()?);
        let max = self.config.lifetime_max;
        let lifetime = wish.map_or(max, |wish| wish.min(max));
        self.sign(vec![uri], &id.to_string(), request.key(), lifetime, proof)
    }

    /// Until when the newest certificate of an identity is valid; `None` when none was ever issued
    /// (as far as the issue log goes back).
    #[must_use]
    pub fn latest_end(&self, id: &WorkloadId) -> Option<SystemTime> {
        self.log.latest_end(&id.to_string())
    }

    /// Signs a certificate for the authority's own server, with a fresh key.
    ///
    /// # Errors
    ///
    /// [`IssueError`].
    pub fn issue_server(&self, names: &[String]) -> Result<(KeyPair, Roots), IssueError> {
        let key = SigningKey::generate_for(&PKCS_ECDSA_P256_SHA256)?;
        let sans = names
            .iter()
            .map(|name| Ok(SanType::DnsName(name.as_str().try_into()?)))
            .collect::<Result<_, rcgen::Error>>()?;
        let identity = format!("dns:{}", names.join(","));
        let issued = self.sign(sans, &identity, &key, self.config.lifetime_max, Proof::Own)?;
        let pair = KeyPair::from_pem(issued.chain[0].as_bytes(), key.serialize_pem().as_bytes())?;
        Ok((pair, Roots::from_pem(self.root_pem.as_bytes())?))
    }

    fn sign(
        &self,
        sans: Vec<SanType>,
        identity: &str,
        key: &impl PublicKeyData,
        lifetime: Duration,
        proof: Proof,
    ) -> Result<Issued, IssueError> {
        let now = self.clock.now();
        let not_after = (now + lifetime).min(self.root.not_after);
        if not_after <= now {
            return Err(IssueError::RootExpired);
        }
        let mut serial = [0; SERIAL_BYTES];
        aws_lc_rs::rand::fill(&mut serial).map_err(|_| IssueError::NoRandom)?;
        // Positive, and of a fixed length in DER.
        serial[0] = serial[0] & 0x7f | 0x40;
        let mut params = CertificateParams::default();
        params.not_before = (now - CLOCK_SKEW_MAX).max(self.root.not_before).into();
        params.not_after = not_after.into();
        params.serial_number = Some(SerialNumber::from_slice(&serial));
        // Without a subject the names become critical (RFC 5280 §4.1.2.6), as in Istio.
        params.distinguished_name = DistinguishedName::new();
        params.subject_alt_names = sans;
        params.is_ca = IsCa::ExplicitNoCa;
        params.key_usages =
            vec![KeyUsagePurpose::DigitalSignature, KeyUsagePurpose::KeyEncipherment];
        params.extended_key_usages =
            vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
        params.use_authority_key_identifier_extension = true;
        let leaf: Certificate = params.signed_by(key, &self.issuer)?;
        let serial: String = serial.iter().map(|byte| format!("{byte:02x}")).collect();
        self.log.append(&Entry {
            time: rfc3339(now),
            serial: serial.clone(),
            identity: identity.to_owned(),
            not_after: rfc3339(not_after),
            proof,
        })?;
        tracing::info!(identity, serial, ?proof, "certificate issued");
        Ok(Issued { chain: vec![leaf.pem(), self.root_pem.clone()], serial, not_after })
    }
}

impl fmt::Debug for Authority {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Authority")
            .field("config", &self.config)
            .field("root_serial", &self.root.serial)
            .finish_non_exhaustive()
    }
}

/// A self-signed root for a key.
fn make_root(key: &SigningKey, domain: &TrustDomain, clock: &Clock) -> Result<String, OpenError> {
    let now = clock.now();
    let mut params = CertificateParams::default();
    params.not_before = (now - CLOCK_SKEW_MAX).into();
    params.not_after = (now + ROOT_LIFETIME).into();
    params.distinguished_name = DistinguishedName::new();
    params.distinguished_name.push(DnType::OrganizationName, domain.as_str());
    // Two roots must not have one name: a peer of the other would look like a forgery.
    let digest = digest(&SHA256, key.public_key_raw());
    let mark: String = digest.as_ref()[..4].iter().map(|byte| format!("{byte:02x}")).collect();
    params.distinguished_name.push(DnType::CommonName, format!("Sluis mesh root {mark}"));
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    Ok(params.self_signed(key)?.pem())
}

/// The time in whole seconds, as certificates have it.
fn rfc3339(time: SystemTime) -> String {
    let time = OffsetDateTime::from(time);
    time.replace_nanosecond(0).unwrap_or(time).format(&Rfc3339).unwrap_or_default()
}

#[cfg(test)]
mod tests;
