//! Credential and CredentialGrant: short forms and defaults, and what is refused for safety's sake.

use super::kinds::{read, refused, spec};
use crate::resource::Spec;
use crate::{
    Credential, CredentialGrant, FileSource, HashAlgorithm, Injection, KeyEncoding, SecretSource,
    TextEncoding, TextPattern, VaultAuth, VaultEngine,
};

const EGRESS: &str = "egress.sluis.dev/v1alpha1";

#[track_caller]
fn credential(text: &str) -> Credential {
    let Spec::Credential(credential) = spec(EGRESS, "Credential", text) else { panic!() };
    *credential
}

/// A Credential with this injection.
#[track_caller]
fn injection(inject: &str) -> Injection {
    credential(&format!("spec: {{inject: {{{inject}}}, guard: {{hosts: [a.example]}}}}")).injection
}

#[track_caller]
fn grant(text: &str) -> (CredentialGrant, Vec<String>) {
    let (resource, faults) = read(EGRESS, "CredentialGrant", text);
    let Some(Spec::CredentialGrant(grant)) = resource.map(|one| one.spec) else {
        panic!("{faults:#?}")
    };
    (grant, faults)
}

#[test]
fn the_common_case_is_ten_lines() {
    let credential = credential(
        "
spec:
  inject:
    hmac:
      stringToSign: \"{method}\\n{host}\\n{path_and_query}\\n{date}\\n{body_digest}\"
      date: {header: X-Date}
      bodyDigest: {}
      output: {header: X-Authorization, template: 'Version=V1, Credential={secret.accessKey}, Signature={signature:hex}'}
  guard: {hosts: [api.data.local]}
",
    );
    let SecretSource::SecretRef(source) = &credential.source else { panic!() };
    assert_eq!((source.name.as_str(), source.keys.len()), ("x", 0));
    let Injection::Hmac(hmac) = &credential.injection else { panic!() };
    assert_eq!((hmac.algorithm, hmac.key.entry.as_str()), (HashAlgorithm::Sha256, "secretKey"));
    assert_eq!(hmac.date_format, "%Y%m%dT%H%M%SZ");
    let headers: Vec<&str> = hmac.outputs.iter().map(|one| one.header.as_str()).collect();
    assert_eq!(headers, ["x-date", "x-authorization"]);
    let digest = hmac.body_digest.as_ref().unwrap();
    assert_eq!((digest.header.as_str(), digest.max_bytes), ("content-digest", 1 << 20));
    assert_eq!(digest.encoding, TextEncoding::Structured);
    assert_eq!(credential.injection.entries(), ["accessKey", "secretKey"]);
    assert_eq!(credential.injection.headers(), ["x-date", "x-authorization", "content-digest"]);
    assert!(!credential.guard.allow_without);
    assert_eq!(credential.rotation.grace.as_secs(), 600);
}

#[test]
fn each_kind_of_injection_has_its_defaults() {
    let Injection::Header(header) = injection("header: {name: X-Api-Key}") else { panic!() };
    assert_eq!((header.name.as_str(), header.key.as_str()), ("x-api-key", "value"));
    let bearer = injection("bearer: {}");
    assert_eq!((bearer.name(), bearer.entries()), ("bearer", vec!["token"]));
    assert_eq!(injection("basic: {}").entries(), ["password", "username"]);
    assert_eq!(injection("query: {name: key}").name(), "query");
    assert_eq!(injection("cookie: {name: session, key: c}").entries(), ["c"]);
    let Injection::MessageSignature(one) =
        injection("httpMessageSignature: {algorithm: ed25519, components: ['@method', date]}")
    else {
        panic!()
    };
    assert_eq!(one.components, ["\"@method\"", "\"date\""]);
    assert_eq!((one.key.encoding, one.label.as_str()), (KeyEncoding::Pem, "sig1"));
    assert!(one.body_digest.is_none());
    let whole = injection("httpMessageSignature: {algorithm: hmac-sha256}");
    let Injection::MessageSignature(whole) = whole else { panic!() };
    assert!(whole.body_digest.is_some() && whole.key.encoding == KeyEncoding::Raw);
    let aws = injection("awsSigV4: {service: s3, region: eu-west-1, sessionToken: t}");
    assert_eq!(aws.entries(), ["accessKeyId", "secretAccessKey", "t"]);
    let token =
        injection("oauth2: {tokenUrl: 'https://idp.example/token', scopes: [a], dpop: true}");
    assert_eq!(token.entries(), ["clientId", "clientSecret"]);
    assert_eq!(token.headers(), ["authorization", "dpop"]);
    let exchange = "grant: tokenExchange, clientAuthentication: privateKeyJwt";
    let token = injection(&format!("oauth2: {{tokenUrl: 'https://idp.example/t', {exchange}}}"));
    assert_eq!(token.entries(), ["clientId", "privateKey"]);
    let signed = injection("jwtSign: {algorithm: ES256, issuer: me, claims: {m: '{method}'}}");
    assert_eq!((signed.entries(), signed.headers()), (vec!["privateKey"], vec!["authorization"]));
    assert_eq!(injection("clientCertificate: {}").entries(), ["tls.crt", "tls.key"]);
}

#[test]
fn each_source_is_read() {
    let source = |text: &str| {
        let rest = "inject: {bearer: {}}, guard: {hosts: ['*.example.com']}";
        credential(&format!("spec: {{source: {{{text}}}, {rest}}}")).source
    };
    let SecretSource::File(FileSource::Each(paths)) = source("file: {paths: {token: /run/t}}")
    else {
        panic!()
    };
    assert_eq!(paths["token"], "/run/t");
    assert_eq!(source("file: {directory: /run/d}").entries(), None);
    assert_eq!(
        source("file: {json: /run/a.json, keys: {token: t}}").entries(),
        Some(vec!["token"])
    );
    assert_eq!(source("env: {token: API_TOKEN}").name(), "env");
    assert_eq!(source("exec: {command: [/bin/get, token], timeout: 5s}").name(), "exec");
    assert_eq!(source("sealed: {token: 'YWJj ZGVm'}").name(), "sealed");
    let SecretSource::Vault(vault) = source(
        "vault: {address: 'https://v.example:8200/', auth: {appRole: {roleId: r, secretIdFile: /s}}, \
         kv: {path: team/api}}",
    ) else {
        panic!()
    };
    assert_eq!(vault.address, "https://v.example:8200");
    assert!(matches!(&vault.auth, VaultAuth::AppRole { mount, .. } if mount == "approle"));
    assert!(matches!(&vault.engine, VaultEngine::Kv { mount, .. } if mount == "secret"));
    let transit = source(
        "vault: {address: 'http://127.0.0.1:8200', auth: {tokenFile: /t}, \
         transit: {key: k, ciphertexts: {token: 'vault:v1:abc'}}}",
    );
    assert_eq!(transit.entries(), Some(vec!["token"]));
}

#[test]
fn what_would_leave_a_secret_unguarded_is_refused() {
    let check = |spec: &str, expected: &str| {
        refused(EGRESS, "Credential", &format!("spec: {{{spec}}}"), expected);
    };
    let guard = |guard: &str| format!("inject: {{bearer: {{}}}}, guard: {{{guard}}}");
    check("inject: {bearer: {}}", "spec.guard: this field is required");
    check(&guard(""), "spec.guard.hosts: this field is required");
    check(&guard("hosts: []"), "must not be empty");
    check(&guard("hosts: ['*']"), "too wide for a secret");
    check(&guard("hosts: ['*.com']"), "everything below a top-level domain");
    check(&guard("hosts: ['*-x.example.com']"), "too wide for a secret");
    check(&guard("hosts: [a.b], schemes: [http]"), "\"http\" is none of https");
    check(&guard("hosts: [a.b], scanResponse: 1Gi"), "more than 1Mi");
    check(&guard("hosts: [a.b], onFailure: allow"), "is none of deny, allowWithout");
    check(&format!("{}, rotation: {{grace: 999h}}", guard("hosts: [a.b]")), "longer than a week");
    check(&format!("{}, allowGrantsFrom: ['*']", guard("hosts: [a.b]")), "without wildcards");
    let inject = |inject: &str| format!("inject: {{{inject}}}, guard: {{hosts: [a.b]}}");
    check(&inject(""), "nothing is chosen here");
    check(&inject("bearer: {}, basic: {}"), "only one of bearer and basic");
    check(&inject("header: {}"), "header.name: this field is required");
    check(&inject("header: {name: Host}"), "belongs to the connection");
    check(&inject("header: {name: 'a b'}"), "is not the name of a header");
    check(&inject("header: {name: a, key: '@version'}"), "is not the name of an entry");
    check(&inject("oauth2: {tokenUrl: 'http://idp/t'}"), "the client's secret goes there");
    check(&inject("jwtSign: {algorithm: none}"), "is none of HS256");
    check(&inject("awsSigV4: {service: s3, region: r, presign: 999h}"), "a second to a week");
    check(
        &inject("httpMessageSignature: {algorithm: ed25519, components: []}"),
        "covers nothing proves nothing",
    );
    check(
        &inject("httpMessageSignature: {algorithm: ed25519, components: ['@body']}"),
        "neither a field in lower case nor",
    );
    let source = |source: &str| format!("source: {{{source}}}, {}", inject("bearer: {}"));
    check(&source("secretRef: {namespace: other}"), "of another namespace is not read");
    check(&source("env: {key: X}"), "needs token, which is not here");
    check(&source("env: {token: 'A B'}"), "is not a variable's name");
    check(&source("exec: {command: [get]}"), "an absolute path");
    check(&source("file: {}"), "nothing is chosen here");
    let vault = |address: &str| {
        source(&format!("vault: {{address: '{address}', auth: {{tokenEnv: T}}, kv: {{path: p}}}}"))
    };
    check(&vault("http://vault.example:8200"), "must begin with https://");
    check(&vault("http://127.0.0.1.evil.example:8200"), "must begin with https://");
}

#[test]
fn templates_are_checked() {
    let check = |string: &str, output: &str, expected: &str| {
        let hmac = format!(
            "hmac: {{stringToSign: '{string}', output: {{header: x-a, template: '{output}'}}}}"
        );
        let text = format!("spec: {{inject: {{{hmac}}}, guard: {{hosts: [a.b]}}}}");
        refused(EGRESS, "Credential", &text, expected);
    };
    check("{pth}", "{signature}", "{pth} is unknown: did you mean {path}?");
    check("{accessKey}", "{signature}", "an entry of the secret is {secret.accessKey}");
    check("{secret.k}", "{signature}", "would be part of what is signed");
    check("{signature}", "{signature}", "{signature} is there only where");
    check("{method", "{signature}", "not closed");
    check("{method:rot13}", "{signature}", "is none of hex");
    check("{header.}", "{signature}", "is not a header");
    check("{method}", "nothing", "the signature is sent nowhere");
    check("{body_digest}", "{signature}", "no digest is made");
    let weak = "hmac: {algorithm: sha1, stringToSign: '{method}', \
                output: {header: a, template: '{signature}'}";
    let text = |weak: &str| format!("spec: {{inject: {{{weak}}}}}, guard: {{hosts: [a.b]}}}}");
    refused(EGRESS, "Credential", &text(weak), "sha1 is weak");
    let (resource, faults) = read(EGRESS, "Credential", &text(&format!("{weak}, allowWeak: true")));
    assert!(resource.is_some() && faults[0].contains("sha1 is weak"), "{faults:?}");
}

#[test]
fn a_grant_is_read_in_both_forms_of_sources() {
    let text = "
spec:
  credential: data-api
  from:
  - {principals: [cluster.local/ns/team-a/sa/notebook]}
  - source: {namespaces: [team-b]}
  to:
  - {hosts: [api.data.local], methods: [POST], paths: ['/graphql', '/v1/{*}']}
  when: [{key: 'request.auth.claims[aud]', values: [data-api]}]
  limits: {perIdentityPerMinute: 600}
";
    let (grant, faults) = grant(text);
    assert_eq!(faults, [""; 0]);
    assert_eq!(grant.credential.to_string(), "default/data-api");
    assert_eq!(grant.from[1].namespaces.any, [TextPattern::Exact("team-b".to_owned())]);
    assert_eq!((grant.to[0].paths.any.len(), grant.when.len()), (2, 1));
    assert_eq!(grant.per_identity_per_minute, 600);
}

#[test]
fn a_grant_to_everybody_is_told_and_a_bad_one_refused() {
    let (anybody, faults) = grant("spec: {credential: egress/data-api}");
    assert_eq!(anybody.credential.to_string(), "egress/data-api");
    assert!(faults.len() == 1 && faults[0].contains("everybody who reaches"), "{faults:?}");
    let check = |spec: &str, expected: &str| {
        refused(EGRESS, "CredentialGrant", &format!("spec: {{{spec}}}"), expected);
    };
    check("", "spec.credential: this field is required");
    check("credential: a/b/c", "neither the form name nor namespace/name");
    check("credential: a, from: [{}]", "a source must not be empty");
    check("credential: a, to: [{hosts: [a], verbs: [GET]}]", "there is no such field");
    check("credential: a, from: [{source: {principals: ['']}}]", "an empty value");
    check("credential: a, limits: {perIdentityPerMinute: 0}", "no use at all");
}
