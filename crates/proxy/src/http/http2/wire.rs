//! A connection's engine between the task that reads and writes and the tasks of its streams.
//!
//! In:    an engine of `sluis_http2`, the connection's bytes.
//! Out:   what streams write in one turn leaves in one write; what comes wakes whom it concerns.
//! Never: holds a buffer while nothing comes: what is read goes through one buffer of the thread.

use std::{
    cell::{Cell, RefCell},
    pin::Pin,
    rc::Rc,
    task::{Context, Poll, Waker, ready},
};

use bytes::Bytes;
use sluis_http2::{Connection, Head, HeadWriter, Key, Options, Part, Reason, Role};
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    sync::Notify,
};

use super::heads;
use crate::http::piece::{Fault, Piece, clean};

/// Bytes that are read at once; four full frames of data.
const READ_BYTES: usize = 64 * 1024;

/// Reads in one turn, before streams and other connections get theirs.
const READS_MAX: u32 = 4;

thread_local! {
    /// What is read goes on at once, so that one buffer does for all connections of a worker.
    static READ: RefCell<Vec<u8>> = const { RefCell::new(Vec::new()) };
}

/// One connection as all its tasks share it.
#[derive(Debug)]
pub(super) struct Wire {
    engine: RefCell<Connection>,
    /// Of the task that reads and writes.
    waker: RefCell<Option<Waker>>,
    /// Whether something was written that may not have left.
    is_unflushed: Cell<bool>,
    /// Told when settings or the answer to a ping have come.
    pub(super) news: Notify,
}

impl Wire {
    pub(super) fn new(role: Role, options: Options) -> Rc<Self> {
        Rc::new(Self {
            engine: RefCell::new(Connection::new(role, options)),
            waker: RefCell::default(),
            is_unflushed: Cell::new(false),
            news: Notify::new(),
        })
    }

    /// Looks at the engine.
    pub(super) fn see<T>(&self, look: impl FnOnce(&Connection) -> T) -> T {
        look(&self.engine.borrow())
    }

    /// Does something with the engine. What it then has to write is written at the end of the turn.
    pub(super) fn with<T>(&self, act: impl FnOnce(&mut Connection) -> T) -> T {
        let mut engine = self.engine.borrow_mut();
        let done = act(&mut engine);
        if (!engine.pending().is_empty() || engine.is_over())
            && let Some(waker) = self.waker.take()
        {
            waker.wake();
        }
        done
    }

    /// Writes and reads as much as can be. Ready when the connection is over, by whatever end.
    pub(super) fn poll_io<I: AsyncRead + AsyncWrite + Unpin>(
        &self,
        cx: &mut Context<'_>,
        io: &mut I,
    ) -> Poll<()> {
        let mut engine = self.engine.borrow_mut();
        let has_left = match self.poll_write(&mut engine, cx, io) {
            Poll::Ready(Ok(())) => true,
            Poll::Ready(Err(Closed)) => {
                engine.lost();
                return Poll::Ready(());
            }
            Poll::Pending => false,
        };
        if engine.is_over() {
            // A peer that has broken the rules is not waited for.
            let is_done = has_left || engine.failure().is_some();
            return if is_done { Poll::Ready(()) } else { self.wait(cx) };
        }
        let before = (engine.is_settled(), engine.pongs());
        let read = READ.with_borrow_mut(|buffer| {
            buffer.resize(READ_BYTES, 0);
            poll_read(&mut engine, cx, io, buffer)
        });
        if before != (engine.is_settled(), engine.pongs()) {
            self.news.notify_waiters();
        }
        // Streams that were woken by what came have their turn first: what they write goes along.
        if read.goes_on || (read.is_fed && (!engine.pending().is_empty() || engine.is_over())) {
            cx.waker().wake_by_ref();
        }
        if read.has_ended {
            engine.lost();
            return Poll::Ready(());
        }
        self.wait(cx)
    }

    /// Ready when everything has left.
    fn poll_write<I: AsyncWrite + Unpin>(
        &self,
        engine: &mut Connection,
        cx: &mut Context<'_>,
        io: &mut I,
    ) -> Poll<Result<(), Closed>> {
        while !engine.pending().is_empty() {
            match ready!(Pin::new(&mut *io).poll_write(cx, engine.pending())) {
                Ok(len @ 1..) => engine.wrote(len),
                _ => return Poll::Ready(Err(Closed)),
            }
            self.is_unflushed.set(true);
        }
        if self.is_unflushed.get() {
            // TLS may still hold records.
            let flushed = ready!(Pin::new(io).poll_flush(cx));
            self.is_unflushed.set(false);
            return Poll::Ready(flushed.map_err(|_| Closed));
        }
        Poll::Ready(Ok(()))
    }

    fn wait(&self, cx: &Context<'_>) -> Poll<()> {
        let mut waker = self.waker.borrow_mut();
        match &*waker {
            Some(known) if known.will_wake(cx.waker()) => {}
            _ => *waker = Some(cx.waker().clone()),
        }
        Poll::Pending
    }
}

/// What reading came to.
#[derive(Clone, Copy, Default)]
struct Read {
    is_fed: bool,
    goes_on: bool,
    has_ended: bool,
}

/// The peer takes no more.
struct Closed;

fn poll_read<I: AsyncRead + Unpin>(
    engine: &mut Connection,
    cx: &mut Context<'_>,
    io: &mut I,
    buffer: &mut [u8],
) -> Read {
    let mut read = Read::default();
    for _ in 0..READS_MAX {
        let mut buf = ReadBuf::new(&mut *buffer);
        match Pin::new(&mut *io).poll_read(cx, &mut buf) {
            Poll::Pending => return read,
            Poll::Ready(Ok(())) if !buf.filled().is_empty() => {
                engine.feed(buf.filled());
                read.is_fed = true;
            }
            Poll::Ready(_) => {
                read.has_ended = true;
                return read;
            }
        }
        if engine.is_over() {
            return read;
        }
    }
    read.goes_on = true;
    read
}

/// One stream, released when nobody holds it.
#[derive(Debug)]
pub(in crate::http) struct Handle {
    wire: Rc<Wire>,
    key: Key,
}

impl Drop for Handle {
    fn drop(&mut self) {
        self.wire.with(|engine| engine.release(self.key));
    }
}

impl Handle {
    pub(super) fn new(wire: &Rc<Wire>, key: Key) -> Self {
        Self { wire: Rc::clone(wire), key }
    }

    /// The next head of a response; its section goes back by [`Handle::give_back`].
    pub(super) fn poll_head(&self, cx: &Context<'_>) -> Poll<Result<Head, Fault>> {
        self.wire.engine.borrow_mut().poll_head(self.key, cx.waker())
    }

    pub(super) fn give_back(&self, section: sluis_http2::hpack::Section) {
        self.wire.engine.borrow_mut().give_back(section);
    }

    /// The next piece of the body.
    pub(super) fn poll_piece(&self, cx: &Context<'_>) -> Poll<Result<Piece, Fault>> {
        let polled = self.wire.engine.borrow_mut().poll_part(self.key, cx.waker());
        polled.map(|part| match part? {
            Part::Data(data, is_last) => Ok(Piece::Data(data, is_last)),
            Part::End(None) => Ok(Piece::End(None)),
            Part::End(Some(section)) => {
                let fields = section.iter().map(|(name, value, _)| (name, value));
                let mut trailers = heads::map(fields).map_err(|_| Fault::Malformed)?;
                clean(&mut trailers);
                self.give_back(section);
                Ok(Piece::End(Some(trailers)))
            }
        })
    }

    /// Lets the peer send so many bytes more.
    pub(super) fn passed(&self, len: usize) {
        if len > 0 {
            self.wire.with(|engine| engine.used(self.key, len));
        }
    }

    /// Room in the windows and in the buffer of what waits to be written.
    pub(super) fn poll_room(&self, cx: &Context<'_>, wanted: usize) -> Poll<Result<usize, Fault>> {
        self.wire.engine.borrow_mut().poll_room(self.key, wanted, cx.waker())
    }

    pub(super) fn send_head(
        &self,
        ends: bool,
        write: impl FnOnce(&mut HeadWriter<'_>),
    ) -> Result<(), Fault> {
        self.wire.with(|engine| engine.send_head(self.key, ends, write))
    }

    pub(super) fn data(&self, data: &Bytes, is_last: bool) -> Result<(), Fault> {
        self.wire.with(|engine| engine.send_data(self.key, data, is_last))
    }

    /// Ends our half.
    pub(super) fn end(&self, trailers: Option<&http::HeaderMap>) -> Result<(), Fault> {
        match trailers {
            Some(trailers) => self.send_head(true, |out| heads::write_map(trailers, out)),
            None => self.data(&Bytes::new(), true),
        }
    }

    /// Sends a whole body.
    pub(super) async fn send(&self, mut left: Bytes) -> Result<(), Fault> {
        while !left.is_empty() {
            let room = std::future::poll_fn(|cx| self.poll_room(cx, left.len())).await?;
            let part = left.split_to(room.min(left.len()));
            self.data(&part, left.is_empty())?;
        }
        Ok(())
    }

    /// Ready when nothing more comes or goes.
    pub(super) fn poll_fault(&self, cx: &Context<'_>) -> Poll<Fault> {
        self.wire.engine.borrow_mut().poll_fault(self.key, cx.waker())
    }

    /// Whether all of the message has been taken.
    pub(super) fn has_ended(&self) -> bool {
        self.wire.see(|engine| engine.has_ended(self.key))
    }

    pub(super) fn reset(&self, reason: Reason) {
        self.wire.with(|engine| engine.reset(self.key, reason));
    }
}
