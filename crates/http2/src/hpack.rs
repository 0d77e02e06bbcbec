//! Field sections compressed and restored (HPACK, RFC 7541).
//!
//! In:    a whole field block (HEADERS with its CONTINUATIONs), or fields to send.
//! Out:   a [`Section`] of fields, or the bytes of a field block.
//! Never: judges names or values (that is HTTP/2's part); keeps more than its tables' limits allow.

mod constants;
mod decode;
mod encode;
mod huffman;
mod integer;
mod section;
mod statics;
mod table;
#[cfg(test)]
mod tests;

pub use decode::{DecodeError, Decoder, LIST_BYTES_BEYOND_MAX};
pub use encode::{Encoder, Indexing};
pub use section::{Field, Section};
pub use statics::{find as static_name, name as static_name_at};

/// The size of a dynamic table at the start of every connection, in octets as RFC 7541 §4.1 counts
/// them (RFC 9113 §6.5.2, SETTINGS_HEADER_TABLE_SIZE).
pub const TABLE_BYTES_DEFAULT: u32 = 4096;

/// What a field counts beside its name and value, in a dynamic table and in a list of fields
/// (RFC 7541 §4.1, RFC 9113 §6.5.2).
pub const FIELD_OVERHEAD: usize = 32;
