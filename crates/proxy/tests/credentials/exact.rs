//! Signatures are of the bytes that the server gets, whatever the client sends: a table of oddities,
//! each through every pair of HTTP versions, each verified from what came or refused.

use serde_json::{Value, json};

use crate::{
    capture::{Captured, ok},
    scene::{HOST, SECRET, Scene, Setting},
    signatures::{is_aws, is_seeds},
};

fn seeds() -> Value {
    json!({ "hmac": {
        "key": "k",
        "string_to_sign": "{method}\n{authority}\n{path_and_query}\n{date}\n{body_digest}",
        "date_format": "%Y%m%dT%H%M%SZ",
        "body_digest": { "header": "content-digest", "max_bytes": "65536",
            "encoding": "TEXT_STRUCTURED" },
        "outputs": [
            { "header": "x-date", "template": "{date}" },
            { "header": "x-authorization",
                "template": "Version=V1, Credential={secret.id}, Signature={signature:hex}" }] } })
}

fn aws() -> Value {
    json!({ "aws_sig_v4": {
        "service": "execute-api", "region": "eu-west-1", "access_key_id_key": "id",
        "secret_access_key_key": "k", "max_body_bytes": "65536",
        "signed_headers": ["content-type", "x-custom"] } })
}

/// What a client may send for a target.
const TARGETS: [&str; 40] = [
    "/",
    "/a",
    "/a/b/",
    "//",
    "//a//b",
    "/a/./b",
    "/a/../b",
    "/..",
    "/a/..%2fb",
    "/a%2Fb",
    "/a%2fb",
    "/%7Euser",
    "/~user",
    "/a%20b",
    "/a+b",
    "/%61",
    "/%C3%A9",
    "/a;x=y",
    "/a;x=y/b",
    "/a:b@c",
    "/a?",
    "/a?b",
    "/a?b=",
    "/a?=b",
    "/a?b=c&b=a",
    "/a?z=1&a=2",
    "/a?b=c+d",
    "/a?b=c%20d",
    "/a?b=%2B",
    "/a?&&b=c",
    "/a?b=c&",
    "/a?%62=c",
    "/a?b=a/b?c",
    "/a?b[]=1",
    "/a?b=%e2%82%ac",
    "/a?B=1&b=2",
    "/a?b=1;c=2",
    "/a?x-amz-date=1",
    "/%",
    "/a?b=%zz",
];

/// What it may send for fields.
const FIELDS: [&str; 18] = [
    "X-Custom: a\r\n",
    "X-CUSTOM: a\r\nx-custom: b\r\n",
    "X-Custom:   a  b   \r\n",
    "X-Custom: \r\n",
    "X-Custom:a\tb\r\n",
    "X-Custom: \u{e9}\r\n",
    "X-Custom: \"a  b\"\r\n",
    "X_Custom: a\r\n",
    "Content-Type: text/plain; charset=utf-8\r\n",
    "X-Date: 20000101T000000Z\r\n",
    "X_Date: 20000101T000000Z\r\nx-authorization: Version=V1\r\n",
    "X-Amz-Date: 20000101T000000Z\r\nX-Amz-Content-Sha256: UNSIGNED-PAYLOAD\r\n",
    "Connection: X-Authorization, X-Date, X-Amz-Date, Authorization, Content-Digest\r\n",
    "Connection: close\r\n",
    "Authorization: AWS4-HMAC-SHA256 Credential=x\r\n",
    "Content-Digest: sha-256=:AAAA:\r\n",
    "X-Forwarded-For: 1.2.3.4\r\nX-Request-Id: mine\r\n",
    "TE: trailers, gzip\r\nKeep-Alive: 1\r\n",
];

async fn scene(injection: Value, is_http2: bool) -> Scene {
    let entries = vec![("k", SECRET.to_owned()), ("id", "AK1".to_owned())];
    let setting = Setting { injection, is_http2, entries, ..Setting::default() };
    Scene::answering(setting, |_| ok()).await
}

/// Requests of HTTP/1.1: targets, fields, bodies, methods.
fn requests() -> Vec<String> {
    let head = |target: &str, fields: &str| {
        format!("GET {target} HTTP/1.1\r\nHost: {HOST}\r\n{fields}\r\n")
    };
    let mut all: Vec<String> = TARGETS.iter().map(|target| head(target, "")).collect();
    all.extend(FIELDS.iter().map(|fields| head("/f", fields)));
    for host in ["API.test", "api.test:443", "api.test:80", "api.test."] {
        all.push(format!("GET / HTTP/1.1\r\nHost: {host}\r\n\r\n"));
    }
    all.push(format!("GET http://{HOST}/abs?x=1 HTTP/1.1\r\nHost: other.test\r\n\r\n"));
    all.push(format!("GET http://{HOST} HTTP/1.1\r\nHost: {HOST}\r\n\r\n"));
    all.push(format!("OPTIONS * HTTP/1.1\r\nHost: {HOST}\r\n\r\n"));
    for method in ["POST", "PUT", "PATCH", "DELETE", "M-SEARCH", "get"] {
        let start = format!("{method} /m HTTP/1.1\r\nHost: {HOST}\r\n");
        all.push(format!("{start}\r\n"));
        all.push(format!("{start}Content-Length: 0\r\n\r\n"));
        all.push(format!("{start}Content-Length: 11\r\n\r\nhello world"));
        all.push(format!(
            "{start}Transfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n6;x=y\r\n world\r\n0\r\n\r\n"
        ));
    }
    all.push(format!(
        "POST /e HTTP/1.1\r\nHost: {HOST}\r\nExpect: 100-continue\r\nContent-Length: 2\r\n\r\nhi"
    ));
    all.push(format!(
        "POST /t HTTP/1.1\r\nHost: {HOST}\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nhi\r\n0\r\n\
         X-Date: 1\r\nX-Authorization: x\r\n\r\n"
    ));
    all
}

async fn check(
    injection: Value,
    is_good: fn(&Captured) -> Result<(), String>,
    is_http2: bool,
) -> (usize, usize) {
    let scene = scene(injection, is_http2).await;
    let (mut verified, mut refused) = (0, 0);
    for request in requests() {
        let reply = scene.send(&request).await;
        if reply.status == 200 {
            let seen = scene.server.only();
            is_good(&seen).unwrap_or_else(|fault| panic!("{request:?}: {fault}\n{seen:?}"));
            verified += 1;
        } else {
            assert!(matches!(reply.status, 400 | 404 | 503), "{request:?}: {reply:?}");
            assert!(scene.server.seen().is_empty(), "{request:?} was refused, and went out");
            refused += 1;
        }
    }
    (verified, refused)
}

#[tokio::test]
async fn a_template_signs_what_arrives() {
    for is_http2 in [false, true] {
        let (verified, refused) = check(seeds(), is_seeds, is_http2).await;
        assert!(verified >= 75 && refused <= 15, "{verified} verified, {refused} refused");
    }
}

#[tokio::test]
async fn signature_version_4_is_of_what_arrives() {
    for is_http2 in [false, true] {
        let (verified, refused) = check(aws(), is_aws, is_http2).await;
        assert!(verified >= 55, "{verified} verified, {refused} refused");
    }
}

#[tokio::test]
async fn what_came_by_http2_is_signed_as_it_is_sent_on() {
    let request = |method: &str, target: &str| {
        let uri = format!("http://{HOST}{target}");
        http::Request::builder().method(method).uri(uri)
    };
    type Verify = fn(&Captured) -> Result<(), String>;
    for (injection, is_good) in [(seeds(), is_seeds as Verify), (aws(), is_aws as Verify)] {
        for is_http2 in [false, true] {
            let scene = scene(injection.clone(), is_http2).await;
            let mut verified = 0;
            let mut all: Vec<(http::request::Builder, &[u8])> = Vec::new();
            for target in TARGETS {
                if http::Uri::try_from(format!("http://{HOST}{target}")).is_ok() {
                    all.push((request("GET", target), b""));
                }
            }
            all.push((request("POST", "/b"), b"hello"));
            all.push((request("POST", "/b").header("content-length", "5"), b"hello"));
            all.push((request("POST", "/b"), b""));
            all.push((request("GET", "/c").header("cookie", "a=b").header("cookie", "c=d"), b""));
            all.push((request("GET", "/c").header("x-custom", "a").header("x-custom", "b"), b""));
            all.push((request("GET", "/c").header("x-date", "1").header("x_date", "2"), b""));
            all.push((request("GET", "/c").header("te", "trailers"), b""));
            for (request, body) in all {
                let text = format!("{request:?}");
                let reply = scene.http2(request.body(()).unwrap(), body).await;
                if reply.status == 200 {
                    let seen = scene.server.only();
                    is_good(&seen).unwrap_or_else(|fault| panic!("{text}: {fault}\n{seen:?}"));
                    verified += 1;
                } else {
                    assert!(matches!(reply.status, 0 | 400 | 503), "{text}: {reply:?}");
                    assert!(scene.server.seen().is_empty(), "{text}");
                }
            }
            assert!(verified >= 30, "{verified}");
        }
    }
}

#[tokio::test]
async fn a_body_that_is_longer_than_may_be_held_is_refused() {
    let scene = scene(seeds(), false).await;
    for (length, status) in [(65_536, 200), (65_537, 413)] {
        let body = "b".repeat(length);
        let request =
            format!("POST / HTTP/1.1\r\nHost: {HOST}\r\nContent-Length: {length}\r\n\r\n{body}");
        assert_eq!(scene.send(&request).await.status, status, "{length}");
    }
    is_seeds(&scene.server.only()).unwrap();
    let uri = format!("http://{HOST}/");
    let request = http::Request::post(uri).body(()).unwrap();
    assert_eq!(scene.http2(request, &[b'b'; 65_537]).await.status, 413);
    assert!(scene.server.seen().is_empty());
}

#[tokio::test]
async fn each_try_is_signed_anew() {
    let policy = json!({ "retry_on": "5xx", "num_retries": 2,
        "retry_back_off": { "base_interval": "1.1s", "max_interval": "1.2s" } });
    let entries = vec![("k", SECRET.to_owned()), ("id", "AK1".to_owned())];
    let nonce = json!({ "hmac": {
        "key": "k", "string_to_sign": "{method}\n{date}", "date_format": "%s",
        "outputs": [{ "header": "x-date", "template": "{date}" },
            { "header": "x-sig", "template": "{signature:hex}" }] } });
    let setting = Setting {
        injection: nonce,
        entries,
        routes: json!([{ "match": { "prefix": "/" },
            "route": { "cluster": "api", "retry_policy": policy } }]),
        ..Setting::default()
    };
    let scene = Scene::answering(setting, |_| (503, Vec::new(), String::new())).await;
    assert_eq!(scene.get("/", "").await.status, 503);
    let seen = scene.server.seen();
    assert_eq!(seen.len(), 3);
    for request in &seen {
        assert_eq!(request.fields.iter().filter(|(name, _)| name == "x-sig").count(), 1);
        assert_eq!(request.fields.iter().filter(|(name, _)| name == "x-date").count(), 1);
    }
}
