//! What is done with a request: rewrites, redirects, headers, weights.

use serde_json::{Value, json};

use crate::pair::Scene;

fn all(route: Value) -> Scene {
    Scene::routes(json!([{ "name": "r", "match": { "prefix": "/p" }, "route": route },
        { "name": "rest", "match": { "prefix": "/" }, "route": { "cluster": "origin" } }]))
}

#[test]
fn paths_and_hosts_are_rewritten() {
    for rewrite in [
        json!({ "prefix_rewrite": "/new" }),
        json!({ "prefix_rewrite": "/" }),
        json!({ "regex_rewrite": { "pattern": { "regex": "^/p/([a-z]+)/x" }, "substitution": "/\\1/y\\\\" } }),
        json!({ "host_rewrite_literal": "new.test" }),
        json!({ "host_rewrite_literal": "new.test", "append_x_forwarded_host": true }),
        json!({ "host_rewrite_header": "x-host", "append_x_forwarded_host": true }),
        json!({ "auto_host_rewrite": true }),
    ] {
        let mut route = json!({ "cluster": "origin" });
        route.as_object_mut().unwrap().extend(rewrite.as_object().unwrap().clone());
        all(route)
            .get("/p", &[])
            .get("/p/abc/x?q=1", &["X-Host: from.header"])
            .get("/pabc?q", &["X-Forwarded-Host: before"])
            .check();
    }
}

#[test]
fn a_host_is_made_of_the_path() {
    let route = json!({ "cluster": "origin", "host_rewrite_path_regex":
        { "pattern": { "regex": "^/p/([a-z]+).*$" }, "substitution": "\\1.test" } });
    all(route).get("/p/abc/x?q=1", &["X-Host: from.header"]).get("/p/abc", &[]).check();
}

#[test]
fn clients_are_redirected() {
    for redirect in [
        json!({ "https_redirect": true }),
        json!({ "scheme_redirect": "https", "port_redirect": 8443 }),
        json!({ "port_redirect": 443, "https_redirect": true }),
        json!({ "host_redirect": "new.test" }),
        json!({ "host_redirect": "new.test", "port_redirect": 80, "response_code": "FOUND" }),
        json!({ "path_redirect": "/elsewhere", "response_code": "SEE_OTHER" }),
        json!({ "path_redirect": "/elsewhere?z=1", "response_code": "TEMPORARY_REDIRECT" }),
        json!({ "prefix_rewrite": "/new", "response_code": "PERMANENT_REDIRECT" }),
        json!({ "regex_rewrite": { "pattern": { "regex": "/p/" }, "substitution": "/r/" } }),
        json!({ "path_redirect": "/x", "strip_query": true }),
        json!({ "strip_query": true }),
    ] {
        Scene::routes(json!([{ "match": { "prefix": "/p" }, "redirect": redirect,
            "response_headers_to_add": [{ "header": { "key": "x-r", "value": "1" } }] }]))
        .get("/p/a?b=c", &[])
        .get("/p/a", &["Host: a.test:80"])
        .get("/p/a", &["Host: a.test:8080"])
        .get("/p/a", &["Host: a.test:443", "X-Forwarded-Proto: https"])
        .get("/p", &["Host: [::1]:80"])
        .check();
    }
}

#[test]
fn headers_are_changed_at_each_level() {
    let add = |name: &str, value: &str, action: &str| json!({ "header": { "key": name, "value": value }, "append_action": action });
    let level = |name: &str| {
        json!({
            "request_headers_to_add": [
                add("x-append", name, "APPEND_IF_EXISTS_OR_ADD"),
                add("x-absent", name, "ADD_IF_ABSENT"),
                add("x-over", name, "OVERWRITE_IF_EXISTS_OR_ADD"),
                add("x-exists", name, "OVERWRITE_IF_EXISTS"),
            ],
            "request_headers_to_remove": [format!("x-gone-{name}")],
            "response_headers_to_add": [
                add("x-append", name, "APPEND_IF_EXISTS_OR_ADD"),
                add("x-absent", name, "ADD_IF_ABSENT"),
                add("x-over", name, "OVERWRITE_IF_EXISTS_OR_ADD"),
                add("x-exists", name, "OVERWRITE_IF_EXISTS"),
            ],
            "response_headers_to_remove": ["x-origin"],
        })
    };
    let join = |mut into: Value, level: Value| {
        into.as_object_mut().unwrap().extend(level.as_object().unwrap().clone());
        into
    };
    for specific in [false, true] {
        let weighted = join(json!({ "name": "origin", "weight": 1 }), level("cluster"));
        let route = join(
            json!({ "match": { "prefix": "/" }, "route": { "weighted_clusters": { "clusters": [weighted] } } }),
            level("route"),
        );
        let direct = join(
            json!({ "match": { "prefix": "/direct" }, "direct_response": { "status": 201 } }),
            level("route"),
        );
        let missing = join(
            json!({ "match": { "prefix": "/missing" }, "route": { "cluster": "no-such" } }),
            level("route"),
        );
        let nowhere = join(
            json!({ "match": { "prefix": "/nowhere" }, "route": { "cluster": "nowhere" } }),
            level("route"),
        );
        let host = join(
            json!({ "name": "h", "domains": ["*"], "routes": [direct, missing, nowhere, route] }),
            level("host"),
        );
        let table = join(
            json!({ "virtual_hosts": [host], "validate_clusters": false, "most_specific_header_mutations_wins": specific }),
            level("table"),
        );
        Scene::table(table)
            .get("/", &[])
            .get(
                "/",
                &[
                    "X-Exists: old",
                    "X-Append: old",
                    "X-Absent: old",
                    "X-Over: old",
                    "X-Gone-Host: 1",
                ],
            )
            .get("/", &["X-Do: set=x-exists:old"])
            .get("/direct", &[])
            .get("/missing", &[])
            .get("/nowhere", &[])
            .check();
    }
}

#[test]
fn header_values_are_formatted() {
    let values = [
        "%DOWNSTREAM_REMOTE_ADDRESS_WITHOUT_PORT%",
        "%DOWNSTREAM_LOCAL_ADDRESS_WITHOUT_PORT%",
        "%PROTOCOL%",
        "%REQ(X-A)%",
        "%REQ(X-NONE?X-A)%",
        "%REQ(X-NONE)%",
        "%REQ(X-A):2%",
        "%REQ(:PATH)% and %REQ(:AUTHORITY)%",
        "100%%",
        "%ROUTE_NAME%",
        "%UPSTREAM_CLUSTER%",
        "%VIRTUAL_CLUSTER_NAME%",
    ];
    let list: Vec<Value> = values
        .iter()
        .enumerate()
        .map(|(at, value)| json!({ "header": { "key": format!("x-v{at:02}"), "value": value } }))
        .collect();
    Scene::routes(
        json!([{ "name": "named", "match": { "prefix": "/" }, "route": { "cluster": "origin" },
        "request_headers_to_add": list }]),
    )
    .get("/path?q", &["X-A: abc"])
    .get("/path?q", &[])
    .check();
}

#[test]
fn clusters_are_named_by_headers() {
    Scene::routes(json!([
        { "match": { "prefix": "/w" }, "route": { "weighted_clusters": { "clusters": [
            { "cluster_header": "x-cluster", "weight": 1 }] } } },
        { "match": { "prefix": "/n" }, "route": { "cluster_header": "x-cluster",
            "cluster_not_found_response_code": "NOT_FOUND" } },
        { "match": { "prefix": "/" }, "route": { "cluster_header": "x-cluster" } }]))
    .get("/", &["X-Cluster: other"])
    .get("/", &["X-Cluster: none"])
    .get("/", &[])
    .get("/n", &[])
    .get("/w", &["X-Cluster: other"])
    .get("/w", &[])
    .check();
}

#[test]
fn upgrades_are_turned_away_where_not_allowed() {
    let ask = ["Connection: Upgrade", "Upgrade: websocket", "Sec-WebSocket-Key: x"];
    Scene::manager(json!({})).get("/", &ask).check();
    Scene::manager(json!({ "upgrade_configs": [{ "upgrade_type": "websocket" }] }))
        .get("/", &["Connection: Upgrade", "Upgrade: other"])
        .get(
            "/",
            &[
                "Connection: Upgrade, HTTP2-Settings",
                "Upgrade: h2c",
                "HTTP2-Settings: AAMAAABkAARAAAAAAAIAAAAA",
            ],
        )
        .check();
}

#[test]
fn a_request_without_a_body_says_so() {
    let mut scene = Scene::manager(json!({}));
    for method in ["POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE", "HEAD", "REPORT"] {
        scene = scene.send(method, "/", &[], "");
    }
    scene.check();
}

#[test]
fn clients_are_connected_where_routes_say_so() {
    let connect = "CONNECT a.test:80 HTTP/1.1\r\nHost: a.test:80\r\n\r\n";
    let inner = "GET /inner HTTP/1.1\r\nX-Do: close\r\n\r\n";
    let route = |upgrades: Value| {
        json!([{ "name": "r", "match": { "connect_matcher": {} },
            "route": { "cluster": "origin", "timeout": "0s", "upgrade_configs": upgrades } }])
    };
    // The origin is asked in HTTP by who is connected; without an end of ours it refuses CONNECT.
    let ends = json!([{ "upgrade_type": "CONNECT", "connect_config": {} }]);
    Scene::routes(route(ends)).raw(&format!("{connect}{inner}")).get("/", &[]).check();
    let refused = "CONNECT a.test:80 HTTP/1.1\r\nHost: a.test:80\r\nX-Do: status=403\r\n\r\n";
    let on = json!([{ "upgrade_type": "CONNECT" }]);
    Scene::routes(route(on)).raw(refused).check();
    Scene::routes(route(json!([]))).raw(connect).check();
    let off = json!([{ "upgrade_type": "CONNECT", "enabled": false }]);
    Scene::routes(route(off)).raw(connect).check();
    Scene::manager(json!({})).raw(connect).check();
    let all = json!([{ "match": { "prefix": "/" }, "route": { "cluster": "origin" } }]);
    let known = json!({ "upgrade_configs": [{ "upgrade_type": "CONNECT" }] });
    Scene::routes(all).with(known).raw(connect).check();
}
