//! What a sidecar does with connections that its workload receives.

use std::{net::IpAddr, sync::Arc, time::Duration};

use super::{AuthorizationInput, EndpointInput, ServerTls};

/// The inbound side of a sidecar.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct InboundInputs {
    /// The capturing listener, and those that are bound to a port of their own.
    pub listeners: Vec<InboundListener>,
    /// The clusters that lead to the workload itself, in order of name.
    pub clusters: Vec<InboundCluster>,
}

/// One inbound listener.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct InboundListener {
    /// `virtualInbound`, or `ADDRESS_PORT` of one with its own socket.
    pub name: String,
    /// The address that is bound.
    pub address: IpAddr,
    /// Further addresses, of the same port.
    pub additional: Vec<IpAddr>,
    /// The port that is bound.
    pub port: u16,
    /// Whether connections were redirected here and their original destination must be asked for.
    pub is_captured: bool,
    /// Whether the client's address is kept towards the workload (TPROXY).
    pub is_transparent: bool,
    /// How long the first bytes may take that tell the protocol; zero for no limit.
    pub detection_timeout: Duration,
    /// The chains, in order.
    pub chains: Vec<InboundChain>,
    /// The policies that every chain holds to.
    pub authorization: Arc<AuthorizationInput>,
}

/// One filter chain of an inbound listener.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct InboundChain {
    /// Istio's name for it; chains of one port share it.
    pub name: String,
    /// The workload's port that it claims; `None` for all.
    pub port: Option<u16>,
    /// Which bytes it claims.
    pub transport: Transport,
    /// The application protocols of which the client must have named one; empty for any.
    pub alpn: Vec<String>,
    /// The TLS that is terminated.
    pub tls: Option<ServerTls>,
    /// What is done with the bytes.
    pub handler: InboundHandler,
    /// The user's resource that asked for it, as Istio's `config` metadata names it.
    pub config: Option<String>,
}

/// Which bytes a chain claims.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Transport {
    /// All.
    #[default]
    Any,
    /// Those that begin with a TLS hello.
    Tls,
    /// All others.
    Plain,
}

/// What an inbound chain does with the bytes.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum InboundHandler {
    /// Reads HTTP and forwards every request.
    Http {
        /// Where to; also the name of the inline route table.
        cluster: String,
        /// The service's port; 0 where no service has it.
        service_port: u16,
        /// The name of the operation in traces: `HOST:PORT/*`.
        operation: String,
        /// The prefix of its statistics.
        stat_prefix: String,
        /// Whether the port says HTTP/2.
        is_http2: bool,
        /// Whether a request that never reached the workload is tried again.
        is_retried: bool,
    },
    /// Forwards bytes.
    Tcp {
        /// Where to.
        cluster: String,
        /// The prefix of its statistics.
        stat_prefix: String,
    },
    /// Closes the connection: it would come back to this very listener.
    Refuse,
}

/// A cluster that leads to the workload itself.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct InboundCluster {
    /// `inbound|PORT||`, or `InboundPassthroughCluster`.
    pub name: String,
    /// Where the workload listens; `None` for the address that the client was going to.
    pub endpoint: Option<EndpointInput>,
    /// The source addresses from which the workload is spoken to; the packet filter lets connections
    /// from them pass. Empty for the system's choice.
    pub sources: Vec<IpAddr>,
    /// Which HTTP is spoken.
    pub protocol: InboundProtocol,
    /// The service's port.
    pub port: u16,
    /// The services behind it, the first of them the one that decided.
    pub services: Vec<InboundService>,
    /// Limits.
    pub pool: InboundPool,
    /// How long a connection may take to be made.
    pub connect_timeout: Duration,
    /// The user's `DestinationRule`, as Istio's `config` metadata names it.
    pub config: Option<String>,
}

/// A service that a workload serves.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct InboundService {
    /// The full host.
    pub host: String,
    /// The object's name.
    pub name: String,
    /// The object's namespace.
    pub namespace: String,
}

/// Which HTTP is spoken to the workload.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum InboundProtocol {
    /// HTTP/1.1, or bytes.
    #[default]
    Http1,
    /// HTTP/2.
    Http2,
    /// Whichever the client speaks.
    AsClient,
}

/// The limits of an inbound cluster; `None` for no limit of Istio's.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct InboundPool {
    /// Connections at the same time.
    pub connections_max: Option<u32>,
    /// Requests that wait for a connection.
    pub pending_max: Option<u32>,
    /// Requests at the same time.
    pub requests_max: Option<u32>,
    /// Further tries at the same time.
    pub retries_max: Option<u32>,
    /// Requests on one connection.
    pub requests_per_connection_max: Option<u32>,
    /// How long a connection without requests is kept.
    pub idle_timeout: Option<Duration>,
    /// How long a connection is used at most.
    pub connection_duration_max: Option<Duration>,
    /// Streams on one HTTP/2 connection.
    pub streams_max: Option<u32>,
    /// TCP keep-alive: probes, silence before the first, and the time between.
    pub keepalive: Option<(Option<u32>, Option<Duration>, Option<Duration>)>,
}
