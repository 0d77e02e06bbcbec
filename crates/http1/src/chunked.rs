//! The chunked transfer coding, checked in place (RFC 9112 §7.1).
//!
//! In:    raw bytes of a chunked body, in pieces of any size.
//! Out:   how many of them belong to the body and may be forwarded as they are.
//! Never: accepts a bare LF, whitespace around a size, or a framing field in the trailers.
//!
//! ```text
//!   Size ─▶ SizeDigits ─┬─▶ Extension ─┐
//!     ▲                 └──────────────┴─▶ SizeEnd ─┬─ n > 0 ─▶ Data ─▶ DataCr ─▶ DataLf ─┐
//!     └──────────────────────────────────────────── │ ◀────────────────────────────────────┘
//!                                        n = 0 ─────▶ Trailer ─▶ (TrailerName, …) ─▶ End
//! ```

use std::ops::Range;

use crate::Known;
use crate::bytes::is_token_byte;
use crate::limits::{
    CHUNK_EXTENSIONS_BYTES_MAX, CHUNK_LINE_BYTES_MAX, TRAILER_BYTES_MAX, TRAILERS_MAX,
};

/// Hex digits of a chunk size: 15 keep every sum below 2^63.
const SIZE_DIGITS_MAX: u8 = 15;

/// Why a chunked body was refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ChunkError {
    /// Not hex digits, none, or more than fifteen.
    #[error("invalid chunk size")]
    Size,
    /// A control character in an extension, or more extensions than the bounds allow.
    #[error("invalid chunk extension")]
    Extension,
    /// A line or the data of a chunk does not end in CRLF.
    #[error("chunk is not terminated by CRLF")]
    Terminator,
    /// A trailer line is malformed, or the section is too large.
    #[error("invalid trailer")]
    Trailer,
    /// A trailer that would change framing, routing or authentication.
    #[error("trailer holds a field that is not allowed there")]
    ForbiddenTrailer,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum State {
    #[default]
    Size,
    SizeDigits,
    Extension,
    SizeEnd,
    Data,
    DataCr,
    DataLf,
    /// At the start of a trailer line.
    Trailer,
    TrailerName,
    TrailerValue,
    TrailerLf,
    /// After the CR of the final empty line.
    LastLf,
    End,
}

/// Reads one chunked body.
#[derive(Clone, Debug, Default)]
pub struct Chunked {
    state: State,
    left: u64,
    digits: u8,
    line_bytes: usize,
    extension_bytes: usize,
    trailer_bytes: usize,
    trailers: usize,
    /// Whether trailers are passed on.
    pub(crate) keeps_trailers: bool,
    /// The name of the trailer being read, as far as forbidden names are long.
    name: [u8; 32],
    name_len: usize,
}

/// What a piece of input is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Piece {
    /// Chunk sizes, line ends: needed by a peer that reads chunks.
    Framing,
    /// Content.
    Data,
    /// Trailer lines, which are dropped (RFC 9110 §6.5.1 permits it).
    Trailer,
}

impl Chunked {
    /// Whether the body has ended.
    pub fn is_done(&self) -> bool {
        self.state == State::End
    }

    /// Bytes left of the chunk under way; 0 between chunks.
    pub(crate) fn plain_left(&self) -> u64 {
        if self.state == State::Data { self.left } else { 0 }
    }

    /// Counts so many bytes of the chunk under way as read.
    pub(crate) fn skip(&mut self, len: u64) {
        if self.state == State::Data {
            self.left = self.left.saturating_sub(len);
            if self.left == 0 {
                self.state = State::DataCr;
            }
        }
    }

    /// Reads `input` and calls `on` for each stretch of it. Returns how many bytes belong to the
    /// body: fewer than given when the body ends.
    pub(crate) fn read(
        &mut self,
        input: &[u8],
        mut on: impl FnMut(Piece, Range<usize>),
    ) -> Result<usize, ChunkError> {
        let mut at = 0;
        while at < input.len() && self.state != State::End {
            let start = at;
            let piece = match self.state {
                State::Data => {
                    let len =
                        usize::try_from(self.left).unwrap_or(usize::MAX).min(input.len() - at);
                    self.left -= len as u64;
                    at += len;
                    if self.left == 0 {
                        self.state = State::DataCr;
                    }
                    Piece::Data
                }
                State::Trailer
                | State::TrailerName
                | State::TrailerValue
                | State::TrailerLf
                | State::LastLf => {
                    let piece = self.on_trailer(input[at])?;
                    at += 1;
                    piece
                }
                _ => {
                    self.on_framing(input[at])?;
                    at += 1;
                    Piece::Framing
                }
            };
            on(piece, start..at);
        }
        Ok(at)
    }

    /// One byte outside data and trailers.
    fn on_framing(&mut self, byte: u8) -> Result<(), ChunkError> {
        self.state = match (self.state, byte) {
            (State::Size, _) => {
                self.left = hex(byte)?;
                self.digits = 1;
                self.line_bytes = 1;
                State::SizeDigits
            }
            (State::SizeDigits, b'\r') => State::SizeEnd,
            (State::SizeDigits, b';') => State::Extension,
            (State::SizeDigits, b'\n') => return Err(ChunkError::Terminator),
            (State::SizeDigits, _) => {
                self.digits += 1;
                if self.digits > SIZE_DIGITS_MAX {
                    return Err(ChunkError::Size);
                }
                self.left = self.left * 16 + hex(byte)?;
                State::SizeDigits
            }
            (State::Extension, b'\r') => State::SizeEnd,
            (State::Extension, _) => self.on_extension(byte)?,
            (State::SizeEnd, b'\n') if self.left == 0 => State::Trailer,
            (State::SizeEnd, b'\n') => State::Data,
            (State::DataCr, b'\r') => State::DataLf,
            (State::DataLf, b'\n') => State::Size,
            _ => return Err(ChunkError::Terminator),
        };
        Ok(())
    }

    fn on_extension(&mut self, byte: u8) -> Result<State, ChunkError> {
        self.line_bytes += 1;
        self.extension_bytes += 1;
        let is_text = byte == b'\t' || (0x20..=0x7e).contains(&byte);
        if !is_text
            || self.line_bytes > CHUNK_LINE_BYTES_MAX
            || self.extension_bytes > CHUNK_EXTENSIONS_BYTES_MAX
        {
            return Err(ChunkError::Extension);
        }
        Ok(State::Extension)
    }

    /// One byte behind the last chunk.
    fn on_trailer(&mut self, byte: u8) -> Result<Piece, ChunkError> {
        self.trailer_bytes += 1;
        if self.trailer_bytes > TRAILER_BYTES_MAX {
            return Err(ChunkError::Trailer);
        }
        let (next, piece) = match (self.state, byte) {
            (State::Trailer, b'\r') => (State::LastLf, Piece::Framing),
            (State::LastLf, b'\n') => (State::End, Piece::Framing),
            (State::Trailer, _) if is_token_byte(byte) => {
                self.trailers += 1;
                if self.trailers > TRAILERS_MAX {
                    return Err(ChunkError::Trailer);
                }
                self.name_len = 0;
                self.keep_name_byte(byte);
                (State::TrailerName, Piece::Trailer)
            }
            (State::TrailerName, b':') => {
                self.check_name()?;
                (State::TrailerValue, Piece::Trailer)
            }
            (State::TrailerName, _) if is_token_byte(byte) => {
                self.keep_name_byte(byte);
                (State::TrailerName, Piece::Trailer)
            }
            (State::TrailerValue, b'\r') => (State::TrailerLf, Piece::Trailer),
            (State::TrailerValue, _) if byte == b'\t' || (byte >= 0x20 && byte != 0x7f) => {
                (State::TrailerValue, Piece::Trailer)
            }
            (State::TrailerLf, b'\n') => (State::Trailer, Piece::Trailer),
            (State::LastLf | State::TrailerLf, _) => return Err(ChunkError::Terminator),
            _ => return Err(ChunkError::Trailer),
        };
        self.state = next;
        Ok(piece)
    }

    fn keep_name_byte(&mut self, byte: u8) {
        if let Some(slot) = self.name.get_mut(self.name_len) {
            *slot = byte;
        }
        self.name_len += 1;
    }

    /// RFC 9110 §6.5.1: no field that is needed for framing, routing, request modifiers,
    /// authentication or content may be sent as a trailer.
    fn check_name(&self) -> Result<(), ChunkError> {
        let Some(name) = self.name.get(..self.name_len) else {
            return Ok(());
        };
        match Known::of(name) {
            Some(
                Known::Authorization
                | Known::Connection
                | Known::ContentEncoding
                | Known::ContentLength
                | Known::ContentType
                | Known::Cookie
                | Known::Expect
                | Known::Host
                | Known::ProxyAuthorization
                | Known::SetCookie
                | Known::Te
                | Known::Trailer
                | Known::TransferEncoding
                | Known::Upgrade,
            ) => Err(ChunkError::ForbiddenTrailer),
            _ => Ok(()),
        }
    }
}

fn hex(byte: u8) -> Result<u64, ChunkError> {
    match byte {
        b'0'..=b'9' => Ok(u64::from(byte - b'0')),
        b'a'..=b'f' => Ok(u64::from(byte - b'a') + 10),
        b'A'..=b'F' => Ok(u64::from(byte - b'A') + 10),
        _ => Err(ChunkError::Size),
    }
}

/// Appends `data` as one chunk; nothing for no data, because an empty chunk ends a body.
pub fn write_chunk(data: &[u8], out: &mut Vec<u8>) {
    if data.is_empty() {
        return;
    }
    let mut digits = [0u8; 16];
    let mut at = digits.len();
    let mut left = data.len();
    while left > 0 {
        at -= 1;
        digits[at] = b"0123456789abcdef"[left % 16];
        left /= 16;
    }
    out.extend_from_slice(&digits[at..]);
    out.extend_from_slice(b"\r\n");
    out.extend_from_slice(data);
    out.extend_from_slice(b"\r\n");
}

/// Appends the chunk that ends a body.
pub fn write_last_chunk(out: &mut Vec<u8>) {
    out.extend_from_slice(b"0\r\n\r\n");
}
