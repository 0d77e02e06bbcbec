//! The admin server: is it ready, what has it counted, what does it do, who is it.
//!
//! In:    HTTP/1.1 requests on the bootstrap's admin address.
//! Out:   text and JSON.
//! Never: shows a key or a token; listens beyond the address that the bootstrap names.

use std::{
    cell::RefCell, convert::Infallible, io, rc::Rc, sync::Arc, time::Duration, time::SystemTime,
};

use http::{Method, Request, Response, StatusCode, header};
use http_body_util::Full;
use hyper::{
    body::{Bytes, Incoming},
    server::conn::http1,
    service::service_fn,
};
use hyper_util::rt::TokioIo;
use serde_json::{Value, json};
use sluis_envoy::{Kind, ResourceSet};
use sluis_identity::Status;
use sluis_rules::Address;
use sluis_tls::{Secret, SecretStore};
use time::{OffsetDateTime, format_description::well_known::Rfc3339};
use tokio::{
    sync::{Notify, watch},
    task::JoinSet,
    time::timeout,
};
use tracing::{debug, warn};

use crate::{
    audit::AuditLog,
    config::Config,
    conn::Socket,
    sockets::{self, ListenOptions, Listening},
    stats::Stats,
};

/// Connections at once: people and one scraper.
const CONNECTIONS_MAX: usize = 32;

/// How long a connection may last, so that a forgotten one holds no place.
const CONNECTION_LIFE: Duration = Duration::from_secs(60);

/// Wait after `accept` failed.
const ACCEPT_WAIT: Duration = Duration::from_millis(500);

/// What the admin server shows.
pub(crate) struct View {
    pub(crate) node: String,
    pub(crate) stats: Stats,
    pub(crate) config: watch::Receiver<Arc<Config>>,
    /// What was asked of the proxy, kept by the control loop.
    pub(crate) wanted: RefCell<ResourceSet>,
    pub(crate) ready: watch::Receiver<bool>,
    pub(crate) connected: Option<watch::Receiver<bool>>,
    pub(crate) identity: Option<watch::Receiver<Status>>,
    pub(crate) store: SecretStore,
    pub(crate) drain: Notify,
    pub(crate) audit: AuditLog,
}

/// Opens the admin address.
pub(crate) fn bind(address: &Address, mode: u32) -> io::Result<Listening> {
    match address {
        Address::Socket(address) => {
            Listening::tcp(sockets::listen_tcp(*address, ListenOptions::default())?)
        }
        Address::Pipe(path) => {
            tokio::net::UnixListener::from_std(sockets::listen_unix(path, mode)?)
                .map(Listening::Unix)
        }
        Address::Internal(_) => Err(io::ErrorKind::AddrNotAvailable.into()),
    }
}

/// Serves until dropped; then the socket file goes too.
pub(crate) async fn serve(listening: Listening, address: Address, view: Rc<View>) {
    let _file = SocketFile(address);
    let mut connections = JoinSet::new();
    loop {
        while connections.try_join_next().is_some() {}
        if connections.len() >= CONNECTIONS_MAX {
            let _ended = connections.join_next().await;
        }
        match listening.accept().await {
            Ok((socket, _)) => {
                connections.spawn_local(converse(socket, Rc::clone(&view)));
            }
            Err(error) => {
                warn!(%error, "admin connection not accepted");
                tokio::time::sleep(ACCEPT_WAIT).await;
            }
        }
    }
}

/// Removes a Unix socket's file at the end.
struct SocketFile(Address);

impl Drop for SocketFile {
    fn drop(&mut self) {
        if let Address::Pipe(path) = &self.0 {
            // It may be gone with its directory.
            let _gone = std::fs::remove_file(path);
        }
    }
}

async fn converse(socket: Socket, view: Rc<View>) {
    let service = service_fn(move |request: Request<Incoming>| {
        let response = view.answer(request.method(), request.uri().path());
        std::future::ready(Ok::<_, Infallible>(response))
    });
    let connection = http1::Builder::new().serve_connection(TokioIo::new(socket), service);
    if let Ok(Err(error)) = timeout(CONNECTION_LIFE, connection).await {
        debug!(%error, "admin connection ended");
    }
}

impl View {
    fn answer(&self, method: &Method, path: &str) -> Response<Full<Bytes>> {
        match (method, path) {
            (&Method::GET, "/ready") => self.readiness(),
            (&Method::GET, "/stats") => text(StatusCode::OK, self.stats.text(&self.gauges())),
            (&Method::GET, "/stats/prometheus") => {
                text(StatusCode::OK, self.stats.prometheus(&self.gauges()))
            }
            (&Method::GET, "/listeners") => text(StatusCode::OK, self.listeners()),
            (&Method::GET, "/config") => json_response(&self.configuration()),
            (&Method::GET, "/certs") => json_response(&self.certificates()),
            (&Method::GET, "/audit") => json_response(&self.audit()),
            (&Method::POST, "/drain") => {
                self.drain.notify_one();
                text(StatusCode::OK, "draining\n".to_owned())
            }
            (_, "/drain") => text(StatusCode::METHOD_NOT_ALLOWED, "use POST\n".to_owned()),
            (&Method::GET, "/") => text(
                StatusCode::OK,
                "/ready\n/stats\n/stats/prometheus\n/listeners\n/config\n/certs\n/audit\n/drain (POST)\n"
                    .to_owned(),
            ),
            _ => text(StatusCode::NOT_FOUND, "no such page; see /\n".to_owned()),
        }
    }

    fn readiness(&self) -> Response<Full<Bytes>> {
        if *self.ready.borrow() {
            text(StatusCode::OK, "LIVE\n".to_owned())
        } else {
            text(StatusCode::SERVICE_UNAVAILABLE, "PRE_INITIALIZING\n".to_owned())
        }
    }

    fn gauges(&self) -> Vec<(String, u64)> {
        let config = self.config.borrow();
        let mut gauges = vec![
            ("server.live".to_owned(), u64::from(*self.ready.borrow())),
            ("server.concurrency".to_owned(), config.settings.workers as u64),
            ("config.generation".to_owned(), config.generation),
            (
                "listener_manager.total_listeners_active".to_owned(),
                config.runtime.listeners.len() as u64,
            ),
            ("cluster_manager.active_clusters".to_owned(), config.runtime.clusters.len() as u64),
        ];
        if let Some(connected) = &self.connected {
            gauges
                .push(("control_plane.connected_state".to_owned(), u64::from(*connected.borrow())));
        }
        if let Some(status) = &self.identity
            && let Some(certificate) = &status.borrow().certificate
        {
            let since = certificate.not_after.duration_since(SystemTime::UNIX_EPOCH);
            let expiry = since.map_or(0, |since| since.as_secs());
            gauges.push(("certificate.expiry_timestamp_seconds".to_owned(), expiry));
        }
        if let (Some(head), Some(state)) = (self.audit.head(), self.audit.state()) {
            gauges.extend([
                ("audit.records".to_owned(), head.records),
                ("audit.checkpoints".to_owned(), head.checkpoints),
                ("audit.pending".to_owned(), state.pending as u64),
                ("audit.refused".to_owned(), state.refused),
                ("audit.writable".to_owned(), u64::from(state.is_writable)),
            ]);
        }
        gauges
    }

    /// How the audit log is doing: its head lets a verifier see that nothing was cut off its end.
    fn audit(&self) -> Value {
        let (Some(head), Some(state)) = (self.audit.head(), self.audit.state()) else {
            return Value::Null;
        };
        json!({
            "path": state.path,
            "writable": state.is_writable,
            "seq": head.seq,
            "hash": head.hash,
            "records": head.records,
            "checkpoints": head.checkpoints,
            "pending": state.pending,
            "refused": state.refused,
        })
    }

    fn listeners(&self) -> String {
        let config = self.config.borrow();
        let mut lines: Vec<String> = config
            .bound
            .iter()
            .map(|(name, bound)| format!("{name}::{}\n", bound.address))
            .collect();
        lines.sort_unstable();
        lines.concat()
    }

    fn configuration(&self) -> Value {
        let encoded = self.wanted.borrow().encode();
        let config = self.config.borrow();
        let has = |kind: Kind, name: &str| match kind {
            Kind::Cluster => config.runtime.clusters.contains_key(name),
            Kind::Listener => config.runtime.listeners.contains_key(name),
            Kind::Route => config.runtime.routes.contains_key(name),
            Kind::Endpoints | Kind::Secret | Kind::Extension | Kind::NameTable => true,
        };
        let kinds = Kind::ALL.iter().map(|kind| {
            let resources = encoded.of(*kind).map(|resource| {
                json!({
                    "name": resource.name,
                    "version": resource.version,
                    "active": has(*kind, &resource.name),
                })
            });
            (kind.short().to_owned(), resources.collect::<Value>())
        });
        json!({
            "node": self.node,
            "generation": config.generation,
            "connected": self.connected.as_ref().map(|connected| *connected.borrow()),
            "resources": kinds.collect::<serde_json::Map<_, _>>(),
        })
    }

    fn certificates(&self) -> Value {
        let identity = self.identity.as_ref().map(|status| {
            let status = status.borrow();
            json!({
                "id": status.id.to_string(),
                "issued": status.issued,
                "last_error": status.last_error,
                "serial": status.certificate.as_ref().map(|certificate| &certificate.serial),
                "not_before": status.certificate.as_ref().map(|c| rfc3339(c.not_before)),
                "not_after": status.certificate.as_ref().map(|c| rfc3339(c.not_after)),
                "renew_at": status.certificate.as_ref().map(|c| rfc3339(c.renew_at)),
            })
        });
        let secrets = self.store.list().into_iter().map(|(name, secret)| match secret.as_deref() {
            Some(Secret::KeyPair(pair)) => {
                let leaf = pair.leaf();
                json!({
                    "name": &*name,
                    "kind": "certificate",
                    "serial": leaf.serial,
                    "uris": leaf.uris,
                    "dns_names": leaf.dns_names,
                    "not_before": rfc3339(leaf.not_before),
                    "not_after": rfc3339(leaf.not_after),
                })
            }
            Some(roots @ Secret::Roots(_)) => {
                json!({"name": &*name, "kind": "roots", "fingerprint": roots.fingerprint()})
            }
            Some(Secret::Crls(_)) => json!({"name": &*name, "kind": "revoked"}),
            Some(Secret::Generic(generic)) => json!({
                "name": &*name,
                "kind": "generic",
                "version": generic.version(),
                "not_after": generic.not_after().map(rfc3339),
            }),
            None => json!({"name": &*name, "kind": Value::Null}),
        });
        json!({"identity": identity, "secrets": secrets.collect::<Value>()})
    }
}

fn rfc3339(at: SystemTime) -> String {
    OffsetDateTime::from(at).format(&Rfc3339).unwrap_or_default()
}

fn text(status: StatusCode, body: String) -> Response<Full<Bytes>> {
    respond(status, "text/plain; charset=utf-8", body)
}

fn json_response(body: &Value) -> Response<Full<Bytes>> {
    respond(StatusCode::OK, "application/json", format!("{body:#}\n"))
}

fn respond(status: StatusCode, content_type: &'static str, body: String) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(Bytes::from(body)));
    *response.status_mut() = status;
    let value = header::HeaderValue::from_static(content_type);
    response.headers_mut().insert(header::CONTENT_TYPE, value);
    response
}
