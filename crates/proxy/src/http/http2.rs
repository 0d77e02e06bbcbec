//! HTTP/2, to clients and to endpoints.
//!
//! In:    connections that speak it; requests and responses in the form of `sluis_http1`.
//! Out:   each stream as a client of the shared exchange; pooled sessions as links to endpoints.
//! Never: decides about a request. Frames, windows and header compression are `sluis_http2`'s.
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
mod wire;

use std::time::Duration;

use sluis_http2::Options;
use sluis_rules::Http2Options;

/// Bytes that one stream may be ahead where the configuration says nothing. Envoy's default is
/// 16 MiB; a stream that is not read must not hold that much of our memory.
const STREAM_WINDOW: u32 = 256 * 1024;

/// Bytes that one connection may be ahead: several stalled streams must not stop the others.
const CONNECTION_WINDOW: u32 = 4 * 1024 * 1024;

/// Streams that one connection may have open; Envoy's default.
const STREAMS_MAX: u32 = 1024;

/// Longest wait for the preface and settings of a peer.
const HANDSHAKE_WAIT_MAX: Duration = Duration::from_secs(10);

/// What a peer is told; how many streams, and whether it may change protocols, is the caller's.
fn options(settings: &Http2Options, head_bytes_max: usize) -> Options {
    let stream_window = settings.stream_window.unwrap_or(STREAM_WINDOW);
    let connection_window =
        settings.connection_window.unwrap_or(CONNECTION_WINDOW.max(stream_window));
    Options {
        streams_max: STREAMS_MAX,
        stream_window,
        connection_window,
        // The settings know 32 bits.
        list_bytes_max: u32::try_from(head_bytes_max).unwrap_or(u32::MAX),
        connect_protocol: false,
    }
}
