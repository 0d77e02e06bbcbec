//! What a listener does with a connection: inspect it, choose a filter chain, serve it.
//!
//! In:    a [`Listener`] and the connection's facts ([`ConnectionFacts`]).
//! Out:   the filter chain, or why there is none.
//! Never: touches the connection itself.
//!
//! Start at [`Listener::chain`].

mod chains;
mod ports;

use std::{net::SocketAddr, sync::Arc, time::Duration};

pub(crate) use chains::{ChainMatch, ChainTable, Overlap, SourceType};
pub use ports::PortPredicate;

use crate::{
    AccessLog, Address, DownstreamTls, HttpManager, Labels, NetworkRbac, TcpAuthz, TcpKeepalive,
    WeightedClusters,
};

/// A listener: an address and what is done with connections to it.
#[derive(Clone, Debug, PartialEq)]
pub struct Listener {
    /// The listener's name.
    pub name: Arc<str>,
    /// Where it listens. Without `bind_to_port` it is not bound: it takes over connections that
    /// another listener with `use_original_dst` has accepted for this address.
    pub address: Address,
    /// Further addresses, for which all the rest holds as well.
    pub additional: Vec<Address>,
    /// Whether connections to addresses that are not local are taken as they come (TPROXY).
    pub transparent: bool,
    /// Whether the address is bound. Default true.
    pub bind_to_port: bool,
    /// Whether connections are handed to the listener of their original destination, if any.
    pub use_original_dst: bool,
    /// What looks at a connection before a chain is chosen, in order.
    pub filters: Vec<ListenerFilter>,
    /// Longest time for the listener filters. Default 15 s; `None` has no limit.
    pub filters_timeout: Option<Duration>,
    /// Whether a connection goes on after that time rather than being closed.
    pub continue_on_filters_timeout: bool,
    /// The filter chains, in the order of the resource, without the default one.
    pub chains: Vec<Arc<FilterChain>>,
    /// The chain of connections that no other chain matches.
    pub default_chain: Option<Arc<FilterChain>>,
    /// One line per connection that ends without a chain goes to each.
    pub access_logs: Vec<AccessLog>,
    /// Whether its connections are drained when the listener goes or the process ends. With
    /// false (`MODIFY_ONLY`) only when it is changed or removed.
    pub drains_with_process: bool,
    /// Most bytes held per connection and direction. Default 1 MiB.
    pub buffer_limit: u32,
    /// The length of the accept queue. Default the system's.
    pub backlog: Option<u32>,
    /// TCP keep-alive on accepted connections; `None` leaves it off.
    pub tcp_keepalive: Option<TcpKeepalive>,
    /// Whether each worker has its own socket. Default true.
    pub reuse_port: bool,
    /// Whether an address that is not local may be bound.
    pub freebind: bool,
    /// Which way its traffic goes, as the control plane says.
    pub direction: Direction,
    pub(crate) table: ChainTable,
}

/// Which way a listener's traffic goes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Direction {
    /// Unknown.
    #[default]
    Unspecified,
    /// To the workload.
    Inbound,
    /// From the workload.
    Outbound,
}

/// What looks at a connection before a filter chain is chosen.
#[derive(Clone, Debug, PartialEq)]
pub struct ListenerFilter {
    /// What it looks for.
    pub kind: ListenerFilterKind,
    /// Destination ports at which it does not look.
    pub disabled: Option<PortPredicate>,
}

/// What a listener filter looks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ListenerFilterKind {
    /// The address that the client wanted to reach before the kernel redirected it.
    OriginalDst,
    /// Nothing: the cluster is connected to from the client's own address, and packets bear a mark.
    OriginalSrc {
        /// The mark; 0 for none.
        mark: u32,
    },
    /// A TLS client hello: SNI and ALPN.
    TlsInspector,
    /// The first line of an HTTP request.
    HttpInspector,
    /// A PROXY protocol header (v1 or v2).
    ProxyProtocol {
        /// Whether a connection without the header is accepted.
        optional: bool,
    },
}

/// What is done with the connections that match: TLS, then who may pass, then what serves it.
#[derive(Clone, Debug, PartialEq)]
pub struct FilterChain {
    /// The chain's name; may be empty.
    pub name: Arc<str>,
    /// TLS towards the client; `None` is plaintext (or TLS that is passed on).
    pub tls: Option<Arc<DownstreamTls>>,
    /// Longest time for the TLS handshake; `None` has no limit of its own.
    pub handshake_timeout: Option<Duration>,
    /// What decides whether the connection may pass, in order.
    pub guards: Vec<NetworkGuard>,
    /// What serves the connection.
    pub network: Network,
}

/// What decides whether a connection may pass.
#[derive(Clone, Debug, PartialEq)]
pub enum NetworkGuard {
    /// Policies.
    Rbac(Arc<NetworkRbac>),
    /// A service that is asked.
    Authz(Arc<TcpAuthz>),
}

/// What serves a connection.
#[derive(Clone, Debug, PartialEq)]
pub enum Network {
    /// Bytes are passed on as they are.
    Tcp(Arc<TcpProxy>),
    /// HTTP is spoken.
    Http(Arc<HttpManager>),
}

/// Passes bytes on to a cluster.
#[derive(Clone, Debug, PartialEq)]
pub struct TcpProxy {
    /// The prefix of its metrics.
    pub stat_prefix: Arc<str>,
    /// Where to.
    pub target: TcpTarget,
    /// How long a connection without a byte in either direction is kept. Default 1 h; `None` has
    /// no limit.
    pub idle_timeout: Option<Duration>,
    /// How long a connection may live. Default no limit.
    pub max_duration: Option<Duration>,
    /// Tries to connect to an endpoint. Default 1.
    pub max_connect_attempts: u32,
    /// Whether the client's address chooses the endpoint, in clusters that choose by hash.
    pub hashes_source: bool,
    /// The metadata that the endpoint must have, in clusters with subsets.
    pub labels: Option<Labels>,
    /// The request that opens a tunnel through an HTTP proxy; `None` sends the bytes as they are.
    pub tunnel: Option<Tunnel>,
    /// The port of the host that the client's hello names, for dynamic clusters.
    pub sni_port: Option<u16>,
    /// Whether the server name of the client's hello is that of the TLS towards the endpoint.
    pub passes_name: bool,
    /// One line per connection goes to each.
    pub access_logs: Vec<AccessLog>,
}

/// A request that asks an HTTP proxy for a tunnel (`CONNECT`).
#[derive(Clone, Debug, PartialEq)]
pub struct Tunnel {
    /// Where the tunnel leads: host and port.
    pub target: Arc<str>,
    /// Further headers.
    pub headers: Vec<(Arc<str>, Arc<str>)>,
}

/// Where a TCP proxy sends connections.
#[derive(Clone, Debug, PartialEq)]
pub enum TcpTarget {
    /// To one cluster.
    Cluster(Arc<str>),
    /// To one of several, by weight.
    Weighted(WeightedClusters),
}

impl TcpTarget {
    /// The name of the cluster for a connection, by a number drawn uniformly from all `u64`.
    #[must_use]
    pub fn pick(&self, draw: u64) -> &Arc<str> {
        match self {
            Self::Cluster(name) => name,
            Self::Weighted(clusters) => &clusters.pick(draw).name,
        }
    }
}

/// What is known of a connection when its filter chain is chosen.
#[derive(Clone, Copy, Debug)]
pub struct ConnectionFacts<'c> {
    /// Where the client wanted to go: the original destination if known, else the local address.
    /// `None` for a Unix domain socket.
    pub destination: Option<SocketAddr>,
    /// The client, after a PROXY header. `None` for a Unix domain socket.
    pub source: Option<SocketAddr>,
    /// The peer of the connection itself, before a PROXY header.
    pub direct_source: Option<SocketAddr>,
    /// The SNI, in any case; `None` when not TLS, not inspected, or not sent.
    pub server_name: Option<&'c str>,
    /// What was found.
    pub transport: TransportProtocol,
    /// The protocols that the client offers (ALPN) or speaks (`http/1.1`, `h2c`), in order.
    pub application_protocols: &'c [&'c str],
}

/// What the inspectors found of the transport.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum TransportProtocol {
    /// No TLS, or nobody looked: Envoy's `raw_buffer`.
    #[default]
    RawBuffer,
    /// TLS.
    Tls,
}

impl TransportProtocol {
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::RawBuffer => "raw_buffer",
            Self::Tls => "tls",
        }
    }
}

/// No filter chain matches a connection, and there is no default one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NoChain;

/// Which rule chose a filter chain.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ChainReason {
    /// Its match.
    Matched,
    /// No other chain's match: it is the default chain.
    Default,
}

impl Listener {
    /// Chooses the filter chain of a connection.
    ///
    /// As in Envoy: by destination port, destination address (longest prefix), server name (exact,
    /// then the longest `*.suffix`), transport protocol, application protocols, direct source
    /// address, source type, source address, source port. Each step takes the most specific entry
    /// and never comes back: a more specific entry that fails later hides a less specific one.
    ///
    /// # Errors
    ///
    /// [`NoChain`] when nothing matches and there is no default chain.
    pub fn chain(
        &self,
        facts: &ConnectionFacts<'_>,
    ) -> Result<(&Arc<FilterChain>, ChainReason), NoChain> {
        if let Some(at) = self.table.find(facts) {
            return Ok((&self.chains[at], ChainReason::Matched));
        }
        self.default_chain.as_ref().map(|chain| (chain, ChainReason::Default)).ok_or(NoChain)
    }

    /// Whether some listener filter of this kind looks at connections to this port.
    #[must_use]
    pub fn inspects(&self, kind: ListenerFilterKind, destination_port: u16) -> bool {
        self.filters.iter().any(|filter| {
            filter.kind == kind
                && !filter.disabled.as_ref().is_some_and(|ports| ports.holds(destination_port))
        })
    }
}
