//! Behaviour of the snapshot: what is seen, merged and preferred.

use sluis_resources::{ClientTlsMode, Kind, SimpleLb};

use super::*;
use crate::EndpointAddress;

fn snapshot(text: &str) -> Snapshot {
    apply(&Snapshot::default(), batch(text)).0
}

fn batch(text: &str) -> Batch {
    let parsed = sluis_resources::parse("test.yaml", text);
    assert!(!parsed.has_errors(), "{:?}", parsed.faults);
    Batch { upserts: parsed.resources, removals: Vec::new() }
}

fn service(name: &str, namespace: &str, more: &str) -> String {
    format!(
        "apiVersion: v1\nkind: Service\nmetadata: {{name: \"{name}\", namespace: \"{namespace}\"}}\n\
         spec: {{ports: [{{name: http, port: 80, targetPort: 8080}}]{more}}}\n---\n"
    )
}

fn entry(name: &str, namespace: &str, spec: &str) -> String {
    format!(
        "apiVersion: networking.istio.io/v1\nkind: ServiceEntry\n\
         metadata: {{name: \"{name}\", namespace: \"{namespace}\"}}\nspec: {{{spec}}}\n---\n"
    )
}

fn workload(name: &str, namespace: &str, spec: &str) -> String {
    format!(
        "apiVersion: networking.istio.io/v1\nkind: WorkloadEntry\n\
         metadata: {{name: \"{name}\", namespace: \"{namespace}\"}}\nspec: {{{spec}}}\n---\n"
    )
}

fn rule(name: &str, namespace: &str, spec: &str) -> String {
    format!(
        "apiVersion: networking.istio.io/v1\nkind: DestinationRule\n\
         metadata: {{name: \"{name}\", namespace: \"{namespace}\"}}\nspec: {{{spec}}}\n---\n"
    )
}

fn host(text: &str) -> HostPattern {
    text.parse().unwrap()
}

const API: &str = "hosts: [api.example.com], ports: [{number: 443, name: https, protocol: HTTPS}]";

#[test]
fn a_resource_that_is_sent_again_unchanged_changes_nothing() {
    let text = service("a", "n", "");
    let (first, changes) = apply(&Snapshot::default(), batch(&text));
    let key = Key { kind: Kind::Service, name: ObjectName::new("n", "a") };
    assert_eq!(changes.added, BTreeSet::from([key.clone()]));
    let (second, changes) = apply(&first, batch(&text));
    assert!(changes.is_empty());
    assert!(Arc::ptr_eq(&first.index, &second.index));
    let changed = batch(&service("a", "n", ", clusterIP: 10.0.0.1"));
    assert_eq!(apply(&second, changed).1.changed, BTreeSet::from([key.clone()]));
    let removal = Batch { upserts: Vec::new(), removals: vec![key.clone()] };
    let (third, changes) = apply(&second, removal);
    assert_eq!(changes.removed, BTreeSet::from([key]));
    assert_eq!((third.resources().count(), second.resources().count()), (0, 1));
}

#[test]
fn entries_of_one_host_and_namespace_are_one_service() {
    let more = "endpoints: [{address: 127.0.0.5, ports: {https: 9443}}]";
    let snapshot = snapshot(
        &(entry("a", "n", &format!("{API}, resolution: DNS"))
            + &entry("b", "n", &format!("{API}, resolution: DNS, {more}"))
            + &entry("c", "n", &format!("{API}, resolution: STATIC, {more}"))),
    );
    let service = snapshot.service(&host("api.example.com"), "elsewhere").unwrap();
    assert_eq!((&*service.object.name, service.ports.len()), ("a", 1));
    let endpoints = snapshot.endpoints(service, &service.ports[0]);
    let address = EndpointAddress::Ip("127.0.0.5".parse().unwrap());
    assert_eq!((endpoints.len(), &endpoints[0].address, endpoints[0].port), (1, &address, 9443));
}

#[test]
fn a_name_without_endpoints_stands_for_itself() {
    let snapshot = snapshot(&entry("a", "n", &format!("{API}, resolution: DNS")));
    let service = snapshot.service(&host("api.example.com"), "n").unwrap();
    let endpoints = snapshot.endpoints(service, &service.ports[0]);
    assert_eq!(endpoints[0].address, EndpointAddress::Dns("api.example.com".to_owned()));
    assert_eq!(endpoints[0].port, 443);
}

#[test]
fn a_service_has_the_workloads_that_it_selects() {
    let snapshot = snapshot(
        &(service("a", "n", ", selector: {app: a}")
            + &workload("one", "n", "address: 10.0.0.1, labels: {app: a}, serviceAccount: me")
            + &workload("two", "n", "address: 10.0.0.2, labels: {app: a}, ports: {http: 81}")
            + &workload("other", "n", "address: 10.0.0.3, labels: {app: b}")
            + &workload("abroad", "m", "address: 10.0.0.4, labels: {app: a}")),
    );
    let service = snapshot.service(&host("a.n.svc.cluster.local"), "m").unwrap();
    let found: Vec<_> = snapshot
        .endpoints(service, &service.ports[0])
        .iter()
        .map(|endpoint| (endpoint.port, endpoint.account.clone()))
        .collect();
    assert_eq!(found, [(8080, Some(("n".into(), "me".to_owned()))), (81, None)]);
    assert!(service.auto_address.is_some());
}

#[test]
fn a_viewer_sees_its_own_then_the_platforms_then_the_oldest() {
    let own = "hosts: [a.m.svc.cluster.local], ports: [{number: 80, name: http, protocol: HTTP}]";
    let snapshot = snapshot(
        &(service("a", "m", "")
            + &entry("x", "x", own)
            + &entry("y", "y", &format!("{own}, exportTo: [\".\"]"))),
    );
    let check = |viewer: &str, expected: &str| {
        let service = snapshot.service(&host("a.m.svc.cluster.local"), viewer).unwrap();
        assert_eq!(service.namespace(), expected, "{viewer}");
    };
    check("x", "x");
    check("y", "y");
    check("m", "m");
    check("z", "m");
}

#[test]
fn a_rule_is_looked_for_at_home_then_with_the_service_then_in_the_root_namespace() {
    let base = entry("api", "service", &format!("{API}, resolution: DNS"));
    let spec = "host: api.example.com";
    let check = |rules: &[(&str, &str)], client: &str, expected: Option<&str>| {
        let rules: String = rules
            .iter()
            .map(|(namespace, more)| rule("r", namespace, &format!("{spec}{more}")))
            .collect();
        let snapshot = snapshot(&(base.clone() + &rules));
        let service = snapshot.service(&host("api.example.com"), client).unwrap();
        let found = snapshot.rule(client, &Labels::new(), service);
        assert_eq!(found.map(|rule| &*rule.object.namespace), expected, "{rules}");
    };
    let all = [("client", ""), ("service", ""), ("istio-system", "")];
    check(&all, "client", Some("client"));
    check(&all[1..], "client", Some("service"));
    check(&all[2..], "client", Some("istio-system"));
    check(&[("elsewhere", "")], "client", None);
    check(&[("service", ", exportTo: [\".\"]")], "client", None);
    check(&[("service", ", exportTo: [client]")], "client", Some("service"));
    check(&all, "istio-system", Some("service"));
    check(&[("service", ", workloadSelector: {matchLabels: {a: b}}")], "client", None);
}

#[test]
fn an_exact_host_comes_before_a_wildcard() {
    let snapshot = snapshot(
        &(entry("api", "n", &format!("{API}, resolution: DNS"))
            + &rule("wide", "n", "host: \"*.example.com\"")
            + &rule("exact", "n", "host: api.example.com")),
    );
    let service = snapshot.service(&host("api.example.com"), "n").unwrap();
    let found = snapshot.rule("n", &Labels::new(), service).unwrap();
    assert_eq!(&*found.object.name, "exact");
}

#[test]
fn settings_of_a_port_replace_all_sections_and_inherit_none() {
    let snapshot = snapshot(
        &(entry("api", "n", &format!("{API}, resolution: DNS"))
            + &rule(
                "r",
                "n",
                "host: api.example.com, trafficPolicy: {loadBalancer: {simple: RANDOM}, \
                 tls: {mode: SIMPLE}, portLevelSettings: [{port: {number: 443}, tls: {mode: DISABLE}}]}, \
                 subsets: [{name: s, trafficPolicy: {loadBalancer: {simple: ROUND_ROBIN}}}]",
            )),
    );
    let service = snapshot.service(&host("api.example.com"), "n").unwrap();
    let rule = snapshot.rule("n", &Labels::new(), service).unwrap();
    let check = |subset: &str, port: u16, balance: Option<SimpleLb>, mode: ClientTlsMode| {
        let policy = rule.policy(rule.subset(subset), port);
        assert_eq!(policy.load_balancer.map(|one| one.simple), balance, "{subset} {port}");
        assert_eq!(policy.tls.unwrap().mode, mode, "{subset} {port}");
    };
    check("", 80, Some(SimpleLb::Random), ClientTlsMode::Simple);
    check("", 443, None, ClientTlsMode::Disable);
    check("s", 80, Some(SimpleLb::RoundRobin), ClientTlsMode::Simple);
    check("s", 443, Some(SimpleLb::RoundRobin), ClientTlsMode::Disable);
}

#[test]
fn filters_come_by_priority_then_from_the_root_namespace_then_by_name() {
    let filter = |name: &str, namespace: &str, spec: &str| {
        format!(
            "apiVersion: networking.istio.io/v1alpha3\nkind: EnvoyFilter\n\
             metadata: {{name: \"{name}\", namespace: \"{namespace}\"}}\nspec: {{{spec}configPatches: []}}\n---\n"
        )
    };
    let snapshot = snapshot(
        &(filter("b", "n", "")
            + &filter("a", "n", "")
            + &filter("z", "istio-system", "")
            + &filter("late", "istio-system", "priority: 1, ")
            + &filter("early", "n", "priority: -1, ")
            + &filter("abroad", "m", "")
            + &filter("selective", "n", "workloadSelector: {labels: {app: x}}, ")),
    );
    let names: Vec<_> = snapshot
        .envoy_filters("n", &Labels::new())
        .map(|owned| owned.meta().name.name.to_string())
        .collect();
    assert_eq!(names, ["early", "z", "a", "b", "late"]);
}
