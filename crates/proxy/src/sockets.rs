//! Makes listening sockets, and asks the kernel where a redirected connection was going.
//!
//! In:    addresses from the configuration.
//! Out:   non-blocking sockets; original destinations.
//! Never: takes over a Unix socket that somebody answers on.

use std::{
    io,
    net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener as StdTcpListener},
    os::{
        linux::net::SocketAddrExt as _,
        unix::{
            ffi::OsStrExt as _,
            fs::{FileTypeExt as _, PermissionsExt as _},
            net::{
                SocketAddr as UnixAddress, UnixListener as StdUnixListener,
                UnixStream as StdUnixStream,
            },
        },
    },
    path::Path,
};

use sluis_rules as rules;
use socket2::{Domain, Protocol, SockRef, Socket as RawSocket, Type};
use tokio::net::{TcpListener, TcpStream, UnixListener, UnixStream};

use crate::conn::Socket;

/// Connections that may wait for `accept`; the kernel caps it at `net.core.somaxconn`.
const BACKLOG: i32 = 1024;

/// A listening socket.
#[derive(Debug)]
pub(crate) enum Listening {
    /// TCP, with our end of the connections where all have the same.
    Tcp(TcpListener, Option<SocketAddr>),
    /// Unix.
    Unix(UnixListener),
}

impl Listening {
    /// What accepts from a socket that listens.
    ///
    /// # Errors
    ///
    /// What the kernel says.
    pub(crate) fn tcp(listener: StdTcpListener) -> io::Result<Self> {
        let local = listener.local_addr()?;
        let raw = SockRef::from(&listener);
        // Linux hands it on to the connections: a call less for each.
        raw.set_tcp_nodelay(true)?;
        // What is redirected to one address has it; what a transparent socket takes has any.
        let is_fixed = !local.ip().is_unspecified() && !is_transparent(&raw, local.is_ipv4());
        Ok(Self::Tcp(TcpListener::from_std(listener)?, is_fixed.then(|| canonical(local))))
    }

    /// Accepts one connection, with the TCP addresses of its two ends (ours first).
    ///
    /// # Errors
    ///
    /// What the kernel says.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future loses no connection.
    pub(crate) async fn accept(&self) -> io::Result<(Socket, Option<(SocketAddr, SocketAddr)>)> {
        match self {
            Self::Tcp(listener, local) => {
                let (stream, remote) = listener.accept().await?;
                let local = match local {
                    Some(local) => *local,
                    None => canonical(stream.local_addr()?),
                };
                Ok((Socket::Tcp(stream), Some((local, canonical(remote)))))
            }
            Self::Unix(listener) => {
                let (stream, _) = listener.accept().await?;
                Ok((Socket::Unix(stream), None))
            }
        }
    }
}

/// How a TCP listener is opened.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct ListenOptions {
    /// Whether several sockets share the port, one for each worker.
    pub(crate) reuse_port: bool,
    /// Whether an address that is not local may be bound.
    pub(crate) freebind: bool,
    /// Whether connections to addresses that are not local are taken (`IP_TRANSPARENT`).
    pub(crate) transparent: bool,
    /// Whether a socket of IPv6 leaves IPv4 alone.
    pub(crate) only_v6: bool,
    /// The length of the accept queue; `None` is 1024.
    pub(crate) backlog: Option<i32>,
}

/// Opens a TCP listener that shares its port with the other workers' listeners.
///
/// # Errors
///
/// What the kernel says, for example that the port is taken.
pub(crate) fn listen_tcp(
    address: SocketAddr,
    options: ListenOptions,
) -> io::Result<StdTcpListener> {
    let socket = RawSocket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    socket.set_nonblocking(true)?;
    socket.set_reuse_address(true)?;
    socket.set_reuse_port(options.reuse_port)?;
    if address.is_ipv6() {
        socket.set_only_v6(options.only_v6)?;
    }
    if options.transparent {
        set_transparent(&SockRef::from(&socket), address.is_ipv4())?;
    }
    if options.freebind {
        if address.is_ipv4() {
            socket.set_freebind_v4(true)?;
        } else {
            socket.set_freebind_v6(true)?;
        }
    }
    socket.bind(&address.into())?;
    socket.listen(options.backlog.unwrap_or(BACKLOG))?;
    Ok(socket.into())
}

/// Lets a socket bind, or take connections to, addresses that are not local.
///
/// # Errors
///
/// What the kernel says: it asks for `CAP_NET_ADMIN` or `CAP_NET_RAW`.
pub(crate) fn set_transparent(socket: &SockRef<'_>, is_ipv4: bool) -> io::Result<()> {
    if is_ipv4 { socket.set_ip_transparent_v4(true) } else { socket.set_ip_transparent_v6(true) }
}

/// Opens a Unix listener with the given permissions. A socket file that nobody answers on is
/// replaced; one that is in use is not.
///
/// # Errors
///
/// `AddrInUse` when another process answers on the path; otherwise what the kernel says.
pub(crate) fn listen_unix(path: &Path, mode: u32) -> io::Result<StdUnixListener> {
    if let Some(name) = abstract_name(path) {
        let listener = StdUnixListener::bind_addr(&abstract_address(name)?)?;
        listener.set_nonblocking(true)?;
        return Ok(listener);
    }
    if let Ok(found) = std::fs::symlink_metadata(path) {
        if !found.file_type().is_socket() || StdUnixStream::connect(path).is_ok() {
            return Err(io::ErrorKind::AddrInUse.into());
        }
        std::fs::remove_file(path)?;
    }
    let listener = StdUnixListener::bind(path)?;
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode))?;
    listener.set_nonblocking(true)?;
    Ok(listener)
}

/// Dials a Unix socket.
///
/// # Errors
///
/// What the kernel says.
pub(crate) async fn dial_unix(path: &Path) -> io::Result<Socket> {
    let stream = match abstract_name(path) {
        Some(name) => {
            let address = abstract_address(name)?;
            let stream = StdUnixStream::connect_addr(&address)?;
            stream.set_nonblocking(true)?;
            UnixStream::from_std(stream)?
        }
        None => UnixStream::connect(path).await?,
    };
    Ok(Socket::Unix(stream))
}

/// The name in the abstract namespace, for a path that starts with `@`.
pub(crate) fn abstract_name(path: &Path) -> Option<&[u8]> {
    path.as_os_str().as_bytes().strip_prefix(b"@")
}

/// The address of a name in the abstract namespace.
pub(crate) fn abstract_address(name: &[u8]) -> io::Result<UnixAddress> {
    UnixAddress::from_abstract_name(name)
}

/// Switches TCP keep-alive on.
pub(crate) fn keep_alive(socket: SockRef<'_>, wanted: &rules::TcpKeepalive) -> io::Result<()> {
    let mut keepalive = socket2::TcpKeepalive::new();
    if let Some(idle) = wanted.idle {
        keepalive = keepalive.with_time(idle);
    }
    if let Some(interval) = wanted.interval {
        keepalive = keepalive.with_interval(interval);
    }
    if let Some(probes) = wanted.probes {
        keepalive = keepalive.with_retries(probes);
    }
    socket.set_tcp_keepalive(&keepalive)
}

/// The destination that a client dialled before a redirect of netfilter's brought it here.
///
/// `None` when the connection was not redirected. One that a transparent socket took was on its way
/// to the local address, whichever that is.
#[must_use]
pub(crate) fn original_dst(stream: &TcpStream) -> Option<SocketAddr> {
    let socket = SockRef::from(stream);
    let local = stream.local_addr().ok()?;
    let found = if local.is_ipv4() {
        socket.original_dst_v4()
    } else {
        // An IPv4 client of a dual-stack socket has an IPv4 entry in the table.
        socket.original_dst_v6().or_else(|_| socket.original_dst_v4())
    };
    if let Some(found) = found.ok().and_then(|found| found.as_socket()) {
        return Some(canonical(found));
    }
    is_transparent(&socket, local.is_ipv4()).then(|| canonical(local))
}

/// Acknowledges at once what has come, without waiting for something to send along.
///
/// A client with Nagle's algorithm on (RFC 9293 §3.7.4) holds its next small message back until
/// then: some 40 ms by the system's clock for acknowledgements.
pub(crate) fn acknowledge_now(socket: &Socket) {
    if let Socket::Tcp(stream) = socket {
        // It is late otherwise, and no worse than that.
        let _late = SockRef::from(stream).set_tcp_quickack(true);
    }
}

/// Whether a connection was taken in by a transparent socket.
pub(crate) fn was_taken(stream: &TcpStream) -> bool {
    let is_ipv4 = stream.local_addr().is_ok_and(|local| local.is_ipv4());
    is_transparent(&SockRef::from(stream), is_ipv4)
}

fn is_transparent(socket: &SockRef<'_>, is_ipv4: bool) -> bool {
    let found = if is_ipv4 { socket.ip_transparent_v4() } else { socket.ip_transparent_v6() };
    found.unwrap_or(false)
}

/// An IPv4 address written as IPv6 becomes IPv4, so that rules compare what people write.
#[must_use]
pub(crate) fn canonical(address: SocketAddr) -> SocketAddr {
    SocketAddr::new(address.ip().to_canonical(), address.port())
}

/// The first IPv4 address of this machine that is not loopback, as Envoy names itself; 127.0.0.1
/// without one.
pub(crate) fn local_ip() -> IpAddr {
    let table = std::fs::read_to_string("/proc/net/fib_trie").unwrap_or_default();
    first_local(&table).unwrap_or(Ipv4Addr::LOCALHOST).into()
}

/// Reads the kernel's table: an address stands on the line before `/32 host LOCAL`.
fn first_local(table: &str) -> Option<Ipv4Addr> {
    let mut address = None;
    for line in table.lines().map(str::trim) {
        if let Some(found) = line.strip_prefix("|-- ") {
            address = found.parse::<Ipv4Addr>().ok();
        } else if line == "/32 host LOCAL"
            && let Some(found) = address.filter(|found| !found.is_loopback())
        {
            return Some(found);
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_dead_unix_socket_is_replaced_and_a_live_one_is_not() {
        let path = std::env::temp_dir().join(format!("sluis-sock-{}", std::process::id()));
        let path = path.as_path();
        let first = listen_unix(path, 0o600).unwrap();
        assert_eq!(listen_unix(path, 0o600).unwrap_err().kind(), io::ErrorKind::AddrInUse);
        drop(first);
        let mode = std::fs::metadata(path).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        drop(listen_unix(path, 0o600).unwrap());
        std::fs::remove_file(path).unwrap();
    }

    #[tokio::test]
    async fn accepted_connections_wait_for_nothing_and_know_their_ends() {
        for (at, dialled) in
            [("127.0.0.1:0", "127.0.0.1"), ("0.0.0.0:0", "127.0.0.2"), ("[::]:0", "127.0.0.3")]
        {
            let raw = listen_tcp(at.parse().unwrap(), ListenOptions::default()).unwrap();
            let port = raw.local_addr().unwrap().port();
            let listening = Listening::tcp(raw).unwrap();
            let target = SocketAddr::new(dialled.parse().unwrap(), port);
            let client = TcpStream::connect(target).await.unwrap();
            let (socket, ends) = listening.accept().await.unwrap();
            let Socket::Tcp(stream) = &socket else { panic!("TCP was accepted") };
            assert!(stream.nodelay().unwrap(), "{at}");
            assert_eq!(ends, Some((target, client.local_addr().unwrap())), "{at}");
        }
    }

    #[tokio::test]
    async fn two_workers_share_a_port() {
        let options = ListenOptions { reuse_port: true, ..ListenOptions::default() };
        let first = listen_tcp("127.0.0.1:0".parse().unwrap(), options).unwrap();
        listen_tcp(first.local_addr().unwrap(), options).unwrap();
    }
}
