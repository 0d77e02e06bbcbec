//! Serves ADS over gRPC: under mutual TLS with room for other services, or plain on loopback.
//!
//! In:    a listener, the TLS configuration of the moment, a [`Directory`], other gRPC services.
//! Out:   streams of configuration to proxies; what they answered, to the directory.
//! Never: decides what a proxy gets, or whether it may: the directory does.
//!
//! Start at [`Server`].

mod accept;
mod ads;
mod incoming;
mod outgoing;

use std::{convert::Infallible, fmt, io, net::SocketAddr, sync::Arc, time::Duration};

use envoy_types::pb::envoy::config::core::v3::Node;
use futures_util::Stream;
use http::{Request, Response};
use rustls::ServerConfig;
use sluis_envoy::{EncodedSet, Kind};
use sluis_nouns::WorkloadId;
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::TcpListener,
    sync::watch,
    time::timeout,
};
use tonic::{
    body::Body,
    server::NamedService,
    service::Routes,
    transport::{Server as GrpcServer, server::Connected},
};
use tower::Service;

use self::ads::Ads;
use crate::session::Report;

/// Interval of HTTP/2 pings: a peer that vanished is noticed within half a minute, and a quiet
/// connection survives the usual idle timeouts of middle boxes.
const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(20);

/// Wait for the answer to a ping.
const KEEPALIVE_WAIT_MAX: Duration = Duration::from_secs(10);

/// HTTP/2 streams of one connection: one ADS stream, certificate calls, and a reconnecting client's
/// overlap.
const STREAMS_PER_CONNECTION_MAX: u32 = 16;

/// Wait for connections to end after their streams were closed on shutdown.
const DRAIN_WAIT_MAX: Duration = Duration::from_secs(2);

/// The TLS configuration for the next connection. Client certificates are to be verified when one
/// is given, and to be optional: the certificate service is called by those who have none yet.
pub type ServerTlsSource = Arc<dyn Fn() -> Arc<ServerConfig> + Send + Sync>;

/// Names one stream of one proxy. A proxy that reconnects gets a new key, so that the end of its
/// older stream, noticed late, says nothing about the new one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ProxyKey(pub u64);

/// Who is at the other end of a stream.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Peer {
    /// It has proved this identity with its certificate.
    Verified(WorkloadId),
    /// A program of this machine that proved nothing, on the port without TLS.
    Local,
}

impl fmt::Display for Peer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Verified(id) => id.fmt(f),
            Self::Local => f.write_str("local"),
        }
    }
}

/// A proxy that was let in.
#[derive(Debug)]
pub struct Connection {
    /// The name of this stream in later calls.
    pub key: ProxyKey,
    /// What the proxy should hold, now and from now on. The stream ends when the sender is gone.
    pub sets: watch::Receiver<Arc<EncodedSet>>,
}

/// Why a proxy is not served.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// It has no verified identity, or one that does not match what it says it is.
    #[error("{0}")]
    Forbidden(String),
    /// It says nothing, or nonsense, about what it is.
    #[error("{0}")]
    Malformed(String),
    /// The control plane cannot serve it at the moment; it may come back.
    #[error("{0}")]
    Unavailable(String),
}

/// Knows who may connect and what each one gets. Implemented by the control plane.
///
/// The calls are made from tasks of the server and must not wait.
pub trait Directory: Send + Sync + 'static {
    /// Lets a proxy in, or says why not.
    ///
    /// # Errors
    ///
    /// A [`Refusal`]: the proxy gets nothing.
    fn connect(&self, peer: &Peer, node: &Node) -> Result<Connection, Refusal>;

    /// Takes note of what was sent and answered at once.
    fn report(&self, key: ProxyKey, reports: Vec<(Kind, Report)>);

    /// Takes note of resources that the proxy has asked for by name and is not given: they do not
    /// exist, or are not for it. Which of the two, it does not learn. Each name is told once for a
    /// stream.
    fn absent(&self, key: ProxyKey, kind: Kind, names: &[String]) {
        let _unused = (key, kind, names);
    }

    /// Takes note that the stream has ended.
    fn disconnect(&self, key: ProxyKey);
}

/// Why the server stopped serving.
#[derive(Debug, thiserror::Error)]
pub enum ServeError {
    /// The gRPC server failed.
    #[error("the gRPC server stopped")]
    Grpc(#[source] tonic::transport::Error),
    /// Without TLS anybody who reaches the port would get any proxy's configuration.
    #[error("{0} is not a loopback address: without TLS only this machine is served")]
    NotLoopback(SocketAddr),
    /// The listener has no address.
    #[error("the listener is broken")]
    Listener(#[source] io::Error),
}

/// The gRPC server of the control plane.
pub struct Server {
    door: Door,
    routes: Routes,
    closing: watch::Sender<bool>,
}

/// How connections come in.
enum Door {
    Tls(ServerTlsSource),
    Plaintext,
}

impl Server {
    /// A server of ADS alone, under mutual TLS; [`Server::with`] adds services.
    #[must_use]
    pub fn new(tls: ServerTlsSource, directory: Arc<dyn Directory>) -> Self {
        Self::behind(Door::Tls(tls), directory)
    }

    /// A server of ADS without TLS, as Istio's port 15010, for programs of this machine: the
    /// directory sees each of them as [`Peer::Local`].
    #[must_use]
    pub fn plaintext(directory: Arc<dyn Directory>) -> Self {
        Self::behind(Door::Plaintext, directory)
    }

    fn behind(door: Door, directory: Arc<dyn Directory>) -> Self {
        let (closing, closed) = watch::channel(false);
        let takes_local = matches!(door, Door::Plaintext);
        let ads = Ads::new(directory, closed, takes_local);
        Self { door, routes: Routes::new(ads), closing }
    }

    /// Adds a gRPC service to the same port.
    ///
    /// Each request carries a [`PeerIdentity`](sluis_tls::PeerIdentity) among its extensions; its
    /// `id` is `None` for a peer without a client certificate.
    #[must_use]
    pub fn with<S>(mut self, service: S) -> Self
    where
        S: Service<Request<Body>, Response = Response<Body>, Error = Infallible>
            + NamedService
            + Clone
            + Send
            + Sync
            + 'static,
        S::Future: Send + 'static,
    {
        self.routes = self.routes.add_service(service);
        self
    }

    /// Serves until `shutdown` is done; then ends every stream and waits shortly for connections
    /// to close.
    ///
    /// # Errors
    ///
    /// [`ServeError`]. A failed handshake or connection is logged and ends nothing else.
    pub async fn serve(
        self,
        listener: TcpListener,
        shutdown: impl Future<Output = ()> + Send,
    ) -> Result<(), ServeError> {
        let Self { door, routes, closing } = self;
        match door {
            Door::Tls(tls) => {
                drive(accept::incoming(listener, tls), routes, closing, shutdown).await
            }
            Door::Plaintext => {
                let address = listener.local_addr().map_err(ServeError::Listener)?;
                if !address.ip().is_loopback() {
                    return Err(ServeError::NotLoopback(address));
                }
                drive(accept::plain(listener), routes, closing, shutdown).await
            }
        }
    }
}

/// Serves what comes in until `shutdown` is done.
async fn drive<C>(
    incoming: impl Stream<Item = io::Result<C>> + Send,
    routes: Routes,
    closing: watch::Sender<bool>,
    shutdown: impl Future<Output = ()> + Send,
) -> Result<(), ServeError>
where
    C: AsyncRead + AsyncWrite + Connected + Unpin + Send + 'static,
{
    let mut closed = closing.subscribe();
    let serving = GrpcServer::builder()
        .http2_keepalive_interval(Some(KEEPALIVE_INTERVAL))
        .http2_keepalive_timeout(Some(KEEPALIVE_WAIT_MAX))
        .max_concurrent_streams(STREAMS_PER_CONNECTION_MAX)
        .add_routes(routes)
        .serve_with_incoming_shutdown(incoming, async move {
            // An error means that the sender is gone, which is a shutdown as well.
            drop(closed.wait_for(|closing| *closing).await);
        });
    tokio::pin!(serving);
    tokio::select! {
        result = &mut serving => return result.map_err(ServeError::Grpc),
        () = shutdown => {}
    }
    closing.send_replace(true);
    match timeout(DRAIN_WAIT_MAX, serving).await {
        Ok(result) => result.map_err(ServeError::Grpc),
        Err(_elapsed) => Ok(()),
    }
}

#[cfg(test)]
mod tests;
