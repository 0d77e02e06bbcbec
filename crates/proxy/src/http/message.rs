//! Messages whose bodies are pieces: what the two sides of a relayed exchange have in common.
//!
//! In:    a client of one HTTP version, an endpoint of another (or HTTP/2 on both sides).
//! Out:   traits that the relay drives: pieces from a [`Source`], room in a [`Sink`].
//! Never: holds more than one piece per direction: a sink without room stops its source.

use std::task::{Context, Poll};

use bytes::Bytes;
use http::HeaderMap;

use super::{
    desk::Desk,
    piece::{Fault, Piece},
};

/// Where a body comes from.
pub(super) trait Source {
    /// The next piece. Not called again after the last one.
    fn poll_piece(&mut self, cx: &mut Context<'_>, desk: &mut Desk) -> Poll<Result<Piece, Fault>>;

    /// So many bytes of data have gone on: the other end may send as many more.
    fn passed(&mut self, len: usize);
}

/// Where a body goes.
pub(super) trait Sink {
    /// How many bytes may be given now: more than none, and perhaps fewer than wanted.
    fn poll_room(
        &mut self,
        cx: &mut Context<'_>,
        desk: &mut Desk,
        wanted: usize,
    ) -> Poll<Result<usize, Fault>>;

    /// Gives data, no more than there is room for; whether it is the last of the message.
    fn data(&mut self, desk: &mut Desk, data: Bytes, is_last: bool) -> Result<(), Fault>;

    /// Ends the message.
    fn end(&mut self, desk: &mut Desk, trailers: Option<HeaderMap>) -> Result<(), Fault>;

    /// Ready when what was given has left, as far as it is ours to see.
    fn poll_flush(&mut self, cx: &mut Context<'_>, desk: &mut Desk) -> Poll<Result<(), Fault>>;
}

/// The side of the client.
pub(super) trait ClientSide: Source + Sink {
    /// Ready when the client has gone. Asked when its body is not.
    fn poll_gone(&mut self, cx: &mut Context<'_>, desk: &mut Desk) -> Poll<Fault>;

    /// Sends an interim response of this status, with the fields of the response on the desk
    /// where that is asked for.
    fn interim(&mut self, desk: &mut Desk, status: u16, with_fields: bool) -> Result<(), Fault>;

    /// Sends the response head on the desk; whether the message ends with it.
    fn head(&mut self, desk: &mut Desk, ends: bool) -> Result<(), Fault>;

    /// Whether the client was told that its connection ends.
    fn closes(&self) -> bool;

    /// The connection is to end with this response. Only HTTP/1 can say so before the response.
    fn close_after(&mut self);
}

/// The side of the endpoint. The request's head has been given when it is made.
pub(super) trait EndpointSide: Source + Sink {
    /// Puts the next response head onto the desk, interim ones too. True when nothing follows it.
    fn poll_head(&mut self, cx: &mut Context<'_>, desk: &mut Desk) -> Poll<Result<bool, Fault>>;

    /// From here on both sides send what they like until one ends.
    fn open_tunnel(&mut self, desk: &mut Desk);
}
