//! An endpoint that speaks HTTP/2, as one side of a relay.

use std::{
    future::Future as _,
    pin::Pin,
    task::{Context, Poll, ready},
};

use bytes::Bytes;
use h2::{RecvStream, SendStream, client::ResponseFuture};
use http::HeaderMap;
use sluis_http1::{Body, Ends, Limits, Method};
use tracing::debug;

use super::{heads, stream, websocket};
use crate::http::{
    message::{EndpointSide, Fault, Piece, Sink, Source},
    state::Desk,
};

/// One stream to an endpoint.
pub(in crate::http) struct Remote {
    response: ResponseFuture,
    send: SendStream<Bytes>,
    recv: Option<RecvStream>,
    limits: Limits,
    method: Method,
    /// The protocol that the client would change to, when it asked for that.
    upgrade: Option<Vec<u8>>,
    is_interim_over: bool,
    /// Whether the response may hold content: not that of HEAD, and none with 204 or 304.
    may_have_content: bool,
}

impl Remote {
    pub(super) fn new(
        (response, send): (ResponseFuture, SendStream<Bytes>),
        limits: Limits,
        method: Method,
        upgrade: Option<Vec<u8>>,
    ) -> Self {
        Self {
            response,
            send,
            recv: None,
            limits,
            method,
            upgrade,
            is_interim_over: false,
            may_have_content: true,
        }
    }

    fn recv(&mut self) -> Result<&mut RecvStream, Fault> {
        self.recv.as_mut().ok_or(Fault::Malformed)
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
        match ready!(stream::poll_piece(self.recv()?, cx)) {
            // RFC 9113 §8.1.1: content where none can be is malformed; Envoy resets such a stream.
            Ok(Piece::Data(..)) if !self.may_have_content => Poll::Ready(Err(Fault::Malformed)),
            piece => Poll::Ready(piece),
        }
    }

    fn passed(&mut self, len: usize) {
        if let Some(recv) = &mut self.recv {
            stream::pass(recv, len);
        }
    }
}

impl Sink for Remote {
    fn poll_room(
        &mut self,
        cx: &mut Context<'_>,
        _: &mut Desk,
        wanted: usize,
    ) -> Poll<Result<usize, Fault>> {
        stream::poll_room(&mut self.send, cx, wanted)
    }

    fn data(&mut self, _: &mut Desk, data: Bytes, is_last: bool) -> Result<(), Fault> {
        Ok(self.send.send_data(data, is_last)?)
    }

    fn end(&mut self, _: &mut Desk, trailers: Option<HeaderMap>) -> Result<(), Fault> {
        match trailers {
            Some(trailers) => self.send.send_trailers(trailers)?,
            None => self.send.send_data(Bytes::new(), true)?,
        }
        Ok(())
    }

    fn poll_flush(&mut self, _: &mut Context<'_>, _: &mut Desk) -> Poll<Result<(), Fault>> {
        // The session's task writes.
        Poll::Ready(Ok(()))
    }
}

impl EndpointSide for Remote {
    fn poll_head(&mut self, cx: &mut Context<'_>, desk: &mut Desk) -> Poll<Result<bool, Fault>> {
        let refused = |error| {
            debug!(%error, "response refused");
            Fault::Malformed
        };
        // One polling task: what is not interim is the response.
        while !self.is_interim_over {
            match self.response.poll_informational(cx) {
                Poll::Ready(Some(interim)) => {
                    let interim = interim?;
                    let Desk { response, text, .. } = &mut *desk;
                    let how = (Ends::Later, self.method);
                    heads::read_response(&interim, response, how, &self.limits, text)
                        .map_err(refused)?;
                    return Poll::Ready(Ok(false));
                }
                Poll::Ready(None) => self.is_interim_over = true,
                Poll::Pending => break,
            }
        }
        let response = ready!(Pin::new(&mut self.response).poll(cx))?;
        let ends = response.body().is_end_stream();
        let how = (if ends { Ends::Here } else { Ends::Later }, self.method);
        let Desk { response: head, text, .. } = &mut *desk;
        heads::read_response(&response, head, how, &self.limits, text).map_err(refused)?;
        if self.upgrade.is_some() && response.status().is_success() {
            self.read_agreement(desk)?;
        }
        let status = response.status().as_u16();
        self.may_have_content = self.method != Method::Head && !matches!(status, 204 | 304);
        self.recv = Some(response.into_body());
        desk.response_body = Body::Done;
        Poll::Ready(Ok(ends))
    }

    fn open_tunnel(&mut self, _: &mut Desk) {}
}
