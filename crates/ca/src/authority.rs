//! The authority: its root and intermediate, and the certificates that it signs.
//!
//! In:    a state directory, perhaps an operator's own authority; an identity that has been proven; a
//!        request that has been checked.
//! Out:   chains, leaf first and trusted roots last; a line in the log for each.
//! Never: takes a name from a request. The proven identity is the only name.
//!
//! Start at [`Authority::open`]; the change of the root is in [`rotation`].

mod opening;
mod rotation;
mod status;

use std::{
    fmt,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError, RwLock},
    time::{Duration, SystemTime},
};

use rcgen::{KeyPair as SigningKey, PKCS_ECDSA_P256_SHA256, PublicKeyData, SanType, SerialNumber};
use rustls_pki_types::CertificateDer;
use serde_json::Value;
use sluis_nouns::{TrustDomain, WorkloadId};
use sluis_tls::{Clock, KeyPair, Roots, SecretError, certificate_pem};
use time::{OffsetDateTime, format_description::well_known::Rfc3339};
use tokio::sync::watch;

pub use opening::OpenError;
pub use rotation::{RotateError, Step};
pub use status::{AuthorityStatus, IssuerStatus, Pending, RootStatus};

use crate::{
    Entry, Grounds, Proof, SigningRequest, bundle,
    log::IssueLog,
    own::CLOCK_SKEW_MAX,
    record::Record,
    signer::{Signer, leaf_params},
};

/// The file of the trusted roots.
const BUNDLE_FILE: &str = "root-cert.pem";
const LOG_FILE: &str = "issued.jsonl";

/// Random, positive, and below the 20 bytes of RFC 5280 §4.1.2.2.
const SERIAL_BYTES: usize = 16;

/// What an authority may sign.
#[derive(Clone, Debug)]
pub struct AuthorityConfig {
    /// The trust domain of its identities.
    pub trust_domain: TrustDomain,
    /// Other names of the trust domain, as in Istio's `trustDomainAliases`: who proves an identity of
    /// one of them is the same workload, and gets a certificate of the trust domain itself.
    pub aliases: Vec<TrustDomain>,
    /// Longest life of a certificate, and the life of one for which none was asked. Default 24 h.
    pub lifetime_max: Duration,
}

/// A certificate authority with its state in a directory.
pub struct Authority {
    config: AuthorityConfig,
    clock: Clock,
    dir: PathBuf,
    current: RwLock<Arc<Current>>,
    /// One change at a time.
    changing: Mutex<()>,
    changes: watch::Sender<u64>,
    log: IssueLog,
    /// The serial number of the server's own certificate.
    own: Mutex<Option<String>>,
}

/// What signs, and what is trusted.
struct Current {
    record: Record,
    signer: Signer,
    /// The trusted roots, each once, the oldest first, with the generation that brought it.
    roots: Vec<(u32, CertificateDer<'static>)>,
    bundle: String,
}

/// A signed certificate.
#[derive(Clone, Debug)]
pub struct Issued {
    /// PEM texts: the leaf, the intermediates, and last all trusted roots in one text.
    pub chain: Vec<String>,
    /// The serial number, lower-case hexadecimal.
    pub serial: String,
    /// Until when it is valid.
    pub not_after: SystemTime,
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
    /// The root, or what signs under it, has expired.
    #[error(
        "the root certificate has expired, or the intermediate and the root's key is not there"
    )]
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
        Self { trust_domain: TrustDomain::default(), aliases: Vec::new(), lifetime_max: day }
    }
}

impl AuthorityConfig {
    /// The identity under the trust domain itself; `None` for one of a foreign trust domain.
    #[must_use]
    pub fn canonical(&self, id: &WorkloadId) -> Option<WorkloadId> {
        let domain = id.trust_domain();
        if *domain == self.trust_domain {
            return Some(id.clone());
        }
        let is_alias = self.aliases.contains(domain);
        let own = self.trust_domain.clone();
        is_alias.then(|| WorkloadId::new(own, id.namespace(), id.service_account()).ok()).flatten()
    }
}

impl Authority {
    /// The trusted roots, PEM.
    #[must_use]
    pub fn roots_pem(&self) -> String {
        self.current().bundle.clone()
    }

    /// The trusted roots as SPIFFE's bundle document.
    #[must_use]
    pub fn spiffe_bundle(&self) -> Value {
        let current = self.current();
        let roots: Vec<_> = current.roots.iter().map(|(_, der)| der.clone()).collect();
        bundle::spiffe(&roots, current.record.epoch)
    }

    /// The file of the trusted roots: what workloads recognise the authority by. It is replaced when
    /// they change.
    #[must_use]
    pub fn root_path(&self) -> PathBuf {
        self.dir.join(BUNDLE_FILE)
    }

    /// The file of the issue log.
    #[must_use]
    pub fn log_path(&self) -> PathBuf {
        self.dir.join(LOG_FILE)
    }

    /// Until when the root of the authority that signs is valid.
    #[must_use]
    pub fn root_ends(&self) -> SystemTime {
        self.current().signer.root_ends()
    }

    /// What the authority may sign.
    #[must_use]
    pub fn config(&self) -> &AuthorityConfig {
        &self.config
    }

    /// Sees each change of the roots and of what signs.
    #[must_use]
    pub fn changes(&self) -> watch::Receiver<u64> {
        self.changes.subscribe()
    }

    pub(crate) fn clock(&self) -> &Clock {
        &self.clock
    }

    fn current(&self) -> Arc<Current> {
        self.current.read().unwrap_or_else(PoisonError::into_inner).clone()
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
        grounds: impl Into<Grounds>,
    ) -> Result<Issued, IssueError> {
        let id = self.config.canonical(id).ok_or_else(|| IssueError::TrustDomain {
            id: id.clone(),
            domain: self.config.trust_domain.clone(),
        })?;
        let uri = SanType::URI(id.to_string().try_into()?);
        let max = self.config.lifetime_max;
        let order = Order {
            names: vec![uri],
            identity: id.to_string(),
            algorithm: request.algorithm(),
            lifetime: wish.map_or(max, |wish| wish.min(max)),
            grounds: grounds.into(),
        };
        self.sign(order, request.key())
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
        let mut own = self.own.lock().unwrap_or_else(PoisonError::into_inner);
        let order = Order {
            names: sans,
            identity: format!("dns:{}", names.join(",")),
            algorithm: "ECDSA P-256",
            lifetime: self.config.lifetime_max,
            grounds: Grounds { proof: Proof::Own, replaces: own.take() },
        };
        let issued = self.sign(order, &key)?;
        *own = Some(issued.serial);
        let (roots, chain) = issued.chain.split_last().ok_or(IssueError::RootExpired)?;
        let pair = KeyPair::from_pem(chain.concat().as_bytes(), key.serialize_pem().as_bytes())?;
        Ok((pair, Roots::from_pem(roots.as_bytes())?))
    }

    fn sign(&self, order: Order, key: &impl PublicKeyData) -> Result<Issued, IssueError> {
        let now = self.clock.now();
        let mut current = self.current();
        if current.signer.ends() < now + order.lifetime {
            self.renew_intermediate();
            current = self.current();
        }
        let signer = &current.signer;
        let not_after = (now + order.lifetime).min(signer.ends());
        if not_after <= now {
            return Err(IssueError::RootExpired);
        }
        let serial_bytes = serial()?;
        let mut params = leaf_params(order.names);
        params.not_before = (now - CLOCK_SKEW_MAX).max(signer.starts()).into();
        params.not_after = not_after.into();
        params.serial_number = Some(SerialNumber::from_slice(&serial_bytes));
        let leaf = signer.sign(&params, key)?;
        let serial: String = serial_bytes.iter().map(|byte| format!("{byte:02x}")).collect();
        let (identity, proof) = (order.identity, order.grounds.proof);
        let entry = Entry {
            time: rfc3339(now),
            serial: serial.clone(),
            identity: identity.clone(),
            not_after: rfc3339(not_after),
            proof,
            key: order.algorithm.to_owned(),
            issuer: signer.cert().serial.clone(),
            epoch: current.record.epoch,
            replaces: order.grounds.replaces,
            previous: String::new(),
        };
        self.log.append(entry, now)?;
        tracing::info!(identity, serial, ?proof, "certificate issued");
        let between = signer.chain().iter().cloned();
        let chain = std::iter::once(leaf).chain(between).chain([current.bundle.clone()]).collect();
        Ok(Issued { chain, serial, not_after })
    }
}

/// What is to be signed, but for the key.
struct Order {
    names: Vec<SanType>,
    identity: String,
    algorithm: &'static str,
    lifetime: Duration,
    grounds: Grounds,
}

impl Current {
    fn new(record: Record, signer: Signer, roots: Vec<(u32, CertificateDer<'static>)>) -> Self {
        let bundle = roots.iter().map(|(_, der)| certificate_pem(der)).collect();
        Self { record, signer, roots, bundle }
    }
}

impl fmt::Debug for Authority {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let current = self.current();
        f.debug_struct("Authority")
            .field("config", &self.config)
            .field("signer", &current.signer)
            .field("record", &current.record)
            .finish_non_exhaustive()
    }
}

fn serial() -> Result<[u8; SERIAL_BYTES], IssueError> {
    let mut serial = [0; SERIAL_BYTES];
    aws_lc_rs::rand::fill(&mut serial).map_err(|_| IssueError::NoRandom)?;
    // Positive, and of a fixed length in DER.
    serial[0] = serial[0] & 0x7f | 0x40;
    Ok(serial)
}

/// The time in whole seconds, as certificates have it.
fn rfc3339(time: SystemTime) -> String {
    let time = OffsetDateTime::from(time);
    time.replace_nanosecond(0).unwrap_or(time).format(&Rfc3339).unwrap_or_default()
}

/// The folder of one generation.
fn generation_dir(dir: &Path, number: u32) -> PathBuf {
    dir.join(format!("generation-{number}"))
}

#[cfg(test)]
mod rotation_tests;
#[cfg(test)]
mod tests;
