//! Tests of old kinds: what they say today.

use serde_json::json;

use super::*;
use crate::read::{parse, parse_with};

const SERVICES: &str = r#"
apiVersion: v1
kind: Service
metadata: {name: ratings, namespace: shop}
spec: {selector: {app: ratings}, ports: [{name: http, port: 80, targetPort: 9080}, {name: tcp-x, port: 90, targetPort: named}]}
---
apiVersion: v1
kind: Service
metadata: {name: reviews, namespace: shop}
spec: {selector: {app: reviews}, ports: [{name: http, port: 80}]}
---
apiVersion: v1
kind: Service
metadata: {name: outside, namespace: shop}
spec: {ports: [{name: http, port: 80}]}
---
"#;

/// The manifests that a text becomes, or its first fault.
fn made(text: &str) -> Result<Vec<Json>, String> {
    let text = format!("{SERVICES}{text}");
    let options = Options { pending: true, ..Options::default() };
    let parsed = parse_with("old.yaml", &text, &options.deferring_legacy());
    assert!(!parsed.has_errors(), "{:?}", parsed.faults);
    let modern = modernize(parsed.legacy.iter(), parsed.resources.iter(), &options);
    match modern.faults.iter().find(|fault| fault.is_error()) {
        Some(fault) => Err(fault.to_string()),
        None => {
            assert_eq!(modern.resources.len(), modern.manifests.len(), "{modern:?}");
            Ok(modern.manifests)
        }
    }
}

fn policy(spec: &str) -> String {
    let head = "apiVersion: authentication.istio.io/v1alpha1\nkind: Policy\n";
    format!("{head}metadata: {{name: old, namespace: shop}}\nspec: {spec}\n")
}

#[track_caller]
fn check_specs(text: &str, expected: &[(&str, &str, Json)]) {
    let found = made(text).unwrap_or_else(|fault| panic!("{text}: {fault}"));
    let found: Vec<(&str, &str, Json)> = found
        .iter()
        .map(|one| {
            let text = |value: &Json| value.as_str().map(str::to_owned).unwrap_or_default();
            let name = text(&one["metadata"]["namespace"]) + "/" + &text(&one["metadata"]["name"]);
            (one["kind"].as_str().unwrap_or_default(), &*name.leak(), one["spec"].clone())
        })
        .collect();
    assert_eq!(found, expected, "{text}");
}

#[track_caller]
fn check_refused(text: &str, expected: &str) {
    let fault = made(text).expect_err("it must be refused");
    assert!(fault.contains(expected), "{expected} in {fault}");
    assert!(fault.starts_with("old.yaml:"), "{fault}");
}

#[test]
fn mutual_tls_of_a_policy_is_a_peer_authentication() {
    let mode = |mode: &str| json!({"mtls": {"mode": mode}});
    let check = |spec: &str, expected: &str| {
        check_specs(&policy(spec), &[("PeerAuthentication", "shop/old", mode(expected))]);
    };
    check("{peers: [{mtls: {}}]}", "STRICT");
    check("{peers: [{mtls: }]}", "STRICT");
    check("{peers: [{mtls: {mode: STRICT}}]}", "STRICT");
    check("{peers: [{mtls: {mode: PERMISSIVE}}]}", "PERMISSIVE");
    check("{peers: [{mtls: {}}], peerIsOptional: true}", "PERMISSIVE");
    check("{}", "DISABLE");
    check("{peers: []}", "DISABLE");
    let mesh = policy("{peers: [{mtls: {}}]}").replace("kind: Policy", "kind: MeshPolicy");
    let mesh = mesh.replace("{name: old, namespace: shop}", "{name: default}");
    check_specs(&mesh, &[("PeerAuthentication", "istio-system/default", mode("STRICT"))]);
    check_refused(&mesh.replace("default", "other"), "called default");
    check_refused(&policy("{peers: [{jwt: {}}]}"), "jwt");
    check_refused(&policy("{peers: [{mtls: {mode: SOMETIMES}}]}"), "SOMETIMES");
    check_refused(&policy("{pears: []}"), "pears");
}

#[test]
fn targets_select_what_their_services_select() {
    let ratings = json!({"matchLabels": {"app": "ratings"}});
    let spec = "{targets: [{name: ratings}], peers: [{mtls: {}}]}";
    let expected = json!({"selector": ratings, "mtls": {"mode": "STRICT"}});
    check_specs(&policy(spec), &[("PeerAuthentication", "shop/old", expected)]);
    let port = json!({"selector": ratings, "portLevelMtls": {"9080": {"mode": "STRICT"}}});
    for written in ["number: 80", "name: http"] {
        let spec = format!(
            "{{targets: [{{name: ratings, ports: [{{{written}}}]}}], peers: [{{mtls: {{}}}}]}}"
        );
        check_specs(&policy(&spec), &[("PeerAuthentication", "shop/old", port.clone())]);
    }
    let reviews =
        json!({"selector": {"matchLabels": {"app": "reviews"}}, "mtls": {"mode": "DISABLE"}});
    let ratings = json!({"selector": ratings, "mtls": {"mode": "DISABLE"}});
    check_specs(
        &policy("{targets: [{name: ratings}, {name: reviews}]}"),
        &[
            ("PeerAuthentication", "shop/old-ratings", ratings),
            ("PeerAuthentication", "shop/old-reviews", reviews),
        ],
    );
    check_refused(&policy("{targets: [{name: nobody}]}"), "there is no Service shop/nobody");
    check_refused(&policy("{targets: [{name: outside}]}"), "selects nothing");
    check_refused(&policy("{targets: [{name: ratings, ports: [{number: 90}]}]}"), "named");
    check_refused(&policy("{targets: [{name: ratings, ports: [{number: 91}]}]}"), "no such port");
}

#[test]
fn tokens_of_a_policy_are_asked_for() {
    let origin = "{issuer: me, jwksUri: 'https://a/keys', jwtHeaders: [x-token], jwtParams: [t]}";
    let rules = json!({"jwtRules": [{
        "issuer": "me", "jwksUri": "https://a/keys",
        "fromHeaders": [{"name": "x-token"}], "fromParams": ["t"],
    }]});
    let off = json!({"mtls": {"mode": "DISABLE"}});
    let denied = json!({"action": "DENY", "rules": [{"from": [{"source": {"notRequestPrincipals": ["*"]}}]}]});
    let peer = ("PeerAuthentication", "shop/old", off);
    let request = ("RequestAuthentication", "shop/old", rules);
    check_specs(
        &policy(&format!("{{origins: [{{jwt: {origin}}}], principalBinding: USE_ORIGIN}}")),
        &[peer.clone(), request.clone(), ("AuthorizationPolicy", "shop/old-needs-token", denied)],
    );
    let optional = format!("{{origins: [{{jwt: {origin}}}], originIsOptional: true}}");
    check_specs(&policy(&optional), &[peer, request]);
    check_refused(
        &policy("{origins: [{jwt: {issuer: me, triggerRules: [{includedPaths: [{exact: /a}]}]}}]}"),
        "looks at every path",
    );
}

const ROLE: &str = r#"
apiVersion: rbac.istio.io/v1alpha1
kind: ServiceRole
metadata: {name: viewer, namespace: shop}
spec:
  rules:
  - services: [ratings.shop.svc.cluster.local]
    methods: [GET]
    paths: [/ratings/*]
    constraints: [{key: "request.headers[version]", values: [v1, v2]}]
---
apiVersion: rbac.istio.io/v1alpha1
kind: ServiceRoleBinding
metadata: {name: bind, namespace: shop}
spec:
  subjects:
  - user: cluster.local/ns/shop/sa/web
  - properties: {source.namespace: front, "request.headers[x]": "y"}
  roleRef: {kind: ServiceRole, name: viewer}
---
"#;

fn switch(spec: &str) -> String {
    let head = "apiVersion: rbac.istio.io/v1alpha1\nkind: ClusterRbacConfig\n";
    format!("{head}metadata: {{name: default}}\nspec: {spec}\n")
}

#[test]
fn a_role_and_its_binding_are_a_policy() {
    let to = json!([{"operation": {"methods": ["GET"], "paths": ["/ratings/*"]}}]);
    let version = json!({"key": "request.headers[version]", "values": ["v1", "v2"]});
    let bound = json!({
        "selector": {"matchLabels": {"app": "ratings"}},
        "action": "ALLOW",
        "rules": [
            {"from": [{"source": {"principals": ["cluster.local/ns/shop/sa/web"]}}], "to": to, "when": [version]},
            {"from": [{"source": {"namespaces": ["front"]}}], "to": to,
             "when": [version, {"key": "request.headers[x]", "values": ["y"]}]},
        ],
    });
    let policy = ("AuthorizationPolicy", "shop/bind-ratings", bound);
    let nothing = |name| ("AuthorizationPolicy", name, json!({}));
    check_specs(
        &(ROLE.to_owned() + &switch("{mode: 'ON'}")),
        &[nothing("istio-system/allow-nothing"), policy.clone()],
    );
    check_specs(
        &(ROLE.to_owned() + &switch("{mode: ON_WITH_INCLUSION, inclusion: {namespaces: [shop]}}")),
        &[nothing("shop/allow-nothing"), policy],
    );
    check_specs(&(ROLE.to_owned() + &switch("{mode: 'OFF'}")), &[]);
    check_specs(ROLE, &[]);
}

#[test]
fn any_service_any_user_and_patterns_keep_their_meaning() {
    let on = switch("{mode: 'ON'}");
    let with = |services: &str, subject: &str| {
        let role = ROLE.replace("[ratings.shop.svc.cluster.local]", services);
        let cut = role.find("  - user").unwrap_or_default();
        let end = role.find("  roleRef").unwrap_or_default();
        format!("{}  - {subject}\n{}{on}", &role[..cut], &role[end..])
    };
    let names = |text: &str| -> Vec<String> {
        let made = made(text).unwrap_or_else(|fault| panic!("{fault}"));
        let name = |one: &Json| one["metadata"]["name"].as_str().map(str::to_owned);
        made.iter().skip(1).filter_map(name).collect()
    };
    assert_eq!(names(&with("['*']", "{user: '*'}")), ["bind"]);
    assert_eq!(names(&with("[r*]", "{user: '*'}")), ["bind-ratings", "bind-reviews"]);
    assert_eq!(
        names(&with("['*s.shop.svc.cluster.local']", "{user: a}")),
        ["bind-ratings", "bind-reviews"]
    );
    let anybody = made(&with("['*']", "{user: '*'}")).unwrap();
    assert_eq!(anybody[1]["spec"]["rules"][0].get("from"), None);
    assert_eq!(anybody[1]["spec"].get("selector"), None);
    check_refused(&with("[nobody*]", "{user: '*'}"), "is meant by this");
    check_refused(&with("['*']", "{notGroups: [a]}"), "notGroups");
}

#[test]
fn what_cannot_be_said_today_is_refused() {
    check_refused(&switch("{mode: ON_WITH_EXCLUSION, exclusion: {namespaces: [a]}}"), "left out");
    check_refused(&switch("{mode: 'ON', enforcementMode: PERMISSIVE}"), "cannot be said");
    check_refused(
        &(ROLE.replace("name: viewer}\n---", "name: other}\n---") + &switch("{mode: 'ON'}")),
        "no ServiceRole",
    );
    let constraint = ROLE.replace("request.headers[version]", "destination.labels[version]");
    check_refused(&(constraint + &switch("{mode: 'ON'}")), "no condition");
    check_refused(&(switch("{mode: 'ON'}") + "---\n" + &switch("{mode: 'OFF'}")), "another one");
}

#[test]
fn mixers_kinds_are_refused_with_what_to_use_now() {
    for (kind, hint) in [
        ("rule", "Mixer is gone"),
        ("handler", "Mixer is gone"),
        ("denier", "AuthorizationPolicy"),
        ("QuotaSpec", "local_ratelimit"),
        ("prometheus", "Telemetry"),
        ("EgressRule", "ServiceEntry"),
    ] {
        let text = format!(
            "apiVersion: config.istio.io/v1alpha2\nkind: {kind}\nmetadata: {{name: a}}\nspec: {{}}\n"
        );
        let parsed = parse("old.yaml", &text);
        assert!(parsed.resources.is_empty());
        let fault = parsed.faults[0].to_string();
        assert!(fault.contains(hint) && fault.contains("given this kind up"), "{fault}");
    }
}

/// The manifests of a tutorial for Istio 1.2, as it prints them.
#[test]
fn a_tutorials_policy_and_destination_rule_load() {
    const TEXT: &str = r#"
apiVersion: "authentication.istio.io/v1alpha1"
kind: "Policy"
metadata:
  name: "default"
  namespace: "wordpress-app"
spec:
  peers:
  - mtls: {}
---
apiVersion: "networking.istio.io/v1alpha3"
kind: "DestinationRule"
metadata:
  name: "vt-wordpress-mariadb"
  namespace: "wordpress-app"
spec:
  host: "*.wordpress-app.svc.cluster.local"
  trafficPolicy:
    tls:
      mode: ISTIO_MUTUAL
"#;
    let parsed = parse("003.yaml", TEXT);
    assert_eq!(parsed.faults, [], "a policy and a rule");
    let keys: Vec<String> = parsed.resources.iter().map(|one| one.key().to_string()).collect();
    assert_eq!(
        keys,
        [
            "DestinationRule wordpress-app/vt-wordpress-mariadb",
            "PeerAuthentication wordpress-app/default"
        ]
    );
    let renewed = renew("003.yaml", TEXT);
    assert_eq!(renewed.len(), 1);
    assert_eq!(renewed[0]["apiVersion"], "networking.istio.io/v1");
}
