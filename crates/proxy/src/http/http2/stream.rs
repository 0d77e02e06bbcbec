//! One stream of a client: its side of a relay, and a client of the shared exchange.

use std::{
    cell::Cell,
    collections::VecDeque,
    rc::Rc,
    task::{Context, Poll},
    time::Duration,
};

use bytes::Bytes;
use http::HeaderMap;
use sluis_http1::{Ends, Framing, HeadError, Known, RequestHead};
use sluis_http2::{Accepted, Reason};
use tokio::time::Instant;
use tracing::debug;

use super::{
    heads, websocket,
    wire::{Handle, Wire},
};
use crate::{
    access_log::Flag,
    http::{
        carry::{Start, carry},
        client::{After, Client, framed},
        clock::Clock,
        course::Course,
        desk::Desk,
        exchange::{exchange, log_malformed, refuse},
        failure::{Failure, Finish},
        flight::Event,
        http1::endpoint::{self, PlainEndpoint},
        incoming::{BODY_WAIT_MAX, Incoming, Unpeeked},
        link::Link,
        message::{ClientSide, Sink, Source},
        piece::{Fault, Piece},
        plan::Plan,
        relay::of_client,
        reply::Reply,
        site::{Place, Site},
        trace::Trace,
    },
};

/// How long a client may take to accept an answer of ours.
const ANSWER_WAIT_MAX: Duration = Duration::from_secs(10);

/// A stream that its client resets within this time counts as reset early; Envoy's default.
const EARLY: Duration = Duration::from_secs(1);

/// What the streams of a connection tell it.
#[derive(Debug, Default)]
pub(super) struct Tally {
    /// Streams that were begun.
    pub(super) begun: Cell<u64>,
    /// Streams that the client has reset early.
    pub(super) early_resets: Cell<u64>,
}

/// Serves one request.
pub(super) async fn serve(place: Rc<Place>, wire: Rc<Wire>, accepted: Accepted, tally: Rc<Tally>) {
    let start = Instant::now();
    let Accepted { key, section, ends, is_too_large } = accepted;
    let stream = Handle::new(&wire, key);
    let ends = if ends { Ends::Here } else { Ends::Later };
    let worker = Rc::clone(&place.worker);
    let mut desk = worker.http.take_desk();
    let limits = place.program.limits;
    let read = match is_too_large {
        true => Err(HeadError::TooLarge),
        false => {
            let Desk { request: head, text, .. } = &mut *desk;
            let how = (ends, wire.see(sluis_http2::Connection::offers_connect_protocol));
            heads::read_request(&section, head, how, &limits, text)
        }
    };
    stream.give_back(section);
    let is_bodiless = ends == Ends::Here;
    let (ahead, passed_ahead) = (VecDeque::new(), 0);
    let side = Side { stream, has_head: false, is_done: false, ahead, passed_ahead };
    let mut stream =
        Stream { place, side, clock: Clock::new(start), is_bodiless, was_reset: false };
    match read {
        Ok(()) => {
            // It has neither chunks nor a length of ours: its end is the stream's.
            desk.request_body = sluis_http1::Body::Done;
            if exchange(&mut stream, &mut desk).await == After::Drop {
                stream.side.reset(Reason::INTERNAL_ERROR);
            }
        }
        Err(error) if error.status() == 431 => {
            let reply = Reply::new(431, "http2.too_many_headers");
            let reply = reply.text("Request Header Fields Too Large");
            refuse(&mut stream, &mut desk, reply.flag(Flag::DownstreamProtocolError)).await;
        }
        // RFC 9113 §8.1.1: malformed requests are stream errors.
        Err(error) => {
            debug!(%error, "HTTP/2 request refused");
            log_malformed(&stream, &mut desk);
            stream.side.reset(Reason::PROTOCOL_ERROR);
        }
    }
    if stream.was_reset && start.elapsed() < EARLY {
        tally.early_resets.set(tally.early_resets.get() + 1);
    }
    worker.http.give_desk(desk);
}

/// One stream of a client.
struct Stream {
    place: Rc<Place>,
    side: Side,
    clock: Clock,
    /// Whether the request ended with its head.
    is_bodiless: bool,
    /// Whether the client has reset it.
    was_reset: bool,
}

impl Incoming for Stream {
    async fn peek_body(
        &mut self,
        desk: &mut Desk,
        enough: usize,
    ) -> Result<(Vec<u8>, bool), Unpeeked> {
        let manager = &self.place.program.manager;
        let wait = manager.stream_idle_timeout.unwrap_or(BODY_WAIT_MAX);
        if desk.request.expects_continue() == Some(true) && !manager.proxy_100_continue {
            desk.request.fields.remove(Known::Expect);
            self.side.interim(desk, 100, false).map_err(|_| Unpeeked::Gone)?;
        }
        let (side, clock) = (&mut self.side, &mut self.clock);
        let mut content = Vec::new();
        while content.len() < enough {
            let deadline = Some(Instant::now() + wait);
            let piece = std::future::poll_fn(|cx| match side.stream.poll_piece(cx) {
                Poll::Ready(piece) => Poll::Ready(piece.map_err(|_| Unpeeked::Gone)),
                Poll::Pending => clock.poll_until(cx, deadline).map(|()| Err(Unpeeked::Late)),
            });
            let piece = piece.await?;
            let mut is_last = true;
            if let Piece::Data(data, ends) = &piece {
                is_last = *ends;
                content.extend_from_slice(data);
                // The client may send on: what is held is bounded by what is wanted.
                side.stream.passed(data.len());
                side.passed_ahead += data.len();
            }
            side.ahead.push_back(piece);
            if is_last {
                return Ok((content, true));
            }
        }
        Ok((content, false))
    }

    fn peeked_trailers(&self, _: &Desk) -> Option<HeaderMap> {
        match self.side.ahead.back() {
            Some(Piece::End(trailers)) => trailers.clone(),
            _ => None,
        }
    }

    fn replace_body(&mut self, desk: &mut Desk, bytes: Vec<u8>, trailers: Option<HeaderMap>) {
        let side = &mut self.side;
        side.ahead.clear();
        // The client has been told of all that it sent.
        side.passed_ahead = bytes.len();
        desk.request.reframe(match &trailers {
            None => Framing::Length(bytes.len() as u64),
            Some(_) => Framing::Chunked,
        });
        self.is_bodiless = bytes.is_empty() && trailers.is_none();
        if !bytes.is_empty() {
            side.ahead.push_back(Piece::Data(bytes.into(), trailers.is_none()));
        }
        if trailers.is_some() {
            side.ahead.push_back(Piece::End(trailers));
        }
    }

    fn arrived(&self, _: &Desk) -> (usize, bool) {
        (0, self.side.stream.has_ended())
    }
}

impl Client for Stream {
    fn place(&self) -> &Rc<Place> {
        &self.place
    }

    fn begin_body(
        &mut self,
        _: &mut Desk,
        _: &Plan<'_>,
        trace: &mut Trace<'_>,
    ) -> Result<bool, Box<Reply<'static>>> {
        trace.is_body_begun = true;
        Ok(self.side.stream.has_ended())
    }

    async fn gone(&mut self, desk: &mut Desk, _: bool) -> Event {
        let side = &mut self.side;
        let event = std::future::poll_fn(|cx| side.poll_gone(cx, desk)).await;
        self.was_reset = matches!(event, Fault::Reset(_));
        of_client(event)
    }

    fn whole_body(&self, desk: &Desk) -> Option<Vec<u8>> {
        match self.is_bodiless {
            true => Some(Vec::new()),
            false => Some(framed(&desk.request, desk.replay.whole()?)),
        }
    }

    fn drop_body(&mut self, _: &mut Desk, _: &Trace<'_>) -> bool {
        // The stream ends with the answer: nothing can be taken for another request.
        true
    }

    fn must_close(&self, _: Site<'_>, _: &Desk) -> bool {
        false
    }

    fn after_response(&self, _: &Desk, _: bool) -> After {
        After::Keep
    }

    async fn drive<'c>(
        &mut self,
        site: Site<'_>,
        desk: &mut Desk,
        course: &mut Course<'_, 'c>,
        trace: &mut Trace<'c>,
        (link, _): (&mut Link, bool),
    ) -> Result<Finish<'c>, Failure> {
        let is_bodiless = self.is_bodiless && !course.plan.is_upgrade;
        let clock = &mut self.clock;
        let carried = match link {
            Link::Http1(line) => {
                if course.plan.is_upgrade {
                    websocket::give_key(&mut desk.request, site.worker.random());
                }
                let start = Start { is_bodiless, is_kept: line.pooled.requests > 0 };
                let has_trailers = course.plan.backend.http1.trailers;
                let io = &mut line.pooled.upstream.io;
                let limits = site.program.limits;
                let mut endpoint = match course.plan.terminates {
                    true => PlainEndpoint::raw(io, desk, limits),
                    false => PlainEndpoint::begin(io, desk, limits, has_trailers),
                };
                let sides = (&mut self.side, &mut endpoint);
                let carried = carry(site, sides, (&mut *desk, clock), course, trace, start).await;
                line.pooled.is_done = !carried.is_clean || !endpoint::is_free(desk);
                carried
            }
            Link::Http2(lease) => {
                let is_kept = lease.is_kept();
                let shape = (course.plan.is_upgrade, is_bodiless);
                let scheme = |head: &RequestHead| site.scheme(head);
                let sent = lease.send(desk, scheme, site.program.limits, shape).await?;
                let Some(mut endpoint) = sent else {
                    let reply = Reply::new(400, "http2.invalid_header_field");
                    return Ok(Finish::Reply(reply.text("Bad Request").into()));
                };
                let start = Start { is_bodiless, is_kept };
                carry(site, (&mut self.side, &mut endpoint), (desk, clock), course, trace, start)
                    .await
            }
        };
        self.was_reset = trace.flags.has(Flag::DownstreamRemoteReset);
        carried.end
    }

    async fn send_answer(&mut self, desk: &mut Desk, body: Option<&[u8]>, _closes: bool) -> bool {
        let body = body.filter(|body| !body.is_empty());
        if self.side.head(desk, body.is_none()).is_err() {
            return false;
        }
        let Some(body) = body else { return true };
        let mut left = Bytes::copy_from_slice(body);
        let deadline = Instant::now() + ANSWER_WAIT_MAX;
        let (side, clock) = (&mut self.side, &mut self.clock);
        while !left.is_empty() {
            let room = std::future::poll_fn(|cx| match side.poll_room(cx, desk, left.len()) {
                Poll::Ready(room) => Poll::Ready(room.ok()),
                Poll::Pending => clock.poll_until(cx, Some(deadline)).map(|()| None),
            });
            let Some(room) = room.await else { return false };
            let part = left.split_to(room.min(left.len()));
            if side.data(desk, part, left.is_empty()).is_err() {
                return false;
            }
        }
        true
    }
}

/// The client's side of a relay.
struct Side {
    stream: Handle,
    /// Whether the response's head has gone.
    has_head: bool,
    /// Whether our half has ended.
    is_done: bool,
    /// What a filter has looked at already.
    ahead: VecDeque<Piece>,
    /// How many bytes of it the client has been told of already.
    passed_ahead: usize,
}

impl Side {
    fn reset(&self, reason: Reason) {
        if !self.is_done {
            self.stream.reset(reason);
        }
    }
}

impl Source for Side {
    fn poll_piece(&mut self, cx: &mut Context<'_>, _: &mut Desk) -> Poll<Result<Piece, Fault>> {
        match self.ahead.pop_front() {
            Some(piece) => Poll::Ready(Ok(piece)),
            None => self.stream.poll_piece(cx),
        }
    }

    fn passed(&mut self, len: usize) {
        let told = len.min(self.passed_ahead);
        self.passed_ahead -= told;
        self.stream.passed(len - told);
    }
}

impl Sink for Side {
    fn poll_room(
        &mut self,
        cx: &mut Context<'_>,
        _: &mut Desk,
        wanted: usize,
    ) -> Poll<Result<usize, Fault>> {
        if !self.has_head {
            return Poll::Ready(Err(Fault::Gone));
        }
        self.stream.poll_room(cx, wanted)
    }

    fn data(&mut self, _: &mut Desk, data: Bytes, is_last: bool) -> Result<(), Fault> {
        self.stream.data(&data, is_last)?;
        self.is_done = is_last;
        Ok(())
    }

    fn end(&mut self, _: &mut Desk, trailers: Option<HeaderMap>) -> Result<(), Fault> {
        self.stream.end(trailers.as_ref())?;
        self.is_done = true;
        Ok(())
    }

    fn poll_flush(&mut self, _: &mut Context<'_>, _: &mut Desk) -> Poll<Result<(), Fault>> {
        // The connection's task writes.
        Poll::Ready(Ok(()))
    }
}

impl ClientSide for Side {
    fn poll_gone(&mut self, cx: &mut Context<'_>, _: &mut Desk) -> Poll<Fault> {
        self.stream.poll_fault(cx)
    }

    fn interim(&mut self, desk: &mut Desk, status: u16, with_fields: bool) -> Result<(), Fault> {
        if with_fields {
            desk.response.fields.remove(Known::TransferEncoding);
            return self.stream.send_head(false, |out| heads::write_response(&desk.response, out));
        }
        self.stream.send_head(false, |out| heads::write_status(status, out))
    }

    fn head(&mut self, desk: &mut Desk, ends: bool) -> Result<(), Fault> {
        self.stream.send_head(ends, |out| heads::write_response(&desk.response, out))?;
        self.has_head = true;
        self.is_done = ends;
        Ok(())
    }

    fn closes(&self) -> bool {
        false
    }

    fn close_after(&mut self) {}
}
