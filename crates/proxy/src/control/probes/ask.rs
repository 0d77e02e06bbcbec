//! One question to the application: HTTP, HTTPS, TCP or gRPC, as kubelet would have asked it.

use std::{io, net::SocketAddr};

use bytes::{Buf as _, Bytes, BytesMut};
use http::{HeaderMap, Request, StatusCode, Uri, header};
use http_body_util::{BodyExt as _, Full};
use sluis_rules::{TlsVersions, UpstreamTls};
use sluis_tls::{ClientTls, SecretStore, SettingsError};
use tokio::{
    net::{TcpSocket, TcpStream},
    task::JoinSet,
};

use super::{SOURCE_V4, SOURCE_V6};
use crate::{
    conn::{Io, Socket, read_ahead::ReadAhead},
    control::{
        exchange::exchange,
        health::{check_request, is_serving},
    },
};

/// What is told of an application's answer (Istio's figure).
const BODY_BYTES_MAX: usize = 10 * 1024;

/// How many redirects to the same host are followed (kubelet's figure).
const REDIRECTS_MAX: usize = 10;

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub(super) enum Fault {
    #[error(transparent)]
    Io(#[from] io::Error),
    #[error(transparent)]
    Http(#[from] hyper::Error),
    #[error(transparent)]
    Message(#[from] http::Error),
    #[error("redirected more than {REDIRECTS_MAX} times")]
    Redirects,
    #[error("it does not say that it serves")]
    NotServing,
}

/// TLS that asks nobody who they are: as kubelet, which knows no authority of the application's.
pub(super) fn unverified(store: &SecretStore) -> Result<ClientTls, SettingsError> {
    let settings = UpstreamTls {
        certificate: None,
        validation: None,
        sni: None,
        auto_host_sni: false,
        auto_sni_san_validation: false,
        alpn: vec!["h2".into(), "http/1.1".into()],
        versions: TlsVersions::default(),
    };
    ClientTls::new(&settings, store)
}

/// Connects past the sidecar.
pub(super) async fn connect(to: SocketAddr) -> Result<TcpStream, Fault> {
    let (socket, source) = if to.is_ipv4() {
        (TcpSocket::new_v4()?, SOURCE_V4)
    } else {
        (TcpSocket::new_v6()?, SOURCE_V6)
    };
    socket.bind((source, 0).into())?;
    Ok(socket.connect(to).await?)
}

pub(super) async fn http(
    mut to: SocketAddr,
    path: &str,
    tls: Option<&ClientTls>,
    headers: &HeaderMap,
) -> Result<(StatusCode, Bytes), Fault> {
    let mut path = path.to_owned();
    for _ in 0..=REDIRECTS_MAX {
        let (status, location, body) = get(to, &path, tls, headers).await?;
        if !status.is_redirection() {
            return Ok((status, body));
        }
        // As kubelet: a redirect to elsewhere is an answer of one who lives.
        let Some((next, further)) = location.and_then(|uri| same_host(&uri, to)) else {
            return Ok((StatusCode::OK, Bytes::new()));
        };
        (to, path) = (next, further);
    }
    Err(Fault::Redirects)
}

/// Where a redirect leads, if it stays with the application.
fn same_host(location: &Uri, to: SocketAddr) -> Option<(SocketAddr, String)> {
    let path = location.path_and_query().map_or("/", |path| path.as_str()).to_owned();
    let Some(host) = location.host() else { return Some((to, path)) };
    let is_same = host.trim_matches(['[', ']']).parse() == Ok(to.ip());
    let port = location.port_u16().unwrap_or(match location.scheme_str() {
        Some("https") => 443,
        _ => 80,
    });
    is_same.then(|| (SocketAddr::new(to.ip(), port), path))
}

async fn get(
    to: SocketAddr,
    path: &str,
    tls: Option<&ClientTls>,
    headers: &HeaderMap,
) -> Result<(StatusCode, Option<Uri>, Bytes), Fault> {
    let socket = Socket::Tcp(connect(to).await?);
    let io = match tls {
        Some(tls) => {
            let stream = tls.connect(ReadAhead::new(BytesMut::new(), socket), None).await?;
            Io::Tls(Box::new(stream.into()))
        }
        None => Io::Plain(socket),
    };
    let is_http2 = io.alpn() == Some(b"h2");
    let mut request = Request::builder().method("GET").body(Full::<Bytes>::default())?;
    *request.headers_mut() = headers.clone();
    if is_http2 {
        let host = request.headers_mut().remove(header::HOST);
        let host = host.and_then(|host| host.to_str().ok().map(str::to_owned));
        let host = host.unwrap_or_else(|| to.to_string());
        *request.uri_mut() =
            Uri::builder().scheme("https").authority(host).path_and_query(path).build()?;
    } else {
        *request.uri_mut() = Uri::builder().path_and_query(path).build()?;
    }
    let mut tasks = JoinSet::new();
    let response = exchange(&mut tasks, io, request, is_http2).await?;
    let status = response.status();
    let location = response.headers().get(header::LOCATION);
    let location = location.and_then(|location| location.to_str().ok()?.parse().ok());
    let mut body = response.into_body();
    let mut told = BytesMut::new();
    while told.len() < BODY_BYTES_MAX
        && let Some(frame) = body.frame().await
    {
        // What came before the connection broke is told, as Istio does.
        let Ok(frame) = frame else { break };
        if let Ok(mut data) = frame.into_data() {
            let length = data.remaining().min(BODY_BYTES_MAX - told.len());
            told.extend_from_slice(&data.split_to(length));
        }
    }
    Ok((status, location, told.freeze()))
}

/// Asks by `grpc.health.v1` without TLS, as kubelet does.
pub(super) async fn grpc(to: SocketAddr, service: &str, headers: &HeaderMap) -> Result<(), Fault> {
    let io = Io::Plain(Socket::Tcp(connect(to).await?));
    let agent = headers.get(header::USER_AGENT);
    let mut request = check_request(&to.to_string(), service)?;
    if let Some(agent) = agent {
        request.headers_mut().insert(header::USER_AGENT, agent.clone());
    }
    let mut tasks = JoinSet::new();
    let response = exchange(&mut tasks, io, request, true).await?;
    if is_serving(response).await { Ok(()) } else { Err(Fault::NotServing) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_redirect_is_followed_on_the_same_host_alone() {
        let to: SocketAddr = "10.0.0.1:8080".parse().unwrap();
        for (location, wanted) in [
            ("/other?x", Some(("10.0.0.1:8080", "/other?x"))),
            ("http://10.0.0.1:9/a", Some(("10.0.0.1:9", "/a"))),
            ("http://10.0.0.1/a", Some(("10.0.0.1:80", "/a"))),
            ("http://169.254.169.254/a", None),
            ("http://elsewhere.example/a", None),
        ] {
            let found = same_host(&location.parse().unwrap(), to);
            let wanted = wanted.map(|(to, path)| (to.parse().unwrap(), path.to_owned()));
            assert_eq!(found, wanted, "{location}");
        }
    }
}
