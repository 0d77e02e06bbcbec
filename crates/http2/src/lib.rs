//! HTTP/2 (RFC 9113) as an engine without I/O: bytes in, heads and data and bytes out.
//!
//! In:    the bytes of a connection, what its owner wants sent.
//! Out:   heads, data, resets and errors of streams; the bytes that go to the peer.
//! Never: reads a clock or a socket; holds more for a peer than its limits allow.
//!
//! ```text
//!   feed ──▶ frames ──▶ streams ──▶ accept, poll_head, poll_part, poll_fault
//!   open, send_head, send_data ──▶ pending ──▶ wrote
//! ```

mod connection;
mod frame;
mod guard;
pub mod hpack;
mod limits;
mod message;
mod reason;
mod settings;
mod stream;

pub use connection::{Accepted, Connection, Head, HeadWriter, Part};
pub use message::{Malformed, Parts, RequestParts};
pub use reason::{Fault, Reason};
pub use settings::{Options, Role};
pub use stream::Key;
