//! A connection as the data plane sees it: sockets, TLS or not, with the facts learnt on the way in.
//!
//! In:    accepted or dialled sockets, bytes read ahead while sniffing, a finished TLS handshake.
//! Out:   [`Io`] (one type to read and write), [`Downstream`] (who came, how, and to what).
//! Never: decides anything. The shell fills these in; `http` and `tcp` consume them.

pub(crate) mod read_ahead;

use std::{
    io,
    net::{IpAddr, SocketAddr},
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, Waker, ready},
    time::SystemTime,
};

use bytes::BytesMut;
use rustls_pki_types::CertificateDer;
use sluis_rules::{Address, Metadata};
use sluis_tls::{PeerIdentity, TlsSession};
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::{TcpStream, UnixStream},
    time::Instant,
};
use tokio_rustls::TlsStream;

use self::read_ahead::ReadAhead;
use crate::drain::Gate;

/// A plain stream socket.
#[derive(Debug)]
pub enum Socket {
    /// TCP.
    Tcp(TcpStream),
    /// Unix.
    Unix(UnixStream),
}

impl Socket {
    /// Reads what is there, without waiting and without registering interest.
    ///
    /// # Errors
    ///
    /// `WouldBlock` when nothing is there; otherwise what the kernel says.
    pub fn try_read(&self, into: &mut [u8]) -> io::Result<usize> {
        match self {
            Self::Tcp(stream) => stream.try_read(into),
            Self::Unix(stream) => stream.try_read(into),
        }
    }

    /// Waits until something can be read, holding no buffer meanwhile.
    ///
    /// # Errors
    ///
    /// What the kernel says.
    pub async fn readable(&self) -> io::Result<()> {
        match self {
            Self::Tcp(stream) => stream.readable().await,
            Self::Unix(stream) => stream.readable().await,
        }
    }

    /// As [`Self::readable`], for a poll function.
    pub fn poll_read_ready(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self {
            Self::Tcp(stream) => stream.poll_read_ready(cx),
            Self::Unix(stream) => stream.poll_read_ready(cx),
        }
    }
}

impl AsyncRead for Socket {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Tcp(stream) => Pin::new(stream).poll_read(cx, buf),
            Self::Unix(stream) => Pin::new(stream).poll_read(cx, buf),
        }
    }
}

impl AsyncWrite for Socket {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Tcp(stream) => Pin::new(stream).poll_write(cx, buf),
            Self::Unix(stream) => Pin::new(stream).poll_write(cx, buf),
        }
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Tcp(stream) => Pin::new(stream).poll_write_vectored(cx, bufs),
            Self::Unix(stream) => Pin::new(stream).poll_write_vectored(cx, bufs),
        }
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Tcp(stream) => Pin::new(stream).poll_flush(cx),
            Self::Unix(stream) => Pin::new(stream).poll_flush(cx),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Tcp(stream) => Pin::new(stream).poll_shutdown(cx),
            Self::Unix(stream) => Pin::new(stream).poll_shutdown(cx),
        }
    }
}

/// One side of a proxied connection, in plaintext as the reader sees it.
#[derive(Debug)]
pub enum Io {
    /// No TLS of ours.
    Plain(Socket),
    /// TLS that we terminated or originated.
    Tls(Box<TlsStream<ReadAhead>>),
}

impl Io {
    /// Reads what is there without waiting: the fast path before a poll.
    ///
    /// The caller must poll again (for real) before it sleeps.
    ///
    /// # Errors
    ///
    /// `WouldBlock` when nothing is there; otherwise what the connection says.
    pub fn try_read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        match self {
            Self::Plain(socket) => socket.try_read(into),
            Self::Tls(stream) => {
                let mut buf = ReadBuf::new(into);
                let mut cx = Context::from_waker(Waker::noop());
                match Pin::new(stream.as_mut()).poll_read(&mut cx, &mut buf) {
                    Poll::Ready(result) => result.map(|()| buf.filled().len()),
                    Poll::Pending => Err(io::ErrorKind::WouldBlock.into()),
                }
            }
        }
    }

    /// Whether TLS is spoken on this connection.
    #[must_use]
    pub fn is_tls(&self) -> bool {
        matches!(self, Self::Tls(_))
    }

    /// The ALPN protocol agreed on, when TLS agreed on one.
    #[must_use]
    pub fn alpn(&self) -> Option<&[u8]> {
        match self {
            Self::Plain(_) => None,
            Self::Tls(stream) => stream.get_ref().1.alpn_protocol(),
        }
    }

    /// The plain socket below, for its addresses and for readiness.
    #[must_use]
    pub fn socket(&self) -> &Socket {
        match self {
            Self::Plain(socket) => socket,
            Self::Tls(stream) => stream.get_ref().0.inner(),
        }
    }

    /// Whether an idle connection is still usable: nothing to read and not closed.
    ///
    /// Anything that arrives on an idle keep-alive connection, data or end, makes it unusable.
    #[must_use]
    pub fn is_quiet(&mut self) -> bool {
        let mut probe = [0_u8; 1];
        matches!(self.try_read(&mut probe), Err(error) if error.kind() == io::ErrorKind::WouldBlock)
    }
}

/// Opens the records that have come already, while there is room: a read is one record otherwise,
/// and what is written behind it as small. What is wrong with one is said again at the next read.
fn read_on(stream: &mut TlsStream<ReadAhead>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) {
    while buf.remaining() > 0 && stream.get_ref().0.has_record() {
        let before = buf.filled().len();
        let polled = Pin::new(&mut *stream).poll_read(cx, buf);
        if !matches!(polled, Poll::Ready(Ok(()))) || buf.filled().len() == before {
            return;
        }
    }
}

impl AsyncRead for Io {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(socket) => Pin::new(socket).poll_read(cx, buf),
            Self::Tls(stream) => {
                match ready!(Pin::new(stream.as_mut()).poll_read(cx, buf)) {
                    // A TLS peer that closes TCP without close_notify: truncation matters to the
                    // framing above, which sees the end; it is not an I/O fault of ours.
                    Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => {}
                    Err(error) => return Poll::Ready(Err(error)),
                    Ok(()) => read_on(stream, cx, buf),
                }
                Poll::Ready(Ok(()))
            }
        }
    }
}

impl AsyncWrite for Io {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Plain(socket) => Pin::new(socket).poll_write(cx, buf),
            Self::Tls(stream) => Pin::new(stream.as_mut()).poll_write(cx, buf),
        }
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Plain(socket) => Pin::new(socket).poll_write_vectored(cx, bufs),
            Self::Tls(stream) => Pin::new(stream.as_mut()).poll_write_vectored(cx, bufs),
        }
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(socket) => Pin::new(socket).poll_flush(cx),
            Self::Tls(stream) => Pin::new(stream.as_mut()).poll_flush(cx),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(socket) => Pin::new(socket).poll_shutdown(cx),
            Self::Tls(stream) => Pin::new(stream.as_mut()).poll_shutdown(cx),
        }
    }
}

/// An accepted connection, ready for its network filter.
#[derive(Debug)]
pub struct Downstream {
    /// Where to read and write.
    pub io: Io,
    /// Bytes read ahead while sniffing: they come before whatever `io` gives. Empty after TLS.
    pub prefix: BytesMut,
    /// The facts of the connection, shared with its access-log records.
    pub facts: Arc<ConnectionFacts>,
    /// Says when to finish: the chain went, or the process drains.
    pub gate: Gate,
}

/// What is known of a downstream connection, fixed once the filter chain is chosen.
#[derive(Clone, Debug)]
pub struct ConnectionFacts {
    /// Unique in this process: for logs and `streamInfo`.
    pub id: u64,
    /// The listener that handles the connection (after a hand-over to another).
    pub listener: Arc<str>,
    /// The filter chain's name; empty when it has none.
    pub chain: Arc<str>,
    /// Our side: after `original_dst`, the address the client meant.
    pub local: Address,
    /// The client's side: from the socket or from the PROXY header.
    pub remote: Address,
    /// The other end of the socket, whatever a PROXY header says.
    pub direct_remote: Address,
    /// The address the client dialled before it was redirected to us.
    pub original_dst: Option<SocketAddr>,
    /// The client's address and a mark, where endpoints are connected to from that address.
    pub source: Option<(IpAddr, u32)>,
    /// The server name of the client's hello, lower case.
    pub sni: Option<Arc<str>>,
    /// The protocols that the client's hello offers, or that its first bytes speak (`http/1.1`,
    /// `h2c`).
    pub application_protocols: Vec<String>,
    /// Whether the client speaks TLS (terminated by us or not).
    pub is_tls: bool,
    /// Whether we terminated that TLS.
    pub tls_terminated: bool,
    /// What was agreed in that handshake.
    pub session: Option<TlsSession>,
    /// The URI names of the certificate that we showed.
    pub own_uris: Vec<String>,
    /// The certificate that we showed.
    pub own_certificate: Option<CertificateDer<'static>>,
    /// Who the client's certificate says it is, verified; `None` without a certificate. A client
    /// that shows none inside of TLS which another listener has terminated is who it was there.
    pub peer: Option<PeerIdentity>,
    /// Whether another listener of this proxy has handed the connection on.
    pub is_inner: bool,
    /// When the connection was accepted.
    pub start: Instant,
    /// The same moment on the calendar.
    pub start_time: SystemTime,
    /// What network filters have found out.
    pub metadata: Metadata,
}
