//! Copies of requests to mirrors, whose answers nobody reads.
//!
//! In:    a request that has been sent on as a whole, its route's mirrors.
//! Out:   one copy for each mirror, sent by a task of its own.
//! Never: makes the client wait, holds more than a bounded number of copies of bounded bodies, or
//!        sends a copy whose body is not complete: such a request goes without.

use std::{rc::Rc, sync::Arc, time::Duration};

use sluis_http1::{
    Authority, Body, Framing, Known, Limits, Method, RequestHead, ResponseHead, Scan,
};
use sluis_rules::{Mirror, MirrorTarget, UpstreamProtocol};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    time::timeout,
};
use tracing::debug;

use super::{
    desk::Desk,
    failure::Failure,
    http2::copy,
    plan::Plan,
    pool::{Key, Pooled},
    protocol::Protocol,
    site::Site,
    state::HttpWorker,
};
use crate::{
    config::Backend,
    stats::Counter,
    upstream::{ConnectContext, ConnectError},
};

/// Copies under way on one worker. With the largest body each that is 256 MiB; usual ones have none.
const COPIES_MAX: u32 = 256;

/// Most bytes of a mirror's answer that are read before its connection is given up.
const ANSWER_BYTES_MAX: usize = 16 << 20;

/// How long a copy may take where the route sets no time.
const TIME_MAX: Duration = Duration::from_secs(300);

/// The mirrors that get a copy of this request.
pub(super) fn chosen<'c>(site: Site<'_>, plan: &Plan<'c>) -> Vec<&'c Mirror> {
    let mirrors = plan.matched.mirrors().iter();
    mirrors.filter(|mirror| mirror.fraction.holds(site.draw)).collect()
}

/// Sends the request on the desk, whose body has been kept as a whole, to each of the mirrors.
pub(super) fn copy(
    site: Site<'_>,
    worker: &Rc<HttpWorker>,
    plan: &Plan<'_>,
    mirrors: &[&Mirror],
    (desk, body): (&Desk, &[u8]),
) {
    let config = worker.http.config(worker);
    for mirror in mirrors {
        let cluster = match &mirror.target {
            MirrorTarget::Cluster(name) => Some(&**name),
            MirrorTarget::Header(name) => desk
                .request
                .fields
                .get_name(name.as_bytes())
                .and_then(|value| std::str::from_utf8(value).ok()),
        };
        let backend = cluster.and_then(|name| config.backend(name)).cloned();
        let under_way = site.worker.http.copies.within(COPIES_MAX);
        // A copy never has a credential, and nothing goes to such a cluster without.
        let backend = backend.filter(|backend| backend.credentials().is_empty());
        let (Some(backend), Some(under_way)) = (backend, under_way) else {
            worker.stats().inc(Counter::MirrorsDropped);
            debug!(
                ?cluster,
                "request is not mirrored: no such cluster, one with credentials, or too many copies"
            );
            continue;
        };
        let is_http2 = match backend.protocol {
            UpstreamProtocol::Http2 => true,
            UpstreamProtocol::Downstream => site.protocol == Protocol::Http2,
            UpstreamProtocol::Http1 | UpstreamProtocol::Auto => false,
        };
        let scheme = site.scheme(&desk.request);
        let (mut bytes, host) = written(&desk.request, mirror);
        bytes.extend_from_slice(body);
        let method = desk.request.method();
        let limit = plan.timeout.unwrap_or(TIME_MAX);
        let original_dst = site.connection.original_dst;
        let worker = Rc::clone(worker);
        tokio::task::spawn_local(async move {
            let _under_way = under_way;
            worker.stats().inc(Counter::Mirrors);
            let context = ConnectContext { host: Some(&host), original_dst, ..Default::default() };
            let sent = async {
                match is_http2 {
                    true => share(&worker, &backend, &context, &bytes, scheme).await,
                    false => send(&worker, &backend, &context, &bytes, method).await,
                }
            };
            match timeout(limit, sent).await {
                Ok(Ok(())) => {}
                Ok(Err(error)) => debug!(cluster = %backend.name, %error, "mirror failed"),
                Err(_) => debug!(cluster = %backend.name, "mirror took too long"),
            }
        });
    }
}

/// The head of a copy, and its host without port.
fn written(request: &RequestHead, mirror: &Mirror) -> (Vec<u8>, String) {
    let host = match &mirror.host {
        Some(host) => host.as_bytes().to_vec(),
        None if mirror.marks_host => marked(request.authority()),
        None => request.authority().to_vec(),
    };
    let mut bytes = Vec::with_capacity(1024);
    bytes.extend_from_slice(request.method_name());
    bytes.push(b' ');
    bytes.extend_from_slice(request.path());
    bytes.extend_from_slice(b" HTTP/1.1\r\nhost: ");
    bytes.extend_from_slice(&host);
    bytes.extend_from_slice(b"\r\n");
    for (name, value) in request.fields.iter() {
        if !matches!(Known::of(name), Some(Known::Host | Known::Expect)) {
            bytes.extend_from_slice(name);
            bytes.extend_from_slice(b": ");
            bytes.extend_from_slice(value);
            bytes.extend_from_slice(b"\r\n");
        }
    }
    if request.framing() == Framing::Chunked && !request.fields.has(Known::TransferEncoding) {
        // It came by HTTP/2, where bodies need no framing.
        bytes.extend_from_slice(b"transfer-encoding: chunked\r\n");
    }
    bytes.extend_from_slice(b"\r\n");
    let name = Authority::parse(&host).map_or(&host[..], |authority| authority.host);
    let name = String::from_utf8_lossy(name).trim_end_matches('.').to_ascii_lowercase();
    (bytes, name)
}

/// The host with `-shadow` behind its name, as Envoy marks it.
fn marked(authority: &[u8]) -> Vec<u8> {
    match Authority::parse(authority) {
        Ok(Authority { host, port: Some(port) }) if !host.starts_with(b"[") => {
            [host, b"-shadow:", port.to_string().as_bytes()].concat()
        }
        _ => [authority, b"-shadow"].concat(),
    }
}

/// Why a copy was not answered in order.
#[derive(Debug, thiserror::Error)]
enum CopyError {
    #[error(transparent)]
    Connect(#[from] ConnectError),
    #[error(transparent)]
    Io(#[from] std::io::Error),
    #[error(transparent)]
    Http2(#[from] copy::CopyError),
    #[error("the answer is no response, or too long")]
    Answer,
}

/// Sends a copy over a connection that others share.
async fn share(
    worker: &Rc<HttpWorker>,
    backend: &Arc<Backend>,
    context: &ConnectContext<'_>,
    bytes: &[u8],
    scheme: &str,
) -> Result<(), CopyError> {
    let pick = worker.pick(backend, context)?;
    let needs_host =
        pick.tls(backend).is_some() && (backend.auto_sni || backend.auto_san_validation);
    let host = context.host.filter(|_| needs_host);
    let key = Key::new(backend.cluster(), pick.tls(backend), &pick.address, host);
    let dial = async || {
        let context = ConnectContext { host, offers: Some("h2"), ..*context };
        let priority = crate::hosts::Priority::Default;
        let Some(held) = worker.lines.open(backend, pick.host.as_ref(), priority) else {
            let cluster = Arc::clone(&backend.name);
            return Err(Failure::Connect(ConnectError::Overflow { cluster, what: "connections" }));
        };
        let dialled = worker.dial(backend, pick.clone(), &context, Some(held)).await;
        dialled.map_err(Failure::Connect)
    };
    Ok(copy::send(worker, (backend, &pick, &key), bytes, scheme, dial).await?)
}

async fn send(
    worker: &Rc<HttpWorker>,
    backend: &Arc<Backend>,
    context: &ConnectContext<'_>,
    bytes: &[u8],
    method: Method,
) -> Result<(), CopyError> {
    let pick = worker.pick(backend, context)?;
    let needs_host =
        pick.tls(backend).is_some() && (backend.auto_sni || backend.auto_san_validation);
    let host = context.host.filter(|_| needs_host);
    let key = Key::new(backend.cluster(), pick.tls(backend), &pick.address, host);
    let pooled = worker.http.pool.take(&key, worker.now());
    let mut pooled = match pooled {
        Some(pooled) => pooled,
        None => {
            let context = ConnectContext { host, ..*context };
            let priority = crate::hosts::Priority::Default;
            let Some(held) = worker.lines.open(backend, pick.host.as_ref(), priority) else {
                let cluster = Arc::clone(&backend.name);
                return Err(ConnectError::Overflow { cluster, what: "connections" }.into());
            };
            let upstream = worker.dial(backend, pick.clone(), &context, Some(held)).await?;
            Pooled::fresh(upstream)
        }
    };
    pooled.upstream.io.write_all(bytes).await?;
    pooled.upstream.io.flush().await?;
    if answered(&mut pooled, method).await? {
        pooled.requests += 1;
        let place = (backend.cluster(), pick.tls(backend));
        worker.http.pool.give(key, pooled, place, worker.now());
    }
    Ok(())
}

/// Reads a response and throws it away. True when the connection can be used again.
async fn answered(pooled: &mut Pooled, method: Method) -> Result<bool, CopyError> {
    let io = &mut pooled.upstream.io;
    let mut bytes = Vec::new();
    let (mut scan, mut head) = (Scan::default(), ResponseHead::default());
    let mut read = 0;
    loop {
        match head.parse(&mut scan, &bytes, &Limits::default(), method) {
            Ok(Some(len)) => {
                bytes.drain(..len);
                scan = Scan::default();
                if head.status() >= 200 {
                    break;
                }
            }
            Ok(None) => {
                if read > ANSWER_BYTES_MAX || io.read_buf(&mut bytes).await? == 0 {
                    return Err(CopyError::Answer);
                }
                read = bytes.len();
            }
            Err(_) => return Err(CopyError::Answer),
        }
    }
    let mut body = Body::new(head.framing());
    loop {
        let taken = body.take(&bytes).map_err(|_| CopyError::Answer)?;
        bytes.drain(..taken.len);
        if body.is_done() {
            return Ok(head.persists() && bytes.is_empty());
        }
        let len = io.read_buf(&mut bytes).await?;
        read += len;
        if len == 0 || read > ANSWER_BYTES_MAX {
            return Ok(false);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_copy_is_marked_before_the_port() {
        for (host, expected) in
            [("a.b", "a.b-shadow"), ("a.b:80", "a.b-shadow:80"), ("[::1]:80", "[::1]:80-shadow")]
        {
            assert_eq!(marked(host.as_bytes()), expected.as_bytes());
        }
    }
}
