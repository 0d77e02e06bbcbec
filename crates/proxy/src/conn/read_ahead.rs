//! The socket below TLS: where bulk comes, it is read in large pieces ahead of the library, which
//! asks for 4 KiB at a time.
//!
//! In:    a socket, bytes that were read from it while sniffing.
//! Out:   the same bytes; whether a whole record is there.
//! Never: reads ahead where little comes, or keeps a buffer while it waits.

use std::{
    io,
    pin::{Pin, pin},
    task::{Context, Poll, ready},
};

use bytes::{Buf as _, BytesMut};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, ReadBuf};

use super::Socket;

/// What is read at once: by measurement, see the notebook.
const AHEAD_BYTES: usize = 64 * 1024;

/// What the library asks for at a time. A read that fills it says that more may be there.
const ASKED_BYTES: usize = 4096;

/// The longest record with its head (RFC 8446 §5.2; RFC 5246 §6.2.3 allows more than any library
/// sends).
const RECORD_BYTES_MAX: usize = 5 + 16 * 1024 + 256;

/// A socket that may be read ahead.
#[derive(Debug)]
pub struct ReadAhead {
    ahead: BytesMut,
    is_bulk: bool,
    inner: Socket,
}

impl ReadAhead {
    /// Puts the bytes read ahead in front of the connection.
    #[must_use]
    pub fn new(ahead: BytesMut, inner: Socket) -> Self {
        Self { ahead, is_bulk: false, inner }
    }

    /// The socket.
    #[must_use]
    pub fn inner(&self) -> &Socket {
        &self.inner
    }

    /// Whether a whole record has been read ahead: the next read of it needs no system call.
    pub(super) fn has_record(&self) -> bool {
        self.ahead.len() >= RECORD_BYTES_MAX
    }

    /// Reads into the buffer. `Ok(0)` is the end.
    fn poll_fill(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<usize>> {
        self.ahead.reserve(AHEAD_BYTES);
        let polled = pin!(self.inner.read_buf(&mut self.ahead)).poll(cx);
        match polled {
            Poll::Ready(Ok(len @ 1..)) => self.is_bulk = len >= ASKED_BYTES,
            // Nothing is there: no buffer is held meanwhile.
            Poll::Pending | Poll::Ready(_) => self.ahead = BytesMut::new(),
        }
        polled
    }
}

impl AsyncRead for ReadAhead {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        if this.ahead.is_empty() {
            if !this.is_bulk {
                let asked = buf.remaining();
                ready!(Pin::new(&mut this.inner).poll_read(cx, buf))?;
                this.is_bulk = asked >= ASKED_BYTES && buf.remaining() == 0;
                return Poll::Ready(Ok(()));
            }
            if ready!(this.poll_fill(cx))? == 0 {
                return Poll::Ready(Ok(()));
            }
        }
        let len = this.ahead.len().min(buf.remaining());
        buf.put_slice(&this.ahead[..len]);
        this.ahead.advance(len);
        if this.ahead.is_empty() && !this.is_bulk {
            this.ahead = BytesMut::new();
        }
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for ReadAhead {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.get_mut().inner).poll_write(cx, buf)
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let inner = Pin::new(&mut self.get_mut().inner);
        match bufs {
            // A record most often: send(2) is cheaper than writev(2).
            [one] => inner.poll_write(cx, one),
            _ => inner.poll_write_vectored(cx, bufs),
        }
    }

    fn is_write_vectored(&self) -> bool {
        self.inner.is_write_vectored()
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().inner).poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().inner).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use tokio::{
        io::AsyncWriteExt as _,
        net::{TcpListener, TcpStream},
    };

    use super::*;

    #[tokio::test]
    async fn bulk_is_read_ahead_and_arrives_whole_and_little_is_not() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let (far, near) =
            tokio::join!(TcpStream::connect(listener.local_addr().unwrap()), listener.accept());
        let mut far = far.unwrap();
        let first = BytesMut::from(&b"sniffed "[..]);
        let mut stream = ReadAhead::new(first, Socket::Tcp(near.unwrap().0));
        far.write_all(b"little").await.unwrap();
        let mut got = Vec::new();
        let mut piece = [0; ASKED_BYTES];
        while got.len() < 14 {
            let len = stream.read(&mut piece).await.unwrap();
            got.extend_from_slice(&piece[..len]);
            assert!(!stream.is_bulk && stream.ahead.capacity() == 0);
        }
        assert_eq!(got, b"sniffed little");
        let sent: Vec<u8> = (0..1_000_000_u32).map(|n| (n % 251) as u8).collect();
        let whole = sent.clone();
        let writing = tokio::spawn(async move {
            far.write_all(&sent).await.unwrap();
        });
        let mut got = Vec::new();
        let mut was_ahead = false;
        loop {
            let len = stream.read(&mut piece).await.unwrap();
            if len == 0 {
                break;
            }
            got.extend_from_slice(&piece[..len]);
            was_ahead |= stream.has_record();
        }
        writing.await.unwrap();
        assert!(got == whole);
        assert!(was_ahead, "a megabyte is bulk");
        assert_eq!(stream.ahead.capacity(), 0, "nothing is held at the end");
    }
}
