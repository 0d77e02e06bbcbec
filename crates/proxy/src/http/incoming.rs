//! The body of a request before it goes on: looked at, waited for, replaced.
//!
//! In:    a request whose head is on the desk, from a client of any HTTP version.
//! Out:   what has come of its body; another body in its place.
//! Never: takes anything away: what is looked at still goes on.

use http::HeaderMap;

use super::{
    desk::Desk,
    reply::{Reply, bad_body},
};
use crate::access_log::Flag;

/// Why the beginning of a body did not come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Unpeeked {
    /// The client has gone.
    Gone,
    /// Nothing came for too long.
    Late,
    /// It is malformed.
    Malformed,
}

impl Unpeeked {
    /// The answer to such a request.
    pub(super) fn reply<'c>(self) -> Reply<'c> {
        match self {
            Self::Malformed => bad_body(),
            Self::Late => {
                let reply = Reply::new(408, "stream_idle_timeout").text("stream timeout");
                reply.flag(Flag::StreamIdleTimeout)
            }
            Self::Gone => {
                let flag = Flag::DownstreamConnectionTermination;
                Reply::new(400, "downstream_remote_disconnect").flag(flag)
            }
        }
    }
}

/// How long a client may be silent within a body where the manager says nothing.
pub(super) const BODY_WAIT_MAX: std::time::Duration = std::time::Duration::from_secs(300);

/// The request on the desk as filters and credentials see its body.
pub(super) trait Incoming {
    /// Waits until so many bytes of the request's content have come, or all of it, and leaves them
    /// where they are: they still go on. Returns what has come, and whether that is all.
    async fn peek_body(
        &mut self,
        desk: &mut Desk,
        enough: usize,
    ) -> Result<(Vec<u8>, bool), Unpeeked>;

    /// The trailers of a request whose whole body has been peeked at.
    fn peeked_trailers(&self, desk: &Desk) -> Option<HeaderMap>;

    /// Puts another body in the place of the request's, of which all has come; its head tells of it.
    fn replace_body(&mut self, desk: &mut Desk, bytes: Vec<u8>, trailers: Option<HeaderMap>);

    /// How much of the request's content has come, and whether that is all; nothing is taken.
    fn arrived(&self, desk: &Desk) -> (usize, bool);
}
