//! Which policies hold for a workload.

use super::*;
use crate::{Batch, GATEWAY_NAME_LABEL, apply};

const POLICIES: &str = r#"
apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: {name: mesh, namespace: istio-system}
spec: {rules: [{}]}
---
apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: {name: of-root, namespace: istio-system}
spec: {selector: {matchLabels: {app: a}}, rules: [{}]}
---
apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: {name: wide, namespace: shop}
spec: {rules: [{}]}
---
apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: {name: narrow, namespace: shop}
spec: {selector: {matchLabels: {app: a, version: v1}}, rules: [{}]}
---
apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: {name: gate, namespace: shop}
spec:
  targetRefs: [{group: gateway.networking.k8s.io, kind: Gateway, name: front}]
  rules: [{}]
---
apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: {name: outside, namespace: shop}
spec:
  targetRefs: [{group: networking.istio.io, kind: ServiceEntry, name: pay}]
  rules: [{}]
---
apiVersion: networking.istio.io/v1
kind: ServiceEntry
metadata: {name: pay, namespace: shop}
spec:
  hosts: [pay.example.com, "*.pay.example.com"]
  ports: [{number: 443, name: tls, protocol: TLS}]
  resolution: NONE
"#;

fn snapshot() -> Snapshot {
    let parsed = sluis_resources::parse("policies.yaml", POLICIES);
    let batch = Batch { upserts: parsed.resources, removals: Vec::new() };
    apply(&Snapshot::default(), batch).0
}

#[test]
fn policies_are_attached_as_in_istio() {
    let snapshot = snapshot();
    let check = |namespace: &str, labels: &[(&str, &str)], expected: &[&str]| {
        let labels: Labels = labels.iter().copied().collect();
        let found: Vec<&str> = snapshot
            .authorization_policies(namespace, &labels)
            .map(|policy| &*policy.meta().name.name)
            .collect();
        assert_eq!(found, expected, "{namespace} {labels:?}");
    };
    check("elsewhere", &[("app", "b")], &["mesh"]);
    check("elsewhere", &[("app", "a")], &["mesh", "of-root"]);
    check("istio-system", &[("app", "a")], &["mesh", "of-root"]);
    check("shop", &[("app", "a")], &["mesh", "of-root", "wide"]);
    check("shop", &[("app", "a"), ("version", "v1")], &["mesh", "of-root", "narrow", "wide"]);
    check("shop", &[(GATEWAY_NAME_LABEL, "front")], &["mesh", "gate", "wide"]);
    check("elsewhere", &[(GATEWAY_NAME_LABEL, "front")], &["mesh"]);
}

#[test]
fn a_policy_on_a_service_entry_guards_its_hosts() {
    let snapshot = snapshot();
    let guards: Vec<(String, String)> = snapshot
        .guards()
        .map(|(policy, hosts)| {
            let hosts: Vec<&str> = hosts.iter().map(HostPattern::as_str).collect();
            (policy.meta().name.to_string(), hosts.join(" "))
        })
        .collect();
    let missing: Vec<&str> =
        snapshot.missing_targets().map(|(_, target)| target.name.as_str()).collect();
    assert_eq!(missing, ["front"]);
    let expected = ("shop/outside".to_owned(), "pay.example.com *.pay.example.com".to_owned());
    assert_eq!(guards, [expected]);
}
