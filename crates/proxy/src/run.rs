//! Runs the data plane: starts the workers, keeps them configured, ends them in order.
//!
//! In:    [`Options`] and the word to stop.
//! Out:   an exit without a lost request, as far as the time allows.
//! Never: exits the process or reads the environment; the binary does.
//!
//! Start at [`run`].

use std::{
    cell::RefCell, collections::BTreeMap, io, path::PathBuf, pin::pin, rc::Rc, sync::Arc,
    time::Duration,
};

use sluis_identity::{KeyKind, Renewal, RenewalConfig, Status, WorkloadApi};
use sluis_nouns::{TrustDomain, WorkloadId};
use sluis_rules::{Address, EndpointAddress, compile};
use sluis_tls::{ClientTls, Clock, SecretStore};
use sluis_xds::{CONTROL_PLANE_NAME, Client, ClientConfig, ClientHandle, Delivery};
use tokio::{
    runtime::{Builder, LocalOptions},
    sync::{Notify, mpsc, oneshot, watch},
    task::JoinSet,
    time::{Instant, sleep_until, timeout},
};
use tracing::{info, warn};

use crate::{
    audit::{AuditLog, AuditSettings, AuditWriter},
    bootstrap::{Bootstrap, BootstrapError},
    config::{Config, Settings},
    control::{
        Control, Parts, admin, handoff, nameserver,
        probes::{StatusError, StatusPort},
        resolver::Resolver,
    },
    log_sink::{LogSender, LogWriter},
    random::Random,
    stats::Stats,
    workers::{Common, Phase, Workers},
};

/// How long the log writer and the last tasks have after the workers ended.
const LAST_WAIT: Duration = Duration::from_millis(500);

/// How long jails wait for the first configuration. Less than a resolver in a jail takes to give up,
/// and than a jail waits to be taken.
const JAILS_WAIT_MAX: Duration = Duration::from_secs(3);

/// Descriptors that are not a connection's: listeners, files, pools, the control plane.
const DESCRIPTORS_RESERVED: usize = 256;

/// The fewest connections that a worker takes, however few descriptors there are.
const CONNECTIONS_MIN: usize = 32;

/// The most connections that a worker takes, however many descriptors there are.
const CONNECTIONS_MAX: usize = 100_000;

/// What the data plane is started with.
#[derive(Debug)]
pub struct Options {
    /// The bootstrap.
    pub bootstrap: Bootstrap,
    /// Data-plane threads. At least 1.
    pub workers: usize,
    /// How long connections have to finish when the process stops.
    pub drain: Duration,
    /// How many file descriptors the process may have open.
    pub descriptors: usize,
    /// What `file-root:system` reads; `None` tries the usual places.
    pub system_roots: Option<PathBuf>,
    /// Variables of the process that scripts and formats may read.
    pub environment: std::collections::HashMap<String, String>,
    /// When the process started, for the time to ready.
    pub started: std::time::Instant,
    /// Gives free memory of the calling thread back to the system, where the allocator must be asked.
    pub give_back: Option<fn()>,
    /// Told once when the proxy is ready: for those who run it inside their own process.
    pub ready: Option<oneshot::Sender<Ready>>,
}

/// The proxy does what it was asked to do.
#[derive(Clone, Debug)]
pub struct Ready {
    /// Where listeners listen, by name; with the port that the kernel chose when 0 was asked for.
    pub listeners: BTreeMap<String, Address>,
}

/// Why the data plane cannot start.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// The bootstrap is not accepted.
    #[error(transparent)]
    Bootstrap(#[from] BootstrapError),
    /// The fixed resources do not compile.
    #[error("static resources: {}", .0.join("; "))]
    Fixed(Vec<String>),
    /// A listener of the bootstrap cannot listen.
    #[error("{}", .0.join("; "))]
    Listen(Vec<String>),
    /// The status port cannot be served.
    #[error(transparent)]
    Status(#[from] StatusError),
    /// The operating system refuses something.
    #[error("{what}: {source}")]
    System {
        /// What was tried.
        what: String,
        /// Why not.
        #[source]
        source: io::Error,
    },
}

fn system<T>(what: impl Into<String>, result: io::Result<T>) -> Result<T, RunError> {
    result.map_err(|source| RunError::System { what: what.into(), source })
}

/// Runs the data plane on this thread and its workers until `stop`, then drains it.
///
/// # Errors
///
/// [`RunError`] when it cannot start. Once it runs, it ends only by `stop` (or a drain by admin).
pub fn run(options: Options, stop: impl Future<Output = ()>) -> Result<(), RunError> {
    let mut builder = Builder::new_current_thread();
    // Only DNS look-ups and files use the pool.
    builder.enable_all().max_blocking_threads(8).thread_keep_alive(Duration::from_secs(5));
    let runtime = system("runtime", builder.build_local(LocalOptions::default()))?;
    let (writer, logs) = system("access-log writer", LogWriter::start())?;
    let done = runtime.block_on(async {
        let proxy = Proxy::start(options, logs).await?;
        proxy.work(stop).await;
        Ok(())
    });
    runtime.shutdown_timeout(LAST_WAIT);
    if done.is_ok() {
        writer.join();
    }
    done
}

/// The running data plane, on the control thread.
struct Proxy {
    control: Control,
    resolver: Rc<Resolver>,
    workers: Rc<Workers>,
    alive: mpsc::Receiver<()>,
    view: Rc<admin::View>,
    secrets: watch::Receiver<u64>,
    deliveries: Option<mpsc::Receiver<Delivery>>,
    ready: watch::Sender<bool>,
    told: Option<oneshot::Sender<Ready>>,
    phase: watch::Sender<Phase>,
    drain: Duration,
    started: std::time::Instant,
    tasks: JoinSet<()>,
    /// Ends after the workers: what they used is in the log then.
    auditor: Option<AuditWriter>,
}

impl Proxy {
    #[expect(clippy::too_many_lines, reason = "each part is made once and handed to the next")]
    async fn start(mut options: Options, logs: LogSender) -> Result<Self, RunError> {
        let told = options.ready.take();
        let Options { bootstrap, workers: count, drain, started, .. } = &options;
        let count = (*count).max(1);
        let store = SecretStore::new(Clock::system(), options.system_roots.clone());
        let stats = Stats::new(count + 1);
        let (audit, auditor) = match AuditSettings::of(bootstrap)? {
            Some(settings) => {
                let (log, writer) = system("audit writer", AuditLog::start(settings, &store))?;
                (log, Some(writer))
            }
            None => (AuditLog::default(), None),
        };
        let settings = settings(&options, count, audit.clone());
        let empty = Config::empty(settings, store.clock().clone());
        let resolver = Rc::new(Resolver::new(Arc::clone(&empty.names)));
        let (publisher, config) = watch::channel(Arc::new(empty));
        let (ready, is_ready) = watch::channel(false);
        let (phase, phases) = watch::channel(Phase::Running);
        let mut tasks = JoinSet::new();

        let handle = match &bootstrap.ads_cluster {
            Some(name) => Some(start_client(&mut tasks, bootstrap, name, &store)?),
            None => None,
        };
        let connected = handle.as_ref().map(|handle| handle.connected.clone());
        let (deliveries, subscriptions) =
            handle.map(|handle| (handle.deliveries, handle.subscriptions)).unzip();
        let parts = Parts {
            store: store.clone(),
            resolver: Rc::clone(&resolver),
            config: publisher,
            subscriptions,
            wants_names: bootstrap.metadata("SLUIS_HANDOFF").is_some() || captures_names(bootstrap),
        };
        let mut control = Control::new(parts, bootstrap.fixed.clone()).map_err(RunError::Fixed)?;
        let refusals = control.publish();
        if !refusals.is_empty() {
            return Err(RunError::Listen(refusals));
        }

        let shards: Vec<_> = (0..count).map(|worker| stats.shard(worker)).collect();
        let common = Common {
            config: config.clone(),
            phase: phases,
            logs,
            connections_max: connections_max(options.descriptors, count),
            give_back: options.give_back,
        };
        let (workers, alive) = system("workers", Workers::start(&common, &shards))?;
        let workers = Rc::new(workers);
        let written = options.environment.get(OUTPUT_CERTS).filter(|path| !path.is_empty());
        let identity = start_identity(&mut tasks, bootstrap, &store, written.map(Into::into))?;
        if let Some(path) = bootstrap.path("SLUIS_HANDOFF") {
            let receiver = system(
                format!("handoff socket {}", path.display()),
                handoff::bind(&path, &workload(bootstrap)),
            )?;
            let stats = stats.shard(count);
            let jails = handoff::serve(receiver, Rc::clone(&workers), config.clone(), stats);
            let mut ready = is_ready.clone();
            tasks.spawn_local(async move {
                // Until then what a jail asks waits in its sockets, rather than being refused.
                // The guard that this gives must not live on: it locks the value.
                drop(timeout(JAILS_WAIT_MAX, ready.wait_for(|ready| *ready)).await);
                jails.await;
            });
        }
        if captures_names(bootstrap) {
            let sockets = system("name queries, port 15053", nameserver::bind())?;
            let stats = stats.shard(count);
            tasks.spawn_local(nameserver::serve(sockets, config.clone(), stats));
        }
        let probers = options.environment.get(PROBERS).map_or("", String::as_str);
        if let Some(status) = status_port(bootstrap, probers, Some(is_ready.clone()))? {
            tasks.spawn_local(status.serve());
        }
        let view = Rc::new(admin::View {
            node: bootstrap.node.id.clone(),
            stats,
            config,
            wanted: RefCell::new(bootstrap.fixed.clone()),
            ready: is_ready,
            connected,
            identity,
            store: store.clone(),
            drain: Notify::new(),
            audit,
        });
        if let Some((address, mode)) = &bootstrap.admin {
            let listening =
                system(format!("admin address {address}"), admin::bind(address, *mode))?;
            tasks.spawn_local(admin::serve(listening, address.clone(), Rc::clone(&view)));
        }
        tasks.spawn_local(Rc::clone(&resolver).run());
        let secrets = store.changes();
        tasks.spawn_local(store.run(std::future::pending()));
        let (drain, started) = (*drain, *started);
        Ok(Self {
            control,
            resolver,
            workers,
            alive,
            view,
            secrets,
            deliveries,
            ready,
            told,
            phase,
            drain,
            started,
            tasks,
            auditor,
        })
    }

    /// Follows the control plane until `stop`, then drains.
    async fn work(mut self, stop: impl Future<Output = ()>) {
        let mut stop = pin!(stop);
        loop {
            self.announce().await;
            let deadline = self.control.deadline();
            let health_known = self.control.health_known();
            tokio::select! {
                () = &mut stop => break,
                () = self.view.drain.notified() => break,
                Some(delivery) = next(&mut self.deliveries) => self.take(delivery).await,
                () = self.resolver.changed() => drop(self.control.publish()),
                Ok(()) = self.secrets.changed(), if deadline.is_some() => {
                    drop(self.control.publish());
                }
                () = health_known.notified(), if deadline.is_some() => {
                    drop(self.control.publish());
                }
                () = until(deadline) => drop(self.control.publish()),
            }
        }
        self.finish().await;
    }

    /// Says once that the proxy is ready, when the workers have taken over what makes it so.
    async fn announce(&mut self) {
        if *self.ready.borrow() || !self.control.is_ready() {
            return;
        }
        self.taken_over().await;
        self.ready.send_replace(true);
        let bound = self.view.config.borrow().bound.clone();
        info!(node = %self.view.node, listeners = bound.len(), after = ?self.started.elapsed(), "ready");
        if let Some(told) = self.told.take() {
            let listeners = bound.iter().map(|(name, at)| (name.to_string(), at.address.clone()));
            // Whoever asked may have lost interest.
            let _gone = told.send(Ready { listeners: listeners.collect() });
        }
    }

    /// Waits until the workers do what was published last. A worker that is busy for long holds up
    /// nothing but this.
    async fn taken_over(&self) {
        let generation = self.view.config.borrow().generation;
        if timeout(LAST_WAIT, self.workers.reached(generation)).await.is_err() {
            warn!(generation, "a worker has not taken the configuration over yet");
        }
    }

    async fn take(&mut self, delivery: Delivery) {
        let refusals = self.control.take(&delivery.update);
        self.view.wanted.replace(self.control.wanted().clone());
        if refusals.is_empty() {
            // An accepted update is one that connections meet from now on.
            self.taken_over().await;
            delivery.accept();
        } else {
            let detail = refusals.join("; ");
            warn!(kind = %delivery.update.kind, detail, "update rejected");
            delivery.reject(detail);
        }
    }

    async fn finish(mut self) {
        info!(within = ?self.drain, "draining");
        self.ready.send_replace(false);
        self.phase.send_replace(Phase::Draining(Instant::now() + self.drain));
        // The workers keep the time themselves; this bound is for a worker that is stuck.
        let workers_ended = timeout(self.drain + 2 * LAST_WAIT, self.alive.recv()).await;
        if workers_ended.is_err() {
            warn!("a worker did not end in time");
        }
        self.tasks.shutdown().await;
        drop(self.auditor.take());
        info!("stopped");
    }
}

async fn next(deliveries: &mut Option<mpsc::Receiver<Delivery>>) -> Option<Delivery> {
    match deliveries {
        Some(deliveries) => deliveries.recv().await,
        None => std::future::pending().await,
    }
}

async fn until(deadline: Option<Instant>) {
    match deadline {
        Some(deadline) => sleep_until(deadline).await,
        None => std::future::pending().await,
    }
}

fn settings(options: &Options, workers: usize, audit: AuditLog) -> Arc<Settings> {
    Arc::new(Settings {
        workers,
        audit,
        lua_path: options.bootstrap.path("SLUIS_LUA_PATH"),
        environment: Arc::new(options.environment.clone()),
        node_id: options.bootstrap.node.id.clone(),
        node_cluster: options.bootstrap.node.cluster.clone(),
        local_ip: crate::sockets::local_ip(),
        buckets: Arc::default(),
        keys: Arc::default(),
        limits: Arc::default(),
        tokens: Arc::default(),
    })
}

/// Each proxied connection has two descriptors.
fn connections_max(descriptors: usize, workers: usize) -> usize {
    let share = descriptors.saturating_sub(DESCRIPTORS_RESERVED) / 2 / workers;
    share.clamp(CONNECTIONS_MIN, CONNECTIONS_MAX)
}

/// Whether a packet filter brings the workload's name queries here (Istio's own word for it).
fn captures_names(bootstrap: &Bootstrap) -> bool {
    bootstrap.metadata("SLUIS_HANDOFF").is_none()
        && bootstrap.metadata("DNS_CAPTURE").is_some_and(|value| value == "true")
}

/// The variable with the folder to which the workload's certificate is written (Istio's own).
pub const OUTPUT_CERTS: &str = "OUTPUT_CERTS";

/// The variable in which Istio's injector tells the agent what to ask the application.
pub const PROBERS: &str = "ISTIO_KUBE_APP_PROBERS";

/// Opens the status port that the bootstrap's metadata name; none where there is no such port.
///
/// # Errors
///
/// [`RunError`]: the port, the workload's address or the probers.
pub fn status_port(
    bootstrap: &Bootstrap,
    probers: &str,
    ready: Option<watch::Receiver<bool>>,
) -> Result<Option<StatusPort>, RunError> {
    let Some(port) = bootstrap.metadata("SLUIS_STATUS_PORT") else { return Ok(None) };
    let port = port.parse();
    let port = port.map_err(|_| field("node.metadata.SLUIS_STATUS_PORT", "is no port"))?;
    let own =
        bootstrap.metadata("INSTANCE_IPS").and_then(|ips| ips.split(',').next()?.parse().ok());
    let own = own.ok_or_else(|| field("node.metadata.INSTANCE_IPS", "has no address"))?;
    Ok(Some(StatusPort::open(port, own, probers, ready)?))
}

/// The workload as jails name it: `namespace/name`.
fn workload(bootstrap: &Bootstrap) -> String {
    let part = |key| bootstrap.metadata(key).unwrap_or_default();
    format!("{}/{}", part("NAMESPACE"), part("WORKLOAD_NAME"))
}

fn field(field: &str, message: impl Into<String>) -> RunError {
    BootstrapError::Field { field: field.to_owned(), message: message.into() }.into()
}

/// Starts the client of the control plane, over the bootstrap's cluster for it.
fn start_client(
    tasks: &mut JoinSet<()>,
    bootstrap: &Bootstrap,
    cluster: &str,
    store: &SecretStore,
) -> Result<ClientHandle, RunError> {
    let compiled = compile(&bootstrap.fixed, None);
    let at = format!("static_resources.clusters[{cluster}]");
    let Some(cluster) = compiled.runtime.cluster(cluster) else {
        let faults = compiled.faults.iter().map(ToString::to_string).collect();
        return Err(RunError::Fixed(faults));
    };
    let endpoint = match cluster.endpoints.list.first().map(|endpoint| &endpoint.address) {
        Some(EndpointAddress::Fixed(Address::Socket(address))) => address.to_string(),
        Some(EndpointAddress::Name { host, port }) => format!("{host}:{port}"),
        _ => return Err(field(&at, "needs an endpoint with an IP address or a name")),
    };
    let Some(settings) = cluster.tls.clone() else {
        return Err(field(&at, "the control plane is spoken to over TLS only"));
    };
    let tls = ClientTls::new(&settings, store).map_err(|error| field(&at, error.to_string()))?;
    let own = settings.certificate.as_ref().map(|name| store.slot(name.as_str())).transpose();
    let own = own.map_err(|error| field(&at, error.to_string()))?;
    let random = Random::from_os();
    let (client, handle) = Client::new(ClientConfig {
        endpoint,
        // No connection without our certificate: it could only be refused.
        tls: Arc::new(move || match &own {
            Some(slot) if slot.key_pair().is_none() => None,
            _ => Some(tls.config()),
        }),
        node: bootstrap.node.clone(),
        jitter: Box::new(move || f64::from(random.below(1 << 20) as u32) / f64::from(1 << 20)),
    });
    tasks.spawn_local(client.run(std::future::pending()));
    Ok(handle)
}

/// Starts the renewal of the workload's certificate, when the bootstrap says how to get one.
fn start_identity(
    tasks: &mut JoinSet<()>,
    bootstrap: &Bootstrap,
    store: &SecretStore,
    output: Option<PathBuf>,
) -> Result<Option<watch::Receiver<Status>>, RunError> {
    let Some(renewal) = renewal(bootstrap, store)? else { return Ok(None) };
    let renewal = renewal.with_output(output);
    let status = renewal.status();
    tasks.spawn_local(renewal.run(std::future::pending()));
    if let Some(path) = bootstrap.path("SLUIS_WORKLOAD_API") {
        let api = WorkloadApi::new(store.clone());
        tasks.spawn_local(async move {
            if let Err(error) = api.serve(&path, std::future::pending()).await {
                warn!(%error, "the Workload API is not served");
            }
        });
    }
    Ok(Some(status))
}

/// The renewal that a bootstrap asks for: `None` without a join token.
///
/// # Errors
///
/// [`RunError::Bootstrap`] names the metadata that is missing or malformed.
pub fn renewal(bootstrap: &Bootstrap, store: &SecretStore) -> Result<Option<Renewal>, RunError> {
    let Some(token) = bootstrap.path("SLUIS_JOIN_TOKEN") else { return Ok(None) };
    let need = |key: &str| {
        let at = format!("node.metadata.{key}");
        bootstrap.metadata(key).ok_or_else(|| field(&at, "is missing"))
    };
    let domain = match bootstrap.metadata("SLUIS_TRUST_DOMAIN") {
        Some(text) => text
            .parse()
            .map_err(|error| field("node.metadata.SLUIS_TRUST_DOMAIN", format!("{error}")))?,
        None => TrustDomain::default(),
    };
    let id = WorkloadId::new(domain, need("NAMESPACE")?, need("SERVICE_ACCOUNT")?)
        .map_err(|error| field("node.metadata", error.to_string()))?;
    let config = RenewalConfig {
        id,
        ca_address: need("CA_ADDR")?.to_owned(),
        ca_name: CONTROL_PLANE_NAME.to_owned(),
        ca_roots: need("CA_ROOT_CA")?.into(),
        token,
        lifetime: None,
        key: match bootstrap.metadata("WORKLOAD_RSA_KEY_SIZE") {
            Some(bits) => KeyKind::rsa(bits).ok_or_else(|| {
                field("node.metadata.WORKLOAD_RSA_KEY_SIZE", "is not 2048, 3072 or 4096")
            })?,
            None => KeyKind::default(),
        },
    };
    Ok(Some(Renewal::new(config, store.clone())))
}
