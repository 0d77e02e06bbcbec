//! HTTP/2, to clients and to endpoints.
//!
//! In:    connections that speak it; requests and responses in the form of `sluis_http1`.
//! Out:   each stream as a client of the shared exchange; pooled sessions as links to endpoints.
//! Never: decides about a request. Frames, windows and header compression are the `h2` crate's.
//!
//! ```text
//!   connection ──stream──▶ Stream ──▶ exchange (shared) ──▶ relay ──▶ session ──▶ endpoint
//! ```

pub(super) mod call;
pub(super) mod connection;
pub(super) mod copy;
pub(super) mod endpoint;
mod heads;
mod ping;
pub(super) mod sessions;
mod stream;
mod websocket;

use std::time::Duration;

use sluis_rules::Http2Options;

/// Bytes that one stream may be ahead where the configuration says nothing. Envoy's default is
/// 16 MiB; a stream that is not read must not hold that much of our memory.
const STREAM_WINDOW: u32 = 256 * 1024;

/// Bytes that one connection may be ahead: several stalled streams must not stop the others.
const CONNECTION_WINDOW: u32 = 4 * 1024 * 1024;

/// Streams that one connection may have open; Envoy's default.
const STREAMS_MAX: u32 = 1024;

/// Bytes that wait to be written per stream; more is not taken from the other side.
const SEND_BUFFER_BYTES_MAX: usize = 64 * 1024;

/// Bytes of data that one piece may reserve room for.
const PIECE_BYTES_MAX: usize = 64 * 1024;

/// Longest wait for the preface and settings of a peer.
const HANDSHAKE_WAIT_MAX: Duration = Duration::from_secs(10);

/// The two windows: of a stream and of the connection.
fn windows(options: &Http2Options) -> (u32, u32) {
    let stream = options.stream_window.unwrap_or(STREAM_WINDOW);
    let connection = options.connection_window.unwrap_or(CONNECTION_WINDOW.max(stream));
    (stream, connection)
}
