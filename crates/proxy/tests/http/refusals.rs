//! Requests and responses that must not pass, and what both sides see of them.

use serde_json::json;

use crate::peers::{Scene, to_origin};

/// Sends bytes on a fresh connection; returns the status line, having seen the connection close.
async fn refused(scene: &Scene, bytes: &str) -> String {
    let mut client = scene.client().await;
    client.send(bytes).await;
    let head = client.head().await;
    head.has("connection", "close");
    client.rest().await;
    head.line().to_owned()
}

/// The classes themselves are tested where they are judged; here one of each kind of verdict.
#[tokio::test]
async fn malformed_requests_are_answered_and_closed_and_never_reach_the_origin() {
    let scene = Scene::new().await;
    for (bytes, line) in [
        (
            "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n",
            "400 Bad Request",
        ),
        (
            "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\nContent-Length: 5\r\n\r\n",
            "400 Bad Request",
        ),
        ("GET / HTTP/1.1\nHost: a\n\n", "400 Bad Request"),
        ("GET / HTTP/1.1\r\nHost: a\r\nA: b\r\n c\r\n\r\n", "400 Bad Request"),
        ("GET / HTTP/1.1\r\nHost: a\r\nA : b\r\n\r\n", "400 Bad Request"),
        ("GET / HTTP/1.1\r\n\r\n", "400 Bad Request"),
        ("GET http://b/ HTTP/1.1\r\nHost: a\r\n\r\n", "400 Bad Request"),
        ("GET / HTTP/1.1\r\nHost: a\r\nConnection: content-length\r\n\r\n", "400 Bad Request"),
        ("POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: gzip\r\n\r\n", "501 Not Implemented"),
        ("GET / HTTP/3.0\r\n\r\n", "505 HTTP Version Not Supported"),
        ("GET / HTTP/1.0\r\nHost: a\r\n\r\n", "426 Upgrade Required"),
        ("CONNECT a:443 HTTP/1.1\r\nHost: a:443\r\n\r\n", "404 Not Found"),
        ("GET / HTTP/1.1\r\nHost: a\r\nExpect: magic\r\n\r\n", "417 Expectation Failed"),
        (
            "GET / HTTP/1.1\r\nHost: a\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\n",
            "403 Forbidden",
        ),
    ] {
        assert_eq!(refused(&scene, bytes).await, format!("HTTP/1.1 {line}"), "{bytes:?}");
    }
    let long = format!("GET / HTTP/1.1\r\nHost: a\r\nA: {}\r\n\r\n", "b".repeat(70_000));
    let line = "HTTP/1.1 431 Request Header Fields Too Large";
    assert_eq!(refused(&scene, &long).await, line);
    scene.origin.has_no_connection();
    let log = scene.log().await;
    let first = "- - 400 DPE http1.content_length_and_chunked_not_allowed 0 11 - -";
    assert!(log.iter().any(|line| line == first), "{log:?}");
    assert_eq!(log.len(), 15);
}

#[tokio::test]
async fn a_bad_chunk_stops_the_request() {
    let scene = Scene::new().await;
    let mut client = scene.client().await;
    client
        .send("POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n")
        .await;
    let mut origin = scene.origin.accept().await;
    origin.head().await;
    origin.expect("3\r\nabc\r\n").await;
    client.send("3;\nabc\r\n0\r\n\r\n").await;
    assert_eq!(client.head().await.line(), "HTTP/1.1 400 Bad Request");
    assert_eq!(origin.rest().await, "", "nothing of the bad chunk was passed on");
}

/// What an origin sends instead of a response.
async fn answered(bytes: &str) -> (String, String, Vec<String>) {
    let scene = Scene::new().await;
    let mut client = scene.client().await;
    client.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n").await;
    let mut origin = scene.origin.accept().await;
    origin.head().await;
    origin.send(bytes).await;
    origin.shutdown().await;
    let head = client.head().await;
    drop(client);
    (head.line().to_owned(), head.0, scene.log().await)
}

#[tokio::test]
async fn malformed_responses_become_502() {
    for bytes in [
        "HTTP/1.1 200 OK\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\nhello",
        "HTTP/1.1 200 OK\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        "HTTP/1.1 200 OK\nContent-Length: 0\n\n",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
        "HTTP/1.1 101 Switching\r\nUpgrade: x\r\n\r\n",
        "HTTP/1.1 204 No Content\r\nContent-Length: 5\r\n\r\nhello",
        "SSH-2.0-OpenSSH\r\n",
    ] {
        let (line, _, log) = answered(bytes).await;
        assert_eq!(line, "HTTP/1.1 502 Bad Gateway", "{bytes:?}");
        let details = "GET / 502 UPE upstream_reset_before_response_started{protocol_error}";
        assert!(log[0].starts_with(details), "{log:?}");
    }
}

#[tokio::test]
async fn an_origin_that_closes_without_an_answer_becomes_503() {
    let (line, _, log) = answered("HTTP/1.1 200 OK\r\nContent-").await;
    assert_eq!(line, "HTTP/1.1 503 Service Unavailable");
    let details = "GET / 503 UC upstream_reset_before_response_started{connection_termination}";
    assert!(log[0].starts_with(details), "{log:?}");
}

#[tokio::test]
async fn a_flood_of_interim_responses_is_stopped() {
    let flood = "HTTP/1.1 103 Early\r\nLink: x\r\n\r\n".repeat(40);
    assert_eq!(answered(&flood).await.0, "HTTP/1.1 502 Bad Gateway");
    let few = "HTTP/1.1 103 Early\r\nLink: x\r\n\r\n".repeat(3);
    let (line, ..) = answered(&format!("{few}HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")).await;
    assert_eq!(line, "HTTP/1.1 200 OK");
}

/// Response splitting: bytes behind a response must not answer the next request.
#[tokio::test]
async fn a_connection_with_bytes_behind_its_response_is_not_used_again() {
    let scene = Scene::new().await;
    let mut client = scene.client().await;
    client.send("GET /1 HTTP/1.1\r\nHost: a\r\n\r\n").await;
    let mut origin = scene.origin.accept().await;
    origin.head().await;
    origin
        .send("HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\naHTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nevil")
        .await;
    client.head().await;
    client.expect("a").await;
    client.send("GET /2 HTTP/1.1\r\nHost: a\r\n\r\n").await;
    let mut second = scene.origin.accept().await;
    assert_eq!(second.head().await.line(), "GET /2 HTTP/1.1");
    second.send("HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\ngood").await;
    client.head().await;
    client.expect("good").await;
}

#[tokio::test]
async fn a_response_cut_short_cuts_the_client_short() {
    let scene = Scene::new().await;
    let mut client = scene.client().await;
    client.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n").await;
    let mut origin = scene.origin.accept().await;
    origin.head().await;
    origin.send("HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhello").await;
    client.head().await;
    client.expect("hello").await;
    drop(origin);
    assert_eq!(client.rest().await, "", "the client must see the end, not a whole body");
    let log = scene.log().await;
    let details = "GET / 200 UC upstream_reset_after_response_started{connection_termination}";
    assert!(log[0].starts_with(details), "{log:?}");
}

#[tokio::test]
async fn http_1_0_is_served_where_it_is_allowed() {
    let settings = json!({"http_protocol_options": {"accept_http_10": true, "default_host_for_http_10": "old.local"}});
    let scene = Scene::with(&to_origin(), &settings).await;
    let mut client = scene.client().await;
    client.send("GET / HTTP/1.0\r\n\r\n").await;
    let mut origin = scene.origin.accept().await;
    let head = origin.head().await;
    assert_eq!(head.line(), "GET / HTTP/1.1");
    head.has("host", "old.local");
    origin.send("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nhi\r\n0\r\n\r\n").await;
    let head = client.head().await;
    head.lacks("transfer-encoding");
    head.has("connection", "close");
    assert_eq!(client.rest().await, "hi");
}

#[tokio::test]
async fn absolute_urls_are_refused_where_they_are_not_allowed() {
    let settings = json!({"http_protocol_options": {"allow_absolute_url": false}});
    let scene = Scene::with(&to_origin(), &settings).await;
    let mut client = scene.client().await;
    client.send("GET http://b.test/x HTTP/1.1\r\nHost: b.test\r\n\r\n").await;
    assert_eq!(client.head().await.line(), "HTTP/1.1 404 Not Found");
    scene.origin.has_no_connection();
}
