//! Measures how long one decision of access control takes: `cargo run --release -p sluis-rules
//! --example rbac`.
//!
//! In:    policies as a control plane writes them, one for each workload, host or path.
//! Out:   nanoseconds for each decision, with 1, 100 and 10,000 policies.

#![expect(clippy::print_stdout, clippy::unwrap_used, reason = "a program to look at figures")]

use std::{hint::black_box, time::Instant};

use serde_json::{Value, json};
use sluis_envoy::{Kind, ResourceSet};
use sluis_rules::{
    HeaderValues, HttpFilterKind, Metadata, Network, PeerFacts, Rbac, RbacFacts, RequestFacts,
    compile,
};

const DECISIONS: u32 = 200_000;

struct Request {
    host: String,
    path: String,
}

impl RequestFacts for Request {
    fn method(&self) -> &str {
        "GET"
    }

    fn authority(&self) -> &str {
        &self.host
    }

    fn path(&self) -> &str {
        &self.path
    }

    fn scheme(&self) -> &str {
        "http"
    }

    fn header<'r>(&'r self, _: &str, _: &mut HeaderValues<'r>) {}
}

/// The policies, compiled as part of a listener.
fn compiled(policies: &Value) -> std::sync::Arc<Rbac> {
    let types = "type.googleapis.com/envoy.extensions.filters";
    let manager = json!({
        "@type": format!("{types}.network.http_connection_manager.v3.HttpConnectionManager"),
        "stat_prefix": "h",
        "rds": { "route_config_name": "r", "config_source": { "ads": {} } },
        "http_filters": [
            { "name": "rbac", "typed_config": { "@type": format!("{types}.http.rbac.v3.RBAC"),
                "rules": { "policies": policies } } },
            { "name": "router", "typed_config": { "@type": format!("{types}.http.router.v3.Router") } },
        ],
    });
    let listener = json!({
        "name": "l",
        "address": { "socket_address": { "address": "127.0.0.1", "port_value": 80 } },
        "filter_chains": [{ "filters": [{ "name": "hcm", "typed_config": manager }] }],
    });
    let any = sluis_protojson::from_json(Kind::Listener.type_url(), &listener).unwrap();
    let mut set = ResourceSet::default();
    set.insert(Kind::Listener, &any).unwrap();
    let compiled = compile(&set, None);
    assert!(compiled.faults.is_empty(), "{:?}", compiled.faults);
    let chain = &compiled.runtime.listeners["l"].chains[0];
    let Network::Http(manager) = &chain.network else { unreachable!("it serves HTTP") };
    let HttpFilterKind::Rbac(filter) = &manager.filters[0].kind else {
        unreachable!("it is first")
    };
    std::sync::Arc::clone(filter.rules.as_ref().unwrap())
}

fn policy(kind: &str, at: usize) -> Value {
    let (permission, principal) = match kind {
        "principal" => (
            json!({ "any": true }),
            json!({ "authenticated": { "principal_name":
                { "exact": format!("spiffe://cluster.local/ns/n{at}/sa/s") } } }),
        ),
        "namespace" => (
            json!({ "any": true }),
            json!({ "authenticated": { "principal_name":
                { "safe_regex": { "regex": format!(".*/ns/n{at}/.*") } } } }),
        ),
        "host" => (
            json!({ "header": { "name": ":authority",
                "string_match": { "exact": format!("h{at}.example"), "ignore_case": true } } }),
            json!({ "any": true }),
        ),
        "path prefix" => (
            json!({ "url_path": { "path": { "prefix": format!("/p{at}/") } } }),
            json!({ "any": true }),
        ),
        _ => (
            json!({ "url_path": { "path": { "exact": format!("/p{at}/x") } } }),
            json!({ "any": true }),
        ),
    };
    json!({
        "permissions": [{ "and_rules": { "rules": [{ "or_rules": { "rules": [permission] } }] } }],
        "principals": [{ "and_ids": { "ids": [{ "or_ids": { "ids": [principal] } }] } }],
    })
}

fn main() {
    println!("{:14} {:>9} {:>12} {:>12}", "policies by", "number", "ns, matched", "ns, none");
    for kind in ["principal", "namespace", "host", "path", "path prefix"] {
        for count in [1, 100, 10_000] {
            let policies = (0..count).map(|at| (format!("policy-{at:05}"), policy(kind, at)));
            let rbac = compiled(&Value::Object(policies.collect()));
            let nanos = |at: usize| {
                let uris = [format!("spiffe://cluster.local/ns/n{at}/sa/s")];
                let request = Request { host: format!("h{at}.example"), path: format!("/p{at}/x") };
                let peer = PeerFacts { is_tls: true, uris: &uris, ..PeerFacts::default() };
                let metadata = Metadata::default();
                let facts = RbacFacts { peer, request: Some(&request), metadata: &metadata };
                assert_eq!(rbac.decide(&facts).is_allowed, at < count);
                let start = Instant::now();
                for _ in 0..DECISIONS {
                    black_box(rbac.decide(black_box(&facts)));
                }
                start.elapsed().as_nanos() / u128::from(DECISIONS)
            };
            println!("{kind:14} {count:>9} {:>12} {:>12}", nanos(count * 7 / 10), nanos(99_999));
        }
    }
}
