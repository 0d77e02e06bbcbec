//! The status of Istio's own examples of the Gateway API: types, statuses and reasons of all conditions
//! are as in Istio's golden files. Runs where `SLUIS_CONFORMANCE_DIR` names the examples.
#![expect(clippy::unwrap_used, reason = "helpers of tests fail by panicking, as tests do")]

use std::{
    collections::{BTreeMap, BTreeSet},
    env, fs,
    path::Path,
};

use serde_json::{Value, json};
use sluis_model::{ApiCondition, ApiStatus, Batch, Snapshot, apply};
use sluis_resources::{Key, Kind, ParentRef, Resource};

/// The services that Istio's test makes, each with ports 80, 34000 and 34001: names by namespace.
const SERVICES: [(&str, &[&str]); 11] = [
    (
        "default",
        &[
            "httpbin",
            "httpbin-second",
            "httpbin-wildcard",
            "foo-svc",
            "httpbin-other",
            "example",
            "echo",
            "svc4",
            "httpbin-zero",
            "httpbin-mirror",
            "httpbin-foo",
            "httpbin-alt",
            "httpbin-bad",
            "echo-1",
            "echo-2",
            "echo-port",
            "not-found",
        ],
    ),
    ("apple", &["httpbin-apple"]),
    ("banana", &["httpbin-banana"]),
    ("cert", &["httpbin"]),
    ("service", &["my-svc"]),
    ("allowed-1", &["a-example", "b-example", "svc1", "svc2"]),
    ("allowed-2", &["a-example", "svc2", "svc3"]),
    ("group-namespace1", &["httpbin"]),
    ("group-namespace2", &["httpbin"]),
    ("istio-system", &["httpbin", "istiod", "echo"]),
    ("egress", &["httpbin"]),
];

/// Examples that are left out, and why.
const OUT_OF_SCOPE: [(&str, &str); 5] = [
    ("mix-backend-policy", "Istio takes its two policies, which have no UID there, for one"),
    ("listenerset", "ListenerSet is not supported"),
    ("status", "what other controllers wrote into a status is not kept"),
    ("backend-lb-policy", "XBackendTrafficPolicy is not supported"),
    ("reference-policy-inferencepool", "InferencePool is not supported"),
];

fn kind(name: &str) -> Option<Kind> {
    Some(match name {
        "GatewayClass" => Kind::GatewayClass,
        "Gateway" => Kind::KubernetesGateway,
        "HTTPRoute" => Kind::HttpRoute,
        "GRPCRoute" => Kind::GrpcRoute,
        "TLSRoute" => Kind::TlsRoute,
        "TCPRoute" => Kind::TcpRoute,
        "BackendTLSPolicy" => Kind::BackendTlsPolicy,
        _ => return None,
    })
}

/// What Istio's test makes beside the example.
fn surroundings(namespaces: &BTreeSet<String>) -> Vec<Value> {
    let port = |name: &str, port: u16| json!({"name": name, "port": port});
    let ports = [port("http", 80), port("tcp", 34000), port("tcp-other", 34001)];
    let of_entry = |host: &str, namespace: &str| {
        json!({"apiVersion": "networking.istio.io/v1", "kind": "ServiceEntry",
            "metadata": {"name": host, "namespace": namespace},
            "spec": {"hosts": [host], "resolution": "STATIC",
                "workloadSelector": {"labels": {"app": "any"}},
                "ports": [{"number": 80, "name": "http", "protocol": "HTTP"},
                    {"number": 34000, "name": "tcp", "protocol": "TCP"}]}})
    };
    let mut all = vec![of_entry("example.com", "istio-system"), of_entry("google.com", "default")];
    let object = |kind: &str, namespace: &str, name: &str, key: &str, value: Value| {
        json!({"apiVersion": "v1", "kind": kind, key: value,
            "metadata": {"name": name, "namespace": namespace}})
    };
    for (namespace, names) in SERVICES {
        for name in names {
            all.push(object("Service", namespace, name, "spec", json!({"ports": ports})));
        }
    }
    let mut entrance = ports.to_vec();
    entrance.push(port("https", 443));
    let spec = json!({"ports": entrance, "selector": {"istio": "ingressgateway"}});
    all.push(object("Service", "istio-system", "istio-ingressgateway", "spec", spec));
    all.push(json!({"apiVersion": "networking.istio.io/v1", "kind": "WorkloadEntry",
        "metadata": {"name": "entrance", "namespace": "istio-system"},
        "spec": {"address": "10.0.0.1", "labels": {"istio": "ingressgateway", "app": "any"}}}));
    let pem = "-----BEGIN CERTIFICATE-----\nAA==\n-----END CERTIFICATE-----\n";
    let key = "-----BEGIN RSA PRIVATE KEY-----\nAA==\n-----END RSA PRIVATE KEY-----\n";
    let pair = json!({"tls.crt": pem, "tls.key": key, "ca.crt": pem});
    let secrets = [
        ("istio-system", "my-cert"),
        ("istio-system", "my-cert-http"),
        ("bookinfo", "bookinfo-secret"),
        ("bookinfo", "another-secret"),
        ("istio-system", "my-cert-http2"),
        ("ns2", "ns2-cert"),
        ("ns3", "ns3-cert"),
        ("ns4", "ns4-cert"),
        ("cert", "cert"),
    ];
    for (namespace, name) in secrets {
        all.push(object("Secret", namespace, name, "stringData", pair.clone()));
    }
    let bad = json!({"tls.crt": "SGVsbG8gd29ybGQK", "tls.key": "SGVsbG8gd29ybGQK"});
    all.push(object("Secret", "istio-system", "malformed", "stringData", bad));
    let maps = [
        ("istio-system", "malformed", json!({"not-ca.crt": "hello"})),
        ("istio-system", "malformed-trustbundle", json!({"ca.crt": "hello"})),
        ("istio-system", "my-cert-http", json!({"ca.crt": pem})),
        ("default", "malformed", json!({"not-ca.crt": "hello"})),
        ("default", "auth-cert", json!({"ca.crt": pem})),
    ];
    for (namespace, name, data) in maps {
        all.push(object("ConfigMap", namespace, name, "data", data));
    }
    for name in namespaces {
        let part = name.split('-').next().unwrap();
        all.push(json!({"apiVersion": "v1", "kind": "Namespace",
            "metadata": {"name": name, "labels": {"istio.io/test-name-part": part}}}));
    }
    all
}

fn documents(path: &Path) -> Vec<Value> {
    let text = fs::read_to_string(path).unwrap().replace("domain.suffix", "cluster.local");
    let documents = text.split("\n---").filter(|text| !text.trim().is_empty());
    documents
        .map(|text| serde_saphyr::from_str::<Value>(text).unwrap())
        .filter(|document| !document.is_null())
        .collect()
}

/// Reads what a document says, with its name as Kubernetes would take it.
fn resources(mut document: Value, origin: &str) -> (Vec<Resource>, Vec<String>) {
    let name = document["metadata"]["name"].as_str().unwrap().to_ascii_lowercase();
    document["metadata"]["name"] = name.into();
    let parsed = sluis_resources::parse(origin, &document.to_string());
    let faults = parsed.faults.iter().filter(|fault| fault.is_error());
    (parsed.resources, faults.map(ToString::to_string).collect())
}

fn conditions(list: &[ApiCondition]) -> BTreeSet<String> {
    let line = |one: &ApiCondition| format!("{} {} {}", one.kind, one.holds, one.reason);
    list.iter().map(line).collect()
}

fn expected_conditions(list: &Value) -> BTreeSet<String> {
    let line = |one: &Value| {
        let text = |key: &str| one[key].as_str().unwrap().to_owned();
        format!("{} {} {}", text("type"), text("status").to_lowercase(), text("reason"))
    };
    list.as_array().into_iter().flatten().map(line).collect()
}

fn parent_name(parent: &ParentRef) -> String {
    let object = &parent.object;
    format!(
        "{:?} {:?} {:?} {} {:?} {:?}",
        object.group.as_deref(),
        object.kind.as_deref(),
        object.namespace.as_deref(),
        object.name,
        parent.section.as_deref(),
        parent.port
    )
}

fn expected_parent(parent: &Value) -> String {
    let text = |key: &str| parent[key].as_str();
    format!(
        "{:?} {:?} {:?} {} {:?} {:?}",
        text("group"),
        text("kind"),
        text("namespace"),
        text("name").unwrap(),
        text("sectionName"),
        parent["port"].as_u64().and_then(|port| u16::try_from(port).ok())
    )
}

/// A status as lines, ours and Istio's alike.
fn lines(status: &ApiStatus) -> BTreeMap<String, BTreeSet<String>> {
    let mut lines = BTreeMap::from([(String::new(), conditions(&status.conditions))]);
    for one in &status.listeners {
        let name = format!("{} {} {:?}", one.name, one.attached_routes, one.supported_kinds);
        lines.insert(name, conditions(&one.conditions));
    }
    for one in &status.parents {
        lines.insert(parent_name(&one.parent), conditions(&one.conditions));
    }
    lines
}

fn expected_lines(status: &Value) -> BTreeMap<String, BTreeSet<String>> {
    let list = |key: &str| status[key].as_array().cloned().unwrap_or_default();
    let mut lines = BTreeMap::from([(String::new(), expected_conditions(&status["conditions"]))]);
    for one in list("listeners") {
        let kinds = one["supportedKinds"].as_array().cloned().unwrap_or_default();
        let kinds: Vec<&str> = kinds.iter().map(|kind| kind["kind"].as_str().unwrap()).collect();
        let (name, count) = (one["name"].as_str().unwrap(), one["attachedRoutes"].as_u64());
        let name = format!("{name} {} {kinds:?}", count.unwrap());
        lines.insert(name, expected_conditions(&one["conditions"]));
    }
    for (list, key) in [(list("parents"), "parentRef"), (list("ancestors"), "ancestorRef")] {
        for one in list {
            lines.insert(expected_parent(&one[key]), expected_conditions(&one["conditions"]));
        }
    }
    lines
}

/// What differs in one example.
fn differences(folder: &Path, name: &str) -> Vec<String> {
    let input = documents(&folder.join(format!("{name}.yaml")));
    let text = |document: &Value, key: &str| {
        document["metadata"][key].as_str().unwrap_or_default().to_owned()
    };
    let mut namespaces: BTreeSet<String> =
        SERVICES.iter().map(|(name, _)| (*name).to_owned()).collect();
    namespaces.extend(input.iter().map(|document| text(document, "namespace")));
    namespaces.remove("");
    let mut batch = Batch::default();
    for document in surroundings(&namespaces) {
        let (resources, faults) = resources(document, "surroundings");
        assert!(faults.is_empty(), "{faults:?}");
        batch.upserts.extend(resources);
    }
    // Routes to pools of inference servers have no backend here.
    let mut elsewhere: BTreeSet<(String, String)> = BTreeSet::new();
    let mut differences = Vec::new();
    for document in input {
        let id = (text(&document, "namespace"), text(&document, "name"));
        if document.to_string().contains("InferencePool") {
            elsewhere.insert(id);
        }
        let (resources, faults) = resources(document.clone(), name);
        let is_ours = document["kind"].as_str().and_then(kind).is_some();
        differences.extend(faults.into_iter().filter(|_| is_ours));
        batch.upserts.extend(resources);
    }
    let snapshot = apply(&Snapshot::default(), batch).0;
    let statuses: BTreeMap<&Key, &ApiStatus> = snapshot.api_statuses().collect();
    let mut seen = BTreeSet::new();
    for document in documents(&folder.join(format!("{name}.status.yaml.golden"))) {
        let Some(kind) = document["kind"].as_str().and_then(kind) else { continue };
        let id = (text(&document, "namespace"), text(&document, "name"));
        let name = sluis_nouns::ObjectName::new(id.0.as_str(), id.1.to_ascii_lowercase());
        let key = Key { kind, name };
        seen.insert(key.clone());
        if elsewhere.contains(&id) {
            continue;
        }
        let (ours, theirs) =
            (statuses.get(&key).map(|one| lines(one)), expected_lines(&document["status"]));
        if ours.as_ref() != Some(&theirs) {
            differences.push(format!("{key}:\n  ours   {ours:?}\n  theirs {theirs:?}"));
        }
    }
    let more = statuses.keys().filter(|key| !seen.contains(**key));
    differences.extend(more.map(|key| format!("{key}: Istio has no status")));
    differences
}

#[test]
fn statuses_are_those_of_istio() {
    let Some(folder) = env::var_os("SLUIS_CONFORMANCE_DIR") else { return };
    let folder = Path::new(&folder).join("gatewayapi");
    let names = fs::read_dir(&folder).unwrap().filter_map(|entry| {
        let name = entry.unwrap().file_name().into_string().unwrap();
        Some(name.strip_suffix(".status.yaml.golden")?.to_owned())
    });
    let mut names: Vec<String> = names.collect();
    names.sort();
    let (mut alike, mut failures) = (0, Vec::new());
    for name in &names {
        let left_out = |(prefix, _): &&(&str, &str)| {
            name == prefix
                || (*prefix == "listenerset" && name.starts_with(prefix))
                || (*prefix == "backend-lb-policy" && name == "backend-traffic-policy-ignored")
        };
        if OUT_OF_SCOPE.iter().find(left_out).is_some() {
            continue;
        }
        let differences = differences(&folder, name);
        if differences.is_empty() {
            alike += 1;
        } else {
            failures.push(format!("{name}:\n{}", differences.join("\n")));
        }
    }
    assert!(failures.is_empty(), "{alike} are alike; these are not:\n{}", failures.join("\n"));
    assert!(alike > 25, "only {alike} examples were found");
}
