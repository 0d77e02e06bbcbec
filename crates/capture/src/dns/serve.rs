//! Serves DNS on the sockets of a jail.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream, UdpSocket};
use tokio::sync::Semaphore;
use tokio::time::timeout;

use super::{Lookup, Transport, Verdict, forward, judge};

/// The longest query over UDP that is looked at: a name and EDNS options fit many times.
const QUERY_BYTES_MAX: usize = 4096;

/// How long a DNS connection over TCP may be idle (RFC 7766 §6.2.3: a few seconds).
const IDLE: Duration = Duration::from_secs(5);

/// The most DNS connections over TCP at once: they are rare, and one client is one process.
const CONNECTIONS_MAX: usize = 64;

/// Queries that wait for another server at once, per socket.
const FORWARDED_MAX: usize = 64;

/// Answers queries over UDP until the socket fails or the future is dropped.
///
/// # Errors
/// When the socket cannot be read any more.
pub async fn serve_udp<L: Lookup>(socket: UdpSocket, lookup: Arc<L>) -> io::Result<()> {
    let mut query = vec![0; QUERY_BYTES_MAX];
    let socket = Arc::new(socket);
    let mut forwarded = tokio::task::JoinSet::new();
    loop {
        while forwarded.try_join_next().is_some() {}
        let (length, client) = match socket.recv_from(&mut query).await {
            Ok(received) => received,
            // A client that went away before its answer came: not this socket's failure.
            Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => continue,
            Err(error) => return Err(error),
        };
        let reply = match judge(&*lookup, &query[..length], Transport::Udp) {
            Verdict::Silence => continue,
            Verdict::Reply(reply) => reply,
            Verdict::Forward(reply) if forwarded.len() >= FORWARDED_MAX => reply,
            Verdict::Forward(otherwise) => {
                let (socket, query) = (Arc::clone(&socket), query[..length].to_vec());
                let servers = lookup.servers();
                forwarded.spawn(async move {
                    let reply = forward::by_udp(&servers, &query).await.unwrap_or(otherwise);
                    send(&socket, &reply, client).await;
                });
                continue;
            }
        };
        send(&socket, &reply, client).await;
    }
}

async fn send(socket: &UdpSocket, reply: &[u8], client: SocketAddr) {
    if let Err(error) = socket.send_to(reply, client).await {
        tracing::debug!(%error, %client, "dns reply not sent");
    }
}

/// Answers queries over TCP until the socket fails or the future is dropped.
///
/// # Errors
/// When the socket accepts no more.
pub async fn serve_tcp<L>(listener: TcpListener, lookup: Arc<L>) -> io::Result<()>
where
    L: Lookup + Send + Sync + 'static,
{
    let slots = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    let mut clients = tokio::task::JoinSet::new();
    loop {
        let slot = Arc::clone(&slots).acquire_owned().await.map_err(io::Error::other)?;
        let (stream, client) = listener.accept().await?;
        let lookup = Arc::clone(&lookup);
        clients.spawn(async move {
            if let Err(error) = converse(stream, &*lookup).await {
                tracing::debug!(%error, %client, "dns connection ended");
            }
            drop(slot);
        });
        while clients.try_join_next().is_some() {}
    }
}

async fn converse(mut stream: TcpStream, lookup: &(dyn Lookup + Send + Sync)) -> io::Result<()> {
    while let Ok(Ok(length)) = timeout(IDLE, stream.read_u16()).await {
        let mut query = vec![0; usize::from(length)];
        timeout(IDLE, stream.read_exact(&mut query)).await??;
        let reply = match judge(lookup, &query, Transport::Tcp) {
            Verdict::Silence => return Ok(()),
            Verdict::Reply(reply) => reply,
            Verdict::Forward(otherwise) => {
                forward::by_tcp(&lookup.servers(), &query).await.unwrap_or(otherwise)
            }
        };
        let length = u16::try_from(reply.len()).map_err(io::Error::other)?;
        let mut framed = length.to_be_bytes().to_vec();
        framed.extend_from_slice(&reply);
        timeout(IDLE, stream.write_all(&framed)).await??;
    }
    Ok(())
}
