//! Which Sidecar holds, and what it shows.

use super::*;
use crate::{Batch, apply};

const SERVICES: &str = "
apiVersion: networking.istio.io/v1
kind: ServiceEntry
metadata: {name: a, namespace: one}
spec:
  hosts: [a.example.com]
  ports: [{number: 80, name: http, protocol: HTTP}, {number: 443, name: tls, protocol: TLS}]
  resolution: DNS
---
apiVersion: networking.istio.io/v1
kind: ServiceEntry
metadata: {name: a, namespace: two}
spec: {hosts: [a.example.com], ports: [{number: 80, name: http, protocol: HTTP}], resolution: DNS}
---
apiVersion: networking.istio.io/v1
kind: ServiceEntry
metadata: {name: b, namespace: two}
spec: {hosts: [b.example.com], ports: [{number: 80, name: http, protocol: HTTP}], resolution: DNS}
---
apiVersion: networking.istio.io/v1
kind: ServiceEntry
metadata: {name: hidden, namespace: two}
spec:
  hosts: [hidden.example.com]
  exportTo: ['.']
  ports: [{number: 80, name: http, protocol: HTTP}]
  resolution: DNS
---
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: to-b, namespace: one}
spec:
  hosts: [a.example.com]
  http: [{route: [{destination: {host: b.example.com, port: {number: 80}}}]}]
---
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: wide, namespace: two}
spec:
  hosts: ['*.org']
  http: [{route: [{destination: {host: b.example.com}}]}]
";

fn snapshot(more: &str) -> Snapshot {
    let parsed = sluis_resources::parse("scope.yaml", &format!("{SERVICES}\n---\n{more}"));
    assert!(!parsed.has_errors(), "{:?}", parsed.faults);
    let batch = Batch { upserts: parsed.resources, removals: Vec::new() };
    apply(&Snapshot::default(), batch).0
}

fn sidecar(namespace: &str, name: &str, spec: &str) -> String {
    format!(
        "apiVersion: networking.istio.io/v1\nkind: Sidecar\nmetadata: {{name: {name}, namespace: \
         {namespace}}}\nspec: {spec}\n---\n"
    )
}

fn scope(snapshot: &Snapshot, namespace: &str, app: &str) -> Arc<Scope> {
    let labels: Labels = [("app", app)].into_iter().collect();
    snapshot.scope(&Arc::from(namespace), &labels)
}

fn shown(services: &[Arc<MeshService>]) -> Vec<String> {
    let show = |service: &Arc<MeshService>| {
        let ports: Vec<String> = service.ports.iter().map(|port| port.number.to_string()).collect();
        format!("{}/{}:{}", service.namespace(), service.host, ports.join(","))
    };
    services.iter().map(show).collect()
}

/// What the only egress listener of a Sidecar in namespace `one` shows.
#[track_caller]
fn check(hosts: &str, services: &[&str], virtual_services: &[&str], beyond: &[&str]) {
    let snapshot = snapshot(&sidecar("one", "s", &format!("{{egress: [{{hosts: {hosts}}}]}}")));
    let scope = scope(&snapshot, "one", "x");
    let [listener] = scope.listeners.as_slice() else { panic!("{:?}", scope.listeners) };
    assert_eq!(shown(&listener.services), services, "{hosts}");
    let names: Vec<String> =
        listener.virtual_services.iter().map(|owned| owned.meta().name.to_string()).collect();
    assert_eq!(names, virtual_services, "{hosts}");
    let all: Vec<Arc<MeshService>> = scope.services().cloned().collect();
    let expected: Vec<&str> = services.iter().chain(beyond).copied().collect();
    assert_eq!(shown(&all), expected, "{hosts}");
}

#[test]
fn an_import_shows_the_hosts_that_it_names() {
    check(
        "['*/*']",
        &["one/a.example.com:80,443", "two/b.example.com:80"],
        &["one/to-b", "two/wide"],
        &[],
    );
    check("['./*']", &["one/a.example.com:80,443"], &["one/to-b"], &["two/b.example.com:80"]);
    check("[two/*]", &["two/a.example.com:80", "two/b.example.com:80"], &["two/wide"], &[]);
    check("['*/b.example.com']", &["two/b.example.com:80"], &[], &[]);
    check("[two/x.org]", &[], &["two/wide"], &["two/b.example.com:80"]);
    check("['~/*']", &[], &[], &[]);
    check(
        "['*/*', '~two/b.example.com']",
        &["one/a.example.com:80,443"],
        &["one/to-b", "two/wide"],
        &["two/b.example.com:80"],
    );
}

#[test]
fn a_listener_with_a_port_shows_that_port_only() {
    let spec = "{egress: [{port: {number: 443, protocol: TLS, name: tls}, hosts: ['*/*']}, {hosts: \
                ['two/*']}]}";
    let snapshot = snapshot(&sidecar("one", "s", spec));
    let scope = scope(&snapshot, "one", "x");
    let [tls, rest] = scope.listeners.as_slice() else { panic!("{:?}", scope.listeners) };
    assert_eq!(shown(&tls.services), ["one/a.example.com:443"]);
    assert_eq!(shown(&rest.services), ["two/a.example.com:80", "two/b.example.com:80"]);
    assert!(tls.port.is_some() && rest.port.is_none());
}

#[test]
fn the_narrowest_sidecar_holds() {
    let all = sidecar(
        "one",
        "selects",
        "{workloadSelector: {labels: {app: x}}, egress: [{hosts: ['./*']}]}",
    ) + &sidecar("one", "wide", "{egress: [{hosts: ['*/*']}]}")
        + &sidecar("istio-system", "mesh", "{egress: [{hosts: ['./*']}]}")
        + &sidecar(
            "istio-system",
            "selects",
            "{workloadSelector: {labels: {app: x}}, egress: [{hosts: ['*/*']}]}",
        );
    let snapshot = snapshot(&all);
    let check = |namespace: &str, app: &str, expected: &str| {
        let scope = scope(&snapshot, namespace, app);
        let found = scope.sidecar.as_ref().unwrap().meta().name.to_string();
        assert_eq!(found, expected, "{namespace} {app}");
    };
    check("one", "x", "one/selects");
    check("one", "y", "one/wide");
    check("two", "x", "istio-system/mesh");
    let two = scope(&snapshot, "two", "x");
    let own = shown(&two.listeners[0].services);
    assert_eq!(own, ["two/a.example.com:80", "two/b.example.com:80", "two/hidden.example.com:80"]);
}

#[test]
fn proxies_of_one_namespace_and_sidecar_share_a_scope() {
    let snapshot = snapshot(&sidecar("one", "s", "{egress: [{hosts: ['./*']}]}"));
    assert!(Arc::ptr_eq(&scope(&snapshot, "one", "x"), &scope(&snapshot, "one", "y")));
    assert!(!Arc::ptr_eq(&scope(&snapshot, "one", "x"), &scope(&snapshot, "two", "x")));
}
