//! Filters: CORS, faults, rate limits, header mutation, health checks.

use serde_json::{Value, json};

use crate::pair::{Scene, filters};

fn typed(name: &str, message: &str, mut settings: Value) -> Value {
    settings["@type"] = json!(format!("type.googleapis.com/{message}"));
    json!({ name: settings })
}

fn route(per_filter: Value) -> Value {
    json!([{ "name": "r", "match": { "prefix": "/" }, "route": { "cluster": "origin" },
        "response_headers_to_add": [{ "header": { "key": "x-route", "value": "1" } }],
        "typed_per_filter_config": per_filter }])
}

#[test]
fn cors_is_envoys() {
    for policy in [
        json!({ "allow_origin_string_match": [{ "exact": "https://a.test" }] }),
        json!({ "allow_origin_string_match": [{ "safe_regex": { "regex": "https://.*\\.test" } }],
            "allow_methods": "GET, PUT", "allow_headers": "x-one,x-two", "expose_headers": "x-e",
            "max_age": "10", "allow_credentials": true, "allow_private_network_access": true,
            "forward_not_matching_preflights": false }),
        json!({ "allow_origin_string_match": [{ "exact": "*" }], "allow_methods": "*", "allow_headers": "*" }),
        json!({ "allow_origin_string_match": [{ "prefix": "https://a" }], "allow_methods": "GET",
            "filter_enabled": { "default_value": { "numerator": 0 } } }),
    ] {
        let per_filter = typed("cors", "envoy.extensions.filters.http.cors.v3.CorsPolicy", policy);
        let mut scene =
            Scene::routes(route(per_filter)).with(filters("cors", "cors.v3.Cors", json!({})));
        for origin in ["https://a.test", "https://b.other", ""] {
            let origin = format!("Origin: {origin}");
            let asks = "Access-Control-Request-Method: PUT";
            scene = scene
                .get("/", &[&origin])
                .send("OPTIONS", "/", &[&origin], "")
                .send("OPTIONS", "/", &[&origin, asks], "")
                .send(
                    "OPTIONS",
                    "/",
                    &[
                        &origin,
                        asks,
                        "Access-Control-Request-Headers: x-q",
                        "Access-Control-Request-Private-Network: true",
                    ],
                    "",
                )
                .get("/", &[&origin, "X-Do: set=access-control-allow-origin:else"]);
        }
        scene.check();
    }
}

#[test]
fn faults_are_envoys() {
    for fault in [
        json!({ "abort": { "http_status": 503, "percentage": { "numerator": 100 } } }),
        json!({ "abort": { "grpc_status": 14, "percentage": { "numerator": 100 } } }),
        json!({ "abort": { "http_status": 400, "percentage": { "numerator": 100 } }, "upstream_cluster": "other" }),
        json!({ "delay": { "fixed_delay": "0.01s", "percentage": { "numerator": 1000000, "denominator": "MILLION" } } }),
        json!({ "delay": { "fixed_delay": "0.01s", "percentage": { "numerator": 100 } },
            "abort": { "http_status": 418, "percentage": { "numerator": 100 } },
            "headers": [{ "name": "x-fault", "present_match": true }] }),
        json!({ "abort": { "header_abort": {}, "percentage": { "numerator": 100 } },
            "delay": { "header_delay": {}, "percentage": { "numerator": 100 } } }),
        json!({ "abort": { "http_status": 400, "percentage": { "numerator": 100 } }, "max_active_faults": 0 }),
    ] {
        let per_filter = typed("fault", "envoy.extensions.filters.http.fault.v3.HTTPFault", fault);
        Scene::routes(route(per_filter))
            .with(filters("fault", "fault.v3.HTTPFault", json!({})))
            .get("/", &[])
            .get("/", &["X-Fault: 1"])
            .get("/", &["X-Envoy-Fault-Abort-Request: 477"])
            .get("/", &["X-Envoy-Fault-Abort-Grpc-Request: 5"])
            .get(
                "/",
                &["X-Envoy-Fault-Abort-Request: 477", "X-Envoy-Fault-Abort-Request-Percentage: 0"],
            )
            .get("/", &["X-Envoy-Fault-Delay-Request: 5"])
            .check();
    }
}

#[test]
fn rate_limits_are_envoys() {
    let limit = |further: Value| {
        let mut limit = json!({ "stat_prefix": "l",
            "token_bucket": { "max_tokens": 2, "tokens_per_fill": 1, "fill_interval": "3600s" },
            "filter_enabled": { "default_value": { "numerator": 100 } },
            "filter_enforced": { "default_value": { "numerator": 100 } } });
        limit.as_object_mut().unwrap().extend(further.as_object().unwrap().clone());
        limit
    };
    for further in [
        json!({}),
        json!({ "status": { "code": 503 } }),
        json!({ "status": { "code": 201 } }),
        json!({ "filter_enforced": { "default_value": { "numerator": 0 } },
            "request_headers_to_add_when_not_enforced": [{ "header": { "key": "x-over", "value": "yes" } }] }),
        json!({ "response_headers_to_add": [{ "header": { "key": "x-limited", "value": "%PROTOCOL%" } }] }),
        json!({ "local_rate_limit_per_downstream_connection": true }),
    ] {
        let filter = filters("limit", "local_ratelimit.v3.LocalRateLimit", limit(further));
        Scene::routes(route(json!({})))
            .with(filter)
            .get("/", &[])
            .get("/", &[])
            .get("/", &[])
            .get("/", &[])
            .check();
    }
    let none = filters("limit", "local_ratelimit.v3.LocalRateLimit", json!({ "stat_prefix": "l" }));
    let own = typed(
        "limit",
        "envoy.extensions.filters.http.local_ratelimit.v3.LocalRateLimit",
        limit(json!({})),
    );
    Scene::routes(route(own)).with(none).get("/", &[]).get("/", &[]).get("/", &[]).check();
}

#[test]
fn header_mutations_are_envoys() {
    let append = |name: &str, value: &str, action: &str| json!({ "append": { "header": { "key": name, "value": value }, "append_action": action } });
    let own = json!({ "mutations": {
        "request_mutations": [append("x-a", "filter", "APPEND_IF_EXISTS_OR_ADD"), { "remove": "x-gone" },
            append("x-b", "%REQ(X-A)%", "OVERWRITE_IF_EXISTS_OR_ADD")],
        "response_mutations": [append("x-a", "filter", "APPEND_IF_EXISTS_OR_ADD"), { "remove": "x-origin" }] } });
    let of_route = typed(
        "mutation",
        "envoy.extensions.filters.http.header_mutation.v3.HeaderMutationPerRoute",
        json!({ "mutations": { "request_mutations": [append("x-a", "route", "ADD_IF_ABSENT")],
            "response_mutations": [append("x-a", "route", "OVERWRITE_IF_EXISTS")] } }),
    );
    Scene::routes(route(of_route))
        .with(filters("mutation", "header_mutation.v3.HeaderMutation", own))
        .get("/", &[])
        .get("/", &["X-A: old", "X-Gone: 1"])
        .check();
}

#[test]
fn health_checks_are_answered() {
    let settings = json!({ "pass_through_mode": false,
        "headers": [{ "name": ":path", "string_match": { "exact": "/healthz" } }] });
    Scene::routes(route(json!({})))
        .with(filters("health", "health_check.v3.HealthCheck", settings))
        .get("/healthz", &[])
        .get("/other", &[])
        .check();
}

#[test]
fn a_route_can_switch_filters_off_and_on() {
    let config = |setting: Value| typed("fault", "envoy.config.route.v3.FilterConfig", setting);
    let abort = json!({ "abort": { "http_status": 503, "percentage": { "numerator": 100 } } });
    let on = filters("fault", "fault.v3.HTTPFault", abort.clone());
    let mut off = on.clone();
    off["http_filters"][0]["disabled"] = json!(true);
    let mut own = abort;
    own["@type"] = json!("type.googleapis.com/envoy.extensions.filters.http.fault.v3.HTTPFault");
    for (filters, per_filter) in [
        (&on, config(json!({ "disabled": true }))),
        (&off, json!({})),
        (&off, config(json!({ "config": own }))),
    ] {
        Scene::routes(route(per_filter)).with(filters.clone()).get("/", &[]).check();
    }
}
