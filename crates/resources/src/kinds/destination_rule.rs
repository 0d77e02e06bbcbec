//! DestinationRule: how connections to a host are made, once routing has chosen it.

use std::collections::BTreeMap;
use std::time::Duration;

use sluis_nouns::{HostPattern, Labels, Percent, SourceRef};

use super::shared::ExportTo;
use super::tls::ClientTls;

/// `networking.istio.io` DestinationRule.
#[derive(Clone, Debug, PartialEq)]
pub struct DestinationRule {
    /// `host`; a short name is as written. May be a wildcard.
    pub host: HostPattern,
    /// `exportTo`; empty means the mesh-wide default.
    pub export_to: Vec<ExportTo>,
    /// `workloadSelector.matchLabels`: the clients that obey; `None` means all.
    pub workload_selector: Option<Labels>,
    /// `trafficPolicy` for all subsets and ports.
    pub traffic_policy: Option<TrafficPolicy>,
    /// `subsets`, names unique.
    pub subsets: Vec<Subset>,
}

/// One of `subsets`.
#[derive(Clone, Debug, PartialEq)]
pub struct Subset {
    /// Place of the list item.
    pub at: SourceRef,
    /// `name`.
    pub name: String,
    /// `labels` that endpoints of the subset carry; empty means all endpoints.
    pub labels: Labels,
    /// `trafficPolicy`, section by section in place of the rule's.
    pub traffic_policy: Option<TrafficPolicy>,
}

/// `trafficPolicy`. A section that is not written is inherited.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct TrafficPolicy {
    /// Place of the section.
    pub at: SourceRef,
    /// `loadBalancer`.
    pub load_balancer: Option<LoadBalancer>,
    /// `connectionPool`.
    pub connection_pool: Option<ConnectionPool>,
    /// `outlierDetection`.
    pub outlier_detection: Option<OutlierDetection>,
    /// `tls`.
    pub tls: Option<ClientTls>,
    /// `portLevelSettings`. A port named here takes nothing from the destination-level sections.
    pub port_level: Vec<PortTrafficPolicy>,
    /// `tunnel`.
    pub tunnel: Option<Tunnel>,
    /// `proxyProtocol.version`.
    pub proxy_protocol: Option<ProxyProtocolVersion>,
    /// `retryBudget`.
    pub retry_budget: Option<RetryBudget>,
}

/// `retryBudget`: retries in proportion to requests.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RetryBudget {
    /// `percent` of the requests; `None` means 20 %.
    pub percent: Option<Percent>,
    /// `budgetInterval` over which requests are counted; `None` means those at this moment.
    pub interval: Option<Duration>,
    /// `minRetryConcurrency`: retries that are always possible; `None` and 0 mean 3.
    pub min_concurrency: Option<u32>,
}

/// One of `portLevelSettings`.
#[derive(Clone, Debug, PartialEq)]
pub struct PortTrafficPolicy {
    /// Place of the list item.
    pub at: SourceRef,
    /// `port.number` of the service.
    pub port: u16,
    /// `loadBalancer`.
    pub load_balancer: Option<LoadBalancer>,
    /// `connectionPool`.
    pub connection_pool: Option<ConnectionPool>,
    /// `outlierDetection`.
    pub outlier_detection: Option<OutlierDetection>,
    /// `tls`.
    pub tls: Option<ClientTls>,
}

/// `loadBalancer`.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct LoadBalancer {
    /// Place of the section.
    pub at: SourceRef,
    /// `simple`; [`SimpleLb::Unspecified`] where nothing is written.
    pub simple: SimpleLb,
    /// `consistentHash`, in place of `simple`.
    pub consistent_hash: Option<ConsistentHash>,
    /// `localityLbSetting`.
    pub locality: Option<LocalitySetting>,
    /// `warmup`, and the old `warmupDurationSecs`.
    pub warmup: Option<Warmup>,
}

/// `loadBalancer.simple`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum SimpleLb {
    /// The default: least request.
    #[default]
    Unspecified,
    /// A random endpoint.
    Random,
    /// The address the client asked for.
    Passthrough,
    /// Each in turn.
    RoundRobin,
    /// The less loaded of two; also written `LEAST_CONN`.
    LeastRequest,
}

/// `loadBalancer.consistentHash`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConsistentHash {
    /// What is hashed.
    pub key: HashKey,
    /// How the hash chooses.
    pub algorithm: RingAlgorithm,
}

/// What a consistent hash is computed over.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum HashKey {
    /// `httpHeaderName`.
    Header(String),
    /// `httpCookie`.
    Cookie(CookieHash),
    /// `useSourceIp`.
    SourceIp,
    /// `httpQueryParameterName`.
    QueryParameter(String),
}

/// `consistentHash.httpCookie`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CookieHash {
    /// `name`.
    pub name: String,
    /// `path`.
    pub path: Option<String>,
    /// `ttl`: with it, a missing cookie is made.
    pub ttl: Option<Duration>,
    /// `attributes`, name and value.
    pub attributes: Vec<(String, String)>,
}

/// How a hash chooses an endpoint.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RingAlgorithm {
    /// A ring with at least so many points; Istio's default is 1024.
    RingHash {
        /// `minimumRingSize`.
        minimum_size: u64,
    },
    /// Maglev's table.
    Maglev {
        /// `tableSize`, a prime; `None` means 65537.
        table_size: Option<u64>,
    },
}

/// `localityLbSetting`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LocalitySetting {
    /// `enabled`; `None` means the mesh-wide setting.
    pub enabled: Option<bool>,
    /// `distribute`.
    pub distribute: Vec<LocalityDistribution>,
    /// `failover`.
    pub failover: Vec<LocalityFailover>,
    /// `failoverPriority`.
    pub failover_priority: Vec<String>,
}

/// One of `distribute`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LocalityDistribution {
    /// `from`: the client's locality.
    pub from: String,
    /// `to`: percent by locality.
    pub to: BTreeMap<String, u32>,
}

/// One of `failover`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LocalityFailover {
    /// `from`: a region.
    pub from: String,
    /// `to`: a region.
    pub to: String,
}

/// `warmup`: new endpoints get traffic slowly.
#[derive(Clone, Debug, PartialEq)]
pub struct Warmup {
    /// `duration`.
    pub duration: Duration,
    /// `minimumPercent`; `None` means 10 %.
    pub minimum_percent: Option<Percent>,
    /// `aggression`; `None` means 1.0. At least 0.
    pub aggression: Option<f64>,
}

/// `connectionPool`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ConnectionPool {
    /// `tcp`.
    pub tcp: TcpPool,
    /// `http`.
    pub http: HttpPool,
}

/// `connectionPool.tcp`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TcpPool {
    /// `maxConnections`; `None` means 2^32-1.
    pub max_connections: Option<u32>,
    /// `connectTimeout`; `None` means the mesh-wide one.
    pub connect_timeout: Option<Duration>,
    /// `tcpKeepalive`.
    pub keepalive: Option<TcpKeepalive>,
    /// `maxConnectionDuration`; `None` means no limit.
    pub max_connection_duration: Option<Duration>,
    /// `idleTimeout`; `None` means 1 h, zero means no limit.
    pub idle_timeout: Option<Duration>,
}

/// `tcpKeepalive`. What is not written is the operating system's default.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TcpKeepalive {
    /// `probes` without an answer before the connection is dead.
    pub probes: Option<u32>,
    /// `time` of silence before the first probe.
    pub time: Option<Duration>,
    /// `interval` between probes.
    pub interval: Option<Duration>,
}

/// `connectionPool.http`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct HttpPool {
    /// `http1MaxPendingRequests`.
    pub http1_max_pending_requests: Option<u32>,
    /// `http2MaxRequests`, for all HTTP versions.
    pub http2_max_requests: Option<u32>,
    /// `maxRequestsPerConnection`; `None` and 0 mean no limit.
    pub max_requests_per_connection: Option<u32>,
    /// `maxRetries` at the same time.
    pub max_retries: Option<u32>,
    /// `idleTimeout`; `None` means 1 h.
    pub idle_timeout: Option<Duration>,
    /// `h2UpgradePolicy`.
    pub h2_upgrade_policy: H2UpgradePolicy,
    /// `useClientProtocol`.
    pub use_client_protocol: bool,
    /// `maxConcurrentStreams` on one HTTP/2 connection.
    pub max_concurrent_streams: Option<u32>,
    /// `http2KeepAlive`.
    pub http2_keepalive: Option<Keepalive>,
}

/// `http2KeepAlive`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Keepalive {
    /// `interval` between pings.
    pub interval: Option<Duration>,
    /// `timeout` for an answer.
    pub timeout: Option<Duration>,
}

/// Whether plain HTTP/1.1 is forwarded as HTTP/2.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum H2UpgradePolicy {
    /// As the mesh says.
    #[default]
    Default,
    /// No.
    DoNotUpgrade,
    /// Yes.
    Upgrade,
}

/// `outlierDetection`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct OutlierDetection {
    /// `consecutive5xxErrors`; 0 turns it off.
    pub consecutive_5xx_errors: Option<u32>,
    /// `consecutiveGatewayErrors`, and the old `consecutiveErrors`; 0 turns it off.
    pub consecutive_gateway_errors: Option<u32>,
    /// `consecutiveLocalOriginFailures`.
    pub consecutive_local_origin_failures: Option<u32>,
    /// `splitExternalLocalOriginErrors`.
    pub split_external_local_origin_errors: bool,
    /// `interval` between looks.
    pub interval: Option<Duration>,
    /// `baseEjectionTime`.
    pub base_ejection_time: Option<Duration>,
    /// `maxEjectionPercent`, 0 to 100.
    pub max_ejection_percent: Option<u32>,
    /// `minHealthPercent`, 0 to 100.
    pub min_health_percent: Option<u32>,
}

/// `tunnel`: through an HTTP proxy.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tunnel {
    /// `protocol`.
    pub method: TunnelMethod,
    /// `targetHost`.
    pub target_host: String,
    /// `targetPort`.
    pub target_port: u16,
}

/// How a tunnel is opened.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum TunnelMethod {
    /// HTTP CONNECT. The default.
    #[default]
    Connect,
    /// HTTP POST.
    Post,
}

/// Which PROXY protocol header is sent.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ProxyProtocolVersion {
    /// Text. The default.
    #[default]
    V1,
    /// Binary.
    V2,
}
