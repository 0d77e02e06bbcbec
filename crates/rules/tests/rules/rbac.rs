//! Envoy's RBAC messages: what compiles, what is rejected by name, what is decided.

use serde_json::{Value, json};
use sluis_envoy::Kind;
use sluis_rules::{
    HttpFilterKind, Metadata, Network, PeerFacts, RbacFacts, RbacFilter, RequestFacts,
};

use crate::support::{Request, faults, get, runtime};

const HCM: &str = "type.googleapis.com/envoy.extensions.filters.network.http_connection_manager\
    .v3.HttpConnectionManager";
const HTTP: &str = "type.googleapis.com/envoy.extensions.filters.http.rbac.v3.RBAC";
const NETWORK: &str = "type.googleapis.com/envoy.extensions.filters.network.rbac.v3.RBAC";
const ROUTER: &str = "type.googleapis.com/envoy.extensions.filters.http.router.v3.Router";
const TEMPLATE: &str =
    "type.googleapis.com/envoy.extensions.path.match.uri_template.v3.UriTemplateMatchConfig";

fn listener(filters: Value) -> (Kind, Value) {
    let address = json!({ "socket_address": { "address": "127.0.0.1", "port_value": 80 } });
    let chain = json!({ "filters": filters });
    (Kind::Listener, json!({ "name": "l", "address": address, "filter_chains": [chain] }))
}

fn http(mut filter: Value) -> (Kind, Value) {
    filter["@type"] = HTTP.into();
    listener(json!([{ "name": "hcm", "typed_config": { "@type": HCM, "stat_prefix": "h",
        "rds": { "route_config_name": "r", "config_source": { "ads": {} } },
        "http_filters": [
            { "name": "envoy.filters.http.rbac", "typed_config": filter },
            { "name": "router", "typed_config": { "@type": ROUTER } }] } }]))
}

fn policies(permission: Value, principal: Value) -> Value {
    json!({ "p": { "permissions": [permission], "principals": [principal] } })
}

#[track_caller]
fn compiled(filter: Value) -> RbacFilter {
    let runtime = runtime(&[http(filter)]);
    let Network::Http(manager) = &runtime.listeners["l"].chains[0].network else { panic!() };
    match &manager.filters[0].kind {
        HttpFilterKind::Rbac(filter) => (**filter).clone(),
        other => panic!("{other:?}"),
    }
}

/// Whether a request of a peer with this name is allowed.
#[track_caller]
fn allows(filter: &RbacFilter, request: &dyn RequestFacts, uri: &str) -> bool {
    let uris = [uri.to_owned()];
    let peer = PeerFacts { is_tls: !uri.is_empty(), uris: &uris, ..PeerFacts::default() };
    let metadata = Metadata::default();
    let facts = RbacFacts { peer, request: Some(request), metadata: &metadata };
    filter.rules.as_ref().unwrap().decide(&facts).is_allowed
}

fn any() -> Value {
    json!({ "any": true })
}

#[test]
fn what_istio_writes_of_a_rule_is_decided() {
    let permission = json!({ "and_rules": { "rules": [
        { "or_rules": { "rules": [
            { "header": { "name": ":method", "string_match": { "exact": "GET" } } }] } },
        { "or_rules": { "rules": [
            { "url_path": { "path": { "prefix": "/info" } } },
            { "uri_template": { "name": "t", "typed_config":
                { "@type": TEMPLATE, "path_template": "/v1/{id}/x" } } }] } },
        { "not_rule": { "or_rules": { "rules": [
            { "url_path": { "path": { "exact": "/info/not" } } }] } } }] } });
    let principal = json!({ "and_ids": { "ids": [
        { "or_ids": { "ids": [
            { "authenticated": { "principal_name": { "safe_regex":
                { "regex": ".*/ns/a/.*" } } } },
            { "authenticated": { "principal_name": { "exact": "spiffe://td/ns/b/sa/s" } } }] } },
        { "not_id": { "or_ids": { "ids": [
            { "authenticated": { "principal_name": { "suffix": "/sa/bad" } } }] } } }] } });
    let filter = compiled(
        json!({ "rules": { "action": "ALLOW", "policies": policies(permission, principal) } }),
    );
    let check = |path: &str, uri: &str, expected| {
        assert_eq!(allows(&filter, &get("h", path), uri), expected, "{path} {uri}");
    };
    check("/info?x", "spiffe://td/ns/a/sa/s", true);
    check("/v1/7/x", "spiffe://td/ns/b/sa/s", true);
    check("/info/not", "spiffe://td/ns/a/sa/s", false);
    check("/info", "spiffe://td/ns/a/sa/bad", false);
    check("/info", "spiffe://td/ns/c/sa/s", false);
    check("/info", "", false);
    let post = Request { method: "POST", ..get("h", "/info") };
    assert!(!allows(&filter, &post, "spiffe://td/ns/a/sa/s"));
}

#[test]
fn rules_without_a_policy_allow_nothing_and_no_rules_allow_all() {
    assert!(!allows(&compiled(json!({ "rules": {} })), &get("h", "/"), ""));
    assert!(compiled(json!({})).rules.is_none());
}

#[test]
fn a_network_filter_comes_before_what_serves_the_connection() {
    let tcp = "type.googleapis.com/envoy.extensions.filters.network.tcp_proxy.v3.TcpProxy";
    let rbac = json!({ "name": "rbac", "typed_config": { "@type": NETWORK, "stat_prefix": "tcp.",
        "rules": { "action": "DENY", "policies": policies(any(), any()) } } });
    let proxy = json!({ "name": "tcp", "typed_config":
        { "@type": tcp, "stat_prefix": "t", "cluster": "c" } });
    let runtime = runtime(&[listener(json!([rbac, proxy]))]);
    let chain = &runtime.listeners["l"].chains[0];
    assert_eq!(chain.guards.len(), 1);
    assert!(matches!(chain.network, Network::Tcp(_)));
    assert!(faults(&[listener(json!([rbac]))]).contains("serves nothing by itself"));
    let header = policies(json!({ "header": { "name": "x", "present_match": true } }), any());
    let asking = json!({ "name": "rbac", "typed_config":
        { "@type": NETWORK, "stat_prefix": "tcp.", "rules": { "policies": header } } });
    assert!(faults(&[listener(json!([asking, proxy]))]).contains("asks for a header"));
}

/// Checks that a filter is rejected for this field.
#[track_caller]
fn check_refused(filter: Value, field: &str) {
    let found = faults(&[http(filter)]);
    assert!(found.contains(field), "{field} is not in {found:?}");
}

#[test]
fn what_is_not_understood_is_refused_by_name() {
    let rules = |policies: Value| json!({ "rules": { "policies": policies } });
    let principal = |principal: Value| rules(policies(any(), principal));
    let permission = |permission: Value| rules(policies(permission, any()));
    let state = json!({ "filter_state": { "key": "k", "string_match": { "exact": "v" } } });
    check_refused(principal(state), "filter_state");
    check_refused(principal(json!({})), "says nothing to match");
    check_refused(principal(json!({ "any": false })), "any");
    check_refused(permission(json!({ "or_rules": {} })), "is empty");
    check_refused(permission(json!({ "destination_port": 70000 })), "destination_port");
    let range = json!({ "destination_port_range": { "start": 5, "end": 5 } });
    check_refused(permission(range), "destination_port_range");
    let metadata = json!({ "sourced_metadata": { "metadata_source": "ROUTE", "metadata_matcher":
        { "filter": "f", "path": [{ "key": "k" }], "value": { "present_match": true } } } });
    check_refused(permission(metadata), "metadata_source");
    let template = json!({ "uri_template": { "name": "t", "typed_config":
        { "@type": TEMPLATE, "path_template": "/**/*" } } });
    check_refused(permission(template), "path_template");
    check_refused(rules(json!({ "p": { "permissions": [any()] } })), "principals");
    let condition = json!({ "p": { "permissions": [any()], "principals": [any()],
        "condition": { "const_expr": { "bool_value": true } } } });
    check_refused(rules(condition), "condition");
    let logger = json!({ "rules": { "policies": {}, "audit_logging_options":
        { "logger_configs": [{ "audit_logger": { "name": "x" } }] } } });
    check_refused(logger, "logger_configs");
}
