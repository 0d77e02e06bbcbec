//! Trailers as HTTP/1 writes them, and bodies leaving as chunks or as they are.

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue};
use sluis_http1::write_chunk;

use crate::http::piece::{Fault, clean};

/// Bytes of converted body that may wait to be written.
pub(super) const WAITING_BYTES_MAX: usize = 64 * 1024;

/// How a body leaves.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(in crate::http) enum Mode {
    /// There is none.
    #[default]
    None,
    /// As it comes: its length was announced, or its end is the connection's.
    Plain,
    /// In chunks.
    Chunked,
}

impl Mode {
    pub(in crate::http) fn write(self, data: &Bytes, out: &mut Vec<u8>) {
        match self {
            Self::None => {}
            Self::Plain => out.extend_from_slice(data),
            Self::Chunked => write_chunk(data, out),
        }
    }

    /// Writes what ends the body; trailers only where they may be.
    pub(in crate::http) fn finish(
        self,
        trailers: Option<HeaderMap>,
        with_trailers: bool,
        out: &mut Vec<u8>,
    ) {
        if self != Self::Chunked {
            return;
        }
        out.extend_from_slice(b"0\r\n");
        if let Some(mut trailers) = trailers.filter(|_| with_trailers) {
            clean(&mut trailers);
            for (name, value) in &trailers {
                out.extend_from_slice(name.as_str().as_bytes());
                out.extend_from_slice(b": ");
                out.extend_from_slice(value.as_bytes());
                out.extend_from_slice(b"\r\n");
            }
        }
        out.extend_from_slice(b"\r\n");
    }
}

/// Reads trailer lines that the body's reader has checked.
pub(in crate::http) fn trailers(lines: &[u8]) -> Result<Option<HeaderMap>, Fault> {
    let mut trailers = HeaderMap::new();
    for line in lines.split(|&byte| byte == b'\n') {
        let line = line.trim_ascii();
        let Some(colon) = line.iter().position(|&byte| byte == b':') else { continue };
        let name = HeaderName::from_bytes(&line[..colon]).map_err(|_| Fault::Malformed)?;
        let value = HeaderValue::from_bytes(line[colon + 1..].trim_ascii())
            .map_err(|_| Fault::Malformed)?;
        trailers.append(name, value);
    }
    clean(&mut trailers);
    Ok((!trailers.is_empty()).then_some(trailers))
}
