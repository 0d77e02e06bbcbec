//! How hyper reads the same bytes: a whole server, or a client, at the other end of a pipe in memory.
//!
//! In:    the bytes of one side of a connection.
//! Out:   the messages that hyper takes them for.
//! Never: judges.

use std::cell::RefCell;
use std::rc::Rc;

use http_body_util::{BodyExt, Empty};
use hyper::body::{Bytes, Incoming};
use hyper::{Request, Response, client, server, service};
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncReadExt, AsyncWriteExt, duplex};
use tokio::runtime::{Builder, Runtime};

/// More than hyper answers to any input: a server that cannot write stops reading.
const PIPE_BYTES: usize = 64 << 20;

/// One message, whole.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Seen {
    /// The method; empty for a response.
    pub method: Vec<u8>,
    /// Path and query; empty for CONNECT, and for a response.
    pub path: Vec<u8>,
    /// The status; 0 for a request.
    pub status: u16,
    /// The body, without its framing.
    pub content: Vec<u8>,
}

thread_local! {
    static RUNTIME: Runtime =
        Builder::new_current_thread().build().expect("a runtime without I/O can be made");
}

/// The requests that hyper's server reads, until the first that it refuses or that does not end.
pub fn requests(data: &[u8]) -> Vec<Seen> {
    let seen = Rc::new(RefCell::new(Vec::new()));
    let found = Rc::clone(&seen);
    let service = service::service_fn(move |request: Request<Incoming>| {
        let found = Rc::clone(&found);
        async move {
            let (head, body) = request.into_parts();
            let content = body.collect().await?.to_bytes().to_vec();
            let path = head.uri.path_and_query().map(|path| match path.query() {
                // `http://a?q` has the path `/` (RFC 9110 §4.2.3), which hyper writes only if asked.
                Some(query) => format!("{}?{query}", path.path()).into_bytes(),
                None => path.path().as_bytes().to_vec(),
            });
            found.borrow_mut().push(Seen {
                method: head.method.as_str().as_bytes().to_vec(),
                path: path.unwrap_or_default(),
                status: 0,
                content,
            });
            Ok::<_, hyper::Error>(Response::new(Empty::<Bytes>::new()))
        }
    });
    RUNTIME.with(|runtime| {
        runtime.block_on(async {
            let (mut near, far) = duplex(PIPE_BYTES);
            near.write_all(data).await.expect("the pipe has room");
            near.shutdown().await.expect("the pipe can be ended");
            // Or hyper takes the end of what comes for the end of the connection.
            let mut builder = server::conn::http1::Builder::new();
            builder.half_close(true);
            let connection = builder.serve_connection(TokioIo::new(far), service);
            // How it ended does not matter: what it read before does.
            let _ended = connection.await;
        });
    });
    seen.take()
}

/// The response that hyper's client reads as the answer to a request of `method`, if it takes it.
pub fn response(data: &[u8], method: &str) -> Option<Seen> {
    RUNTIME.with(|runtime| {
        runtime.block_on(async {
            let (mut near, far) = duplex(PIPE_BYTES);
            let (mut sender, connection) =
                client::conn::http1::handshake(TokioIo::new(far)).await.ok()?;
            let request = Request::builder()
                .method(method)
                .uri("/")
                .header("host", "a")
                .body(Empty::<Bytes>::new())
                .expect("a request that is always the same");
            let asking = async {
                let (head, body) = sender.send_request(request).await.ok()?.into_parts();
                let content = body.collect().await.ok()?.to_bytes().to_vec();
                let (method, path) = (Vec::new(), Vec::new());
                Some(Seen { method, path, status: head.status.as_u16(), content })
            };
            let answering = async {
                let mut asked = [0; 1024];
                if near.read(&mut asked).await.is_ok_and(|len| len > 0) {
                    // hyper may have gone by now.
                    let _gone = near.write_all(data).await;
                    let _gone = near.shutdown().await;
                }
                std::future::pending::<()>().await;
            };
            let running = async {
                // An error of the connection reaches whoever asked.
                let _ended = connection.await;
                std::future::pending::<()>().await;
            };
            tokio::select! {
                seen = asking => seen,
                () = answering => None,
                () = running => None,
            }
        })
    })
}
