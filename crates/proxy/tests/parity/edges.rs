//! Where a request came from: forwarded fields, request ids, hosts, paths.

use serde_json::{Value, json};

use crate::pair::Scene;

/// Requests that say much of where they come from.
fn asked(settings: Value) -> Scene {
    let steering = [
        "X-Envoy-Retry-On: 5xx",
        "X-Envoy-Max-Retries: 3",
        "X-Envoy-Upstream-Rq-Timeout-Ms: 900",
        "X-Envoy-Upstream-Rq-Per-Try-Timeout-Ms: 800",
        "X-Envoy-Expected-Rq-Timeout-Ms: 700",
        "X-Envoy-Internal: true",
        "X-Envoy-External-Address: 9.9.9.9",
        "X-Envoy-Decorator-Operation: op",
        "X-Envoy-Downstream-Service-Cluster: sc",
        "X-Envoy-Downstream-Service-Node: sn",
        "X-Envoy-Original-Path: /old",
        "X-Envoy-Attempt-Count: 7",
        "X-Envoy-Force-Trace: true",
        "X-Envoy-Ip-Tags: t",
        "X-Envoy-Peer-Metadata: pm",
        "X-Envoy-Other: other",
    ];
    let forwarded = |value: &'static str| [&steering[..], &[value][..]].concat();
    Scene::manager(settings)
        .get("/", &[])
        .get("/", &steering)
        .get("/", &forwarded("X-Forwarded-For: 10.1.1.1"))
        .get("/", &["X-Forwarded-For: 10.1.1.1, 8.8.8.8"])
        .get("/", &["X-Forwarded-For: 10.1.1.1", "X-Forwarded-For: 10.2.2.2"])
        .get("/", &["X-Forwarded-For: nobody"])
        .get("/", &["X-Forwarded-Proto: https", "X-Forwarded-Port: 77", "X-Forwarded-Host: h"])
        .get("/", &["X-Request-Id: mine", "Via: 1.0 before"])
        .get("/", &["X-Forwarded-Client-Cert: By=x"])
        .get(
            "/",
            &["TE: trailers, gzip", "Referer: not a url", "Keep-Alive: 5", "Proxy-Connection: x"],
        )
}

#[test]
fn a_sidecar_believes_what_is_forwarded() {
    asked(json!({})).check();
}

#[test]
fn a_sidecar_knows_who_is_internal() {
    asked(json!({ "internal_address_config": { "cidr_ranges":
        [{ "address_prefix": "10.0.0.0", "prefix_len": 8 }, { "address_prefix": "127.0.0.0", "prefix_len": 8 }] } }))
    .check();
}

#[test]
fn a_gateway_says_who_came() {
    asked(json!({ "use_remote_address": true, "append_x_forwarded_port": true, "via": "us" }))
        .check();
}

#[test]
fn a_gateway_within_trusts_hops() {
    asked(json!({ "use_remote_address": true, "xff_num_trusted_hops": 1,
        "append_x_forwarded_port": true, "preserve_external_request_id": true }))
    .check();
}

#[test]
fn a_gateway_may_leave_the_list_alone() {
    asked(json!({ "use_remote_address": true, "skip_xff_append": true,
        "internal_address_config": { "cidr_ranges": [{ "address_prefix": "127.0.0.0", "prefix_len": 8 }] } }))
    .check();
}

#[test]
fn a_sidecar_behind_hops_counts_them() {
    asked(json!({ "xff_num_trusted_hops": 1, "generate_request_id": false,
        "always_set_request_id_in_response": true, "server_name": "istio-envoy" }))
    .check();
}

#[test]
fn hosts_are_normalised() {
    Scene::manager(json!({ "strip_any_host_port": true }))
        .get("/", &["Host: A.Test:81"])
        .get("/", &["Host: [::1]:81"])
        .get("http://b.test:82/x?y", &["Host: b.test:82"])
        .get("http://b.test", &["Host: b.test"])
        .check();
    Scene::manager(
        json!({ "strip_trailing_host_dot": true, "normalize_path": true, "merge_slashes": true }),
    )
    .get("/a//b/../c", &["Host: a.test.:81"])
    .get("/a%2Fb/%7Euser/%41", &["Host: a.test."])
    .get("/a/../../b", &[])
    .check();
    Scene::manager(json!({ "normalize_path": true, "path_with_escaped_slashes_action": "UNESCAPE_AND_REDIRECT" }))
        .get("/a%2Fb?q", &[])
        .check();
}

#[test]
fn old_clients_are_served_where_allowed() {
    Scene::manager(json!({ "http_protocol_options": { "accept_http_10": true, "default_host_for_http_10": "old.test" } }))
        .raw("GET / HTTP/1.0\r\n\r\n")
        .raw("GET / HTTP/1.0\r\nHost: b\r\nConnection: keep-alive\r\n\r\n")
        .check();
}
