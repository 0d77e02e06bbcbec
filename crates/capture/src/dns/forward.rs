//! Asks another server, for names that are not the mesh's business.
//!
//! In:    a well-formed query, servers in order.
//! Out:   the first reply to that very query, as far as the workload may believe it ([`guard`]).
//! Never: waits for ever; takes a datagram of another sender or to another question.

use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpStream, UdpSocket};
use tokio::time::timeout;

use super::guard::guard;

/// How long one server has: two fit into the five seconds that clients wait.
const WAIT: Duration = Duration::from_secs(2);

/// Longest reply over UDP.
const REPLY_BYTES_MAX: usize = 4096;

/// Servers that are asked, one after the other.
const SERVERS_MAX: usize = 3;

pub(super) async fn by_udp(servers: &[SocketAddr], query: &[u8]) -> Option<Vec<u8>> {
    for server in servers.iter().take(SERVERS_MAX) {
        if let Ok(Some(reply)) = timeout(WAIT, ask_by_udp(*server, query)).await {
            return guard(reply);
        }
    }
    None
}

pub(super) async fn by_tcp(servers: &[SocketAddr], query: &[u8]) -> Option<Vec<u8>> {
    for server in servers.iter().take(SERVERS_MAX) {
        if let Ok(Some(reply)) = timeout(WAIT, ask_by_tcp(*server, query)).await {
            return guard(reply);
        }
    }
    None
}

async fn ask_by_udp(server: SocketAddr, query: &[u8]) -> Option<Vec<u8>> {
    let any: SocketAddr = match server {
        SocketAddr::V4(_) => (Ipv4Addr::UNSPECIFIED, 0).into(),
        SocketAddr::V6(_) => (Ipv6Addr::UNSPECIFIED, 0).into(),
    };
    // A port of its own for each query; connected, so that only the server can answer.
    let socket = UdpSocket::bind(any).await.ok()?;
    socket.connect(server).await.ok()?;
    socket.send(query).await.ok()?;
    let mut reply = vec![0; REPLY_BYTES_MAX];
    loop {
        let length = socket.recv(&mut reply).await.ok()?;
        if is_reply_to(&reply[..length], query) {
            reply.truncate(length);
            return Some(reply);
        }
    }
}

async fn ask_by_tcp(server: SocketAddr, query: &[u8]) -> Option<Vec<u8>> {
    let mut stream = TcpStream::connect(server).await.ok()?;
    let length = u16::try_from(query.len()).ok()?.to_be_bytes();
    stream.write_all(&[&length[..], query].concat()).await.ok()?;
    let mut reply = vec![0; usize::from(stream.read_u16().await.ok()?)];
    stream.read_exact(&mut reply).await.ok()?;
    is_reply_to(&reply, query).then_some(reply)
}

/// The same identifier, and marked as a reply (RFC 1035 §4.1.1).
fn is_reply_to(reply: &[u8], query: &[u8]) -> bool {
    reply.len() >= 12 && query.len() >= 12 && reply[..2] == query[..2] && reply[2] & 0x80 != 0
}
