//! Moves bytes both ways between two connections until both have ended.
//!
//! In:    two [`Io`]s, bytes read ahead from the first, an idle timeout, a drain gate.
//! Out:   how many bytes went which way and why it ended.
//! Never: holds a buffer or a pipe for a direction in which nothing is stuck: reads go through the
//!        worker's one scratch buffer, bulk between plain sockets through a lent pipe, and only
//!        what the other side does not take at once is kept.

use std::{
    future::{Future as _, poll_fn},
    io,
    pin::{Pin, pin},
    rc::Rc,
    task::{Context, Poll, ready},
    time::Duration,
};

use bytes::{Buf as _, BytesMut};
use tokio::{
    io::{AsyncRead as _, AsyncWrite as _, ReadBuf},
    time::{Instant, Sleep, sleep_until},
};
use tracing::trace;

use crate::{
    conn::Io,
    pipes::{Filled, Pipe, Pipes, plain_pair},
    worker::Worker,
};

/// A fill of a pipe below this was not worth its calls: by copying it would have been one call less.
const SMALL_FILL_BYTES: usize = 16 * 1024;

/// So many small fills in a row end the splicing. The last piece of a long message is one.
const SMALL_FILLS_MAX: u8 = 2;

/// How a proxied connection ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum End {
    /// Both sides closed in order.
    Finished,
    /// The client's connection failed.
    DownstreamError,
    /// The endpoint's connection failed.
    UpstreamError,
    /// Nothing moved for the idle timeout.
    Idle,
    /// It has lived as long as it may.
    TooOld,
    /// Its time after a drain is up.
    Drained,
}

/// Bytes moved, and how it ended.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Moved {
    /// Bytes from the client to the endpoint.
    pub(crate) received: u64,
    /// Bytes from the endpoint to the client.
    pub(crate) sent: u64,
    /// How it ended.
    pub(crate) end: End,
}

/// One direction: what was read and not yet written, and how far its end has come.
struct Direction {
    stuck: BytesMut,
    moved: u64,
    stage: Stage,
    needs_flush: bool,
    /// Whether bulk comes, which is spliced: since a read has filled the whole scratch buffer.
    is_bulk: bool,
    /// Small fills in a row.
    small: u8,
    /// Bytes that have left pipes: a slow reader is not an idle one.
    drained: u64,
    /// What bulk is in, as long as some is there.
    pipe: Option<Pipe>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Stage {
    Open,
    /// The source has ended; the end is yet to be passed on.
    Ending,
    Ended,
}

/// Which side failed.
enum Failed {
    Source(io::Error),
    Sink(io::Error),
}

impl Direction {
    fn new(ahead: BytesMut) -> Self {
        let moved = ahead.len() as u64;
        Self {
            stuck: ahead,
            moved,
            stage: Stage::Open,
            needs_flush: false,
            is_bulk: false,
            small: 0,
            drained: 0,
            pipe: None,
        }
    }

    /// A number that changes whenever something moves.
    fn activity(&self) -> u64 {
        self.moved.wrapping_add(self.drained)
    }

    /// Moves bulk inside the kernel. Ready when the source has ended or
    /// copying is to go on; nothing is in the pipe then.
    fn poll_spliced(
        &mut self,
        cx: &mut Context<'_>,
        (source, sink): (&Io, &Io),
        pipes: &Rc<Pipes>,
    ) -> Poll<Result<(), Failed>> {
        let pair = plain_pair(source, sink);
        let Some(((source, sink), mut pipe)) = pair.zip(self.pipe.take().or_else(|| pipes.lend()))
        else {
            self.is_bulk = false;
            return Poll::Ready(Ok(()));
        };
        loop {
            while pipe.held() > 0 {
                match pipe.poll_drain(cx, sink) {
                    Poll::Ready(drained) => {
                        self.drained += drained.map_err(Failed::Sink)? as u64;
                    }
                    Poll::Pending => {
                        self.pipe = Some(pipe);
                        return Poll::Pending;
                    }
                }
            }
            if !self.is_bulk || self.stage != Stage::Open {
                return Poll::Ready(Ok(()));
            }
            match ready!(pipe.poll_fill(cx, source, usize::MAX)).map_err(Failed::Source)? {
                Filled::Bytes(len) => {
                    self.moved += len as u64;
                    self.small = if len < SMALL_FILL_BYTES { self.small + 1 } else { 0 };
                    if self.small >= SMALL_FILLS_MAX {
                        (self.small, self.is_bulk) = (0, false);
                    }
                }
                Filled::End => self.stage = Stage::Ending,
                Filled::Refused => self.is_bulk = false,
            }
        }
    }

    /// Moves what can be moved. Ready when the direction has ended.
    fn poll(
        &mut self,
        cx: &mut Context<'_>,
        (source, sink): (&mut Io, &mut Io),
        (scratch, pipes): (&mut [u8], &Rc<Pipes>),
    ) -> Poll<Result<(), Failed>> {
        loop {
            while !self.stuck.is_empty() {
                let written = ready!(Pin::new(&mut *sink).poll_write(cx, &self.stuck));
                let written = nonzero(written).map_err(Failed::Sink)?;
                self.stuck.advance(written);
                self.needs_flush = true;
            }
            if self.stuck.capacity() > 0 {
                self.stuck = BytesMut::new();
            }
            match self.stage {
                Stage::Ended => return Poll::Ready(Ok(())),
                Stage::Ending => {
                    let shutdown = ready!(Pin::new(&mut *sink).poll_shutdown(cx));
                    self.stage = Stage::Ended;
                    match shutdown {
                        // The peer has gone already: there is nobody to tell.
                        Err(error) if error.kind() == io::ErrorKind::NotConnected => {}
                        other => other.map_err(Failed::Sink)?,
                    }
                }
                Stage::Open if self.is_bulk || self.pipe.is_some() => {
                    ready!(self.poll_spliced(cx, (&*source, &*sink), pipes))?;
                }
                Stage::Open => {
                    let mut buf = ReadBuf::new(scratch);
                    match Pin::new(&mut *source).poll_read(cx, &mut buf) {
                        Poll::Ready(read) => read.map_err(Failed::Source)?,
                        Poll::Pending => {
                            if self.needs_flush {
                                ready!(Pin::new(&mut *sink).poll_flush(cx))
                                    .map_err(Failed::Sink)?;
                                self.needs_flush = false;
                            }
                            return Poll::Pending;
                        }
                    }
                    let buf_is_full = buf.remaining() == 0;
                    let read = buf.filled();
                    if read.is_empty() {
                        self.stage = Stage::Ending;
                        continue;
                    }
                    self.moved += read.len() as u64;
                    self.needs_flush = true;
                    self.is_bulk = buf_is_full;
                    let mut rest = read;
                    while !rest.is_empty() {
                        match Pin::new(&mut *sink).poll_write(cx, rest) {
                            Poll::Ready(written) => {
                                rest = &rest[nonzero(written).map_err(Failed::Sink)?..];
                            }
                            Poll::Pending => {
                                self.stuck = BytesMut::from(rest);
                                return Poll::Pending;
                            }
                        }
                    }
                }
            }
        }
    }
}

fn nonzero(written: io::Result<usize>) -> io::Result<usize> {
    match written {
        Ok(0) => Err(io::ErrorKind::WriteZero.into()),
        other => other,
    }
}

/// Moves bytes between two connections; see [`Pump::until`].
pub(crate) struct Pump<'p> {
    worker: &'p Worker,
    downstream: &'p mut Io,
    upstream: &'p mut Io,
    idle: Option<Duration>,
    up: Direction,
    down: Direction,
}

/// Makes ready to move bytes; `ahead` was read from `downstream` already.
pub(crate) fn pump<'p>(
    worker: &'p Worker,
    (downstream, ahead): (&'p mut Io, BytesMut),
    upstream: &'p mut Io,
    idle: Option<Duration>,
) -> Pump<'p> {
    let (up, down) = (Direction::new(ahead), Direction::new(BytesMut::new()));
    Pump { worker, downstream, upstream, idle, up, down }
}

impl Pump<'_> {
    /// Moves bytes until both directions have ended, one has failed, nothing moved for the idle
    /// time, or `stop` says why to stop.
    pub(crate) async fn until(mut self, stop: impl Future<Output = End>) -> Moved {
        let mut stop = pin!(stop);
        let mut idle = IdleTimer::new(self.idle);
        let end = poll_fn(|cx| {
            if let Poll::Ready(end) = self.poll(cx) {
                return Poll::Ready(end);
            }
            if let Poll::Ready(end) = stop.as_mut().poll(cx) {
                return Poll::Ready(end);
            }
            idle.poll(cx, self.up.activity().wrapping_add(self.down.activity())).map(|()| End::Idle)
        })
        .await;
        Moved { received: self.up.moved, sent: self.down.moved, end }
    }

    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<End> {
        let Self { worker, downstream, upstream, up, down, .. } = self;
        let (upward, downward) = worker.with_scratch(|scratch| {
            (
                up.poll(cx, (downstream, upstream), (scratch, &worker.pipes)),
                down.poll(cx, (upstream, downstream), (scratch, &worker.pipes)),
            )
        });
        match (upward, downward) {
            (Poll::Ready(Err(Failed::Source(error))), _)
            | (_, Poll::Ready(Err(Failed::Sink(error)))) => {
                trace!(%error, "the client's connection failed");
                Poll::Ready(End::DownstreamError)
            }
            (Poll::Ready(Err(Failed::Sink(error))), _)
            | (_, Poll::Ready(Err(Failed::Source(error)))) => {
                trace!(%error, "the endpoint's connection failed");
                Poll::Ready(End::UpstreamError)
            }
            (Poll::Ready(Ok(())), Poll::Ready(Ok(()))) => Poll::Ready(End::Finished),
            _ => Poll::Pending,
        }
    }
}

/// Fires when nothing has moved for a while.
struct IdleTimer {
    after: Duration,
    moved: u64,
    last: Instant,
    timer: Option<Pin<Box<Sleep>>>,
}

impl IdleTimer {
    fn new(after: Option<Duration>) -> Self {
        let last = Instant::now();
        let timer = after.map(|after| Box::pin(sleep_until(last + after)));
        Self { after: after.unwrap_or_default(), moved: 0, last, timer }
    }

    /// Looks whether anything moved. The timer is set anew only when it fires: a wake costs a
    /// look at the clock, not a timer operation.
    fn poll(&mut self, cx: &mut Context<'_>, moved: u64) -> Poll<()> {
        let Some(timer) = &mut self.timer else { return Poll::Pending };
        if moved != self.moved {
            self.moved = moved;
            self.last = Instant::now();
        }
        loop {
            ready!(timer.as_mut().poll(cx));
            let due = self.last + self.after;
            if due <= Instant::now() {
                return Poll::Ready(());
            }
            timer.as_mut().reset(due);
        }
    }
}
