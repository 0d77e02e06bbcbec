//! Long bodies: what the kernel passes on between plain sockets arrives as it was sent, and nothing
//! of what follows is taken along.

use serde_json::json;

use crate::peers::{Scene, to_origin};

/// More than sockets, pipes and buffers on the way hold together.
const LONG: usize = 48 << 20;

fn pattern(len: usize) -> Vec<u8> {
    (0..len).map(|n| (n % 251) as u8).collect()
}

#[tokio::test]
async fn the_next_messages_follow_long_bodies_on_the_same_connections() {
    let scene = Scene::new().await;
    let mut client = scene.client().await;
    let mut origin = None;
    for len in [LONG, 200_000, 128 << 10, (128 << 10) + 1, 100_000, 40_000, (16 << 10) + 1, 1] {
        let body = pattern(len);
        // The next request is behind the body already.
        let head = format!("POST /up HTTP/1.1\r\nHost: a\r\nContent-Length: {len}\r\n\r\n");
        let sent = [head.as_bytes(), &body, b"GET /down HTTP/1.1\r\nHost: a\r\n\r\n"].concat();
        let receiving = async {
            let mut origin = match origin.take() {
                Some(origin) => origin,
                None => scene.origin.accept().await,
            };
            assert_eq!(origin.head().await.line(), "POST /up HTTP/1.1");
            assert!(origin.bytes(len).await == body, "a request of {len} bytes");
            origin.send("HTTP/1.1 204 No Content\r\n\r\n").await;
            assert_eq!(origin.head().await.line(), "GET /down HTTP/1.1");
            origin
        };
        let ((), mut peer) = tokio::join!(client.send_bytes(&sent), receiving);
        assert_eq!(client.head().await.line(), "HTTP/1.1 204 No Content");
        let head = format!("HTTP/1.1 200 OK\r\nContent-Length: {len}\r\n\r\n");
        let answer = [head.as_bytes(), &body].concat();
        let receiving = async {
            client.head().await;
            client.bytes(len).await
        };
        let ((), received) = tokio::join!(peer.send_bytes(&answer), receiving);
        assert!(received == body, "a response of {len} bytes");
        origin = Some(peer);
    }
}

/// Bodies that are read through the worker's scratch buffer: the one that is under way when a side
/// stops taking bytes is held, and nobody else's bytes get into it.
#[tokio::test]
async fn middling_bodies_wait_for_who_does_not_read() {
    const MIDDLING: usize = 100_000;
    const REQUESTS: usize = 400;
    let scene = Scene::new().await;
    let mut client = scene.client().await;
    let body = pattern(MIDDLING);
    let head = format!("Content-Length: {MIDDLING}\r\n\r\n");
    let request = [b"POST / HTTP/1.1\r\nHost: a\r\n", head.as_bytes(), &body].concat();
    let answer = [b"HTTP/1.1 200 OK\r\n", head.as_bytes(), &body].concat();

    client.send_bytes(&request).await;
    let mut origin = scene.origin.accept().await;
    let (mut asks, mut answers) = client.split();
    {
        // Nobody reads answers, so that they fill every buffer, and requests too in the end.
        let asking = async {
            for _ in 1..REQUESTS {
                asks.send_bytes(&request).await;
            }
        };
        let answering = async {
            for number in 0..REQUESTS {
                origin.head().await;
                assert!(origin.bytes(MIDDLING).await == body, "request {number}");
                origin.send_bytes(&answer).await;
            }
        };
        let mut moving = std::pin::pin!(futures_util::future::join(asking, answering));
        let stuck = std::time::Duration::from_millis(300);
        assert!(tokio::time::timeout(stuck, moving.as_mut()).await.is_err(), "nothing is stuck");
        let reading = async {
            for number in 0..REQUESTS {
                assert_eq!(answers.head().await.line(), "HTTP/1.1 200 OK");
                assert!(answers.bytes(MIDDLING).await == body, "answer {number}");
            }
        };
        tokio::join!(moving, reading);
    }
}

#[tokio::test]
async fn long_chunks_keep_their_framing_both_ways() {
    let scene = Scene::new().await;
    let mut client = scene.client().await;
    let mut sent = Vec::new();
    for len in [3_000_000, 5, 128 << 10, 1_000_000] {
        sent.extend_from_slice(format!("{len:x}\r\n").as_bytes());
        sent.extend_from_slice(&pattern(len));
        sent.extend_from_slice(b"\r\n");
    }
    sent.extend_from_slice(b"0\r\n\r\n");
    client.send("POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n").await;
    let mut origin = scene.origin.accept().await;
    origin.head().await;
    let ((), received) = tokio::join!(client.send_bytes(&sent), origin.bytes(sent.len()));
    assert!(received == sent);
    origin.send("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n").await;
    client.head().await;
    let ((), received) = tokio::join!(origin.send_bytes(&sent), client.bytes(sent.len()));
    assert!(received == sent);
    client.send("GET /2 HTTP/1.1\r\nHost: a\r\n\r\n").await;
    assert_eq!(origin.head().await.line(), "GET /2 HTTP/1.1", "both connections are still good");
}

#[tokio::test]
async fn a_long_body_may_end_with_its_connection() {
    let settings = json!({"http_protocol_options": {"accept_http_10": true}});
    let scene = Scene::with(&to_origin(), &settings).await;
    let mut client = scene.client().await;
    // One that reads no chunks gets the bytes as they come.
    client.send("GET / HTTP/1.0\r\nHost: a\r\n\r\n").await;
    let mut origin = scene.origin.accept().await;
    origin.head().await;
    let body = pattern(LONG);
    let sending = async {
        origin.send("HTTP/1.1 200 OK\r\n\r\n").await;
        origin.send_bytes(&body).await;
        drop(origin);
    };
    let receiving = async {
        client.head().await;
        client.bytes(body.len()).await
    };
    let ((), received) = tokio::join!(sending, receiving);
    assert!(received == body);
    assert_eq!(client.rest().await, "");
}

#[tokio::test]
async fn an_origin_that_ends_early_is_not_taken_for_complete() {
    let scene = Scene::new().await;
    let mut client = scene.client().await;
    client.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n").await;
    let mut origin = scene.origin.accept().await;
    origin.head().await;
    let body = pattern(1 << 20);
    let head = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n", body.len() + 1);
    origin.send(&head).await;
    let sending = async {
        origin.send_bytes(&body).await;
        drop(origin);
    };
    let receiving = async {
        client.head().await;
        client.bytes(body.len()).await
    };
    let ((), received) = tokio::join!(sending, receiving);
    assert!(received == body);
    assert_eq!(client.rest().await, "", "the client's connection ends too");
    let lines = scene.log().await;
    assert!(lines[0].contains("UPE") || lines[0].contains("UC"), "{lines:?}");
}

#[tokio::test]
async fn bytes_for_a_client_that_has_gone_do_not_reach_the_next_one() {
    let scene = Scene::new().await;
    let body = vec![b's'; LONG];
    for _ in 0..3 {
        let mut client = scene.client().await;
        client.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n").await;
        let mut origin = scene.origin.accept().await;
        origin.head().await;
        origin.send(&format!("HTTP/1.1 200 OK\r\nContent-Length: {LONG}\r\n\r\n")).await;
        let sending = origin.send_bytes(&body);
        let stuck = tokio::time::timeout(std::time::Duration::from_millis(200), sending).await;
        assert!(stuck.is_err(), "{LONG} bytes disappeared into the proxy");
        drop(client);
        drop(origin);
    }
    let mut client = scene.client().await;
    client.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n").await;
    let mut origin = scene.origin.accept().await;
    origin.head().await;
    let body = pattern(LONG);
    origin.send(&format!("HTTP/1.1 200 OK\r\nContent-Length: {LONG}\r\n\r\n")).await;
    let receiving = async {
        client.head().await;
        client.bytes(LONG).await
    };
    let ((), received) = tokio::join!(origin.send_bytes(&body), receiving);
    assert!(received == body);
}

#[tokio::test]
async fn what_is_kept_for_another_try_is_not_passed_unseen() {
    let mut routes = to_origin();
    routes[0]["route"]["retry_policy"] = json!({"retry_on": "5xx", "num_retries": 1});
    let scene = Scene::with(&routes, &json!({})).await;
    let mut client = scene.client().await;
    let body = pattern(600_000);
    let head = format!("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: {}\r\n\r\n", body.len());
    let sent = [head.as_bytes(), &body].concat();
    let serving = async {
        for answer in ["HTTP/1.1 503 Down\r\nContent-Length: 0\r\n\r\n", "HTTP/1.1 204 Up\r\n\r\n"]
        {
            let mut origin = scene.origin.accept().await;
            origin.head().await;
            assert!(origin.bytes(body.len()).await == body);
            origin.send(answer).await;
            // The next try comes over another connection.
            drop(origin);
        }
    };
    tokio::join!(client.send_bytes(&sent), serving);
    assert_eq!(client.head().await.line(), "HTTP/1.1 204 No Content");
}
