//! One request over a connection that is open, and the head of its answer.

use bytes::Bytes;
use http::Request;
use http_body_util::Full;
use hyper::body::Incoming;
use hyper_util::rt::TokioIo;
use tokio::task::JoinSet;

use crate::conn::Io;

/// Sends a request. The connection's own work is a task of `tasks`.
pub(super) async fn exchange(
    tasks: &mut JoinSet<()>,
    io: Io,
    request: Request<Full<Bytes>>,
    is_http2: bool,
) -> Result<http::Response<Incoming>, hyper::Error> {
    let io = TokioIo::new(io);
    if is_http2 {
        let (mut sender, connection) = hyper::client::conn::http2::handshake(Local, io).await?;
        tasks.spawn_local(async move { drop(connection.await) });
        return sender.send_request(request).await;
    }
    let (mut sender, connection) = hyper::client::conn::http1::handshake(io).await?;
    tasks.spawn_local(async move { drop(connection.await) });
    sender.send_request(request).await
}

/// Runs hyper's tasks on this thread.
#[derive(Clone, Copy)]
struct Local;

impl<F: Future<Output = ()> + 'static> hyper::rt::Executor<F> for Local {
    fn execute(&self, task: F) {
        tokio::task::spawn_local(task);
    }
}
