//! An endpoint that speaks HTTP/2, as one side of a relay.

use std::task::{Context, Poll, ready};

use bytes::Bytes;
use http::HeaderMap;
use sluis_http1::{Body, Ends, Limits, Method};
use tracing::debug;

use super::{heads, websocket, wire::Handle};
use crate::http::{
    desk::Desk,
    message::{EndpointSide, Sink, Source},
    piece::{Fault, Piece},
};

/// One stream to an endpoint.
pub(in crate::http) struct Remote {
    stream: Handle,
    limits: Limits,
    method: Method,
    /// The protocol that the client would change to, when it asked for that.
    upgrade: Option<Vec<u8>>,
    /// Whether the response may hold content: not that of HEAD, and none with 204 or 304.
    may_have_content: bool,
}

impl Remote {
    pub(super) fn new(
        stream: Handle,
        limits: Limits,
        method: Method,
        upgrade: Option<Vec<u8>>,
    ) -> Self {
        Self { stream, limits, method, upgrade, may_have_content: true }
    }

    /// Success of an extended CONNECT is what 101 is in HTTP/1.1 (RFC 8441 §5).
    fn read_agreement(&self, desk: &mut Desk) -> Result<(), Fault> {
        let upgrade = self.upgrade.as_deref().unwrap_or_default();
        let Desk { request, response, text, .. } = desk;
        response.agree(upgrade, text).map_err(|_| Fault::Malformed)?;
        websocket::give_answer(request, response);
        Ok(())
    }
}

impl Source for Remote {
    fn poll_piece(&mut self, cx: &mut Context<'_>, _: &mut Desk) -> Poll<Result<Piece, Fault>> {
        match ready!(self.stream.poll_piece(cx)) {
            // RFC 9113 §8.1.1: content where none can be is malformed; Envoy resets such a stream.
            Ok(Piece::Data(..)) if !self.may_have_content => Poll::Ready(Err(Fault::Malformed)),
            piece => Poll::Ready(piece),
        }
    }

    fn passed(&mut self, len: usize) {
        self.stream.passed(len);
    }
}

impl Sink for Remote {
    fn poll_room(
        &mut self,
        cx: &mut Context<'_>,
        _: &mut Desk,
        wanted: usize,
    ) -> Poll<Result<usize, Fault>> {
        self.stream.poll_room(cx, wanted)
    }

    fn data(&mut self, _: &mut Desk, data: Bytes, is_last: bool) -> Result<(), Fault> {
        self.stream.data(&data, is_last)
    }

    fn end(&mut self, _: &mut Desk, trailers: Option<HeaderMap>) -> Result<(), Fault> {
        self.stream.end(trailers.as_ref())
    }

    fn poll_flush(&mut self, _: &mut Context<'_>, _: &mut Desk) -> Poll<Result<(), Fault>> {
        // The session's task writes.
        Poll::Ready(Ok(()))
    }
}

impl EndpointSide for Remote {
    fn poll_head(&mut self, cx: &mut Context<'_>, desk: &mut Desk) -> Poll<Result<bool, Fault>> {
        let head = ready!(self.stream.poll_head(cx))?;
        let status = head.status;
        let is_interim = status < 200;
        let how = (if head.ends { Ends::Here } else { Ends::Later }, self.method);
        let Desk { response, text, .. } = &mut *desk;
        heads::read_response((&head.section, status), response, how, &self.limits, text).map_err(
            |error| {
                debug!(%error, "response refused");
                Fault::Malformed
            },
        )?;
        self.stream.give_back(head.section);
        if is_interim {
            return Poll::Ready(Ok(false));
        }
        if self.upgrade.is_some() && (200..300).contains(&status) {
            self.read_agreement(desk)?;
        }
        self.may_have_content = self.method != Method::Head && !matches!(status, 204 | 304);
        desk.response_body = Body::Done;
        Poll::Ready(Ok(head.ends))
    }

    fn open_tunnel(&mut self, _: &mut Desk) {}
}
