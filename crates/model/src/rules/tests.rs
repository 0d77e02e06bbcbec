//! Which rule holds, how rules merge, and what a rule says for a subset and a port.

use sluis_nouns::Labels;
use sluis_resources::SimpleLb;

use crate::{Batch, Policy, Rule, Snapshot, apply};

/// A snapshot of rules, each `namespace/name host …spec`; the oldest first.
fn snapshot(rules: &[(&str, &str)]) -> Snapshot {
    let mut text = String::from(
        "apiVersion: v1\nkind: Service\nmetadata: {name: a, namespace: server}\n\
         spec: {ports: [{name: http, port: 80}]}\n",
    );
    for (index, (name, spec)) in rules.iter().enumerate() {
        let (namespace, name) = name.split_once('/').unwrap();
        text += &format!(
            "---\napiVersion: networking.istio.io/v1\nkind: DestinationRule\n\
             metadata: {{name: {name}, namespace: {namespace}, \
             creationTimestamp: \"2024-01-01T00:00:{index:02}Z\"}}\nspec: {{{spec}}}\n"
        );
    }
    let parsed = sluis_resources::parse("test.yaml", &text);
    assert!(!parsed.has_errors(), "{:?}", parsed.faults);
    let batch = Batch { upserts: parsed.resources, removals: Vec::new() };
    apply(&Snapshot::default(), batch).0
}

fn found(snapshot: &Snapshot, client: &str, labels: &[(&str, &str)]) -> Option<Rule> {
    let host = "a.server.svc.cluster.local".parse().unwrap();
    let service = snapshot.service(&host, client).unwrap();
    let labels: Labels = labels.iter().copied().collect();
    snapshot.rule(client, &labels, service).map(|rule| (**rule).clone())
}

#[track_caller]
fn check(rules: &[(&str, &str)], client: &str, labels: &[(&str, &str)], expected: Option<&str>) {
    let found = found(&snapshot(rules), client, labels).map(|rule| rule.object.to_string());
    assert_eq!(found.as_deref(), expected, "{rules:?} {client}");
}

const HOST: &str = "host: a.server.svc.cluster.local";

#[test]
fn the_clients_namespace_decides_before_the_services_and_the_root_one() {
    let (own, of_service, of_root) =
        (("client/own", HOST), ("server/s", HOST), ("istio-system/r", HOST));
    check(&[own, of_service, of_root], "client", &[], Some("client/own"));
    check(&[of_service, of_root], "client", &[], Some("server/s"));
    check(&[of_root], "client", &[], Some("istio-system/r"));
    check(&[own], "other", &[], None);
    // A proxy of the root namespace is asked for the service's rule first, unless one is its own.
    check(&[of_service, of_root], "istio-system", &[], Some("server/s"));
    let private = format!("{HOST}, exportTo: [\".\"]");
    let private = ("istio-system/p", private.as_str());
    check(&[of_service, private], "istio-system", &[], Some("istio-system/p"));
    check(&[private], "client", &[], None);
}

#[test]
fn a_rule_is_seen_where_it_is_exported_to() {
    let to = |namespaces: &str| format!("{HOST}, exportTo: [{namespaces}]");
    let (here, there, all) = (to("\".\""), to("client"), to("\"*\""));
    check(&[("server/s", &here)], "client", &[], None);
    check(&[("server/s", &here)], "server", &[], Some("server/s"));
    check(&[("server/s", &there)], "client", &[], Some("server/s"));
    check(&[("server/s", &there)], "other", &[], None);
    // Exported elsewhere only, it does not hold at home.
    check(&[("server/s", &there)], "server", &[], None);
    check(&[("server/s", &all)], "other", &[], Some("server/s"));
}

#[test]
fn an_exact_host_stands_before_the_longest_wildcard() {
    let wide = ("server/wide", "host: '*.cluster.local'");
    let narrow = ("server/narrow", "host: '*.server.svc.cluster.local'");
    check(&[wide, narrow, ("server/exact", HOST)], "client", &[], Some("server/exact"));
    check(&[wide, narrow], "client", &[], Some("server/narrow"));
    check(&[wide], "client", &[], Some("server/wide"));
}

#[test]
fn a_rule_for_selected_clients_stands_before_one_for_all_and_is_private() {
    let selected = format!("{HOST}, workloadSelector: {{matchLabels: {{app: x}}}}");
    let rules = [("client/all", HOST), ("client/some", selected.as_str())];
    check(&rules, "client", &[("app", "x")], Some("client/some"));
    check(&rules, "client", &[("app", "y")], Some("client/all"));
    // As in Istio the search ends where rules for the host are found, even when none is for the client.
    let rules = [("client/some", selected.as_str()), ("server/s", HOST)];
    check(&rules, "client", &[], None);
    let rules = [("server/some", selected.as_str())];
    check(&rules, "client", &[("app", "x")], None);
}

#[test]
fn rules_of_one_host_and_reach_are_one() {
    let subset = |name: &str, more: &str| format!("{HOST}, subsets: [{{name: {name}}}]{more}");
    let random = ", trafficPolicy: {loadBalancer: {simple: RANDOM}}";
    let robin = ", trafficPolicy: {loadBalancer: {simple: ROUND_ROBIN}}";
    let (a, b) = (subset("v1", ""), subset("v2", random));
    let c = format!("{HOST}, subsets: [{{name: v1, labels: {{x: z}}}}]{robin}");
    let rules = [("server/a", a.as_str()), ("server/b", b.as_str()), ("server/c", c.as_str())];
    let rule = found(&snapshot(&rules), "client", &[]).unwrap();
    let names: Vec<&str> = rule.subsets.iter().map(|subset| subset.name.as_str()).collect();
    // The first of a name wins, and so does the first policy.
    assert_eq!((&*rule.object.name, names), ("a", vec!["v1", "v2"]));
    assert!(rule.subsets[0].labels.is_empty());
    let balancer = rule.policy(None, 80).load_balancer.unwrap();
    assert_eq!(balancer.simple, SimpleLb::Random);
}

#[test]
fn a_rule_of_wider_reach_adds_to_the_narrower_and_stands_alone_besides() {
    let narrow = format!("{HOST}, exportTo: [x], subsets: [{{name: v1}}]");
    let wide = format!("{HOST}, exportTo: [x, z], subsets: [{{name: v2}}]");
    let snapshot = snapshot(&[("server/narrow", &narrow), ("server/wide", &wide)]);
    let subsets = |client: &str| -> Vec<String> {
        let rule = found(&snapshot, client, &[]).unwrap();
        rule.subsets.iter().map(|subset| subset.name.clone()).collect()
    };
    assert_eq!(subsets("z"), ["v2"]);
    // As in Istio, the last rule that is seen holds.
    assert_eq!(subsets("x"), ["v2"]);
}

#[test]
fn sections_stand_in_place_of_each_other_one_by_one_and_a_port_of_all() {
    let spec = format!(
        "{HOST}, trafficPolicy: {{loadBalancer: {{simple: RANDOM}}, \
         outlierDetection: {{consecutive5xxErrors: 1}}, proxyProtocol: {{version: V2}}, \
         tls: {{mode: SIMPLE}}, \
         portLevelSettings: [{{port: {{number: 81}}, loadBalancer: {{simple: ROUND_ROBIN}}}}]}}, \
         subsets: [{{name: none}}, \
         {{name: through, trafficPolicy: {{tunnel: {{targetHost: a, targetPort: 1}}}}}}, \
         {{name: some, trafficPolicy: {{loadBalancer: {{simple: PASSTHROUGH}}, \
         portLevelSettings: [{{port: {{number: 82}}, tls: {{mode: DISABLE}}}}]}}}}]"
    );
    let rule = found(&snapshot(&[("server/s", &spec)]), "client", &[]).unwrap();
    // Balance, outliers, TLS and PROXY protocol of a policy, in short.
    let short = |policy: Policy| {
        let balance = policy.load_balancer.map(|balancer| balancer.simple);
        let rest = (policy.outlier_detection.is_some(), policy.tls.is_some());
        (balance, rest, policy.proxy_protocol.is_some())
    };
    let check =
        |subset: &str, port: u16, balance: Option<SimpleLb>, rest: (bool, bool), header: bool| {
            let policy = rule.policy(rule.subset(subset), port);
            assert_eq!(short(policy), (balance, rest, header), "{subset} {port}");
        };
    check("", 80, Some(SimpleLb::Random), (true, true), true);
    check("", 81, Some(SimpleLb::RoundRobin), (false, false), false);
    check("none", 80, Some(SimpleLb::Random), (true, true), true);
    check("none", 81, Some(SimpleLb::RoundRobin), (false, false), false);
    check("some", 80, Some(SimpleLb::Passthrough), (true, true), true);
    check("some", 81, Some(SimpleLb::Passthrough), (false, false), false);
    check("some", 82, None, (false, true), true);
    let tunnel = |subset: &str| rule.tunnel(rule.subset(subset)).is_some();
    assert!(tunnel("through") && !tunnel("some") && !tunnel(""));
}
