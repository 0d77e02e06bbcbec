//! Requests that are sent again, and those that must not be.

use serde_json::{Value, json};

use crate::peers::{Peer, Scene};

fn retrying(policy: &Value) -> Value {
    json!([{"match": {"prefix": "/"}, "route": {"cluster": "origin", "retry_policy": policy}}])
}

/// A proxy with one kept connection to its origin.
async fn kept(scene: &Scene) -> (Peer, Peer) {
    let mut client = scene.client().await;
    client.send("GET /first HTTP/1.1\r\nHost: a\r\n\r\n").await;
    let mut origin = scene.origin.accept().await;
    origin.head().await;
    origin.send("HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n").await;
    client.head().await;
    (client, origin)
}

#[tokio::test]
async fn a_kept_connection_that_dies_under_a_request_is_replaced_in_silence() {
    let scene = Scene::new().await;
    let (mut client, mut origin) = kept(&scene).await;
    client.send("GET /again HTTP/1.1\r\nHost: a\r\n\r\n").await;
    origin.head().await;
    drop(origin);
    let mut second = scene.origin.accept().await;
    assert_eq!(second.head().await.line(), "GET /again HTTP/1.1");
    second.send("HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n").await;
    assert_eq!(client.head().await.line(), "HTTP/1.1 200 OK");
}

/// RFC 9110 §9.2.2.
#[tokio::test]
async fn a_post_on_which_the_origin_may_have_acted_is_not_sent_again() {
    let scene = Scene::new().await;
    let (mut client, mut origin) = kept(&scene).await;
    client.send("POST /once HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\n\r\nab").await;
    origin.head().await;
    drop(origin);
    assert_eq!(client.head().await.line(), "HTTP/1.1 503 Service Unavailable");
    scene.origin.has_no_connection();
}

#[tokio::test]
async fn a_connection_that_the_origin_has_closed_is_not_even_tried() {
    let scene = Scene::new().await;
    let (mut client, mut origin) = kept(&scene).await;
    origin.shutdown().await;
    assert_eq!(origin.rest().await, "", "an idle connection that ends is closed within a second");
    client.send("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\n\r\nab").await;
    let mut second = scene.origin.accept().await;
    assert_eq!(second.head().await.line(), "POST / HTTP/1.1");
    second.expect("ab").await;
}

#[tokio::test]
async fn statuses_are_tried_again_as_the_policy_says() {
    let policy = json!({"retry_on": "5xx", "num_retries": 2, "retry_back_off": {"base_interval": "0.001s", "max_interval": "0.002s"}});
    let scene = Scene::with(&retrying(&policy), &json!({})).await;
    let mut client = scene.client().await;
    client.send("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\n\r\nab").await;
    for status in ["503 Busy", "500 Broken", "200 OK"] {
        let mut origin = scene.origin.accept().await;
        origin.head().await;
        origin.expect("ab").await;
        origin.send(&format!("HTTP/1.1 {status}\r\nContent-Length: 0\r\n\r\n")).await;
    }
    assert_eq!(client.head().await.line(), "HTTP/1.1 200 OK");
    assert_eq!(scene.proxy.counter("http.upstream_rq_retry").await, 2);
}

#[tokio::test]
async fn the_last_answer_counts_when_no_tries_are_left() {
    let policy = json!({"retry_on": "gateway-error", "num_retries": 1, "retry_back_off": {"base_interval": "0.001s"}});
    let scene = Scene::with(&retrying(&policy), &json!({})).await;
    let mut client = scene.client().await;
    client.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n").await;
    for _ in 0..2 {
        let mut origin = scene.origin.accept().await;
        origin.head().await;
        origin.send("HTTP/1.1 503 Busy\r\nContent-Length: 0\r\n\r\n").await;
    }
    assert_eq!(client.head().await.line(), "HTTP/1.1 503 Service Unavailable");
    scene.origin.has_no_connection();
}

#[tokio::test]
async fn a_try_has_its_own_time() {
    let policy = json!({"retry_on": "reset", "num_retries": 1, "per_try_timeout": "0.1s", "retry_back_off": {"base_interval": "0.001s"}});
    let scene = Scene::with(&retrying(&policy), &json!({})).await;
    let mut client = scene.client().await;
    client.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n").await;
    let mut first = scene.origin.accept().await;
    first.head().await;
    let mut second = scene.origin.accept().await;
    second.head().await;
    assert_eq!(client.head().await.line(), "HTTP/1.1 504 Gateway Timeout");
    assert_eq!(first.rest().await + &second.rest().await, "");
}

/// The endpoint's queue of connections is full, so that nobody ever gets one.
#[tokio::test]
async fn a_client_that_leaves_while_we_connect_is_noticed() {
    let deaf = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).unwrap();
    deaf.bind(&std::net::SocketAddr::from(([127, 0, 0, 1], 0)).into()).unwrap();
    deaf.listen(0).unwrap();
    let at = deaf.local_addr().unwrap().as_socket().unwrap();
    // Two fit: the one that waits to be accepted, and one more.
    let mut waiting = Vec::new();
    loop {
        let socket = tokio::net::TcpSocket::new_v4().unwrap();
        let connecting = socket.connect(at);
        let limit = std::time::Duration::from_millis(300);
        match tokio::time::timeout(limit, connecting).await {
            Ok(stream) => waiting.push(stream.unwrap()),
            Err(_) => break,
        }
    }
    let routes = json!([{"name": "r", "match": {"prefix": "/"}, "route": {"cluster": "deaf"}}]);
    let scene = Scene::with_cluster(&routes, &json!({}), ("deaf", at)).await;
    let mut client = scene.client().await;
    client.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n").await;
    scene.proxy.until_counter("http.downstream_rq_total", 1).await;
    drop(client);
    // Long before the two seconds after which we give up connecting.
    let log = scene.log().await;
    assert_eq!(log, ["GET / 0 DC downstream_remote_disconnect 0 0 deaf r"]);
}
