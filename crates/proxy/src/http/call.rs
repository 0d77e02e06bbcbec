//! Calls of our own to a service: a request whose body is there already, and its whole answer.
//!
//! In:    a head, a body, a cluster.
//! Out:   the answer as a whole, or why there is none.
//! Never: waits without a limit; takes an answer that is longer than the caller wants.

use std::{sync::Arc, time::Duration};

use http::{HeaderMap, HeaderName, HeaderValue};
use sluis_http1::{Body, Limits, Method, ResponseHead, Scan};
use sluis_rules::UpstreamProtocol;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    time::timeout,
};

use super::{
    failure::Failure,
    http2::{
        call,
        sessions::{Acquired, Seat},
    },
    piece::Fault,
    pool::{Key, Pooled},
    question::{Answer, CallError, Question},
    state::HttpWorker,
};
use crate::{
    config::Backend,
    hosts::Priority,
    upstream::{ConnectContext, ConnectError, Pick, Upstream},
};

/// How long a call may take where nobody sets a time.
const TIME_MAX: Duration = Duration::from_secs(300);

/// Interim answers before the one that counts; more are a flood.
const INTERIM_MAX: u32 = 16;

/// Asks a service, in the HTTP version of its cluster; gRPC needs HTTP/2.
pub(super) async fn ask(
    worker: &HttpWorker,
    backend: &Arc<Backend>,
    question: &Question,
    (limit, is_grpc): (Option<Duration>, bool),
) -> Result<Answer, CallError> {
    if !backend.credentials().is_empty() {
        return Err(CallError::Credentials);
    }
    asked(worker, backend, question, (limit, is_grpc), |_| true).await
}

/// The same by HTTP of an endpoint that fits; where the one that was chosen does not, nobody is asked.
pub(super) async fn ask_if(
    worker: &HttpWorker,
    backend: &Arc<Backend>,
    question: &Question,
    limit: Option<Duration>,
    fits: impl Fn(&Pick) -> bool,
) -> Result<Answer, CallError> {
    asked(worker, backend, question, (limit, false), fits).await
}

async fn asked(
    worker: &HttpWorker,
    backend: &Arc<Backend>,
    question: &Question,
    (limit, is_grpc): (Option<Duration>, bool),
    fits: impl Fn(&Pick) -> bool,
) -> Result<Answer, CallError> {
    let asked = async {
        let pick = worker.pick(backend, &ConnectContext::default())?;
        if !fits(&pick) {
            return Err(CallError::Unverified);
        }
        let asked = attempt(worker, backend, &pick, (question, is_grpc)).await;
        match &asked {
            Ok(answer) => pick.answered(backend, answer.status),
            Err(CallError::Connect(_)) => {}
            Err(_) => pick.failed(backend, false),
        }
        asked
    };
    timeout(limit.unwrap_or(TIME_MAX), asked).await.unwrap_or(Err(CallError::Late))
}

async fn attempt(
    worker: &HttpWorker,
    backend: &Arc<Backend>,
    pick: &Pick,
    (question, is_grpc): (&Question, bool),
) -> Result<Answer, CallError> {
    let needs_host =
        pick.tls(backend).is_some() && (backend.auto_sni || backend.auto_san_validation);
    let host = question.head.uri().host().filter(|_| needs_host);
    let key = Key::new(backend.cluster(), pick.tls(backend), &pick.address, host);
    let is_http2 = match backend.protocol {
        UpstreamProtocol::Http2 => true,
        UpstreamProtocol::Auto => pick.tls(backend).is_some(),
        UpstreamProtocol::Http1 | UpstreamProtocol::Downstream => false,
    };
    if is_grpc && !is_http2 {
        return Err(CallError::NotHttp2);
    }
    let dial = async || dial(worker, backend, pick, (host, is_http2)).await;
    if !is_http2 {
        let pooled = match worker.http.pool.take(&key, worker.now()) {
            Some(pooled) => pooled,
            None => Pooled::fresh(dial().await?),
        };
        return over_http1(worker, backend, (pick, key, pooled), question).await;
    }
    let place = (backend.cluster(), pick.tls(backend));
    let seat = Seat { worker, limits: Limits::default() };
    let sessions = &worker.http.sessions;
    // A kept connection may have died unseen; asking changes nothing, so one more try is harmless.
    for is_last in [false, true] {
        let dial = async || dial().await.map_err(Failure::Connect);
        match sessions.acquire(seat, place, &key, dial).await.map_err(CallError::Failed)? {
            Acquired::Http2(lease) => {
                match call::ask(&lease, question, pick.tls(backend).is_some()).await {
                    Err(CallError::Stream(Fault::Gone | Fault::Refused))
                        if lease.is_kept() && !is_last => {}
                    asked => return asked,
                }
            }
            Acquired::Http1(_) if is_grpc => return Err(CallError::NotHttp2),
            Acquired::Http1(upstream) => {
                let upstream = match upstream {
                    Some(upstream) => upstream,
                    None => self::dial(worker, backend, pick, (host, false)).await?,
                };
                let pooled = Pooled::fresh(upstream);
                return over_http1(worker, backend, (pick, key, pooled), question).await;
            }
        }
    }
    Err(CallError::Stream(Fault::Gone))
}

async fn dial(
    worker: &HttpWorker,
    backend: &Arc<Backend>,
    pick: &Pick,
    (host, is_http2): (Option<&str>, bool),
) -> Result<Upstream, ConnectError> {
    let offers = is_http2.then_some("h2");
    let context = ConnectContext { host, offers, ..ConnectContext::default() };
    let Some(held) = worker.lines.open(backend, pick.host.as_ref(), Priority::Default) else {
        let cluster = Arc::clone(&backend.name);
        return Err(ConnectError::Overflow { cluster, what: "connections" });
    };
    worker.dial(backend, pick.clone(), &context, Some(held)).await
}

/// Asks by HTTP/1.1, on a connection that is kept afterwards where that is safe.
async fn over_http1(
    worker: &HttpWorker,
    backend: &Arc<Backend>,
    (pick, key, mut pooled): (&Pick, Key, Pooled),
    question: &Question,
) -> Result<Answer, CallError> {
    let io = &mut pooled.upstream.io;
    let written = async {
        io.write_all(&written(question)).await?;
        io.flush().await
    };
    match written.await {
        Ok(()) => {}
        // A kept connection that has died: asking changes nothing, so a fresh one takes its place.
        Err(_) if pooled.requests > 0 => {
            let upstream = dial(worker, backend, pick, (question.head.uri().host(), false)).await?;
            pooled = Pooled::fresh(upstream);
            pooled.upstream.io.write_all(&self::written(question)).await?;
            pooled.upstream.io.flush().await?;
        }
        Err(error) => return Err(error.into()),
    }
    let method = Method::of(question.head.method().as_str().as_bytes());
    let (answer, is_reusable) = read(&mut pooled, method, question.answer_max).await?;
    if is_reusable {
        pooled.requests += 1;
        let place = (backend.cluster(), pick.tls(backend));
        worker.http.pool.give(key, pooled, place, worker.now());
    }
    Ok(answer)
}

fn written(question: &Question) -> Vec<u8> {
    let head = &question.head;
    let mut bytes = Vec::with_capacity(1024 + question.body.len());
    bytes.extend_from_slice(head.method().as_str().as_bytes());
    bytes.push(b' ');
    let path = head.uri().path_and_query().map_or("/", |path| path.as_str());
    bytes.extend_from_slice(path.as_bytes());
    bytes.extend_from_slice(b" HTTP/1.1\r\nhost: ");
    let authority = head.uri().authority().map_or("", |authority| authority.as_str());
    bytes.extend_from_slice(authority.as_bytes());
    for (name, value) in head.headers() {
        bytes.extend_from_slice(b"\r\n");
        bytes.extend_from_slice(name.as_str().as_bytes());
        bytes.extend_from_slice(b": ");
        bytes.extend_from_slice(value.as_bytes());
    }
    bytes.extend_from_slice(format!("\r\ncontent-length: {}", question.body.len()).as_bytes());
    bytes.extend_from_slice(b"\r\n\r\n");
    bytes.extend_from_slice(&question.body);
    bytes
}

/// Reads an answer; whether the connection can be used again.
async fn read(
    pooled: &mut Pooled,
    method: Method,
    answer_max: usize,
) -> Result<(Answer, bool), CallError> {
    let io = &mut pooled.upstream.io;
    let mut bytes = Vec::new();
    let (mut scan, mut head) = (Scan::default(), ResponseHead::default());
    let mut interim = 0;
    loop {
        match head.parse(&mut scan, &bytes, &Limits::default(), method) {
            Ok(Some(len)) => {
                bytes.drain(..len);
                scan = Scan::default();
                interim += 1;
                if head.status() >= 200 || interim > INTERIM_MAX {
                    break;
                }
            }
            Ok(None) if io.read_buf(&mut bytes).await? > 0 => {}
            Ok(None) | Err(_) => return Err(CallError::Malformed),
        }
    }
    let mut headers = HeaderMap::new();
    for (name, value) in head.fields.iter() {
        let name = HeaderName::from_bytes(name).map_err(|_| CallError::Malformed)?;
        let value = HeaderValue::from_bytes(value).map_err(|_| CallError::Malformed)?;
        headers.append(name, value);
    }
    let mut body = Body::new(head.framing());
    let mut content = Vec::new();
    loop {
        let len = body.take_content(&bytes, &mut content).map_err(|_| CallError::Malformed)?;
        bytes.drain(..len);
        if content.len() > answer_max {
            return Err(CallError::TooLong);
        }
        if body.is_done() {
            break;
        }
        match (io.read_buf(&mut bytes).await?, &body) {
            (1.., _) => {}
            (0, Body::UntilClose) => break,
            (0, _) => return Err(CallError::Malformed),
        }
    }
    let is_reusable = body.is_done() && head.persists() && bytes.is_empty();
    let status = head.status();
    Ok((Answer { status, headers, body: content, trailers: HeaderMap::new() }, is_reusable))
}
