//! Asks DNS servers for the addresses of a name, and hears how long the answer holds.
//!
//! In:    a name, and whom and how to ask ([`DnsOptions`]).
//! Out:   addresses with their time to live; none for a name that does not exist.
//! Never: believes an answer to another question; waits longer than the options say.

mod system;
mod wire;

use std::{
    collections::BTreeSet,
    io,
    net::{IpAddr, SocketAddr},
    time::Duration,
};

use sluis_rules::{DnsFamily, DnsOptions};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpStream, UdpSocket},
    time::timeout,
};

use self::wire::{Kind, Reply};
use crate::random::Random;

/// Longest answer over UDP: what an EDNS-less server sends, with room for one that is generous.
const DATAGRAM_BYTES_MAX: usize = 4096;

/// The servers of this machine.
pub(super) fn system_servers() -> Vec<SocketAddr> {
    system::servers()
}

/// What a name came to.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Found {
    pub(super) addresses: Vec<IpAddr>,
    /// `None` where nobody said.
    pub(super) ttl: Option<Duration>,
}

/// Looks a name up.
///
/// # Errors
///
/// When no server answered. That a name does not exist is no error.
pub(super) async fn look_up(host: &str, options: &DnsOptions) -> io::Result<Found> {
    let host = host.trim_end_matches('.');
    if let Ok(address) = host.parse::<IpAddr>() {
        return Ok(Found { addresses: vec![address], ttl: None });
    }
    let own = system::hosts(host).await;
    if !own.is_empty() {
        return Ok(Found { addresses: wanted(own, options.family), ttl: None });
    }
    let mut config = system::resolv_conf().await;
    if !options.resolvers.is_empty() {
        config.servers = options.resolvers.to_vec();
    }
    if config.servers.is_empty() {
        return ask_library(host, options.family).await;
    }
    let mut found = Found::default();
    for name in config.names(host, options.no_search) {
        found = ask(&name, options, &config.servers).await?;
        if !found.addresses.is_empty() {
            break;
        }
    }
    found.addresses = wanted(found.addresses, options.family);
    Ok(found)
}

/// The addresses of the families that are wanted, in order: servers turn it, and a turned order is
/// no change.
fn wanted(addresses: Vec<IpAddr>, family: DnsFamily) -> Vec<IpAddr> {
    let (v4, v6): (BTreeSet<IpAddr>, BTreeSet<IpAddr>) =
        addresses.into_iter().partition(IpAddr::is_ipv4);
    let first_of = |a: BTreeSet<IpAddr>, b| if a.is_empty() { b } else { a };
    let wanted = match family {
        DnsFamily::V4Only => v4,
        DnsFamily::V6Only => v6,
        DnsFamily::V4Preferred => first_of(v4, v6),
        DnsFamily::V6Preferred => first_of(v6, v4),
        DnsFamily::All => v4.into_iter().chain(v6).collect(),
    };
    wanted.into_iter().collect()
}

/// Without servers there is still what the system's library knows.
async fn ask_library(host: &str, family: DnsFamily) -> io::Result<Found> {
    let found = tokio::net::lookup_host((host, 0)).await?;
    let addresses = found.map(|address| address.ip()).collect();
    Ok(Found { addresses: wanted(addresses, family), ttl: None })
}

async fn ask(name: &str, options: &DnsOptions, servers: &[SocketAddr]) -> io::Result<Found> {
    let of = |kind| ask_kind(name, kind, options, servers);
    let (first, second) = match options.family {
        DnsFamily::V4Only => return of(Kind::V4).await,
        DnsFamily::V6Only => return of(Kind::V6).await,
        DnsFamily::All => {
            let (v4, v6) = tokio::join!(of(Kind::V4), of(Kind::V6));
            return Ok(match (v4, v6) {
                (Ok(v4), Ok(v6)) => both(v4, v6),
                (Ok(one), Err(_)) | (Err(_), Ok(one)) => one,
                (Err(error), Err(_)) => return Err(error),
            });
        }
        DnsFamily::V4Preferred => (Kind::V4, Kind::V6),
        DnsFamily::V6Preferred => (Kind::V6, Kind::V4),
    };
    match of(first).await {
        Ok(found) if !found.addresses.is_empty() => Ok(found),
        _ => of(second).await,
    }
}

fn both(a: Found, b: Found) -> Found {
    let ttl = match (a.ttl, b.ttl) {
        (Some(a), Some(b)) => Some(a.min(b)),
        (a, b) => a.or(b),
    };
    Found { addresses: [a.addresses, b.addresses].concat(), ttl }
}

/// Asks one server after the other, as often as the options allow.
async fn ask_kind(
    name: &str,
    kind: Kind,
    options: &DnsOptions,
    servers: &[SocketAddr],
) -> io::Result<Found> {
    let mut last = io::Error::new(io::ErrorKind::NotFound, "no DNS server to ask");
    let tries = (options.tries as usize).max(servers.len());
    for server in servers.iter().cycle().take(tries.min(servers.len() * 16)) {
        let id = Random::from_os().next() as u16;
        let Some(query) = wire::query(id, name, kind) else {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, "not a name that DNS knows"));
        };
        let asked = async {
            if !options.use_tcp {
                let reply = by_udp(*server, &query).await?;
                if reply != Reply::Truncated {
                    return Ok(reply);
                }
            }
            by_tcp(*server, &query).await
        };
        match timeout(options.timeout, asked).await {
            Ok(Ok(Reply::Addresses { addresses, ttl })) => return Ok(Found { addresses, ttl }),
            Ok(Ok(Reply::Truncated)) => {
                last = io::Error::new(io::ErrorKind::InvalidData, "truncated over TCP");
            }
            Ok(Ok(Reply::Failed(code))) => {
                last = io::Error::other(format!("the DNS server answers with code {code}"));
            }
            Ok(Err(error)) => last = error,
            Err(_) => last = io::ErrorKind::TimedOut.into(),
        }
    }
    Err(last)
}

async fn by_udp(server: SocketAddr, query: &[u8]) -> io::Result<Reply> {
    let any: SocketAddr = if server.is_ipv4() {
        (std::net::Ipv4Addr::UNSPECIFIED, 0).into()
    } else {
        (std::net::Ipv6Addr::UNSPECIFIED, 0).into()
    };
    // A port of its own for each question, and only that server may answer.
    let socket = UdpSocket::bind(any).await?;
    socket.connect(server).await?;
    socket.send(query).await?;
    let mut buffer = vec![0; DATAGRAM_BYTES_MAX];
    loop {
        let length = socket.recv(&mut buffer).await?;
        if let Some(reply) = wire::reply(&buffer[..length], query) {
            return Ok(reply);
        }
    }
}

async fn by_tcp(server: SocketAddr, query: &[u8]) -> io::Result<Reply> {
    let mut stream = TcpStream::connect(server).await?;
    let length = u16::try_from(query.len()).map_err(io::Error::other)?;
    stream.write_all(&[&length.to_be_bytes()[..], query].concat()).await?;
    let length = stream.read_u16().await?;
    let mut buffer = vec![0; usize::from(length)];
    stream.read_exact(&mut buffer).await?;
    wire::reply(&buffer, query).ok_or_else(|| io::ErrorKind::InvalidData.into())
}
