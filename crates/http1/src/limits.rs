//! Bounds of one message, each with its reason.

/// Bytes of one head, start line and final empty line included. Envoy's default (60 KiB).
pub const HEAD_BYTES_MAX: usize = 60 * 1024;

/// Bytes of a request or status line without its CRLF. Longer URLs are not portable (RFC 9112 §3
/// asks for 8000 at least).
pub const START_LINE_BYTES_MAX: usize = 8 * 1024;

/// Header fields of one head. Envoy's default; keeps the parse table on the stack.
pub const FIELDS_MAX: usize = 100;

/// Bytes of one chunk-size line. A size has at most 15 digits; the rest is extension.
pub const CHUNK_LINE_BYTES_MAX: usize = 256;

/// Bytes of all chunk extensions of one body: nobody needs them, and each one costs every hop.
pub const CHUNK_EXTENSIONS_BYTES_MAX: usize = 4 * 1024;

/// Bytes of one trailer section. Trailers are checked and dropped, so this bounds only work.
pub const TRAILER_BYTES_MAX: usize = 8 * 1024;

/// Fields of one trailer section.
pub const TRAILERS_MAX: usize = 32;

/// Bounds of one head; the defaults are the constants of this module.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Bytes of the whole head.
    pub head_bytes_max: usize,
    /// Bytes of the start line.
    pub start_line_bytes_max: usize,
    /// Header fields; more than [`FIELDS_MAX`] counts as [`FIELDS_MAX`].
    pub fields_max: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            head_bytes_max: HEAD_BYTES_MAX,
            start_line_bytes_max: START_LINE_BYTES_MAX,
            fields_max: FIELDS_MAX,
        }
    }
}
