//! What the proxy itself knows of gRPC: whose requests are, and how an answer of ours is said to their
//! clients.

use sluis_http1::{Known, RequestHead};
use sluis_rules::is_grpc_type;

/// `DEADLINE_EXCEEDED`.
pub(crate) const DEADLINE_EXCEEDED: u32 = 4;

/// Whether a request is gRPC: by its content type, as Envoy tells (gRPC-Web is not).
pub(crate) fn is_request(head: &RequestHead) -> bool {
    head.fields.get(Known::ContentType).is_some_and(is_grpc_type)
}

/// The status that says to a gRPC client what an HTTP status says to others (Envoy's table, which
/// is gRPC's own).
pub(crate) fn status(http: u16) -> u32 {
    match http {
        400 => 13,
        401 => 16,
        403 => 7,
        404 => 12,
        429 | 502..=504 => 14,
        _ => 2,
    }
}

/// A message as `grpc-message` carries it: percent-encoded.
pub(crate) fn message(text: &[u8], out: &mut Vec<u8>) {
    const HEX: &[u8; 16] = b"0123456789ABCDEF";
    out.clear();
    for &byte in text {
        match byte {
            b' '..=b'~' if byte != b'%' => out.push(byte),
            _ => {
                let (high, low) = (usize::from(byte >> 4), usize::from(byte & 15));
                out.extend_from_slice(&[b'%', HEX[high], HEX[low]]);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_is_percent_encoded() {
        let mut out = Vec::new();
        message("a b%\n\u{e9}".as_bytes(), &mut out);
        assert_eq!(out, b"a b%25%0A%C3%A9");
    }
}
