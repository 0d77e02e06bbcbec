//! The address that a redirected connection was meant for.

use std::io;
use std::net::{SocketAddr, SocketAddrV4, SocketAddrV6};
use std::os::fd::AsFd;

use nix::errno::Errno;
use nix::sys::socket::{getsockopt, sockopt};
use socket2::SockRef;

/// Asks the kernel where a connection that was redirected here wanted to go.
///
/// It works from outside the jail too: the kernel looks in the network namespace of the socket, not
/// of the asker. `None` means that nobody redirected this connection: it was made to the listener
/// itself, and a proxy that would follow it would call itself.
///
/// # Errors
/// What getsockopt(2) says, for a socket that is no TCP connection.
pub fn original_dst<S: AsFd>(socket: &S) -> io::Result<Option<SocketAddr>> {
    let local = SockRef::from(socket)
        .local_addr()?
        .as_socket()
        .ok_or_else(|| io::Error::from(io::ErrorKind::Unsupported))?;
    let meant = match local {
        SocketAddr::V4(_) => getsockopt(socket, sockopt::OriginalDst).map(from_v4),
        SocketAddr::V6(_) => getsockopt(socket, sockopt::Ip6tOriginalDst).map(from_v6),
    };
    match meant {
        Ok(meant) if meant == local => Ok(None),
        Ok(meant) => Ok(Some(meant)),
        // The namespace tracks no connections, or not this one: there was no redirection.
        Err(Errno::ENOENT | Errno::ENOPROTOOPT) => Ok(None),
        Err(errno) => Err(errno.into()),
    }
}

fn from_v4(raw: libc::sockaddr_in) -> SocketAddr {
    let ip = u32::from_be(raw.sin_addr.s_addr).into();
    SocketAddrV4::new(ip, u16::from_be(raw.sin_port)).into()
}

fn from_v6(raw: libc::sockaddr_in6) -> SocketAddr {
    let port = u16::from_be(raw.sin6_port);
    SocketAddrV6::new(raw.sin6_addr.s6_addr.into(), port, 0, raw.sin6_scope_id).into()
}
