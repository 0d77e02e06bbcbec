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
use crate::api::JailPlan;

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
    allows_any: bool,
}

impl Way {
    /// For those who know `token`, to the sidecar of the plan.
    pub(super) fn new(token: Token, plan: &JailPlan) -> Self {
        let names = NamesFile::new(plan.names.clone());
        Self { token, pipe: plan.capture.clone(), names, allows_any: plan.allows_any }
    }

    /// By the mesh's names; where the mesh lets everything through, by the machine's resolver else.
    async fn address(&self, host: &str) -> Result<IpAddr, Refusal> {
        if let Ok(address) = host.parse() {
            return Ok(address);
        }
        if let Found::Addresses(addresses) = self.names.lookup(host)
            && let Some(first) = addresses.first()
        {
            return Ok(*first);
        }
        if !self.allows_any {
            let reason = format!("{host} is not in the mesh: no Service or ServiceEntry names it");
            return Err(Refusal::new("403 Forbidden", reason));
        }
        let unknown = || Refusal::new("502 Bad Gateway", format!("{host} is not known"));
        let found = tokio::net::lookup_host((host, 0)).await.map_err(|_| unknown())?;
        found.map(|address| address.ip()).find(|ip| is_outside(*ip)).ok_or_else(unknown)
    }
}

/// A name outside does not lead to this machine or its link, whoever says so (DNS rebinding).
fn is_outside(ip: IpAddr) -> bool {
    match ip.to_canonical() {
        IpAddr::V4(ip) => {
            !(ip.is_loopback() || ip.is_link_local() || ip.is_unspecified() || ip.is_multicast())
        }
        IpAddr::V6(ip) => {
            !(ip.is_loopback()
                || ip.is_unicast_link_local()
                || ip.is_unspecified()
                || ip.is_multicast())
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
    let (wanted, to) = match destination(&head, way).await {
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

/// What is asked for, and where that is.
async fn destination(head: &str, way: &Way) -> Result<(Wanted, SocketAddr), Refusal> {
    let wanted = judge(head, &way.token)?;
    let (Wanted::Tunnel { host, port } | Wanted::Forward { host, port, .. }) = &wanted;
    let to = SocketAddr::new(way.address(host).await?, *port);
    Ok((wanted, to))
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

#[cfg(test)]
mod tests {
    use super::*;

    fn way(allows_any: bool) -> (tempfile::TempDir, Way) {
        let folder = tempfile::tempdir().unwrap();
        let names = folder.path().join("names.json");
        std::fs::write(&names, r#"{"api.data.local": ["240.240.0.1"], "*.wild.local": ["::1"]}"#)
            .unwrap();
        let plan = JailPlan { names, allows_any, ..JailPlan::default() };
        (folder, Way::new(Token::new("x"), &plan))
    }

    #[tokio::test]
    async fn names_are_the_meshs_and_others_only_where_everything_may_be_reached() {
        for (host, allows_any, expected) in [
            ("api.data.local", false, Ok("240.240.0.1")),
            ("a.b.wild.local", false, Ok("::1")),
            ("192.0.2.1", false, Ok("192.0.2.1")),
            ("localhost", false, Err("403 Forbidden")),
            // It is known outside, and is this very machine.
            ("localhost", true, Err("502 Bad Gateway")),
        ] {
            let (_folder, way) = way(allows_any);
            let found = way.address(host).await;
            let found = found.map(|ip| ip.to_string()).map_err(|refusal| refusal.status);
            assert_eq!(found.as_deref(), expected.as_deref(), "{host} {allows_any}");
        }
    }
}
