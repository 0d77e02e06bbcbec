//! Bodies on their way: both directions at once, with back-pressure, interim answers, upgrades.

use serde_json::json;

use crate::peers::{Scene, to_origin};

#[tokio::test]
async fn an_answer_may_come_before_the_request_has_ended() {
    let scene = Scene::new().await;
    let mut client = scene.client().await;
    client.send("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 10\r\n\r\nhello").await;
    let mut origin = scene.origin.accept().await;
    origin.head().await;
    origin.expect("hello").await;
    origin.send("HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nwo").await;
    client.head().await;
    client.expect("wo").await;
    client.send("world").await;
    origin.expect("world").await;
    origin.send("rk").await;
    client.expect("rk").await;
    client.send("GET /2 HTTP/1.1\r\nHost: a\r\n\r\n").await;
    assert_eq!(origin.head().await.line(), "GET /2 HTTP/1.1", "both connections are still good");
}

#[tokio::test]
async fn an_early_answer_to_an_unfinished_request_ends_the_connection() {
    let scene = Scene::new().await;
    let mut client = scene.client().await;
    client.send("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 10\r\n\r\nhello").await;
    let mut origin = scene.origin.accept().await;
    origin.head().await;
    origin.send("HTTP/1.1 413 Too Large\r\nContent-Length: 2\r\n\r\nno").await;
    assert_eq!(client.head().await.line(), "HTTP/1.1 413 Payload Too Large");
    client.expect("no").await;
    assert_eq!(client.rest().await, "");
}

#[tokio::test]
async fn long_bodies_pass_both_ways() {
    let scene = Scene::new().await;
    let mut client = scene.client().await;
    let body: Vec<u8> = (0..3_000_000_u32).map(|n| (n % 251) as u8).collect();
    client.send("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 3000000\r\n\r\n").await;
    let mut origin = scene.origin.accept().await;
    origin.head().await;
    let (_, received) = tokio::join!(client.send_bytes(&body), origin.bytes(body.len()));
    assert!(received == body);
    origin.send("HTTP/1.1 200 OK\r\nContent-Length: 3000000\r\n\r\n").await;
    client.head().await;
    let (_, received) = tokio::join!(origin.send_bytes(&body), client.bytes(body.len()));
    assert!(received == body);
    assert_eq!(scene.log().await, ["POST / 200 - via_upstream 3000000 3000000 origin default"]);
}

#[tokio::test]
async fn a_client_that_does_not_read_stops_the_origin() {
    let scene = Scene::new().await;
    let mut client = scene.client().await;
    client.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n").await;
    let mut origin = scene.origin.accept().await;
    origin.head().await;
    let size = 64 << 20;
    origin.send(&format!("HTTP/1.1 200 OK\r\nContent-Length: {size}\r\n\r\n")).await;
    let body = vec![b'x'; size];
    let sending = origin.send_bytes(&body);
    tokio::pin!(sending);
    // The kernel's buffers and ours fill; then nothing moves, however long one waits.
    let stuck = tokio::time::timeout(std::time::Duration::from_millis(500), &mut sending).await;
    assert!(stuck.is_err(), "64 MiB disappeared into the proxy");
    client.head().await;
    let (_, received) = tokio::join!(sending, client.bytes(size));
    assert_eq!(received.len(), size);
}

#[tokio::test]
async fn a_client_that_goes_ends_the_request() {
    let scene = Scene::new().await;
    let mut client = scene.client().await;
    client.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n").await;
    let mut origin = scene.origin.accept().await;
    origin.head().await;
    drop(client);
    assert_eq!(origin.rest().await, "");
    assert_eq!(scene.log().await, ["GET / 0 DC downstream_remote_disconnect 0 0 origin default"]);
}

#[tokio::test]
async fn a_client_that_waits_for_100_is_told_to_go_on() {
    let scene = Scene::new().await;
    let mut client = scene.client().await;
    client
        .send("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\nExpect: 100-continue\r\n\r\n")
        .await;
    assert_eq!(client.head().await.line(), "HTTP/1.1 100 Continue");
    let mut origin = scene.origin.accept().await;
    origin.head().await.lacks("expect");
    client.send("hello").await;
    origin.expect("hello").await;
    origin.send("HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n").await;
    assert_eq!(client.head().await.line(), "HTTP/1.1 200 OK");
}

#[tokio::test]
async fn the_origin_may_be_asked_instead() {
    let scene = Scene::with(&to_origin(), &json!({"proxy_100_continue": true})).await;
    let mut client = scene.client().await;
    client
        .send("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\nExpect: 100-continue\r\n\r\n")
        .await;
    let mut origin = scene.origin.accept().await;
    origin.head().await.has("expect", "100-continue");
    origin.send("HTTP/1.1 100 Continue\r\n\r\n").await;
    assert_eq!(client.head().await.line(), "HTTP/1.1 100 Continue");
    client.send("hello").await;
    origin.expect("hello").await;
    origin.send("HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n").await;
    assert_eq!(client.head().await.line(), "HTTP/1.1 200 OK");
}

/// CVE-2024-23326 and its kin: early bytes could be a request to an origin that declines.
#[tokio::test]
async fn bytes_behind_an_upgrade_wait_for_the_origin_to_agree() {
    let settings = json!({"upgrade_configs": [{"upgrade_type": "websocket"}]});
    let scene = Scene::with(&to_origin(), &settings).await;
    let mut client = scene.client().await;
    let request =
        "GET /ws HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\nearly";
    client.send(request).await;
    let mut origin = scene.origin.accept().await;
    let head = origin.head().await;
    head.has("upgrade", "websocket");
    head.has("connection", "upgrade");
    origin.send("HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\nhi").await;
    let head = client.head().await;
    assert_eq!(head.line(), "HTTP/1.1 101 Switching Protocols");
    head.has("connection", "upgrade");
    client.expect("hi").await;
    origin.expect("early").await;
    client.send("more").await;
    origin.expect("more").await;
    origin.send("bye").await;
    client.expect("bye").await;
    drop(origin);
    assert_eq!(client.rest().await, "");

    let mut client = scene.client().await;
    client.send(request).await;
    let mut origin = scene.origin.accept().await;
    origin.head().await;
    origin.send("HTTP/1.1 403 No\r\nContent-Length: 0\r\n\r\n").await;
    assert_eq!(client.head().await.line(), "HTTP/1.1 403 Forbidden");
    drop(client);
    origin.shutdown().await;
    assert_eq!(origin.rest().await, "", "the early bytes were never sent");
}
