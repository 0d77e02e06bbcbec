//! Listeners and their filter chains, and what is done with the bytes.

use std::{net::IpAddr, sync::Arc, time::Duration};

use sluis_nouns::Cidr;

use super::{AuthorizationInput, DnsFamily, HeaderChanges, ServerTls};
use crate::view::Capture;

/// What a sidecar does with connections that no listener of their own claims.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum OutboundPolicy {
    /// They are closed: only what the registry holds may be reached.
    RegistryOnly,
    /// They are passed on to where they were going.
    AllowAny,
    /// The same; but requests of plain HTTP go to what their host resolves to.
    AllowAnyDynamicDns,
    /// They are passed on to this cluster: the egress proxy of a `Sidecar`.
    Proxy(String),
}

/// A sidecar's capturing listener.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct OutboundInputs {
    /// How connections come in.
    pub capture: Capture,
    /// The address that is bound: any.
    pub address: IpAddr,
    /// Further addresses: any of IPv6, where the workload has both families.
    pub additional: Vec<IpAddr>,
    /// The port of the listener: Istio's is 15001.
    pub port: u16,
    /// Whether a packet filter brings connections with their addresses kept (TPROXY).
    pub is_transparent: bool,
    /// What happens to those that nothing claims.
    pub policy: OutboundPolicy,
}

/// One listener.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct ListenerInput {
    /// Istio's name for it: `0.0.0.0_443`.
    pub name: String,
    /// The address that it is bound to, or would be.
    pub address: IpAddr,
    /// Further addresses, of the same port.
    pub additional: Vec<IpAddr>,
    /// The port that it is bound to, or would be.
    pub port: u16,
    /// The path of the unix socket that is bound in place of address and port.
    pub pipe: Option<String>,
    /// Whether only other listeners of the proxy lead there: then there is no socket.
    pub is_internal: bool,
    /// Whether a socket is bound (gateways) or connections are handed over (sidecars).
    pub is_bound: bool,
    /// The ports by which users know the listener: its own, and those that `Gateway` servers declare
    /// when a Service translates them. `EnvoyFilter` port matches look at all of them.
    pub known_ports: Vec<u16>,
    /// The chains, in order.
    pub chains: Vec<ChainInput>,
    /// What happens to connections that no chain claims; `None` closes them.
    pub fallback: Option<OutboundPolicy>,
}

/// One filter chain of a listener.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct ChainInput {
    /// The chain's name; unique in its listener.
    pub name: String,
    /// The server names (SNI) that it claims; empty for any, or none at all.
    pub server_names: Vec<String>,
    /// The original destinations that it claims; empty for any.
    pub subnets: Vec<Cidr>,
    /// Whether it claims only what is not TLS.
    pub is_plain_only: bool,
    /// The application protocols (ALPN) of which the client must have named one; empty for any.
    pub alpn: Vec<String>,
    /// The TLS that is terminated before anything else is read.
    pub tls: Option<ServerTls>,
    /// What is done with the bytes.
    pub handler: Handler,
    /// The user's resource that asked for it, as Istio's `config` metadata names it.
    pub config: Option<String>,
    /// The policies that it holds to, each by itself: what one refuses is refused.
    pub authorization: Vec<Arc<AuthorizationInput>>,
    /// Whether a route of its table leads to a guarded host.
    pub has_guards: bool,
}

/// What a chain does with the bytes.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Handler {
    /// Reads HTTP and routes by this route table.
    Http {
        /// The name of the route table.
        routes: String,
        /// The prefix of its statistics.
        stat_prefix: String,
        /// Whether the proxy is the first hop that sees the client (a gateway).
        is_edge: bool,
    },
    /// Forwards bytes.
    Tcp {
        /// Where to; more than one share by weight.
        targets: Vec<Target>,
        /// The prefix of its statistics.
        stat_prefix: String,
        /// What the rules of its destination say of connections.
        options: TcpOptions,
    },
}

/// What the `DestinationRule` of a destination says of the connections that are forwarded there.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct TcpOptions {
    /// Whether the endpoint is chosen by the client's address.
    pub is_hashed_by_source: bool,
    /// How long a connection may be silent; `None` for the proxy's own limit.
    pub idle_timeout: Option<Duration>,
    /// How long a connection may last; `None` for no limit.
    pub connection_duration_max: Option<Duration>,
    /// The tunnel through an HTTP proxy around the bytes.
    pub tunnel: Option<TunnelInput>,
    /// When the server name that the client asks for is resolved: which addresses are used, and the
    /// port that is connected to.
    pub dynamic: Option<(DnsFamily, u16)>,
    /// Whether the server name that the client asks for is that of the TLS towards the endpoint.
    pub passes_name: bool,
}

/// A tunnel through an HTTP proxy.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct TunnelInput {
    /// Where the proxy is asked to connect to: `host:port`.
    pub target: String,
    /// Whether it is asked by POST rather than CONNECT.
    pub is_post: bool,
}

/// A cluster and its share.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Target {
    /// The name of the cluster.
    pub cluster: String,
    /// The share, relative to the other targets. Never 0.
    pub weight: u32,
    /// Header changes for requests that go there (HTTP only).
    pub headers: HeaderChanges,
    /// A Host header in place of the client's, for requests that go there (HTTP only).
    pub host_rewrite: Option<String>,
}
