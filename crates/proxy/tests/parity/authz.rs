//! External authorization: one service behind both proxies, of gRPC and of HTTP.

use std::net::SocketAddr;

use serde_json::{Value, json};

use tokio::io::AsyncReadExt as _;

use crate::{
    harness::{Echo, Proxy, cluster, listener, log_in, soon, tcp_chain},
    pair::{Scene, filters},
    service::Service,
};

fn grpc(settings: Value) -> Value {
    let mut all = json!({
        "transport_api_version": "V3",
        "grpc_service": { "envoy_grpc": { "cluster_name": "grpc" }, "timeout": "1s" },
    });
    all.as_object_mut().unwrap().extend(settings.as_object().unwrap().clone());
    filters("authz", "ext_authz.v3.ExtAuthz", all)
}

fn http(service: Value, settings: Value) -> Value {
    let mut own = json!({
        "server_uri": { "uri": "http://authz", "cluster": "http", "timeout": "1s" },
    });
    own.as_object_mut().unwrap().extend(service.as_object().unwrap().clone());
    let mut all = json!({ "transport_api_version": "V3", "http_service": own });
    all.as_object_mut().unwrap().extend(settings.as_object().unwrap().clone());
    filters("authz", "ext_authz.v3.ExtAuthz", all)
}

fn routes(mut routes: Value, manager: Value, (service, grpc): (SocketAddr, SocketAddr)) -> Scene {
    for route in routes.as_array_mut().unwrap() {
        route["response_headers_to_add"] = json!([{ "header": {
            "key": "x-meta", "value": "%DYNAMIC_METADATA(envoy.filters.http.ext_authz:who)%" } }]);
    }
    let mut scene = Scene::routes(routes).with(manager);
    scene.clusters.extend([grpc_cluster(grpc), cluster("http", &[service])]);
    scene
}

/// Everything to the origin, but `/other` to another route.
fn all(manager: Value, service: &Service) -> Scene {
    let routes_of = json!([
        { "name": "other", "match": { "prefix": "/other" }, "route": { "cluster": "origin" } },
        { "name": "all", "match": { "prefix": "/" }, "route": { "cluster": "origin" } },
    ]);
    routes(routes_of, manager, (service.http, service.grpc))
}

fn grpc_cluster(address: SocketAddr) -> Value {
    let mut of_grpc = cluster("grpc", &[address]);
    of_grpc["typed_extension_protocol_options"] = json!({
        "envoy.extensions.upstreams.http.v3.HttpProtocolOptions": {
            "@type": "type.googleapis.com/envoy.extensions.upstreams.http.v3.HttpProtocolOptions",
            "explicit_http_config": { "http2_protocol_options": {} },
        },
    });
    of_grpc
}

const VERDICTS: [&str; 16] = [
    "yes",
    "plain",
    "set",
    "add",
    "join",
    "remove",
    "query",
    "path",
    "response",
    "meta",
    "no",
    "no-plain",
    "no-status",
    "no-many",
    "unavailable",
    "http-500",
];

#[test]
fn a_grpc_service_decides() {
    let service = Service::start();
    let mut scene = all(grpc(json!({})), &service);
    for verdict in VERDICTS {
        let verdict = format!("X-Verdict: {verdict}");
        scene = scene.get("/a?b=1&c&b=2&a=%20", &[&verdict, "X-Here: 1", "X-Two: 1", "X-Two: 2"]);
    }
    scene
        .send("POST", "/p", &["X-Verdict: yes", "X-Envoy-Auth-Partial-Body: false"], "hello")
        .send("POST", "/p", &["X-Verdict: no"], "hello")
        .get("/g", &["X-Verdict: no", "Content-Type: application/grpc"])
        .get("/g", &["X-Verdict: error", "X-Ä: 1"])
        .check();
}

#[test]
fn a_service_that_fails_means_no_unless_it_is_said() {
    let service = Service::start();
    let short = json!({ "envoy_grpc": { "cluster_name": "grpc" }, "timeout": "0.1s" });
    let nobody = json!({ "envoy_grpc": { "cluster_name": "refusing" }, "timeout": "0.2s" });
    for settings in [
        json!({ "grpc_service": short }),
        json!({ "grpc_service": short, "status_on_error": { "code": 503 } }),
        json!({ "grpc_service": short, "failure_mode_allow": true }),
        json!({ "grpc_service": short, "failure_mode_allow": true, "failure_mode_allow_header_add": true }),
        json!({ "grpc_service": nobody }),
        json!({ "grpc_service": nobody, "failure_mode_allow": true }),
    ] {
        all(grpc(settings), &service)
            .get("/", &["X-Verdict: unavailable"])
            .get("/", &["X-Verdict: hang"])
            .get("/", &["X-Verdict: error"])
            .get("/", &["X-Verdict: no"])
            .get("/", &["X-Verdict: reset"])
            .check();
    }
}

#[test]
fn bodies_are_sent_along_as_far_as_is_said() {
    let service = Service::start();
    // Without a list clients get what Envoy's own calls are measured by, too.
    let client = json!({ "allowed_client_headers": { "patterns": [{ "exact": "x-asked" }] } });
    for part in [
        json!({ "max_request_bytes": 8 }),
        json!({ "max_request_bytes": 8, "allow_partial_message": true }),
        json!({ "max_request_bytes": 4000, "pack_as_bytes": true }),
    ] {
        all(grpc(json!({ "with_request_body": part })), &service)
            .get("/", &["X-Verdict: yes"])
            .send("POST", "/", &["X-Verdict: yes"], "1234567")
            .send("POST", "/", &["X-Verdict: yes"], "12345678901234567890")
            .send("POST", "/", &["X-Verdict: no"], "1234567")
            .raw("POST / HTTP/1.1\r\nHost: a.test\r\nX-Verdict: plain\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n2\r\nde\r\n0\r\n\r\n")
            .check();
        all(http(json!({ "authorization_response": client }), json!({ "with_request_body": part, "allowed_headers": { "patterns": [{ "exact": "x-verdict" }] } })), &service)
            .get("/", &["X-Verdict: echo"])
            .send("POST", "/", &["X-Verdict: echo"], "1234567")
            .send("POST", "/", &["X-Verdict: echo"], "12345678901234567890")
            .check();
    }
}

#[test]
fn what_is_told_can_be_chosen() {
    let service = Service::start();
    let list = |names: &[&str]| json!({ "patterns": names.iter().map(|name| json!({ "prefix": name })).collect::<Vec<_>>() });
    for settings in [
        json!({ "allowed_headers": list(&["x-verdict", "x-h", ":pa"]) }),
        json!({ "disallowed_headers": list(&["x-h", "x-f", ":sch"]) }),
        json!({ "allowed_headers": list(&["x-"]), "disallowed_headers": list(&["x-h"]) }),
        json!({ "encode_raw_headers": true }),
        json!({ "clear_route_cache": true }),
        json!({ "enable_dynamic_metadata_ingestion": false }),
        json!({ "max_denied_response_body_bytes": 3 }),
        json!({ "filter_enabled": { "default_value": { "numerator": 0 } } }),
        json!({ "filter_enabled": { "default_value": { "numerator": 0 } }, "deny_at_disable": { "runtime_key": "x", "default_value": true } }),
        json!({ "filter_enabled_metadata": { "filter": "x", "path": [{ "key": "y" }], "value": { "string_match": { "prefix": "z" } } } }),
        json!({ "filter_enabled_metadata": { "filter": "x", "path": [{ "key": "y" }], "value": { "present_match": true }, "invert": true } }),
    ] {
        all(grpc(settings), &service)
            .get("/a?x=1", &["X-Verdict: yes", "X-Here: 1", "X-Here: 2", "X-Foo: 3"])
            .get("/a", &["X-Verdict: path"])
            .get("/a", &["X-Verdict: meta"])
            .get("/a", &["X-Verdict: no"])
            .check();
    }
}

#[test]
fn routes_may_say_otherwise() {
    let service = Service::start();
    let said = |setting: Value| {
        let mut setting = setting;
        setting["@type"] = json!(
            "type.googleapis.com/envoy.extensions.filters.http.ext_authz.v3.ExtAuthzPerRoute"
        );
        json!({ "authz": setting })
    };
    let to = json!({ "cluster": "origin" });
    let all = json!([
        { "match": { "path": "/off" }, "route": to, "typed_per_filter_config": said(json!({ "disabled": true })) },
        { "match": { "path": "/told" }, "route": to, "typed_per_filter_config": said(json!({ "check_settings": { "context_extensions": { "a": "1", "b": "2" } } })) },
        { "match": { "path": "/bare" }, "route": to, "typed_per_filter_config": said(json!({ "check_settings": { "disable_request_body_buffering": true } })) },
        { "match": { "path": "/more" }, "route": to, "typed_per_filter_config": said(json!({ "check_settings": { "with_request_body": { "max_request_bytes": 100 } } })) },
        { "match": { "path": "/direct" }, "direct_response": { "status": 201 } },
    ]);
    let manager = grpc(json!({ "with_request_body": { "max_request_bytes": 4 } }));
    let mut scene = routes(all, manager, (service.http, service.grpc));
    for path in ["/off", "/told", "/bare", "/more", "/direct", "/none"] {
        scene = scene.send("POST", path, &["X-Verdict: yes"], "abcdef");
        scene = scene.get(path, &["X-Verdict: yes"]).get(path, &["X-Verdict: no"]);
    }
    scene.check();
}

#[test]
fn an_http_service_decides() {
    let service = Service::start();
    let exact = |names: &[&str]| json!({ "patterns": names.iter().map(|name| json!({ "exact": name })).collect::<Vec<_>>() });
    let allowed = json!({ "allowed_headers": exact(&["x-verdict", "x-here"]) });
    let answer = json!({
        "allowed_upstream_headers": exact(&["x-asked", "x-new", "x-many"]),
        "allowed_upstream_headers_to_append": exact(&["x-here"]),
        "allowed_client_headers": exact(&["x-why", "set-cookie", "x-asked"]),
        "allowed_client_headers_on_success": exact(&["x-granted"]),
        "dynamic_metadata_from_headers": exact(&["who"]),
    });
    let client = json!({ "allowed_client_headers": exact(&["x-asked"]) });
    for own in [
        json!({ "authorization_response": client }),
        json!({ "path_prefix": "/check", "authorization_response": client, "authorization_request": { "headers_to_add": [{ "key": "x-told", "value": "yes" }, { "key": "x-here", "value": "ours" }] } }),
        json!({ "path_override": "/check", "authorization_response": client }),
        json!({ "authorization_response": answer }),
        json!({ "authorization_response": answer, "path_prefix": "/check" }),
    ] {
        let mut scene = all(http(own, allowed.clone()), &service);
        for verdict in ["yes", "echo", "many", "no", "302", "503", "remove", "hang", "close"] {
            let verdict = format!("X-Verdict: {verdict}");
            let fields = [&*verdict, "X-Here: 1", "X-Many: 0", "X-Gone: 1", "Authorization: me"];
            scene = scene.get("/a?b=1", &fields);
        }
        scene.send("POST", "/p", &["X-Verdict: echo"], "hello").check();
    }
}

#[test]
fn connections_are_asked_about() {
    let service = Service::start();
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
    runtime.block_on(ask_about_connections(&service));
}

async fn ask_about_connections(service: &Service) {
    let echo = Echo::start("hello").await;
    for (fails_open, verdict, line) in [
        (false, "yes", "- 0 5 echo -"),
        (false, "no", "UAEX 0 0 echo -"),
        (true, "no", "UAEX 0 0 echo -"),
        (false, "unavailable", "UAEX 0 0 echo -"),
        (false, "hang", "UAEX 0 0 echo -"),
        (true, "hang", "- 0 5 echo -"),
    ] {
        *service.of_connections.lock().unwrap() = verdict;
        let dir = tempfile::tempdir().unwrap();
        let log = log_in(&dir);
        let mut chain = tcp_chain("echo", &log);
        let guard = json!({ "name": "authz", "typed_config": {
            "@type": "type.googleapis.com/envoy.extensions.filters.network.ext_authz.v3.ExtAuthz",
            "stat_prefix": "authz",
            "transport_api_version": "V3",
            "failure_mode_allow": fails_open,
            "grpc_service": { "envoy_grpc": { "cluster_name": "grpc" }, "timeout": "0.3s" },
        }});
        chain["filters"].as_array_mut().unwrap().insert(0, guard);
        let clusters = json!([cluster("echo", &[echo.address]), grpc_cluster(service.grpc)]);
        let listeners = json!([listener("in", json!({ "filter_chains": [chain] }))]);
        let mut proxy = Proxy::with(listeners, clusters).await;
        let mut client = proxy.connect("in").await;
        let mut greeting = [0_u8; 5];
        let read = soon("greeting", client.read_exact(&mut greeting)).await;
        assert_eq!(read.is_ok(), line.starts_with('-'), "{verdict}");
        drop(client);
        assert_eq!(proxy.stop_and_read(&log).await, [line], "{verdict}");
    }
}
