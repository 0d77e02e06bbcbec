//! Guesses whether a connection speaks HTTP, from its first bytes, as Envoy's HTTP inspector does.

/// The start of an HTTP/2 connection, RFC 9113 §3.4.
const H2_PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// The longest method name we look for; the registry's longest is 17 bytes.
const METHOD_BYTES_MAX: usize = 20;

/// The longest first line that is looked at: what Envoy reads at most.
const LINE_BYTES_MAX: usize = 64 * 1024;

/// What the first bytes look like.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HttpGuess {
    /// A request line of HTTP/1.0, or of a version that we do not know.
    Http10,
    /// A request line of HTTP/1.1.
    Http1,
    /// The preface of HTTP/2.
    Http2,
    /// Something else.
    Other,
    /// Too few bytes to tell.
    More,
}

/// Guesses the protocol: a whole request line of HTTP/1, or the HTTP/2 preface.
#[must_use]
pub fn guess_http(bytes: &[u8]) -> HttpGuess {
    let shared = bytes.len().min(H2_PREFACE.len());
    if bytes[..shared] == H2_PREFACE[..shared] {
        return if shared == H2_PREFACE.len() { HttpGuess::Http2 } else { HttpGuess::More };
    }
    let is_method = |byte: &u8| byte.is_ascii_uppercase() || *byte == b'-';
    let method = bytes.iter().take_while(|byte| is_method(byte)).count();
    if method > METHOD_BYTES_MAX || (method == 0 && !bytes.is_empty()) {
        return HttpGuess::Other;
    }
    match bytes.get(method) {
        None => HttpGuess::More,
        Some(b' ') => rest_of_line(&bytes[method + 1..]),
        Some(_) => HttpGuess::Other,
    }
}

/// Behind the method: a target and a version.
fn rest_of_line(bytes: &[u8]) -> HttpGuess {
    let end = memchr::memchr2(b'\r', b'\n', bytes);
    let line = &bytes[..end.unwrap_or(bytes.len())];
    let is_text = |byte: &u8| matches!(byte, b' ' | 0x21..=0x7e | 0x80..);
    if !line.iter().all(is_text) || line.first() == Some(&b' ') {
        return HttpGuess::Other;
    }
    let Some(space) = memchr::memchr(b' ', line) else {
        return match end {
            // A line without a version is of HTTP/0.9, which nobody speaks.
            Some(_) => HttpGuess::Other,
            None if line.len() > LINE_BYTES_MAX => HttpGuess::Other,
            None => HttpGuess::More,
        };
    };
    let version = &line[space + 1..];
    match end {
        Some(_) if version == b"HTTP/1.1" => HttpGuess::Http1,
        Some(_) if version.starts_with(b"HTTP/") => HttpGuess::Http10,
        Some(_) => HttpGuess::Other,
        None if b"HTTP/1.1".starts_with(version) || b"HTTP/1.0".starts_with(version) => {
            HttpGuess::More
        }
        None => HttpGuess::Other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn request_lines_and_the_preface_are_told_from_the_rest() {
        for (bytes, guess) in [
            (&b""[..], HttpGuess::More),
            (b"GE", HttpGuess::More),
            (b"GET /", HttpGuess::More),
            (b"GET / HTT", HttpGuess::More),
            (b"GET / HTTP/1.1\r\n", HttpGuess::Http1),
            (b"GET / HTTP/1.1\r", HttpGuess::Http1),
            (b"GET / HTTP/1.0\r\n", HttpGuess::Http10),
            (b"GET /\r\n", HttpGuess::Other),
            (b"GET / SIP/2.0\r\n", HttpGuess::Other),
            (b"GET /\x00", HttpGuess::Other),
            (b"M-SEARCH * HTTP/1.1\r\n", HttpGuess::Http1),
            (b"PRI * HT", HttpGuess::More),
            (H2_PREFACE, HttpGuess::Http2),
            (b"PRI / HTTP/1.1\r\n", HttpGuess::Http1),
            (b"\x16\x03\x01", HttpGuess::Other),
            (b" GET", HttpGuess::Other),
            (b"AAAAAAAAAAAAAAAAAAAAAAAAAAA", HttpGuess::Other),
        ] {
            assert_eq!(guess_http(bytes), guess, "{bytes:?}");
        }
    }
}
