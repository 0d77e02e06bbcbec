//! What one exchange is written on.

use sluis_http1::{Body, RequestHead, ResponseHead, Scan};

use super::{
    buffer::{Buffer, Outgoing},
    kept::{Kept, Replay},
    marks::Marks,
    sealed::Sealed,
};

/// Everything that one exchange is written on. Idle connections have none.
#[derive(Debug, Default)]
pub(super) struct Desk {
    /// From the client: the body under way, then the next requests.
    pub(super) input: Buffer,
    pub(super) scan: Scan,
    pub(super) request: RequestHead,
    pub(super) request_body: Body,
    /// Takes the content out of what of the input is body, where that does not go on as it came.
    pub(super) content: Body,
    /// Trailer lines found by it.
    pub(super) trailers: Vec<u8>,
    /// To the endpoint: head and what of the body came with it.
    pub(super) up: Outgoing,
    /// From the endpoint.
    pub(super) reply: Buffer,
    pub(super) reply_scan: Scan,
    pub(super) response: ResponseHead,
    pub(super) response_body: Body,
    /// To the client: head and what of the body came with it.
    pub(super) down: Outgoing,
    /// What has gone to the endpoint of the request's body.
    pub(super) kept: Kept,
    /// The same of a body that was taken apart.
    pub(super) replay: Replay,
    /// What filters remember of the request.
    pub(super) marks: Marks,
    /// For values under construction.
    pub(super) text: Vec<u8>,
    /// The request as it is sent, where credentials are added: for the codec alone.
    pub(super) sealed: Option<Box<Sealed>>,
}

impl Desk {
    /// Clears what belongs to one exchange; what the client has sent ahead stays.
    pub(super) fn next_request(&mut self) {
        self.input.discard_ready();
        self.up.clear();
        self.down.clear();
        self.reply.clear();
        self.marks = Marks::default();
        self.sealed = None;
        self.kept.restart(false);
        self.replay.restart(false);
        self.reply_scan = Scan::default();
        self.trailers.clear();
    }
}
