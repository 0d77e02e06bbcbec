//! Opens one connection: TCP, what comes before TLS, TLS.

use std::{
    io,
    net::{IpAddr, SocketAddr},
    sync::Arc,
};

use bytes::BytesMut;
use sluis_rules::{Address, Tunnel, UpstreamProtocol, UpstreamTls};
use socket2::SockRef;
use tokio::net::{TcpSocket, TcpStream};

use super::{ConnectContext, ConnectError, Pick, handshake};
use crate::{
    config::Backend,
    conn::{Io, Socket, read_ahead::ReadAhead},
    sockets,
};

pub(super) async fn dial(
    backend: &Backend,
    pick: &Pick,
    context: &ConnectContext<'_>,
) -> Result<(Io, Option<SocketAddr>), ConnectError> {
    let failed = |source| ConnectError::Io { address: pick.address.clone(), source };
    let hop = pick.hop(backend);
    let (mut socket, local) = match (&pick.address, hop.http_proxy) {
        (Address::Socket(_), Some(proxy)) => {
            connect_tcp(backend, proxy.address, None, &failed).await?
        }
        (Address::Socket(address), None) => {
            connect_tcp(backend, *address, context.source, &failed).await?
        }
        (Address::Pipe(path), _) => (sockets::dial_unix(path).await.map_err(failed)?, None),
        (Address::Internal(_), _) => {
            let what = "only chains that forward bytes lead to a listener of this proxy";
            return Err(failed(io::Error::new(io::ErrorKind::Unsupported, what)));
        }
    };
    if let (Address::Socket(address), Some(_)) = (&pick.address, hop.http_proxy) {
        let target = address.to_string();
        handshake::ask_to_connect(&mut socket, &target, &[]).await.map_err(failed)?;
    }
    if let Some(version) = hop.proxy_protocol {
        handshake::proxy_header(&mut socket, version, context.downstream).await.map_err(failed)?;
    }
    let mut io = match pick.tls(backend) {
        Some(settings) => start_tls(backend, pick, settings, socket, context).await?,
        None => Io::Plain(socket),
    };
    if let Some(Tunnel { target, headers }) = context.tunnel {
        if backend.protocol == UpstreamProtocol::Http2 {
            let what = "tunnels over HTTP/2 are not supported";
            return Err(failed(io::Error::new(io::ErrorKind::Unsupported, what)));
        }
        handshake::ask_to_connect(&mut io, target, headers).await.map_err(failed)?;
    }
    Ok((io, local))
}

async fn start_tls(
    backend: &Backend,
    pick: &Pick,
    settings: &Arc<UpstreamTls>,
    socket: Socket,
    context: &ConnectContext<'_>,
) -> Result<Io, ConnectError> {
    let fault = |message: String| ConnectError::Tls { address: pick.address.clone(), message };
    let tls = backend
        .client_tls(settings)
        .ok_or_else(|| fault("the cluster's TLS settings cannot be used".to_owned()))?;
    let host = context.host.filter(|host| backend.auto_sni && !is_ip(host));
    let endpoint_name = pick.hostname().filter(|_| settings.auto_host_sni);
    let sni = context.server_name.or(host).or(endpoint_name.map(|name| &**name));
    let own = context.offers.filter(|_| settings.alpn.is_empty());
    let offering = match context.alpn {
        Some(list) => Some(tls.offering(list)),
        None => own.map(|name| tls.offering(&[name])),
    };
    let stream = offering
        .as_ref()
        .unwrap_or(tls)
        .connect(ReadAhead::new(BytesMut::new(), socket), sni)
        .await
        .map_err(|error| fault(words(&error)))?;
    Ok(Io::Tls(Box::new(stream.into())))
}

/// Why a handshake failed, in words: a reason of ours would be shown as code.
fn words(error: &io::Error) -> String {
    use rustls::{CertificateError, Error};
    match error.get_ref().and_then(|inner| inner.downcast_ref::<Error>()) {
        Some(Error::InvalidCertificate(CertificateError::Other(reason))) => {
            format!("invalid peer certificate: {}", reason.0)
        }
        _ => error.to_string(),
    }
}

async fn connect_tcp(
    backend: &Backend,
    address: SocketAddr,
    source: Option<(IpAddr, u32)>,
    failed: &impl Fn(io::Error) -> ConnectError,
) -> Result<(Socket, Option<SocketAddr>), ConnectError> {
    let stream = dial_tcp(backend, address, source).await.map_err(failed)?;
    let local = stream.local_addr().ok();
    // The kernel lets a socket connect to itself when source and destination meet.
    if local == Some(address) {
        return Err(ConnectError::Loop { address });
    }
    Ok((Socket::Tcp(stream), local))
}

/// RFC 6066 §3: literal addresses are not server names.
fn is_ip(host: &str) -> bool {
    host.trim_start_matches('[').trim_end_matches(']').parse::<IpAddr>().is_ok()
}

async fn dial_tcp(
    backend: &Backend,
    address: SocketAddr,
    source: Option<(IpAddr, u32)>,
) -> io::Result<TcpStream> {
    let socket = if address.is_ipv4() { TcpSocket::new_v4()? } else { TcpSocket::new_v6()? };
    let is_family = |ip: IpAddr| ip.is_ipv4() == address.is_ipv4();
    // As in Envoy, a client of another family is not imitated, and comes before the cluster's word.
    if let Some((source, mark)) = source.filter(|(source, _)| is_family(*source)) {
        let raw = SockRef::from(&socket);
        sockets::set_transparent(&raw, address.is_ipv4())?;
        if mark > 0 {
            raw.set_mark(mark)?;
        }
        // The port is shared with connections to others.
        socket.set_reuseaddr(true)?;
        socket.bind(SocketAddr::new(source, 0))?;
    } else if let Some(source) = backend.bind_sources.iter().find(|one| is_family(one.ip())) {
        socket.bind(*source)?;
    }
    let stream = socket.connect(address).await?;
    stream.set_nodelay(true)?;
    if let Some(keepalive) = &backend.tcp_keepalive {
        sockets::keep_alive(SockRef::from(&stream), keepalive)?;
    }
    Ok(stream)
}
