//! One request and its response under way: both directions at once, by one poll function.
//!
//! In:    the two connections, the desk, the deadlines.
//! Out:   [`Event`]s: a response head, the end, or why there is none.
//! Never: reads more from one side than the other takes: each direction has one buffer, and a full
//!        buffer stops the reading.
//!
//! ```text
//!   client ──input──▶ (body judged) ──▶ endpoint        up:   head and first bytes, then input
//!   client ◀────────── (body judged) ◀──reply── endpoint  down: head and first bytes, then reply
//! ```

mod bulk;

use std::{
    future::poll_fn,
    io,
    pin::Pin,
    task::{Context, Poll},
};

use sluis_http1::{ChunkError, Limits, Method, write_chunk, write_last_chunk};
use tokio::{io::AsyncWrite as _, time::Instant};
use tracing::debug;

use self::bulk::Bulk;
use super::{
    buffer::{Buffer, Outgoing},
    clock::{Clock, earlier},
    desk::Desk,
};
use crate::{conn::Io, worker::Worker};

/// Bytes of converted response body that may wait for the client.
const CONVERTED_BYTES_MAX: usize = 64 * 1024;

/// What ended a stretch of the flight.
#[derive(Debug)]
pub(super) enum Event {
    /// A response head has arrived; it is in the desk.
    Head,
    /// The response has been sent as a whole.
    Complete,
    /// The client has gone.
    ClientGone,
    /// The request's body is malformed.
    BadRequestBody,
    /// The client has reset its stream.
    ClientReset,
    /// The endpoint has gone before the end of the response.
    EndpointGone,
    /// The endpoint has reset the stream.
    EndpointReset {
        /// Whether it says that nobody has acted on the request.
        is_refused: bool,
    },
    /// The response's head or body is malformed.
    BadResponse,
    /// A script has what it waited for.
    Script,
    /// A script has failed while a body passed.
    ScriptFailed,
    /// A response is longer than what is held for a script.
    ResponseTooLong,
    /// A deadline has passed.
    Late(Deadline),
}

/// Which deadline has passed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Deadline {
    /// The whole response.
    Response,
    /// One try.
    Try,
    /// Nothing moved in one try.
    TryIdle,
    /// The whole request.
    Request,
    /// Nothing moved.
    Idle,
    /// The stream's greatest age.
    Age,
    /// The greatest age of a try.
    Life,
}

/// How the response body is passed on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Passing {
    /// As it comes.
    Raw,
    /// Its end is the connection's; the client gets chunks.
    IntoChunks,
    /// It comes in chunks; the client cannot read them.
    OutOfChunks,
}

/// The deadlines of one flight.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Deadlines {
    pub(super) response: Option<Instant>,
    pub(super) attempt: Option<Instant>,
    pub(super) request: Option<Instant>,
    pub(super) age: Option<Instant>,
    /// The greatest age of this try.
    pub(super) life: Option<Instant>,
    pub(super) idle: Option<std::time::Duration>,
    /// Longest silence of this try.
    pub(super) idle_try: Option<std::time::Duration>,
}

impl Deadlines {
    /// Ready with the first deadline that has passed. `moved` counts what has happened, and
    /// `idle_from` is its number when silence was last measured.
    pub(super) fn poll(
        &self,
        cx: &mut Context<'_>,
        clock: &mut Clock,
        (moved, is_streaming): (u64, bool),
        idle_from: &mut (u64, Instant),
    ) -> Poll<Deadline> {
        let Self { response, attempt, request, age, life, idle, idle_try } = *self;
        let is_try = idle_try.is_some_and(|own| idle.is_none_or(|idle| own < idle));
        let idle = if is_try { idle_try } else { idle };
        let attempt = attempt.filter(|_| !is_streaming);
        let fixed = earlier(earlier(earlier(response, attempt), earlier(request, age)), life);
        loop {
            let silent = idle.map(|idle| idle_from.1 + idle);
            let next = earlier(fixed, silent);
            if clock.poll_until(cx, next).is_pending() {
                return Poll::Pending;
            }
            let passed = |deadline: Option<Instant>| deadline.is_some() && deadline == next;
            if passed(silent) && fixed != silent && moved != idle_from.0 {
                // Something moved since silence was last measured: measure from now.
                *idle_from = (moved, Instant::now());
                continue;
            }
            return Poll::Ready(match () {
                () if passed(response) => Deadline::Response,
                () if passed(attempt) => Deadline::Try,
                () if passed(request) => Deadline::Request,
                () if passed(age) => Deadline::Age,
                () if passed(life) => Deadline::Life,
                () if is_try => Deadline::TryIdle,
                () => Deadline::Idle,
            });
        }
    }
}

/// One try to get a response.
pub(super) struct Flight<'f> {
    pub(super) client: &'f mut Io,
    pub(super) endpoint: &'f mut Io,
    pub(super) desk: &'f mut Desk,
    pub(super) clock: &'f mut Clock,
    pub(super) limits: Limits,
    pub(super) method: Method,
    pub(super) deadlines: Deadlines,
    /// How long the response may take once the request has been received.
    pub(super) response_time: Option<std::time::Duration>,
    pub(super) request_end: Option<Instant>,
    /// Whether the response's head has been dealt with and its body flows.
    pub(super) is_streaming: bool,
    pub(super) passing: Passing,
    /// Whether both sides talk past HTTP: after a 101.
    pub(super) is_tunnel: bool,
    pub(super) received: u64,
    pub(super) sent: u64,
    /// Whether the endpoint has taken any byte.
    pub(super) has_sent: bool,
    /// Whether any byte has come back.
    pub(super) has_reply: bool,
    /// Whether the endpoint takes no more bytes.
    pub(super) is_endpoint_deaf: bool,
    endpoint_unflushed: bool,
    client_unflushed: bool,
    /// Whether a head may be among the bytes that have come already.
    pub(super) has_unparsed: bool,
    /// The close-delimited response has come to its end.
    reply_ended: bool,
    /// Bytes moved, and their number when silence was last measured.
    moved: u64,
    idle_from: (u64, Instant),
    /// What is passed on without a look.
    bulk: Bulk<'f>,
}

/// Nothing more can be done now, or something was done.
type Step = Result<bool, Event>;

impl<'f> Flight<'f> {
    pub(super) fn new(
        (client, endpoint): (&'f mut Io, &'f mut Io),
        desk: &'f mut Desk,
        clock: &'f mut Clock,
        (limits, method): (Limits, Method),
        (now, worker): (Instant, &'f Worker),
    ) -> Self {
        Self {
            client,
            endpoint,
            desk,
            clock,
            limits,
            method,
            deadlines: Deadlines::default(),
            response_time: None,
            request_end: None,
            is_streaming: false,
            passing: Passing::Raw,
            is_tunnel: false,
            received: 0,
            sent: 0,
            has_sent: false,
            has_reply: false,
            is_endpoint_deaf: false,
            endpoint_unflushed: false,
            client_unflushed: false,
            has_unparsed: false,
            reply_ended: false,
            moved: 0,
            idle_from: (0, now),
            bulk: Bulk::new(worker),
        }
    }

    /// Goes on until something has to be decided.
    pub(super) async fn next(&mut self) -> Event {
        poll_fn(|cx| self.poll(cx)).await
    }

    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Event> {
        if std::mem::take(&mut self.has_unparsed)
            && let Err(event) = self.parse_head()
        {
            return Poll::Ready(event);
        }
        loop {
            match self.step(cx) {
                Err(event) => return Poll::Ready(event),
                Ok(true) => {}
                Ok(false) => break,
            }
        }
        self.poll_deadlines(cx).map(Event::Late)
    }

    fn step(&mut self, cx: &mut Context<'_>) -> Step {
        let mut moved = self.send_up(cx)?;
        moved |= self.send_down(cx)?;
        if self.is_complete() {
            return Err(Event::Complete);
        }
        moved |= self.read_endpoint(cx)?;
        moved |= self.read_client(cx)?;
        Ok(moved)
    }

    /// Writes to the endpoint what there is.
    fn send_up(&mut self, cx: &mut Context<'_>) -> Step {
        if self.is_endpoint_deaf {
            return Ok(false);
        }
        if self.bulk.holds_up() {
            return Ok(self.drain_up(cx));
        }
        let Desk { up, input, kept, .. } = &mut *self.desk;
        let written = if !up.is_sent() {
            up.poll_drain(cx, self.endpoint)
        } else if !input.ready().is_empty() {
            input.poll_drain_by(cx, self.endpoint, |bytes| kept.more(bytes))
        } else if self.endpoint_unflushed {
            Pin::new(&mut *self.endpoint).poll_flush(cx).map_ok(|()| 0)
        } else {
            return Ok(false);
        };
        match written {
            Poll::Pending => Ok(false),
            Poll::Ready(Ok(0)) => {
                self.endpoint_unflushed = false;
                Ok(true)
            }
            Poll::Ready(Ok(len)) => {
                self.moved += len as u64;
                self.has_sent = true;
                self.endpoint_unflushed = self.endpoint.is_tls();
                // Room for more is used by what follows in the same step.
                Ok(!up.is_sent() || !input.ready().is_empty() || self.endpoint_unflushed)
            }
            // It may have answered before it closed: what has come is still to be read.
            Poll::Ready(Err(_)) => {
                self.is_endpoint_deaf = true;
                Ok(true)
            }
        }
    }

    /// Whether bytes of the request have been taken that the endpoint has not got.
    pub(super) fn holds_request(&self) -> bool {
        self.bulk.holds_up()
    }

    /// Writes to the client what there is.
    fn send_down(&mut self, cx: &mut Context<'_>) -> Step {
        if self.bulk.holds_down() {
            return self.drain_down(cx);
        }
        let Desk { down, reply, .. } = &mut *self.desk;
        let written = if !down.is_sent() {
            down.poll_drain(cx, self.client)
        } else if !reply.ready().is_empty() && self.is_streaming {
            reply.poll_drain(cx, self.client)
        } else if self.client_unflushed {
            Pin::new(&mut *self.client).poll_flush(cx).map_ok(|()| 0)
        } else {
            return Ok(false);
        };
        match written {
            Poll::Pending => Ok(false),
            Poll::Ready(Ok(0)) => {
                self.client_unflushed = false;
                Ok(true)
            }
            Poll::Ready(Ok(len)) => {
                self.moved += len as u64;
                self.client_unflushed = self.client.is_tls();
                Ok(!down.is_sent() || !reply.ready().is_empty() || self.client_unflushed)
            }
            Poll::Ready(Err(_)) => Err(Event::ClientGone),
        }
    }

    /// Whether the response has been read, passed on and flushed.
    fn is_complete(&self) -> bool {
        self.is_streaming
            && (self.desk.response_body.is_done() || self.reply_ended)
            && self.desk.down.is_sent()
            && self.desk.reply.ready().is_empty()
            && !self.client_unflushed
            && !self.bulk.holds_down()
    }

    /// Reads the request's body, or learns that the client has gone.
    fn read_client(&mut self, cx: &mut Context<'_>) -> Step {
        if let Some(step) = self.pass_request(cx) {
            return step;
        }
        if !self.desk.input.has_room() {
            // What has been judged must go first; what belongs to the next request waits.
            return Ok(false);
        }
        match fill(&mut self.desk.input, cx, self.client) {
            None => Ok(false),
            Some(Err(_) | Ok(0)) => Err(Event::ClientGone),
            Some(Ok(len)) => {
                self.moved += len as u64;
                self.judge_request_body()?;
                // Bytes of the next request are no reason to go round again.
                Ok(!self.desk.input.ready().is_empty() || self.is_tunnel)
            }
        }
    }

    /// Declares ready what of the input is this request's body.
    fn judge_request_body(&mut self) -> Result<(), Event> {
        let Desk { input, request_body, .. } = &mut *self.desk;
        if request_body.is_done() {
            return Ok(());
        }
        let taken = request_body.take(input.unread()).map_err(|_| Event::BadRequestBody)?;
        self.received += taken.content as u64;
        input.mark(taken.len, taken.dropped);
        if request_body.is_done() {
            self.request_received(Instant::now());
        } else if !input.has_room() {
            input.grow();
        }
        Ok(())
    }

    /// From here on the response is awaited.
    fn request_received(&mut self, now: Instant) {
        self.request_end = Some(now);
        self.deadlines.request = None;
        self.deadlines.response = self.response_time.map(|time| now + time);
    }

    /// Reads the response: its head, then its body.
    fn read_endpoint(&mut self, cx: &mut Context<'_>) -> Step {
        if self.is_streaming {
            return self.read_response_body(cx);
        }
        match fill(&mut self.desk.reply, cx, self.endpoint) {
            None => Ok(false),
            Some(Err(_) | Ok(0)) => Err(Event::EndpointGone),
            Some(Ok(len)) => {
                self.moved += len as u64;
                self.has_reply = true;
                self.parse_head()?;
                Ok(true)
            }
        }
    }

    /// Reads a response head from what has come; an event when it is whole.
    fn parse_head(&mut self) -> Result<(), Event> {
        let Desk { reply, reply_scan, response, .. } = &mut *self.desk;
        if reply.unread().is_empty() {
            return Ok(());
        }
        match response.parse(reply_scan, reply.unread(), &self.limits, self.method) {
            Ok(Some(len)) => {
                reply.skip(len);
                Err(Event::Head)
            }
            Ok(None) if reply.has_room() || reply.grow() => Ok(()),
            Ok(None) => Err(Event::BadResponse),
            Err(error) => {
                debug!(%error, "response refused");
                Err(Event::BadResponse)
            }
        }
    }

    fn read_response_body(&mut self, cx: &mut Context<'_>) -> Step {
        let Desk { reply, response_body, down, .. } = &mut *self.desk;
        let may_read = match self.passing {
            Passing::Raw => reply.has_room(),
            _ => down.is_sent() || down.bytes.len() < CONVERTED_BYTES_MAX,
        };
        if response_body.is_done() || self.reply_ended || !may_read {
            return Ok(false);
        }
        if let Some(step) = self.pass_response(cx) {
            return step;
        }
        let Desk { reply, .. } = &mut *self.desk;
        match fill(reply, cx, self.endpoint) {
            None => Ok(false),
            Some(end @ (Err(_) | Ok(0))) => self.end_of_endpoint(end.is_ok()),
            Some(Ok(len)) => {
                self.moved += len as u64;
                if !reply.has_room() {
                    reply.grow();
                }
                self.judge_response_body()?;
                Ok(true)
            }
        }
    }

    /// The endpoint's end is the end of a response that says so, and of nothing else.
    fn end_of_endpoint(&mut self, is_orderly: bool) -> Step {
        match self.desk.response_body {
            sluis_http1::Body::UntilClose if is_orderly => {
                self.reply_ended = true;
                if self.passing == Passing::IntoChunks {
                    self.restart_down();
                    write_last_chunk(&mut self.desk.down.bytes);
                }
                Ok(true)
            }
            _ => Err(Event::EndpointGone),
        }
    }

    fn restart_down(&mut self) {
        if self.desk.down.is_sent() {
            self.desk.down.clear();
        }
    }

    /// Passes on what of the reply is this response's body.
    pub(super) fn judge_response_body(&mut self) -> Result<(), Event> {
        let malformed = |error: ChunkError| {
            debug!(%error, "response body refused");
            Event::BadResponse
        };
        if self.passing != Passing::Raw {
            self.restart_down();
        }
        let Desk { reply, response_body, down, text, .. } = &mut *self.desk;
        match self.passing {
            Passing::Raw => {
                let taken = response_body.take(reply.unread()).map_err(malformed)?;
                self.sent += taken.content as u64;
                reply.mark(taken.len, taken.dropped);
            }
            Passing::IntoChunks => {
                text.clear();
                let len = response_body.take_content(reply.unread(), text).map_err(malformed)?;
                write_chunk(text, &mut down.bytes);
                self.sent += len as u64;
                reply.skip(len);
            }
            Passing::OutOfChunks => {
                let before = down.bytes.len();
                let len = response_body
                    .take_content(reply.unread(), &mut down.bytes)
                    .map_err(malformed)?;
                self.sent += (down.bytes.len() - before) as u64;
                reply.skip(len);
            }
        }
        Ok(())
    }

    /// Puts the first bytes of the body behind the head, to leave with it in one call.
    pub(super) fn join_first_bytes(&mut self) {
        let Desk { reply, down, .. } = &mut *self.desk;
        let len = reply.ready().len();
        down.bytes.extend_from_slice(reply.ready());
        reply.consume(len);
    }

    /// From here on both sides send what they like until one ends.
    pub(super) fn open_tunnel(&mut self) {
        self.is_tunnel = true;
        self.deadlines.response = None;
        self.desk.request_body = sluis_http1::Body::UntilClose;
        self.desk.response_body = sluis_http1::Body::UntilClose;
        let Desk { input, .. } = &mut *self.desk;
        // What the client sent ahead of the answer has been held back until now.
        let ahead = input.unread().len();
        input.mark(ahead, 0..0);
        self.received += ahead as u64;
    }

    fn poll_deadlines(&mut self, cx: &mut Context<'_>) -> Poll<Deadline> {
        let moved = (self.moved, self.is_streaming);
        self.deadlines.poll(cx, self.clock, moved, &mut self.idle_from)
    }
}

/// Reads once; `None` when nothing has come.
fn fill(buffer: &mut Buffer, cx: &mut Context<'_>, io: &mut Io) -> Option<io::Result<usize>> {
    match buffer.poll_fill(cx, io) {
        Poll::Ready(read) => Some(read),
        Poll::Pending => None,
    }
}

/// Writes everything to the client, for answers of our own.
pub(super) async fn send(
    io: &mut Io,
    out: &mut Outgoing,
    clock: &mut Clock,
    deadline: Instant,
) -> bool {
    poll_fn(|cx| {
        while !out.is_sent() {
            match out.poll_drain(cx, io) {
                Poll::Ready(Ok(_)) => {}
                Poll::Ready(Err(_)) => return Poll::Ready(false),
                Poll::Pending => return clock.poll_until(cx, Some(deadline)).map(|()| false),
            }
        }
        match Pin::new(&mut *io).poll_flush(cx) {
            Poll::Ready(flushed) => Poll::Ready(flushed.is_ok()),
            Poll::Pending => clock.poll_until(cx, Some(deadline)).map(|()| false),
        }
    })
    .await
}
