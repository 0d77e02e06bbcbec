//! The running `sluis up`'s side of the interface.
//!
//! In:    requests on the control socket.
//! Out:   what [`Answers`] says, as JSON; a refusal as text with a fitting status.
//! Never: holds state of its own.

use std::{fs, io, os::unix::fs::PermissionsExt, path::Path, sync::Arc};

use axum::{
    Json, Router,
    extract::{Path as Segments, Query, State},
    http::StatusCode,
    response::{IntoResponse, Response},
    routing::{get, post},
};
use serde::Deserialize;
use serde_json::Value;
use sluis_ca::AuthorityStatus;
use sluis_control::Control;
use sluis_nouns::ObjectName;
use tokio::net::UnixListener;

use super::{JailPlan, RotateOrder};
use crate::{
    custody::{Custody, CustodyReport, RotationPlan},
    grants::{Asked, CredentialRow, Verdict},
    objects::ObjectReport,
    status::Report,
    tls_check::TlsRow,
};

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Denial {
    /// No such workload, or none of the sort that the question is about.
    #[error("{0}")]
    NotFound(String),
    /// The order cannot be carried out now.
    #[error("{0}")]
    Refused(String),
    /// The answer could not be made.
    #[error("{0}")]
    Failed(String),
}

/// Who knows the answers.
pub(crate) trait Answers: Send + Sync + 'static {
    /// What runs, and whether it is in sync.
    fn report(&self) -> Report;
    /// The objects of some kinds that users wrote; with `is_whole`, as they are written.
    ///
    /// # Errors
    ///
    /// [`Denial::NotFound`] for an unknown kind.
    fn objects(&self, kinds: &str, is_whole: bool) -> Result<Vec<ObjectReport>, Denial>;
    /// What servers take and a client sends: a workload's proxy, or anybody's in the namespace.
    ///
    /// # Errors
    ///
    /// [`Denial::NotFound`] for an unknown workload.
    fn tls_checks(&self, namespace: &str, workload: Option<&str>) -> Result<Vec<TlsRow>, Denial>;
    /// The resources of one kind that a workload's proxy should have, as JSON.
    ///
    /// # Errors
    ///
    /// [`Denial::NotFound`] for an unknown workload or kind.
    fn resources(&self, name: &ObjectName, kind: &str) -> Result<Value, Denial>;
    /// The bootstrap for a real Envoy in the place of a workload's proxy.
    ///
    /// # Errors
    ///
    /// [`Denial::NotFound`] when the workload has no proxy here.
    fn envoy_bootstrap(&self, name: &ObjectName) -> Result<Value, Denial>;
    /// The values of credentials, and who is given them.
    fn custody(&self) -> (Custody, Control);
    /// Each credential with its grants.
    fn credential_rows(&self) -> Vec<CredentialRow>;
    /// What a request would get of a credential.
    ///
    /// # Errors
    ///
    /// [`Denial::NotFound`] for an unknown credential, or for what is no URL.
    fn credential_test(&self, name: &ObjectName, asked: &Asked) -> Result<Verdict, Denial>;
    /// The state of the certificate authority.
    fn authority(&self) -> AuthorityStatus;
    /// The trusted roots as SPIFFE's bundle document.
    fn bundle(&self) -> Value;
    /// Takes a step of a change of the root; the state after it.
    ///
    /// # Errors
    ///
    /// [`Denial::Refused`] with the reason.
    fn rotate(&self, order: &RotateOrder) -> Result<AuthorityStatus, Denial>;
    /// What a jail of the workload needs.
    ///
    /// # Errors
    ///
    /// [`Denial::NotFound`] when the workload has no sidecar here.
    fn jail_plan(&self, name: &ObjectName) -> Result<JailPlan, Denial>;
}

impl IntoResponse for Denial {
    fn into_response(self) -> Response {
        let status = match self {
            Self::NotFound(_) => StatusCode::NOT_FOUND,
            Self::Refused(_) => StatusCode::CONFLICT,
            Self::Failed(_) => StatusCode::INTERNAL_SERVER_ERROR,
        };
        (status, self.to_string()).into_response()
    }
}

type Known = State<Arc<dyn Answers>>;

/// Serves the interface on a socket until the task is dropped.
///
/// A socket that an ended `sluis up` left behind is replaced; the caller holds the state lock.
///
/// # Errors
///
/// When the socket cannot be bound.
pub(crate) async fn serve(socket: &Path, answers: Arc<dyn Answers>) -> io::Result<()> {
    match fs::remove_file(socket) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let listener = UnixListener::bind(socket)?;
    fs::set_permissions(socket, fs::Permissions::from_mode(0o600))?;
    let router = Router::new()
        .route("/v1/status", get(report))
        .route("/v1/objects", get(objects))
        .route("/v1/tls-check", get(tls_check))
        .route(
            "/v1/credential-grants",
            get(|State(answers): Known| async move { Json(answers.credential_rows()) }),
        )
        .route("/v1/credentials/{namespace}/{name}/test", post(credential_test))
        .route("/v1/workloads/{namespace}/{name}/config/{kind}", get(resources))
        .route("/v1/workloads/{namespace}/{name}/bootstrap", get(bootstrap))
        .route("/v1/workloads/{namespace}/{name}/jail", get(jail))
        .route(
            "/v1/ca/status",
            get(|State(answers): Known| async move { Json(answers.authority()) }),
        )
        .route("/v1/ca/bundle", get(|State(answers): Known| async move { Json(answers.bundle()) }))
        .route("/v1/ca/rotate", post(rotate))
        .route("/v1/credentials", get(credentials))
        .route("/v1/credentials/{namespace}/{name}/refresh", post(refresh))
        .route("/v1/credentials/{namespace}/{name}/plan", post(plan))
        .with_state(answers);
    axum::serve(listener, router).await
}

async fn credentials(State(answers): Known) -> Json<Vec<CustodyReport>> {
    let (custody, control) = answers.custody();
    Json(custody.reports(&control))
}

async fn refresh(
    State(answers): Known,
    Segments((namespace, name)): Segments<(String, String)>,
) -> Result<Json<CustodyReport>, Denial> {
    let (custody, control) = answers.custody();
    let name = ObjectName::new(namespace, name);
    custody.refresh(&name, &control).await.map(Json).ok_or_else(|| no_credential(&name))
}

async fn plan(
    State(answers): Known,
    Segments((namespace, name)): Segments<(String, String)>,
) -> Result<Json<RotationPlan>, Denial> {
    let (custody, control) = answers.custody();
    let name = ObjectName::new(namespace, name);
    custody.plan(&name, &control).await.map(Json).ok_or_else(|| no_credential(&name))
}

fn no_credential(name: &ObjectName) -> Denial {
    Denial::NotFound(format!("there is no Credential {name}"))
}

async fn report(State(answers): Known) -> Json<Report> {
    Json(answers.report())
}

async fn credential_test(
    State(answers): Known,
    Segments((namespace, name)): Segments<(String, String)>,
    Json(asked): Json<Asked>,
) -> Result<Json<Verdict>, Denial> {
    answers.credential_test(&ObjectName::new(namespace, name), &asked).map(Json)
}

/// Which objects are asked for.
#[derive(Deserialize)]
struct Wanted {
    /// Kinds, separated by commas.
    kinds: String,
    /// Whether they are shown as they are written.
    whole: bool,
}

async fn objects(
    State(answers): Known,
    Query(wanted): Query<Wanted>,
) -> Result<Json<Vec<ObjectReport>>, Denial> {
    // Reads files, which may take a while on a slow disk.
    tokio::task::block_in_place(|| answers.objects(&wanted.kinds, wanted.whole)).map(Json)
}

/// Whose view of TLS is asked for.
#[derive(Deserialize)]
struct TlsClient {
    namespace: String,
    workload: Option<String>,
}

async fn tls_check(
    State(answers): Known,
    Query(client): Query<TlsClient>,
) -> Result<Json<Vec<TlsRow>>, Denial> {
    answers.tls_checks(&client.namespace, client.workload.as_deref()).map(Json)
}

async fn resources(
    State(answers): Known,
    Segments((namespace, name, kind)): Segments<(String, String, String)>,
) -> Result<Json<Value>, Denial> {
    answers.resources(&ObjectName::new(namespace, name), &kind).map(Json)
}

async fn bootstrap(
    State(answers): Known,
    Segments((namespace, name)): Segments<(String, String)>,
) -> Result<Json<Value>, Denial> {
    answers.envoy_bootstrap(&ObjectName::new(namespace, name)).map(Json)
}

async fn rotate(
    State(answers): Known,
    Json(order): Json<RotateOrder>,
) -> Result<Json<AuthorityStatus>, Denial> {
    // Files are written and keys made: not on a task that others wait for.
    tokio::task::spawn_blocking(move || answers.rotate(&order))
        .await
        .map_err(|error| Denial::Failed(error.to_string()))?
        .map(Json)
}

async fn jail(
    State(answers): Known,
    Segments((namespace, name)): Segments<(String, String)>,
) -> Result<Json<JailPlan>, Denial> {
    answers.jail_plan(&ObjectName::new(namespace, name)).map(Json)
}
