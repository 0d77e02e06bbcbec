//! Clusters: where endpoints are, how one is chosen, and how it is spoken to.

use std::{sync::Arc, time::Duration};

use super::{CredentialsInput, NameMatch};

/// One cluster.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct ClusterInput {
    /// Its name: `outbound|443|subset|host`.
    pub name: String,
    /// The name of its statistics.
    pub stat_name: String,
    /// The host of the service, for `EnvoyFilter` matches.
    pub host: String,
    /// The service's port, for `EnvoyFilter` matches; 0 for built-in clusters.
    pub port: u16,
    /// The subset, for `EnvoyFilter` matches; empty for the whole service.
    pub subset: String,
    /// How its endpoints are found.
    pub discovery: Discovery,
    /// Which addresses of a name are used.
    pub dns_family: DnsFamily,
    /// How an endpoint is chosen.
    pub balance: Balance,
    /// Whether localities share the traffic by their own weights.
    pub is_locality_weighted: bool,
    /// The share of healthy endpoints, in percent, below which health is ignored; `None` for Envoy's
    /// default.
    pub panic_percent: Option<u32>,
    /// Whether an endpoint that finishes still gets the requests of sessions that it has begun.
    pub keeps_draining: bool,
    /// When an endpoint that fails is left out for a while.
    pub outliers: Option<OutlierInput>,
    /// Which HTTP it speaks.
    pub protocol: UpstreamProtocol,
    /// Limits on connections and requests.
    pub limits: Limits,
    /// The life of one connection.
    pub connection: ConnectionLife,
    /// The TLS that is originated.
    pub tls: Option<ClientTls>,
    /// Whether TLS is originated only towards endpoints that take it (`tlsMode: istio`).
    pub is_tls_by_endpoint: bool,
    /// The credentials that requests get.
    pub credentials: Option<Arc<CredentialsInput>>,
    /// The PROXY protocol header in front of each connection.
    pub proxy_protocol: Option<ProxyProtocol>,
    /// How long a connection may take to be made.
    pub connect_timeout: Duration,
    /// What is told about it in metadata.
    pub about: About,
}

/// What is told about a cluster in metadata.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct About {
    /// The user's `DestinationRule`, as Istio's `config` metadata names it.
    pub config: Option<String>,
    /// The service: host, short name and namespace.
    pub service: Option<(String, String, String)>,
    /// Whether the service is outside of the mesh.
    pub is_external: bool,
    /// Whether the ALPN offered is the user's affair (TLS modes SIMPLE and MUTUAL).
    pub keeps_alpn: bool,
}

/// How a cluster's endpoints are found.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Discovery {
    /// Sent over EDS under the cluster's name.
    Eds(Arc<[LocalityInput]>),
    /// By resolving these names; every address of an answer is an endpoint.
    Dns(Arc<[LocalityInput]>),
    /// By resolving this one name; a new connection goes to the first address of the newest answer.
    LogicalDns(Arc<[LocalityInput]>),
    /// By the address that the client was going to, and another port when one is given.
    OriginalDestination(Option<u16>),
    /// By resolving the name that the client asks for, which must match this pattern.
    DynamicDns(String),
    /// A listener of the proxy itself, by its name.
    Internal(String),
    /// There are none: the cluster refuses everything.
    BlackHole,
}

/// Which addresses of a name are used.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum DnsFamily {
    /// IPv4 alone.
    #[default]
    V4,
    /// IPv6 alone.
    V6,
    /// Both.
    All,
}

/// The endpoints of one locality.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct LocalityInput {
    /// Region, zone and sub-zone; empty where nothing is known.
    pub place: [String; 3],
    /// The share of the locality among those of its priority.
    pub weight: u32,
    /// 0 is tried first.
    pub priority: u32,
    /// The endpoints.
    pub endpoints: Vec<EndpointInput>,
}

/// One endpoint.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct EndpointInput {
    /// An IP address, a name for the DNS kinds of [`Discovery`], or the path of a unix socket.
    pub address: String,
    /// The port; `None` for a unix socket.
    pub port: Option<u16>,
    /// The share; at least 1.
    pub weight: u32,
    /// What the platform says of its health.
    pub health: EndpointHealth,
    /// Whether it takes the mesh's mutual TLS.
    pub takes_mesh_tls: bool,
    /// Istio's `workload` metadata: name, namespace, service, revision and cluster.
    pub workload: String,
}

/// What the platform says of an endpoint's health.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum EndpointHealth {
    /// Nothing.
    #[default]
    Unknown,
    /// It may get traffic.
    Healthy,
    /// It may not.
    Unhealthy,
    /// It finishes what it has begun.
    Draining,
}

/// How an endpoint is chosen.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Balance {
    /// The less loaded of two drawn at random.
    LeastRequest(Option<SlowStart>),
    /// One after the other.
    RoundRobin(Option<SlowStart>),
    /// Drawn at random.
    Random,
    /// The address that the client was going to.
    Passthrough,
    /// By a hash, on a ring of at least so many points.
    RingHash(u64),
    /// By a hash, in a table of so many entries.
    Maglev(Option<u64>),
}

impl Default for Balance {
    fn default() -> Self {
        Self::LeastRequest(None)
    }
}

/// How a new endpoint gets its share little by little.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct SlowStart {
    /// How long it takes.
    pub window: Duration,
    /// The share to begin with, in millionths, and the aggression, as the bits of an `f64`; `None`
    /// for Envoy's defaults.
    pub curve: Option<(u32, u64)>,
}

/// When an endpoint that fails is left out for a while. What is `None` is Envoy's default.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct OutlierInput {
    /// Answers of 5xx in a row.
    pub consecutive_5xx: Option<u32>,
    /// Answers of 502, 503 and 504 in a row.
    pub consecutive_gateway: Option<u32>,
    /// Failures to connect in a row.
    pub consecutive_local: Option<u32>,
    /// Whether failures to connect are counted apart.
    pub splits_local: bool,
    /// How often the endpoints are looked at.
    pub interval: Option<Duration>,
    /// How long an endpoint is left out the first time.
    pub base_time: Option<Duration>,
    /// The share of endpoints, in percent, that may be left out.
    pub ejected_percent_max: Option<u32>,
}

/// Which HTTP a cluster speaks.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum UpstreamProtocol {
    /// HTTP/1.1, or bytes.
    #[default]
    Http1,
    /// HTTP/2.
    Http2,
    /// Whatever the client speaks.
    AsClient,
}

/// Limits on connections and requests; [`u32::MAX`] is none.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Limits {
    /// Connections.
    pub connections_max: u32,
    /// Requests that wait for a connection.
    pub pending_max: u32,
    /// Requests at the same time.
    pub requests_max: u32,
    /// Retries at the same time.
    pub retries_max: u32,
    /// Retries in proportion to requests, in place of `retries_max`.
    pub retry_budget: Option<RetryBudget>,
}

impl Default for Limits {
    /// Istio lifts Envoy's limits (1024 connections and requests, 3 retries), which surprise users.
    fn default() -> Self {
        let none = u32::MAX;
        Self {
            connections_max: none,
            pending_max: none,
            requests_max: none,
            retries_max: none,
            retry_budget: None,
        }
    }
}

/// Retries in proportion to requests.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct RetryBudget {
    /// The share of requests that may be retries, in millionths.
    pub share_millionths: u32,
    /// The time over which requests are counted; `None` for those at this moment.
    pub interval: Option<Duration>,
    /// Retries that are always possible.
    pub retries_min: u32,
}

/// The life of one connection. What is `None` is Envoy's default.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct ConnectionLife {
    /// How long it may stay unused; zero for ever.
    pub idle_timeout: Option<Duration>,
    /// How long it may live.
    pub duration_max: Option<Duration>,
    /// How many requests it may carry.
    pub requests_max: Option<u32>,
    /// How many requests it may carry at the same time (HTTP/2).
    pub streams_max: Option<u32>,
    /// How often HTTP/2 pings go out and how long an answer may take.
    pub ping: Option<(Option<Duration>, Option<Duration>)>,
    /// TCP keepalive; `None` for none.
    pub tcp_keepalive: Option<TcpKeepalive>,
}

/// TCP keepalive. What is `None` is the operating system's default.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct TcpKeepalive {
    /// Probes without an answer before the connection is dead.
    pub probes: Option<u32>,
    /// Seconds of silence before the first probe.
    pub time_secs: Option<u32>,
    /// Seconds between probes.
    pub interval_secs: Option<u32>,
}

/// Which PROXY protocol header is sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ProxyProtocol {
    /// Text.
    V1,
    /// Binary.
    V2,
}

/// The TLS that a cluster originates.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct ClientTls {
    /// The SDS name of the client certificate.
    pub certificate: Option<String>,
    /// The SDS name of the roots; `None` verifies nothing (`insecureSkipVerify`).
    pub roots: Option<String>,
    /// The path of a revocation list.
    pub crl: Option<String>,
    /// The server name sent; empty for none of its own.
    pub sni: String,
    /// The names of which the server's certificate must hold one.
    pub names: Vec<NameMatch>,
    /// Whether the request's host is sent as server name.
    pub is_sni_auto: bool,
    /// Whether the server name sent is verified in the certificate.
    pub is_name_check_auto: bool,
    /// The protocols offered by ALPN.
    pub alpn: Vec<String>,
    /// Cipher suites, in OpenSSL's spelling; empty for the defaults.
    pub ciphers: Vec<String>,
    /// Curves for the key exchange; empty for the defaults.
    pub curves: Vec<String>,
}
