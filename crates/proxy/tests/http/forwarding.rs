//! Requests and responses that pass, and what is done to them on the way.

use serde_json::json;

use crate::peers::Scene;

#[tokio::test]
async fn a_request_and_its_response_pass() {
    let scene = Scene::new().await;
    let mut client = scene.client().await;
    client.send("GET /a?b HTTP/1.1\r\nHost: api.local\r\nX-Own: 1\r\n\r\n").await;
    let mut origin = scene.origin.accept().await;
    let head = origin.head().await;
    assert_eq!(head.line(), "GET /a?b HTTP/1.1");
    head.has("host", "api.local");
    head.has("x-own", "1");
    head.has("x-forwarded-proto", "http");
    head.has("x-envoy-expected-rq-timeout-ms", "15000");
    assert_eq!(head.get("x-request-id").unwrap().len(), 36);
    head.lacks("connection");
    origin.send("HTTP/1.1 200 Fine\r\nContent-Length: 2\r\nServer: own\r\n\r\nok").await;
    let head = client.head().await;
    assert_eq!(head.line(), "HTTP/1.1 200 OK");
    head.has("server", "envoy");
    head.has("x-envoy-upstream-service-time", &head.get("x-envoy-upstream-service-time").unwrap());
    assert!(head.get("date").unwrap().ends_with(" GMT"));
    client.expect("ok").await;
    assert_eq!(scene.log().await, ["GET /a?b 200 - via_upstream 0 2 origin default"]);
}

#[tokio::test]
async fn connections_are_kept_on_both_sides() {
    let scene = Scene::new().await;
    let mut client = scene.client().await;
    client.send("GET /1 HTTP/1.1\r\nHost: a\r\n\r\n").await;
    let mut origin = scene.origin.accept().await;
    for number in 1..4 {
        assert_eq!(origin.head().await.line(), format!("GET /{number} HTTP/1.1"));
        origin.send("HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\nx").await;
        client.head().await.has("content-length", "1");
        client.expect("x").await;
        if number < 3 {
            client.send(&format!("GET /{} HTTP/1.1\r\nHost: a\r\n\r\n", number + 1)).await;
        }
    }
    scene.origin.has_no_connection();
    assert_eq!(scene.proxy.counter("http.upstream_cx_reused").await, 2);
}

#[tokio::test]
async fn pipelined_requests_are_answered_in_order() {
    let scene = Scene::new().await;
    let mut client = scene.client().await;
    client
        .send("POST /1 HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n\r\nabcGET /2 HTTP/1.1\r\nHost: a\r\n\r\n")
        .await;
    let mut origin = scene.origin.accept().await;
    assert_eq!(origin.head().await.line(), "POST /1 HTTP/1.1");
    origin.expect("abc").await;
    origin.send("HTTP/1.1 204 No Content\r\n\r\n").await;
    assert_eq!(origin.head().await.line(), "GET /2 HTTP/1.1");
    origin.send("HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n").await;
    assert_eq!(client.head().await.line(), "HTTP/1.1 204 No Content");
    assert_eq!(client.head().await.line(), "HTTP/1.1 404 Not Found");
    assert_eq!(
        scene.log().await,
        [
            "POST /1 204 - via_upstream 3 0 origin default",
            "GET /2 404 - via_upstream 0 0 origin default",
        ]
    );
}

#[tokio::test]
async fn chunks_pass_raw_and_trailers_are_dropped() {
    let scene = Scene::new().await;
    let mut client = scene.client().await;
    client.send("POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\nX-Sum: 1\r\n\r\n").await;
    let mut origin = scene.origin.accept().await;
    origin.head().await.has("transfer-encoding", "chunked");
    origin.expect("3\r\nabc\r\n0\r\n\r\n").await;
    origin.send("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5;e=1\r\nhel").await;
    client.head().await.has("transfer-encoding", "chunked");
    client.expect("5;e=1\r\nhel").await;
    origin.send("lo\r\n0\r\n\r\n").await;
    client.expect("lo\r\n0\r\n\r\n").await;
}

#[tokio::test]
async fn a_response_that_ends_with_its_connection_becomes_chunked() {
    let scene = Scene::new().await;
    let mut client = scene.client().await;
    client.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n").await;
    let mut origin = scene.origin.accept().await;
    origin.head().await;
    origin.send("HTTP/1.0 200 OK\r\n\r\nhello").await;
    client.head().await.has("transfer-encoding", "chunked");
    client.expect("5\r\nhello\r\n").await;
    origin.shutdown().await;
    client.expect("0\r\n\r\n").await;
    // The client's connection is not affected.
    client.send("GET /2 HTTP/1.1\r\nHost: a\r\n\r\n").await;
    assert_eq!(scene.origin.accept().await.head().await.line(), "GET /2 HTTP/1.1");
}

#[tokio::test]
async fn a_response_to_head_has_no_body_whatever_it_says() {
    let scene = Scene::new().await;
    let mut client = scene.client().await;
    client.send("HEAD / HTTP/1.1\r\nHost: a\r\n\r\n").await;
    let mut origin = scene.origin.accept().await;
    origin.head().await;
    origin.send("HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n").await;
    client.head().await.has("content-length", "100");
    client.send("GET /2 HTTP/1.1\r\nHost: a\r\n\r\n").await;
    assert_eq!(origin.head().await.line(), "GET /2 HTTP/1.1");
}

#[tokio::test]
async fn hop_by_hop_fields_stay_on_their_hop() {
    let scene = Scene::new().await;
    let mut client = scene.client().await;
    client.send("GET / HTTP/1.1\r\nHost: a\r\nConnection: x-a, close\r\nX-A: 1\r\nKeep-Alive: 5\r\nTE: trailers\r\nUpgrade: h2c\r\n\r\n").await;
    let mut origin = scene.origin.accept().await;
    let head = origin.head().await;
    head.has("te", "trailers");
    for name in ["connection", "x-a", "keep-alive", "upgrade"] {
        head.lacks(name);
    }
    origin.send("HTTP/1.1 200 OK\r\nContent-Length: 0\r\nConnection: x-b\r\nX-B: 1\r\n\r\n").await;
    let head = client.head().await;
    head.has("connection", "close");
    head.lacks("x-b");
    assert_eq!(client.rest().await, "");
}

#[tokio::test]
async fn the_edge_says_who_the_client_is_and_believes_nobody_else() {
    let settings = json!({"use_remote_address": true});
    let scene = Scene::with(&crate::peers::to_origin(), &settings).await;
    let mut client = scene.client().await;
    client.send("GET / HTTP/1.1\r\nHost: a\r\nX-Forwarded-For: 1.2.3.4\r\nX-Forwarded-Proto: https\r\nX-Envoy-Internal: true\r\nX-Envoy-Original-Path: /x\r\nX-Envoy-Retry-On: 5xx\r\nX-Request-Id: mine\r\nX-Forwarded-Client-Cert: URI=spiffe://x\r\n\r\n").await;
    let head = scene.origin.accept().await.head().await;
    // Who comes by loopback is this machine, by its own address.
    assert!(head.get("x-forwarded-for").unwrap().starts_with("1.2.3.4,"));
    head.has("x-forwarded-proto", "http");
    head.has("x-envoy-external-address", "127.0.0.1");
    for name in
        ["x-envoy-internal", "x-envoy-original-path", "x-envoy-retry-on", "x-forwarded-client-cert"]
    {
        head.lacks(name);
    }
    assert_ne!(head.get("x-request-id").unwrap(), "mine");
}

#[tokio::test]
async fn paths_and_hosts_are_normal_before_they_are_matched_and_sent() {
    let routes = json!([
        {"match": {"prefix": "/admin"}, "direct_response": {"status": 403}},
        {"match": {"prefix": "/"}, "route": {"cluster": "origin"}},
    ]);
    let settings = json!({
        "normalize_path": true,
        "merge_slashes": true,
        "path_with_escaped_slashes_action": "UNESCAPE_AND_FORWARD",
        "strip_any_host_port": true,
        "strip_trailing_host_dot": true,
    });
    let scene = Scene::with(&routes, &settings).await;
    let mut client = scene.client().await;
    for path in ["/x/../admin", "//admin", "/%61dmin", "/x%2F..%2fadmin", "/x/%2e%2E/admin"] {
        client.send(&format!("GET {path} HTTP/1.1\r\nHost: a\r\n\r\n")).await;
        assert_eq!(client.head().await.line(), "HTTP/1.1 403 Forbidden", "{path}");
    }
    client.send("GET /a//b/./c?x=..//y HTTP/1.1\r\nHost: Api.local.:443\r\n\r\n").await;
    let head = scene.origin.accept().await.head().await;
    assert_eq!(head.line(), "GET /a/b/c?x=..//y HTTP/1.1");
    head.has("host", "Api.local");
}

#[tokio::test]
async fn routes_rewrite_paths_hosts_and_headers() {
    let routes = json!([{
        "name": "rewrite",
        "match": {"prefix": "/old/"},
        "route": {
            "cluster": "origin", "prefix_rewrite": "/new/", "host_rewrite_literal": "inner.local",
            "append_x_forwarded_host": true,
        },
        "request_headers_to_add": [
            {"header": {"key": "x-who", "value": "%DOWNSTREAM_REMOTE_ADDRESS_WITHOUT_PORT%"}},
            {"header": {"key": "x-set", "value": "new"}, "append_action": "OVERWRITE_IF_EXISTS_OR_ADD"},
        ],
        "request_headers_to_remove": ["x-gone"],
        "response_headers_to_add": [{"header": {"key": "x-answer", "value": "42"}}],
        "response_headers_to_remove": ["x-secret"],
    }]);
    let scene = Scene::with(&routes, &json!({})).await;
    let mut client = scene.client().await;
    client
        .send("GET /old/x?y HTTP/1.1\r\nHost: outer\r\nX-Set: 1\r\nX-Gone: 1\r\nX-Set: 2\r\n\r\n")
        .await;
    let mut origin = scene.origin.accept().await;
    let head = origin.head().await;
    assert_eq!(head.line(), "GET /new/x?y HTTP/1.1");
    head.has("host", "inner.local");
    head.has("x-forwarded-host", "outer");
    head.has("x-envoy-original-path", "/old/x?y");
    head.has("x-envoy-original-host", "outer");
    head.has("x-who", "127.0.0.1");
    head.has("x-set", "new");
    head.lacks("x-gone");
    origin.send("HTTP/1.1 200 OK\r\nContent-Length: 0\r\nX-Secret: 1\r\n\r\n").await;
    let head = client.head().await;
    head.has("x-answer", "42");
    head.lacks("x-secret");
    assert_eq!(scene.log().await, ["GET /old/x?y 200 - via_upstream 0 0 origin rewrite"]);
}
