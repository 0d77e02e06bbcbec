//! Long stretches of bodies that nobody looks at: passed on through the worker's one scratch buffer,
//! and the longest, between plain sockets, by the kernel.
//!
//! In:    how much of a body follows without framing.
//! Out:   bytes moved, told to the body as those that are looked at are.
//! Never: takes a byte beyond the stretch: the next message, and chunk framing, are read as ever.

use std::{
    io,
    pin::Pin,
    rc::Rc,
    task::{Context, Poll},
};

use sluis_http1::Body;
use tokio::{
    io::{AsyncRead as _, AsyncWrite as _, ReadBuf},
    net::TcpStream,
    time::Instant,
};

use super::{Event, Flight, Passing, Step};
use crate::{
    conn::Io,
    http::buffer::Buffer,
    pipes::{Filled, Pipe, Pipes, plain_pair},
    worker::{BUFFER_BYTES, Worker},
};

/// A stretch from this size on is spliced: below it a pipe costs more calls than it saves copying.
/// By measurement, see the notebook.
const SPLICED_BYTES_MIN: u64 = 128 * 1024;

/// A stretch from this size on is read into the scratch buffer: more than the usual buffer takes.
const CARRIED_BYTES_MIN: u64 = BUFFER_BYTES as u64;

/// The pipes of one flight, each held only while bytes move or wait in it.
pub(super) struct Bulk<'f> {
    worker: &'f Worker,
    up: Lane,
    down: Lane,
}

/// One direction.
#[derive(Default)]
struct Lane {
    pipe: Option<Pipe>,
    /// Whether the stretch under way is spliced: to its end then.
    is_begun: bool,
}

/// What came of trying to fill a lane.
enum Came {
    Nothing,
    Bytes(usize),
    End(io::Result<()>),
    /// Bytes, and the other side takes no more.
    NotTaken,
    /// Another way is to be tried.
    Refused,
}

impl Lane {
    fn holds(&self) -> bool {
        self.pipe.as_ref().is_some_and(|pipe| pipe.held() > 0)
    }

    /// How much may be spliced now, of a stretch of `left` bytes.
    fn wants(&self, left: u64) -> Option<usize> {
        let least = if self.is_begun { 1 } else { SPLICED_BYTES_MIN };
        (left >= least).then(|| usize::try_from(left).unwrap_or(usize::MAX))
    }

    /// Passes on some of a stretch of `left` bytes, of which `spliced` may go by the kernel.
    fn pass(
        &mut self,
        worker: &Worker,
        cx: &mut Context<'_>,
        (source, sink, held): (&mut Io, &mut Io, &mut Buffer),
        (left, spliced): (u64, u64),
    ) -> Came {
        let by_kernel = self.wants(spliced).zip(plain_pair(source, sink));
        if by_kernel.is_none() && left < CARRIED_BYTES_MIN {
            return Came::Refused;
        }
        if self.holds() {
            // What is in the pipe goes first.
            return Came::Nothing;
        }
        if let Some((most, (source, _))) = by_kernel {
            match self.fill(cx, source, most, &worker.pipes) {
                Came::Refused if left >= CARRIED_BYTES_MIN => {}
                came => return came,
            }
        }
        carry(worker, cx, (source, sink, held), left)
    }

    fn fill(
        &mut self,
        cx: &mut Context<'_>,
        source: &TcpStream,
        most: usize,
        pipes: &Rc<Pipes>,
    ) -> Came {
        let Some(mut pipe) = self.pipe.take().or_else(|| pipes.lend()) else {
            return Came::Refused;
        };
        match pipe.poll_fill(cx, source, most) {
            // It goes back until something comes.
            Poll::Pending => Came::Nothing,
            Poll::Ready(Ok(Filled::Bytes(len))) => {
                (self.pipe, self.is_begun) = (Some(pipe), len < most);
                Came::Bytes(len)
            }
            Poll::Ready(Ok(Filled::End)) => Came::End(Ok(())),
            Poll::Ready(Ok(Filled::Refused)) => Came::Refused,
            Poll::Ready(Err(error)) => Came::End(Err(error)),
        }
    }
}

impl<'f> Bulk<'f> {
    pub(super) fn new(worker: &'f Worker) -> Self {
        Self { worker, up: Lane::default(), down: Lane::default() }
    }

    /// Whether bytes of the response wait for the client.
    pub(super) fn holds_down(&self) -> bool {
        self.down.holds()
    }

    /// Whether bytes of the request wait for the endpoint.
    pub(super) fn holds_up(&self) -> bool {
        self.up.holds()
    }
}

/// Gives what a lane holds to its sink.
fn drain(lane: &mut Lane, cx: &mut Context<'_>, (source, sink): (&Io, &Io)) -> Poll<Option<usize>> {
    let pair = plain_pair(source, sink).zip(lane.pipe.as_mut());
    let Some(((_, sink), pipe)) = pair else { return Poll::Ready(None) };
    pipe.poll_drain(cx, sink).map(|drained| drained.ok())
}

/// Reads some of a stretch of `left` bytes and writes it at once; what is not taken is held.
fn carry(
    worker: &Worker,
    cx: &mut Context<'_>,
    (source, sink, held): (&mut Io, &mut Io, &mut Buffer),
    left: u64,
) -> Came {
    worker.with_scratch(|scratch| {
        let most = usize::try_from(left).map_or(scratch.len(), |left| left.min(scratch.len()));
        let mut room = ReadBuf::new(&mut scratch[..most]);
        match Pin::new(source).poll_read(cx, &mut room) {
            Poll::Pending => return Came::Nothing,
            Poll::Ready(Err(error)) => return Came::End(Err(error)),
            Poll::Ready(Ok(())) if room.filled().is_empty() => return Came::End(Ok(())),
            Poll::Ready(Ok(())) => {}
        }
        let bytes = room.filled();
        let written = match Pin::new(sink).poll_write(cx, bytes) {
            Poll::Pending => 0,
            Poll::Ready(Ok(0) | Err(_)) => return Came::NotTaken,
            Poll::Ready(Ok(len)) => len,
        };
        if written < bytes.len() {
            held.hold(&bytes[written..]);
        }
        Came::Bytes(bytes.len())
    })
}

impl Flight<'_> {
    /// Writes to the client what is in the pipe.
    pub(super) fn drain_down(&mut self, cx: &mut Context<'_>) -> Step {
        match drain(&mut self.bulk.down, cx, (&*self.endpoint, &*self.client)) {
            Poll::Pending => Ok(false),
            Poll::Ready(Some(len)) => {
                self.moved += len as u64;
                Ok(true)
            }
            Poll::Ready(None) => Err(Event::ClientGone),
        }
    }

    /// Writes to the endpoint what is in the pipe.
    pub(super) fn drain_up(&mut self, cx: &mut Context<'_>) -> bool {
        match drain(&mut self.bulk.up, cx, (&*self.client, &*self.endpoint)) {
            Poll::Pending => false,
            Poll::Ready(Some(len)) => {
                self.moved += len as u64;
                true
            }
            Poll::Ready(None) => {
                self.is_endpoint_deaf = true;
                true
            }
        }
    }

    /// Takes a stretch of the response's body past us; `None` when it is to be read as ever.
    pub(super) fn pass_response(&mut self, cx: &mut Context<'_>) -> Option<Step> {
        let desk = &mut *self.desk;
        let is_clear = self.passing == Passing::Raw && desk.reply.is_empty() && desk.down.is_sent();
        if !is_clear || self.is_tunnel {
            return None;
        }
        let left = desk.response_body.plain_left();
        // One whose length nobody knows has to show that it is long.
        let is_known = !matches!(desk.response_body, Body::UntilClose);
        let spliced = if is_known || self.sent >= SPLICED_BYTES_MIN { left } else { 0 };
        let Bulk { worker, down, .. } = &mut self.bulk;
        let sides = (&mut *self.endpoint, &mut *self.client, &mut desk.reply);
        match down.pass(worker, cx, sides, (left, spliced)) {
            Came::Nothing => Some(Ok(false)),
            Came::Bytes(len) => {
                self.client_unflushed |= self.client.is_tls();
                desk.response_body.skip(len as u64);
                self.sent += len as u64;
                self.moved += len as u64;
                Some(Ok(true))
            }
            Came::End(end) => Some(self.end_of_endpoint(end.is_ok())),
            Came::NotTaken => Some(Err(Event::ClientGone)),
            Came::Refused => None,
        }
    }

    /// Takes a stretch of the request's body past us; `None` when it is to be read as ever.
    pub(super) fn pass_request(&mut self, cx: &mut Context<'_>) -> Option<Step> {
        let desk = &mut *self.desk;
        let is_clear = !self.is_tunnel
            && !self.is_endpoint_deaf
            && !desk.kept.wants_more()
            && desk.input.is_empty()
            && desk.up.is_sent();
        if !is_clear {
            return None;
        }
        let left = desk.request_body.plain_left();
        let Bulk { worker, up, .. } = &mut self.bulk;
        let sides = (&mut *self.client, &mut *self.endpoint, &mut desk.input);
        match up.pass(worker, cx, sides, (left, left)) {
            Came::Nothing => Some(Ok(false)),
            Came::Bytes(len) => {
                self.endpoint_unflushed |= self.endpoint.is_tls();
                desk.kept.more(&[]);
                desk.request_body.skip(len as u64);
                self.has_sent = true;
                self.received += len as u64;
                self.moved += len as u64;
                if self.desk.request_body.is_done() {
                    self.request_received(Instant::now());
                }
                Some(Ok(true))
            }
            Came::End(_) => Some(Err(Event::ClientGone)),
            // It may have answered before it closed: what has come is still to be read.
            Came::NotTaken => {
                self.is_endpoint_deaf = true;
                Some(Ok(true))
            }
            Came::Refused => None,
        }
    }
}
