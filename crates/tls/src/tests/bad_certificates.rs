//! Certificates as attackers make them, signed by an authority that is trusted: input, expected, got.

use rcgen::{CertificateParams, DnType, ExtendedKeyUsagePurpose, OtherNameValue, SanType};
use sluis_rules::{Case, SanKind, SanMatcher, StringMatcher, Text};

use super::{
    handshakes::{
        GATEWAY, NOTEBOOK, exact, mutual_client, mutual_server, plain_client, plain_server, shake,
    },
    pki::Pki,
};
use crate::{ClientTls, ServerTls};

fn uri(text: &str) -> SanType {
    SanType::URI(text.try_into().unwrap())
}

fn dns(text: &str) -> SanType {
    SanType::DnsName(text.try_into().unwrap())
}

/// A client with these names meets a server that lets in the trust domain, as Istio's sidecars do.
/// Gives the identity that the server takes it for; `None` when it is refused.
async fn identity_of(names: Vec<SanType>) -> Option<String> {
    taken_for(|params| params.subject_alt_names = names).await
}

async fn taken_for(change: impl FnOnce(&mut CertificateParams)) -> Option<String> {
    let pki = Pki::new("mesh");
    let mut server = mutual_server(&pki);
    let matcher = StringMatcher::Prefix(Text::new("spiffe://cluster.local/", Case::Sensitive));
    let sans = vec![SanMatcher { kind: SanKind::Uri, matcher }];
    server.settings.validation.as_mut().unwrap().sans = sans;
    let client = mutual_client(&pki);
    client.store.set_identity(pki.odd(change), pki.roots());
    let met = shake(&server, &client).await.ok()?;
    Some(met.client?.id.map_or_else(|| "nobody".to_owned(), |id| id.to_string()))
}

#[tokio::test]
async fn an_identity_in_a_name_of_another_type_is_none() {
    assert_eq!(identity_of(vec![uri(NOTEBOOK)]).await.as_deref(), Some(NOTEBOOK), "so it can pass");
    let other = OtherNameValue::Utf8String(NOTEBOOK.to_owned());
    for (what, names) in [
        ("DNS (CVE-2022-21656)", vec![dns(NOTEBOOK)]),
        ("mail", vec![SanType::Rfc822Name(NOTEBOOK.try_into().unwrap())]),
        (
            "OTHERNAME (CVE-2025-66220)",
            vec![SanType::OtherName((vec![1, 3, 6, 1, 4, 1, 311, 20, 2, 3], other))],
        ),
        ("no name", vec![]),
    ] {
        assert_eq!(identity_of(names).await, None, "{what}");
    }
    let in_subject = |params: &mut CertificateParams| {
        params.distinguished_name.push(DnType::CommonName, NOTEBOOK);
    };
    assert_eq!(taken_for(in_subject).await, None, "the subject's common name");
}

#[tokio::test]
async fn a_certificate_with_several_uri_names_is_refused() {
    for (what, names) in [
        ("two identities", vec![uri(NOTEBOOK), uri(GATEWAY)]),
        ("the other order", vec![uri(GATEWAY), uri(NOTEBOOK)]),
        ("twice the same", vec![uri(NOTEBOOK), uri(NOTEBOOK)]),
        ("a web address beside it", vec![uri(NOTEBOOK), uri("https://example.com/")]),
        ("a web address before it", vec![uri("https://example.com/"), uri(NOTEBOOK)]),
    ] {
        assert_eq!(identity_of(names).await, None, "{what}");
    }
}

#[tokio::test]
async fn names_with_characters_that_cut_them_off_are_refused() {
    for name in [
        "spiffe://cluster.local/ns/egress/sa/gateway\0.evil",
        "spiffe://cluster.local\0.evil/ns/egress/sa/gateway",
        "spiffe://cluster.local/ns/egress/sa/gateway\r\nx: y",
        "spiffe://cluster.local/ns/egress/sa/gateway\n",
        "spiffe://cluster.local/ns/egress/sa/gateway ",
        "spiffe://cluster.local/ns/egress/sa/\u{7f}gateway",
    ] {
        assert_eq!(identity_of(vec![uri(name)]).await, None, "{name:?}");
    }
    let beside = vec![uri(NOTEBOOK), dns("api.data.local\0.evil")];
    assert_eq!(identity_of(beside).await, None, "in another name of the same certificate");
}

#[tokio::test]
async fn what_is_nearly_an_identity_is_nobody_or_refused() {
    for (name, expected) in [
        ("spiffe://cluster.local/ns/egress/sa/*", Some("nobody")),
        ("spiffe://cluster.local/ns/egress/sa/gateway/", Some("nobody")),
        ("spiffe://cluster.local/ns/egress/sa/gateway/../x", Some("nobody")),
        ("spiffe://cluster.local//ns/egress/sa/gateway", Some("nobody")),
        ("spiffe://cluster.local/ns/egress/sa/gateway?x", Some("nobody")),
        ("spiffe://cluster.local/ns/egress/sa/gateway#x", Some("nobody")),
        ("spiffe://cluster.local:443/ns/egress/sa/gateway", None),
        ("spiffe://user@cluster.local/ns/egress/sa/gateway", None),
        ("spiffe://cluster.local.evil/ns/egress/sa/gateway", None),
        ("SPIFFE://cluster.local/ns/egress/sa/gateway", None),
        ("spiffe:cluster.local/ns/egress/sa/gateway", None),
    ] {
        assert_eq!(identity_of(vec![uri(name)]).await.as_deref(), expected, "{name}");
    }
}

#[tokio::test]
async fn a_certificate_for_another_purpose_is_refused() {
    use ExtendedKeyUsagePurpose::{Any, ClientAuth, CodeSigning, ServerAuth};
    for (purposes, as_client, as_server) in [
        (vec![], true, true),
        (vec![ClientAuth, ServerAuth], true, true),
        (vec![ClientAuth], true, false),
        (vec![ServerAuth], false, true),
        (vec![CodeSigning], false, false),
        (vec![Any], false, false),
    ] {
        let pki = Pki::new("mesh");
        let with = |name: &'static str| {
            let purposes = purposes.clone();
            pki.odd(move |params| {
                params.subject_alt_names = vec![uri(name)];
                params.extended_key_usages = purposes;
            })
        };
        let client = mutual_client(&pki);
        client.store.set_identity(with(NOTEBOOK), pki.roots());
        let passes = shake(&mutual_server(&pki), &client).await.is_ok();
        assert_eq!(passes, as_client, "{purposes:?} as a client's (CVE-2022-21657)");
        let server = mutual_server(&pki);
        server.store.set_identity(with(GATEWAY), pki.roots());
        let passes = shake(&server, &mutual_client(&pki)).await.is_ok();
        assert_eq!(passes, as_server, "{purposes:?} as a server's");
    }
}

#[tokio::test]
async fn a_wildcard_stands_for_one_whole_label_of_a_dns_name() {
    for (name, host, passes) in [
        ("*.example.com", "a.example.com", true),
        ("*.example.com", "a.b.example.com", false),
        ("*.example.com", "example.com", false),
        ("a*.example.com", "ab.example.com", false),
        ("*", "example", false),
        ("*.*.example.com", "a.b.example.com", false),
        ("a.*.com", "a.example.com", false),
    ] {
        let pki = Pki::new("mesh");
        let server = plain_server(&pki, &[]);
        server.store.set_identity(
            pki.odd(|params| params.subject_alt_names = vec![dns(name)]),
            pki.roots(),
        );
        let met = shake(&server, &plain_client(&pki, Some(host))).await;
        assert_eq!(met.is_ok(), passes, "{name} for {host} (CVE-2020-15104)");
    }
    // In a URI a star is a star.
    let pki = Pki::new("mesh");
    let mut client = mutual_client(&pki);
    client.settings.validation.as_mut().unwrap().sans = vec![exact(SanKind::Uri, GATEWAY)];
    let server = mutual_server(&pki);
    let star = "spiffe://cluster.local/ns/egress/sa/*";
    server
        .store
        .set_identity(pki.odd(|params| params.subject_alt_names = vec![uri(star)]), pki.roots());
    assert!(shake(&server, &client).await.is_err());
}

#[tokio::test]
async fn a_leaf_that_may_sign_is_no_workload() {
    use rcgen::{BasicConstraints, IsCa, KeyUsagePurpose};
    let authority = |params: &mut CertificateParams| {
        params.subject_alt_names = vec![uri(NOTEBOOK)];
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    };
    assert_eq!(taken_for(authority).await, None);
    let signs = |params: &mut CertificateParams| {
        params.subject_alt_names = vec![uri(NOTEBOOK)];
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature, KeyUsagePurpose::KeyCertSign];
    };
    assert_eq!(taken_for(signs).await, None);
}

#[tokio::test]
async fn no_handshake_is_resumed_where_clients_are_verified() {
    // CVE-2022-21654: a ticket from before the trust changed must not open the door after it.
    let pki = Pki::new("mesh");
    let server = mutual_server(&pki);
    let client = mutual_client(&pki);
    let tls = ServerTls::new(&server.settings, &server.store).unwrap();
    assert_eq!(tls.config().send_tls13_tickets, 0);
    assert!(!tls.config().ticketer.enabled(), "and none in TLS 1.2");
    shake(&server, &client).await.unwrap();
    // The same configurations, after the server trusts another authority.
    let other = Pki::new("other");
    server.store.set_mesh_roots(other.roots());
    let client = ClientTls::new(&client.settings, &client.store).unwrap();
    let again = super::handshakes::meet(&tls, &client);
    assert!(again.await.is_err(), "the client's authority is trusted no longer");
}

#[tokio::test]
async fn without_a_validation_context_nobody_is_served() {
    // CVE-2020-8664: the certificate has come, and the roots have not yet.
    let pki = Pki::new("mesh");
    let mut server = mutual_server(&pki);
    let roots = sluis_rules::SecretName::new("kubernetes://late-cacert");
    server.settings.validation.as_mut().unwrap().roots = roots;
    let refused = shake(&server, &mutual_client(&pki)).await.unwrap_err();
    assert!(refused.to_string().contains("Missing"), "{refused}");
}
