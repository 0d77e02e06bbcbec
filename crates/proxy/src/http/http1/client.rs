//! A client that speaks HTTP/1, as one side of a relay.

use std::{
    pin::Pin,
    task::{Context, Poll, ready},
};

use bytes::Bytes;
use http::HeaderMap;
use sluis_http1::{Body, Framing, Known, Method, RequestHead, Version};
use tokio::io::AsyncWrite as _;

use super::lines::{Mode, WAITING_BYTES_MAX, trailers};
use crate::{
    conn::Io,
    http::{
        carry::{Start, carry},
        connection::Connection,
        course::Course,
        desk::Desk,
        failure::{Failure, Finish},
        http1::endpoint::{self, PlainEndpoint},
        link::Link,
        message::{ClientSide, Sink, Source},
        piece::{Fault, Piece},
        reply::Reply,
        respond::{self, switches},
        site::Site,
        trace::Trace,
    },
};

/// The client's connection while one of its requests is relayed.
pub(in crate::http) struct PlainClient<'c> {
    pub(in crate::http) io: &'c mut Io,
    /// The method that the client sent.
    pub(in crate::http) method: Method,
    /// Whether the response is the connection's last.
    pub(in crate::http) closes: bool,
    /// Whether trailers are read and written.
    pub(in crate::http) has_trailers: bool,
    mode: Mode,
    is_tunnel: bool,
    /// Whether the client has ended its half of a tunnel, and still reads.
    is_half_closed: bool,
    has_unflushed: bool,
}

impl<'c> PlainClient<'c> {
    pub(in crate::http) fn new(
        io: &'c mut Io,
        method: Method,
        closes: bool,
        has_trailers: bool,
    ) -> Self {
        Self {
            io,
            method,
            closes,
            has_trailers,
            mode: Mode::None,
            is_tunnel: false,
            is_half_closed: false,
            has_unflushed: false,
        }
    }
}

/// Takes the content of what has been judged to be body.
pub(in crate::http) fn take_content(desk: &mut Desk) -> Result<Bytes, Fault> {
    let Desk { input, content, trailers, .. } = desk;
    let mut out = Vec::with_capacity(input.ready().len());
    let len =
        content.take_message(input.ready(), &mut out, trailers).map_err(|_| Fault::Malformed)?;
    input.consume(len);
    Ok(out.into())
}

impl Source for PlainClient<'_> {
    fn poll_piece(&mut self, cx: &mut Context<'_>, desk: &mut Desk) -> Poll<Result<Piece, Fault>> {
        loop {
            if !desk.input.ready().is_empty() {
                let data = take_content(desk)?;
                let is_last = desk.request_body.is_done() && desk.trailers.is_empty();
                if !data.is_empty() {
                    return Poll::Ready(Ok(Piece::Data(data, is_last)));
                }
                continue;
            }
            if desk.request_body.is_done() {
                let trailers = trailers(&std::mem::take(&mut desk.trailers))?;
                return Poll::Ready(Ok(Piece::End(trailers)));
            }
            if desk.input.unread().is_empty() {
                match ready!(desk.input.poll_fill(cx, self.io)) {
                    Ok(1..) => {}
                    Ok(0) if self.is_tunnel => {
                        self.is_half_closed = true;
                        return Poll::Ready(Ok(Piece::End(None)));
                    }
                    Ok(0) | Err(_) => return Poll::Ready(Err(Fault::Gone)),
                }
            }
            let Desk { input, request_body, .. } = &mut *desk;
            let taken = request_body.take(input.unread()).map_err(|_| Fault::Malformed)?;
            input.mark(taken.len, taken.dropped);
        }
    }

    fn passed(&mut self, _len: usize) {}
}

impl Sink for PlainClient<'_> {
    fn poll_room(
        &mut self,
        cx: &mut Context<'_>,
        desk: &mut Desk,
        _wanted: usize,
    ) -> Poll<Result<usize, Fault>> {
        if let Poll::Ready(Err(fault)) = self.poll_flush(cx, desk) {
            return Poll::Ready(Err(fault));
        }
        match WAITING_BYTES_MAX.checked_sub(desk.down.bytes.len()) {
            Some(room @ 1..) => Poll::Ready(Ok(room)),
            // `poll_flush` is waiting.
            _ => Poll::Pending,
        }
    }

    fn data(&mut self, desk: &mut Desk, data: Bytes, is_last: bool) -> Result<(), Fault> {
        restart(desk);
        self.mode.write(&data, &mut desk.down.bytes);
        if is_last {
            self.mode.finish(None, false, &mut desk.down.bytes);
        }
        Ok(())
    }

    fn end(&mut self, desk: &mut Desk, trailers: Option<HeaderMap>) -> Result<(), Fault> {
        restart(desk);
        self.mode.finish(trailers, self.has_trailers, &mut desk.down.bytes);
        Ok(())
    }

    fn poll_flush(&mut self, cx: &mut Context<'_>, desk: &mut Desk) -> Poll<Result<(), Fault>> {
        while !desk.down.is_sent() {
            ready!(desk.down.poll_drain(cx, self.io)).map_err(|_| Fault::Gone)?;
            self.has_unflushed = self.io.is_tls();
        }
        desk.down.clear();
        if self.has_unflushed {
            ready!(Pin::new(&mut *self.io).poll_flush(cx)).map_err(|_| Fault::Gone)?;
            self.has_unflushed = false;
        }
        Poll::Ready(Ok(()))
    }
}

/// Forgets what has been written.
fn restart(desk: &mut Desk) {
    if desk.down.is_sent() {
        desk.down.clear();
    }
}

impl ClientSide for PlainClient<'_> {
    fn poll_gone(&mut self, cx: &mut Context<'_>, desk: &mut Desk) -> Poll<Fault> {
        if self.is_half_closed {
            return Poll::Pending;
        }
        // What belongs to the next request waits; a full buffer waits too.
        while desk.input.has_room() {
            match ready!(desk.input.poll_fill(cx, self.io)) {
                Ok(1..) => {}
                Ok(0) | Err(_) => return Poll::Ready(Fault::Gone),
            }
        }
        Poll::Pending
    }

    fn interim(&mut self, desk: &mut Desk, status: u16, with_fields: bool) -> Result<(), Fault> {
        if desk.request.version() == Version::Http10 {
            // RFC 9110 §15.2: a client of HTTP/1.0 knows no interim responses.
            return Ok(());
        }
        restart(desk);
        if with_fields {
            desk.response.write_open_to(&mut desk.down.bytes);
        } else {
            desk.down.bytes.extend_from_slice(format!("HTTP/1.1 {status} Continue\r\n").as_bytes());
        }
        desk.down.bytes.extend_from_slice(b"\r\n");
        Ok(())
    }

    fn head(&mut self, desk: &mut Desk, ends: bool) -> Result<(), Fault> {
        let status = desk.response.status();
        let has_length = desk.response.fields.has(Known::ContentLength);
        let is_tunnel = switches(self.method, status);
        let is_bodiless = is_tunnel || self.method == Method::Head || matches!(status, 204 | 304);
        let is_old = desk.request.version() == Version::Http10;
        self.closes |= is_old;
        self.mode = match (ends || is_bodiless, has_length) {
            (true, false) if !is_bodiless => {
                desk.response.fields.set_trusted(Known::ContentLength, b"0");
                Mode::None
            }
            (true, _) => Mode::None,
            (false, true) => Mode::Plain,
            (false, false) if is_old => Mode::Plain,
            (false, false) => {
                desk.response.fields.set_trusted(Known::TransferEncoding, b"chunked");
                Mode::Chunked
            }
        };
        if is_tunnel {
            self.mode = Mode::Plain;
            self.is_tunnel = true;
            desk.request_body = Body::UntilClose;
            desk.content.restart(Framing::UntilClose);
        }
        respond::close_head(desk, self.closes && !is_tunnel);
        Ok(())
    }

    fn closes(&self) -> bool {
        self.closes
    }

    fn close_after(&mut self) {
        self.closes = true;
    }
}

impl Connection {
    /// Sends the request over a link for which its body must be taken apart.
    pub(in crate::http) async fn relay<'c>(
        &mut self,
        site: Site<'_>,
        desk: &mut Desk,
        course: &mut Course<'_, 'c>,
        trace: &mut Trace<'c>,
        (link, closes): (&mut Link, bool),
    ) -> Result<Finish<'c>, Failure> {
        if !std::mem::replace(&mut course.is_relayed, true) {
            begin_content(desk, trace)?;
        }
        let is_bodiless = desk.request.framing() == Framing::None && !course.plan.is_upgrade;
        let has_trailers = site.manager.http1.trailers;
        let mut client = PlainClient::new(&mut self.io, trace.method, closes, has_trailers);
        let clock = &mut self.clock;
        match link {
            Link::Http1(line) => {
                let start = Start { is_bodiless, is_kept: line.pooled.requests > 0 };
                let has_trailers = course.plan.backend.http1.trailers;
                let io = &mut line.pooled.upstream.io;
                let limits = site.program.limits;
                let mut endpoint = match course.plan.terminates {
                    true => PlainEndpoint::raw(io, desk, limits),
                    false => PlainEndpoint::begin(io, desk, limits, has_trailers),
                };
                let sides = (&mut client, &mut endpoint);
                let carried = carry(site, sides, (&mut *desk, clock), course, trace, start).await;
                line.pooled.is_done = !carried.is_clean || !endpoint::is_free(desk);
                carried.end
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
                carry(site, (&mut client, &mut endpoint), (desk, clock), course, trace, start)
                    .await
                    .end
            }
        }
    }
}

/// Begins to take the body apart. What an earlier try had of it as it came is taken over.
fn begin_content(desk: &mut Desk, trace: &mut Trace<'_>) -> Result<(), Failure> {
    desk.content.restart(desk.request.framing());
    desk.trailers.clear();
    trace.received = 0;
    let Desk { kept, content, trailers, .. } = desk;
    if !kept.bytes().is_empty() {
        let mut out = Vec::new();
        let taken = content.take_message(kept.bytes(), &mut out, trailers);
        taken.map_err(|_| Failure::Protocol)?;
        trace.received = out.len() as u64;
        let data = Bytes::from(out);
        if !data.is_empty() {
            let is_last = desk.request_body.is_done()
                && desk.input.ready().is_empty()
                && desk.trailers.is_empty();
            desk.replay.keep(&data, is_last);
        }
    }
    Ok(())
}
