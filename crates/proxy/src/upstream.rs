//! Chooses an endpoint of a cluster and connects to it, TLS included.
//!
//! In:    a cluster, and what the connection or request knows ([`ConnectContext`]).
//! Out:   an [`Upstream`], or a [`ConnectError`] that knows its response flag.
//! Never: connects to this proxy itself; falls back to plaintext when TLS was asked for.

mod dial;
mod dialer;
mod dynamic;
mod handshake;
mod lines;

use std::{
    io,
    net::{IpAddr, SocketAddr},
    sync::Arc,
    time::Duration,
};

use sluis_rules::{Address, Cluster, EndpointAddress, Endpoints, Hop, Labels, Tunnel, UpstreamTls};

pub use self::dialer::Dialer;
pub(crate) use self::{dialer::open, lines::Held};
use crate::{
    config::Backend,
    conn::{ConnectionFacts, Io},
    hosts::{Host, Priority},
    names::NameError,
};

/// Where a client wants to go.
#[derive(Clone, Copy, Debug)]
pub struct Target<'a> {
    /// The host, without a port.
    pub host: &'a str,
    /// The port, if it named one.
    pub port: Option<u16>,
    /// The server name of the TLS that we terminated: it must be the same host.
    pub sni: Option<&'a str>,
}

/// What the choice of an endpoint and the handshake may depend on.
#[derive(Clone, Copy, Debug, Default)]
pub struct ConnectContext<'a> {
    /// The request's host, without its port: for `auto_sni` and `auto_san_validation`.
    pub host: Option<&'a str>,
    /// The address that the client wanted to reach: for ORIGINAL_DST clusters.
    pub original_dst: Option<SocketAddr>,
    /// The request's or connection's hash, for clusters that choose by hash.
    pub hash: Option<u64>,
    /// The metadata that the endpoint must have, for clusters with subsets.
    pub labels: Option<&'a Labels>,
    /// How often an endpoint has been chosen and not been wanted.
    pub attempt: u32,
    /// Priorities that are left out while another is of use, as bits.
    pub spurned: u64,
    /// Whose limits count.
    pub priority: Priority,
    /// The server name to ask for in TLS in the place of the one that its settings say.
    pub server_name: Option<&'a str>,
    /// The protocol to offer where TLS settings name none.
    pub offers: Option<&'static str>,
    /// What to offer in TLS in the place of what the cluster offers.
    pub alpn: Option<&'a [Arc<str>]>,
    /// The client's address and ours towards it, for PROXY protocol headers.
    pub downstream: Option<(SocketAddr, SocketAddr)>,
    /// The address to connect from in the place of the cluster's own choice (the client's, which is
    /// not local), and the mark of its packets; 0 for none.
    pub source: Option<(IpAddr, u32)>,
    /// The host that the client named, and its port if it named one: for dynamic clusters.
    pub target: Option<Target<'a>>,
    /// The request that opens a tunnel once the connection is there.
    pub tunnel: Option<&'a Tunnel>,
}

impl ConnectContext<'_> {
    /// What a client's connection says of it.
    pub(crate) fn of(facts: &ConnectionFacts) -> Self {
        let socket = |address: &Address| match address {
            Address::Socket(address) => Some(*address),
            Address::Pipe(_) | Address::Internal(_) => None,
        };
        Self {
            original_dst: facts.original_dst,
            downstream: socket(&facts.remote).zip(socket(&facts.local)),
            source: facts.source,
            ..Self::default()
        }
    }
}

/// A chosen endpoint: where to connect, and the endpoint it stands for.
#[derive(Clone, Debug)]
pub struct Pick {
    /// Where to connect.
    pub address: Address,
    endpoint: Option<(Arc<Endpoints>, usize)>,
    /// What the process knows of it; `None` for an original destination.
    pub host: Option<Arc<Host>>,
    /// The host that the client named, where that decided.
    pub(crate) named: Option<Arc<str>>,
}

impl Pick {
    /// An address that stands for no endpoint.
    pub(crate) fn plain(address: Address) -> Self {
        Self { address, endpoint: None, host: None, named: None }
    }

    /// An endpoint by its place in the cluster's list.
    pub(crate) fn of(backend: &Backend, place: usize) -> Option<Self> {
        let EndpointAddress::Fixed(address) = &backend.endpoints.list.get(place)?.address else {
            return None;
        };
        let endpoint = Some((Arc::clone(&backend.endpoints), place));
        let host = backend.hosts[place].clone();
        Some(Self { address: address.clone(), endpoint, host, named: None })
    }

    /// What comes before TLS towards this endpoint.
    pub(crate) fn hop(&self, cluster: &Cluster) -> Hop {
        match &self.endpoint {
            Some((all, index)) => all.list[*index].hop,
            None => cluster.hop,
        }
    }

    /// Tells outlier detection of an answer, by its status.
    pub(crate) fn answered(&self, backend: &Backend, status: u16) {
        if let Some(host) = &self.host {
            host.answered(backend.outlier.as_deref(), &backend.group, status);
        }
    }

    /// Tells outlier detection that the endpoint left us without an answer.
    pub(crate) fn failed(&self, backend: &Backend, is_timeout: bool) {
        if let Some(host) = &self.host {
            host.failed(backend.outlier.as_deref(), &backend.group, is_timeout);
        }
    }

    /// Tells outlier detection that the endpoint was reached.
    pub(crate) fn reached(&self, backend: &Backend, is_final: bool) {
        if let Some(host) = &self.host {
            host.reached(backend.outlier.as_deref(), &backend.group, is_final);
        }
    }

    /// The endpoint's priority.
    pub(crate) fn priority(&self) -> u32 {
        self.endpoint.as_ref().map_or(0, |(all, index)| all.list[*index].priority)
    }

    /// The endpoint's host name, for `auto_host_rewrite`.
    #[must_use]
    pub fn hostname(&self) -> Option<&Arc<str>> {
        match &self.endpoint {
            Some((all, index)) => all.list[*index].hostname.as_ref(),
            None => self.named.as_ref(),
        }
    }

    /// TLS towards this endpoint: the endpoint's own, else the cluster's.
    #[must_use]
    pub fn tls<'a>(&'a self, cluster: &'a Cluster) -> Option<&'a Arc<UpstreamTls>> {
        match &self.endpoint {
            // The compiler has copied the cluster's TLS to endpoints without a match of their own.
            Some((all, index)) => all.list[*index].tls.as_ref(),
            None => cluster.tls.as_ref(),
        }
    }
}

/// An open connection to an endpoint.
#[derive(Debug)]
pub struct Upstream {
    /// Where to read and write.
    pub io: Io,
    /// Our end, for the access log.
    pub local: Option<SocketAddr>,
    /// The endpoint that was chosen.
    pub pick: Pick,
    /// Counts the connection while it is open.
    pub(crate) _held: Option<Held>,
}

/// Why there is no connection to an endpoint.
#[derive(Debug, thiserror::Error)]
pub enum ConnectError {
    /// The cluster has no endpoint to go to. BlackHoleCluster always ends here.
    #[error("cluster {cluster} has no endpoint")]
    NoEndpoint {
        /// The cluster's name.
        cluster: Arc<str>,
    },
    /// The cluster has as much under way as it may have.
    #[error("cluster {cluster}: {what} are at their limit")]
    Overflow {
        /// The cluster's name.
        cluster: Arc<str>,
        /// Of what there is too much.
        what: &'static str,
    },
    /// The control plane asks for a part of the requests to be dropped.
    #[error("cluster {cluster}: dropped for overload")]
    Dropped {
        /// The cluster's name.
        cluster: Arc<str>,
        /// Whether it asks for all to be dropped.
        is_unconditional: bool,
    },
    /// The destination that the client chose must not be reached.
    #[error("cluster {cluster}: {host}: {reason}")]
    Forbidden {
        /// The cluster's name.
        cluster: Arc<str>,
        /// The host that the client named.
        host: String,
        /// Why not, for the access log.
        reason: &'static str,
    },
    /// The name that the client chose has no address.
    #[error("cluster {cluster}: {host}: {source}")]
    Name {
        /// The cluster's name.
        cluster: Arc<str>,
        /// The host that the client named.
        host: String,
        /// Why not.
        #[source]
        source: NameError,
    },
    /// The cluster goes to the original destination, and there is none.
    #[error("cluster {cluster}: the connection has no original destination")]
    NoOriginalDestination {
        /// The cluster's name.
        cluster: Arc<str>,
    },
    /// The destination is one of this proxy's own listeners.
    #[error("{address} is this proxy itself")]
    Loop {
        /// The destination.
        address: SocketAddr,
    },
    /// The connection was not made.
    #[error("{address}: {source}")]
    Io {
        /// The endpoint.
        address: Address,
        /// What the kernel said.
        #[source]
        source: io::Error,
    },
    /// The connection, TLS included, took longer than the cluster's connect timeout.
    #[error("{address}: no connection within {waited:?}")]
    Timeout {
        /// The endpoint.
        address: Address,
        /// The cluster's connect timeout.
        waited: Duration,
    },
    /// The TLS handshake failed, or our side of it cannot be set up (a secret is missing).
    #[error("{address}: TLS: {message}")]
    Tls {
        /// The endpoint.
        address: Address,
        /// Why.
        message: String,
    },
}

impl ConnectError {
    /// The response flag of the access log: `UH` or `UF`.
    #[must_use]
    pub fn flag(&self) -> &'static str {
        match self {
            Self::NoEndpoint { .. } | Self::NoOriginalDestination { .. } => "UH",
            Self::Overflow { .. } | Self::Name { source: NameError::Overflow, .. } => "UO",
            Self::Forbidden { .. } => "UH",
            Self::Name { .. } => "DF",
            Self::Dropped { is_unconditional: true, .. } => "UDO",
            Self::Dropped { is_unconditional: false, .. } => "DO",
            Self::Loop { .. } | Self::Io { .. } | Self::Timeout { .. } | Self::Tls { .. } => "UF",
        }
    }

    /// The endpoint that was tried, for the access log.
    #[must_use]
    pub fn into_pick(self) -> Option<Pick> {
        match self {
            Self::Io { address, .. }
            | Self::Timeout { address, .. }
            | Self::Tls { address, .. } => Some(Pick::plain(address)),
            _ => None,
        }
    }

    /// What `%RESPONSE_CODE_DETAILS%` says in Envoy for the same fault.
    #[must_use]
    pub fn details(&self) -> &'static str {
        match self {
            Self::NoEndpoint { .. } | Self::NoOriginalDestination { .. } => "no_healthy_upstream",
            Self::Overflow { .. } => "upstream_reset_before_response_started{overflow}",
            Self::Forbidden { reason, .. } => reason,
            Self::Name { source: NameError::Unresolved, .. } => "dns_resolution_failure",
            Self::Name { source: NameError::TooMany, .. } => "dns_cache_overflow",
            Self::Name { source: NameError::Overflow, .. } => {
                "dynamic_forward_proxy_pending_request_overflow"
            }
            Self::Dropped { is_unconditional: true, .. } => "unconditional_drop_overload",
            Self::Dropped { is_unconditional: false, .. } => "drop_overload",
            Self::Timeout { .. } => "upstream_reset_before_response_started{connection_timeout}",
            Self::Io { source, .. } if source.kind() == io::ErrorKind::ConnectionRefused => {
                "upstream_reset_before_response_started{remote_connection_failure|delayed_connect_error:_Connection_refused}"
            }
            Self::Loop { .. } | Self::Io { .. } | Self::Tls { .. } => {
                "upstream_reset_before_response_started{remote_connection_failure}"
            }
        }
    }

    /// The endpoint that was tried, if it came to that.
    #[must_use]
    pub fn address(&self) -> Option<&Address> {
        match self {
            Self::Io { address, .. }
            | Self::Timeout { address, .. }
            | Self::Tls { address, .. } => Some(address),
            _ => None,
        }
    }

    /// Whether another endpoint, or the same a moment later, may do better.
    #[must_use]
    pub fn is_worth_another_try(&self) -> bool {
        matches!(self, Self::Io { .. } | Self::Timeout { .. })
    }

    /// What `%UPSTREAM_TRANSPORT_FAILURE_REASON%` says: for TLS faults only.
    #[must_use]
    pub fn transport_failure(&self) -> Option<&str> {
        match self {
            Self::Tls { message, .. } => Some(message),
            _ => None,
        }
    }
}
