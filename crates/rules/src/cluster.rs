//! A group of endpoints that are interchangeable, and how connections to them are made.

use std::{net::SocketAddr, sync::Arc, time::Duration};

use crate::{Address, HttpOptions, UpstreamTls};

/// A cluster: where requests or connections can be sent.
#[derive(Clone, Debug, PartialEq)]
pub struct Cluster {
    /// The name that routes and TCP proxies use.
    pub name: Arc<str>,
    /// How the endpoints are found.
    pub discovery: Discovery,
    /// The endpoints as configured or received. For DNS clusters these are names to resolve; for
    /// EDS they are what the assignment of [`Discovery::Eds`] says, empty until it arrives.
    pub endpoints: Arc<Endpoints>,
    /// How an endpoint is chosen.
    pub policy: LbPolicy,
    /// In percent: a priority with fewer healthy endpoints than this uses all of them. Default 50.
    pub panic_threshold: u8,
    /// Longest wait for a connection, TLS handshake included. Default 5 s.
    pub connect_timeout: Duration,
    /// TLS towards endpoints that do not say otherwise ([`Endpoint::tls`]), and towards the
    /// original destination. `None` is plaintext.
    pub tls: Option<Arc<UpstreamTls>>,
    /// Whether the request's host is the SNI (`auto_sni`). HTTP only.
    pub auto_sni: bool,
    /// Whether the server's certificate must be for the request's host. HTTP only.
    pub auto_san_validation: bool,
    /// The HTTP version to speak.
    pub protocol: UpstreamProtocol,
    /// Options common to all HTTP versions.
    pub http: HttpOptions,
    /// The limits of the default priority.
    pub limits: CircuitLimits,
    /// The local address to connect from.
    pub bind_source: Option<SocketAddr>,
    /// TCP keep-alive towards the endpoints; `None` leaves it off.
    pub tcp_keepalive: Option<TcpKeepalive>,
    /// Which address families DNS names are resolved to.
    pub dns_family: DnsFamily,
    /// How often DNS names are resolved again. Default 5 s.
    pub dns_refresh: Duration,
    /// Whether the DNS answer's own life is used instead of `dns_refresh`.
    pub respect_dns_ttl: bool,
    /// Most bytes held per connection and direction. Default 1 MiB.
    pub buffer_limit: u32,
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
    },
}

/// The endpoints of a cluster, sorted by priority.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Endpoints {
    /// All endpoints; those of a lower priority number first.
    pub list: Vec<Endpoint>,
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
    /// TLS towards this endpoint: the cluster's, or the first transport socket match that fits.
    pub tls: Option<Arc<UpstreamTls>>,
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
}

/// How an endpoint is chosen.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum LbPolicy {
    /// Each in turn, in proportion to weight.
    RoundRobin,
    /// The least loaded of `choices` drawn at random.
    LeastRequest {
        /// How many are drawn. Default 2.
        choices: u32,
    },
    /// At random, in proportion to weight.
    Random,
    /// There is nothing to choose: the original destination.
    ClusterProvided,
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

/// How much a cluster may have under way at once, per proxy.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct CircuitLimits {
    /// Connections. Default 1024.
    pub connections: u32,
    /// Requests that wait for a connection. Default 1024.
    pub pending: u32,
    /// Requests. Default 1024.
    pub requests: u32,
    /// Retries. Default 3.
    pub retries: u32,
}

impl Default for CircuitLimits {
    fn default() -> Self {
        Self { connections: 1024, pending: 1024, requests: 1024, retries: 3 }
    }
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

/// Which address families DNS names are resolved to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum DnsFamily {
    /// IPv6 if there is any, else IPv4.
    V6Preferred,
    /// IPv4 if there is any, else IPv6.
    V4Preferred,
    /// IPv4 only.
    V4Only,
    /// IPv6 only.
    V6Only,
    /// Both.
    All,
}

impl Endpoints {
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
        Self { list }
    }
}
