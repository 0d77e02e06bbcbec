//! Answers that the proxy makes itself.

use serde_json::json;

use crate::peers::{Peer, Scene, to_origin};

#[tokio::test]
async fn a_request_without_a_route_is_answered_404_and_the_connection_stays() {
    let routes = json!([{"match": {"path": "/only"}, "route": {"cluster": "origin"}}]);
    let scene = Scene::with(&routes, &json!({})).await;
    let mut client = scene.client().await;
    for _ in 0..2 {
        client.send("GET /other HTTP/1.1\r\nHost: a\r\n\r\n").await;
        let head = client.head().await;
        assert_eq!(head.line(), "HTTP/1.1 404 Not Found");
        head.has("content-length", "0");
        head.lacks("connection");
    }
    scene.origin.has_no_connection();
    assert_eq!(scene.log().await, ["GET /other 404 NR route_not_found 0 0 - -"; 2]);
}

#[tokio::test]
async fn a_cluster_without_endpoints_is_answered_503() {
    let routes = json!([{"match": {"prefix": "/"}, "route": {"cluster": "nowhere"}}]);
    let scene = Scene::with(&routes, &json!({})).await;
    let mut client = scene.client().await;
    client.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n").await;
    let head = client.head().await;
    assert_eq!(head.line(), "HTTP/1.1 503 Service Unavailable");
    head.has("content-type", "text/plain");
    client.expect("no healthy upstream").await;
    assert_eq!(scene.log().await, ["GET / 503 UH no_healthy_upstream 0 19 nowhere -"]);
}

#[tokio::test]
async fn an_origin_that_refuses_is_answered_503() {
    let Scene { proxy, origin, .. } = Scene::new().await;
    let mut client = Peer::new(proxy.connect("in").await);
    // Its port is free now: nobody listens there.
    drop(origin);
    client.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n").await;
    assert_eq!(client.head().await.line(), "HTTP/1.1 503 Service Unavailable");
    let body = "upstream connect error or disconnect/reset before headers. reset reason: remote connection failure";
    client.expect(body).await;
}

#[tokio::test]
async fn direct_responses_and_redirects_need_no_origin() {
    let routes = json!([
        {"match": {"path": "/direct"}, "direct_response": {"status": 418, "body": {"inline_string": "short"}},
         "response_headers_to_add": [{"header": {"key": "x-kind", "value": "tea"}}]},
        {"match": {"path": "/moved"}, "redirect": {"https_redirect": true, "host_redirect": "new.local", "path_redirect": "/here"}},
        {"match": {"prefix": "/"}, "redirect": {"port_redirect": 8443, "https_redirect": true, "response_code": "PERMANENT_REDIRECT", "prefix_rewrite": "/v2/"}},
    ]);
    let scene = Scene::with(&routes, &json!({})).await;
    let mut client = scene.client().await;
    client.send("GET /direct HTTP/1.1\r\nHost: a\r\n\r\n").await;
    let head = client.head().await;
    assert!(head.line().starts_with("HTTP/1.1 418"), "{}", head.0);
    head.has("x-kind", "tea");
    client.expect("short").await;
    client.send("HEAD /direct HTTP/1.1\r\nHost: a\r\n\r\n").await;
    client.head().await.has("content-length", "5");
    client.send("GET /moved?q HTTP/1.1\r\nHost: a:80\r\n\r\n").await;
    let head = client.head().await;
    assert_eq!(head.line(), "HTTP/1.1 301 Moved Permanently");
    head.has("location", "https://new.local/here?q");
    client.send("GET /x?q HTTP/1.1\r\nHost: a:80\r\n\r\n").await;
    let head = client.head().await;
    assert_eq!(head.line(), "HTTP/1.1 308 Permanent Redirect");
    head.has("location", "https://a:8443/v2/x?q");
    scene.origin.has_no_connection();
}

#[tokio::test]
async fn a_body_that_was_not_read_ends_the_connection_after_the_answer() {
    let routes = json!([{"match": {"prefix": "/"}, "direct_response": {"status": 403}}]);
    let scene = Scene::with(&routes, &json!({})).await;
    let mut client = scene.client().await;
    client.send("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 42\r\n\r\nGET /smuggled HTTP/1.1\r\nHost: a\r\n\r\n").await;
    let head = client.head().await;
    assert_eq!(head.line(), "HTTP/1.1 403 Forbidden");
    head.has("connection", "close");
    assert_eq!(client.rest().await, "");
    assert_eq!(scene.log().await.len(), 1);
}

#[tokio::test]
async fn an_answer_before_the_body_was_read_ends_the_connection_even_if_the_body_had_come() {
    let routes = json!([{"match": {"prefix": "/"}, "direct_response": {"status": 403}}]);
    let scene = Scene::with(&routes, &json!({})).await;
    let mut client = scene.client().await;
    client.send("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n\r\nabc").await;
    let head = client.head().await;
    assert_eq!(head.line(), "HTTP/1.1 403 Forbidden");
    // As Envoy does.
    head.has("connection", "close");
    assert_eq!(client.rest().await, "");
}

#[tokio::test]
async fn a_response_that_takes_too_long_is_answered_504() {
    let routes =
        json!([{"match": {"prefix": "/"}, "route": {"cluster": "origin", "timeout": "0.2s"}}]);
    let scene = Scene::with(&routes, &json!({})).await;
    let mut client = scene.client().await;
    client.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n").await;
    let mut origin = scene.origin.accept().await;
    origin.head().await;
    assert_eq!(client.head().await.line(), "HTTP/1.1 504 Gateway Timeout");
    client.expect("upstream request timeout").await;
    assert_eq!(origin.rest().await, "");
    let line = "GET / 504 UT response_timeout 0 24 origin -";
    assert_eq!(scene.log().await, [line]);
}

#[tokio::test]
async fn a_silent_stream_is_ended() {
    let settings = json!({"stream_idle_timeout": "0.2s"});
    let scene = Scene::with(&to_origin(), &settings).await;
    let mut client = scene.client().await;
    client.send("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nab").await;
    let mut origin = scene.origin.accept().await;
    origin.head().await;
    let head = client.head().await;
    assert_eq!(head.line(), "HTTP/1.1 408 Request Timeout");
    head.has("connection", "close");
    client.expect("stream timeout").await;
    assert_eq!(scene.log().await, ["POST / 408 SI stream_idle_timeout 2 14 origin default"]);
}

#[tokio::test]
async fn a_slow_head_is_answered_408() {
    let settings = json!({"request_headers_timeout": "0.2s"});
    let scene = Scene::with(&to_origin(), &settings).await;
    let mut client = scene.client().await;
    client.send("GET / HTTP/1.1\r\nHos").await;
    let head = client.head().await;
    assert_eq!(head.line(), "HTTP/1.1 408 Request Timeout");
    head.has("connection", "close");
}

#[tokio::test]
async fn a_draining_connection_gets_its_answer_and_is_told_to_close() {
    let mut scene = Scene::new().await;
    let mut client = scene.client().await;
    client.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n").await;
    let mut origin = scene.origin.accept().await;
    origin.head().await;
    scene.proxy.ask_to_stop();
    while scene.proxy.admin("GET /ready").await.contains("LIVE") {}
    origin.send("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok").await;
    client.head().await.has("connection", "close");
    client.expect("ok").await;
    assert_eq!(client.rest().await, "");
    scene.proxy.ended().await.unwrap();
}
