//! Gets the workload's certificate and renews it for as long as the workload lives.
//!
//! In:    where the authority is, who we are, a join token for the first time.
//! Out:   `default` and `ROOTCA` in the [`SecretStore`]; a [`Status`] for those who ask.
//! Never: sends a key anywhere, closes a connection, or takes an answer for somebody else.
//!
//! Start at [`Renewal::run`]. When to renew is decided in [`schedule`].

mod schedule;
mod trust;

use std::{
    path::{Path, PathBuf},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, SystemTime},
};

use hyper_util::rt::TokioIo;
use rcgen::{
    CertificateParams, KeyPair as SigningKey, PKCS_ECDSA_P256_SHA256, PKCS_RSA_SHA256, RsaKeySize,
};
use sluis_nouns::WorkloadId;
use sluis_tls::{
    ClientTls, Clock, KeyPair, LeafError, Roots, SecretError, SecretStore, SettingsError, Slot,
    WORKLOAD_CERTIFICATE, certificate_pem,
};
use tokio::{net::TcpStream, sync::watch};
use tonic::transport::Endpoint;

use self::{schedule::Backoff, trust::Trust};
use crate::{CertificateClient, IstioCertificateRequest};

/// Longest attempt: connecting, the handshake and the answer together.
const ATTEMPT_TIMEOUT: Duration = Duration::from_secs(10);
/// Longest sleep at once: after a suspended machine wakes, renewal is late by this at most.
const NAP_MAX: Duration = Duration::from_secs(10);
/// A join token is under 100 bytes, a Kubernetes token some 2 kB.
const TOKEN_BYTES_MAX: u64 = 16 << 10;

/// How a workload gets its certificate.
#[derive(Clone, Debug)]
pub struct RenewalConfig {
    /// Who we are.
    pub id: WorkloadId,
    /// Where the authority listens, `HOST:PORT`.
    pub ca_address: String,
    /// The name that the authority's certificate must have, as `istiod.istio-system.svc`.
    pub ca_name: String,
    /// The file of the roots by which the authority is recognised.
    pub ca_roots: PathBuf,
    /// The file of the join token, read at each attempt that needs one.
    pub token: PathBuf,
    /// How long certificates should be valid; `None` leaves it to the authority.
    pub lifetime: Option<Duration>,
    /// The kind of the workload's key.
    pub key: KeyKind,
}

/// The kind of a workload's key.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum KeyKind {
    /// ECDSA on the curve P-256.
    #[default]
    EcdsaP256,
    /// RSA with 2048 bits, for peers that know nothing else.
    Rsa2048,
    /// RSA with 3072 bits.
    Rsa3072,
    /// RSA with 4096 bits.
    Rsa4096,
}

impl KeyKind {
    /// The kind that Istio's `WORKLOAD_RSA_KEY_SIZE` asks for; `None` for another size.
    #[must_use]
    pub fn rsa(bits: &str) -> Option<Self> {
        match bits {
            "2048" => Some(Self::Rsa2048),
            "3072" => Some(Self::Rsa3072),
            "4096" => Some(Self::Rsa4096),
            _ => None,
        }
    }

    fn generate(self) -> Result<SigningKey, rcgen::Error> {
        let rsa = |size| SigningKey::generate_rsa_for(&PKCS_RSA_SHA256, size);
        match self {
            Self::EcdsaP256 => SigningKey::generate_for(&PKCS_ECDSA_P256_SHA256),
            Self::Rsa2048 => rsa(RsaKeySize::_2048),
            Self::Rsa3072 => rsa(RsaKeySize::_3072),
            Self::Rsa4096 => rsa(RsaKeySize::_4096),
        }
    }
}

/// The state of the workload's certificate.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Status {
    /// Who we are.
    pub id: WorkloadId,
    /// The certificate that is in use.
    pub certificate: Option<CertificateStatus>,
    /// How many certificates there have been, this one included.
    pub issued: u64,
    /// What the last attempt met, when it failed.
    pub last_error: Option<String>,
}

/// What is known of one certificate.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CertificateStatus {
    /// Its serial number, lower-case hexadecimal.
    pub serial: String,
    /// Not valid before.
    pub not_before: SystemTime,
    /// Not valid after.
    pub not_after: SystemTime,
    /// When the next one will be asked for.
    pub renew_at: SystemTime,
}

/// Why an attempt to get a certificate failed.
#[derive(Debug, thiserror::Error)]
pub enum RenewalError {
    /// The token's file cannot be read.
    #[error("token {path}: {source}")]
    Token {
        /// The file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// The TLS settings cannot be used.
    #[error(transparent)]
    Settings(#[from] SettingsError),
    /// The key or the request could not be made.
    #[error("certificate request: {0}")]
    Request(#[from] rcgen::Error),
    /// The address is none.
    #[error("authority address {address}: {source}")]
    Address {
        /// The address.
        address: String,
        /// Why.
        source: tonic::transport::Error,
    },
    /// The authority refused or could not be reached.
    #[error("authority at {address}: {} ({:?})", .status.message(), .status.code())]
    Call {
        /// Where it was asked.
        address: String,
        /// Its answer.
        status: Box<tonic::Status>,
    },
    /// No answer in time.
    #[error("authority at {address} gave no answer within {ATTEMPT_TIMEOUT:?}")]
    Silent {
        /// Where it was asked.
        address: String,
    },
    /// The answer is not a chain with its root.
    #[error("the authority answered with {0} certificates, expected a chain and its root")]
    Chain(usize),
    /// The answer cannot be used.
    #[error("the authority's answer: {0}")]
    Answer(#[from] SecretError),
    /// The answer breaks SPIFFE's rules.
    #[error("the authority's answer: {0}")]
    Leaf(#[from] LeafError),
    /// The answer is for somebody else.
    #[error("the authority's answer is for {found:?}, not for {wanted}")]
    OtherIdentity {
        /// Who we are.
        wanted: WorkloadId,
        /// The URI names of the answer.
        found: Vec<String>,
    },
    /// The answer is not valid now.
    #[error("the authority's answer is not valid at this time: check both clocks")]
    Validity,
}

/// The task that keeps the certificate fresh.
#[derive(Debug)]
pub struct Renewal {
    config: RenewalConfig,
    store: SecretStore,
    status: watch::Sender<Status>,
    trust: Mutex<Trust>,
    /// The folder to which certificate and key are written too.
    output: Option<PathBuf>,
}

impl Renewal {
    /// A task that will fill `store`; nothing happens before [`Renewal::run`].
    #[must_use]
    pub fn new(config: RenewalConfig, store: SecretStore) -> Self {
        let status = watch::Sender::new(Status {
            id: config.id.clone(),
            certificate: None,
            issued: 0,
            last_error: None,
        });
        Self { config, store, status, trust: Mutex::default(), output: None }
    }

    /// Writes each certificate with its key and the roots to a folder too, for programs that read files:
    /// `cert-chain.pem`, `key.pem` and `root-cert.pem`, for their owner alone (Istio's `OUTPUT_CERTS`).
    #[must_use]
    pub fn with_output(self, folder: Option<PathBuf>) -> Self {
        Self { output: folder, ..self }
    }

    /// The state as it is, and each change of it.
    #[must_use]
    pub fn status(&self) -> watch::Receiver<Status> {
        self.status.subscribe()
    }

    /// Gets the first certificate and renews it until `shutdown`.
    pub async fn run(self, shutdown: impl Future<Output = ()>) {
        tokio::select! {
            () = shutdown => {}
            () = self.renew_forever() => {}
        }
    }

    async fn renew_forever(&self) {
        let clock = self.store.clock().clone();
        let mut backoff = Backoff::new();
        // While the slot is held, the store watches the file.
        let file = self.store.slot(&self.roots_name()).ok();
        loop {
            self.read_file(file.as_ref());
            match self.attempt().await {
                Ok(certificate) => {
                    tracing::info!(id = %self.config.id, serial = certificate.serial,
                        "certificate issued");
                    let renew_at = certificate.renew_at;
                    self.status.send_modify(|status| {
                        status.issued += 1;
                        status.certificate = Some(certificate);
                        status.last_error = None;
                    });
                    backoff = Backoff::new();
                    self.rest(&clock, renew_at, file.as_ref()).await;
                }
                Err(error) => {
                    let error = error.to_string();
                    let wait = backoff.next(self.left(&clock));
                    tracing::warn!(id = %self.config.id, error, ?wait, "certificate not issued");
                    self.status.send_modify(|status| status.last_error = Some(error));
                    tokio::time::sleep(wait).await;
                }
            }
        }
    }

    /// Waits until it is time to renew: at the hour, or shortly after other roots are trusted, so that
    /// the authority sees who knows of them.
    async fn rest(&self, clock: &Clock, renew_at: SystemTime, file: Option<&Arc<Slot>>) {
        let mut changes = self.store.changes();
        loop {
            tokio::select! {
                () = sleep_until(clock, renew_at) => return,
                changed = changes.changed() => if changed.is_err() { return },
            }
            if self.read_file(file) {
                tokio::time::sleep(schedule::soon()).await;
                return;
            }
        }
    }

    /// Looks at the file of roots as it was read last; true when others are trusted now.
    fn read_file(&self, file: Option<&Arc<Slot>>) -> bool {
        let Some(roots) = file.and_then(|slot| slot.roots()) else { return false };
        let Some(all) = self.trust().file(roots.certificates()) else { return false };
        match Roots::of(&all) {
            Ok(roots) => {
                tracing::info!(id = %self.config.id, count = all.len(), "the trusted roots changed");
                self.store.set_mesh_roots(roots);
                true
            }
            Err(error) => {
                tracing::warn!(%error, "the roots in the file are not usable");
                false
            }
        }
    }

    /// A panic under this lock cannot leave the lists half changed.
    fn trust(&self) -> MutexGuard<'_, Trust> {
        self.trust.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn roots_name(&self) -> String {
        format!("file-root:{}", self.config.ca_roots.display())
    }

    /// How long the certificate in use is still valid.
    fn left(&self, clock: &Clock) -> Option<Duration> {
        let not_after = self.status.borrow().certificate.as_ref()?.not_after;
        not_after.duration_since(clock.now()).ok().filter(|left| !left.is_zero())
    }

    async fn attempt(&self) -> Result<CertificateStatus, RenewalError> {
        let silent = || RenewalError::Silent { address: self.config.ca_address.clone() };
        tokio::time::timeout(ATTEMPT_TIMEOUT, self.ask()).await.map_err(|_| silent())?
    }

    async fn ask(&self) -> Result<CertificateStatus, RenewalError> {
        let has_certificate = self.left(self.store.clock()).is_some();
        let token = if has_certificate { None } else { Some(read_token(&self.config.token)?) };
        let key = self.config.key.generate()?;
        let request = IstioCertificateRequest {
            csr: signing_request(&self.config.id, &key)?,
            validity_duration: self
                .config
                .lifetime
                .map_or(0, |lifetime| i64::try_from(lifetime.as_secs()).unwrap_or(i64::MAX)),
            metadata: None,
        };
        let channel = self.channel(has_certificate)?;
        let chain = CertificateClient::new(channel)
            .create_certificate(request, token.as_deref())
            .await
            .map_err(|status| RenewalError::Call {
                address: self.config.ca_address.clone(),
                status: Box::new(status),
            })?;
        self.take(&chain, &key)
    }

    /// Checks the answer and puts it into use.
    fn take(&self, chain: &[String], key: &SigningKey) -> Result<CertificateStatus, RenewalError> {
        let Some((root, chain @ [_, ..])) = chain.split_last() else {
            return Err(RenewalError::Chain(chain.len()));
        };
        let pair = KeyPair::from_pem(chain.concat().as_bytes(), key.serialize_pem().as_bytes())?;
        let roots = Roots::from_pem(root.as_bytes())?;
        let leaf = pair.leaf().clone();
        if leaf.identity()?.id.as_ref() != Some(&self.config.id) {
            let wanted = self.config.id.clone();
            return Err(RenewalError::OtherIdentity { wanted, found: leaf.uris });
        }
        let now = self.store.clock().now();
        let left = leaf.not_after.duration_since(now).map_err(|_| RenewalError::Validity)?;
        if leaf.not_before > now || left.is_zero() {
            return Err(RenewalError::Validity);
        }
        let trusted = self.trust().answer(roots.certificates());
        if let Some(folder) = &self.output {
            let roots: String = trusted.iter().map(|root| certificate_pem(root)).collect();
            let files = [
                ("root-cert.pem", roots),
                ("key.pem", key.serialize_pem()),
                ("cert-chain.pem", chain.concat()),
            ];
            if let Err(error) = write_all(folder, &files) {
                // The proxy itself needs no files.
                tracing::warn!(folder = %folder.display(), %error, "certificate not written");
            }
        }
        self.store.set_identity(pair, Roots::of(&trusted)?);
        Ok(CertificateStatus {
            serial: leaf.serial,
            not_before: leaf.not_before,
            not_after: leaf.not_after,
            renew_at: now + schedule::until_renewal(left),
        })
    }

    fn channel(&self, show_certificate: bool) -> Result<tonic::transport::Channel, RenewalError> {
        let roots = self.roots_name();
        let certificate = show_certificate.then_some(WORKLOAD_CERTIFICATE);
        let tls = ClientTls::grpc(certificate, &roots, &self.config.ca_name, &self.store)?;
        let address = self.config.ca_address.clone();
        let endpoint = Endpoint::from_shared(format!("http://{address}"))
            .map_err(|source| RenewalError::Address { address: address.clone(), source })?;
        Ok(endpoint.connect_with_connector_lazy(tower::service_fn(move |_: http::Uri| {
            let (tls, address) = (tls.clone(), address.clone());
            async move {
                let socket = TcpStream::connect(&address).await?;
                socket.set_nodelay(true)?;
                Ok::<_, std::io::Error>(TokioIo::new(tls.connect(socket, None).await?))
            }
        })))
    }
}

/// Writes files for their owner alone, each whole: who reads them sees the old one or the new one.
fn write_all(folder: &Path, files: &[(&str, String)]) -> std::io::Result<()> {
    use std::{fs, io::Write as _, os::unix::fs::OpenOptionsExt as _};
    fs::create_dir_all(folder)?;
    for (name, text) in files {
        let fresh = folder.join(format!(".{name}.new"));
        // One that a killed process left would keep its permissions.
        let _none = fs::remove_file(&fresh);
        let mut file =
            fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(&fresh)?;
        file.write_all(text.as_bytes())?;
        fs::rename(fresh, folder.join(name))?;
    }
    Ok(())
}

/// Waits by the time of day, which may be set, and in naps, since a machine may sleep.
async fn sleep_until(clock: &Clock, then: SystemTime) {
    while let Ok(left) = then.duration_since(clock.now())
        && !left.is_zero()
    {
        tokio::time::sleep(left.min(NAP_MAX)).await;
    }
}

/// The request names us as Istio's agents do; the authority goes by who we prove to be.
fn signing_request(id: &WorkloadId, key: &SigningKey) -> Result<String, rcgen::Error> {
    let mut params = CertificateParams::default();
    params.distinguished_name = rcgen::DistinguishedName::new();
    params.subject_alt_names = vec![rcgen::SanType::URI(id.to_string().try_into()?)];
    params.serialize_request(key)?.pem()
}

fn read_token(path: &Path) -> Result<String, RenewalError> {
    use std::io::Read as _;
    let fault = |source| RenewalError::Token { path: path.to_owned(), source };
    let mut text = String::new();
    let file = std::fs::File::open(path).map_err(fault)?;
    file.take(TOKEN_BYTES_MAX).read_to_string(&mut text).map_err(fault)?;
    Ok(text.trim().to_owned())
}
