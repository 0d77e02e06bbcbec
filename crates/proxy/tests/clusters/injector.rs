//! Envoy's `credential_injector` before the codec of a cluster.

use serde_json::{Value, json};
use tokio::{
    io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader},
    net::TcpListener,
};

use crate::{
    harness::soon,
    sides::{cluster, endpoint, sides, to_origin},
};

const TYPE: &str = "type.googleapis.com/envoy.extensions";

fn injecting(injector: Value, generic: Value, at: std::net::SocketAddr) -> Value {
    let mut inner = json!({
        "@type": format!("{TYPE}.http.injected_credentials.generic.v3.Generic"),
        "credential": { "name": "token" } });
    let mut outer = json!({
        "@type": format!("{TYPE}.filters.http.credential_injector.v3.CredentialInjector") });
    for (into, from) in [(&mut inner, &generic), (&mut outer, &injector)] {
        for (name, value) in from.as_object().unwrap() {
            into[name] = value.clone();
        }
    }
    outer["credential"] = json!({ "name": "generic", "typed_config": inner });
    let options = json!({
        "@type": format!("{TYPE}.upstreams.http.v3.HttpProtocolOptions"),
        "explicit_http_config": { "http_protocol_options": {} },
        "http_filters": [
            { "name": "injector", "typed_config": outer },
            { "name": "codec", "typed_config": {
                "@type": format!("{TYPE}.filters.http.upstream_codec.v3.UpstreamCodec") } }] });
    let mut cluster = cluster(
        &[],
        json!({ "typed_extension_protocol_options": {
        "envoy.extensions.upstreams.http.v3.HttpProtocolOptions": options } }),
    );
    cluster["load_assignment"]["endpoints"][0]["lb_endpoints"] = json!([endpoint(at)]);
    cluster
}

/// What the server gets of a field, for a request with these fields; by each proxy the same.
async fn check(injector: Value, generic: Value, sent: &[(&str, &str)], wanted: (&str, &str)) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let named = format!("{injector} {generic} {sent:?}");
    let clusters = json!([injecting(injector, generic, listener.local_addr().unwrap())]);
    for side in sides(to_origin(json!({})), clusters).await {
        let mut client = side.client().await;
        client.send("/a", sent).await;
        let (stream, _) = soon("connection", listener.accept()).await.unwrap();
        let mut stream = BufReader::new(stream);
        let mut head = String::new();
        while !head.ends_with("\r\n\r\n") {
            assert!(soon("head", stream.read_line(&mut head)).await.unwrap() > 0);
        }
        let values: Vec<&str> = head
            .lines()
            .filter_map(|line| line.split_once(": "))
            .filter(|(name, _)| name.eq_ignore_ascii_case(wanted.0))
            .map(|(_, value)| value)
            .collect();
        assert_eq!(values, [wanted.1], "{}: {named}", side.name);
        stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n").await.unwrap();
        assert_eq!(client.answer().await.status, 200, "{}", side.name);
    }
}

#[tokio::test]
async fn a_value_is_injected_as_by_envoy() {
    let none = || json!({});
    check(none(), none(), &[], ("authorization", "t0ken")).await;
    check(
        none(),
        json!({ "header_value_prefix": "Bearer " }),
        &[],
        ("authorization", "Bearer t0ken"),
    )
    .await;
    check(none(), json!({ "header": "X-Api-Key" }), &[], ("x-api-key", "t0ken")).await;
    let own = [("authorization", "mine")];
    check(none(), none(), &own, ("authorization", "mine")).await;
    check(json!({ "overwrite": true }), none(), &own, ("authorization", "t0ken")).await;
}
