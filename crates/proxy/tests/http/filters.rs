//! The Lua filter within a proxied request.

use serde_json::{Value, json};

use crate::peers::{Scene, router, to_origin};

fn with_script(code: &str) -> Value {
    json!({"http_filters": [
        {"name": "envoy.lua", "typed_config": {
            "@type": "type.googleapis.com/envoy.extensions.filters.http.lua.v3.Lua",
            "default_source_code": {"inline_string": code},
        }},
        router(),
    ]})
}

#[tokio::test]
async fn a_script_signs_requests_and_marks_responses() {
    let scene = Scene::with(
        &to_origin(),
        &with_script(
            r#"
            function envoy_on_request(handle)
              local headers = handle:headers()
              local text = headers:get(":method") .. headers:get(":authority") .. headers:get(":path")
              headers:add("X-Authorization", "signed " .. text)
              headers:remove("x-key")
            end
            function envoy_on_response(handle)
              handle:headers():replace("x-status", handle:headers():get(":status"))
            end
            "#,
        ),
    )
    .await;
    let mut client = scene.client().await;
    // The client nominates our header: it can drop its own only.
    client.send("GET /p HTTP/1.1\r\nHost: api.local\r\nX-Key: 1\r\nConnection: x-authorization\r\nX-Authorization: forged\r\n\r\n").await;
    let mut origin = scene.origin.accept().await;
    let head = origin.head().await;
    head.has("x-authorization", "signed GETapi.local/p");
    head.lacks("x-key");
    origin.send("HTTP/1.1 201 Created\r\nContent-Length: 0\r\n\r\n").await;
    client.head().await.has("x-status", "201");
}

#[tokio::test]
async fn a_script_may_answer_and_may_change_the_route() {
    let routes = json!([
        {"match": {"prefix": "/secret"}, "direct_response": {"status": 418}},
        {"match": {"prefix": "/"}, "route": {"cluster": "origin"}},
    ]);
    let code = r#"
        function envoy_on_request(handle)
          local path = handle:headers():get(":path")
          if path == "/no" then
            handle:respond({[":status"] = "403", ["x-why"] = "no"}, "denied")
          elseif path == "/other" then
            handle:headers():replace(":path", "/secret")
          end
        end
    "#;
    let scene = Scene::with(&routes, &with_script(code)).await;
    let mut client = scene.client().await;
    client.send("GET /no HTTP/1.1\r\nHost: a\r\n\r\n").await;
    let head = client.head().await;
    assert_eq!(head.line(), "HTTP/1.1 403 Forbidden");
    head.has("x-why", "no");
    client.expect("denied").await;
    client.send("GET /other HTTP/1.1\r\nHost: a\r\n\r\n").await;
    assert!(client.head().await.line().starts_with("HTTP/1.1 418"));
    scene.origin.has_no_connection();
}

#[tokio::test]
async fn a_request_on_which_a_script_failed_goes_nowhere() {
    let code = r#"
        function envoy_on_request(handle)
          if handle:headers():get(":path") == "/frame" then
            handle:headers():add("Content-Length", "3")
          end
          error("no key")
        end
    "#;
    let scene = Scene::with(&to_origin(), &with_script(code)).await;
    let mut client = scene.client().await;
    for path in ["/", "/frame"] {
        client.send(&format!("GET {path} HTTP/1.1\r\nHost: a\r\n\r\n")).await;
        assert_eq!(client.head().await.line(), "HTTP/1.1 500 Internal Server Error");
    }
    scene.origin.has_no_connection();
    assert_eq!(scene.proxy.counter("http.lua.errors").await, 2);
}

#[tokio::test]
async fn a_response_on_which_a_script_failed_is_not_passed_on() {
    let code = "function envoy_on_response(handle) error('no') end";
    let scene = Scene::with(&to_origin(), &with_script(code)).await;
    let mut client = scene.client().await;
    client.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n").await;
    let mut origin = scene.origin.accept().await;
    origin.head().await;
    origin.send("HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\nsecret").await;
    let head = client.head().await;
    assert_eq!(head.line(), "HTTP/1.1 500 Internal Server Error");
    head.has("content-length", "0");
}
