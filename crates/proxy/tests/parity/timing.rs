//! Retries and timeouts.

use std::net::SocketAddr;

use serde_json::{Value, json};

use crate::{harness::address, pair::Scene, service::Service};

fn retrying(policy: Value, further: Value) -> Scene {
    let mut route = json!({ "cluster": "origin", "retry_policy": policy, "timeout": "2s" });
    route.as_object_mut().unwrap().extend(further.as_object().unwrap().clone());
    Scene::table(json!({ "virtual_hosts": [{ "name": "all", "domains": ["*"],
        "include_request_attempt_count": true, "include_attempt_count_in_response": true,
        "routes": [{ "name": "r", "match": { "prefix": "/" }, "route": route }] }] }))
}

fn policy(on: &str) -> Value {
    json!({ "retry_on": on, "num_retries": 2,
        "retry_back_off": { "base_interval": "0.001s", "max_interval": "0.002s" } })
}

#[test]
fn what_is_tried_again() {
    for on in [
        "5xx",
        "gateway-error",
        "reset",
        "reset-before-request",
        "connect-failure",
        "retriable-4xx",
        "refused-stream",
        "retriable-status-codes",
        "retriable-headers",
        "envoy-ratelimited",
        "unavailable",
        "connect-failure,refused-stream,unavailable,cancelled,retriable-status-codes",
    ] {
        let mut policy = policy(on);
        policy["retriable_status_codes"] = json!([418]);
        policy["retriable_headers"] = json!([{ "name": "x-again", "present_match": true }]);
        let mut scene = retrying(policy, json!({}));
        for what in [
            "status=503",
            "status=500",
            "status=502,first=1",
            "status=409,first=2",
            "status=418,first=1",
            "close,first=1",
            "close",
            "set=x-again:1,first=1",
            "set=x-envoy-ratelimited:1,first=1",
            "set=grpc-status:14,first=1",
        ] {
            scene = scene.get("/", &[&format!("X-Do: {what}")]);
        }
        scene.send("POST", "/", &["X-Do: status=503,first=1"], "body").check();
    }
}

#[test]
fn connections_that_fail_are_tried_again() {
    for on in ["5xx", "gateway-error", "reset", "connect-failure", "retriable-4xx", ""] {
        retrying(policy(on), json!({ "cluster": "refusing" })).get("/", &[]).check();
        retrying(policy(on), json!({ "cluster": "nowhere" })).get("/", &[]).check();
    }
}

#[test]
fn priorities_that_were_tried_can_be_left_out() {
    let service = Service::start();
    let level = |priority: u32, at: SocketAddr| json!({ "priority": priority, "lb_endpoints": [{ "endpoint": { "address": address(at) } }] });
    let levels = json!([level(0, "127.0.0.1:1".parse().unwrap()), level(1, service.http)]);
    for every in [1, 2, 3] {
        let mut own = policy("connect-failure");
        own["num_retries"] = json!(2);
        own["retry_priority"] = json!({ "name": "envoy.retry_priorities.previous_priorities",
            "typed_config": {
                "@type": "type.googleapis.com/envoy.extensions.retry.priority.previous_priorities.v3.PreviousPrioritiesConfig",
                "update_frequency": every } });
        let mut scene = retrying(own, json!({ "cluster": "levels" }));
        scene.clusters.push(json!({ "name": "levels", "type": "STATIC", "connect_timeout": "1s",
            "load_assignment": { "cluster_name": "levels", "endpoints": levels } }));
        scene.get("/", &[]).check();
    }
}

#[test]
fn times_are_kept() {
    retrying(policy(""), json!({ "timeout": "0.1s" })).get("/", &["X-Do: hang"]).check();
    let mut own = policy("5xx");
    own["per_try_timeout"] = json!("0.05s");
    retrying(own.clone(), json!({}))
        .get("/", &["X-Do: hang"])
        .get("/", &["X-Do: hang,first=1"])
        .check();
    own["retry_on"] = json!("connect-failure");
    retrying(own.clone(), json!({})).get("/", &["X-Do: hang"]).check();
    let mut idle = policy("5xx");
    idle["per_try_idle_timeout"] = json!("0.05s");
    retrying(idle, json!({})).get("/", &["X-Do: hang"]).check();
    retrying(policy(""), json!({ "idle_timeout": "0.1s" })).get("/", &["X-Do: hang"]).check();
    let life = json!({ "max_stream_duration": { "max_stream_duration": "0.1s" } });
    retrying(policy(""), life).get("/", &["X-Do: hang"]).check();
    retrying(policy("5xx"), json!({ "timeout": "0s" })).get("/", &[]).check();
}

#[test]
fn a_client_within_may_ask() {
    let internal = json!({ "internal_address_config": { "cidr_ranges":
        [{ "address_prefix": "10.0.0.0", "prefix_len": 8 }] } });
    for manager in [json!({}), internal] {
        retrying(json!({ "num_retries": 1 }), json!({}))
            .with(manager)
            .get("/", &["X-Forwarded-For: 10.0.0.1", "X-Envoy-Retry-On: 5xx", "X-Do: status=503"])
            .get(
                "/",
                &[
                    "X-Forwarded-For: 10.0.0.1",
                    "X-Envoy-Retry-On: 5xx",
                    "X-Envoy-Max-Retries: 3",
                    "X-Do: status=503",
                ],
            )
            .get(
                "/",
                &[
                    "X-Forwarded-For: 10.0.0.1",
                    "X-Envoy-Retry-On: retriable-status-codes",
                    "X-Envoy-Retriable-Status-Codes: 418,419",
                    "X-Do: status=418,first=1",
                ],
            )
            .get(
                "/",
                &["X-Forwarded-For: 10.0.0.1", "X-Envoy-Upstream-Rq-Timeout-Ms: 50", "X-Do: hang"],
            )
            .get(
                "/",
                &[
                    "X-Forwarded-For: 10.0.0.1",
                    "X-Envoy-Retry-On: 5xx",
                    "X-Envoy-Upstream-Rq-Per-Try-Timeout-Ms: 50",
                    "X-Do: hang,first=1",
                ],
            )
            .check();
    }
}

#[test]
fn grpc_clients_may_ask_for_time() {
    for rule in [
        json!({ "max_grpc_timeout": "0s" }),
        json!({ "max_grpc_timeout": "1s" }),
        json!({ "max_stream_duration": { "grpc_timeout_header_max": "1s", "grpc_timeout_header_offset": "0.1s" } }),
    ] {
        retrying(json!({ "num_retries": 0 }), rule)
            .get("/", &["Content-Type: application/grpc", "Grpc-Timeout: 700m"])
            .get("/", &["Content-Type: application/grpc", "Grpc-Timeout: 5S"])
            .get("/", &["Content-Type: application/grpc"])
            .get("/", &["Grpc-Timeout: 700m"])
            .check();
    }
}
