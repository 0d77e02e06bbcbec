//! Istio's own policies, with the filters that Istio makes of them.
//!
//! The data are Istio's test data; the test runs where `SLUIS_CONFORMANCE_DIR` names them.

#![expect(clippy::unwrap_used, reason = "helpers of tests fail by panicking, as tests do")]

use std::{env, fs, path::Path};

use envoy_types::pb::envoy::{
    config::listener::v3::filter,
    extensions::filters::{
        http::rbac::v3::Rbac,
        network::http_connection_manager::v3::{HttpConnectionManager, http_filter},
    },
};
use serde_json::Value;
use sluis_envoy::unpack;
use sluis_model::{Batch, Snapshot, apply};
use sluis_nouns::{Labels, ObjectName, TrustDomain, WorkloadId};
use sluis_protojson::message_from_json;
use sluis_translate::{Capture, NodeFacts, ProxyView, Role, build};

/// Where we differ from these data on purpose, or they are not about what Istio makes today.
const LEFT_OUT: [&str; 1] = [
    // What Istio made for proxies before 1.11: regular expressions for hosts.
    "allow-host-before-111",
];

/// The conditions on metadata of other filters, which are refused here.
const METADATA: &str = "        - key: \"experimental.envoy.filters.a.b[c]\"";

/// The RBAC filters of the inbound side of Istio's `httpbin`.
fn filters(policies: &str) -> Vec<Rbac> {
    let parsed = sluis_resources::parse("in.yaml", policies);
    let errors: Vec<String> =
        parsed.faults.iter().filter(|fault| fault.is_error()).map(ToString::to_string).collect();
    assert_eq!(errors, Vec::<String>::new());
    let batch = Batch { upserts: parsed.resources, removals: Vec::new() };
    let (snapshot, _) = apply(&Snapshot::default(), batch);
    let labels: Labels = [("app", "httpbin"), ("version", "v1")].into_iter().collect();
    let view = ProxyView {
        name: ObjectName::new("foo", "httpbin"),
        id: WorkloadId::new(TrustDomain::default(), "foo", "httpbin").unwrap(),
        address: "10.3.0.1".parse().unwrap(),
        labels,
        role: Role::Sidecar,
        capture: Capture::Redirect,
        dns: false,
        node: NodeFacts::default(),
    };
    let set = build(&view, &snapshot).set;
    let listener = &set.listeners["virtualInbound"];
    let chain = listener
        .filter_chains
        .iter()
        .find(|chain| chain.name == "virtualInbound-catchall-http")
        .unwrap();
    let Some(filter::ConfigType::TypedConfig(config)) = &chain.filters[0].config_type else {
        panic!("a chain without a filter")
    };
    let manager: HttpConnectionManager = unpack(config).unwrap();
    let rbac = manager.http_filters.iter().filter(|one| one.name == "envoy.filters.http.rbac");
    rbac.map(|one| match &one.config_type {
        Some(http_filter::ConfigType::TypedConfig(config)) => unpack(config).unwrap(),
        _ => panic!("a filter without a configuration"),
    })
    .collect()
}

/// The filter in a file of Istio's.
fn expected(path: &Path) -> Rbac {
    let text = fs::read_to_string(path).unwrap();
    let mut filter: Value = serde_saphyr::from_str(&text).unwrap();
    let mut config = filter["typedConfig"].take();
    config.as_object_mut().unwrap().remove("@type");
    without_metadata(&mut config);
    message_from_json(&config).unwrap()
}

/// Takes out permissions that look at metadata of other filters.
fn without_metadata(value: &mut Value) {
    let is_of_filter = |rule: &Value| {
        let of = |rule: &Value| rule["metadata"]["filter"] == "envoy.filters.a.b";
        of(rule) || of(&rule["notRule"])
    };
    match value {
        Value::Array(items) => {
            items.retain(|item| !is_of_filter(item));
            items.iter_mut().for_each(without_metadata);
        }
        Value::Object(fields) => fields.values_mut().for_each(without_metadata),
        _ => {}
    }
}

/// The text without the condition that is refused here.
fn readable(text: &str) -> String {
    let mut lines = Vec::new();
    let mut skipped = 0;
    for line in text.lines() {
        if line == METADATA {
            // The key, its values and its unwanted values.
            skipped = 3;
        }
        if skipped > 0 {
            skipped -= 1;
        } else {
            lines.push(line);
        }
    }
    lines.join("\n")
}

#[test]
fn istios_policies_become_istios_filters() {
    let Some(root) = env::var_os("SLUIS_CONFORMANCE_DIR") else { return };
    let folder = Path::new(&root).join("authz");
    let mut checked = 0;
    let mut names: Vec<String> = fs::read_dir(&folder)
        .unwrap()
        .map(|entry| entry.unwrap().file_name().to_string_lossy().into_owned())
        .filter_map(|name| Some(name.strip_suffix("-in.yaml")?.to_owned()))
        .filter(|name| !LEFT_OUT.contains(&name.as_str()))
        .collect();
    names.sort();
    for name in names {
        let policies = fs::read_to_string(folder.join(format!("{name}-in.yaml"))).unwrap();
        let outs = ["-out", "-out1", "-out2"].map(|end| folder.join(format!("{name}{end}.yaml")));
        let wanted: Vec<Rbac> =
            outs.iter().filter(|path| path.exists()).map(|path| expected(path)).collect();
        let made = filters(&readable(&policies));
        assert_eq!(made.len(), wanted.len(), "{name}");
        for (made, wanted) in made.iter().zip(&wanted) {
            assert!(made == wanted, "{name}\nmade {made:#?}\nIstio makes {wanted:#?}");
        }
        checked += wanted.len();
    }
    assert!(checked >= 14, "only {checked} filters");
}
