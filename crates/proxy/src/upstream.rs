//! Chooses an endpoint of a cluster and connects to it, TLS included.
//!
//! In:    a cluster, and what the connection or request knows ([`ConnectContext`]).
//! Out:   an [`Upstream`], or a [`ConnectError`] that knows its response flag.
//! Never: connects to this proxy itself; falls back to plaintext when TLS was asked for.

use std::{cell::RefCell, collections::HashMap, io, net::SocketAddr, sync::Arc, time::Duration};

use bytes::BytesMut;
use sluis_rules::{Address, Cluster, Discovery, Draw, EndpointAddress, Endpoints, UpstreamTls};
use socket2::SockRef;
use tokio::net::{TcpSocket, TcpStream};

use crate::{
    config::Backend,
    conn::{Io, Replay, Socket},
    sockets,
    stats::Counter,
    worker::Worker,
};

/// What the choice of an endpoint and the handshake may depend on.
#[derive(Clone, Copy, Debug, Default)]
pub struct ConnectContext<'a> {
    /// The request's host, without its port: for `auto_sni` and `auto_san_validation`.
    pub host: Option<&'a str>,
    /// The address that the client wanted to reach: for ORIGINAL_DST clusters.
    pub original_dst: Option<SocketAddr>,
    /// The request's hash: for clusters that choose by it.
    pub hash: Option<u64>,
}

/// A chosen endpoint: where to connect, and the endpoint it stands for.
#[derive(Clone, Debug)]
pub struct Pick {
    /// Where to connect.
    pub address: Address,
    endpoint: Option<(Arc<Endpoints>, usize)>,
}

impl Pick {
    /// The endpoint's host name, for `auto_host_rewrite`.
    #[must_use]
    pub fn hostname(&self) -> Option<&Arc<str>> {
        self.endpoint.as_ref().and_then(|(all, index)| all.list[*index].hostname.as_ref())
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
            Self::Loop { .. } | Self::Io { .. } | Self::Timeout { .. } | Self::Tls { .. } => "UF",
        }
    }

    /// The endpoint that was tried, for the access log.
    #[must_use]
    pub fn into_pick(self) -> Option<Pick> {
        match self {
            Self::Io { address, .. }
            | Self::Timeout { address, .. }
            | Self::Tls { address, .. } => Some(Pick { address, endpoint: None }),
            _ => None,
        }
    }

    /// What `%RESPONSE_CODE_DETAILS%` says in Envoy for the same fault.
    #[must_use]
    pub fn details(&self) -> &'static str {
        match self {
            Self::NoEndpoint { .. } | Self::NoOriginalDestination { .. } => "no_healthy_upstream",
            Self::Timeout { .. } => "upstream_reset_before_response_started{connection_timeout}",
            Self::Loop { .. } | Self::Io { .. } | Self::Tls { .. } => {
                "upstream_reset_before_response_started{connection_failure}"
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
            Self::NoEndpoint { .. } | Self::NoOriginalDestination { .. } | Self::Loop { .. } => {
                None
            }
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

/// The turns of the round robins of one worker, by cluster.
#[derive(Debug, Default)]
pub(crate) struct Balance(RefCell<HashMap<usize, u64>>);

impl Balance {
    /// Forgets all turns: the clusters may be others now.
    pub(crate) fn forget(&self) {
        self.0.borrow_mut().clear();
    }
}

impl Worker {
    /// Chooses an endpoint.
    ///
    /// # Errors
    ///
    /// [`ConnectError::NoEndpoint`], [`ConnectError::NoOriginalDestination`] and
    /// [`ConnectError::Loop`].
    pub fn pick(
        &self,
        backend: &Arc<Backend>,
        context: &ConnectContext<'_>,
    ) -> Result<Pick, ConnectError> {
        if let Discovery::OriginalDst { port_override } = backend.discovery {
            return self.original(backend, port_override, context);
        }
        let picked = {
            let mut turns = self.balance.0.borrow_mut();
            // A worker starts its turns at random, so that workers do not move in step.
            let turn = turns
                .entry(Arc::as_ptr(backend) as usize)
                .or_insert_with(|| self.random().below(1 << 32));
            let mut draw = Draw { random: self.random().next(), turn };
            backend.balancer.pick(&mut draw, |_| 0)
        };
        let address =
            picked.ok().and_then(|place| match &backend.endpoints.list.get(place)?.address {
                EndpointAddress::Fixed(address) => Some((place, address.clone())),
                EndpointAddress::Name { .. } => None,
            });
        let Some((place, address)) = address else {
            self.stats().inc(Counter::UpstreamNoHost);
            return Err(ConnectError::NoEndpoint { cluster: Arc::clone(&backend.name) });
        };
        Ok(Pick { address, endpoint: Some((Arc::clone(&backend.endpoints), place)) })
    }

    fn original(
        &self,
        backend: &Backend,
        port_override: Option<u16>,
        context: &ConnectContext<'_>,
    ) -> Result<Pick, ConnectError> {
        let Some(mut address) = context.original_dst else {
            self.stats().inc(Counter::UpstreamNoHost);
            return Err(ConnectError::NoOriginalDestination { cluster: Arc::clone(&backend.name) });
        };
        if let Some(port) = port_override {
            address.set_port(port);
        }
        if self.peek_config().is_own(address) {
            self.stats().inc(Counter::UpstreamLoops);
            return Err(ConnectError::Loop { address });
        }
        Ok(Pick { address: Address::Socket(address), endpoint: None })
    }

    /// Connects to a chosen endpoint, within the cluster's connect timeout.
    ///
    /// # Errors
    ///
    /// [`ConnectError::Io`], [`ConnectError::Timeout`] and [`ConnectError::Tls`].
    ///
    /// # Cancel safety
    ///
    /// Dropping the future closes what was opened.
    pub async fn dial(
        &self,
        backend: &Arc<Backend>,
        pick: Pick,
        context: &ConnectContext<'_>,
    ) -> Result<Upstream, ConnectError> {
        let waited = backend.connect_timeout;
        let dialled = tokio::time::timeout(waited, dial(backend, &pick, context)).await;
        let (io, local) = match dialled {
            Ok(Ok(done)) => done,
            Ok(Err(error)) => {
                self.stats().inc(Counter::UpstreamCxConnectFail);
                return Err(error);
            }
            Err(_) => {
                self.stats().inc(Counter::UpstreamCxConnectTimeout);
                return Err(ConnectError::Timeout { address: pick.address, waited });
            }
        };
        self.stats().inc(Counter::UpstreamCxTotal);
        Ok(Upstream { io, local, pick })
    }

    /// Chooses an endpoint and connects to it.
    ///
    /// # Errors
    ///
    /// [`ConnectError`].
    pub async fn connect(
        &self,
        backend: &Arc<Backend>,
        context: &ConnectContext<'_>,
    ) -> Result<Upstream, ConnectError> {
        let pick = self.pick(backend, context)?;
        self.dial(backend, pick, context).await
    }
}

async fn dial(
    backend: &Backend,
    pick: &Pick,
    context: &ConnectContext<'_>,
) -> Result<(Io, Option<SocketAddr>), ConnectError> {
    let failed = |source| ConnectError::Io { address: pick.address.clone(), source };
    let (socket, local) = match &pick.address {
        Address::Socket(address) => {
            let stream = dial_tcp(backend, *address).await.map_err(failed)?;
            let local = stream.local_addr().ok();
            // The kernel lets a socket connect to itself when source and destination meet.
            if local == Some(*address) {
                return Err(ConnectError::Loop { address: *address });
            }
            (Socket::Tcp(stream), local)
        }
        Address::Pipe(path) => (Socket::dial_unix(path).await.map_err(failed)?, None),
    };
    let Some(settings) = pick.tls(backend) else {
        return Ok((Io::Plain(socket), local));
    };
    let fault = |message: String| ConnectError::Tls { address: pick.address.clone(), message };
    let tls = backend
        .client_tls(settings)
        .ok_or_else(|| fault("the cluster's TLS settings cannot be used".to_owned()))?;
    let host = context.host.filter(|host| backend.auto_sni && !is_ip(host));
    let endpoint_name = pick.hostname().filter(|_| settings.auto_host_sni);
    let sni = host.or(endpoint_name.map(|name| &**name));
    let stream = tls
        .connect(Replay::new(BytesMut::new(), socket), sni)
        .await
        .map_err(|error| fault(error.to_string()))?;
    Ok((Io::Tls(Box::new(stream.into())), local))
}

/// RFC 6066 §3: literal addresses are not server names.
fn is_ip(host: &str) -> bool {
    host.trim_start_matches('[').trim_end_matches(']').parse::<std::net::IpAddr>().is_ok()
}

async fn dial_tcp(backend: &Backend, address: SocketAddr) -> io::Result<TcpStream> {
    let socket = if address.is_ipv4() { TcpSocket::new_v4()? } else { TcpSocket::new_v6()? };
    if let Some(source) = backend.bind_source.filter(|s| s.is_ipv4() == address.is_ipv4()) {
        socket.bind(source)?;
    }
    let stream = socket.connect(address).await?;
    stream.set_nodelay(true)?;
    if let Some(keepalive) = &backend.tcp_keepalive {
        sockets::keep_alive(SockRef::from(&stream), keepalive)?;
    }
    Ok(stream)
}
