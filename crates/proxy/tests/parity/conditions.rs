//! Which route a request takes.

use serde_json::{Value, json};

use crate::pair::Scene;

fn named(list: &[Value]) -> Value {
    let routes = list.iter().enumerate().map(|(at, matches)| {
        json!({ "name": format!("r{at}"), "match": matches, "direct_response": { "status": 200,
            "body": { "inline_string": format!("r{at}") } } })
    });
    routes.collect()
}

#[test]
fn headers_are_conditions() {
    let header = |test: Value| {
        let mut header = json!({ "name": "x-a" });
        header.as_object_mut().unwrap().extend(test.as_object().unwrap().clone());
        json!({ "prefix": "/", "headers": [header] })
    };
    let values: &[&[&str]] = &[
        &[],
        &["X-A: "],
        &["X-A: one"],
        &["X-A: ONE"],
        &["X-A: one", "X-A: two"],
        &["X-A: 5"],
        &["X-A: -5"],
        &["X-A: 10"],
        &["X-A: 5x"],
        &["X-A: zoneb"],
    ];
    for test in [
        json!({ "string_match": { "exact": "one" } }),
        json!({ "string_match": { "exact": "one" }, "invert_match": true }),
        json!({ "string_match": { "exact": "one" }, "invert_match": true, "treat_missing_header_as_empty": true }),
        json!({ "string_match": { "exact": "one,two" } }),
        json!({ "string_match": { "exact": "zzz" }, "invert_match": true }),
        json!({ "string_match": { "prefix": "one", "ignore_case": true } }),
        json!({ "string_match": { "suffix": "two" } }),
        json!({ "string_match": { "contains": "one" } }),
        json!({ "string_match": { "safe_regex": { "regex": "on." } } }),
        json!({ "range_match": { "start": -5, "end": 10 } }),
        json!({ "present_match": true }),
        json!({ "present_match": false }),
        json!({ "present_match": true, "invert_match": true }),
        json!({ "present_match": true, "treat_missing_header_as_empty": true }),
        json!({ "present_match": false, "treat_missing_header_as_empty": true }),
    ] {
        let mut scene = Scene::routes(named(&[header(test), json!({ "prefix": "/" })]));
        for fields in values {
            scene = scene.get("/", fields);
        }
        scene.check();
    }
}

#[test]
fn paths_queries_cookies_and_grpc_are_conditions() {
    Scene::routes(named(&[
        json!({ "path": "/exact" }),
        json!({ "path": "/Folded", "case_sensitive": false }),
        json!({ "path_separated_prefix": "/sep" }),
        json!({ "safe_regex": { "regex": "/re/[0-9]+" } }),
        json!({ "prefix": "/q", "query_parameters": [{ "name": "a", "string_match": { "exact": "1" } }] }),
        json!({ "prefix": "/q", "query_parameters": [{ "name": "b", "present_match": true }] }),
        json!({ "prefix": "/c", "cookies": [{ "name": "u", "string_match": { "exact": "x" } }] }),
        json!({ "prefix": "/g", "grpc": {} }),
        json!({ "prefix": "/m", "headers": [{ "name": ":method", "string_match": { "exact": "PUT" } }] }),
        json!({ "prefix": "/h", "headers": [{ "name": ":authority", "string_match": { "prefix": "b" } }] }),
        json!({ "prefix": "/s", "headers": [{ "name": ":scheme", "string_match": { "exact": "http" } }] }),
        json!({ "prefix": "/" }),
    ]))
    .get("/exact", &[])
    .get("/exact?q", &[])
    .get("/exact/", &[])
    .get("/fOLDED", &[])
    .get("/sep", &[])
    .get("/sep/x", &[])
    .get("/separate", &[])
    .get("/sep?x", &[])
    .get("/re/12", &[])
    .get("/re/12/x", &[])
    .get("/q?a=1", &[])
    .get("/q?a=%31", &[])
    .get("/q?a=2&a=1", &[])
    .get("/q?b", &[])
    .get("/q?b=", &[])
    .get("/q", &[])
    .get("/c", &["Cookie: v=1; u=x"])
    .get("/c", &["Cookie: u=y", "Cookie: u=x"])
    .get("/c", &["Cookie: u=\"x\""])
    .get("/g", &["Content-Type: application/grpcx"])
    .send("PUT", "/m", &[], "")
    .get("/h", &["Host: b.test"])
    .get("/s", &[])
    .check();
}

#[test]
fn hosts_are_searched_from_the_most_specific() {
    let host = |name: &str, domains: Value| {
        json!({ "name": name, "domains": domains, "routes": [{ "match": { "prefix": "/" },
            "direct_response": { "status": 200, "body": { "inline_string": name } } }] })
    };
    let hosts = json!([
        host("any", json!(["*"])),
        host("prefix", json!(["www.*"])),
        host("suffix", json!(["*.foo.com"])),
        host("longer", json!(["*-bar.foo.com"])),
        host("exact", json!(["api.foo.com"])),
        host("port", json!(["api.foo.com:8080"])),
    ]);
    let names = [
        "api.foo.com",
        "API.foo.com",
        "api.foo.com:8080",
        "api.foo.com:81",
        "x.foo.com",
        "x-bar.foo.com",
        "-bar.foo.com",
        "foo.com",
        "www.x",
        "www.foo.com",
        "www.",
        "other",
        "[::1]:80",
        "x.foo.com:99",
    ];
    for ignores in [false, true] {
        let mut hosts = hosts.clone();
        if ignores {
            hosts.as_array_mut().unwrap().pop();
        }
        let table = json!({ "virtual_hosts": hosts, "ignore_port_in_host_matching": ignores });
        let mut scene = Scene::table(table);
        for name in names {
            scene = scene.get("/", &[&format!("Host: {name}")]);
        }
        scene.check();
    }
}

#[test]
fn a_host_may_want_https() {
    Scene::table(json!({ "virtual_hosts": [
        { "name": "all", "domains": ["a.test"], "require_tls": "ALL", "routes":
            [{ "match": { "prefix": "/" }, "route": { "cluster": "origin" } }] },
        { "name": "none", "domains": ["b.test"] }] }))
    .get("/x?y", &[])
    .get("/x?y", &["X-Forwarded-Proto: https"])
    .get("/x?y", &["Host: b.test"])
    .get("/x?y", &["Host: c.test"])
    .check();
}
