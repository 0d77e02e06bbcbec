//! Policies of the security and telemetry groups: what their fields become, and what is refused.

use super::kinds::{read, refused, spec};
use crate::resource::Spec;
use crate::{
    AuthorizationAction, ConditionKey, ConditionValue, JwtKeys, MetricName, PathPattern,
    PolicyTarget, TargetKind, TextPattern, WorkloadMode,
};

const SECURITY: &str = "security.istio.io/v1";

#[test]
fn an_authorization_policy_is_read_whole() {
    let text = "
spec:
  targetRefs: [{group: networking.istio.io, kind: ServiceEntry, name: a}, {group: gateway.networking.k8s.io, kind: Gateway, name: g}]
  action: DENY
  rules:
  - from:
    - source: {principals: ['*'], notNamespaces: [a-*], ipBlocks: [10.0.0.0/8]}
    - source: {serviceAccounts: [sa, ns/sa], trustDomains: ['*.local']}
    to:
    - operation: {ports: ['80'], paths: [/a*, '/x/{*}/{**}'], hosts: ['*.b']}
    when:
    - {key: 'request.headers[X-A]', values: [v]}
    - {key: 'request.auth.claims[a][b]', notValues: [v]}
    - {key: source.ip, values: [10.0.0.1]}
";
    let Spec::AuthorizationPolicy(policy) = spec(SECURITY, "AuthorizationPolicy", text) else {
        panic!()
    };
    assert_eq!(policy.action, AuthorizationAction::Deny);
    let PolicyTarget::Objects(targets) = &policy.target else { panic!() };
    assert_eq!((targets[0].kind, targets[1].kind), (TargetKind::ServiceEntry, TargetKind::Gateway));
    let rule = &policy.rules[0];
    assert_eq!(rule.from[0].principals.any, [TextPattern::Present]);
    assert_eq!(rule.from[0].namespaces.none, [TextPattern::Prefix("a-".to_owned())]);
    assert_eq!(rule.from[1].service_accounts.any[0].namespace, "default");
    assert_eq!(rule.from[1].trust_domains.any, [TextPattern::Suffix(".local".to_owned())]);
    assert_eq!(rule.to[0].ports.any, [80]);
    assert_eq!(rule.to[0].paths.any[1], PathPattern::Template("/x/{*}/{**}".to_owned()));
    let keys: Vec<_> = rule.when.iter().map(|condition| condition.key.clone()).collect();
    assert_eq!(keys[0], ConditionKey::RequestHeader("X-A".to_owned()));
    assert_eq!(keys[1], ConditionKey::RequestClaim(vec!["a".to_owned(), "b".to_owned()]));
    assert!(matches!(rule.when[2].values.any[0], ConditionValue::Ip(_)));

    for nothing in ["", "spec:", "spec: {}"] {
        let Spec::AuthorizationPolicy(policy) = spec(SECURITY, "AuthorizationPolicy", nothing)
        else {
            panic!()
        };
        assert_eq!((policy.action, policy.rules.len()), (AuthorizationAction::Allow, 0));
    }
}

#[test]
fn what_istio_refuses_of_an_authorization_policy_is_refused() {
    let check = |spec: &str, expected: &str| {
        refused(SECURITY, "AuthorizationPolicy", &format!("spec: {{{spec}}}"), expected);
    };
    check("action: DENY", "spec.rules: without rules this action never matches");
    check("action: DENY, rules: []", "never matches");
    check("action: CUSTOM, provider: {name: p}", "never matches");
    check("action: CUSTOM, rules: [{}]", "spec.provider.name: action CUSTOM needs");
    check(
        "action: CUSTOM, rules: [{}], provider: {}",
        "spec.provider.name: the name of a provider",
    );
    check("provider: {name: p}", "only with action CUSTOM");
    let custom = |rule: &str| format!("action: CUSTOM, provider: {{name: p}}, rules: [{{{rule}}}]");
    check(
        &custom("from: [{source: {principals: [a]}}]"),
        "source.principals: this is not possible",
    );
    check(&custom("when: [{key: source.principal, values: [a]}]"), "when[0].key: this is not");
    let rule = |rule: &str| format!("rules: [{{{rule}}}]");
    check(&rule("from: [{}]"), "from[0].source: this field is required");
    check(&rule("from: [{source: {}}]"), "a source must not be empty");
    check(&rule("from: [{source: {ipBlocks: [a]}}]"), "ipBlocks[0]");
    check(&rule("from: [{source: {principals: ['']}}]"), "an empty value is not allowed");
    check(&rule("from: [{source: {serviceAccounts: ['a*']}}]"), "neither the form account");
    check(&rule("from: [{source: {trustDomains: [a/b]}}]"), "has a slash");
    check(&rule("from: [{source: {trustDomains: ['a*b']}}]"), "one star is possible");
    check(&rule("to: [{operation: {}}]"), "an operation must not be empty");
    check(&rule("to: [{operation: {ports: ['70000']}}]"), "is not a port");
    check(&rule("to: [{operation: {paths: ['/a{*}']}}]"), "braces are possible only as");
    check(&rule("to: [{operation: {paths: ['/{**}/{*}']}}]"), "must be the last");
    check(&rule("when: [{key: source.ip}]"), "one of values and notValues is required");
    check(&rule("when: [{key: source.ip, values: [a]}]"), "values[0]");
    check(&rule("when: [{key: a, values: [a]}]"), "not a key that conditions know");
    check(&rule("when: [{key: 'request.headers[]', values: [a]}]"), "must have the form a[b]");
    let metadata = "when: [{key: 'experimental.envoy.filters.a[k]', values: [v]}]";
    check(&rule(metadata), "metadata of other filters cannot be looked at");
    check("targetRef: {kind: Service, name: a}", "only waypoints enforce such a policy");
    let entry = "targetRefs: [{group: networking.istio.io, kind: ServiceEntry, name: a}]";
    check(&format!("{}, {entry}", custom("")), "cannot be guarded with action CUSTOM");
    check("targetRef: {kind: Deployment, name: a}", "targetRef.kind: a policy is attached to");
    check("targetRef: {kind: Gateway, name: a}", "has the group \"gateway.networking.k8s.io\"");
    check("selector: {}, targetRef: {kind: Service, name: a}", "only one of");
}

#[test]
fn a_policy_may_only_tell_its_verdict() {
    let text = |annotation: &str, spec: &str| {
        format!(
            "apiVersion: {SECURITY}\nkind: AuthorizationPolicy\nmetadata:\n  name: x\n  \
             annotations: {{istio.io/dry-run: '{annotation}'}}\nspec: {{{spec}}}\n"
        )
    };
    let faults = |annotation, spec| -> Vec<String> {
        let parsed = super::parse("f.yaml", &text(annotation, spec));
        let all = parsed.faults.iter().map(ToString::to_string);
        all.filter(|fault| !fault.contains("not carried out yet")).collect()
    };
    assert_eq!(faults("true", ""), [""; 0]);
    assert!(faults("yes", "")[0].contains("istio.io/dry-run: \"yes\" is neither true nor false"));
    assert!(faults("true", "action: AUDIT, rules: [{}]")[0].contains("only with action ALLOW"));
    let gateway = "apiVersion: networking.istio.io/v1\nkind: DestinationRule\nmetadata:\n  name: x\n  \
                   annotations: {istio.io/dry-run: 'true'}\nspec: {host: a}\n";
    assert!(super::faults(gateway)[0].contains("only an AuthorizationPolicy has this annotation"));
}

#[test]
fn allowing_all_paths_but_some_is_told() {
    let text = "spec: {rules: [{to: [{operation: {notPaths: [/admin]}}]}]}";
    let (resource, faults) = read(SECURITY, "AuthorizationPolicy", text);
    assert!(resource.is_some() && faults.len() == 1, "{faults:?}");
    assert!(faults[0].contains("every other spelling"), "{faults:?}");
    let deny =
        "spec: {action: DENY, rules: [{to: [{operation: {notPaths: [/a], ports: ['80']}}]}]}";
    assert_eq!(read(SECURITY, "AuthorizationPolicy", deny).1, [""; 0]);
}

#[test]
fn a_rule_that_denies_all_tcp_is_told() {
    let tell = |rule: &str| {
        let text = format!("spec: {{action: DENY, rules: [{rule}]}}");
        let (resource, faults) = read(SECURITY, "AuthorizationPolicy", &text);
        assert!(resource.is_some(), "{faults:?}");
        faults.len()
    };
    assert_eq!(tell("{to: [{operation: {paths: [/a]}}]}"), 1);
    assert_eq!(tell("{to: [{operation: {paths: [/a], ports: ['80']}}]}"), 0);
    assert_eq!(tell("{from: [{source: {requestPrincipals: ['*']}}]}"), 1);
    assert_eq!(tell("{from: [{source: {namespaces: [a]}}]}"), 0);
    assert_eq!(tell("{}"), 0);
}

#[test]
fn tokens_of_users_are_read_whole() {
    let text = "
spec:
  selector: {matchLabels: {a: b}}
  jwtRules:
  - issuer: i
    jwksUri: https://a/b
    fromHeaders: [{name: x, prefix: 'B '}]
    outputClaimToHeaders: [{header: h, claim: c}]
    presence: REQUIRED
  - issuer: i
    jwks: '{\"keys\": [{\"kty\": \"RSA\"}]}'
";
    let Spec::RequestAuthentication(policy) = spec(SECURITY, "RequestAuthentication", text) else {
        panic!()
    };
    assert_eq!(policy.rules[0].keys, Some(JwtKeys::Uri("https://a/b".to_owned())));
    assert!(policy.rules[0].is_required && !policy.rules[1].is_required);
    let check = |rule: &str, expected: &str| {
        let text = format!("spec: {{jwtRules: [{{{rule}}}]}}");
        refused(SECURITY, "RequestAuthentication", &text, expected);
    };
    check("", "an issuer or a jwksUri is required");
    check("issuer: i, jwks: '{'", "jwks: this is not JSON");
    check("issuer: i, jwks: '{}'", "kty is missing");
    check("issuer: i, jwks: '{}', jwksUri: https://a", "only one of jwks and jwksUri");
    check("issuer: i, jwksUri: ftp://a", "must begin with http:// or https://");
    check("issuer: i, outputClaimToHeaders: [{header: 'a b', claim: c}]", "is not the name");
}

#[test]
fn telemetry_is_read_whole() {
    let text = "
spec:
  tracing: [{providers: [{name: p}], randomSamplingPercentage: 1.5, disableContextPropagation: true,
    customTags: {a: {literal: {value: b}}}}]
  metrics: [{overrides: [{match: {metric: REQUEST_COUNT, mode: SERVER},
    tagOverrides: {t: {operation: REMOVE}}}]}]
  accessLogging: [{match: {mode: CLIENT}, disabled: true}]
";
    let api = "telemetry.istio.io/v1";
    let (resource, faults) = read(api, "Telemetry", text);
    assert!(faults.len() == 2 && faults.iter().all(|fault| fault.contains("not carried out yet")));
    let Some(Spec::Telemetry(telemetry)) = resource.map(|found| found.spec) else { panic!() };
    assert_eq!(telemetry.tracing[0].providers, ["p"]);
    let change = &telemetry.metrics[0].overrides[0];
    assert_eq!(change.metric, MetricName::Istio("REQUEST_COUNT"));
    assert_eq!((change.mode, change.tags.get("t")), (WorkloadMode::Server, Some(&None)));
    assert_eq!(telemetry.access_logging[0].mode, WorkloadMode::Client);
    let filter = "spec: {accessLogging: [{filter: {expression: 'response.code >= 400'}}]}";
    refused(api, "Telemetry", filter, "filter: this field is known, but not supported");
    let entry = "spec: {targetRef: {group: networking.istio.io, kind: ServiceEntry, name: a}}";
    refused(api, "Telemetry", entry, "targetRef: only a Gateway");
    refused(
        api,
        "Telemetry",
        "spec: {metrics: [{overrides: [{match: {metric: A}}]}]}",
        "is none of",
    );
}

#[test]
fn a_wasm_plugin_is_read_whole() {
    let text = "
spec:
  url: oci://registry/a:1
  phase: AUTHN
  priority: 10
  failStrategy: FAIL_OPEN
  pluginConfig: {a: [1, b]}
  match: [{mode: CLIENT, ports: [{number: 80}]}]
  vmConfig: {env: [{name: A, valueFrom: HOST}, {name: B, value: c}]}
";
    let api = "extensions.istio.io/v1alpha1";
    let Spec::WasmPlugin(plugin) = spec(api, "WasmPlugin", text) else { panic!() };
    assert_eq!(plugin.plugin_config["a"][1], "b");
    assert_eq!(plugin.matches[0].ports, [80]);
    let expected = [("A".to_owned(), None), ("B".to_owned(), Some("c".to_owned()))];
    assert_eq!(plugin.environment, expected);
}
