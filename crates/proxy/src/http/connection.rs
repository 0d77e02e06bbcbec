//! The life of one HTTP/1 connection: heads in, exchanges, keep-alive, the end.
//!
//! In:    a downstream connection and the compiled manager that serves it.
//! Out:   one exchange per request.
//! Never: holds a desk while it waits for a request; reads a request while another is answered.

use std::{
    future::{Future, poll_fn},
    io,
    pin::{Pin, pin},
    rc::Rc,
    sync::Arc,
    task::{Context, Poll, ready},
    time::Duration,
};

use bytes::BytesMut;
use http::HeaderMap;
use sluis_http1::{Body, Framing, HeadError, Known, Method};
use sluis_rules::Codec;
use tokio::{io::AsyncWrite as _, time::Instant};

use super::{
    buffer::{BUFFER_BYTES_MAX, Outgoing},
    client::{After, CONTINUE, Client, framed},
    clock::{Clock, earlier},
    course::Course,
    desk::Desk,
    exchange::{exchange, refuse},
    failure::{Failure, Finish},
    flight::{self, Event},
    http1::lines::{Mode, trailers},
    http2,
    incoming::{BODY_WAIT_MAX, Incoming, Unpeeked},
    link::Link,
    plan::Plan,
    program::Program,
    protocol::Protocol,
    reply::{Reply, bad_body},
    respond,
    site::{Place, Site},
    state::HttpWorker,
    trace::Trace,
};
use crate::{
    access_log::Flag,
    conn::{Downstream, Io},
    drain::Gate,
};

/// Longest wait for the rest of a head where the manager says nothing: a slow head holds a desk.
const HEAD_WAIT_MAX: Duration = Duration::from_secs(30);

/// How long a draining connection still waits for a request that may be on its way.
const LAST_REQUEST_WAIT: Duration = Duration::from_millis(500);

/// Bytes that are read and thrown away so that the client can read our last answer before the
/// connection is reset.
const LINGER_BYTES_MAX: usize = 256 * 1024;

/// How long a connection must be silent before it gives back what requests need: long against the
/// pauses of a client at work, short against the life of a connection that is only kept.
const SILENT_AFTER: Duration = Duration::from_secs(1);

/// How long a client may take to accept an answer of ours.
const ANSWER_WAIT_MAX: Duration = Duration::from_secs(10);

/// One connection.
#[derive(Debug)]
pub(super) struct Connection {
    pub(super) io: Io,
    pub(super) clock: Clock,
    pub(super) place: Rc<Place>,
    pub(super) gate: Gate,
    prefix: BytesMut,
    served: u32,
    born: Instant,
}

/// Why there is no further request.
enum NoRequest {
    /// The client has closed, or nothing came for long: nobody waits for an answer.
    Quiet,
    /// The head is malformed.
    Malformed(HeadError),
    /// The head took too long.
    Late,
}

/// How a wait for a request ended.
enum Waited {
    /// Bytes are on this desk.
    Arrived(Box<Desk>),
    /// Nothing has come since then, for as long as was asked.
    Silent(Instant),
    /// The connection is done.
    Over,
}

/// How serving requests ended.
enum Rest {
    /// The connection has been silent since then.
    Silent(Instant),
    /// The connection ends like this.
    Over(After),
    /// The client speaks HTTP/2.
    Http2(Box<Desk>),
}

impl Connection {
    pub(super) fn new(
        downstream: Downstream,
        program: Rc<Program>,
        worker: Rc<HttpWorker>,
    ) -> Self {
        let born = worker.now();
        let Downstream { io, prefix, facts, gate } = downstream;
        let place = Rc::new(Place { worker, program, facts, protocol: Protocol::Http1 });
        Self { io, clock: Clock::new(born), place, gate, prefix, served: 0, born }
    }

    /// Serves requests until the connection ends.
    ///
    /// What a request needs is many times what a silent connection needs: it is made when the first
    /// bytes come, and given back when the connection has been silent for a while.
    pub(super) async fn run(mut self) {
        let gate = self.gate.clone();
        let mut draining = pin!(gate.draining());
        let mut desk = None;
        let prefix = std::mem::take(&mut self.prefix);
        if !prefix.is_empty() {
            desk.insert(self.place.worker.http.take_desk()).input.extend(&prefix);
        }
        drop(prefix);
        let mut since = None;
        let after = loop {
            let ready = match desk.take() {
                Some(desk) => desk,
                None => match self.idle(draining.as_mut(), since, None).await {
                    Waited::Arrived(desk) => desk,
                    Waited::Silent(_) | Waited::Over => return,
                },
            };
            match Box::pin(self.busy(ready, draining.as_mut())).await {
                Rest::Silent(from) => since = Some(from),
                Rest::Over(after) => break after,
                Rest::Http2(desk) => return Box::pin(self.go_on_as_http2(desk)).await,
            }
        };
        // Nothing is lost by its coming late; a silent connection should not carry its size.
        Box::pin(self.end(after)).await;
    }

    /// Serves requests until the connection ends or falls silent.
    async fn busy(
        &mut self,
        mut desk: Box<Desk>,
        mut draining: Pin<&mut impl Future<Output = ()>>,
    ) -> Rest {
        let place = Rc::clone(&self.place);
        let state = &place.worker.http;
        let after = loop {
            if desk.input.is_empty() {
                // `exchange` has cleared it.
                state.give_clean_desk(desk);
                match self.idle(draining.as_mut(), None, Some(SILENT_AFTER)).await {
                    Waited::Arrived(next) => desk = next,
                    Waited::Silent(from) => return Rest::Silent(from),
                    Waited::Over => return Rest::Over(After::Drop),
                }
            }
            match self.read_head(&mut desk).await {
                Ok(()) => self.served += 1,
                Err(NoRequest::Malformed(HeadError::Http2Preface))
                    if self.served == 0 && place.program.manager.codec == Codec::Auto =>
                {
                    return Rest::Http2(desk);
                }
                Err(NoRequest::Quiet) => break After::Drop,
                Err(NoRequest::Malformed(error)) => {
                    refuse(self, &mut desk, malformed(error)).await;
                    break After::Linger;
                }
                Err(NoRequest::Late) => {
                    refuse(self, &mut desk, late()).await;
                    break After::Linger;
                }
            }
            match exchange(self, &mut desk).await {
                After::Keep => {}
                after => break after,
            }
        };
        state.give_desk(desk);
        Rest::Over(after)
    }

    /// Waits for the first bytes of a request, silent `since` (now, where that is not given): until
    /// the connection is done, or only for `most` of silence.
    async fn idle(
        &mut self,
        mut draining: Pin<&mut impl Future<Output = ()>>,
        since: Option<Instant>,
        most: Option<Duration>,
    ) -> Waited {
        let place = Rc::clone(&self.place);
        let manager = &place.program.manager;
        // A timer of an hour need not know the time exactly: it is set when it is first needed.
        let mut from = since;
        let mut last = None;
        poll_fn(|cx| {
            if let Poll::Ready(desk) = self.poll_first_bytes(cx) {
                return Poll::Ready(desk.map_or(Waited::Over, Waited::Arrived));
            }
            if last.is_none() && draining.as_mut().poll(cx).is_ready() {
                // A request may be on its way: it is answered, and the client told to close.
                let wait = manager.drain_timeout.min(LAST_REQUEST_WAIT);
                last = Some(place.worker.now() + wait);
            }
            let from = *from.get_or_insert_with(|| place.worker.now());
            let age = manager.http.max_connection_duration.map(|age| self.born + age);
            let over = earlier(manager.http.idle_timeout.map(|idle| from + idle), age);
            let over = earlier(over, last);
            // Once it drains, the rest of its time is short, and nobody waits for the drain again.
            let silent = most.filter(|_| last.is_none()).map(|most| from + most);
            if silent.is_some_and(|silent| over.is_none_or(|over| silent < over)) {
                return self.clock.poll_until(cx, silent).map(|()| Waited::Silent(from));
            }
            self.clock.poll_until(cx, over).map(|()| Waited::Over)
        })
        .await
    }

    /// Takes a desk only when there is something to put on it.
    fn poll_first_bytes(&mut self, cx: &mut Context<'_>) -> Poll<Option<Box<Desk>>> {
        if let Io::Plain(socket) = &self.io
            && socket.poll_read_ready(cx).is_pending()
        {
            return Poll::Pending;
        }
        let state = &self.place.worker.http;
        let mut desk = state.take_desk();
        match desk.input.poll_fill(cx, &mut self.io) {
            Poll::Ready(Ok(1..)) => Poll::Ready(Some(desk)),
            Poll::Ready(Ok(0) | Err(_)) => {
                state.give_clean_desk(desk);
                Poll::Ready(None)
            }
            Poll::Pending => {
                state.give_clean_desk(desk);
                Poll::Pending
            }
        }
    }

    /// Reads one head onto the desk.
    async fn read_head(&mut self, desk: &mut Desk) -> Result<(), NoRequest> {
        let limits = self.place.program.limits;
        let mut deadline = None;
        loop {
            let Desk { input, request, scan, .. } = &mut *desk;
            match request.parse(scan, input.unread(), &limits) {
                Ok(Some(len)) => {
                    input.skip(len);
                    return Ok(());
                }
                Ok(None) if input.has_room() || input.grow() => {}
                Ok(None) => return Err(NoRequest::Malformed(HeadError::TooLarge)),
                Err(error) => return Err(NoRequest::Malformed(error)),
            }
            let manager = &self.place.program.manager;
            let until = *deadline.get_or_insert_with(|| {
                Instant::now() + manager.request_headers_timeout.unwrap_or(HEAD_WAIT_MAX)
            });
            let (io, clock) = (&mut self.io, &mut self.clock);
            let read = poll_fn(|cx| match input.poll_fill(cx, io) {
                Poll::Ready(read) => Poll::Ready(read),
                Poll::Pending => {
                    clock.poll_until(cx, Some(until)).map(|()| Err(io::ErrorKind::TimedOut.into()))
                }
            });
            match read.await {
                Ok(1..) => {}
                Err(error) if error.kind() == io::ErrorKind::TimedOut => {
                    return Err(NoRequest::Late);
                }
                Ok(0) | Err(_) => return Err(NoRequest::Quiet),
            }
        }
    }

    /// The client speaks HTTP/2 with prior knowledge (RFC 9113 §3.3).
    async fn go_on_as_http2(self, desk: Box<Desk>) {
        let Self { io, place, gate, .. } = self;
        let ahead = BytesMut::from(desk.input.unread());
        place.worker.http.give_desk(desk);
        let Place { worker, program, facts, .. } = &*place;
        let place = Place {
            worker: Rc::clone(worker),
            program: Rc::clone(program),
            facts: Arc::clone(facts),
            protocol: Protocol::Http2,
        };
        http2::connection::serve(io, ahead, Rc::new(place), gate).await;
    }

    /// Ends the connection.
    async fn end(mut self, after: After) {
        // A plain socket that is closed says so itself.
        if after == After::Drop || (after == After::Close && !self.io.is_tls()) {
            return;
        }
        let limit = self.place.program.manager.delayed_close_timeout;
        let deadline = Instant::now() + limit.max(Duration::from_millis(1));
        let (io, clock) = (&mut self.io, &mut self.clock);
        let mut is_shut = false;
        let mut left = if after == After::Linger { LINGER_BYTES_MAX } else { 0 };
        poll_fn(|cx| {
            // Not kept while it waits.
            let mut waste = [0_u8; 4096];
            if !is_shut {
                match Pin::new(&mut *io).poll_shutdown(cx) {
                    Poll::Ready(Ok(())) => is_shut = true,
                    Poll::Ready(Err(_)) => return Poll::Ready(()),
                    Poll::Pending => return clock.poll_until(cx, Some(deadline)),
                }
            }
            while left > 0 {
                let mut buf = tokio::io::ReadBuf::new(&mut waste);
                match tokio::io::AsyncRead::poll_read(Pin::new(&mut *io), cx, &mut buf) {
                    Poll::Ready(Ok(())) if !buf.filled().is_empty() => {
                        left = left.saturating_sub(buf.filled().len());
                    }
                    Poll::Ready(_) => return Poll::Ready(()),
                    Poll::Pending => return clock.poll_until(cx, Some(deadline)),
                }
            }
            Poll::Ready(())
        })
        .await;
    }
}

impl Incoming for Connection {
    async fn peek_body(
        &mut self,
        desk: &mut Desk,
        enough: usize,
    ) -> Result<(Vec<u8>, bool), Unpeeked> {
        let manager = &self.place.program.manager;
        let wait = manager.stream_idle_timeout.unwrap_or(BODY_WAIT_MAX);
        if desk.request.expects_continue() == Some(true) && !manager.proxy_100_continue {
            desk.request.fields.remove(Known::Expect);
            let mut out = Outgoing::default();
            out.bytes.extend_from_slice(CONTINUE);
            let deadline = Instant::now() + wait;
            if !flight::send(&mut self.io, &mut out, &mut self.clock, deadline).await {
                return Err(Unpeeked::Gone);
            }
        }
        // Chunks may be as small as their framing is long; smaller ones are not held.
        let bytes_max = BUFFER_BYTES_MAX + 2 * enough;
        let mut body = Body::new(desk.request.framing());
        let (mut content, mut at) = (Vec::new(), 0);
        loop {
            let unread = &desk.input.unread()[at..];
            let taken = body.take_content(unread, &mut content);
            at += taken.map_err(|_| Unpeeked::Malformed)?;
            if body.is_done() || content.len() >= enough {
                return Ok((content, body.is_done()));
            }
            if !desk.input.has_room() && !desk.input.grow_to(bytes_max) {
                return Ok((content, false));
            }
            let deadline = Some(Instant::now() + wait);
            let (io, clock, input) = (&mut self.io, &mut self.clock, &mut desk.input);
            let read = poll_fn(|cx| match input.poll_fill(cx, io) {
                Poll::Ready(read) => Poll::Ready(read.map_err(|_| Unpeeked::Gone)),
                Poll::Pending => clock.poll_until(cx, deadline).map(|()| Err(Unpeeked::Late)),
            });
            if read.await? == 0 {
                return Err(Unpeeked::Gone);
            }
        }
    }

    fn peeked_trailers(&self, desk: &Desk) -> Option<HeaderMap> {
        if !self.place.program.manager.http1.trailers {
            return None;
        }
        let mut body = Body::new(desk.request.framing());
        let (mut content, mut lines) = (Vec::new(), Vec::new());
        body.take_message(desk.input.unread(), &mut content, &mut lines).ok()?;
        trailers(&lines).ok().flatten()
    }

    fn replace_body(&mut self, desk: &mut Desk, bytes: Vec<u8>, trailers: Option<HeaderMap>) {
        let mut body = Body::new(desk.request.framing());
        let (mut content, unread) = (Vec::new(), desk.input.unread());
        // It has been peeked at as a whole, so it is well-formed.
        let len = body.take_content(unread, &mut content).unwrap_or(unread.len());
        let rest = &unread[len..];
        let mut input = Vec::with_capacity(bytes.len() + rest.len() + 64);
        desk.request.reframe(match &trailers {
            None => Framing::Length(bytes.len() as u64),
            Some(_) => Framing::Chunked,
        });
        match trailers {
            None => input.extend_from_slice(&bytes),
            some => {
                if !bytes.is_empty() {
                    Mode::Chunked.write(&bytes.into(), &mut input);
                }
                Mode::Chunked.finish(some, true, &mut input);
            }
        }
        input.extend_from_slice(rest);
        desk.input.extend(&input);
    }

    fn arrived(&self, desk: &Desk) -> (usize, bool) {
        let mut body = Body::new(desk.request.framing());
        let mut content = Vec::new();
        let taken = body.take_content(desk.input.unread(), &mut content);
        (content.len(), taken.is_ok() && body.is_done())
    }
}

impl Client for Connection {
    fn place(&self) -> &Rc<Place> {
        &self.place
    }

    fn begin_body(
        &mut self,
        desk: &mut Desk,
        plan: &Plan<'_>,
        trace: &mut Trace<'_>,
    ) -> Result<bool, Box<Reply<'static>>> {
        desk.request_body.restart(desk.request.framing());
        if self.place.program.manager.http1.trailers && plan.takes_trailers() {
            desk.request_body.keep_trailers();
        }
        trace.is_body_begun = true;
        let taken =
            desk.request_body.take(desk.input.unread()).map_err(|_| Box::new(bad_body()))?;
        trace.received = taken.content as u64;
        desk.input.mark(taken.len, taken.dropped);
        Ok(desk.request_body.is_done())
    }

    async fn gone(&mut self, desk: &mut Desk, is_whole: bool) -> Event {
        let io = &mut self.io;
        poll_fn(|cx| {
            // What belongs to the next request waits; a full buffer waits too, and a body until
            // somebody takes it.
            while is_whole && desk.input.has_room() {
                match ready!(desk.input.poll_fill(cx, io)) {
                    Ok(1..) => {}
                    Ok(0) | Err(_) => return Poll::Ready(Event::ClientGone),
                }
            }
            Poll::Pending
        })
        .await
    }

    fn whole_body(&self, desk: &Desk) -> Option<Vec<u8>> {
        // Empty unless the body was taken apart.
        if let Some(body) = desk.replay.whole() {
            return Some(framed(&desk.request, body));
        }
        let is_whole = desk.request_body.is_done() && desk.kept.is_whole();
        is_whole.then(|| [desk.kept.bytes(), desk.input.ready()].concat())
    }

    fn drop_body(&mut self, desk: &mut Desk, trace: &Trace<'_>) -> bool {
        if !trace.is_body_begun {
            desk.request_body.restart(desk.request.framing());
        }
        if let Ok(taken) = desk.request_body.take(desk.input.unread()) {
            desk.input.mark(taken.len, taken.dropped);
            desk.input.discard_ready();
        }
        desk.request_body.is_done()
    }

    fn must_close(&self, site: Site<'_>, desk: &Desk) -> bool {
        let options = &site.manager.http;
        // What follows a CONNECT that was not agreed to is no request (RFC 9110 §9.3.6).
        desk.request.method() == Method::Connect
            || desk.marks.scripts.drains
            || !desk.request.persists()
            || self.gate.is_draining()
            || options.max_requests.is_some_and(|most| self.served >= most)
            || options.max_connection_duration.is_some_and(|age| site.now >= self.born + age)
    }

    fn after_response(&self, desk: &Desk, closes: bool) -> After {
        After::response(desk, closes)
    }

    async fn drive<'c>(
        &mut self,
        site: Site<'_>,
        desk: &mut Desk,
        course: &mut Course<'_, 'c>,
        trace: &mut Trace<'c>,
        (link, closes): (&mut Link, bool),
    ) -> Result<Finish<'c>, Failure> {
        match link {
            Link::Http1(line)
                if !course.is_relayed
                    && !course.plan.terminates
                    && !course.is_watched
                    && course.promise.scan_bytes() == 0 =>
            {
                self.direct(site, desk, course, trace, (&mut line.pooled, closes)).await
            }
            link => self.relay(site, desk, course, trace, (link, closes)).await,
        }
    }

    async fn send_answer(&mut self, desk: &mut Desk, body: Option<&[u8]>, closes: bool) -> bool {
        respond::close_head(desk, closes);
        desk.down.bytes.extend_from_slice(body.unwrap_or_default());
        let deadline = Instant::now() + ANSWER_WAIT_MAX;
        flight::send(&mut self.io, &mut desk.down, &mut self.clock, deadline).await
    }
}

/// The answer to a head that could not be read, as Envoy words it.
fn malformed<'c>(error: HeadError) -> Reply<'c> {
    let body = match error.status() {
        431 => "Request Header Fields Too Large",
        501 => "Not Implemented",
        505 => "HTTP Version Not Supported",
        _ => "Bad Request",
    };
    let reply = Reply::new(error.status(), error.details()).text(body);
    reply.flag(Flag::DownstreamProtocolError).closing()
}

fn late<'c>() -> Reply<'c> {
    Reply::new(408, "request_header_timeout").text("request header timeout").closing()
}
