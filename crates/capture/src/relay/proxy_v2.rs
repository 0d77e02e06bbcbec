//! The binary header of the PROXY protocol, version 2 (haproxy's proxy-protocol.txt §2.2).

use std::io;
use std::net::SocketAddr;

const SIGNATURE: [u8; 12] = *b"\r\n\r\n\0\r\nQUIT\n";
const VERSION_2_PROXY: u8 = 0x21;
const TCP_OVER_IPV4: u8 = 0x11;
const TCP_OVER_IPV6: u8 = 0x21;

/// The header that tells a connection's source and original destination.
///
/// # Errors
/// When the two addresses are of different families: the protocol cannot say that.
pub fn header(source: SocketAddr, destination: SocketAddr) -> io::Result<Vec<u8>> {
    let mut bytes = SIGNATURE.to_vec();
    bytes.push(VERSION_2_PROXY);
    match (source, destination) {
        (SocketAddr::V4(source), SocketAddr::V4(destination)) => {
            bytes.extend_from_slice(&[TCP_OVER_IPV4, 0, 12]);
            bytes.extend_from_slice(&source.ip().octets());
            bytes.extend_from_slice(&destination.ip().octets());
        }
        (SocketAddr::V6(source), SocketAddr::V6(destination)) => {
            bytes.extend_from_slice(&[TCP_OVER_IPV6, 0, 36]);
            bytes.extend_from_slice(&source.ip().octets());
            bytes.extend_from_slice(&destination.ip().octets());
        }
        _ => return Err(io::Error::new(io::ErrorKind::InvalidInput, "mixed address families")),
    }
    bytes.extend_from_slice(&source.port().to_be_bytes());
    bytes.extend_from_slice(&destination.port().to_be_bytes());
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(source: &str, destination: &str, tail: &[u8]) {
        let bytes = header(source.parse().unwrap(), destination.parse().unwrap()).unwrap();
        assert_eq!(bytes[..12], *b"\x0d\x0a\x0d\x0a\x00\x0d\x0a\x51\x55\x49\x54\x0a");
        assert_eq!(bytes[12..], *tail);
    }

    #[test]
    fn an_ipv4_connection_is_told_in_28_bytes() {
        check(
            "127.0.0.1:40000",
            "203.0.113.7:443",
            &[0x21, 0x11, 0, 12, 127, 0, 0, 1, 203, 0, 113, 7, 0x9c, 0x40, 0x01, 0xbb],
        );
    }

    #[test]
    fn an_ipv6_connection_is_told_in_52_bytes() {
        let mut tail = vec![0x21, 0x21, 0, 36];
        tail.extend([0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1]);
        tail.extend([0x20, 1, 0xd, 0xb8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 7]);
        tail.extend([0x9c, 0x40, 0x01, 0xbb]);
        check("[::1]:40000", "[2001:db8::7]:443", &tail);
    }

    #[test]
    fn mixed_families_are_refused() {
        let mixed = header("127.0.0.1:1".parse().unwrap(), "[::1]:2".parse().unwrap());
        assert!(mixed.is_err());
    }
}
