//! Rows and verdicts of a small mesh.

use sluis_model::{Batch, apply};

use super::*;

const MESH: &str = r#"apiVersion: egress.sluis.dev/v1alpha1
kind: Credential
metadata: {name: api, namespace: egress}
spec:
  inject:
    hmac:
      stringToSign: "{method}\n{host}\n{path_and_query}\n{date}"
      output: {header: X-Authorization, template: "Key={secret.accessKey}, Sig={signature:hex}"}
  guard: {hosts: [api.example.com]}
---
apiVersion: egress.sluis.dev/v1alpha1
kind: CredentialGrant
metadata: {name: notebooks, namespace: egress}
spec:
  credential: api
  from: [{principals: [cluster.local/ns/team-a/sa/notebook]}]
  to: [{methods: [POST], ports: ["443"], paths: [/graphql, "/v1/{*}/rows"]}]
  when: [{key: "request.auth.claims[aud]", values: [data]}]
"#;

fn snapshot() -> Snapshot {
    let parsed = sluis_resources::parse("f.yaml", MESH);
    assert!(!parsed.has_errors(), "{:#?}", parsed.faults);
    apply(&Snapshot::default(), Batch { upserts: parsed.resources, removals: Vec::new() }).0
}

fn asked(principal: &str, method: &str, url: &str) -> Asked {
    Asked {
        principal: principal.to_owned(),
        claims: "aud=data".to_owned(),
        method: method.to_owned(),
        url: url.to_owned(),
        ..Asked::default()
    }
}

const NOTEBOOK: &str = "spiffe://cluster.local/ns/team-a/sa/notebook";

#[test]
fn a_row_says_who_may_have_what_and_where_it_is_written() {
    let snapshot = snapshot();
    let rows = rows(&snapshot, &snapshot.credential_faults());
    assert_eq!(
        (rows.len(), rows[0].kind.as_str(), rows[0].source.as_str()),
        (1, "hmac", "Secret api")
    );
    let grant = &rows[0].grants[0];
    assert_eq!(grant.at, "f.yaml:11:1");
    assert_eq!(grant.from, ["principal cluster.local/ns/team-a/sa/notebook"]);
    assert_eq!(grant.to, ["method POST, port 443, path /graphql|/v1/{*}/rows"]);
    assert_eq!(grant.when, ["request.auth.claims[aud] data"]);
    assert!(rows[0].faults.iter().any(|fault| fault.contains("sees has the host")), "{rows:#?}");
}

#[test]
fn a_request_that_is_granted_shows_what_is_signed_without_secrets() {
    let name = ObjectName::new("egress", "api");
    let asked = asked(NOTEBOOK, "POST", "https://API.example.com/graphql?7");
    let verdict = test(&snapshot(), &name, &asked).unwrap();
    assert!(verdict.is_granted, "{verdict:#?}");
    assert_eq!(verdict.grant.as_deref(), Some("egress/notebooks (f.yaml:11:1)"));
    assert_eq!(
        verdict.shows,
        [
            "string to sign:",
            "  POST",
            "  api.example.com",
            "  /graphql?7",
            "  <date>",
            "x-authorization: Key=<accessKey>, Sig=<signature>",
        ]
    );
}

#[test]
fn a_request_that_is_refused_is_told_why() {
    let snapshot = snapshot();
    let name = ObjectName::new("egress", "api");
    let check = |asked: &Asked, expected: &str| {
        let verdict = test(&snapshot, &name, asked).unwrap();
        let is_told = verdict.reasons.iter().any(|reason| reason.contains(expected));
        assert!(!verdict.is_granted && verdict.shows.is_empty() && is_told, "{verdict:#?}");
    };
    let url = "https://api.example.com/graphql";
    check(&asked("cluster.local/ns/team-b/sa/notebook", "POST", url), "is not from principal");
    check(&asked("", "POST", url), "nobody is not from");
    check(&asked(NOTEBOOK, "GET", url), "the request is not to method POST");
    check(&asked(NOTEBOOK, "POST", "https://api.example.com:8443/graphql"), "is not to");
    check(&asked(NOTEBOOK, "POST", "https://api.example.com/v1/a/b/rows"), "is not to");
    check(&asked(NOTEBOOK, "POST", "https://evilapi.example.com/graphql"), "is none of api.ex");
    check(&asked(NOTEBOOK, "POST", "http://api.example.com/graphql"), "never goes over plain");
    let claimless = Asked { claims: String::new(), ..asked(NOTEBOOK, "POST", url) };
    check(&claimless, "not so, as far as is told: request.auth.claims[aud] data");
    assert!(test(&snapshot, &ObjectName::new("egress", "b"), &claimless).is_err());
    let template = asked(NOTEBOOK, "POST", "https://api.example.com/v1/a/rows");
    assert!(test(&snapshot, &name, &template).unwrap().is_granted);
}
