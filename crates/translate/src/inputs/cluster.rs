//! Clusters: where endpoints are, how one is chosen, and how it is spoken to.

use std::time::Duration;

use super::NameMatch;

/// One cluster.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct ClusterInput {
    /// Its name: `outbound|443|subset|host`.
    pub name: String,
    /// The host of the service, for `EnvoyFilter` matches.
    pub host: String,
    /// The service's port, for `EnvoyFilter` matches; 0 for built-in clusters.
    pub port: u16,
    /// The subset, for `EnvoyFilter` matches; empty for the whole service.
    pub subset: String,
    /// How its endpoints are found.
    pub discovery: Discovery,
    /// How an endpoint is chosen.
    pub balance: Balance,
    /// Which HTTP it speaks.
    pub protocol: UpstreamProtocol,
    /// The TLS that is originated.
    pub tls: Option<ClientTls>,
    /// How long a connection may take to be made.
    pub connect_timeout: Duration,
    /// The user's `DestinationRule`, as Istio's `config` metadata names it.
    pub config: Option<String>,
}

/// How a cluster's endpoints are found.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Discovery {
    /// Sent over EDS under the cluster's name.
    Eds(Vec<EndpointInput>),
    /// By resolving these names; every address of an answer is an endpoint.
    Dns(Vec<EndpointInput>),
    /// By resolving this name; a new connection goes to the first address of the newest answer.
    LogicalDns(EndpointInput),
    /// By the address that the client was going to.
    OriginalDestination,
    /// There are none: the cluster refuses everything.
    BlackHole,
}

/// One endpoint.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct EndpointInput {
    /// An IP address, a name for the DNS kinds of [`Discovery`], or the path of a unix socket.
    pub address: String,
    /// The port; `None` for a unix socket.
    pub port: Option<u16>,
    /// The share; at least 1.
    pub weight: u32,
}

/// How an endpoint is chosen.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Balance {
    /// The less loaded of two drawn at random.
    #[default]
    LeastRequest,
    /// One after the other.
    RoundRobin,
    /// Drawn at random.
    Random,
    /// The address that the client was going to.
    Passthrough,
}

/// Which HTTP a cluster speaks.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum UpstreamProtocol {
    /// HTTP/1.1, or bytes.
    #[default]
    Http1,
    /// HTTP/2.
    Http2,
}

/// The TLS that a cluster originates.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct ClientTls {
    /// The SDS name of the client certificate.
    pub certificate: Option<String>,
    /// The SDS name of the roots; `None` verifies nothing (`insecureSkipVerify`).
    pub roots: Option<String>,
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
}
