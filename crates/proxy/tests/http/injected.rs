//! CORS, faults, rate limits, header mutation, mirrors and hash cookies.

use serde_json::{Value, json};

use crate::peers::{Scene, router, to_origin};

fn filter(name: &str, message: &str, mut settings: Value) -> Value {
    settings["@type"] =
        json!(format!("type.googleapis.com/envoy.extensions.filters.http.{message}"));
    json!({ "name": name, "typed_config": settings })
}

fn filters(list: &[Value]) -> Value {
    let mut all = list.to_vec();
    all.push(router());
    json!({ "http_filters": all })
}

const OK: &str = "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n";

#[tokio::test]
async fn preflights_are_answered_and_responses_marked() {
    let routes = json!([{ "match": { "prefix": "/" }, "route": { "cluster": "origin" },
        "typed_per_filter_config": { "cors": {
            "@type": "type.googleapis.com/envoy.config.route.v3.CorsPolicy",
            "allow_origin_string_match": [{ "exact": "https://a.test" }],
            "allow_methods": "GET,POST", "allow_headers": "*", "expose_headers": "x-a",
            "max_age": "600", "allow_credentials": true } } }]);
    let settings = filters(&[filter("cors", "cors.v3.Cors", json!({}))]);
    let scene = Scene::with(&routes, &settings).await;
    let mut client = scene.client().await;
    client
        .send(
            "OPTIONS / HTTP/1.1\r\nHost: a\r\nOrigin: https://a.test\r\n\
             Access-Control-Request-Method: GET\r\nAccess-Control-Request-Headers: x-q\r\n\r\n",
        )
        .await;
    let head = client.head().await;
    assert_eq!(head.line(), "HTTP/1.1 200 OK");
    head.has("access-control-allow-origin", "https://a.test");
    head.has("access-control-allow-credentials", "true");
    head.has("access-control-allow-methods", "GET,POST");
    head.has("access-control-allow-headers", "x-q");
    head.has("access-control-max-age", "600");
    for (origin, expected) in [("https://a.test", Some("x-a")), ("https://b.test", None)] {
        client.send(&format!("GET / HTTP/1.1\r\nHost: a\r\nOrigin: {origin}\r\n\r\n")).await;
        let mut peer = scene.origin.accept().await;
        peer.head().await;
        peer.send("HTTP/1.1 200 OK\r\nContent-Length: 0\r\nConnection: close\r\n\r\n").await;
        let head = client.head().await;
        assert_eq!(head.get("access-control-expose-headers").as_deref(), expected);
        assert_eq!(head.get("access-control-allow-origin").is_some(), expected.is_some());
    }
}

#[tokio::test]
async fn a_route_can_delay_and_abort() {
    let routes = json!([{ "match": { "prefix": "/" }, "route": { "cluster": "origin" },
        "response_headers_to_add": [{ "header": { "key": "x-route", "value": "yes" } }],
        "typed_per_filter_config": { "fault": {
            "@type": "type.googleapis.com/envoy.extensions.filters.http.fault.v3.HTTPFault",
            "delay": { "fixed_delay": "0.05s", "percentage": { "numerator": 100 } },
            "abort": { "http_status": 555, "percentage": { "numerator": 100 } } } } }]);
    let settings = filters(&[filter("fault", "fault.v3.HTTPFault", json!({}))]);
    let scene = Scene::with(&routes, &settings).await;
    let mut client = scene.client().await;
    let start = std::time::Instant::now();
    client.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n").await;
    let head = client.head().await;
    assert!(start.elapsed() >= std::time::Duration::from_millis(50));
    assert!(head.line().starts_with("HTTP/1.1 555"), "{}", head.0);
    head.has("x-route", "yes");
    client.expect("fault filter abort").await;
    scene.origin.has_no_connection();
    assert_eq!(scene.log().await, ["GET / 555 DI,FI fault_filter_abort 0 18 origin -"]);
}

#[tokio::test]
async fn requests_beyond_the_bucket_are_turned_away() {
    let limit = json!({ "stat_prefix": "l",
        "token_bucket": { "max_tokens": 1, "fill_interval": "3600s" },
        "filter_enabled": { "default_value": { "numerator": 100 } },
        "filter_enforced": { "default_value": { "numerator": 100 } },
        "enable_x_ratelimit_headers": "DRAFT_VERSION_03",
        "response_headers_to_add": [{ "header": { "key": "x-limited", "value": "yes" } }] });
    let settings = filters(&[filter("limit", "local_ratelimit.v3.LocalRateLimit", limit)]);
    let scene = Scene::with(&to_origin(), &settings).await;
    let mut client = scene.client().await;
    client.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n").await;
    let mut origin = scene.origin.accept().await;
    origin.head().await;
    origin.send(OK).await;
    let head = client.head().await;
    head.has("x-ratelimit-remaining", "0");
    head.lacks("x-limited");
    client.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n").await;
    let head = client.head().await;
    assert_eq!(head.line(), "HTTP/1.1 429 Too Many Requests");
    head.has("x-limited", "yes");
    head.has("x-ratelimit-limit", "1");
    client.expect("local_rate_limited").await;
}

#[tokio::test]
async fn headers_are_changed_by_the_filter_and_by_the_route() {
    let append = |name: &str, value: &str| {
        json!({ "append": { "header": { "key": name, "value": value },
            "append_action": "OVERWRITE_IF_EXISTS_OR_ADD" } })
    };
    let own = json!({ "mutations": { "request_mutations": [append("x-by", "filter"), { "remove": "x-gone" }],
        "response_mutations": [append("x-answer", "filter")] } });
    let routes = json!([{ "match": { "prefix": "/" }, "route": { "cluster": "origin" },
        "typed_per_filter_config": { "mutation": {
            "@type": "type.googleapis.com/envoy.extensions.filters.http.header_mutation.v3.HeaderMutationPerRoute",
            "mutations": { "request_mutations": [append("x-by", "route")] } } } }]);
    let settings = filters(&[filter("mutation", "header_mutation.v3.HeaderMutation", own)]);
    let scene = Scene::with(&routes, &settings).await;
    let mut client = scene.client().await;
    client.send("GET / HTTP/1.1\r\nHost: a\r\nX-Gone: 1\r\n\r\n").await;
    let mut origin = scene.origin.accept().await;
    let head = origin.head().await;
    head.has("x-by", "route");
    head.lacks("x-gone");
    origin.send(OK).await;
    client.head().await.has("x-answer", "filter");
}

#[tokio::test]
async fn a_mirror_gets_a_copy_with_the_body_and_the_client_does_not_wait() {
    let mirror = crate::peers::Origin::start().await;
    let routes = json!([{ "match": { "prefix": "/" }, "route": { "cluster": "origin",
        "request_mirror_policies": [{ "cluster": "mirror" }] } }]);
    let scene = Scene::with_cluster(&routes, &json!({}), ("mirror", mirror.address())).await;
    let mut client = scene.client().await;
    client.send("POST /p HTTP/1.1\r\nHost: a.b:80\r\nContent-Length: 4\r\n\r\nbo").await;
    let mut origin = scene.origin.accept().await;
    origin.head().await;
    client.send("dy").await;
    origin.expect("body").await;
    origin.send(OK).await;
    assert_eq!(client.head().await.line(), "HTTP/1.1 200 OK");
    let mut copy = mirror.accept().await;
    let head = copy.head().await;
    assert_eq!(head.line(), "POST /p HTTP/1.1");
    head.has("host", "a.b-shadow:80");
    copy.expect("body").await;
}

#[tokio::test]
async fn a_body_that_was_streamed_is_sent_again() {
    let routes = json!([{ "match": { "prefix": "/" }, "route": { "cluster": "origin",
        "retry_policy": { "retry_on": "5xx", "retry_back_off": { "base_interval": "0.001s" } } } }]);
    let scene = Scene::with(&routes, &json!({})).await;
    let mut client = scene.client().await;
    client.send("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 6\r\n\r\nab").await;
    let mut first = scene.origin.accept().await;
    first.head().await;
    first.expect("ab").await;
    client.send("cd").await;
    first.expect("cd").await;
    first.send("HTTP/1.1 503 Busy\r\nContent-Length: 0\r\n\r\n").await;
    let mut second = scene.origin.accept().await;
    second.head().await;
    second.expect("abcd").await;
    client.send("ef").await;
    second.expect("ef").await;
    second.send(OK).await;
    assert_eq!(client.head().await.line(), "HTTP/1.1 200 OK");
}

#[tokio::test]
async fn a_client_without_the_cookie_gets_one() {
    let routes = json!([{ "match": { "prefix": "/" }, "route": { "cluster": "origin",
        "hash_policy": [{ "cookie": { "name": "sticky", "ttl": "0s", "path": "/" } }] } }]);
    let scene = Scene::with(&routes, &json!({})).await;
    let mut client = scene.client().await;
    client.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n").await;
    let mut origin = scene.origin.accept().await;
    origin.head().await;
    origin.send(OK).await;
    let cookie = client.head().await.get("set-cookie").unwrap();
    assert!(
        cookie.starts_with("sticky=\"") && cookie.ends_with("\"; Path=/; HttpOnly"),
        "{cookie}"
    );
}
