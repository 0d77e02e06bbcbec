//! The command line's side of the interface of a running `sluis up`.
//!
//! In:    a path such as `/v1/status`.
//! Out:   the JSON answered, or why there is none.
//! Never: waits for ever: the whole call has [`ANSWER_MAX`].

use std::{
    io,
    path::{Path, PathBuf},
    time::Duration,
};

use anyhow::{Context, Result, bail};
use http_body_util::{BodyExt, Full, Limited};
use hyper::{Request, body::Bytes, client::conn::http1};
use hyper_util::rt::TokioIo;
use serde_json::Value;
use tokio::{net::UnixStream, time::timeout};

use crate::state::StateDir;

/// Longest wait for an answer: the control plane answers from memory.
const ANSWER_MAX: Duration = Duration::from_secs(10);
/// Longest answer that is read: the whole configuration of a large mesh fits.
const ANSWER_BYTES_MAX: usize = 256 << 20;

/// No `sluis up` runs with this state directory.
#[derive(Debug)]
pub(crate) struct NotRunning(PathBuf);

impl std::fmt::Display for NotRunning {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(
            f,
            "no `sluis up` answers at {}; start one, or name its --state-dir",
            self.0.display()
        )
    }
}

impl std::error::Error for NotRunning {}

/// Asks the running `sluis up`.
///
/// # Errors
///
/// [`NotRunning`] when none answers; the text of the refusal when it refuses.
pub(crate) fn get(state: &StateDir, path: &str) -> Result<Value> {
    get_from(&state.control_socket(), path)
}

/// Orders something of the running `sluis up`; what it answers.
///
/// # Errors
///
/// As [`get`].
pub(crate) fn post(state: &StateDir, path: &str, order: &Value) -> Result<Value> {
    let request = Request::post(path)
        .header("host", "sluis")
        .header("content-type", "application/json")
        .body(Full::new(Bytes::from(serde_json::to_vec(order)?)))?;
    call(&state.control_socket(), request)
}

/// Asks whoever serves HTTP on a Unix socket, such as a proxy's admin interface.
///
/// # Errors
///
/// As [`get`].
pub(crate) fn get_from(socket: &Path, path: &str) -> Result<Value> {
    call(socket, Request::get(path).header("host", "sluis").body(Full::default())?)
}

fn call(socket: &Path, request: Request<Full<Bytes>>) -> Result<Value> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        timeout(ANSWER_MAX, ask(socket, request)).await.context("no answer in time")?
    })
}

async fn ask(socket: &Path, request: Request<Full<Bytes>>) -> Result<Value> {
    let stream = match UnixStream::connect(socket).await {
        Ok(stream) => stream,
        Err(error)
            if matches!(
                error.kind(),
                io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused
            ) =>
        {
            return Err(NotRunning(socket.to_path_buf()).into());
        }
        Err(error) => return Err(error).context(socket.display().to_string()),
    };
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
    let driver = tokio::spawn(connection);
    let answer = sender.send_request(request).await?;
    let status = answer.status();
    let body = Limited::new(answer.into_body(), ANSWER_BYTES_MAX).collect().await;
    driver.abort();
    let body = body.map_err(|error| anyhow::anyhow!("the answer broke off: {error}"))?.to_bytes();
    if !status.is_success() {
        bail!("{}", String::from_utf8_lossy(&body));
    }
    Ok(serde_json::from_slice(&body)?)
}
