//! An endpoint that speaks HTTP/1, as one side of a relay.

use std::{
    pin::Pin,
    task::{Context, Poll, ready},
};

use bytes::Bytes;
use http::HeaderMap;
use sluis_http1::{Body, Framing, Known, Limits, Method};
use tokio::io::AsyncWrite as _;
use tracing::debug;

use super::lines::{Mode, WAITING_BYTES_MAX, trailers};
use crate::{
    conn::Io,
    http::{
        desk::Desk,
        message::{EndpointSide, Sink, Source},
        piece::{Fault, Piece},
    },
};

/// A connection to an endpoint while it carries a relayed request.
pub(in crate::http) struct PlainEndpoint<'e> {
    io: &'e mut Io,
    limits: Limits,
    method: Method,
    /// Whether it hears nothing of HTTP.
    is_raw: bool,
    /// Whether trailers are read and written.
    has_trailers: bool,
    mode: Mode,
    trailers: Vec<u8>,
    is_tunnel: bool,
    has_unflushed: bool,
    is_ended: bool,
    /// Whether our half of a tunnel is to be closed.
    closes_half: bool,
    /// Whether any byte has come back.
    pub(in crate::http) has_reply: bool,
}

impl<'e> PlainEndpoint<'e> {
    /// Writes the head of the request on the desk to `desk.up`.
    pub(in crate::http) fn begin(
        io: &'e mut Io,
        desk: &mut Desk,
        limits: Limits,
        has_trailers: bool,
    ) -> Self {
        let is_unframed = desk.marks.scripts.is_unframed;
        let mut sealed = desk.sealed.take();
        let head = match &mut sealed {
            Some(sealed) => sealed.head_mut(),
            None => &mut desk.request,
        };
        if is_unframed {
            head.fields.remove(Known::ContentLength);
        }
        let mode = match head.framing() {
            Framing::Length(_) if is_unframed => {
                head.fields.set_trusted(Known::TransferEncoding, b"chunked");
                Mode::Chunked
            }
            Framing::None => Mode::None,
            Framing::Length(_) | Framing::UntilClose => Mode::Plain,
            Framing::Chunked => {
                head.fields.set_trusted(Known::TransferEncoding, b"chunked");
                Mode::Chunked
            }
        };
        desk.up.clear();
        head.write_to(&mut desk.up.bytes);
        Self { mode, has_trailers, ..Self::new(io, desk, limits) }
    }

    /// One that hears nothing of HTTP: the client's CONNECT ends here, and succeeds.
    pub(in crate::http) fn raw(io: &'e mut Io, desk: &mut Desk, limits: Limits) -> Self {
        desk.up.clear();
        Self { is_raw: true, ..Self::new(io, desk, limits) }
    }

    fn new(io: &'e mut Io, desk: &Desk, limits: Limits) -> Self {
        Self {
            io,
            limits,
            method: desk.request.method(),
            is_raw: false,
            has_trailers: false,
            mode: Mode::None,
            trailers: Vec::new(),
            is_tunnel: false,
            has_unflushed: false,
            is_ended: false,
            closes_half: false,
            has_reply: false,
        }
    }
}

impl Source for PlainEndpoint<'_> {
    fn poll_piece(&mut self, cx: &mut Context<'_>, desk: &mut Desk) -> Poll<Result<Piece, Fault>> {
        loop {
            let Desk { reply, response_body, .. } = &mut *desk;
            if !reply.unread().is_empty() && !response_body.is_done() {
                let mut out = Vec::with_capacity(reply.unread().len());
                let taken =
                    response_body.take_message(reply.unread(), &mut out, &mut self.trailers);
                let len = taken.map_err(|error| {
                    debug!(%error, "response body refused");
                    Fault::Malformed
                })?;
                reply.skip(len);
                let is_last = response_body.is_done() && self.trailers.is_empty();
                if !out.is_empty() {
                    return Poll::Ready(Ok(Piece::Data(out.into(), is_last)));
                }
            }
            if self.is_ended || response_body.is_done() {
                let lines = std::mem::take(&mut self.trailers);
                let trailers = trailers(&lines)?.filter(|_| self.has_trailers);
                return Poll::Ready(Ok(Piece::End(trailers)));
            }
            match ready!(reply.poll_fill(cx, self.io)) {
                Ok(1..) => {}
                // The connection's end is the end of a body that says so, and of nothing else.
                Ok(0) if matches!(response_body, Body::UntilClose) => self.is_ended = true,
                Ok(0) | Err(_) => return Poll::Ready(Err(Fault::Gone)),
            }
        }
    }

    fn passed(&mut self, _len: usize) {}
}

impl Sink for PlainEndpoint<'_> {
    fn poll_room(
        &mut self,
        cx: &mut Context<'_>,
        desk: &mut Desk,
        _wanted: usize,
    ) -> Poll<Result<usize, Fault>> {
        if let Poll::Ready(Err(fault)) = self.poll_flush(cx, desk) {
            return Poll::Ready(Err(fault));
        }
        match WAITING_BYTES_MAX.checked_sub(desk.up.bytes.len()) {
            Some(room @ 1..) => Poll::Ready(Ok(room)),
            // `poll_flush` is waiting.
            _ => Poll::Pending,
        }
    }

    fn data(&mut self, desk: &mut Desk, data: Bytes, is_last: bool) -> Result<(), Fault> {
        restart(desk);
        self.mode.write(&data, &mut desk.up.bytes);
        if is_last {
            self.mode.finish(None, false, &mut desk.up.bytes);
            self.closes_half = self.is_tunnel;
        }
        Ok(())
    }

    fn end(&mut self, desk: &mut Desk, trailers: Option<HeaderMap>) -> Result<(), Fault> {
        restart(desk);
        self.mode.finish(trailers, self.has_trailers, &mut desk.up.bytes);
        self.closes_half = self.is_tunnel;
        Ok(())
    }

    fn poll_flush(&mut self, cx: &mut Context<'_>, desk: &mut Desk) -> Poll<Result<(), Fault>> {
        while !desk.up.is_sent() {
            ready!(desk.up.poll_drain(cx, self.io)).map_err(|_| Fault::Gone)?;
            self.has_unflushed = self.io.is_tls();
        }
        desk.up.clear();
        if self.has_unflushed {
            ready!(Pin::new(&mut *self.io).poll_flush(cx)).map_err(|_| Fault::Gone)?;
            self.has_unflushed = false;
        }
        if self.closes_half {
            ready!(Pin::new(&mut *self.io).poll_shutdown(cx)).map_err(|_| Fault::Gone)?;
            self.closes_half = false;
        }
        Poll::Ready(Ok(()))
    }
}

/// Forgets what has been written.
fn restart(desk: &mut Desk) {
    if desk.up.is_sent() {
        desk.up.clear();
    }
}

impl EndpointSide for PlainEndpoint<'_> {
    fn poll_head(&mut self, cx: &mut Context<'_>, desk: &mut Desk) -> Poll<Result<bool, Fault>> {
        if self.is_raw {
            desk.response.begin(200);
            return Poll::Ready(Ok(false));
        }
        loop {
            let Desk { reply, reply_scan, response, .. } = &mut *desk;
            if !reply.unread().is_empty() {
                match response.parse(reply_scan, reply.unread(), &self.limits, self.method) {
                    Ok(Some(len)) => {
                        reply.skip(len);
                        let framing = response.framing();
                        desk.response_body.restart(framing);
                        return Poll::Ready(Ok(framing == Framing::None));
                    }
                    Ok(None) if reply.has_room() || reply.grow() => {}
                    Ok(None) => return Poll::Ready(Err(Fault::Malformed)),
                    Err(error) => {
                        debug!(%error, "response refused");
                        return Poll::Ready(Err(Fault::Malformed));
                    }
                }
            }
            match ready!(reply.poll_fill(cx, self.io)) {
                Ok(1..) => self.has_reply = true,
                Ok(0) | Err(_) => return Poll::Ready(Err(Fault::Gone)),
            }
        }
    }

    fn open_tunnel(&mut self, desk: &mut Desk) {
        self.is_tunnel = true;
        self.mode = Mode::Plain;
        desk.response_body = Body::UntilClose;
    }
}

/// Whether the endpoint's connection is at the end of a response and nothing else.
pub(in crate::http) fn is_free(desk: &Desk) -> bool {
    let is_connect = desk.request.method() == Method::Connect;
    !is_connect && desk.response.persists() && desk.response_body.is_done() && desk.reply.is_empty()
}
