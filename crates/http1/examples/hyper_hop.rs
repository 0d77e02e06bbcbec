//! A small proxy made of hyper: a peer of `tests/framing`, which compares how each proxy reads bytes.
//!
//! In:    `FRONT=BACK` pairs of addresses; what comes in at the one goes to the other.
//! Out:   until it is killed; one connection behind for each request.
//! Never: part of the product.

use std::time::Duration;

use http_body_util::{BodyExt, Empty, combinators::BoxBody};
use hyper::body::{Bytes, Incoming};
use hyper::header::{
    CONNECTION, CONTENT_LENGTH, HOST, HeaderName, HeaderValue, TE, TRAILER, TRANSFER_ENCODING,
    UPGRADE,
};
use hyper::service::service_fn;
use hyper::{Request, Response, StatusCode, Uri, Version, client, server};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::{TcpListener, TcpStream};

/// How long a connection waits for a head; the other proxies wait as long.
const PATIENCE: Duration = Duration::from_secs(1);
/// How long a connection lasts: hyper has no limit for a body that does not come.
const LASTS: Duration = Duration::from_millis(1800);

type Body = BoxBody<Bytes, hyper::Error>;
type Failure = Box<dyn std::error::Error + Send + Sync>;

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Failure> {
    for pair in std::env::args().skip(1) {
        let (front, back) = pair.split_once('=').ok_or("an argument is FRONT=BACK")?;
        let (listener, back) = (TcpListener::bind(front).await?, back.to_owned());
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                tokio::spawn(serve(stream, back.clone()));
            }
        });
    }
    std::future::pending().await
}

async fn serve(stream: TcpStream, back: String) {
    let service = service_fn(move |request| {
        let back = back.clone();
        async move {
            Ok::<_, hyper::Error>(forward(request, &back).await.unwrap_or_else(|_| {
                let mut answer = Response::new(nothing());
                *answer.status_mut() = StatusCode::BAD_GATEWAY;
                answer
            }))
        }
    });
    let mut builder = server::conn::http1::Builder::new();
    builder.timer(TokioTimer::new()).header_read_timeout(PATIENCE);
    let connection = builder.serve_connection(TokioIo::new(stream), service);
    // What fails ends the connection, and that is seen from outside.
    let _ended = tokio::time::timeout(LASTS, connection).await;
}

async fn forward(mut request: Request<Incoming>, back: &str) -> Result<Response<Body>, Failure> {
    let stream = TcpStream::connect(back).await?;
    let (mut sender, connection) = client::conn::http1::handshake(TokioIo::new(stream)).await?;
    tokio::spawn(connection);
    if !request.headers().contains_key(HOST) {
        let host = request.uri().authority().map_or("old", |authority| authority.as_str());
        let host = HeaderValue::from_str(host)?;
        request.headers_mut().insert(HOST, host);
    }
    let query = request.uri().query().map(|query| format!("?{query}")).unwrap_or_default();
    *request.uri_mut() = format!("{}{query}", request.uri().path()).parse::<Uri>()?;
    *request.version_mut() = Version::HTTP_11;
    strip(request.headers_mut());
    let mut answer = sender.send_request(request).await?;
    strip(answer.headers_mut());
    Ok(answer.map(|body| body.boxed()))
}

/// Framing is hyper's own on each side; the coding stays said, or a GET would lose its body.
fn strip(fields: &mut hyper::HeaderMap) {
    let named: Vec<HeaderName> = fields
        .get_all(CONNECTION)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .filter_map(|name| name.trim().parse().ok())
        .filter(|name| *name != HOST)
        .collect();
    for name in named.iter().chain(&[CONNECTION, TE, TRAILER, UPGRADE]) {
        fields.remove(name);
    }
    if fields.contains_key(TRANSFER_ENCODING) {
        fields.remove(CONTENT_LENGTH);
    }
}

fn nothing() -> Body {
    Empty::new().map_err(|never| match never {}).boxed()
}
