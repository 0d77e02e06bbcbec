//! Credentials of clusters: what compiles, and that the rest is refused by its field.

use serde_json::{Value, json};
use sluis_envoy::Kind;
use sluis_rules::UpstreamFilter;

use crate::support::{faults, runtime};

const TYPE: &str = "type.googleapis.com/envoy.extensions";

fn cluster(filters: Value) -> (Kind, Value) {
    let options = json!({ "@type": format!("{TYPE}.upstreams.http.v3.HttpProtocolOptions"),
        "explicit_http_config": { "http_protocol_options": {} }, "http_filters": filters });
    let cluster = json!({ "name": "c", "type": "STATIC", "typed_extension_protocol_options": {
        "envoy.extensions.upstreams.http.v3.HttpProtocolOptions": options } });
    (Kind::Cluster, cluster)
}

fn codec() -> Value {
    json!({ "name": "codec", "typed_config": {
        "@type": format!("{TYPE}.filters.http.upstream_codec.v3.UpstreamCodec") } })
}

fn filter(credentials: Value) -> Value {
    json!({ "name": "credentials", "typed_config": {
        "@type": "type.googleapis.com/sluis.egress.v1alpha1.CredentialInjection",
        "credentials": credentials } })
}

/// A credential that compiles, with these fields in the place of its own; null removes one.
fn credential(changes: Value) -> Value {
    let mut all = json!({ "name": "egress/api",
        "secret": { "name": "credential://egress/api", "sds_config": { "ads": {} } },
        "grants": [{ "name": "egress/g", "policy": {
            "permissions": [{ "any": true }], "principals": [{ "any": true }] } }],
        "guard": { "hosts": ["api.test"] },
        "header": { "name": "x-key", "key": "k" } });
    for (name, value) in changes.as_object().unwrap() {
        match value {
            Value::Null => drop(all.as_object_mut().unwrap().remove(name)),
            value => all[name] = value.clone(),
        }
    }
    all
}

#[test]
fn a_credential_owns_what_it_sets_and_what_its_guard_names() {
    let guard = json!({ "hosts": ["api.test", "*.api.test"], "strip_request_headers": ["X-User"] });
    let list = json!([credential(json!({ "guard": guard }))]);
    let runtime = runtime(&[cluster(json!([filter(list), codec()]))]);
    let UpstreamFilter::Credentials(all) = &runtime.clusters["c"].filters[0] else { panic!() };
    for name in ["X-Key", "x_key", "x-user", "X_USER"] {
        assert!(all.own(name.as_bytes()), "{name}");
    }
    assert!(!all.own(b"x-keys"));
    assert_eq!(all.list[0].secret.as_ref().unwrap().as_str(), "credential://egress/api");
}

#[track_caller]
fn check(changes: Value, field: &str) {
    let named = changes.to_string();
    let found = faults(&[cluster(json!([filter(json!([credential(changes)])), codec()]))]);
    assert!(found.contains(field), "{named}: {found:?} has no {field:?}");
}

#[test]
fn what_is_not_understood_is_refused_by_its_field() {
    check(json!({ "name": null }), "credentials[0].name");
    check(json!({ "secret": null }), "credentials[0].secret");
    check(json!({ "secret": { "name": "" } }), "credentials[0].secret.name");
    let path = json!({ "name": "a", "sds_config": { "path_config_source": { "path": "/x" } } });
    check(json!({ "secret": path }), "credentials[0].secret.sds_config");
    check(json!({ "guard": null }), "credentials[0].guard");
    check(json!({ "guard": {} }), "credentials[0].guard.hosts");
    for host in ["*", "10.0.0.1", "", "a b", "::1"] {
        check(json!({ "guard": { "hosts": [host] } }), "credentials[0].guard.hosts[0]");
    }
    let large = json!({ "hosts": ["a.test"], "scan_response_bytes": "99999999" });
    check(json!({ "guard": large }), "credentials[0].guard.scan_response_bytes");
    let framing = json!({ "hosts": ["a.test"], "strip_request_headers": ["Content-Length"] });
    check(json!({ "guard": framing }), "strip_request_headers[0]");
    check(json!({ "grants": [{ "name": "g" }] }), "credentials[0].grants[0].policy");
    let empty = json!({ "permissions": [], "principals": [{ "any": true }] });
    check(json!({ "grants": [{ "policy": empty }] }), "grants[0].policy.permissions");
    check(json!({ "header": null }), "credentials[0].injection");
    for name in ["host", "transfer-encoding", ":path", "a b", ""] {
        check(json!({ "header": { "name": name, "key": "k" } }), "credentials[0].header");
    }
    check(json!({ "header": { "name": "x" } }), "credentials[0].header");
}

#[test]
fn the_codec_comes_last_and_other_filters_are_refused() {
    let good = || filter(json!([credential(json!({}))]));
    let check = |filters: Value, part: &str| {
        let found = faults(&[cluster(filters)]);
        assert!(found.contains(part), "{found:?} has no {part:?}");
    };
    check(json!([good()]), "must be the codec");
    check(json!([codec(), good()]), "must be the last");
    check(json!([filter(json!([])), codec()]), "credentials");
    let other = json!({ "name": "rbac", "typed_config": {
        "@type": format!("{TYPE}.filters.http.rbac.v3.RBAC") } });
    check(json!([other, codec()]), "is not supported");
}
