//! One published configuration: the compiled rules with what a thread needs to act on them.
//!
//! In:    a [`Runtime`], resolved DNS names, the secret store.
//! Out:   an immutable [`Config`]: clusters with endpoints and balancers, TLS configurations.
//! Never: changes after it is published. Parts that did not change are shared with the one before.
//!
//! Built on the control thread; read by all workers.

use std::{
    collections::HashMap,
    fmt,
    net::{IpAddr, SocketAddr},
    ops::Deref,
    path::PathBuf,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Instant,
};

use arc_swap::ArcSwap;
use foldhash::fast::RandomState;
use sluis_rules::{
    AccessLog, Address, Balancer, Cluster, Direction, DownstreamTls, EndpointAddress, Endpoints,
    FilterChain, Listener, Network, Observed, Runtime, TcpProxy, TcpTarget, UpstreamTls,
};
use sluis_tls::{ClientTls, Clock, SecretStore, ServerTls};
use tracing::warn;

use crate::{
    access_log::Logs,
    audit::AuditLog,
    bound::BoundSet,
    buckets::Buckets,
    credentials::{self, Limits, Ready, Tokens},
    hosts::{Group, Host},
    key_ring::KeyRing,
    names::DynamicNames,
};

/// The cluster that Istio puts last in a listener when destinations that nobody declared are
/// allowed (`outboundTrafficPolicy: ALLOW_ANY`).
pub(crate) const PASSTHROUGH: &str = "PassthroughCluster";

/// What does not change while the process runs.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Data-plane threads. At least 1.
    pub workers: usize,
    /// The directory under which Lua's `require` looks.
    pub lua_path: Option<PathBuf>,
    /// Variables of the process that Lua's `os.getenv` and formats may read.
    pub environment: Arc<HashMap<String, String>>,
    /// The node's identifier, for logs and formats.
    pub node_id: String,
    /// The node's cluster, for formats.
    pub node_cluster: String,
    /// This machine's address, for `x-forwarded-for` of clients that come by loopback.
    pub local_ip: IpAddr,
    /// Where each use of a credential is recorded.
    pub audit: AuditLog,
    /// The buckets of rate limits.
    pub(crate) buckets: Arc<Buckets>,
    /// The keys that tokens of end users are verified by.
    pub(crate) keys: Arc<KeyRing>,
    /// How often grants were used.
    pub(crate) limits: Arc<Limits>,
    /// Tokens of authorization servers.
    pub(crate) tokens: Arc<Tokens>,
}

/// A cluster ready for use: endpoints that can be dialled, and the choice among them.
#[derive(Debug)]
pub struct Backend {
    cluster: Arc<Cluster>,
    /// The endpoints, with names replaced by addresses.
    pub endpoints: Arc<Endpoints>,
    /// What the process knows of each endpoint, in the same order; `None` for one without address.
    pub(crate) hosts: Vec<Option<Arc<Host>>>,
    /// What is under way.
    pub(crate) group: Arc<Group>,
    /// The choice as things are: made anew when an endpoint's health changes.
    choice: ArcSwap<Choice>,
    /// TLS by the settings' place in memory, which the cluster keeps alive.
    tls: HashMap<usize, ClientTls>,
    /// What is done to each request last of all.
    credentials: Vec<Ready>,
}

/// A cluster's own settings.
impl Deref for Backend {
    type Target = Cluster;

    fn deref(&self) -> &Cluster {
        &self.cluster
    }
}

/// A balancer, with a number that no other has.
#[derive(Debug)]
pub(crate) struct Choice {
    pub(crate) number: u64,
    pub(crate) balancer: Balancer,
}

impl Choice {
    fn new(cluster: &Cluster, endpoints: &Endpoints, hosts: &[Option<Arc<Host>>]) -> Self {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        let now = Instant::now();
        let observe = |place: usize| match &hosts[place] {
            Some(host) => host.observed(cluster.slow_start.as_ref(), now),
            None => Observed::from(endpoints.list[place].health),
        };
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        Self { number, balancer: Balancer::new(cluster, endpoints, observe) }
    }
}

/// The hosts of endpoints, those that are known taken over.
fn hosts(
    cluster: &Cluster,
    endpoints: &Endpoints,
    before: Option<&Arc<Backend>>,
) -> Vec<Option<Arc<Host>>> {
    let known: HashMap<&Address, &Arc<Host>> = before
        .iter()
        .flat_map(|before| before.hosts.iter().flatten())
        .map(|host| (host.address(), host))
        .collect();
    let is_checked = !cluster.health_checks.is_empty();
    let was_checked = before.is_some_and(|before| !before.health_checks.is_empty());
    let host = |endpoint: &sluis_rules::Endpoint| {
        let EndpointAddress::Fixed(address) = &endpoint.address else { return None };
        let is_checked = is_checked && !endpoint.probe.is_disabled;
        Some(match known.get(address) {
            Some(host) if is_checked == was_checked => Arc::clone(host),
            Some(host) if was_checked => {
                host.unwatch();
                Arc::clone(host)
            }
            _ => Arc::new(Host::new(address.clone(), is_checked)),
        })
    };
    endpoints.list.iter().map(host).collect()
}

impl Backend {
    fn new(
        cluster: &Arc<Cluster>,
        endpoints: Arc<Endpoints>,
        store: &SecretStore,
        before: Option<&Arc<Self>>,
    ) -> Self {
        let hosts = hosts(cluster, &endpoints, before);
        let choice = ArcSwap::from_pointee(Choice::new(cluster, &endpoints, &hosts));
        let group = before.map(|before| Arc::clone(&before.group)).unwrap_or_default();
        let list = &endpoints.list;
        let mut tls = HashMap::new();
        for settings in list.iter().filter_map(|e| e.tls.as_ref()).chain(&cluster.tls) {
            tls.entry(place_of(settings)).or_insert_with(|| client_tls(cluster, settings, store));
        }
        let credentials = credentials::ready(cluster, store);
        let tls = tls.into_iter().filter_map(|(at, made)| Some((at, made?))).collect();
        Self { cluster: Arc::clone(cluster), endpoints, hosts, group, choice, tls, credentials }
    }

    /// The choice as things are.
    pub(crate) fn choice(&self) -> arc_swap::Guard<Arc<Choice>> {
        self.choice.load()
    }

    /// Makes the choice anew, because an endpoint's health has changed. Not for data threads.
    pub(crate) fn rebalance(&self) {
        let choice = Choice::new(&self.cluster, &self.endpoints, &self.hosts);
        self.choice.store(Arc::new(choice));
    }

    /// What is done to each request last of all.
    pub(crate) fn credentials(&self) -> &[Ready] {
        &self.credentials
    }

    /// The cluster as compiled.
    #[must_use]
    pub fn cluster(&self) -> &Arc<Cluster> {
        &self.cluster
    }

    /// The TLS configuration of these settings of this cluster. `None` when it cannot be made:
    /// the connection must then fail.
    pub(crate) fn client_tls(&self, settings: &Arc<UpstreamTls>) -> Option<&ClientTls> {
        self.tls.get(&place_of(settings))
    }
}

/// One published configuration.
pub struct Config {
    /// The compiled rules.
    pub runtime: Arc<Runtime>,
    /// What does not change.
    pub settings: Arc<Settings>,
    /// The calendar.
    pub clock: Clock,
    /// Counts publications.
    pub generation: u64,
    backends: HashMap<Arc<str>, Arc<Backend>, RandomState>,
    /// By the settings' place in memory, which the runtime's chains keep alive.
    server_tls: HashMap<usize, (Arc<DownstreamTls>, ServerTls)>,
    /// Access logs of listeners and TCP proxies, by their place in memory, which the runtime
    /// keeps alive.
    logs: HashMap<usize, Arc<Logs>>,
    /// The sockets of listeners that are bound.
    pub(crate) bound: BoundSet,
    /// The listener that stands for everything that leaves a workload.
    pub(crate) outbound: Option<Arc<str>>,
    own: OwnAddresses,
    /// Names that are resolved as they are asked for.
    pub(crate) names: Arc<DynamicNames>,
}

impl Config {
    /// A configuration of nothing, before the first one arrives.
    #[must_use]
    pub(crate) fn empty(settings: Arc<Settings>, clock: Clock) -> Self {
        Self {
            runtime: Arc::default(),
            settings,
            clock,
            generation: 0,
            backends: HashMap::default(),
            server_tls: HashMap::new(),
            logs: HashMap::new(),
            bound: BoundSet::new(),
            outbound: None,
            own: OwnAddresses::default(),
            names: Arc::default(),
        }
    }

    /// Makes the configuration that follows `self`. Reads files at first use of their names.
    #[must_use]
    pub(crate) fn next(
        &self,
        runtime: Arc<Runtime>,
        resolve: impl Fn(&Cluster, &str) -> Vec<IpAddr>,
        store: &SecretStore,
        bound: BoundSet,
    ) -> Self {
        let backends = runtime
            .clusters
            .iter()
            .map(|(name, cluster)| {
                let endpoints = resolved(cluster, &resolve);
                let before = self.backends.get(name);
                let same = before.filter(|before| {
                    Arc::ptr_eq(&before.cluster, cluster) && before.endpoints == endpoints
                });
                let backend = same
                    .cloned()
                    .unwrap_or_else(|| Arc::new(Backend::new(cluster, endpoints, store, before)));
                (Arc::clone(name), backend)
            })
            .collect();
        let server_tls = chains(&runtime)
            .filter_map(|chain| chain.tls.as_ref())
            .filter_map(|tls| {
                let at = place_of(tls);
                let kept = self.server_tls.get(&at).filter(|(before, _)| Arc::ptr_eq(before, tls));
                let made = match kept {
                    Some((_, made)) => made.clone(),
                    None => server_tls(tls, store)?,
                };
                Some((at, (Arc::clone(tls), made)))
            })
            .collect();
        Self {
            own: OwnAddresses::of(&runtime),
            names: Arc::clone(&self.names),
            outbound: outbound(&runtime),
            logs: logs(&runtime),
            bound,
            runtime,
            settings: Arc::clone(&self.settings),
            clock: self.clock.clone(),
            generation: self.generation + 1,
            backends,
            server_tls,
        }
    }

    /// All clusters.
    pub(crate) fn backends(&self) -> impl Iterator<Item = &Arc<Backend>> {
        self.backends.values()
    }

    /// A cluster by name, ready for use.
    #[must_use]
    pub fn backend(&self, name: &str) -> Option<&Arc<Backend>> {
        self.backends.get(name)
    }

    /// The TLS configuration of a filter chain. `None` when it cannot be made: the connection
    /// must then be closed.
    pub(crate) fn server_tls(&self, settings: &Arc<DownstreamTls>) -> Option<&ServerTls> {
        self.server_tls.get(&place_of(settings)).map(|(_, made)| made)
    }

    /// The access logs of a listener itself.
    pub(crate) fn listener_logs(&self, listener: &Arc<Listener>) -> Arc<Logs> {
        self.logs.get(&place_of(listener)).cloned().unwrap_or_default()
    }

    /// The access logs of a TCP proxy.
    pub(crate) fn tcp_logs(&self, proxy: &Arc<TcpProxy>) -> Arc<Logs> {
        self.logs.get(&place_of(proxy)).cloned().unwrap_or_default()
    }

    /// Whether a connection to this address would come back to this proxy.
    #[must_use]
    pub(crate) fn is_own(&self, address: SocketAddr) -> bool {
        self.own.holds(address)
    }

    /// Whether destinations that nobody declared may be reached.
    #[must_use]
    pub(crate) fn allows_any(&self) -> bool {
        chains(&self.runtime).any(|chain| match &chain.network {
            Network::Tcp(proxy) => {
                matches!(&proxy.target, TcpTarget::Cluster(name) if &**name == PASSTHROUGH)
            }
            Network::Http(_) => false,
        })
    }
}

impl fmt::Debug for Config {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Config")
            .field("generation", &self.generation)
            .field("listeners", &self.runtime.listeners.len())
            .field("clusters", &self.backends.len())
            .finish_non_exhaustive()
    }
}

/// Istio's name for the listener that takes everything in that leaves a workload.
const VIRTUAL_OUTBOUND: &str = "virtualOutbound";

fn outbound(runtime: &Runtime) -> Option<Arc<str>> {
    let is_outbound = |listener: &&Arc<Listener>| {
        listener.use_original_dst && listener.direction == Direction::Outbound
    };
    let named = runtime.listeners.get(VIRTUAL_OUTBOUND);
    let found = named.or_else(|| runtime.listeners.values().find(is_outbound));
    found.map(|listener| Arc::clone(&listener.name))
}

/// Compiles the access logs. That they can be compiled was checked before (`control::check`).
fn logs(runtime: &Runtime) -> HashMap<usize, Arc<Logs>> {
    let compile = |logs: &[AccessLog]| Logs::compile(logs).map(Arc::new).unwrap_or_default();
    let listeners = runtime.listeners.values().map(|l| (place_of(l), compile(&l.access_logs)));
    let proxies = chains(runtime).filter_map(|chain| match &chain.network {
        Network::Tcp(proxy) => Some((place_of(proxy), compile(&proxy.access_logs))),
        Network::Http(_) => None,
    });
    listeners.chain(proxies).collect()
}

/// Every filter chain of every listener.
pub(crate) fn chains(runtime: &Runtime) -> impl Iterator<Item = &Arc<FilterChain>> {
    runtime
        .listeners
        .values()
        .flat_map(|listener| listener.chains.iter().chain(&listener.default_chain))
}

fn place_of<T>(shared: &Arc<T>) -> usize {
    Arc::as_ptr(shared) as usize
}

fn resolved(cluster: &Cluster, resolve: &impl Fn(&Cluster, &str) -> Vec<IpAddr>) -> Arc<Endpoints> {
    let named =
        |endpoint: &sluis_rules::Endpoint| matches!(endpoint.address, EndpointAddress::Name { .. });
    if !cluster.endpoints.list.iter().any(named) {
        return Arc::clone(&cluster.endpoints);
    }
    Arc::new(cluster.endpoints.resolved(&cluster.discovery, |host| resolve(cluster, host)))
}

fn client_tls(
    cluster: &Cluster,
    settings: &Arc<UpstreamTls>,
    store: &SecretStore,
) -> Option<ClientTls> {
    let derived = cluster.auto_san_validation && !settings.auto_sni_san_validation;
    let made = if derived {
        let settings = UpstreamTls { auto_sni_san_validation: true, ..(**settings).clone() };
        ClientTls::new(&settings, store)
    } else {
        ClientTls::new(settings, store)
    };
    made.inspect_err(|error| {
        warn!(cluster = %cluster.name, %error, "TLS towards a cluster cannot be set up: its connections will fail");
    })
    .ok()
}

fn server_tls(settings: &DownstreamTls, store: &SecretStore) -> Option<ServerTls> {
    ServerTls::new(settings, store)
        .inspect_err(|error| {
            warn!(%error, "TLS of a filter chain cannot be set up: its connections will be closed");
        })
        .ok()
}

/// The addresses that this proxy listens on.
#[derive(Debug, Default)]
struct OwnAddresses {
    exact: Vec<SocketAddr>,
    /// Ports on a wildcard address.
    any: Vec<u16>,
}

impl OwnAddresses {
    fn of(runtime: &Runtime) -> Self {
        let mut own = Self::default();
        for listener in runtime.listeners.values().filter(|listener| listener.bind_to_port) {
            for address in listener.additional.iter().chain([&listener.address]) {
                match address {
                    Address::Socket(address) if address.ip().is_unspecified() => {
                        own.any.push(address.port());
                    }
                    Address::Socket(address) => own.exact.push(*address),
                    Address::Pipe(_) | Address::Internal(_) => {}
                }
            }
        }
        own
    }

    fn holds(&self, address: SocketAddr) -> bool {
        self.exact.contains(&address)
            || (self.any.contains(&address.port()) && is_local(address.ip()))
    }
}

/// Whether the address is one of this machine's: only those can be bound.
fn is_local(ip: IpAddr) -> bool {
    ip.is_unspecified()
        || ip.is_loopback()
        || std::net::UdpSocket::bind(SocketAddr::new(ip, 0)).is_ok()
}
