//! Moves bytes between two TCP sockets inside the kernel: splice(2) through a pipe.
//!
//! In:    two sockets in plaintext whose bytes nobody has to see.
//! Out:   how many bytes went in and out; the pipes of one worker, lent and given back.
//! Never: lends a pipe that still holds bytes, or holds more pipes than [`PIPES_MAX`]: who gets none
//!        copies.

use std::{
    cell::{Cell, RefCell},
    io,
    os::fd::OwnedFd,
    rc::Rc,
    task::{Context, Poll, ready},
};

use rustix::pipe::{PipeFlags, SpliceFlags, fcntl_setpipe_size, pipe_with, splice};
use tokio::{io::Interest, net::TcpStream};

use crate::conn::{Io, Socket};

/// Most bytes that one pipe is asked to take at once. How many it holds depends on how the kernel
/// has cut them: a pipe has slots, and a slot holds a fragment of any length.
const FILL_BYTES_MAX: usize = 512 * 1024;

/// What a pipe is made to hold, where the system allows it: by measurement, see the notebook.
const PIPE_BYTES: usize = 512 * 1024;

/// Most pipes that one worker lends at a time, two descriptors each. A pipe is held only while
/// bytes move or wait in it, so that more are wanted only by as many clients that do not read.
const PIPES_MAX: usize = 64;

/// Pipes that wait for their next use: one transfer is under way at a time, but for those that wait
/// for their clients.
const SPARE_MAX: usize = 16;

/// The pipes of one worker.
#[derive(Debug, Default)]
pub(crate) struct Pipes {
    spare: RefCell<Vec<Ends>>,
    lent: Cell<usize>,
    /// Whether the system has refused to splice: then nobody tries again.
    is_refused: Cell<bool>,
}

#[derive(Debug)]
struct Ends {
    read: OwnedFd,
    write: OwnedFd,
}

/// A pipe, lent: given back when it is empty, closed otherwise.
#[derive(Debug)]
pub(crate) struct Pipe {
    ends: Option<Ends>,
    held: usize,
    home: Rc<Pipes>,
}

/// What filling a pipe came to.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Filled {
    /// So many bytes are in the pipe now.
    Bytes(usize),
    /// The source has ended.
    End,
    /// The system does not splice these sockets: copy instead. Nothing was taken.
    Refused,
}

impl Pipes {
    /// Lends an empty pipe; none when too many are lent or the system gives none.
    pub(crate) fn lend(self: &Rc<Self>) -> Option<Pipe> {
        if self.is_refused.get() || self.lent.get() >= PIPES_MAX {
            return None;
        }
        let spare = self.spare.borrow_mut().pop();
        let ends = spare.map_or_else(Ends::open, Ok).ok()?;
        self.lent.set(self.lent.get() + 1);
        Some(Pipe { ends: Some(ends), held: 0, home: Rc::clone(self) })
    }
}

impl Ends {
    fn open() -> io::Result<Self> {
        let (read, write) = pipe_with(PipeFlags::CLOEXEC | PipeFlags::NONBLOCK)?;
        // A system that allows less leaves it at its own size, which serves too.
        let _refused = fcntl_setpipe_size(&write, PIPE_BYTES);
        Ok(Self { read, write })
    }
}

impl Pipe {
    /// Bytes that have been taken from their source and wait for their sink.
    pub(crate) fn held(&self) -> usize {
        self.held
    }

    /// Takes bytes from a socket, at most `most`. The pipe must be empty: only then does the system
    /// say by "would block" that nothing has come.
    pub(crate) fn poll_fill(
        &mut self,
        cx: &mut Context<'_>,
        source: &TcpStream,
        most: usize,
    ) -> Poll<io::Result<Filled>> {
        debug_assert_eq!(self.held, 0, "a pipe is filled when it is empty");
        let Some(ends) = &self.ends else { return Poll::Ready(Ok(Filled::Refused)) };
        let most = most.min(FILL_BYTES_MAX);
        loop {
            ready!(source.poll_read_ready(cx))?;
            let flags = SpliceFlags::MOVE | SpliceFlags::NONBLOCK;
            let take =
                || splice(source, None, &ends.write, None, most, flags).map_err(io::Error::from);
            return Poll::Ready(match source.try_io(Interest::READABLE, take) {
                Ok(0) => Ok(Filled::End),
                Ok(len) => {
                    self.held = len;
                    Ok(Filled::Bytes(len))
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => continue,
                Err(error) if is_refusal(&error) => {
                    self.home.is_refused.set(true);
                    Ok(Filled::Refused)
                }
                Err(error) => Err(error),
            });
        }
    }

    /// Gives held bytes to a socket: some of them, or none when it takes none now.
    pub(crate) fn poll_drain(
        &mut self,
        cx: &mut Context<'_>,
        sink: &TcpStream,
    ) -> Poll<io::Result<usize>> {
        let Some(ends) = &self.ends else { return Poll::Ready(Ok(0)) };
        while self.held > 0 {
            ready!(sink.poll_write_ready(cx))?;
            let flags = SpliceFlags::MOVE | SpliceFlags::NONBLOCK;
            let give =
                || splice(&ends.read, None, sink, None, self.held, flags).map_err(io::Error::from);
            return Poll::Ready(match sink.try_io(Interest::WRITABLE, give) {
                Ok(0) => Err(io::ErrorKind::WriteZero.into()),
                Ok(len) => {
                    self.held -= len;
                    Ok(len)
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => continue,
                Err(error) => Err(error),
            });
        }
        Poll::Ready(Ok(0))
    }
}

/// Whether the system does not splice such sockets at all (a sandbox, a filter of system calls).
fn is_refusal(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(libc::EINVAL | libc::ENOSYS | libc::EPERM))
}

impl Drop for Pipe {
    fn drop(&mut self) {
        self.home.lent.set(self.home.lent.get() - 1);
        let mut spare = self.home.spare.borrow_mut();
        // What still holds bytes of one connection must never reach another.
        if self.held == 0 && spare.len() < SPARE_MAX {
            spare.extend(self.ends.take());
        }
    }
}

/// The two sockets, where both sides are TCP in plaintext.
pub(crate) fn plain_pair<'s>(
    source: &'s Io,
    sink: &'s Io,
) -> Option<(&'s TcpStream, &'s TcpStream)> {
    match (source, sink) {
        (Io::Plain(Socket::Tcp(source)), Io::Plain(Socket::Tcp(sink))) => Some((source, sink)),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use std::{future::poll_fn, time::Duration};

    use tokio::{
        io::{AsyncReadExt as _, AsyncWriteExt as _},
        net::TcpListener,
    };

    use super::*;

    async fn connected() -> (TcpStream, TcpStream) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let (near, far) =
            tokio::join!(TcpStream::connect(listener.local_addr().unwrap()), listener.accept());
        (near.unwrap(), far.unwrap().0)
    }

    async fn soon<T>(future: impl Future<Output = T>) -> T {
        tokio::time::timeout(Duration::from_secs(10), future).await.expect("in time")
    }

    #[tokio::test]
    async fn bytes_pass_and_the_end_is_told_apart_from_nothing_there() {
        let pipes = Rc::new(Pipes::default());
        let ((mut client, source), (sink, mut server)) = (connected().await, connected().await);
        let mut pipe = pipes.lend().unwrap();
        let is_pending =
            poll_fn(|cx| Poll::Ready(pipe.poll_fill(cx, &source, 100).is_pending())).await;
        assert!(is_pending, "nothing has come");
        client.write_all(b"hello").await.unwrap();
        let filled = soon(poll_fn(|cx| pipe.poll_fill(cx, &source, 100))).await.unwrap();
        assert_eq!((filled, pipe.held()), (Filled::Bytes(5), 5));
        assert_eq!(soon(poll_fn(|cx| pipe.poll_drain(cx, &sink))).await.unwrap(), 5);
        let mut got = [0; 5];
        soon(server.read_exact(&mut got)).await.unwrap();
        assert_eq!((&got, pipe.held()), (b"hello", 0));
        drop(client);
        let filled = soon(poll_fn(|cx| pipe.poll_fill(cx, &source, 100))).await.unwrap();
        assert_eq!(filled, Filled::End);
    }

    #[tokio::test]
    async fn no_more_is_taken_than_is_asked_for() {
        let pipes = Rc::new(Pipes::default());
        let (mut client, mut source) = connected().await;
        client.write_all(b"bodynext").await.unwrap();
        let mut pipe = pipes.lend().unwrap();
        let filled = soon(poll_fn(|cx| pipe.poll_fill(cx, &source, 4))).await.unwrap();
        assert_eq!(filled, Filled::Bytes(4));
        let mut next = [0; 4];
        soon(source.read_exact(&mut next)).await.unwrap();
        assert_eq!(&next, b"next");
    }

    #[tokio::test]
    async fn a_pipe_with_bytes_in_it_is_closed_and_an_empty_one_is_used_again() {
        let pipes = Rc::new(Pipes::default());
        let (mut client, source) = connected().await;
        client.write_all(b"secret").await.unwrap();
        let mut dirty = pipes.lend().unwrap();
        soon(poll_fn(|cx| dirty.poll_fill(cx, &source, 100))).await.unwrap();
        drop(dirty);
        assert!(pipes.spare.borrow().is_empty());
        drop(pipes.lend().unwrap());
        assert_eq!((pipes.spare.borrow().len(), pipes.lent.get()), (1, 0));
        let clean = pipes.lend().unwrap();
        assert!(pipes.spare.borrow().is_empty(), "the one that was given back is lent again");
        let mut rest = [0; 8];
        let read = rustix::io::read(&clean.ends.as_ref().unwrap().read, &mut rest);
        assert_eq!(read, Err(rustix::io::Errno::AGAIN), "nothing is in it");
    }

    #[test]
    fn a_worker_lends_no_more_pipes_than_its_bound() {
        let pipes = Rc::new(Pipes::default());
        let lent: Vec<_> = std::iter::from_fn(|| pipes.lend()).take(PIPES_MAX + 1).collect();
        assert_eq!(lent.len(), PIPES_MAX);
        drop(lent);
        assert_eq!((pipes.spare.borrow().len(), pipes.lent.get()), (SPARE_MAX, 0));
    }

    #[tokio::test]
    async fn who_does_not_read_stops_the_draining_and_loses_nothing() {
        let pipes = Rc::new(Pipes::default());
        let ((mut client, source), (sink, mut server)) = (connected().await, connected().await);
        let sent: Vec<u8> = (0..32_000_000_u32).map(|n| (n % 251) as u8).collect();
        let whole = sent.clone();
        let writing = tokio::spawn(async move {
            client.write_all(&sent).await.unwrap();
        });
        let mut pipe = pipes.lend().unwrap();
        let mut passed = 0;
        // Until the far side's buffers are full.
        loop {
            soon(poll_fn(|cx| pipe.poll_fill(cx, &source, usize::MAX))).await.unwrap();
            while pipe.held() > 0 {
                let drain = poll_fn(|cx| pipe.poll_drain(cx, &sink));
                match tokio::time::timeout(Duration::from_millis(200), drain).await {
                    Ok(len) => passed += len.unwrap(),
                    Err(_) => break,
                }
            }
            if pipe.held() > 0 {
                break;
            }
        }
        assert!(passed < whole.len(), "32 MB cannot be under way");
        let reading = tokio::spawn(async move {
            let mut got = Vec::new();
            server.read_to_end(&mut got).await.unwrap();
            got
        });
        loop {
            while pipe.held() > 0 {
                soon(poll_fn(|cx| pipe.poll_drain(cx, &sink))).await.unwrap();
            }
            let fill = poll_fn(|cx| pipe.poll_fill(cx, &source, usize::MAX));
            if soon(fill).await.unwrap() == Filled::End {
                break;
            }
        }
        drop(sink);
        soon(writing).await.unwrap();
        assert!(soon(reading).await.unwrap() == whole);
    }
}
