//! Accepts connections and, where they are under TLS, learns who is at the other end.
//!
//! In:    a TCP listener, and the TLS configuration of the moment.
//! Out:   connections whose requests carry the peer's identity.
//! Never: lets a slow handshake hold up another.

use std::{
    io,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use futures_util::{Stream, stream};
use sluis_tls::{PeerIdentity, peer_identity};
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::{TcpListener, TcpStream},
    sync::{OwnedSemaphorePermit, Semaphore},
    task::JoinSet,
    time::{Sleep, sleep, timeout},
};
use tokio_rustls::{TlsAcceptor, server::TlsStream};
use tonic::transport::server::Connected;
use tracing::debug;

use super::ServerTlsSource;

/// Connections at once. A control plane of this build serves thousands of proxies; at the bound
/// new ones wait in the kernel's backlog.
const CONNECTIONS_MAX: usize = 8192;

/// Wait for a TLS handshake.
const HANDSHAKE_WAIT_MAX: Duration = Duration::from_secs(5);

/// Life of a connection without a client certificate. Such a peer may only ask for a certificate,
/// which takes one short call, and must not hold connections for longer.
const ANONYMOUS_LIFE_MAX: Duration = Duration::from_secs(30);

/// Wait after a failed `accept`, usually for want of file descriptors.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// The protocol of gRPC.
const ALPN_H2: &[u8] = b"h2";

/// The connections of a listener, each after its handshake.
pub(super) fn incoming(
    listener: TcpListener,
    tls: ServerTlsSource,
) -> impl Stream<Item = io::Result<PeerStream<TlsStream<TcpStream>>>> {
    let acceptor = Acceptor {
        listener,
        tls,
        handshakes: JoinSet::new(),
        places: Arc::new(Semaphore::new(CONNECTIONS_MAX)),
    };
    stream::unfold(acceptor, |mut acceptor| async move {
        let stream = acceptor.next().await;
        Some((Ok(stream), acceptor))
    })
}

/// The connections of a listener without TLS. Nothing is known of their peers.
pub(super) fn plain(
    listener: TcpListener,
) -> impl Stream<Item = io::Result<PeerStream<TcpStream>>> {
    let places = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    stream::unfold((listener, places), |(listener, places)| async move {
        let (tcp, place) = accept(&listener, &places).await;
        let stream = tcp.set_nodelay(true).map(|()| PeerStream {
            bytes: tcp,
            peer: PeerIdentity::default(),
            ends: None,
            _place: place,
        });
        Some((stream, (listener, places)))
    })
}

/// Accepts connections and drives their handshakes.
///
/// # Cancel safety
///
/// Dropping it closes the listener and the connections whose handshake is under way.
struct Acceptor {
    listener: TcpListener,
    tls: ServerTlsSource,
    handshakes: JoinSet<Option<PeerStream<TlsStream<TcpStream>>>>,
    places: Arc<Semaphore>,
}

impl Acceptor {
    async fn next(&mut self) -> PeerStream<TlsStream<TcpStream>> {
        loop {
            tokio::select! {
                Some(done) = self.handshakes.join_next() => {
                    // A handshake that panicked is a connection lost, nothing more.
                    if let Ok(Some(stream)) = done {
                        return stream;
                    }
                }
                (tcp, place) = accept(&self.listener, &self.places) => self.begin(tcp, place),
            }
        }
    }

    fn begin(&mut self, tcp: TcpStream, place: OwnedSemaphorePermit) {
        let mut config = (self.tls)();
        if config.alpn_protocols != [ALPN_H2] {
            Arc::make_mut(&mut config).alpn_protocols = vec![ALPN_H2.to_vec()];
        }
        self.handshakes.spawn(async move {
            let remote = tcp.peer_addr().ok();
            let shaken = timeout(HANDSHAKE_WAIT_MAX, shake_hands(tcp, config, place)).await;
            match shaken {
                Ok(Ok(stream)) => Some(stream),
                Ok(Err(error)) => {
                    debug!(?remote, %error, "handshake failed");
                    None
                }
                Err(_elapsed) => {
                    debug!(?remote, waited = ?HANDSHAKE_WAIT_MAX, "handshake timed out");
                    None
                }
            }
        });
    }
}

/// Takes the next connection once there is a place for it.
async fn accept(
    listener: &TcpListener,
    places: &Arc<Semaphore>,
) -> (TcpStream, OwnedSemaphorePermit) {
    let place =
        Arc::clone(places).acquire_owned().await.expect("the semaphore of places is never closed");
    loop {
        match listener.accept().await {
            Ok((tcp, _)) => return (tcp, place),
            Err(error) => {
                debug!(%error, "accept failed");
                sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

async fn shake_hands(
    tcp: TcpStream,
    config: Arc<rustls::ServerConfig>,
    place: OwnedSemaphorePermit,
) -> io::Result<PeerStream<TlsStream<TcpStream>>> {
    tcp.set_nodelay(true)?;
    let tls = TlsAcceptor::from(config).accept(tcp).await?;
    let peer = match tls.get_ref().1.peer_certificates() {
        None => PeerIdentity::default(),
        Some(chain) => peer_identity(chain).map_err(|error| io::Error::other(error.to_string()))?,
    };
    let ends = peer.id.is_none().then(|| Box::pin(sleep(ANONYMOUS_LIFE_MAX)));
    Ok(PeerStream { bytes: tls, peer, ends, _place: place })
}

/// A connection whose peer is known, or known to be anonymous. `S` carries its bytes.
pub(super) struct PeerStream<S> {
    bytes: S,
    peer: PeerIdentity,
    /// When an anonymous connection ends.
    ends: Option<Pin<Box<Sleep>>>,
    _place: OwnedSemaphorePermit,
}

impl<S> Connected for PeerStream<S> {
    type ConnectInfo = PeerIdentity;

    fn connect_info(&self) -> PeerIdentity {
        self.peer.clone()
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for PeerStream<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if let Some(ends) = &mut self.ends
            && ends.as_mut().poll(cx).is_ready()
        {
            return Poll::Ready(Err(io::ErrorKind::TimedOut.into()));
        }
        Pin::new(&mut self.bytes).poll_read(cx, buf)
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for PeerStream<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.bytes).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.bytes).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.bytes).poll_shutdown(cx)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.bytes).poll_write_vectored(cx, bufs)
    }

    fn is_write_vectored(&self) -> bool {
        self.bytes.is_write_vectored()
    }
}
