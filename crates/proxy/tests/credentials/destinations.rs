//! Wherever else a request can be led, no credential goes along.

use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use crate::{
    capture::{Capture, ok},
    harness::{cluster, soon},
    pki::Pki,
    scene::{HOST, SECRET, Scene, Setting, TYPE},
};

/// A scene whose cluster speaks TLS by these settings; its one request's status.
async fn status_with(
    tls: Value,
    upstream: Value,
    certificate: &'static str,
) -> (u16, usize, String) {
    let setting = Setting::default();
    let dir = tempfile::tempdir().unwrap();
    let pki = Pki::new(dir.path());
    let mut options =
        crate::scene::api(&setting, &pki, &[])["typed_extension_protocol_options"].take();
    options["envoy.extensions.upstreams.http.v3.HttpProtocolOptions"]["upstream_http_protocol_options"] =
        upstream;
    let mut fields = json!({ "typed_extension_protocol_options": options });
    fields["transport_socket"] = tls;
    let scene = Scene::new(Setting { cluster: fields, certificate, ..setting }).await;
    let reply = scene.get("/", "").await;
    let seen = scene.server.seen().len();
    (reply.status, seen, scene.log().await.concat())
}

fn tls(fields: Value) -> Value {
    let mut config = json!({
        "@type": format!("{TYPE}.transport_sockets.tls.v3.UpstreamTlsContext"),
        "common_tls_context": { "validation_context": {} },
    });
    for (name, value) in fields.as_object().unwrap() {
        config[name] = value.clone();
    }
    json!({ "name": "tls", "typed_config": config })
}

#[tokio::test]
async fn an_endpoint_that_is_not_verified_gets_none() {
    let raw = json!({ "name": "raw", "typed_config": {
        "@type": format!("{TYPE}.transport_sockets.raw_buffer.v3.RawBuffer") } });
    let named = json!({ "auto_sni": true });
    let unverified = tls(json!({}));
    // The chain is verified, and no name.
    let any_name = tls(json!({ "sni": HOST, "common_tls_context": {
        "validation_context_sds_secret_config": {
            "name": "ROOTS", "sds_config": { "ads": {} } } } }));
    for (socket, upstream) in [
        (raw, json!({})),
        (unverified.clone(), named),
        (unverified, json!({})),
        (any_name, json!({})),
    ] {
        let text = socket.to_string();
        let (status, seen, log) = status_with(socket, upstream, HOST).await;
        assert_eq!((status, seen), (503, 0), "{text}");
        assert!(log.starts_with("503 CRG credential_guard "), "{text}: {log}");
    }
}

#[tokio::test]
async fn a_server_with_another_name_gets_none() {
    let scene = Scene::new(Setting { certificate: "evil.test", ..Setting::default() }).await;
    let reply = scene.get("/", "").await;
    assert_eq!(reply.status, 503);
    assert!(scene.server.seen().is_empty());
}

#[tokio::test]
async fn a_host_that_the_guard_does_not_name_gets_none() {
    let scene = Scene::new(Setting { certificate: "evil.test", ..Setting::default() }).await;
    for host in [
        "evil.test",
        "evilapi.test",
        "api.test.evil.test",
        "127.0.0.1",
        "[::1]",
        "sub.api.test",
        "api_test",
        "xn--api-1.test",
    ] {
        let reply = scene.send(&format!("GET / HTTP/1.1\r\nHost: {host}\r\n\r\n")).await;
        assert_eq!((reply.status, &*reply.body), (503, "credential must not go there"), "{host}");
    }
    assert!(scene.server.seen().is_empty());
}

#[tokio::test]
async fn spellings_of_the_host_reach_the_host_or_nobody() {
    let scene = Scene::plain().await;
    for host in ["API.test", "api.test.", "api.test:443", "Api.Test:8443"] {
        let reply = scene.send(&format!("GET / HTTP/1.1\r\nHost: {host}\r\n\r\n")).await;
        assert_eq!(reply.status, 200, "{host}");
        assert_eq!(scene.server.only().field("x-key").unwrap(), format!("Key {SECRET}"), "{host}");
    }
    for request in [
        "GET / HTTP/1.1\r\nHost: api.test@evil.test\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: evil.test@api.test\r\n\r\n",
        "GET http://api.test@evil.test/ HTTP/1.1\r\nHost: api.test\r\n\r\n",
        "GET http://user:pass@api.test/ HTTP/1.1\r\nHost: api.test\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: api.test\r\nHost: evil.test\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: api.test, evil.test\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: api.test/evil\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: api.test#.evil.test\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: evil.test\\.api.test\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: api.test%00.evil.test\r\n\r\n",
        "GET / HTTP/1.1\r\n\r\n",
    ] {
        let reply = scene.send(request).await;
        assert_eq!(reply.status, 400, "{request:?}");
        assert!(scene.server.seen().is_empty(), "{request:?}");
    }
}

#[tokio::test]
async fn an_absolute_target_with_another_host_beside_it_reaches_nobody() {
    let scene = Scene::plain().await;
    for (target, host) in [("api.test", "evil.test"), ("evil.test", "api.test")] {
        let request = format!("GET http://{target}/x HTTP/1.1\r\nHost: {host}\r\n\r\n");
        assert_eq!(scene.send(&request).await.status, 400, "{request:?}");
    }
    assert!(scene.server.seen().is_empty());
    let reply = scene.send("GET http://api.test/x HTTP/1.1\r\nHost: api.test\r\n\r\n").await;
    assert_eq!(reply.status, 200);
    assert_eq!(scene.server.only().target, "/x");
    let reply = scene.send("GET http://evil.test/x HTTP/1.1\r\nHost: evil.test\r\n\r\n").await;
    assert_eq!(reply.status, 503);
    assert!(scene.server.seen().is_empty());
}

#[tokio::test]
async fn an_authority_beside_another_host_reaches_nobody_else() {
    let scene = Scene::plain().await;
    let request = |host: &str, beside: &str| {
        let uri = format!("http://{host}/");
        http::Request::get(uri).header("host", beside).body(()).unwrap()
    };
    let reply = scene.http2(request("evil.test", "api.test"), b"").await;
    assert!(matches!(reply.status, 0 | 400 | 503), "{reply:?}");
    assert!(scene.server.seen().is_empty());
    let reply = scene.http2(request("api.test", "evil.test"), b"").await;
    if reply.status == 200 {
        let seen = scene.server.only();
        assert!(seen.host == HOST && !seen.holds("evil.test"), "{seen:?}");
    }
    assert!(scene.server.seen().is_empty());
}

#[tokio::test]
async fn a_tunnel_gets_none() {
    let upgrades = json!([{ "upgrade_type": "CONNECT" }]);
    for action in [
        json!({ "cluster": "api", "upgrade_configs": [{ "upgrade_type": "CONNECT" }] }),
        json!({ "cluster": "api",
            "upgrade_configs": [{ "upgrade_type": "CONNECT", "connect_config": {} }] }),
    ] {
        let scene = Scene::new(Setting {
            routes: json!([{ "match": { "connect_matcher": {} }, "route": action }]),
            manager: json!({ "upgrade_configs": upgrades }),
            ..Setting::default()
        })
        .await;
        let request = "CONNECT api.test:443 HTTP/1.1\r\nHost: api.test:443\r\n\r\n";
        assert_eq!(scene.send(request).await.status, 503, "{action}");
        assert!(scene.server.seen().is_empty(), "{action}");
    }
}

#[tokio::test]
async fn a_redirect_is_the_clients_to_follow() {
    let elsewhere = Capture::start(None, false, |_| ok()).await;
    let location = format!("http://{}/stolen", elsewhere.address);
    let at = elsewhere.address;
    let other = cluster("other", &[at]);
    let scene = Scene::answering(
        Setting {
            others: vec![other],
            routes: json!([
                { "match": { "prefix": "/stolen" }, "route": { "cluster": "other" } },
                { "match": { "prefix": "/" }, "route": { "cluster": "api" } }]),
            ..Setting::default()
        },
        move |_| (302, vec![("location", location.clone())], String::new()),
    )
    .await;
    let reply = scene.get("/", "").await;
    assert_eq!(reply.status, 302);
    assert_eq!(scene.server.only().field("x-key").unwrap(), format!("Key {SECRET}"));
    // The client follows.
    assert_eq!(scene.get("/stolen", "").await.status, 200);
    let seen = elsewhere.only();
    assert!(!seen.holds(SECRET), "{seen:?}");
}

#[tokio::test]
async fn a_mirror_gets_the_request_without() {
    let elsewhere = Capture::start(None, false, |_| ok()).await;
    let other = cluster("other", &[elsewhere.address]);
    let mirrors = json!([{ "cluster": "other" }, { "cluster": "api" }]);
    let scene = Scene::new(Setting {
        injection: json!({ "query": { "name": "key", "key": "k" } }),
        others: vec![other],
        routes: json!([{ "match": { "prefix": "/" },
            "route": { "cluster": "api", "request_mirror_policies": mirrors } }]),
        ..Setting::default()
    })
    .await;
    assert_eq!(scene.get("/?a=b", "X-Key: mine\r\n").await.status, 200);
    scene.proxy.until_counter("http.rq_mirrored", 1).await;
    soon("mirror", async {
        while elsewhere.seen().is_empty() {
            tokio::task::yield_now().await;
        }
    })
    .await;
    assert!(!elsewhere.only().holds(SECRET));
    assert!(scene.server.only().target.contains(SECRET));
    // What may only go out with a credential is not mirrored at all.
    assert_eq!(scene.proxy.counter("http.rq_mirror_dropped").await, 1);
}

#[tokio::test]
async fn a_retry_goes_to_endpoints_of_that_name_alone() {
    let dir = tempfile::tempdir().unwrap();
    let pki = Pki::new(dir.path());
    let (chain, key) = pki.issue("evil.test");
    let evil = Capture::start(Some((&chain, &key)), false, |_| ok()).await;
    let policy = json!({ "retry_on": "5xx,connect-failure,reset", "num_retries": 4,
        "retry_back_off": { "base_interval": "0.001s" } });
    let scene = Scene::answering(
        Setting {
            routes: json!([{ "match": { "prefix": "/" },
                "route": { "cluster": "api", "retry_policy": policy } }]),
            // One of the cluster's addresses is another's by now.
            endpoints: vec![evil.address],
            ..Setting::default()
        },
        |_| (503, Vec::new(), "no".to_owned()),
    )
    .await;
    for _ in 0..4 {
        assert_eq!(scene.get("/", "").await.status, 503);
    }
    let seen = scene.server.seen();
    assert!(seen.len() > 4, "{}", seen.len());
    assert!(seen.iter().all(|one| one.field("x-key").unwrap() == format!("Key {SECRET}")));
    assert!(evil.seen().is_empty());
}

#[tokio::test]
async fn an_address_that_changes_in_flight_must_still_prove_its_name() {
    let dir = tempfile::tempdir().unwrap();
    let pki = Pki::new(dir.path());
    let (chain, key) = pki.issue("evil.test");
    let evil = Capture::start(Some((&chain, &key)), false, |_| ok()).await;
    // Both answers of the name: the real one and the other; every connection may go to either.
    let setting = Setting::default();
    let mut moved = crate::scene::api(&setting, &pki, &[evil.address]);
    moved["name"] = json!("moved");
    let scene = Scene::new(Setting {
        others: vec![moved],
        routes: json!([{ "match": { "prefix": "/moved" }, "route": { "cluster": "moved" } },
            { "match": { "prefix": "/" }, "route": { "cluster": "api" } }]),
        ..setting
    })
    .await;
    for _ in 0..3 {
        assert_eq!(scene.get("/moved", "").await.status, 503);
        assert_eq!(scene.get("/", "").await.status, 200);
    }
    assert!(evil.seen().is_empty());
    assert_eq!(scene.server.seen().len(), 3);
}

#[tokio::test]
async fn an_upgrade_to_another_protocol_carries_it_in_its_head_alone() {
    let scene = Scene::new(Setting {
        manager: json!({ "upgrade_configs": [{ "upgrade_type": "websocket" }] }),
        ..Setting::default()
    })
    .await;
    let mut client = scene.proxy.connect("in").await;
    let request = format!(
        "GET /ws HTTP/1.1\r\nHost: {HOST}\r\nConnection: Upgrade, X-Key\r\nUpgrade: websocket\r\n\
         X-Key: mine\r\n\r\n"
    );
    client.write_all(request.as_bytes()).await.unwrap();
    let mut some = [0; 12];
    soon("answer", client.read_exact(&mut some)).await.unwrap();
    let seen = scene.server.only();
    assert_eq!(seen.field("x-key").unwrap(), format!("Key {SECRET}"));
    assert!(!seen.field("connection").unwrap().to_ascii_lowercase().contains("x-key"), "{seen:?}");
}
