//! Istio's debug port (15014): what the control plane knows, for people and for Prometheus.
//!
//! In:    GET requests; `proxyID` names a proxy as `NAME.NAMESPACE` or by its whole node id.
//! Out:   JSON under Istio's paths, `/metrics` in Prometheus' text form.
//! Never: a private key, or a change of anything; the mesh's configuration (`/debug/…`) to who does not
//!        show the token of the state directory, on loopback neither.
//!
//! | path | what |
//! |---|---|
//! | `/ready`, `/version` | whether it serves; which version |
//! | `/metrics` | counters under Istio's names |
//! | `/debug/syncz` | for each proxy, the versions sent and accepted |
//! | `/debug/adsz` | for each proxy, who it is and what it says of itself |
//! | `/debug/config_dump?proxyID=` | what a proxy should hold, as Envoy's own config dump |
//! | `/debug/endpointz[?proxyID=]` | the endpoints of every service, or those of one proxy |
//! | `/debug/registryz` | every service |
//! | `/debug/configz` | every object, and where it stands |

mod mesh;
mod proxies;

use std::{future::Future, io, sync::Arc, time::Instant};

use axum::{
    Json, Router,
    extract::{Query, Request, State},
    http::{HeaderValue, StatusCode, header},
    middleware::{Next, from_fn_with_state},
    response::{IntoResponse, Response},
    routing::get,
};
use serde::Deserialize;
use serde_json::Value;
use sluis_ca::{Authority, Desk};
use sluis_control::{Client, Control, Exposition};
use tokio::net::TcpListener;

use crate::custody::Custody;

/// What the debug port tells of.
pub(crate) struct Debug {
    /// The control plane.
    pub control: Control,
    /// The certificate authority.
    pub authority: Arc<Authority>,
    /// Where certificates are asked for.
    pub desk: Arc<Desk>,
    /// The values of credentials.
    pub custody: Custody,
    /// When the control plane began.
    pub began: Instant,
    /// What who asks for `/debug/…` must show (`authorization: Bearer …`).
    pub token: String,
}

/// Serves until `shutdown` is done.
///
/// # Errors
///
/// When the listener breaks.
pub(crate) async fn serve(
    debug: Debug,
    listener: TcpListener,
    shutdown: impl Future<Output = ()> + Send + 'static,
) -> io::Result<()> {
    let debug = Arc::new(debug);
    let guarded = Router::new()
        .route("/debug/syncz", get(|State(debug): Known| async move { Json(debug.syncz()) }))
        .route("/debug/adsz", get(|State(debug): Known| async move { Json(debug.adsz()) }))
        .route("/debug/config_dump", get(config_dump))
        .route("/debug/endpointz", get(endpointz))
        .route(
            "/debug/registryz",
            get(|State(debug): Known| async move { Json(debug.registryz()) }),
        )
        .route("/debug/configz", get(|State(debug): Known| async move { Json(debug.configz()) }))
        .route_layer(from_fn_with_state(Arc::clone(&debug), authenticate));
    let router = Router::new()
        .route("/ready", get(ready))
        .route("/version", get(|| async { env!("CARGO_PKG_VERSION") }))
        .route("/metrics", get(metrics))
        .merge(guarded)
        .with_state(debug);
    axum::serve(listener, router).with_graceful_shutdown(shutdown).await
}

type Known = State<Arc<Debug>>;

/// The whole configuration of the mesh is for its owner: that somebody runs on the same machine proves
/// nothing (CVE-2022-39388).
async fn authenticate(State(debug): Known, request: Request, next: Next) -> Response {
    let shown = request.headers().get(header::AUTHORIZATION).map(HeaderValue::as_bytes);
    let shown = shown.and_then(|value| value.strip_prefix(b"Bearer ")).unwrap_or_default();
    if is_same(shown, debug.token.as_bytes()) {
        return next.run(request).await;
    }
    tracing::warn!(path = request.uri().path(), "debug page refused: the token was not shown");
    let challenge = [(header::WWW_AUTHENTICATE, "Bearer")];
    let text = "show the token in STATE/debug-token: \
        curl -H \"Authorization: Bearer $(cat STATE/debug-token)\"\n";
    (StatusCode::UNAUTHORIZED, challenge, text).into_response()
}

/// Compares in a time that tells nothing of where they differ.
fn is_same(one: &[u8], other: &[u8]) -> bool {
    one.len() == other.len()
        && one.iter().zip(other).fold(0, |sum, (left, right)| sum | (left ^ right)) == 0
}

/// The query of a question about one proxy.
#[derive(Deserialize)]
struct OfProxy {
    #[serde(rename = "proxyID")]
    proxy_id: Option<String>,
}

/// Why there is no answer.
enum Denial {
    /// The query lacks `proxyID`.
    NoProxyId,
    /// No such proxy is connected.
    Unknown(String),
    /// The answer could not be made.
    Failed(sluis_protojson::ConvertError),
}

impl IntoResponse for Denial {
    fn into_response(self) -> Response {
        let (status, text) = match self {
            Self::NoProxyId => {
                (StatusCode::BAD_REQUEST, "proxyID=NAME.NAMESPACE is missing".into())
            }
            Self::Unknown(id) => (StatusCode::NOT_FOUND, format!("proxy {id} is not connected")),
            Self::Failed(error) => (StatusCode::INTERNAL_SERVER_ERROR, error.to_string()),
        };
        (status, text + "\n").into_response()
    }
}

async fn ready(State(debug): Known) -> (StatusCode, &'static str) {
    if debug.control.is_ready() {
        (StatusCode::OK, "ready\n")
    } else {
        (StatusCode::SERVICE_UNAVAILABLE, "the mesh is not known yet\n")
    }
}

async fn metrics(State(debug): Known) -> impl IntoResponse {
    let mut text = Exposition::default();
    debug.control.expose(&mut text);
    debug.expose(&mut text);
    ([(header::CONTENT_TYPE, "text/plain; version=0.0.4; charset=utf-8")], text.into_text())
}

async fn config_dump(
    State(debug): Known,
    Query(query): Query<OfProxy>,
) -> Result<Json<Value>, Denial> {
    let id = query.proxy_id.ok_or(Denial::NoProxyId)?;
    debug.config_dump(id).map(Json)
}

async fn endpointz(
    State(debug): Known,
    Query(query): Query<OfProxy>,
) -> Result<Json<Value>, Denial> {
    match query.proxy_id {
        Some(id) => debug.endpoints_of(id).map(Json),
        None => Ok(Json(debug.endpointz())),
    }
}

impl Debug {
    /// The newest stream of the proxy that an id names.
    fn client(&self, id: String) -> Result<Client, Denial> {
        let is_meant = |client: &Client| {
            let name = &client.view.name;
            client.node.id == id || id == format!("{}.{}", name.name, name.namespace)
        };
        self.control.clients().into_iter().rev().find(is_meant).ok_or(Denial::Unknown(id))
    }

    /// Adds what is counted beside the control plane.
    fn expose(&self, text: &mut Exposition) {
        self.custody.expose(text);
        let version = env!("CARGO_PKG_VERSION");
        text.family("pilot_info", "gauge", "Pilot version and build information.");
        text.sample("pilot_info", &[("version", version)], 1);
        let uptime = self.began.elapsed().as_secs();
        text.single(
            "istiod_uptime_seconds",
            "gauge",
            "Current istiod server uptime in seconds.",
            uptime,
        );
        let counts = self.desk.counts();
        for (name, help, value) in [
            ("csr_count", "The number of CSRs received by Citadel server.", counts.requests),
            (
                "csr_parsing_err_count",
                "The number of errors occurred when parsing the CSR.",
                counts.unreadable,
            ),
            (
                "authentication_failure_count",
                "The number of authentication failures.",
                counts.unauthenticated,
            ),
            (
                "csr_sign_err_count",
                "The number of errors occurred when signing the CSR.",
                counts.unsigned,
            ),
            (
                "success_cert_issuance_count",
                "The number of certificates issuances that have succeeded.",
                counts.issued,
            ),
        ] {
            text.single(&format!("citadel_server_{name}"), "counter", help, value);
        }
        let help = "Certificates that were refused, by reason.";
        text.family("sluis_ca_refusals_total", "counter", help);
        for (reason, count) in &counts.refusals {
            text.sample("sluis_ca_refusals_total", &[("reason", reason)], count);
        }
        let ends = self.authority.root_ends();
        let since_epoch = ends.duration_since(std::time::UNIX_EPOCH).unwrap_or_default().as_secs();
        let left = ends.duration_since(std::time::SystemTime::now()).unwrap_or_default().as_secs();
        let help = "The unix timestamp, in seconds, when the root cert will expire.";
        text.single("citadel_server_root_cert_expiry_timestamp", "gauge", help, since_epoch);
        let help = "The time remaining, in seconds, before the root cert will expire.";
        text.single("citadel_server_root_cert_expiry_seconds", "gauge", help, left);
    }
}

#[cfg(test)]
mod tests;
