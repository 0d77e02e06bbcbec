//! The client's side of an exchange: all that differs between the HTTP versions.
//!
//! In:    a request whose head is on the desk.
//! Out:   what the shared code (`exchange`, `forward`, `attempt`) cannot know: how a body begins and
//!        how an answer is sent.
//! Never: decides. What is done with a request is the same code for every version.

use std::rc::Rc;

use sluis_http1::{Framing, RequestHead, write_chunk, write_last_chunk};

use super::{
    course::Course,
    desk::Desk,
    failure::{Failure, Finish},
    flight::Event,
    incoming::Incoming,
    link::Link,
    plan::Plan,
    reply::Reply,
    site::{Place, Site},
    trace::Trace,
};
/// What a client is told that waits before it sends its body.
pub(super) const CONTINUE: &[u8] = b"HTTP/1.1 100 Continue\r\n\r\n";

/// What becomes of the connection after an exchange.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum After {
    /// It waits for the next request.
    Keep,
    /// It is closed in order.
    Close,
    /// It is closed in order, once the client has read: it may still be sending.
    Linger,
    /// It is dropped.
    Drop,
}

impl After {
    /// After a response that was passed on as a whole.
    pub(super) fn response(desk: &Desk, closes: bool) -> Self {
        match (desk.request_body.is_done(), closes) {
            (false, _) => Self::Linger,
            (true, true) if desk.input.is_empty() => Self::Close,
            (true, true) => Self::Linger,
            (true, false) => Self::Keep,
        }
    }
}

/// Who has sent the request on the desk: an HTTP/1 connection, or one stream of HTTP/2.
pub(super) trait Client: Incoming {
    /// What does not change while the connection lives.
    fn place(&self) -> &Rc<Place>;

    /// Takes what has come of the request's body. True when that is all of it.
    fn begin_body(
        &mut self,
        desk: &mut Desk,
        plan: &Plan<'_>,
        trace: &mut Trace<'_>,
    ) -> Result<bool, Box<Reply<'static>>>;

    /// Ready with how the client has gone, while nothing else is done with it. Where its request has
    /// not come as a whole that may not be seen.
    async fn gone(&mut self, desk: &mut Desk, is_whole: bool) -> Event;

    /// The whole body of the request as HTTP/1 frames it by the head on the desk, when all of it has
    /// come and is kept.
    fn whole_body(&self, desk: &Desk) -> Option<Vec<u8>>;

    /// Throws away the body of a request that goes nowhere. True when all of it has come.
    fn drop_body(&mut self, desk: &mut Desk, trace: &Trace<'_>) -> bool;

    /// Whether the response to this request is the connection's last.
    fn must_close(&self, site: Site<'_>, desk: &Desk) -> bool;

    /// What becomes of the client after a response that was passed on as a whole.
    fn after_response(&self, desk: &Desk, closes: bool) -> After;

    /// Sends the request over `link` and passes the response on.
    async fn drive<'c>(
        &mut self,
        site: Site<'_>,
        desk: &mut Desk,
        course: &mut Course<'_, 'c>,
        trace: &mut Trace<'c>,
        link: (&mut Link, bool),
    ) -> Result<Finish<'c>, Failure>;

    /// Sends the response head on the desk with this body. False when the client has gone.
    async fn send_answer(&mut self, desk: &mut Desk, body: Option<&[u8]>, closes: bool) -> bool;
}

/// A body as HTTP/1 frames it by this head.
pub(super) fn framed(head: &RequestHead, body: Vec<u8>) -> Vec<u8> {
    if head.framing() != Framing::Chunked {
        return body;
    }
    let mut out = Vec::with_capacity(body.len() + 32);
    write_chunk(&body, &mut out);
    write_last_chunk(&mut out);
    out
}
