//! Proxies that differ in a label are of one class exactly where nothing reads the label.

use sluis_model::{Batch, apply};
use sluis_nouns::TrustDomain;

use super::*;
use crate::Capture;

fn view(labels: &[(&str, &str)]) -> ProxyView {
    let mut own = Labels::new();
    labels.iter().for_each(|(key, value)| drop(own.insert(*key, *value)));
    ProxyView {
        name: ObjectName::new("shop", "cart"),
        id: WorkloadId::new(TrustDomain::default(), "shop", "cart").unwrap(),
        address: IpAddr::V4(Ipv4Addr::LOCALHOST),
        labels: own,
        role: Role::Sidecar,
        capture: Capture::Redirect,
        dns: false,
        node: NodeFacts::default(),
    }
}

/// Whether two proxies that differ in the label `rack` are of one class.
#[track_caller]
fn check(object: &str, is_one_class: bool) {
    let parsed = sluis_resources::parse("mesh.yaml", object);
    assert!(!parsed.has_errors(), "{:?}", parsed.faults);
    let batch = Batch { upserts: parsed.resources, removals: Vec::new() };
    let snapshot = apply(&Snapshot::default(), batch).0;
    let readers = Readers::of(&snapshot);
    let class = |rack| readers.class(&view(&[("app", "cart"), ("rack", rack)]), &snapshot);
    assert_eq!(class("r1") == class("r2"), is_one_class, "{object}");
}

#[test]
fn a_label_that_nothing_reads_makes_no_class() {
    check("", true);
    check(
        "{apiVersion: networking.istio.io/v1, kind: DestinationRule, metadata: {name: a, namespace: shop}, \
         spec: {host: web, trafficPolicy: {loadBalancer: {simple: ROUND_ROBIN}}}}",
        true,
    );
}

#[test]
fn proxies_that_differ_in_a_label_of_failover_priority_are_told_apart() {
    for policy in [
        "trafficPolicy: {loadBalancer: {localityLbSetting: {failoverPriority: [rack]}}}",
        "trafficPolicy: {portLevelSettings: [{port: {number: 80}, \
         loadBalancer: {localityLbSetting: {failoverPriority: [rack]}}}]}",
        "subsets: [{name: one, trafficPolicy: \
         {loadBalancer: {localityLbSetting: {failoverPriority: [rack]}}}}]",
    ] {
        let object = format!(
            "{{apiVersion: networking.istio.io/v1, kind: DestinationRule, \
             metadata: {{name: a, namespace: shop}}, spec: {{host: web, {policy}}}}}"
        );
        check(&object, false);
    }
    check(
        "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: istio, namespace: istio-system}\n\
         data:\n  mesh: 'localityLbSetting: {failoverPriority: [rack]}'\n",
        false,
    );
}

#[test]
fn proxies_that_differ_in_a_label_of_a_selector_are_told_apart() {
    check(
        "{apiVersion: telemetry.istio.io/v1, kind: Telemetry, metadata: {name: a, namespace: shop}, \
         spec: {selector: {matchLabels: {rack: r1}}, accessLogging: [{disabled: true}]}}",
        false,
    );
    check(
        "{apiVersion: networking.istio.io/v1, kind: Sidecar, metadata: {name: a, namespace: shop}, \
         spec: {workloadSelector: {labels: {rack: r1}}, egress: [{hosts: [./*]}]}}",
        false,
    );
}
