//! Long stretches of bodies that nobody looks at, between plain sockets: passed on by the kernel.
//!
//! In:    how much of a body follows without framing.
//! Out:   bytes moved, told to the body as those that are copied are.
//! Never: takes a byte beyond the stretch: the next message, and chunk framing, are read as ever.

use std::{
    rc::Rc,
    task::{Context, Poll},
};

use sluis_http1::Body;
use tokio::{net::TcpStream, time::Instant};

use super::{Event, Flight, Passing, Step};
use crate::{
    conn::Io,
    pipes::{Filled, Pipe, Pipes, plain_pair},
};

/// A stretch from this size on is spliced: below it a pipe costs more calls than it saves copying.
/// By measurement, see the notebook.
const STRETCH_BYTES_MIN: u64 = 128 * 1024;

/// The pipes of one flight, each held only while bytes move or wait in it.
pub(super) struct Bulk<'f> {
    pipes: &'f Rc<Pipes>,
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
    End(std::io::Result<()>),
    /// Copy.
    Refused,
}

impl Lane {
    fn holds(&self) -> bool {
        self.pipe.as_ref().is_some_and(|pipe| pipe.held() > 0)
    }

    /// How much may be spliced now, of a stretch of `left` bytes.
    fn wants(&self, left: u64) -> Option<usize> {
        let least = if self.is_begun { 1 } else { STRETCH_BYTES_MIN };
        (left >= least).then(|| usize::try_from(left).unwrap_or(usize::MAX))
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
    pub(super) fn new(pipes: &'f Rc<Pipes>) -> Self {
        Self { pipes, up: Lane::default(), down: Lane::default() }
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

    /// Takes a stretch of the response's body past us; `None` when it is to be copied.
    pub(super) fn splice_response(&mut self, cx: &mut Context<'_>) -> Option<Step> {
        let desk = &mut *self.desk;
        let left = match &desk.response_body {
            // One whose length nobody knows has to show that it is long.
            Body::UntilClose if self.is_tunnel || self.sent < STRETCH_BYTES_MIN => 0,
            body => body.plain_left(),
        };
        let is_clear = self.passing == Passing::Raw && desk.reply.is_empty() && desk.down.is_sent();
        let most = self.bulk.down.wants(left).filter(|_| is_clear)?;
        let (source, _) = plain_pair(self.endpoint, self.client)?;
        if self.bulk.down.holds() {
            return Some(Ok(false));
        }
        match self.bulk.down.fill(cx, source, most, self.bulk.pipes) {
            Came::Nothing => Some(Ok(false)),
            Came::Bytes(len) => {
                desk.response_body.skip(len as u64);
                self.sent += len as u64;
                self.moved += len as u64;
                Some(Ok(true))
            }
            Came::End(end) => Some(self.end_of_endpoint(end.is_ok())),
            Came::Refused => None,
        }
    }

    /// Takes a stretch of the request's body past us; `None` when it is to be copied.
    pub(super) fn splice_request(&mut self, cx: &mut Context<'_>) -> Option<Step> {
        let desk = &mut *self.desk;
        let is_clear = !self.is_tunnel
            && !self.is_endpoint_deaf
            && !desk.kept.wants_more()
            && desk.input.is_empty()
            && desk.up.is_sent();
        let most = self.bulk.up.wants(desk.request_body.plain_left()).filter(|_| is_clear)?;
        let (source, _) = plain_pair(self.client, self.endpoint)?;
        if self.bulk.up.holds() {
            return Some(Ok(false));
        }
        match self.bulk.up.fill(cx, source, most, self.bulk.pipes) {
            Came::Nothing => Some(Ok(false)),
            Came::Bytes(len) => {
                desk.kept.more(&[]);
                desk.request_body.skip(len as u64);
                self.received += len as u64;
                self.moved += len as u64;
                if self.desk.request_body.is_done() {
                    self.request_received(Instant::now());
                }
                Some(Ok(true))
            }
            Came::End(_) => Some(Err(Event::ClientGone)),
            Came::Refused => None,
        }
    }
}
