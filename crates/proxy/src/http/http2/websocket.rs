//! The handshake of WebSocket between HTTP versions: HTTP/1.1 proves by key and answer that both ends
//! mean it, HTTP/2 needs no proof (RFC 8441 §5).

use aws_lc_rs::digest::{SHA1_FOR_LEGACY_USE_ONLY, digest};
use sluis_http1::{Known, RequestHead, ResponseHead};

use crate::random::Random;

const KEY: &[u8] = b"sec-websocket-key";
const ACCEPT: &[u8] = b"sec-websocket-accept";

/// What RFC 6455 §4.2.2 appends to the key.
const MAGIC: &[u8] = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11";

/// Gives a request that came by HTTP/2 the key that an HTTP/1.1 server asks for.
pub(super) fn give_key(head: &mut RequestHead, random: &Random) {
    if is_websocket(head) && head.fields.get_name(KEY).is_none() {
        let key = base64(&random.uuid().to_be_bytes());
        // Its name and value are well-formed; without room the server refuses.
        let _given = head.fields.set(KEY, &key);
    }
}

/// Gives the agreement of an HTTP/2 server the answer that an HTTP/1.1 client waits for.
pub(super) fn give_answer(request: &RequestHead, response: &mut ResponseHead) {
    if !is_websocket(request) || response.fields.get_name(ACCEPT).is_some() {
        return;
    }
    if let Some(key) = request.fields.get_name(KEY) {
        let answer = digest(&SHA1_FOR_LEGACY_USE_ONLY, &[key, MAGIC].concat());
        let _given = response.fields.set(ACCEPT, &base64(answer.as_ref()));
    }
}

fn is_websocket(head: &RequestHead) -> bool {
    head.fields.get(Known::Upgrade).is_some_and(|kind| kind.eq_ignore_ascii_case(b"websocket"))
}

/// RFC 4648 §4.
fn base64(bytes: &[u8]) -> Vec<u8> {
    const LETTERS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut out = Vec::with_capacity(bytes.len().div_ceil(3) * 4);
    for three in bytes.chunks(3) {
        let bits = three.iter().fold(0_u32, |bits, &byte| bits << 8 | u32::from(byte));
        let bits = bits << (8 * (3 - three.len()));
        for place in 0..4 {
            let letter = LETTERS[(bits >> (18 - 6 * place)) as usize & 63];
            out.push(if place > three.len() { b'=' } else { letter });
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The example of RFC 6455 §1.3.
    #[test]
    fn the_answer_follows_from_the_key() {
        let answer =
            digest(&SHA1_FOR_LEGACY_USE_ONLY, &[b"dGhlIHNhbXBsZSBub25jZQ==", MAGIC].concat());
        assert_eq!(base64(answer.as_ref()), b"s3pPLMBiTxaQ9kYGzzhZRbK+xOo=");
        assert_eq!(base64(b"a"), b"YQ==");
        assert_eq!(base64(b"abc"), b"YWJj");
    }
}
