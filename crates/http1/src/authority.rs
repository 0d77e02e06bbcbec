//! `host [":" port]` of a request, checked.

use std::net::Ipv6Addr;
use std::str;

use crate::HostError;

/// Longest authority: a DNS name of 253 bytes, a colon, five digits, and room for a final dot.
const AUTHORITY_BYTES_MAX: usize = 260;

/// A checked authority, borrowed from the head.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Authority<'a> {
    /// A name, an IPv4 address, or an IPv6 address with its brackets. Never empty.
    pub host: &'a [u8],
    /// The port, when written.
    pub port: Option<u16>,
}

impl<'a> Authority<'a> {
    /// Checks `host [":" port]`: no userinfo, no percent-encoding, no empty host or port, brackets
    /// only around an IPv6 address without zone.
    ///
    /// # Errors
    ///
    /// [`HostError::Invalid`].
    pub fn parse(text: &'a [u8]) -> Result<Self, HostError> {
        if text.is_empty() || text.len() > AUTHORITY_BYTES_MAX {
            return Err(HostError::Invalid);
        }
        let host_len = match text[0] {
            b'[' => ipv6_len(text)?,
            _ => name_len(text)?,
        };
        let (host, rest) = text.split_at(host_len);
        let port = match rest {
            [] => None,
            [b':', digits @ ..] => Some(parse_port(digits)?),
            _ => return Err(HostError::Invalid),
        };
        Ok(Self { host, port })
    }
}

fn ipv6_len(text: &[u8]) -> Result<usize, HostError> {
    let end = text.iter().position(|&byte| byte == b']').ok_or(HostError::Invalid)?;
    let inside = str::from_utf8(&text[1..end]).map_err(|_| HostError::Invalid)?;
    inside.parse::<Ipv6Addr>().map_err(|_| HostError::Invalid)?;
    Ok(end + 1)
}

fn name_len(text: &[u8]) -> Result<usize, HostError> {
    let len = text.iter().position(|&byte| byte == b':').unwrap_or(text.len());
    let is_name_byte =
        |byte: &u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_' | b'~');
    if len == 0 || text[0] == b'.' || !text[..len].iter().all(is_name_byte) {
        return Err(HostError::Invalid);
    }
    Ok(len)
}

fn parse_port(digits: &[u8]) -> Result<u16, HostError> {
    if digits.is_empty() || digits.len() > 5 || !digits.iter().all(u8::is_ascii_digit) {
        return Err(HostError::Invalid);
    }
    let port = digits.iter().fold(0u32, |sum, digit| sum * 10 + u32::from(digit - b'0'));
    u16::try_from(port).map_err(|_| HostError::Invalid)
}

/// Whether `name` may be sent as a TLS server name: letters, digits, hyphens and underscores in
/// labels of 1 to 63 bytes, 253 in all, a last label that is not a number, one final dot allowed.
pub fn is_dns_name(name: &[u8]) -> bool {
    let name = name.strip_suffix(b".").unwrap_or(name);
    if name.is_empty() || name.len() > 253 {
        return false;
    }
    let is_label = |label: &[u8]| {
        (1..=63).contains(&label.len())
            && label[0] != b'-'
            && label[label.len() - 1] != b'-'
            && label.iter().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_'))
    };
    let last = name.rsplit(|&byte| byte == b'.').next().unwrap_or_default();
    name.split(|&byte| byte == b'.').all(is_label) && !last.iter().all(u8::is_ascii_digit)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(text: &str, expected: Option<(&str, Option<u16>)>) {
        let got = Authority::parse(text.as_bytes()).ok();
        let expected = expected.map(|(host, port)| Authority { host: host.as_bytes(), port });
        assert_eq!(got, expected, "{text:?}");
    }

    #[test]
    fn names_and_addresses_are_read_with_their_port() {
        check("api.data.local", Some(("api.data.local", None)));
        check("api.data.local.:443", Some(("api.data.local.", Some(443))));
        check("10.0.0.1:80", Some(("10.0.0.1", Some(80))));
        check("[::1]:8080", Some(("[::1]", Some(8080))));
        check("under_score", Some(("under_score", None)));
    }

    #[test]
    fn odd_spellings_are_refused() {
        for text in [
            "",
            ":80",
            "a:",
            "a:b",
            "a:65536",
            "a:-1",
            "a:+80",
            "a:80:90",
            "[example.com]",
            "[fe80::1%eth0]",
            "[::1",
            "::1",
            "u@a",
            "a/b",
            "a b",
            "a%00",
            "%65xample.com",
            "a\\b",
            "a#b",
            "a?b",
            ".a",
            "a,b",
            "[::1]x",
            "h\u{f6}st",
        ] {
            check(text, None);
        }
        check(&"a".repeat(300), None);
    }

    #[test]
    fn only_dns_names_become_server_names() {
        for name in ["a", "api.data.local", "api.data.local.", "xn--bcher-kva.example", "a_b.c"] {
            assert!(is_dns_name(name.as_bytes()), "{name}");
        }
        let long_label = format!("{}.example", "a".repeat(64));
        let long_name = "abc.".repeat(70);
        for name in
            ["", ".", "a..b", "-a.b", "a-.b", "10.0.0.1", "[::1]", "a~b", &long_label, &long_name]
        {
            assert!(!is_dns_name(name.as_bytes()), "{name}");
        }
    }
}
