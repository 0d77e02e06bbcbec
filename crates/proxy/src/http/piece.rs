//! The pieces of a body on its way, and why none comes any more.

use bytes::Bytes;
use http::HeaderMap;
/// Why a side is of no more use.
pub(super) use sluis_http2::Fault;

/// What came next of a body.
#[derive(Debug)]
pub(super) enum Piece {
    /// Content, never empty; whether it is the last of the message.
    Data(Bytes, bool),
    /// The end, with trailers or without.
    End(Option<HeaderMap>),
}

/// Removes from trailers what must not be there (RFC 9110 §6.5.1): what the next hop would take
/// for framing, routing or authentication.
pub(super) fn clean(trailers: &mut HeaderMap) {
    use http::header;
    for name in [
        header::AUTHORIZATION,
        header::CONNECTION,
        header::CONTENT_ENCODING,
        header::CONTENT_LENGTH,
        header::CONTENT_TYPE,
        header::COOKIE,
        header::EXPECT,
        header::HOST,
        header::PROXY_AUTHORIZATION,
        header::SET_COOKIE,
        header::TE,
        header::TRAILER,
        header::TRANSFER_ENCODING,
        header::UPGRADE,
    ] {
        trailers.remove(name);
    }
}
