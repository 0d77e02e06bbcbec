//! Which grants count, and what is told of credentials.

use crate::{Batch, Snapshot, apply};

const MESH: &str = "
apiVersion: networking.istio.io/v1
kind: ServiceEntry
metadata: {name: api, namespace: egress}
spec: {hosts: [api.example.com], ports: [{number: 443, name: https, protocol: HTTPS}], resolution: DNS}
---
apiVersion: networking.istio.io/v1
kind: Gateway
metadata: {name: out, namespace: egress}
spec: {selector: {istio: egress}, servers: [{port: {number: 80, name: http, protocol: HTTP}, hosts: [a.example]}]}
---
apiVersion: networking.istio.io/v1
kind: WorkloadEntry
metadata: {name: out, namespace: egress}
spec: {address: 127.0.0.2, serviceAccount: out, labels: {istio: egress}}
---
";

fn snapshot(more: &str) -> Snapshot {
    let parsed = sluis_resources::parse("f.yaml", &format!("{MESH}{more}"));
    assert!(!parsed.has_errors(), "{:#?}", parsed.faults);
    apply(&Snapshot::default(), Batch { upserts: parsed.resources, removals: Vec::new() }).0
}

fn credential(name: &str, spec: &str) -> String {
    let head = "apiVersion: egress.sluis.dev/v1alpha1\nkind: Credential";
    format!("{head}\nmetadata: {{name: {name}, namespace: egress}}\nspec: {{{spec}}}\n---\n")
}

fn grant(namespace: &str, spec: &str) -> String {
    let head = "apiVersion: egress.sluis.dev/v1alpha1\nkind: CredentialGrant";
    let from = "from: [{namespaces: [a]}]";
    format!(
        "{head}\nmetadata: {{name: g, namespace: {namespace}}}\nspec: {{{spec}, {from}}}\n---\n"
    )
}

const PLAIN: &str = "inject: {bearer: {}}, guard: {hosts: [api.example.com]}";

#[track_caller]
fn told(more: &str, expected: &[&str]) {
    let faults: Vec<String> =
        snapshot(more).credential_faults().iter().map(ToString::to_string).collect();
    assert_eq!(faults.len(), expected.len(), "{faults:#?}");
    for (fault, part) in faults.iter().zip(expected) {
        assert!(fault.contains(part), "{fault}\ndoes not say {part}");
    }
}

#[test]
fn a_credential_with_its_grant_is_without_fault() {
    told(&(credential("c", PLAIN) + &grant("egress", "credential: c")), &[]);
}

#[test]
fn a_grant_of_another_namespace_needs_consent() {
    let other = grant("team", "credential: egress/c");
    let of = |snapshot: &Snapshot| {
        let credential = snapshot.credentials().next().unwrap();
        snapshot.grants_of(credential).count()
    };
    let refused = credential("c", PLAIN) + &other;
    assert_eq!(of(&snapshot(&refused)), 0);
    told(&refused, &["takes no grants of namespace team", "no CredentialGrant grants it"]);
    let allowed = credential("c", &format!("{PLAIN}, allowGrantsFrom: [team]")) + &other;
    assert_eq!(of(&snapshot(&allowed)), 1);
    told(&allowed, &[]);
}

#[test]
fn what_grants_nothing_is_told() {
    told(
        &(credential("c", PLAIN) + &grant("egress", "credential: d")),
        &["there is no Credential egress/d", "no CredentialGrant grants it"],
    );
    told(
        &(credential("c", PLAIN) + &grant("team", "credential: c")),
        &["there is no Credential team/c: this grants nothing (is egress/c meant?)", "no Cred"],
    );
    told(
        &(credential("c", PLAIN) + &grant("egress", "credential: c, dryRun: true")),
        &["no CredentialGrant grants it"],
    );
    let other = grant("egress", "credential: c, to: [{hosts: [b.example.com]}]");
    told(&(credential("c", PLAIN) + &other), &["does not have b.example.com"]);
}

#[test]
fn hosts_that_are_not_there_or_too_wide_are_told() {
    let other = "inject: {bearer: {}}, guard: {hosts: [api.other.com]}";
    let granted = grant("egress", "credential: c");
    told(&(credential("c", other) + &granted), &["sees has the host api.other.com"]);
    let wide = "
apiVersion: networking.istio.io/v1
kind: ServiceEntry
metadata: {name: all, namespace: egress}
spec: {hosts: ['*.example.com'], ports: [{number: 443, name: tls, protocol: TLS}], resolution: DYNAMIC_DNS}
---
";
    told(&(credential("c", PLAIN) + &granted + wide), &["*.example.com is wider than the guard"]);
    let two = "inject: {bearer: {}}, guard: {hosts: ['*.example.com']}";
    told(&(credential("c", two) + &granted), &["several hosts are sent the same secret"]);
    let signed =
        "inject: {httpMessageSignature: {algorithm: ed25519}}, guard: {hosts: ['*.example.com']}";
    told(&(credential("c", signed) + &granted), &[]);
}

#[test]
fn a_secret_of_two_hosts_is_told() {
    let of = |name: &str, host: &str| {
        let source = "source: {secretRef: {name: s}}, inject: {bearer: {}}";
        credential(name, &format!("{source}, guard: {{hosts: [{host}]}}"))
    };
    let both = of("c", "api.example.com") + &of("d", "b.example.com");
    let entry = MESH
        .split("---")
        .next()
        .unwrap()
        .replace("api.example", "b.example")
        .replace("name: api", "name: b");
    let granted = grant("egress", "credential: c") + &grant("team", "credential: c");
    let faults = snapshot(&format!("{both}{granted}{entry}\n---\n")).credential_faults();
    let shared: Vec<String> =
        faults.iter().map(ToString::to_string).filter(|one| one.contains("other hosts")).collect();
    assert_eq!(shared.len(), 1, "{faults:#?}");
    assert!(shared[0].contains("secret of egress/d is sent to other hosts too"), "{shared:?}");
}

#[test]
fn a_token_that_is_forwarded_and_replaced_is_told() {
    let forwards = "
apiVersion: security.istio.io/v1
kind: RequestAuthentication
metadata: {name: r, namespace: egress}
spec: {jwtRules: [{issuer: i, jwks: '{\"keys\":[]}', forwardOriginalToken: true}]}
---
";
    let all = credential("c", PLAIN) + &grant("egress", "credential: c") + forwards;
    told(&all, &["the client's own token is to be forwarded"]);
}
