//! Who gets the values of a credential: a gateway of its namespace whose filters name it.

use std::{
    collections::BTreeSet,
    net::{IpAddr, Ipv4Addr},
};

use sluis_model::{Age, Batch, Snapshot, apply, held_values};
use sluis_nouns::{Labels, TrustDomain, WorkloadId};

use super::*;
use crate::{Capture, NodeFacts, ProxyView};

fn data(key: &str) -> BTreeMap<String, SecretValue> {
    let pem = "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n";
    let pem_key = "-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n";
    [("key", key), ("user", "me"), ("@version", "7"), ("tls.crt", pem), ("tls.key", pem_key)]
        .map(|(name, text)| (name.to_owned(), SecretValue::new(text)))
        .into()
}

fn view(namespace: &str, role: Role) -> ProxyView {
    ProxyView {
        name: ObjectName::new(namespace, "proxy"),
        id: WorkloadId::new(TrustDomain::default(), namespace, "proxy").unwrap(),
        address: IpAddr::V4(Ipv4Addr::LOCALHOST),
        labels: Labels::default(),
        role,
        capture: Capture::None,
        dns: false,
        node: NodeFacts::default(),
    }
}

fn selection<'a>(view: &'a ProxyView, snapshot: &'a Snapshot) -> Selection<'a> {
    Selection {
        view,
        snapshot,
        scope: None,
        services: Vec::new(),
        client_tls_clusters: Vec::new(),
        askers: BTreeMap::new(),
        credential_secrets: BTreeSet::new(),
        authorization: None,
        key_servers: Vec::new(),
        faults: Vec::new(),
    }
}

/// What a proxy gets whose clusters' filters name these.
fn given(namespace: &str, role: Role, names: &[&str]) -> (Vec<SecretInput>, Vec<Fault>) {
    let api = ObjectName::new("egress", "api");
    let upserts = vec![
        held_values(&api, Age::Current, data("two")),
        held_values(&api, Age::Previous, data("one")),
    ];
    let (snapshot, _) = apply(&Snapshot::default(), Batch { upserts, removals: vec![] });
    let view = view(namespace, role);
    let mut selection = selection(&view, &snapshot);
    selection.credential_secrets = names.iter().map(|name| (*name).to_owned()).collect();
    let secrets = select(&mut selection, &[], &[]);
    (secrets, selection.faults)
}

fn names(namespace: &str, role: Role, asked: &[&str]) -> Vec<String> {
    given(namespace, role, asked).0.into_iter().map(|secret| secret.name).collect()
}

const ALL: [&str; 4] = [
    "credential://egress/api",
    "credential://egress/api#previous",
    "credential://egress/api?basic=user:key",
    "credential://egress/api?value=key",
];

#[test]
fn a_gateway_of_the_namespace_gets_what_its_filters_name_and_nothing_else() {
    assert_eq!(names("egress", Role::Gateway, &ALL), ALL);
    assert_eq!(names("egress", Role::Gateway, &ALL[..1]), ALL[..1]);
    assert_eq!(names("egress", Role::Gateway, &[]), [""; 0]);
    assert_eq!(names("egress", Role::Gateway, &["credential://egress/other"]), [""; 0]);
}

#[test]
fn a_sidecar_of_the_namespace_and_a_gateway_of_another_get_nothing() {
    assert_eq!(names("egress", Role::Sidecar, &ALL), [""; 0]);
    assert_eq!(names("other", Role::Gateway, &ALL), [""; 0]);
    assert_eq!(names("other", Role::Sidecar, &ALL), [""; 0]);
}

#[test]
fn the_forms_for_envoys_filters_hold_one_value() {
    let (secrets, _) = given("egress", Role::Gateway, &ALL);
    let content = |index: usize| &secrets[index].content;
    assert!(matches!(content(0), SecretContent::Generic(all) if all["key"].expose() == b"two"));
    assert!(matches!(content(1), SecretContent::Generic(all) if all["key"].expose() == b"one"));
    assert!(matches!(content(2), SecretContent::Single(one) if one.expose() == b"bWU6dHdv"));
    assert!(matches!(content(3), SecretContent::Single(one) if one.expose() == b"two"));
}

/// The values are in the snapshot as Secrets: no name of Kubernetes may lead there, pair or not.
#[test]
fn no_other_scheme_leads_to_the_values() {
    for name in ["kubernetes://credential:api", "kubernetes-gateway://egress/credential:api"] {
        for role in [Role::Gateway, Role::Sidecar] {
            let snapshot = Snapshot::default();
            let view = view("egress", role);
            let selection = selection(&view, &snapshot);
            let refused = content(&selection, name, false).unwrap_err();
            assert!(refused.contains("not a name of Kubernetes"), "{refused}");
        }
    }
}
