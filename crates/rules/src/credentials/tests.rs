//! Which names are one, and whose certificate is good enough.

use sluis_nouns::HostPattern;

use super::*;
use crate::{Case, SanMatcher, Text, TlsVersions, Validation};

fn tls(sans: &[&str]) -> UpstreamTls {
    let sans = sans.iter().map(|name| SanMatcher {
        kind: SanKind::Dns,
        matcher: StringMatcher::Exact(Text::new(name, Case::Sensitive)),
    });
    UpstreamTls {
        certificate: None,
        validation: Some(Validation {
            roots: SecretName::new("roots"),
            sans: sans.collect(),
            certificate_hashes: Vec::new(),
            spki_hashes: Vec::new(),
            crl: None,
            crl_leaf_only: false,
        }),
        sni: None,
        auto_host_sni: false,
        auto_sni_san_validation: false,
        alpn: Vec::new(),
        versions: TlsVersions::default(),
    }
}

fn guard(hosts: &[&str]) -> Vec<HostPattern> {
    hosts.iter().map(|host| host.parse().unwrap()).collect()
}

#[track_caller]
fn check(cluster: &Cluster, tls: &UpstreamTls, hosts: &[&str], verified: bool) {
    let found = is_verified(cluster, tls, ("api.test", Some("api.test")), &guard(hosts));
    assert_eq!(found, verified);
}

#[test]
fn a_certificate_is_for_the_host_where_the_settings_ask_for_its_name() {
    let plain = Cluster::new("c");
    let own = ["api.test"];
    check(&plain, &tls(&["api.test"]), &own, true);
    check(&plain, &tls(&["other.test"]), &["*.test"], false);
    // Another host of the guard may answer, and gets nothing that is not meant for it.
    check(&plain, &tls(&["api.test", "b.test"]), &["api.test", "b.test"], true);
    check(&plain, &tls(&["api.test", "b.test"]), &own, false);
    check(&plain, &tls(&[]), &own, false);
    check(&plain, &UpstreamTls { validation: None, ..tls(&["api.test"]) }, &own, false);
}

#[test]
fn a_certificate_is_for_the_host_where_it_is_verified_for_the_name_that_is_sent() {
    let derived = Cluster { auto_sni: true, auto_san_validation: true, ..Cluster::new("c") };
    check(&derived, &tls(&[]), &["api.test"], true);
    let unsent = Cluster { auto_san_validation: true, ..Cluster::new("c") };
    check(&unsent, &tls(&[]), &["api.test"], false);
    let fixed = |name: &str| UpstreamTls {
        sni: Some(name.into()),
        auto_sni_san_validation: true,
        ..tls(&[])
    };
    check(&Cluster::new("c"), &fixed("api.test"), &["api.test"], true);
    check(&Cluster::new("c"), &fixed("b.test"), &["api.test"], false);
    let endpoint = UpstreamTls { auto_host_sni: true, ..fixed("b.test") };
    check(&Cluster::new("c"), &endpoint, &["api.test"], true);
    let chosen = Discovery::OriginalDst { port_override: None, header: None };
    check(&Cluster { discovery: chosen, ..derived }, &tls(&[]), &["api.test"], false);
}

#[test]
fn names_are_the_same_in_any_case_and_with_either_dash() {
    for name in ["x-key", "X-KEY", "x_key", "X_Key"] {
        assert!(is_same("x-key", name.as_bytes()), "{name}");
    }
    for name in ["xkey", "x-key-", "x-keys", "y-key", "x--key"] {
        assert!(!is_same("x-key", name.as_bytes()), "{name}");
    }
}
