//! One question to one endpoint: HTTP, TCP or gRPC.

use std::sync::Arc;

use bytes::Bytes;
use http::{HeaderName, HeaderValue, Request, Uri};
use http_body_util::{BodyExt as _, Collected, Full, Limited};
use hyper::body::Incoming;
use sluis_rules::{
    Address, GrpcProbe, HeaderAction, HeaderText, HealthCheck, HttpProbe, Probe, TcpProbe,
};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    task::JoinSet,
};

use super::Answer;
use crate::{
    config::Backend,
    conn::Io,
    control::exchange::exchange,
    upstream::{ConnectContext, Pick},
};

/// Most bytes of an answer that are looked at.
const BODY_BYTES_MAX: usize = 64 * 1024;

/// `SERVING` of `grpc.health.v1.HealthCheckResponse`: field 1, value 1.
const SERVING: &[u8] = &[0x08, 1];

/// Whom to ask, and what.
#[derive(Clone, Copy)]
pub(super) struct Asked<'a> {
    pub(super) backend: &'a Arc<Backend>,
    pub(super) place: usize,
    pub(super) check: &'a HealthCheck,
}

/// Why there is no good answer.
enum Fault {
    /// The connection failed.
    Silent,
    /// The endpoint said no.
    Bad,
}

impl<E: std::error::Error> From<E> for Fault {
    fn from(_: E) -> Self {
        Self::Silent
    }
}

pub(super) async fn ask(asked: Asked<'_>) -> Answer {
    let done = match &asked.check.probe {
        Probe::Http(probe) => http(asked, probe).await,
        Probe::Tcp(probe) => tcp(asked, probe).await,
        Probe::Grpc(probe) => grpc(asked, probe).await,
    };
    match done {
        Ok(()) => Answer::Good,
        Err(Fault::Bad) => Answer::Bad,
        Err(Fault::Silent) => Answer::Silent,
    }
}

async fn connect(asked: Asked<'_>) -> Result<Io, Fault> {
    let Asked { backend, place, check } = asked;
    let endpoint = &backend.endpoints.list[place];
    let mut pick = Pick::of(backend, place).ok_or(Fault::Silent)?;
    if let Address::Socket(address) = &mut pick.address {
        if let Some(other) = endpoint.probe.address {
            *address = other;
        }
        // The endpoint's own word goes before the cluster's.
        match (endpoint.probe.port, check.port) {
            (0, 0) => {}
            (0, port) | (port, _) => address.set_port(port),
        }
    }
    let host = host(asked, "");
    let context = ConnectContext { host: Some(&host), ..ConnectContext::default() };
    crate::upstream::open(backend, &pick, &context).await.map_err(Fault::from)
}

/// The host to ask for: the endpoint's, the check's, the cluster's name.
fn host(asked: Asked<'_>, own: &str) -> String {
    let probe = &asked.backend.endpoints.list[asked.place].probe;
    let named = [&*probe.hostname, own].into_iter().find(|name| !name.is_empty());
    named.unwrap_or(&asked.backend.name).to_owned()
}

async fn tcp(asked: Asked<'_>, probe: &TcpProbe) -> Result<(), Fault> {
    let mut io = connect(asked).await?;
    if !probe.send.is_empty() {
        io.write_all(&probe.send).await?;
    }
    let mut seen = Vec::new();
    while !holds(&seen, &probe.receive) {
        if seen.len() >= BODY_BYTES_MAX || io.read_buf(&mut seen).await? == 0 {
            return Err(Fault::Silent);
        }
    }
    Ok(())
}

/// Whether the texts are there, in this order.
fn holds(bytes: &[u8], wanted: &[Arc<[u8]>]) -> bool {
    let mut rest = bytes;
    wanted.iter().all(|text| match memchr::memmem::find(rest, text) {
        Some(at) => {
            rest = &rest[at + text.len()..];
            true
        }
        None => false,
    })
}

async fn http(asked: Asked<'_>, probe: &HttpProbe) -> Result<(), Fault> {
    let host = host(asked, &probe.host);
    let mut request = Request::builder()
        .method(&*probe.method)
        .uri(if probe.is_http2 { absolute(&host, &probe.path)? } else { probe.path.parse()? })
        .header("user-agent", "Envoy/HC")
        .body(Full::<Bytes>::default())?;
    if !probe.is_http2 {
        request.headers_mut().insert("host", HeaderValue::from_str(&host)?);
    }
    edit(&mut request, probe)?;
    let mut tasks = JoinSet::new();
    let io = connect(asked).await?;
    let response = exchange(&mut tasks, io, request, probe.is_http2).await?;
    let status = response.status().as_u16();
    let within =
        |ranges: &[(u16, u16)]| ranges.iter().any(|(from, to)| (*from..*to).contains(&status));
    let is_good = if probe.expected.is_empty() { status == 200 } else { within(&probe.expected) };
    if !is_good {
        return Err(if within(&probe.retriable) { Fault::Silent } else { Fault::Bad });
    }
    if probe.receive.is_empty() {
        return Ok(());
    }
    let body = Limited::new(response.into_body(), BODY_BYTES_MAX).collect().await;
    let body = body.map_err(|_| Fault::Bad)?.to_bytes();
    if holds(&body, &probe.receive) { Ok(()) } else { Err(Fault::Bad) }
}

fn edit(request: &mut Request<Full<Bytes>>, probe: &HttpProbe) -> Result<(), Fault> {
    let headers = request.headers_mut();
    for edit in &probe.edits {
        let name = HeaderName::try_from(&*edit.name)?;
        // There is no request of a client that a command could speak of.
        let (HeaderText::Literal(text) | HeaderText::Format(text)) = &edit.value;
        let value = HeaderValue::from_str(text)?;
        match edit.action {
            HeaderAction::Append => drop(headers.append(name, value)),
            HeaderAction::AddIfAbsent if headers.contains_key(&name) => {}
            HeaderAction::OverwriteIfExists if !headers.contains_key(&name) => {}
            _ => drop(headers.insert(name, value)),
        }
    }
    for name in &probe.removed {
        headers.remove(&**name);
    }
    Ok(())
}

fn absolute(host: &str, path: &str) -> Result<Uri, http::Error> {
    Uri::builder().scheme("http").authority(host).path_and_query(path).build()
}

async fn grpc(asked: Asked<'_>, probe: &GrpcProbe) -> Result<(), Fault> {
    let host = host(asked, &probe.authority);
    let request = check_request(&host, &probe.service)?;
    let mut tasks = JoinSet::new();
    let io = connect(asked).await?;
    let response = exchange(&mut tasks, io, request, true).await?;
    if response.status() != 200 {
        return Err(Fault::Bad);
    }
    let collected = Limited::new(response.into_body(), BODY_BYTES_MAX).collect().await;
    if says_serving(collected.map_err(|_| Fault::Silent)?) { Ok(()) } else { Err(Fault::Bad) }
}

/// A call of `grpc.health.v1.Health/Check`.
pub(in crate::control) fn check_request(
    host: &str,
    service: &str,
) -> Result<Request<Full<Bytes>>, http::Error> {
    Request::builder()
        .method("POST")
        .uri(absolute(host, "/grpc.health.v1.Health/Check")?)
        .header("content-type", "application/grpc")
        .header("te", "trailers")
        .header("user-agent", "Envoy/HC")
        .body(Full::from(question(service)))
}

/// Whether the answer to such a call is that the service serves.
pub(in crate::control) async fn is_serving(response: http::Response<Incoming>) -> bool {
    let is_ok = response.status() == 200;
    let collected = Limited::new(response.into_body(), BODY_BYTES_MAX).collect().await;
    is_ok && collected.is_ok_and(says_serving)
}

fn says_serving(collected: Collected<Bytes>) -> bool {
    let status = collected.trailers().and_then(|all| all.get("grpc-status")).cloned();
    let body = collected.to_bytes();
    let is_serving = body.get(5..).is_some_and(|message| message.starts_with(SERVING));
    is_serving && status.is_some_and(|status| status == "0")
}

/// A `HealthCheckRequest` in gRPC's framing.
fn question(service: &str) -> Bytes {
    let mut message = Vec::new();
    if !service.is_empty() {
        message.push(0x0a);
        prost::encoding::encode_varint(service.len() as u64, &mut message);
        message.extend(service.as_bytes());
    }
    let mut framed = vec![0];
    framed.extend((message.len() as u32).to_be_bytes());
    framed.extend(message);
    framed.into()
}
