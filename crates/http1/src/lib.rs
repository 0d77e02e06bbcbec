//! HTTP/1.1 messages as bytes: heads read in place, framing decided strictly, bodies passed raw.
//!
//! In:    bytes of one connection, in pieces of any size.
//! Out:   [`RequestHead`], [`ResponseHead`] with their [`Framing`]; [`Body`] progress; normal paths.
//! Never: does I/O, reads a clock, or guesses. What two readers could read in two ways is an error.
//!
//! Start at [`RequestHead::parse`]. A head keeps its block in one buffer; edits are written behind
//! the block, and unmodified runs are copied at once by [`RequestHead::write_to`].

mod authority;
mod body;
mod bytes;
mod chunked;
mod connection;
mod convert;
mod error;
mod fields;
mod framing;
mod known;
mod limits;
mod method;
mod path;
mod quick;
mod request;
mod response;
mod scan;
mod target;

pub use authority::{Authority, is_dns_name};
pub use body::{Body, Taken};
pub use chunked::{ChunkError, Chunked, write_chunk, write_last_chunk};
pub use connection::{Connection, Upgrade};
pub use convert::{Ends, Pseudo};
pub use error::{FramingError, HeadError, HostError, TargetError};
pub use fields::{FieldError, Fields};
pub use framing::Framing;
pub use known::{Known, Names};
pub use limits::{
    CHUNK_EXTENSIONS_BYTES_MAX, CHUNK_LINE_BYTES_MAX, FIELDS_MAX, HEAD_BYTES_MAX, Limits,
    START_LINE_BYTES_MAX, TRAILER_BYTES_MAX, TRAILERS_MAX,
};
pub use method::Method;
pub use path::{EscapedSlashes, Normal, PathError, PathRules, Slashes, normalize_path};
pub use request::{RequestHead, Version};
pub use response::ResponseHead;
pub use scan::Scan;
