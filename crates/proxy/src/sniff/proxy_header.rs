//! Parses the PROXY protocol's header, versions 1 and 2 (haproxy.org/download/3.2/doc/proxy-protocol.txt).
//!
//! In:    the connection's first bytes.
//! Out:   the addresses it tells and its length, that more is needed, or why it is refused.
//! Never: accepts a header that is only almost one: what follows would be read as the client's.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

/// The longest header of version 1, its line end included (§2.1).
const V1_BYTES_MAX: usize = 107;

/// The most bytes after the fixed part of version 2; the specification asks for 536 at least.
const V2_BYTES_MAX: usize = 4096;

const V1_START: &[u8] = b"PROXY ";
const V2_START: &[u8] = b"\r\n\r\n\0\r\nQUIT\n";
const V2_FIXED: usize = 16;

/// What a PROXY header tells.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ProxyHeader {
    /// How many bytes the header takes.
    pub length: usize,
    /// Source and destination; `None` for `LOCAL`, `UNKNOWN` and `UNSPEC`: the socket's own count.
    pub addresses: Option<(SocketAddr, SocketAddr)>,
}

/// Why the bytes are not a PROXY header.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ProxyHeaderError {
    /// The first bytes are those of something else.
    #[error("no PROXY header")]
    Missing,
    /// It starts like one, and then does not follow the format.
    #[error("malformed PROXY header")]
    Malformed,
}

/// Parses the header at the start of `bytes`. `Ok(None)`: more bytes are needed.
///
/// # Errors
///
/// [`ProxyHeaderError`].
pub fn parse_proxy_header(bytes: &[u8]) -> Result<Option<ProxyHeader>, ProxyHeaderError> {
    let starts = |with: &[u8]| {
        let shared = bytes.len().min(with.len());
        bytes[..shared] == with[..shared]
    };
    if starts(V2_START) {
        if bytes.len() < V2_FIXED { Ok(None) } else { version2(bytes) }
    } else if starts(V1_START) {
        version1(bytes)
    } else {
        Err(ProxyHeaderError::Missing)
    }
}

fn version1(bytes: &[u8]) -> Result<Option<ProxyHeader>, ProxyHeaderError> {
    let window = &bytes[..bytes.len().min(V1_BYTES_MAX)];
    let Some(end) = window.windows(2).position(|pair| pair == b"\r\n") else {
        let full = window.len() == V1_BYTES_MAX;
        return if full { Err(ProxyHeaderError::Malformed) } else { Ok(None) };
    };
    let line = std::str::from_utf8(&window[..end]).map_err(|_| ProxyHeaderError::Malformed)?;
    let mut words = line.split(' ').skip(1);
    let length = end + 2;
    let family = words.next().ok_or(ProxyHeaderError::Malformed)?;
    if family == "UNKNOWN" {
        return Ok(Some(ProxyHeader { length, addresses: None }));
    }
    let words: Vec<&str> = words.collect();
    let [source, destination, source_port, destination_port] = words[..] else {
        return Err(ProxyHeaderError::Malformed);
    };
    let address = |ip: &str, port: &str| -> Option<SocketAddr> {
        let ip: IpAddr = match family {
            "TCP4" => ip.parse::<Ipv4Addr>().ok()?.into(),
            "TCP6" => ip.parse::<Ipv6Addr>().ok()?.into(),
            _ => return None,
        };
        let digits = port.bytes().all(|byte| byte.is_ascii_digit());
        let port = if digits { port.parse().ok()? } else { return None };
        Some(SocketAddr::new(ip, port))
    };
    let addresses = address(source, source_port)
        .zip(address(destination, destination_port))
        .ok_or(ProxyHeaderError::Malformed)?;
    Ok(Some(ProxyHeader { length, addresses: Some(addresses) }))
}

fn version2(bytes: &[u8]) -> Result<Option<ProxyHeader>, ProxyHeaderError> {
    let (version, command) = (bytes[12] >> 4, bytes[12] & 0xf);
    if version != 2 || command > 1 {
        return Err(ProxyHeaderError::Malformed);
    }
    let rest = usize::from(u16::from_be_bytes([bytes[14], bytes[15]]));
    if rest > V2_BYTES_MAX {
        return Err(ProxyHeaderError::Malformed);
    }
    let length = V2_FIXED + rest;
    let Some(body) = bytes.get(V2_FIXED..length) else {
        return Ok(None);
    };
    // LOCAL: health checks of the balancer itself; the rest is to be ignored (§2.2).
    let addresses = match (command, bytes[13]) {
        (0, _) | (1, 0x00) => None,
        (1, 0x11) => Some(pair::<4>(body)?),
        (1, 0x21) => Some(pair::<16>(body)?),
        _ => return Err(ProxyHeaderError::Malformed),
    };
    Ok(Some(ProxyHeader { length, addresses }))
}

/// Two addresses of `N` bytes each, then their ports. TLVs may follow and are not used.
fn pair<const N: usize>(body: &[u8]) -> Result<(SocketAddr, SocketAddr), ProxyHeaderError>
where
    IpAddr: From<[u8; N]>,
{
    let malformed = ProxyHeaderError::Malformed;
    let ip = |at: usize| -> Option<IpAddr> {
        <[u8; N]>::try_from(body.get(at..at + N)?).ok().map(IpAddr::from)
    };
    let port = |at: usize| Some(u16::from_be_bytes([*body.get(at)?, *body.get(at + 1)?]));
    let address = |at: usize, port_at: usize| Some(SocketAddr::new(ip(at)?, port(port_at)?));
    let source = address(0, 2 * N).ok_or(malformed)?;
    let destination = address(N, 2 * N + 2).ok_or(malformed)?;
    Ok((source, destination))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(bytes: &[u8], expected: Result<Option<(&str, &str)>, ProxyHeaderError>) {
        let expected = expected.map(|pair| {
            let addresses = pair.map(|(s, d)| (s.parse().unwrap(), d.parse().unwrap()));
            Some(ProxyHeader { length: bytes.len(), addresses })
        });
        assert_eq!(parse_proxy_header(bytes), expected, "{bytes:?}");
        if expected.is_ok() {
            for end in 0..bytes.len() {
                assert_eq!(parse_proxy_header(&bytes[..end]), Ok(None), "{end} bytes");
            }
        }
    }

    fn version2(command: u8, family: u8, body: &[u8]) -> Vec<u8> {
        let length = u16::try_from(body.len()).unwrap().to_be_bytes();
        [V2_START, &[command, family], &length, body].concat()
    }

    #[test]
    fn version_1_tells_both_addresses() {
        check(
            b"PROXY TCP4 10.0.0.1 93.184.215.14 4711 443\r\n",
            Ok(Some(("10.0.0.1:4711", "93.184.215.14:443"))),
        );
        check(b"PROXY TCP6 ::1 2001:db8::1 1 2\r\n", Ok(Some(("[::1]:1", "[2001:db8::1]:2"))));
        check(b"PROXY UNKNOWN\r\n", Ok(None));
        check(b"PROXY UNKNOWN ffff::1 whatever\r\n", Ok(None));
    }

    #[test]
    fn version_2_tells_both_addresses_and_its_extensions_are_skipped() {
        let v4 = [10, 0, 0, 1, 192, 0, 2, 1, 0x12, 0x34, 0x01, 0xbb];
        check(&version2(0x21, 0x11, &v4), Ok(Some(("10.0.0.1:4660", "192.0.2.1:443"))));
        let with_tlv = [&v4[..], &[3, 0, 1, 9]].concat();
        check(&version2(0x21, 0x11, &with_tlv), Ok(Some(("10.0.0.1:4660", "192.0.2.1:443"))));
        check(&version2(0x20, 0x00, b""), Ok(None));
        check(&version2(0x20, 0x11, &v4), Ok(None));
    }

    #[test]
    fn what_is_only_almost_a_header_is_refused() {
        let malformed = Err(ProxyHeaderError::Malformed);
        check(b"PROXY TCP4 10.0.0.1 10.0.0.2 4711\r\n", malformed);
        check(b"PROXY TCP4 ::1 10.0.0.2 4711 443\r\n", malformed);
        check(b"PROXY TCP4 10.0.0.1 10.0.0.2 4711 +443\r\n", malformed);
        check(b"PROXY TCP4 10.0.0.1 10.0.0.2 4711 65536\r\n", malformed);
        check(b"PROXY TCP4  10.0.0.1 10.0.0.2 4711 443\r\n", malformed);
        check(&[b"PROXY ", &[b'x'; 200][..]].concat(), malformed);
        check(&version2(0x11, 0x11, &[0; 12]), malformed);
        check(&version2(0x22, 0x11, &[0; 12]), malformed);
        check(&version2(0x21, 0x11, &[0; 11]), malformed);
        check(&version2(0x21, 0x31, &[0; 216]), malformed);
        check(&version2(0x21, 0x11, &[0; 5000]), malformed);
        check(b"GET / HTTP/1.1\r\n", Err(ProxyHeaderError::Missing));
    }
}
