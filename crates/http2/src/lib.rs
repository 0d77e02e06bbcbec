//! HTTP/2 (RFC 9113) as an engine without I/O: bytes in, events and bytes out.
//!
//! In:    the bytes of a connection, what its owner wants sent.
//! Out:   heads, data, resets and errors of streams; the bytes that go to the peer.
//! Never: reads a clock or a socket; holds more for a peer than its limits allow.

pub mod hpack;
