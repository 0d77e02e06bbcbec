//! Guesses whether a connection speaks HTTP, from its first bytes.

/// The start of an HTTP/2 connection, RFC 9113 §3.4.
const H2_PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// The longest method name we look for; the registry's longest is 17 bytes.
const METHOD_BYTES_MAX: usize = 20;

/// What the first bytes look like.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HttpGuess {
    /// A request line of HTTP/1.
    Http1,
    /// The preface of HTTP/2.
    Http2,
    /// Something else.
    Other,
    /// Too few bytes to tell.
    More,
}

/// Guesses the protocol: a method in capital letters and a space, or the HTTP/2 preface.
#[must_use]
pub fn guess_http(bytes: &[u8]) -> HttpGuess {
    let shared = bytes.len().min(H2_PREFACE.len());
    if bytes[..shared] == H2_PREFACE[..shared] {
        return if shared == H2_PREFACE.len() { HttpGuess::Http2 } else { HttpGuess::More };
    }
    let method =
        bytes.iter().take_while(|byte| byte.is_ascii_uppercase() || **byte == b'-').count();
    match bytes.get(method) {
        _ if method > METHOD_BYTES_MAX => HttpGuess::Other,
        Some(b' ') if method > 0 => HttpGuess::Http1,
        Some(_) => HttpGuess::Other,
        None => HttpGuess::More,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn methods_and_the_preface_are_told_from_the_rest() {
        for (bytes, guess) in [
            (&b""[..], HttpGuess::More),
            (b"GE", HttpGuess::More),
            (b"GET /", HttpGuess::Http1),
            (b"M-SEARCH * HTTP/1.1", HttpGuess::Http1),
            (b"PRI * HT", HttpGuess::More),
            (H2_PREFACE, HttpGuess::Http2),
            (b"PRI / HTTP/1.1", HttpGuess::Http1),
            (b"\x16\x03\x01", HttpGuess::Other),
            (b" GET", HttpGuess::Other),
            (b"AAAAAAAAAAAAAAAAAAAAAAAAAAA", HttpGuess::Other),
        ] {
            assert_eq!(guess_http(bytes), guess, "{bytes:?}");
        }
    }
}
