//! Which route a request takes.

use serde_json::{Value, json};
use sluis_envoy::Kind;
use sluis_rules::{NoRoute, RouteAction, RouteTable};

use crate::support::{Request, faults, get, runtime, table};

/// `virtual host/route` of a request, or why there is none.
fn way(table: &RouteTable, request: &Request) -> String {
    match table.route(request) {
        Ok(matched) => format!("{}/{}", matched.virtual_host.name, matched.route.name),
        Err(NoRoute::NoVirtualHost) => "no virtual host".to_owned(),
        Err(NoRoute::NoRoute { virtual_host }) => format!("{}: no route", virtual_host.name),
        Err(NoRoute::HttpsRequired { virtual_host }) => format!("{}: https", virtual_host.name),
    }
}

fn host(name: &str, domains: &[&str]) -> Value {
    json!({ "name": name, "domains": domains, "routes": [route("r", json!({ "prefix": "/" }))] })
}

fn route(name: &str, matches: Value) -> Value {
    json!({ "name": name, "match": matches, "direct_response": { "status": 200 } })
}

/// A table of one host with these matches, named r0, r1, …
fn routes(matches: &[Value]) -> std::sync::Arc<RouteTable> {
    let routes: Vec<Value> =
        (0..).zip(matches).map(|(n, m): (u32, _)| route(&format!("r{n}"), m.clone())).collect();
    table(json!([{ "name": "h", "domains": ["*"], "routes": routes }]))
}

#[track_caller]
fn check(table: &RouteTable, request: &Request, expected: &str) {
    let Request { authority, path, headers, .. } = request;
    assert_eq!(way(table, request), expected, "{authority}{path} {headers:?}");
}

#[test]
fn the_most_specific_domain_wins() {
    let table = table(json!([
        host("any", &["*"]),
        host("prefix", &["www.*"]),
        host("longer-prefix", &["www.foo.*"]),
        host("suffix", &["*.example.com"]),
        host("longer-suffix", &["*.b.example.com", "*-x.example.com"]),
        host("exact", &["api.example.com", "api.example.com:443", "[::1]"]),
    ]));
    for (authority, expected) in [
        ("api.example.com", "exact/r"),
        ("API.Example.COM", "exact/r"),
        ("api.example.com:443", "exact/r"),
        ("api.example.com:80", "any/r"),
        ("[::1]", "exact/r"),
        ("a.example.com", "suffix/r"),
        ("a.b.example.com", "longer-suffix/r"),
        ("b.example.com", "suffix/r"),
        ("y-x.example.com", "longer-suffix/r"),
        (".example.com", "any/r"),
        ("example.com", "any/r"),
        ("www.org", "prefix/r"),
        ("www.foo.org", "longer-prefix/r"),
        ("www.", "any/r"),
        ("", "any/r"),
    ] {
        check(&table, &get(authority, "/"), expected);
    }
}

#[test]
fn without_a_catch_all_an_unknown_host_has_no_virtual_host() {
    let table = table(json!([host("exact", &["api.example.com"])]));
    check(&table, &get("other.example.com", "/"), "no virtual host");
    check(&table, &get("api.example.com.evil.com", "/"), "no virtual host");
}

#[test]
fn ports_are_ignored_on_request() {
    let resource = json!({ "name": "t", "ignore_port_in_host_matching": true,
        "virtual_hosts": [host("exact", &["api.example.com", "[::1]"])] });
    let runtime = runtime(&[(Kind::Route, resource)]);
    let table = &runtime.routes["t"];
    check(table, &get("api.example.com:8443", "/"), "exact/r");
    check(table, &get("[::1]:8443", "/"), "exact/r");
    check(table, &get("[::1]", "/"), "exact/r");
    check(table, &get("api.example.com:x", "/"), "no virtual host");
}

/// The same rules must hold for the linear search and for the index.
fn with_and_without_index(matches: &[Value], cases: &[(&str, &str)]) {
    let few = routes(matches);
    let padding = (0..10).map(|n| json!({ "path": format!("/padding/{n}") }));
    let many = routes(&matches.iter().cloned().chain(padding).collect::<Vec<_>>());
    for (path, expected) in cases {
        check(&few, &get("h", path), expected);
        check(&many, &get("h", path), expected);
    }
}

#[test]
fn the_first_route_that_matches_wins() {
    with_and_without_index(
        &[
            json!({ "path": "/exact" }),
            json!({ "prefix": "/p/long" }),
            json!({ "safe_regex": { "regex": "/v[0-9]+/.*" } }),
            json!({ "prefix": "/p" }),
            json!({ "path_separated_prefix": "/sep" }),
            json!({ "path": "/CASE", "case_sensitive": false }),
        ],
        &[
            ("/exact", "h/r0"),
            ("/exact?q=1", "h/r0"),
            ("/exact/", "h: no route"),
            ("/p/longer", "h/r1"),
            ("/p/x", "h/r3"),
            ("/px", "h/r3"),
            ("/v12/x", "h/r2"),
            ("/x/v12/x", "h: no route"),
            ("/sep", "h/r4"),
            ("/sep/x", "h/r4"),
            ("/sep?x", "h/r4"),
            ("/separate", "h: no route"),
            ("/Case", "h/r5"),
            ("/", "h: no route"),
        ],
    );
    with_and_without_index(
        &[json!({ "prefix": "/" }), json!({ "path": "/never" })],
        &[("/never", "h/r0"), ("/\u{e9}", "h/r0")],
    );
}

#[test]
fn connect_is_matched_by_its_own_matcher_only() {
    let table = routes(&[json!({ "prefix": "/" }), json!({ "connect_matcher": {} })]);
    let connect = Request { method: "CONNECT", ..get("h:443", "") };
    check(&table, &connect, "h/r1");
    check(&table, &get("h", "/"), "h/r0");
    check(&table, &get("h", ""), "h: no route");
}

#[track_caller]
fn check_header(matcher: Value, values: &[&'static str], expected: bool) {
    let table = routes(&[json!({ "prefix": "/", "headers": [matcher] })]);
    let request = values.iter().fold(get("h", "/p"), |request, value| request.with("x", value));
    let expected = if expected { "h/r0" } else { "h: no route" };
    assert_eq!(way(&table, &request), expected, "{matcher} on {values:?}");
}

#[test]
fn headers_match_in_every_way() {
    let string = |matcher: Value| json!({ "name": "X", "string_match": matcher });
    let inverted = json!({ "name": "x", "string_match": { "exact": "a" }, "invert_match": true });
    let or_empty = json!({ "name": "x", "string_match": { "exact": "a" }, "invert_match": true,
        "treat_missing_header_as_empty": true });
    for (matcher, values, expected) in [
        (string(json!({ "exact": "a" })), &["a"][..], true),
        (string(json!({ "exact": "a" })), &["A"], false),
        (string(json!({ "exact": "a", "ignore_case": true })), &["A"], true),
        (string(json!({ "prefix": "a" })), &["ab"], true),
        (string(json!({ "suffix": "b" })), &["ab"], true),
        (string(json!({ "contains": "b" })), &["abc"], true),
        (string(json!({ "safe_regex": { "regex": "a.c" } })), &["abc"], true),
        (string(json!({ "safe_regex": { "regex": "a.c" } })), &["abcd"], false),
        (string(json!({ "exact": "a" })), &[], false),
        // Of several headers one that matches is enough, as in Envoy.
        (string(json!({ "exact": "a,b" })), &["a", "b"], false),
        (string(json!({ "exact": "b" })), &["a", "b"], true),
        (inverted.clone(), &["b", "a"], false),
        (string(json!({ "contains": "b" })), &["a", "b"], true),
        (json!({ "name": "x" }), &["a"], true),
        (json!({ "name": "x" }), &[], false),
        (json!({ "name": "x", "present_match": true }), &[""], true),
        (json!({ "name": "x", "present_match": false }), &[], true),
        (json!({ "name": "x", "present_match": true, "invert_match": true }), &[], true),
        (json!({ "name": "x", "range_match": { "start": 1, "end": 10 } }), &["9"], true),
        (json!({ "name": "x", "range_match": { "start": 1, "end": 10 } }), &["10"], false),
        (json!({ "name": "x", "range_match": { "start": 1, "end": 10 } }), &["x"], false),
        (inverted.clone(), &["b"], true),
        (inverted.clone(), &["a"], false),
        (inverted, &[], false),
        (or_empty, &[], true),
        (json!({ "name": ":method", "exact_match": "GET" }), &[], true),
        (json!({ "name": ":path", "prefix_match": "/p" }), &[], true),
        (json!({ "name": ":authority", "exact_match": "h" }), &[], true),
        (json!({ "name": "host", "exact_match": "h" }), &[], true),
        (json!({ "name": ":scheme", "exact_match": "https" }), &[], false),
        (json!({ "name": ":method", "exact_match": "POST" }), &[], false),
    ] {
        check_header(matcher, values, expected);
    }
}

#[test]
fn query_parameters_match_by_their_first_value() {
    let table = routes(&[
        json!({ "prefix": "/", "query_parameters":
            [{ "name": "a", "string_match": { "exact": "1" } }, { "name": "b" }] }),
        json!({ "prefix": "/", "query_parameters": [{ "name": "c", "present_match": true }] }),
    ]);
    for (path, expected) in [
        ("/?a=1&b", "h/r0"),
        ("/?b=2&a=1", "h/r0"),
        ("/?a=1", "h: no route"),
        ("/?a=2&a=1&b", "h: no route"),
        ("/?c", "h/r1"),
        ("/?d=c", "h: no route"),
        ("/#?c", "h: no route"),
        ("/", "h: no route"),
    ] {
        check(&table, &get("h", path), expected);
    }
}

#[test]
fn a_host_that_requires_tls_redirects_plain_http() {
    let table = table(json!([{ "name": "h", "domains": ["*"], "require_tls": "ALL",
        "routes": [route("r", json!({ "prefix": "/" }))] }]));
    check(&table, &get("h", "/"), "h: https");
    check(&table, &Request { scheme: "https", ..get("h", "/") }, "h/r");
}

#[test]
fn header_mutations_apply_from_route_to_table() {
    let set = |value: &str| json!([{ "header": { "key": "X-A", "value": value } }]);
    let resource = json!({ "name": "t", "request_headers_to_add": set("table"),
        "virtual_hosts": [{ "name": "h", "domains": ["*"], "request_headers_to_add": set("host"),
            "routes": [{ "match": { "prefix": "/" }, "direct_response": { "status": 204 },
                "request_headers_to_add": set("%PROTOCOL%"),
                "metadata": { "filter_metadata": { "istio": { "config": "/apis/vs/x" } } } }] }] });
    let runtime = runtime(&[(Kind::Route, resource)]);
    let matched = runtime.routes["t"].route(&get("h", "/")).unwrap();
    let values: Vec<String> =
        matched.mutations().map(|m| format!("{:?}", m.request_set[0].value)).collect();
    assert_eq!(values, [r#"Format("%PROTOCOL%")"#, r#"Literal("host")"#, r#"Literal("table")"#]);
    assert_eq!(matched.route.origin.as_deref(), Some("/apis/vs/x"));
    assert!(matches!(&matched.route.action, RouteAction::Direct(direct) if direct.status == 204));
}

#[test]
fn tables_that_contradict_themselves_are_rejected() {
    let check = |hosts: Value, expected: &str| {
        let faults = faults(&[(Kind::Route, json!({ "name": "t", "virtual_hosts": hosts }))]);
        assert!(faults.contains(expected), "{faults:?} lacks {expected:?}");
    };
    check(json!([host("a", &["x"]), host("b", &["X"])]), "has the domain \"X\" twice");
    check(json!([host("a", &["a*b"])]), "virtual_hosts[0].domains[0]");
    check(
        json!([{ "name": "h", "domains": ["*"], "routes": [{ "match": { "prefix": "/" },
            "route": { "weighted_clusters": { "clusters": [{ "name": "a", "weight": 0 }] } } }] }]),
        "virtual_hosts[0].routes[0].route.weighted_clusters.clusters: has weights",
    );
    check(
        json!([{ "name": "h", "domains": ["*"], "routes": [{ "match": { "prefix": "/",
            "tls_context": {} }, "redirect": { "https_redirect": true } }] }]),
        "RDS t: virtual_hosts[0].routes[0].match.tls_context: is not supported",
    );
    check(
        json!([{ "name": "h", "domains": ["*"], "routes": [route("r", json!({ "safe_regex":
            { "regex": "(a" } }))] }]),
        "match.safe_regex.regex: regular expression is not accepted",
    );
}

#[test]
fn cookies_grpc_and_shares_are_conditions_too() {
    let table = routes(&[
        json!({ "prefix": "/", "cookies": [
            { "name": "user", "string_match": { "exact": "jason" } },
            { "name": "old", "string_match": { "exact": "yes" }, "invert_match": true } ] }),
        json!({ "prefix": "/", "grpc": {} }),
        json!({ "prefix": "/none", "runtime_fraction": { "default_value": { "numerator": 0 } } }),
        json!({ "prefix": "/", "runtime_fraction": { "default_value": { "numerator": 100 } } }),
    ]);
    check(&table, &get("h", "/").with("cookie", "a=b; user=jason"), "h/r0");
    check(&table, &get("h", "/").with("cookie", "user=\"jason\""), "h/r0");
    check(&table, &get("h", "/").with("cookie", "user=jason; old=yes"), "h/r3");
    check(&table, &get("h", "/").with("content-type", "application/grpc"), "h/r1");
    check(&table, &get("h", "/").with("content-type", "application/grpc+proto"), "h/r1");
    check(&table, &get("h", "/").with("content-type", "application/grpc-web"), "h/r3");
    check(&table, &get("h", "/none"), "h/r3");
}

#[test]
fn hashes_are_those_of_envoy() {
    let policies = |policies: Value| {
        let table = table(json!([{ "name": "h", "domains": ["*"], "routes": [
            { "match": { "prefix": "/" }, "route": { "cluster": "c", "hash_policy": policies } } ] }]));
        match &table.virtual_hosts[0].routes[0].action {
            RouteAction::Forward(forward) => forward.hash.clone(),
            other => panic!("{other:?}"),
        }
    };
    let hash = |list: Value, request: &Request| {
        let source = Some("10.0.0.1".parse().unwrap());
        sluis_rules::hash_of(&policies(list), request, source, || "seed".to_owned())
    };
    // XXH64 of "abc" with seed 0, from the specification's reference implementation.
    let abc = Some(0x44bc_2cf5_ad77_0999);
    let header = json!({ "header": { "header_name": "x-user" } });
    let query = json!({ "query_parameter": { "name": "q" } });
    assert_eq!(hash(json!([header]), &get("h", "/").with("x-user", "abc")).value, abc);
    assert_eq!(hash(json!([query]), &get("h", "/?a=1&q=abc")).value, abc);
    assert_eq!(hash(json!([header, query]), &get("h", "/")).value, None);
    let both = hash(json!([header, query]), &get("h", "/?q=abc").with("x-user", "abc")).value;
    assert_eq!(both, abc.map(|hash: u64| hash.rotate_left(1) ^ hash));
    let terminal = json!([{ "header": { "header_name": "x-user" }, "terminal": true }, query]);
    assert_eq!(hash(terminal, &get("h", "/?q=x").with("x-user", "abc")).value, abc);
    let cookie = json!([{ "cookie": { "name": "s", "ttl": "60s", "path": "/p" } }]);
    assert_eq!(hash(cookie.clone(), &get("h", "/").with("cookie", "s=abc")).value, abc);
    let made = hash(cookie, &get("h", "/"));
    assert!(made.value.is_some());
    assert!(
        made.cookies[0].starts_with("s=\"")
            && made.cookies[0].ends_with("\"; Max-Age=60; Path=/p; HttpOnly")
    );
}
