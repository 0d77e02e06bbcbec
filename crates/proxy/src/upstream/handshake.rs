//! What is said to an endpoint, or to a proxy before it, ahead of everything else.

use std::{
    io,
    net::{IpAddr, SocketAddr},
    sync::Arc,
};

use sluis_rules::ProxyProtocol;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};

/// Longest head of an answer to `CONNECT`.
const HEAD_BYTES_MAX: usize = 16 * 1024;

/// First bytes of a binary PROXY header (PROXY protocol §2.2).
const V2_SIGNATURE: &[u8; 12] = b"\r\n\r\n\0\r\nQUIT\n";

/// Tells who the client is and where it connected to.
pub(super) async fn proxy_header<IO: AsyncWrite + Unpin>(
    io: &mut IO,
    version: ProxyProtocol,
    ends: Option<(SocketAddr, SocketAddr)>,
) -> io::Result<()> {
    let ends = ends.filter(|(source, destination)| source.is_ipv4() == destination.is_ipv4());
    let header = match version {
        ProxyProtocol::V1 => text_header(ends),
        ProxyProtocol::V2 => binary_header(ends),
    };
    io.write_all(&header).await
}

fn text_header(ends: Option<(SocketAddr, SocketAddr)>) -> Vec<u8> {
    let Some((source, destination)) = ends else { return b"PROXY UNKNOWN\r\n".to_vec() };
    let family = if source.is_ipv4() { "TCP4" } else { "TCP6" };
    let (from, to) = (source.ip(), destination.ip());
    format!("PROXY {family} {from} {to} {} {}\r\n", source.port(), destination.port()).into_bytes()
}

fn binary_header(ends: Option<(SocketAddr, SocketAddr)>) -> Vec<u8> {
    let mut header = V2_SIGNATURE.to_vec();
    let Some((source, destination)) = ends else {
        // LOCAL, unspecified, no addresses.
        header.extend([0x20, 0, 0, 0]);
        return header;
    };
    let mut addresses = Vec::with_capacity(36);
    for ip in [source.ip(), destination.ip()] {
        match ip {
            IpAddr::V4(ip) => addresses.extend(ip.octets()),
            IpAddr::V6(ip) => addresses.extend(ip.octets()),
        }
    }
    addresses.extend(source.port().to_be_bytes());
    addresses.extend(destination.port().to_be_bytes());
    let family = if source.is_ipv4() { 0x11 } else { 0x21 };
    header.extend([0x21, family, 0, addresses.len() as u8]);
    header.extend(addresses);
    header
}

/// Asks an HTTP/1.1 proxy for a tunnel, and reads its answer to the last byte and no further.
///
/// # Errors
///
/// `ConnectionRefused` when the answer is not of 2xx; otherwise what the connection says.
pub(super) async fn ask_to_connect<IO: AsyncRead + AsyncWrite + Unpin>(
    io: &mut IO,
    target: &str,
    headers: &[(Arc<str>, Arc<str>)],
) -> io::Result<()> {
    let mut request = format!("CONNECT {target} HTTP/1.1\r\nhost: {target}\r\n");
    for (name, value) in headers {
        request.push_str(&format!("{name}: {value}\r\n"));
    }
    request.push_str("\r\n");
    io.write_all(request.as_bytes()).await?;
    io.flush().await?;
    let mut head = Vec::with_capacity(256);
    // Byte by byte: what follows the head belongs to the tunnel.
    while !head.ends_with(b"\r\n\r\n") {
        if head.len() >= HEAD_BYTES_MAX {
            return Err(io::Error::new(
                io::ErrorKind::InvalidData,
                "the proxy's answer is too long",
            ));
        }
        head.push(io.read_u8().await?);
    }
    let line = head.split(|byte| *byte == b'\r').next().unwrap_or_default();
    let line = String::from_utf8_lossy(line);
    let status = line.strip_prefix("HTTP/1.").and_then(|rest| rest.get(2..5));
    match status {
        Some(status) if status.starts_with('2') => Ok(()),
        _ => Err(io::Error::new(
            io::ErrorKind::ConnectionRefused,
            format!("the proxy answers {line:?}"),
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn headers_are_those_of_the_specification() {
        let ends = Some(("10.1.2.3:1000".parse().unwrap(), "10.4.5.6:80".parse().unwrap()));
        assert_eq!(text_header(ends), b"PROXY TCP4 10.1.2.3 10.4.5.6 1000 80\r\n");
        assert_eq!(text_header(None), b"PROXY UNKNOWN\r\n");
        let binary = binary_header(ends);
        assert_eq!(&binary[..16], b"\r\n\r\n\0\r\nQUIT\n\x21\x11\0\x0c");
        assert_eq!(&binary[16..], [10, 1, 2, 3, 10, 4, 5, 6, 3, 232, 0, 80]);
        assert_eq!(binary_header(None).len(), 16);
    }
}
