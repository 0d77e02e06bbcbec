//! Carries a jail's connections to a sidecar that takes no sockets: a real Envoy.
//!
//! In:    the jail's sockets, the path of Envoy's unix listener, a file of names.
//! Out:   each connection, with its original destination in front (PROXY protocol v2), copied both
//!        ways; DNS answered from the file.
//! Never: looks into a connection, or holds more than [`CONNECTIONS_MAX`] of them.

mod names;
mod proxy_v2;

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use tokio::io::{AsyncWriteExt as _, copy_bidirectional};
use tokio::net::{TcpListener, TcpStream, UdpSocket, UnixStream};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;

use crate::handoff::Sockets;
use crate::{dns, original_dst};

pub use names::NamesFile;
pub use proxy_v2::header as proxy_v2_header;

/// The most connections at once: two descriptors each, within a usual limit of 1024 × 16.
pub const CONNECTIONS_MAX: usize = 4096;

/// How long to wait after a failed accept: descriptors come free as connections end.
const ACCEPT_AGAIN_AFTER: Duration = Duration::from_millis(50);

/// Serves the jail's sockets until one of them fails or the future is dropped.
///
/// `names` is a JSON object from host name (or `*.suffix`) to a list of addresses; it is read again
/// when it changes. Must run on a tokio runtime with I/O and time.
///
/// # Errors
/// When a socket cannot be served any more.
pub async fn run(sockets: Sockets, pipe: PathBuf, names: PathBuf) -> io::Result<()> {
    let pipe: Arc<Path> = pipe.into();
    let names = Arc::new(NamesFile::new(names));
    let slots = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    let mut tasks = JoinSet::new();
    for socket in sockets.capture {
        socket.set_nonblocking(true)?;
        let listener = TcpListener::from_std(socket)?;
        tasks.spawn(accept(listener, Arc::clone(&pipe), Arc::clone(&slots)));
    }
    for socket in sockets.dns_udp {
        socket.set_nonblocking(true)?;
        tasks.spawn(dns::serve_udp(UdpSocket::from_std(socket)?, Arc::clone(&names)));
    }
    for socket in sockets.dns_tcp {
        socket.set_nonblocking(true)?;
        tasks.spawn(dns::serve_tcp(TcpListener::from_std(socket)?, Arc::clone(&names)));
    }
    while let Some(ended) = tasks.join_next().await {
        ended.map_err(io::Error::other)??;
    }
    Ok(())
}

async fn accept(listener: TcpListener, pipe: Arc<Path>, slots: Arc<Semaphore>) -> io::Result<()> {
    let mut clients = JoinSet::new();
    loop {
        let slot = Arc::clone(&slots).acquire_owned().await.map_err(io::Error::other)?;
        let client = match listener.accept().await {
            Ok((client, _)) => client,
            // The client's own end, or too many open files: neither is the listener's.
            Err(error) => {
                tracing::warn!(%error, "connection not accepted");
                tokio::time::sleep(ACCEPT_AGAIN_AFTER).await;
                continue;
            }
        };
        let pipe = Arc::clone(&pipe);
        clients.spawn(async move {
            if let Err(error) = carry(client, &pipe).await {
                tracing::debug!(%error, "relayed connection ended");
            }
            drop(slot);
        });
        while clients.try_join_next().is_some() {}
    }
}

/// One connection; a half-closed one stays open in the other direction.
async fn carry(mut client: TcpStream, pipe: &Path) -> io::Result<()> {
    let Some(meant) = original_dst(&client)? else {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "meant for the relay itself"));
    };
    let header = proxy_v2_header(client.peer_addr()?, meant)?;
    let mut sidecar = UnixStream::connect(pipe).await?;
    sidecar.write_all(&header).await?;
    copy_bidirectional(&mut client, &mut sidecar).await?;
    Ok(())
}
