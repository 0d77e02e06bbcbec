//! A group of endpoints that are interchangeable, and how connections to them are made.

mod dns;
mod health;
mod limits;
mod outlier;
mod transport;

use std::{net::SocketAddr, sync::Arc, time::Duration};

pub use self::{
    dns::{DnsFamily, DnsOptions, DynamicForward, Reach},
    health::{GrpcProbe, HealthCheck, HttpProbe, Probe, TcpProbe},
    limits::{CircuitLimits, Limits, RetryBudget},
    outlier::Outlier,
    transport::{Hop, HttpProxyHop, ProxyProtocol},
};
use crate::{Address, Http1Options, Http2Options, HttpOptions, UpstreamFilter, UpstreamTls};

/// A cluster: where requests or connections can be sent.
#[derive(Clone, Debug, PartialEq)]
pub struct Cluster {
    /// The name that routes and TCP proxies use.
    pub name: Arc<str>,
    /// The name in statistics and in `%UPSTREAM_CLUSTER%` (`alt_stat_name`); else the same one.
    pub stat_name: Arc<str>,
    /// Whether no filter changes what TLS offers (Istio's metadata `alpn_override: "false"`).
    pub keeps_alpn: bool,
    /// How the endpoints are found.
    pub discovery: Discovery,
    /// The endpoints as configured or received. For DNS clusters these are names to resolve; for
    /// EDS they are what the assignment of [`Discovery::Eds`] says, empty until it arrives.
    pub endpoints: Arc<Endpoints>,
    /// How an endpoint is chosen.
    pub policy: LbPolicy,
    /// How endpoints that are new get their share little by little; `None` gives it at once.
    pub slow_start: Option<SlowStart>,
    /// How requests are confined to endpoints with certain metadata.
    pub subsets: Option<Arc<Subsets>>,
    /// Whether localities share the traffic by their own weights.
    pub locality_weighted: bool,
    /// In percent: a priority with fewer healthy endpoints than this uses all of them. Default 50.
    pub panic_threshold: u8,
    /// Whether endpoints that were never checked are left out of every count.
    pub ignores_new_hosts: bool,
    /// Whether connections to an endpoint that is found unhealthy are closed.
    pub closes_on_failure: bool,
    /// How endpoints that answer badly are taken out for a while.
    pub outlier: Option<Arc<Outlier>>,
    /// How endpoints are asked whether they are well.
    pub health_checks: Vec<Arc<HealthCheck>>,
    /// Longest wait for a connection, TLS handshake included. Default 5 s.
    pub connect_timeout: Duration,
    /// TLS towards endpoints that do not say otherwise ([`Endpoint::tls`]), and towards the
    /// original destination. `None` is plaintext.
    pub tls: Option<Arc<UpstreamTls>>,
    /// What comes before TLS towards endpoints that do not say otherwise.
    pub hop: Hop,
    /// Whether the request's host is the SNI (`auto_sni`). HTTP only.
    pub auto_sni: bool,
    /// Whether the server's certificate must be for the request's host. HTTP only.
    pub auto_san_validation: bool,
    /// The HTTP version to speak.
    pub protocol: UpstreamProtocol,
    /// What is done to each request last of all, in order.
    pub filters: Vec<UpstreamFilter>,
    /// Options common to all HTTP versions.
    pub http: HttpOptions,
    /// Options of HTTP/1.1.
    pub http1: Http1Options,
    /// Options of HTTP/2.
    pub http2: Http2Options,
    /// How much may be under way at once.
    pub limits: Limits,
    /// The local addresses to connect from: the first of the endpoint's family. None of it leaves
    /// the choice to the system.
    pub bind_sources: Vec<SocketAddr>,
    /// TCP keep-alive towards the endpoints; `None` leaves it off.
    pub tcp_keepalive: Option<TcpKeepalive>,
    /// How names are resolved.
    pub dns: DnsOptions,
    /// Most bytes held per connection and direction. Default 1 MiB.
    pub buffer_limit: u32,
}

impl Cluster {
    /// A static cluster without endpoints, with Envoy's defaults.
    #[must_use]
    pub fn new(name: &str) -> Self {
        Self {
            name: name.into(),
            stat_name: name.into(),
            keeps_alpn: false,
            discovery: Discovery::Static,
            endpoints: Arc::default(),
            policy: LbPolicy::RoundRobin,
            slow_start: None,
            subsets: None,
            locality_weighted: false,
            panic_threshold: 50,
            ignores_new_hosts: false,
            closes_on_failure: false,
            outlier: None,
            health_checks: Vec::new(),
            connect_timeout: Duration::from_secs(5),
            tls: None,
            hop: Hop::default(),
            auto_sni: false,
            auto_san_validation: false,
            protocol: UpstreamProtocol::Http1,
            filters: Vec::new(),
            http: HttpOptions::default(),
            http1: Http1Options::default(),
            http2: Http2Options::default(),
            limits: Limits::default(),
            bind_sources: Vec::new(),
            tcp_keepalive: None,
            dns: DnsOptions::default(),
            buffer_limit: 1 << 20,
        }
    }
}

/// How a cluster finds its endpoints.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Discovery {
    /// They are in the cluster itself.
    Static,
    /// Names; every address they resolve to is an endpoint.
    StrictDns,
    /// One name; new connections go to the first address it resolves to.
    LogicalDns,
    /// By EDS, under this name.
    Eds {
        /// The name of the assignment: the service name, else the cluster's.
        service: Arc<str>,
    },
    /// The address that the client wanted to reach.
    OriginalDst {
        /// A port to use instead of the client's.
        port_override: Option<u16>,
        /// The request header whose value, an address and port, takes precedence.
        header: Option<Arc<str>>,
    },
    /// The host that the request or the TLS hello names, resolved when it is asked for.
    DynamicForward(Arc<DynamicForward>),
}

/// The endpoints of a cluster, sorted by priority.
#[derive(Clone, Debug, PartialEq)]
pub struct Endpoints {
    /// All endpoints; those of a lower priority number first.
    pub list: Vec<Endpoint>,
    /// Healthy endpoints count this much, in percent, when priorities and localities share the
    /// traffic: at 140 a priority with 72 % of its endpoints healthy still gets everything.
    pub overprovisioning: u32,
    /// Whether a priority's health is counted by weight rather than by endpoint.
    pub weighted_health: bool,
    /// How many of a million requests are dropped, by category, one after the other.
    pub drops: Vec<(Arc<str>, u32)>,
}

impl Default for Endpoints {
    fn default() -> Self {
        Self { list: Vec::new(), overprovisioning: 140, weighted_health: false, drops: Vec::new() }
    }
}

/// One place where a cluster's requests can be sent.
#[derive(Clone, Debug, PartialEq)]
pub struct Endpoint {
    /// Where it is.
    pub address: EndpointAddress,
    /// Its host name, for `auto_host_rewrite` and `auto_host_sni`.
    pub hostname: Option<Arc<str>>,
    /// Its share of the traffic within its priority, relative to the others. At least 1.
    pub weight: u32,
    /// 0 is used first.
    pub priority: u32,
    /// Its health as the control plane sees it.
    pub health: Health,
    /// Where it is, as `region/zone/subzone`; empty when unknown.
    pub locality: Arc<str>,
    /// The share of its locality among those of its priority; 0 gets nothing where localities are
    /// weighted.
    pub locality_weight: u32,
    /// Metadata `envoy.lb`: what subsets are made of. Values are in canonical text, keys sorted.
    pub labels: Labels,
    /// What a consistent hash places it by, when not its address (`hash_key` of the metadata).
    pub hash_key: Option<Arc<str>>,
    /// TLS towards this endpoint: the cluster's, or the first transport socket match that fits.
    pub tls: Option<Arc<UpstreamTls>>,
    /// What comes before TLS, chosen together with it.
    pub hop: Hop,
    /// How it is asked for its health otherwise than the cluster says.
    pub probe: ProbeAddress,
}

impl Endpoint {
    /// A healthy endpoint of weight 1 at an address.
    #[must_use]
    pub fn new(address: EndpointAddress) -> Self {
        Self {
            address,
            hostname: None,
            weight: 1,
            priority: 0,
            health: Health::Healthy,
            locality: Arc::default(),
            locality_weight: 0,
            labels: Labels::default(),
            hash_key: None,
            tls: None,
            hop: Hop::default(),
            probe: ProbeAddress::default(),
        }
    }
}

/// Metadata as sorted pairs of key and canonical text.
pub type Labels = Arc<[(Arc<str>, Arc<str>)]>;

/// Where an endpoint answers health checks, when not where it answers requests.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct ProbeAddress {
    /// Another address.
    pub address: Option<SocketAddr>,
    /// Another port; 0 for none.
    pub port: u16,
    /// The host name to ask for; empty for the cluster's.
    pub hostname: Arc<str>,
    /// Whether its health is not asked for.
    pub is_disabled: bool,
}

/// Where an endpoint is.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum EndpointAddress {
    /// An address that can be connected to.
    Fixed(Address),
    /// A name that must be resolved first.
    Name {
        /// The DNS name.
        host: Arc<str>,
        /// The port.
        port: u16,
    },
}

/// An endpoint's health, as the control plane or a local observer sees it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Default)]
pub enum Health {
    /// Gets requests. An unknown health counts as healthy.
    #[default]
    Healthy,
    /// Gets requests when too few healthy ones are left.
    Degraded,
    /// Gets requests only in panic.
    Unhealthy,
    /// As `Unhealthy`, and left out of every count: it goes, so what it carried is no loss (Envoy
    /// counts it as excluded).
    Draining,
}

/// How an endpoint is chosen.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum LbPolicy {
    /// Each in turn, in proportion to weight.
    RoundRobin,
    /// The least loaded of some drawn at random; with unequal weights in turn, where a weight counts
    /// less the more requests the endpoint has under way.
    LeastRequest {
        /// How many are drawn. Default 2.
        choices: u32,
        /// How much requests under way count against weight, as an exponent. Default 1.
        bias: f64,
        /// Whether all are looked at instead.
        is_full_scan: bool,
    },
    /// At random; weights of endpoints do not matter.
    Random,
    /// By the request's hash, on a ring of hashes (ketama).
    RingHash {
        /// Places on the ring, at least. Default 1024.
        min: u64,
        /// Places on the ring, at most. Default 8 Mi.
        max: u64,
        /// What places are made by.
        function: HashFunction,
        /// Whether host names rather than addresses are placed.
        by_hostname: bool,
    },
    /// By the request's hash, in Maglev's table.
    Maglev {
        /// Slots of the table: a prime. Default 65537.
        slots: u64,
        /// Whether host names rather than addresses are placed.
        by_hostname: bool,
    },
    /// There is nothing to choose: the cluster itself says where to go.
    ClusterProvided,
}

/// What a ring's places are made by.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum HashFunction {
    /// XXH64.
    Xx,
    /// MurmurHash 2, as libstdc++ has it.
    Murmur2,
}

/// How new endpoints get their share little by little.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct SlowStart {
    /// How long it takes.
    pub window: Duration,
    /// Above 1 the share grows fast at first, below 1 slowly. Default 1.
    pub aggression: f64,
    /// The share at the start, from 0 to 1. Default 0.1.
    pub min: f64,
}

/// How requests are confined to endpoints with certain metadata (`lb_subset_config`).
#[derive(Clone, Debug, PartialEq)]
pub struct Subsets {
    /// The combinations of keys by which subsets are made.
    pub selectors: Vec<Selector>,
    /// What happens to a request that asks for no subset, or one that does not exist.
    pub fallback: Fallback,
    /// The subset of [`Fallback::Default`].
    pub default: Labels,
}

/// One combination of keys.
#[derive(Clone, Debug, PartialEq)]
pub struct Selector {
    /// The keys, sorted.
    pub keys: Vec<Arc<str>>,
    /// What happens when the subset does not exist; `None` leaves it to the cluster.
    pub fallback: Option<Fallback>,
    /// The keys that are looked at instead with [`Fallback::Keys`], sorted.
    pub fewer: Vec<Arc<str>>,
}

/// What happens to a request whose subset does not exist.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fallback {
    /// It has no endpoint.
    None,
    /// It may go to any.
    Any,
    /// It goes to the default subset.
    Default,
    /// It asks again by fewer keys.
    Keys,
}

/// The HTTP version spoken to endpoints.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum UpstreamProtocol {
    /// HTTP/1.1.
    Http1,
    /// HTTP/2, with prior knowledge or by ALPN `h2`.
    Http2,
    /// The version that the client spoke.
    Downstream,
    /// What ALPN says: `h2` or HTTP/1.1.
    Auto,
}

/// TCP keep-alive; absent values are the system's.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct TcpKeepalive {
    /// Probes before the connection is given up.
    pub probes: Option<u32>,
    /// Idle time before the first probe.
    pub idle: Option<Duration>,
    /// Time between probes.
    pub interval: Option<Duration>,
}

impl Endpoints {
    fn clone_settings(&self) -> Self {
        Self { list: Vec::new(), drops: self.drops.clone(), ..*self }
    }

    /// The endpoints with every name replaced by the addresses that `resolve` gives for it.
    ///
    /// A name without an address has no endpoint. LOGICAL_DNS takes the first address only.
    #[must_use]
    pub fn resolved(
        &self,
        discovery: &Discovery,
        mut resolve: impl FnMut(&str) -> Vec<std::net::IpAddr>,
    ) -> Self {
        let mut list = Vec::with_capacity(self.list.len());
        for endpoint in &self.list {
            let EndpointAddress::Name { host, port } = &endpoint.address else {
                list.push(endpoint.clone());
                continue;
            };
            let wanted = if *discovery == Discovery::LogicalDns { 1 } else { usize::MAX };
            for ip in resolve(host).into_iter().take(wanted) {
                let address = Address::Socket(SocketAddr::new(ip, *port));
                list.push(Endpoint {
                    address: EndpointAddress::Fixed(address),
                    hostname: endpoint.hostname.clone().or_else(|| Some(Arc::clone(host))),
                    ..endpoint.clone()
                });
            }
        }
        Self { list, ..self.clone_settings() }
    }
}
