//! Keys on servers: there, down, slow, wrong, changed. No key is ever taken in their place.

use std::{
    net::SocketAddr,
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use serde_json::{Value, json};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpListener, TcpStream},
    task::JoinSet,
};

use crate::{
    harness::{Proxy, cluster, listener, soon},
    signing::Signer,
};

/// What the server does.
#[derive(Clone)]
enum Mode {
    Answer(String),
    Hang,
    Close,
}

/// A server of keys.
struct Keys {
    address: SocketAddr,
    mode: Arc<Mutex<Mode>>,
    asked: Arc<AtomicUsize>,
    _task: JoinSet<()>,
}

fn answer(status: u16, body: &str) -> Mode {
    Mode::Answer(format!(
        "HTTP/1.1 {status} X\r\ncontent-length: {}\r\nconnection: close\r\n\r\n{body}",
        body.len()
    ))
}

impl Keys {
    async fn start(mode: Mode) -> Self {
        let server = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = server.local_addr().unwrap();
        let (mode, asked) = (Arc::new(Mutex::new(mode)), Arc::new(AtomicUsize::new(0)));
        let mut task = JoinSet::new();
        let (shared, count) = (Arc::clone(&mode), Arc::clone(&asked));
        task.spawn(async move {
            let mut open = Vec::new();
            loop {
                let (mut stream, _) = server.accept().await.unwrap();
                let mut bytes = Vec::new();
                while !bytes.ends_with(b"\r\n\r\n") {
                    if stream.read_buf(&mut bytes).await.unwrap_or(0) == 0 {
                        break;
                    }
                }
                assert!(bytes.starts_with(b"GET /keys?v=1 HTTP/1.1\r\n"), "{bytes:?}");
                count.fetch_add(1, Ordering::SeqCst);
                let mode = shared.lock().unwrap().clone();
                match mode {
                    Mode::Answer(text) => drop(stream.write_all(text.as_bytes()).await),
                    Mode::Hang => open.push(stream),
                    Mode::Close => {}
                }
            }
        });
        Self { address, mode, asked, _task: task }
    }
}

/// A proxy that takes tokens by these keys, and answers those who have one.
async fn proxy(keys: &Keys) -> Proxy {
    let manager = json!({
        "@type": "type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager",
        "stat_prefix": "in",
        "route_config": { "name": "t", "virtual_hosts": [{ "name": "all", "domains": ["*"], "routes": [
            { "match": { "prefix": "/" }, "direct_response": { "status": 200 } }] }] },
        "http_filters": [
            { "name": "jwt", "typed_config": {
                "@type": "type.googleapis.com/envoy.extensions.filters.http.jwt_authn.v3.JwtAuthentication",
                "providers": { "me": { "issuer": "me", "remote_jwks": {
                    "http_uri": { "uri": "http://keys.test/keys?v=1", "cluster": "keys", "timeout": "0.5s" },
                    "cache_duration": "0.5s",
                    "async_fetch": { "failed_refetch_duration": "0.05s" } } } },
                "rules": [{ "match": { "prefix": "/" }, "requires": { "provider_name": "me" } }] } },
            { "name": "router", "typed_config": {
                "@type": "type.googleapis.com/envoy.extensions.filters.http.router.v3.Router" } },
        ],
    });
    let chain =
        json!({ "filter_chains": [{ "filters": [{ "name": "http", "typed_config": manager }] }] });
    Proxy::with(json!([listener("in", chain)]), json!([cluster("keys", &[keys.address])])).await
}

async fn ask(at: SocketAddr, token: &str) -> String {
    let mut stream = TcpStream::connect(at).await.unwrap();
    let request = format!(
        "GET / HTTP/1.1\r\nhost: a\r\nauthorization: Bearer {token}\r\nconnection: close\r\n\r\n"
    );
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut text = String::new();
    soon("answer", stream.read_to_string(&mut text)).await.unwrap();
    let body = text.split("\r\n\r\n").nth(1).unwrap_or_default();
    format!("{} {body}", &text[9..12])
}

/// Asks until the answer is this one.
async fn until(at: SocketAddr, token: &str, expected: &str) {
    soon(expected, async {
        while ask(at, token).await.trim_end() != expected {
            tokio::task::yield_now().await;
        }
    })
    .await;
}

fn claims() -> Value {
    json!({ "iss": "me" })
}

#[tokio::test]
async fn keys_are_fetched_once_for_many_and_again_before_they_are_too_old() {
    let signer = Signer::new();
    let keys = Keys::start(answer(200, &signer.set(&["rsa"]))).await;
    let proxy = proxy(&keys).await;
    let (at, token) = (proxy.address("in"), signer.token("RS256", &claims()));
    let mut all = JoinSet::new();
    for _ in 0..20 {
        let token = token.clone();
        all.spawn(async move { ask(at, &token).await });
    }
    for answer in all.join_all().await {
        assert_eq!(answer, "200 ");
    }
    assert_eq!(keys.asked.load(Ordering::SeqCst), 1, "one question for all");
    // Other keys: what they have not signed is refused from then on, remembered or not.
    let other = Signer::new();
    *keys.mode.lock().unwrap() = answer(200, &other.set(&["rsa"]));
    until(at, &token, "401 Jwt verification fails").await;
    assert_eq!(ask(at, &other.token("RS256", &claims())).await, "200 ");
}

/// CVE-2026-31837: no key of ours takes the place of those that cannot be fetched.
#[tokio::test]
async fn without_keys_every_token_is_refused_until_they_come() {
    let signer = Signer::new();
    let token = signer.token("ES256", &claims());
    let too_long = format!("{{\"keys\":[],\"x\":\"{}\"}}", "x".repeat(2 << 20));
    let failed = "401 Jwks remote fetch is failed";
    for (what, mode, expected) in [
        ("an error", answer(500, "x"), failed),
        ("not found", answer(404, &signer.set(&["es256"])), failed),
        ("elsewhere", answer(302, &signer.set(&["es256"])), failed),
        ("closed", Mode::Close, failed),
        ("slow", Mode::Hang, failed),
        ("too long", answer(200, &too_long), failed),
        ("no JSON", answer(200, "<html>"), "401 Jwks is an invalid JSON"),
        ("no keys", answer(200, "{}"), "401 Jwks does not have [keys] field"),
        (
            "secrets",
            answer(200, &signer.set(&["oct"])),
            "401 Jwks doesn't have any valid public key",
        ),
        ("other keys", answer(200, &signer.set(&["rsa"])), "401 Jwt verification fails"),
    ] {
        let keys = Keys::start(mode).await;
        let proxy = proxy(&keys).await;
        let at = proxy.address("in");
        let start = Instant::now();
        assert_eq!(ask(at, &token).await, expected, "{what}");
        assert!(start.elapsed() < Duration::from_secs(5), "{what}: the wait is bounded");
        *keys.mode.lock().unwrap() = answer(200, &signer.set(&["es256"]));
        until(at, &token, "200").await;
    }
}

#[tokio::test]
async fn keys_that_are_too_old_are_not_used_any_more() {
    let signer = Signer::new();
    let keys = Keys::start(answer(200, &signer.set(&["ed"]))).await;
    let proxy = proxy(&keys).await;
    let (at, token) = (proxy.address("in"), signer.token("EdDSA", &claims()));
    assert_eq!(ask(at, &token).await, "200 ");
    *keys.mode.lock().unwrap() = Mode::Close;
    until(at, &token, "401 Jwks remote fetch is failed").await;
    *keys.mode.lock().unwrap() = answer(200, &signer.set(&["ed"]));
    until(at, &token, "200").await;
}
