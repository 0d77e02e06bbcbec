//! CONNECT: ended here with raw bytes behind it, or passed on to another proxy.

use http::Request;
use serde_json::{Value, json};

use super::{Client, Origin, Response, Scene, body, soon};

/// Routes that take CONNECT to `cluster`; with `ends` it ends here.
fn routes(cluster: &str, ends: bool) -> Value {
    let mut upgrade = json!({"upgrade_type": "CONNECT"});
    if ends {
        upgrade["connect_config"] = json!({});
    }
    json!([{"name": "c", "match": {"connect_matcher": {}},
        "route": {"cluster": cluster, "upgrade_configs": [upgrade]}}])
}

const CONNECT: &str = "CONNECT far.test:443 HTTP/1.1\r\nHost: far.test:443\r\n\r\n";

fn connect() -> Request<()> {
    Request::connect("far.test:443").body(()).unwrap()
}

#[tokio::test]
async fn a_connection_that_ends_here_carries_raw_bytes_and_half_closes() {
    let scene = Scene::with(&routes("origin", true), &json!({})).await;
    let mut client = scene.client().await;
    client.send(&format!("{CONNECT}early")).await;
    let mut origin = scene.origin.accept().await;
    let head = client.head().await;
    assert_eq!(head.line(), "HTTP/1.1 200 OK");
    head.lacks("content-length");
    head.lacks("transfer-encoding");
    origin.expect("early").await;
    origin.send("hello").await;
    client.expect("hello").await;
    client.shutdown().await;
    assert_eq!(origin.rest().await, "");
    origin.send("bye").await;
    drop(origin);
    assert_eq!(client.rest().await, "bye");
    let log = scene.log().await;
    assert_eq!(log, ["CONNECT - 200 - via_upstream 5 8 origin c"]);
}

#[tokio::test]
async fn a_stream_that_ends_here_carries_raw_bytes() {
    let options = json!({"http2_protocol_options": {"allow_connect": true}});
    let scene = Scene::with(&routes("origin", true), &options).await;
    let mut client = Client::of(&scene).await;
    let (response, mut send) = client.send(connect(), false).await;
    send.send_data("early".into(), false).unwrap();
    let mut origin = scene.origin.accept().await;
    let response = soon("response", response).await.unwrap();
    assert_eq!(response.status(), 200);
    origin.expect("early").await;
    origin.send("hello").await;
    let mut down = response.into_body();
    assert_eq!(soon("data", down.data()).await.unwrap().unwrap(), "hello");
    send.send_data("more".into(), true).unwrap();
    origin.expect("more").await;
    assert_eq!(origin.rest().await, "");
    drop(origin);
    assert_eq!(body(down).await.0, "");
}

#[tokio::test]
async fn what_comes_early_is_held_until_the_other_proxy_agrees() {
    let scene = Scene::with(&routes("origin", false), &json!({})).await;
    let mut client = scene.client().await;
    client.send(&format!("{CONNECT}early")).await;
    let mut origin = scene.origin.accept().await;
    let head = origin.head().await;
    assert_eq!(head.line(), "CONNECT far.test:443 HTTP/1.1");
    head.has("host", "far.test:443");
    origin.send("HTTP/1.1 200 Fine\r\nContent-Length: 3\r\n\r\nhello").await;
    let head = client.head().await;
    assert_eq!(head.line(), "HTTP/1.1 200 OK");
    head.lacks("content-length");
    origin.expect("early").await;
    client.expect("hello").await;
    drop(origin);
    assert_eq!(client.rest().await, "");
}

#[tokio::test]
async fn what_follows_a_connect_that_is_refused_is_no_request() {
    let scene = Scene::with(&routes("origin", false), &json!({})).await;
    for refusal in ["403 No", "101 Switching Protocols", "200 OK\r\nContent-Length: x"] {
        let mut client = scene.client().await;
        client.send(&format!("{CONNECT}GET /smuggled HTTP/1.1\r\nHost: a\r\n\r\n")).await;
        let mut origin = scene.origin.accept().await;
        origin.head().await;
        origin.send(&format!("HTTP/1.1 {refusal}\r\nContent-Length: 0\r\n\r\n")).await;
        let head = client.head().await;
        assert_ne!(head.line(), "HTTP/1.1 200 OK", "{refusal}");
        head.has("connection", "close");
        assert!(!client.rest().await.contains("HTTP/1.1"), "{refusal}");
        assert_eq!(origin.rest().await, "", "{refusal}");
    }
}

#[tokio::test]
async fn a_connect_goes_on_in_the_other_version() {
    let options = json!({"http2_protocol_options": {"allow_connect": true}});
    let scene = Scene::with(&routes("origin", false), &options).await;
    let mut client = Client::of(&scene).await;
    let (response, mut send) = client.send(connect(), false).await;
    let mut origin = scene.origin.accept().await;
    let head = origin.head().await;
    assert_eq!(head.line(), "CONNECT far.test:443 HTTP/1.1");
    head.lacks("transfer-encoding");
    origin.send("HTTP/1.1 200 OK\r\n\r\n").await;
    let response = soon("response", response).await.unwrap();
    assert_eq!(response.status(), 200);
    send.send_data("up".into(), false).unwrap();
    origin.expect("up").await;
    origin.send("down").await;
    let mut down = response.into_body();
    assert_eq!(soon("data", down.data()).await.unwrap().unwrap(), "down");

    let scene = Scene::with(&routes("http2", false), &json!({})).await;
    let mut client = scene.client().await;
    client.send(&format!("{CONNECT}early")).await;
    let mut origin = Origin::of(&scene).await;
    let (request, mut respond) = origin.accept().await;
    let driver = origin.drive();
    assert_eq!(request.method(), "CONNECT");
    assert_eq!(request.uri().authority().unwrap(), "far.test:443");
    assert!(request.uri().path_and_query().is_none() || request.uri().path().is_empty());
    assert!(request.extensions().get::<h2::ext::Protocol>().is_none());
    let mut send = respond.send_response(Response::new(()), false).unwrap();
    assert_eq!(client.head().await.line(), "HTTP/1.1 200 OK");
    let mut up = request.into_body();
    assert_eq!(soon("data", up.data()).await.unwrap().unwrap(), "early");
    send.send_data("pong".into(), true).unwrap();
    client.expect("pong").await;
    assert_eq!(client.rest().await, "");
    drop(driver);
}
