//! The jail's network: loopback alone, with the sidecar's sockets at its end.

use std::io;
use std::net::{IpAddr, SocketAddr, TcpListener, UdpSocket};

use socket2::{Domain, Protocol, Socket, Type};

use super::nft::{CAPTURE_PORT, DNS_PORT};
use super::{JailError, netlink, nft};
use crate::handoff::Sockets;

/// Connections that may wait while the sidecar restarts.
const BACKLOG: i32 = 1024;

/// Brings the network up and makes the listening sockets.
pub(super) fn arrange(listeners: u16) -> Result<Sockets, JailError> {
    netlink::loopback_up().map_err(|error| JailError::step("bring loopback up", &error))?;
    let mut sockets = Sockets::default();
    for localhost in netlink::LOCALHOSTS {
        match family(localhost, listeners, &mut sockets) {
            Err(error) if localhost.is_ipv6() && is_without_ipv6(&error) => {}
            Err(error) => {
                let step = format!("make the jail's sockets at {localhost}");
                return Err(JailError::step(&step, &error));
            }
            Ok(()) => {}
        }
    }
    nft::load().map_err(|error| {
        JailError::step(
            "load nftables rules (does this kernel have nft_chain_nat and nft_redir?)",
            &error,
        )
    })?;
    Ok(sockets)
}

/// The kernel has no IPv6, or it is switched off: then there is nothing to capture either.
fn is_without_ipv6(error: &io::Error) -> bool {
    matches!(
        error.raw_os_error(),
        Some(libc::EAFNOSUPPORT | libc::EADDRNOTAVAIL | libc::EOPNOTSUPP | libc::EACCES)
    )
}

/// The route and the sockets of one address family.
fn family(localhost: IpAddr, listeners: u16, sockets: &mut Sockets) -> io::Result<()> {
    netlink::every_address_is_local(localhost)?;
    for _ in 0..listeners {
        sockets.capture.push(listen((localhost, CAPTURE_PORT).into(), listeners > 1)?);
    }
    let dns = SocketAddr::from((localhost, DNS_PORT));
    sockets.dns_udp.push(UdpSocket::bind(dns)?);
    sockets.dns_tcp.push(listen(dns, false)?);
    Ok(())
}

fn listen(address: SocketAddr, is_shared: bool) -> io::Result<TcpListener> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    socket.set_reuse_port(is_shared)?;
    socket.bind(&address.into())?;
    socket.listen(BACKLOG)?;
    Ok(socket.into())
}
