//! The status port of a captured workload: asks the application what its platform would have asked it.
//!
//! In:    Istio's `ISTIO_KUBE_APP_PROBERS`, which `rewriteAppHTTPProbe` makes of a pod's probes; requests
//!        of the platform, which has no certificate of the mesh, on the port that capture leaves alone.
//! Out:   the application's own answer, so that probes work under STRICT mutual TLS.
//! Never: asks anything but what the probers say; tells more than 10 KiB of an answer.
//!
//! Paths, results and limits are those of Istio's agent (`pilot-agent/status`).

mod ask;

use std::{
    collections::BTreeMap,
    convert::Infallible,
    io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    rc::Rc,
    time::Duration,
};

use http::{HeaderMap, Request, Response, StatusCode, header};
use http_body_util::Full;
use hyper::{
    body::{Bytes, Incoming},
    server::conn::http1,
    service::service_fn,
};
use hyper_util::rt::{TokioIo, TokioTimer};
use serde_json::Value;
use sluis_tls::{ClientTls, SecretStore, SettingsError};
use tokio::{net::TcpListener, sync::watch, task::JoinSet, time::timeout};
use tracing::{debug, warn};

use crate::{
    conn::Socket,
    sockets::{self, ListenOptions},
};

/// Connections at once: a platform's probes of a few containers.
const CONNECTIONS_MAX: usize = 64;

/// How long a connection may last: longer than a probe with the longest usual time.
const CONNECTION_LIFE: Duration = Duration::from_secs(120);

/// Wait after `accept` failed.
const ACCEPT_WAIT: Duration = Duration::from_millis(500);

/// Kubernetes' default for a probe that says nothing.
const TIMEOUT: Duration = Duration::from_secs(1);

/// Probers of one pod: a handful for each container.
const PROBERS_MAX: usize = 1024;

/// From where the application is asked, so that capture leaves the question alone (Istio's figures).
const SOURCE_V4: IpAddr = IpAddr::V4(Ipv4Addr::new(127, 0, 0, 6));
const SOURCE_V6: IpAddr = IpAddr::V6(Ipv6Addr::new(0, 0, 0, 0, 0, 0, 0, 6));

/// What is asked of the application for each path.
#[derive(Debug, Default, PartialEq, Eq)]
struct Probers(BTreeMap<String, Prober>);

#[derive(Clone, Debug, PartialEq, Eq)]
struct Prober {
    port: u16,
    question: Question,
    timeout: Duration,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Question {
    Http { path: String, is_https: bool },
    Tcp,
    Grpc { service: String },
}

/// Why probers are not understood.
#[derive(Debug, thiserror::Error)]
#[error("{at}: {reason}")]
pub struct ProberError {
    at: String,
    reason: String,
}

impl Probers {
    /// Reads the JSON of `ISTIO_KUBE_APP_PROBERS`; empty text is no prober.
    ///
    /// # Errors
    ///
    /// A [`ProberError`] that names the prober and what is wrong with it.
    fn read(text: &str) -> Result<Self, ProberError> {
        if text.is_empty() {
            return Ok(Self::default());
        }
        let whole = |reason: String| ProberError { at: "probers".to_owned(), reason };
        let all: BTreeMap<String, Value> =
            serde_json::from_str(text).map_err(|error| whole(error.to_string()))?;
        if all.len() > PROBERS_MAX {
            return Err(whole(format!("are more than {PROBERS_MAX}")));
        }
        let one = |(path, value): (String, Value)| match prober(&path, &value) {
            Ok(prober) => Ok((path, prober)),
            Err(reason) => Err(ProberError { at: path, reason }),
        };
        all.into_iter().map(one).collect::<Result<_, _>>().map(Self)
    }
}

fn prober(path: &str, value: &Value) -> Result<Prober, String> {
    let parts: Vec<&str> = path.split('/').collect();
    let is_known = match parts[..] {
        ["", "app-health" | "app-lifecycle", container, last] => {
            !container.is_empty()
                && ["livez", "readyz", "startupz", "prestopz", "poststartz"].contains(&last)
        }
        _ => false,
    };
    if !is_known {
        return Err("is no path of a prober".to_owned());
    }
    let fields = value.as_object().ok_or("is no object")?;
    let number =
        |of: &Value| of.as_u64().and_then(|port| u16::try_from(port).ok()).filter(|p| *p > 0);
    let text = |of: &Value, key: &str| of[key].as_str().unwrap_or_default().to_owned();
    let kinds = ["httpGet", "tcpSocket", "grpc"];
    let mut given = kinds.iter().filter_map(|kind| Some((*kind, fields.get(*kind)?)));
    let (Some((kind, action)), None) = (given.next(), given.next()) else {
        return Err("must be one of httpGet, tcpSocket and grpc".to_owned());
    };
    let port =
        number(&action["port"]).ok_or_else(|| format!("{kind}.port is no number of a port"))?;
    let question = match kind {
        "httpGet" => {
            let is_https = match action["scheme"].as_str() {
                None | Some("" | "HTTP") => false,
                Some("HTTPS") => true,
                Some(other) => {
                    return Err(format!("httpGet.scheme {other:?} is neither HTTP nor HTTPS"));
                }
            };
            let path = text(action, "path");
            let path = if path.starts_with('/') { path } else { format!("/{path}") };
            Question::Http { path, is_https }
        }
        "tcpSocket" => Question::Tcp,
        _ => Question::Grpc { service: text(action, "service") },
    };
    let timeout = match fields.get("timeoutSeconds").and_then(Value::as_u64) {
        None | Some(0) => TIMEOUT,
        Some(seconds) => Duration::from_secs(seconds).min(CONNECTION_LIFE),
    };
    Ok(Prober { port, question, timeout })
}

/// What is served, and how the application is reached.
pub struct StatusPort {
    probers: Probers,
    /// The status port itself, which the `Host` of a question names.
    port: u16,
    /// Where the application is: the workload's own address, as kubelet would ask.
    application: IpAddr,
    tls: ClientTls,
    /// Whether the proxy is ready, where that is known here.
    ready: Option<watch::Receiver<bool>>,
    listener: TcpListener,
}

/// Why the status port is not served.
#[derive(Debug, thiserror::Error)]
pub enum StatusError {
    /// The port cannot be bound.
    #[error("status port {port}: {source}")]
    Bind {
        /// The port.
        port: u16,
        /// What the kernel said.
        source: io::Error,
    },
    /// The probers are not understood.
    #[error("ISTIO_KUBE_APP_PROBERS: {0}")]
    Probers(#[from] ProberError),
    /// TLS towards the application cannot be set up.
    #[error("TLS towards the application: {0}")]
    Tls(#[from] SettingsError),
}

impl StatusPort {
    /// Opens the port on all addresses.
    ///
    /// # Errors
    ///
    /// [`StatusError`].
    pub fn open(
        port: u16,
        application: IpAddr,
        probers: &str,
        ready: Option<watch::Receiver<bool>>,
    ) -> Result<Self, StatusError> {
        let probers = Probers::read(probers)?;
        let tls = ask::unverified(&SecretStore::new(sluis_tls::Clock::system(), None))?;
        let bind = |ip: IpAddr| {
            let listener = sockets::listen_tcp((ip, port).into(), ListenOptions::default())?;
            TcpListener::from_std(listener)
        };
        let all = bind(Ipv6Addr::UNSPECIFIED.into()).or_else(|error| match error.kind() {
            io::ErrorKind::AddrInUse => Err(error),
            // No IPv6 here.
            _ => bind(Ipv4Addr::UNSPECIFIED.into()),
        });
        let listener = all.map_err(|source| StatusError::Bind { port, source })?;
        Ok(Self { probers, port, application, tls, ready, listener })
    }

    /// Serves until dropped. Runs on a local task set.
    pub async fn serve(self) {
        let status = Rc::new(self);
        let mut connections = JoinSet::new();
        loop {
            while connections.try_join_next().is_some() {}
            if connections.len() >= CONNECTIONS_MAX {
                let _ended = connections.join_next().await;
            }
            match status.listener.accept().await {
                Ok((stream, _)) => {
                    connections.spawn_local(converse(Socket::Tcp(stream), Rc::clone(&status)));
                }
                Err(error) => {
                    warn!(%error, "connection to the status port not accepted");
                    tokio::time::sleep(ACCEPT_WAIT).await;
                }
            }
        }
    }

    async fn answer(&self, request: Request<Incoming>) -> Response<Full<Bytes>> {
        let path = request.uri().path();
        if path == "/healthz/ready" {
            return match &self.ready {
                Some(ready) if *ready.borrow() => plain(StatusCode::OK, ""),
                Some(_) => plain(StatusCode::SERVICE_UNAVAILABLE, ""),
                None => plain(StatusCode::NOT_FOUND, "who answers here does not know the proxy\n"),
            };
        }
        if !path.starts_with("/app-health/") && !path.starts_with("/app-lifecycle/") {
            return plain(StatusCode::NOT_FOUND, "");
        }
        let Some(prober) = self.probers.0.get(path) else {
            return plain(StatusCode::BAD_REQUEST, "there is no prober of this path\n");
        };
        let asked = timeout(prober.timeout, self.ask(prober, request.headers())).await;
        match asked {
            Ok(Ok((status, body))) => {
                let mut response = Response::new(Full::new(body));
                *response.status_mut() = status;
                response
            }
            Ok(Err(error)) => {
                debug!(path, %error, "the application does not answer its probe");
                plain(StatusCode::INTERNAL_SERVER_ERROR, "")
            }
            Err(_) => {
                debug!(path, within = ?prober.timeout, "the application is silent");
                plain(StatusCode::INTERNAL_SERVER_ERROR, "")
            }
        }
    }

    async fn ask(
        &self,
        prober: &Prober,
        headers: &HeaderMap,
    ) -> Result<(StatusCode, Bytes), ask::Fault> {
        let to = SocketAddr::new(self.application, prober.port);
        match &prober.question {
            Question::Tcp => ask::connect(to).await.map(|_| (StatusCode::OK, Bytes::new())),
            Question::Grpc { service } => {
                ask::grpc(to, service, headers).await.map(|()| (StatusCode::OK, Bytes::new()))
            }
            Question::Http { path, is_https } => {
                let tls = is_https.then_some(&self.tls);
                ask::http(to, path, tls, &self.headers(prober, headers)).await
            }
        }
    }

    /// The headers of the question to the application: the platform's, of which the host names the port
    /// that it asked before the probe was rewritten.
    fn headers(&self, prober: &Prober, of_platform: &HeaderMap) -> HeaderMap {
        let mut headers = of_platform.clone();
        for own_to_the_connection in [
            header::CONNECTION,
            header::CONTENT_LENGTH,
            header::TRANSFER_ENCODING,
            header::UPGRADE,
            header::TE,
        ] {
            headers.remove(own_to_the_connection);
        }
        let host = of_platform.get(header::HOST).and_then(|host| host.to_str().ok());
        let own = format!(":{}", self.port);
        let host = match host.map(|host| (host, host.strip_suffix(&own))) {
            Some((_, Some(name))) => format!("{name}:{}", prober.port),
            Some((host, None)) => host.to_owned(),
            None => SocketAddr::new(self.application, prober.port).to_string(),
        };
        if let Ok(host) = host.parse() {
            headers.insert(header::HOST, host);
        }
        headers
    }
}

async fn converse(socket: Socket, status: Rc<StatusPort>) {
    let service = service_fn(move |request: Request<Incoming>| {
        let status = Rc::clone(&status);
        async move { Ok::<_, Infallible>(status.answer(request).await) }
    });
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(CONNECTION_LIFE)
        .serve_connection(TokioIo::new(socket), service);
    if let Ok(Err(error)) = timeout(CONNECTION_LIFE, connection).await {
        debug!(%error, "connection to the status port ended");
    }
}

fn plain(status: StatusCode, body: &'static str) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(Bytes::from_static(body.as_bytes())));
    *response.status_mut() = status;
    response
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_three_kinds_of_probers_are_read() {
        let text = r#"{
            "/app-health/web/livez": {"httpGet": {"path": "hello", "port": 8080, "scheme": "HTTPS"}, "timeoutSeconds": 5},
            "/app-health/web/readyz": {"tcpSocket": {"port": 3333}},
            "/app-lifecycle/web/prestopz": {"grpc": {"port": 9000, "service": "shop"}}}"#;
        let found: Vec<Prober> = Probers::read(text).unwrap().0.into_values().collect();
        let http = Question::Http { path: "/hello".to_owned(), is_https: true };
        let grpc = Question::Grpc { service: "shop".to_owned() };
        let prober = |port, question, seconds| Prober {
            port,
            question,
            timeout: Duration::from_secs(seconds),
        };
        assert_eq!(
            found,
            [prober(8080, http, 5), prober(3333, Question::Tcp, 1), prober(9000, grpc, 1)]
        );
        assert_eq!(Probers::read("").unwrap(), Probers::default());
    }

    #[test]
    fn what_is_no_prober_is_refused_by_name() {
        for (text, reason) in [
            ("[]", "probers: "),
            (r#"{"/metrics": {"tcpSocket": {"port": 1}}}"#, "/metrics: is no path"),
            (r#"{"/app-health//livez": {"tcpSocket": {"port": 1}}}"#, "is no path"),
            (r#"{"/app-health/a/livez": {}}"#, "/app-health/a/livez: must be one of"),
            (
                r#"{"/app-health/a/livez": {"tcpSocket": {"port": 1}, "grpc": {"port": 1}}}"#,
                "must be one of",
            ),
            (
                r#"{"/app-health/a/livez": {"httpGet": {"port": "http"}}}"#,
                "httpGet.port is no number",
            ),
            (r#"{"/app-health/a/livez": {"httpGet": {"port": 1, "scheme": "FTP"}}}"#, "\"FTP\""),
        ] {
            let error = Probers::read(text).unwrap_err().to_string();
            assert!(error.contains(reason), "{text}: {error}");
        }
    }
}
