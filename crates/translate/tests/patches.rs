//! Every kind of patch with every operation, match and value, sensible or not: nothing panics, and
//! what is not carried out is said.

#![expect(clippy::unwrap_used, reason = "helpers of tests fail by panicking, as tests do")]

use serde_json::{Value, json};
use sluis_model::{Batch, Snapshot, apply};
use sluis_nouns::{ObjectName, SourceRef, TrustDomain, WorkloadId};
use sluis_translate::{
    ApplyTo, Capture, FilterPlace, Inputs, NodeFacts, Operation, PatchInput, PatchMatch, ProxyView,
    Role, RouteKind, Side, render, select,
};

const MESH: &str = r#"
apiVersion: networking.istio.io/v1
kind: WorkloadEntry
metadata: {name: server, namespace: app}
spec: {address: 10.2.0.1, labels: {app: server}, serviceAccount: server}
---
apiVersion: v1
kind: Service
metadata: {name: server, namespace: app}
spec:
  selector: {app: server}
  clusterIP: 10.96.0.1
  ports: [{name: http, port: 80}, {name: tcp, port: 90}, {name: other, port: 91}]
---
apiVersion: networking.istio.io/v1
kind: ServiceEntry
metadata: {name: a, namespace: app}
spec: {hosts: [a.example.com], ports: [{number: 443, name: tls, protocol: TLS}], resolution: DNS}
---
apiVersion: networking.istio.io/v1
kind: Gateway
metadata: {name: web, namespace: app}
spec:
  selector: {app: server}
  servers: [{port: {number: 8080, name: http, protocol: HTTP}, hosts: ['*']}]
"#;

const APPLY_TO: [ApplyTo; 10] = [
    ApplyTo::Listener,
    ApplyTo::ListenerFilter,
    ApplyTo::FilterChain,
    ApplyTo::NetworkFilter,
    ApplyTo::HttpFilter,
    ApplyTo::RouteConfiguration,
    ApplyTo::VirtualHost,
    ApplyTo::HttpRoute,
    ApplyTo::Cluster,
    ApplyTo::ExtensionConfig,
];

const OPERATIONS: [Operation; 8] = [
    Operation::Merge,
    Operation::MergeReplacingLists,
    Operation::Add,
    Operation::Remove,
    Operation::InsertBefore,
    Operation::InsertAfter,
    Operation::InsertFirst,
    Operation::Replace,
];

fn inputs(role: Role) -> Inputs {
    let parsed = sluis_resources::parse("mesh.yaml", MESH);
    assert!(!parsed.has_errors(), "{:?}", parsed.faults);
    let batch = Batch { upserts: parsed.resources, removals: Vec::new() };
    let (snapshot, _) = apply(&Snapshot::default(), batch);
    let view = ProxyView {
        name: ObjectName::new("app", "server"),
        id: WorkloadId::new(TrustDomain::default(), "app", "server").unwrap(),
        address: "10.2.0.1".parse().unwrap(),
        labels: [("app", "server")].into_iter().collect(),
        role,
        capture: if role == Role::Gateway { Capture::None } else { Capture::Redirect },
        dns: false,
        node: NodeFacts::default(),
    };
    select(&view, &snapshot)
}

fn matches() -> Vec<PatchMatch> {
    let text = |text: &str| Some(text.to_owned());
    let none = PatchMatch::default;
    vec![
        none(),
        PatchMatch { listener_name: text("virtualInbound"), ..none() },
        PatchMatch { port: Some(80), ..none() },
        PatchMatch { port: Some(0), listener_filter: text("x"), ..none() },
        PatchMatch { chain_name: text("virtualInbound"), chain_port: Some(80), ..none() },
        PatchMatch { chain_transport: text("tls"), chain_alpn: vec!["istio".into()], ..none() },
        PatchMatch { chain_sni: text("a.example.com"), chain_socket: text("tls"), ..none() },
        PatchMatch { network_filter: text("envoy.http_connection_manager"), ..none() },
        PatchMatch { http_filter: text("envoy.filters.http.router"), ..none() },
        PatchMatch { http_filter: text("absent"), listener_filter: text("absent"), ..none() },
        PatchMatch { route_config: text("80"), names_route: true, ..none() },
        PatchMatch { route_kind: Some(RouteKind::Respond), names_route: true, ..none() },
        PatchMatch { route: text("default"), names_route: true, ..none() },
        PatchMatch { virtual_host: text("inbound|http|80"), domain: text("*"), ..none() },
        PatchMatch { gateway: text("app/web"), port_name: text("http"), ..none() },
        PatchMatch { service: text("a.example.com"), cluster_port: Some(443), ..none() },
        PatchMatch { cluster: text("BlackHoleCluster"), subset: text("v1"), ..none() },
    ]
}

fn values() -> Vec<Value> {
    const TLS: &str =
        "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.DownstreamTlsContext";
    const ROUTER: &str = "type.googleapis.com/envoy.extensions.filters.http.router.v3.Router";
    vec![
        Value::Null,
        json!({}),
        json!([]),
        json!("text"),
        json!({"name": "x"}),
        json!({"name": 1}),
        json!({"unknown_field": {}}),
        json!({"name": "x", "typed_config": {"@type": ROUTER, "suppress_envoy_headers": true}}),
        json!({"name": "x", "typed_config": {"@type": "type.googleapis.com/x.Y"}}),
        json!({"name": "x", "typed_config": {"@type": 5}}),
        json!({"name": "x", "typed_config": {}}),
        json!({"transport_socket": {
            "name": "envoy.transport_sockets.tls",
            "typed_config": {"@type": TLS, "require_client_certificate": false},
        }}),
        json!({"transport_socket": {"name": "envoy.transport_sockets.tls"}}),
        json!({"connect_timeout": "not a time"}),
        json!({"connect_timeout": "1.5s", "circuit_breakers": {"thresholds": [{}]}}),
        json!({"name": "", "domains": ["*"], "routes": [{"match": {"prefix": "/"}}]}),
        json!({"match": {"prefix": "/"}, "direct_response": {"status": 200}}),
        json!({"filters": [], "filter_chain_match": {"destination_port": 70000}}),
    ]
}

fn patch(apply_to: ApplyTo, operation: Operation, matches: PatchMatch, value: Value) -> PatchInput {
    PatchInput {
        owner: "app/patch".to_owned(),
        index: 0,
        at: SourceRef::default(),
        value_at: SourceRef::default(),
        is_selective: true,
        side: Side::Any,
        apply_to,
        matches,
        operation,
        class: FilterPlace::Authorization,
        value,
    }
}

#[test]
fn no_patch_panics_and_none_is_dropped_in_silence() {
    for role in [Role::Sidecar, Role::Gateway] {
        let mut inputs = inputs(role);
        inputs.faults.clear();
        let before = render(&inputs);
        for apply_to in APPLY_TO {
            for operation in OPERATIONS {
                // Every value without a match, and every match with a value of each sort.
                let any = values().into_iter().map(|value| (PatchMatch::default(), value));
                let sorts = [json!({"name": "x"}), json!({"match": {"prefix": "/"}})];
                let named = matches()
                    .into_iter()
                    .flat_map(|matches| sorts.clone().map(|value| (matches.clone(), value)));
                for (matches, value) in any.chain(named) {
                    inputs.patches = vec![patch(apply_to, operation, matches, value)];
                    let after = render(&inputs);
                    // A merge may change nothing, when it says what is so already.
                    let merges =
                        matches!(operation, Operation::Merge | Operation::MergeReplacingLists);
                    let is_told = !after.faults.is_empty();
                    let what = || format!("{:?}", inputs.patches[0]);
                    assert!(merges || is_told || after.set != before.set, "{}", what());
                }
            }
        }
    }
}

#[test]
fn patches_are_carried_out_in_order_and_once() {
    const CORS: &str = "type.googleapis.com/envoy.extensions.filters.http.cors.v3.Cors";
    let mut inputs = inputs(Role::Gateway);
    let first = |name: &str| {
        let value = json!({"name": name, "typed_config": {"@type": CORS}});
        patch(ApplyTo::HttpFilter, Operation::InsertFirst, PatchMatch::default(), value)
    };
    inputs.patches = vec![first("one"), first("two")];
    let rendered = render(&inputs);
    let listener = rendered.set.listeners.values().next().unwrap();
    let shown = sluis_protojson::message_to_json(&**listener).unwrap();
    let filters = &shown["filter_chains"][0]["filters"][0]["typed_config"]["http_filters"];
    let names: Vec<&str> =
        filters.as_array().unwrap().iter().map(|filter| filter["name"].as_str().unwrap()).collect();
    assert_eq!(names[..2], ["two", "one"]);
    assert_eq!(names.iter().filter(|name| **name == "one").count(), 1);
}
