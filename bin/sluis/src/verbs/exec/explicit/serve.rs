//! The explicit proxy itself.
//!
//! In:    connections on a loopback port, each with one request of a command that knows the token.
//! Out:   the same in the workload's sidecar, behind a PROXY header: its policy decides.
//! Never: a connection to anywhere else.

use std::{
    net::{IpAddr, Ipv6Addr, SocketAddr},
    path::PathBuf,
    sync::Arc,
    time::Duration,
};

use anyhow::{Result, anyhow};
use sluis_capture::{
    dns::{Found, Lookup},
    relay::{NamesFile, proxy_v2_header},
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt, copy_bidirectional},
    net::{TcpListener, TcpStream, UnixStream},
    sync::Semaphore,
    time::timeout,
};

use super::request::{Refusal, Token, Wanted, judge};

/// Longest head of a request; that of a GET holds cookies.
const HEAD_BYTES_MAX: usize = 64 << 10;
/// How long a client may take to send it.
const HEAD_WAIT_MAX: Duration = Duration::from_secs(10);
/// Connections at once: far more than one command opens, far less than the descriptors there are.
const CONNECTIONS_MAX: usize = 256;
/// How long to wait after a failed accept: descriptors come free as connections end.
const ACCEPT_AGAIN_AFTER: Duration = Duration::from_millis(50);

/// The way to the sidecar.
pub(super) struct Way {
    token: Token,
    pipe: PathBuf,
    names: NamesFile,
}

impl Way {
    /// For those who know `token`, to the sidecar that listens at `pipe`, by the names of a file.
    pub(super) fn new(token: Token, pipe: PathBuf, names: PathBuf) -> Self {
        Self { token, pipe, names: NamesFile::new(names) }
    }

    fn address(&self, host: &str) -> Result<IpAddr, Refusal> {
        if let Ok(address) = host.parse() {
            return Ok(address);
        }
        match self.names.lookup(host) {
            Found::Addresses(addresses) if !addresses.is_empty() => Ok(addresses[0]),
            _ => Err(Refusal::new(
                "403 Forbidden",
                format!("{host} is not in the mesh: no Service or ServiceEntry names it"),
            )),
        }
    }
}

/// Serves until the future is dropped.
pub(super) async fn accept(listener: TcpListener, way: Way) -> anyhow::Error {
    let way = Arc::new(way);
    let slots = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    loop {
        let Ok(slot) = Arc::clone(&slots).acquire_owned().await else {
            return anyhow!("the proxy was closed");
        };
        let client = match listener.accept().await {
            Ok((client, _)) => client,
            Err(error) => {
                tracing::warn!(%error, "connection not accepted");
                tokio::time::sleep(ACCEPT_AGAIN_AFTER).await;
                continue;
            }
        };
        let way = Arc::clone(&way);
        tokio::spawn(async move {
            if let Err(error) = carry(client, &way).await {
                tracing::debug!(%error, "connection of the explicit proxy ended");
            }
            drop(slot);
        });
    }
}

async fn carry(mut client: TcpStream, way: &Way) -> Result<()> {
    let head = timeout(HEAD_WAIT_MAX, read_head(&mut client)).await??;
    let found = judge(&head, &way.token).and_then(|wanted| {
        let (Wanted::Tunnel { host, port } | Wanted::Forward { host, port, .. }) = &wanted;
        let to = SocketAddr::new(way.address(host)?, *port);
        Ok((wanted, to))
    });
    let (wanted, to) = match found {
        Ok(found) => found,
        Err(refusal) => {
            client.write_all(refusal.answer().as_bytes()).await?;
            return Ok(());
        }
    };
    let from = client.peer_addr()?;
    let from = match to {
        SocketAddr::V4(_) => from,
        SocketAddr::V6(_) => SocketAddr::new(Ipv6Addr::LOCALHOST.into(), from.port()),
    };
    let mut sidecar = UnixStream::connect(&way.pipe).await?;
    sidecar.write_all(&proxy_v2_header(from, to)?).await?;
    match wanted {
        Wanted::Tunnel { .. } => {
            client.write_all(b"HTTP/1.1 200 Connection Established\r\n\r\n").await?;
        }
        Wanted::Forward { head, .. } => sidecar.write_all(head.as_bytes()).await?,
    }
    copy_bidirectional(&mut client, &mut sidecar).await?;
    Ok(())
}

/// The head, byte by byte: what follows it belongs to the body or the tunnel.
async fn read_head(client: &mut TcpStream) -> Result<String> {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        if head.len() == HEAD_BYTES_MAX {
            return Err(anyhow!("the request's head is too long"));
        }
        head.push(client.read_u8().await?);
    }
    Ok(String::from_utf8(head)?)
}
