//! Random policies, of the words that requests and certificates have.

use serde_json::{Value, json};

use crate::{draw::Draw, requests};

pub(crate) const NAMES: [&str; 8] = [
    "spiffe://td/ns/a/sa/x",
    "spiffe://td/ns/a/sa/y",
    "spiffe://td/ns/b/sa/x",
    "spiffe://old/ns/a/sa/x",
    "x.a.example",
    "CN=client,O=org",
    "https://uri.example/1",
    "",
];

const NAME_PATTERNS: [&str; 9] = [
    ".*",
    ".+",
    ".*/ns/a/.*",
    ".*/ns/b/.*",
    "spiffe://.*/ns/a/sa/x",
    "spiffe://.+/ns/a/(.+/|)sa/y(/.+)?",
    "spiffe://(td|old)/ns/a/sa/x",
    ".*example.*",
    "[^/]*",
];

const PATH_PATTERNS: [&str; 9] =
    ["/a/.*", ".*", "/v[0-9]+/.*", "/admin.*", "/a|/a/b", ".*b", "/", "/(a|v1)/[^/]+", ".*;.*"];

const TEMPLATES: [&str; 11] = [
    "/a/*",
    "/**",
    "/a/**",
    "/*/b",
    "/v1/{id}/x",
    "/v1/{rest=**}",
    "/*",
    "/a/*/c",
    "/*.b",
    "/**/x",
    "/a/",
];

const METADATA: &str = "envoy.filters.http.rbac";

/// Policies for a network filter, in which Envoy takes no headers.
pub(crate) fn connection_rules(draw: &mut Draw) -> Value {
    draw.is_of_connections = true;
    let rules = rules(draw);
    draw.is_of_connections = false;
    rules
}

/// A whole set of policies.
pub(crate) fn rules(draw: &mut Draw) -> Value {
    let action = draw.one(&["ALLOW", "ALLOW", "ALLOW", "DENY", "DENY", "DENY", "LOG"]);
    let mut policies = serde_json::Map::new();
    let most = draw.one(&[2, 3, 5, 12]);
    for _ in 0..draw.below(most) {
        let name = format!("ns[{}]-policy[p {}]-rule[0]", draw.one(&["foo", "b"]), draw.below(40));
        let (permissions, principals) = (draw.below(2) + 1, draw.below(2) + 1);
        policies.insert(
            name,
            json!({
                "permissions": (0..permissions).map(|_| permission(draw, 0)).collect::<Vec<_>>(),
                "principals": (0..principals).map(|_| principal(draw, 0)).collect::<Vec<_>>(),
            }),
        );
    }
    json!({ "action": action, "policies": policies })
}

fn permission(draw: &mut Draw, depth: usize) -> Value {
    if depth < 3 && draw.below(10) < 4 {
        let rules = |draw: &mut Draw, most: usize| -> Vec<Value> {
            let count = draw.below(most) + 1;
            (0..count).map(|_| permission(draw, depth + 1)).collect()
        };
        return match draw.below(4) {
            0 => json!({ "and_rules": { "rules": rules(draw, 3) } }),
            1 | 2 => json!({ "or_rules": { "rules": rules(draw, 6) } }),
            _ => json!({ "not_rule": permission(draw, depth + 1) }),
        };
    }
    match draw.below(14) {
        0 => json!({ "any": true }),
        1..=3 if !draw.is_of_connections => json!({ "header": header(draw) }),
        4..=6 => json!({ "url_path": { "path": matcher(draw, &requests::PATHS, &PATH_PATTERNS) } }),
        7 => json!({ "destination_ip": range(draw) }),
        8 => json!({ "destination_port": draw.one(&requests::PORTS_DRAWN) }),
        9 => {
            let start = i32::from(draw.one(&requests::PORTS_DRAWN));
            json!({ "destination_port_range": { "start": start, "end": start + draw.one(&[1, 2]) } })
        }
        10 => json!({ "metadata": metadata(draw) }),
        11 => json!({ "sourced_metadata": { "metadata_matcher": metadata(draw) } }),
        12 => {
            json!({ "requested_server_name": matcher(draw, &requests::SERVERS, &[".*", ".+", "a.*"]) })
        }
        _ => json!({ "uri_template": { "name": "envoy.path.match.uri_template", "typed_config": {
            "@type": "type.googleapis.com/envoy.extensions.path.match.uri_template.v3.UriTemplateMatchConfig",
            "path_template": draw.one(&TEMPLATES) } } }),
    }
}

fn principal(draw: &mut Draw, depth: usize) -> Value {
    if depth < 3 && draw.below(10) < 4 {
        let ids = |draw: &mut Draw, most: usize| -> Vec<Value> {
            let count = draw.below(most) + 1;
            (0..count).map(|_| principal(draw, depth + 1)).collect()
        };
        return match draw.below(4) {
            0 => json!({ "and_ids": { "ids": ids(draw, 3) } }),
            1 | 2 => json!({ "or_ids": { "ids": ids(draw, 6) } }),
            _ => json!({ "not_id": principal(draw, depth + 1) }),
        };
    }
    match draw.below(13) {
        0 => json!({ "any": true }),
        1 => json!({ "authenticated": {} }),
        2..=6 => {
            json!({ "authenticated": { "principal_name": matcher(draw, &NAMES, &NAME_PATTERNS) } })
        }
        7 => json!({ "source_ip": range(draw) }),
        8 => json!({ "direct_remote_ip": range(draw) }),
        9 => json!({ "remote_ip": range(draw) }),
        10 if !draw.is_of_connections => json!({ "header": header(draw) }),
        11 => json!({ "url_path": { "path": matcher(draw, &requests::PATHS, &PATH_PATTERNS) } }),
        _ => json!({ "metadata": metadata(draw) }),
    }
}

fn matcher(draw: &mut Draw, words: &[&'static str], patterns: &[&'static str]) -> Value {
    let word = draw.one(words);
    let cut = draw.below(word.len() + 1);
    let (start, end) = (&word[..cut], &word[cut..]);
    let mut matcher = match draw.below(7) {
        0..=2 => json!({ "exact": word }),
        3 if !start.is_empty() => json!({ "prefix": start }),
        4 if !end.is_empty() => json!({ "suffix": end }),
        5 if !end.is_empty() => json!({ "contains": &end[..draw.below(end.len()) + 1] }),
        _ => return json!({ "safe_regex": { "regex": draw.one(patterns) } }),
    };
    if draw.once_in(4) {
        matcher["ignore_case"] = true.into();
    }
    matcher
}

fn header(draw: &mut Draw) -> Value {
    let (name, words): (&str, &[&str]) = match draw.below(9) {
        0 | 1 => (":authority", &requests::HOSTS),
        2 => ("host", &requests::HOSTS),
        3 => (":method", &requests::METHODS),
        4 => (":path", &requests::PATHS),
        5 => ("x-missing", &["", "a"]),
        6 => (":scheme", &["http", "https"]),
        _ => ("X-Tag", &requests::TAGS),
    };
    let mut header = match draw.below(8) {
        0 => json!({ "present_match": !draw.once_in(3) }),
        1 => json!({ "range_match": { "start": 1, "end": 6 } }),
        _ => {
            json!({ "string_match": matcher(draw, words, &[".*", ".+", "a.*", "[a-z]+", "(a|b),?b?"]) })
        }
    };
    header["name"] = name.into();
    if draw.once_in(4) {
        header["invert_match"] = true.into();
    }
    if draw.once_in(5) {
        header["treat_missing_header_as_empty"] = true.into();
    }
    header
}

fn range(draw: &mut Draw) -> Value {
    let ip = draw.one(&["127.0.0.1", "127.0.0.2", "127.0.0.3", "10.0.0.1", "10.0.1.1", "::1"]);
    let bits = if ip == "::1" { draw.one(&[0, 64, 128]) } else { draw.one(&[0, 8, 24, 31, 32]) };
    json!({ "address_prefix": ip, "prefix_len": bits })
}

fn metadata(draw: &mut Draw) -> Value {
    let text = |draw: &mut Draw| json!({ "string_match": matcher(draw, &["allowed", "denied", "first"], &[".*", "a.*"]) });
    let key = draw.one(&["first_shadow_engine_result", "first_shadow_effective_policy_id", "none"]);
    let value = match draw.below(6) {
        0 => json!({ "present_match": !draw.once_in(3) }),
        1 => json!({ "or_match": { "value_matchers": [text(draw), text(draw)] } }),
        2 => json!({ "list_match": { "one_of": text(draw) } }),
        3 if draw.once_in(2) => json!({ "null_match": {} }),
        3 => json!({ "bool_match": true }),
        _ => text(draw),
    };
    let mut path = vec![json!({ "key": key })];
    if draw.once_in(6) {
        path.push(json!({ "key": "deeper" }));
    }
    json!({ "filter": METADATA, "path": path, "value": value, "invert": draw.once_in(5) })
}
