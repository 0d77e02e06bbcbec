//! NetworkPolicies against small worlds.

use super::*;

/// Three namespaces; `shop/cart` and `shop/db`, `ops/probe`, the gateway.
const WORLD: &str = "
{apiVersion: v1, kind: Namespace, metadata: {name: shop, labels: {team: a}}}
---
{apiVersion: v1, kind: Namespace, metadata: {name: istio-system, labels: {istio: system}}}
---
apiVersion: v1
kind: Pod
metadata: {name: cart, namespace: shop, labels: {app: cart}}
spec: {containers: [{name: c, ports: [{name: web, containerPort: 8080}]}]}
status: {podIP: 10.0.0.1}
---
apiVersion: v1
kind: Pod
metadata: {name: db, namespace: shop, labels: {app: db}}
spec: {containers: [{name: c, ports: [{name: sql, containerPort: 5432}]}]}
status: {podIP: 10.0.0.2}
---
apiVersion: networking.istio.io/v1
kind: WorkloadEntry
metadata: {name: probe, namespace: ops}
spec: {address: 10.0.0.3, labels: {app: probe}}
---
apiVersion: networking.istio.io/v1
kind: WorkloadEntry
metadata: {name: gateway, namespace: istio-system, annotations: {sluis.dev/run: gateway}}
spec: {address: 10.0.0.9, labels: {istio: egressgateway}}
";

fn isolation(policies: &str) -> Isolation {
    let parsed = sluis_resources::parse("world.yaml", &format!("{WORLD}---\n{policies}"));
    let errors: Vec<_> = parsed.faults.iter().filter(|fault| fault.is_error()).collect();
    assert!(errors.is_empty(), "{errors:?}");
    isolate(&parsed.resources)
}

fn policy(namespace: &str, spec: &str) -> String {
    format!(
        "apiVersion: networking.k8s.io/v1\nkind: NetworkPolicy\n\
         metadata: {{name: p, namespace: {namespace}}}\nspec: {spec}\n"
    )
}

/// A direction of one workload, as text: `addresses:ports`, `!` before exceptions, `*` for all.
fn told(allowed: Option<&Vec<Allowed>>) -> String {
    let Some(allowed) = allowed else { return "not isolated".to_owned() };
    let of = |one: &Allowed| {
        let ranges = one.ranges.as_ref().map_or("*".to_owned(), |ranges| {
            let range = |one: &Range| {
                let except: String = one.except.iter().map(|part| format!("!{part}")).collect();
                format!("{}{except}", one.range)
            };
            ranges.iter().map(range).collect::<Vec<_>>().join(",")
        });
        let ports = one.ports.as_ref().map_or("*".to_owned(), |ports| {
            let port =
                |one: &PortRange| format!("{:?} {}-{}", one.protocol, one.ports.0, one.ports.1);
            ports.iter().map(port).collect::<Vec<_>>().join(",")
        });
        format!("{ranges}:{ports}")
    };
    allowed.iter().map(of).collect::<Vec<_>>().join("; ")
}

#[track_caller]
fn check(policies: &str, workload: &str, egress: &str, ingress: &str) {
    let isolation = isolation(policies);
    assert_eq!(isolation.faults, []);
    let found = isolation.workloads.iter().find(|one| one.name.to_string() == workload).unwrap();
    assert_eq!(told(found.egress.as_ref()), egress, "egress of {workload}");
    assert_eq!(told(found.ingress.as_ref()), ingress, "ingress of {workload}");
}

#[test]
fn without_a_policy_nobody_is_isolated() {
    check("", "shop/cart", "not isolated", "not isolated");
    let gateways: Vec<bool> = isolation("").workloads.iter().map(|one| one.is_gateway).collect();
    assert_eq!(gateways, [true, false, false, false]);
}

#[test]
fn an_empty_policy_closes_what_its_types_name() {
    check(&policy("shop", "{podSelector: {}}"), "shop/cart", "not isolated", "");
    let out = "{podSelector: {}, policyTypes: [Egress]}";
    check(&policy("shop", out), "shop/db", "", "not isolated");
    check(&policy("shop", out), "ops/probe", "not isolated", "not isolated");
    let both = "{podSelector: {matchLabels: {app: db}}, policyTypes: [Ingress, Egress]}";
    check(&policy("shop", both), "shop/db", "", "");
    check(&policy("shop", both), "shop/cart", "not isolated", "not isolated");
    // Without policyTypes, egress rules make it a policy of both.
    check(&policy("shop", "{podSelector: {}, egress: [{}]}"), "shop/db", "*:*", "");
}

#[test]
fn the_articles_policy_lets_out_to_the_gateways_namespace_and_its_own() {
    let spec = "
  podSelector: {}
  policyTypes: [Egress]
  egress:
  - to: [{namespaceSelector: {matchLabels: {kube-system: \"true\"}}}]
    ports: [{protocol: UDP, port: 53}]
  - to: [{namespaceSelector: {matchLabels: {istio: system}}}]
  - to: [{namespaceSelector: {matchLabels: {team: a}}}]
";
    let egress = ":Udp 53-53; 10.0.0.9:*; 10.0.0.1,10.0.0.2:*";
    check(&policy("shop", spec), "shop/cart", egress, "not isolated");
}

#[test]
fn peers_are_chosen_by_both_selectors_or_by_addresses() {
    let from = |peers: &str| {
        policy("shop", &format!("{{podSelector: {{}}, ingress: [{{from: [{peers}]}}]}}"))
    };
    let check = |peers: &str, expected: &str| {
        check(&from(peers), "shop/db", "not isolated", expected);
    };
    check("{podSelector: {matchLabels: {app: cart}}}", "10.0.0.1:*");
    check("{podSelector: {matchLabels: {app: probe}}}", ":*");
    check("{namespaceSelector: {}, podSelector: {matchLabels: {app: probe}}}", "10.0.0.3:*");
    check(
        "{namespaceSelector: {matchExpressions: [{key: kubernetes.io/metadata.name, operator: In, values: [ops]}]}}",
        "10.0.0.3:*",
    );
    check("{ipBlock: {cidr: 10.0.0.0/8, except: [10.1.0.0/16]}}", "10.0.0.0/8!10.1.0.0/16:*");
}

#[test]
fn ports_have_numbers_ends_and_names() {
    let to = |ports: &str| {
        policy(
            "shop",
            &format!(
                "{{podSelector: {{}}, policyTypes: [Egress], egress: [{{to: [{{podSelector: {{}}}}], ports: [{ports}]}}]}}"
            ),
        )
    };
    check(
        &to("{port: 80, endPort: 90}"),
        "shop/cart",
        "10.0.0.1,10.0.0.2:Tcp 80-90",
        "not isolated",
    );
    check(&to("{protocol: SCTP}"), "shop/cart", "10.0.0.1,10.0.0.2:Sctp 0-65535", "not isolated");
    check(&to("{port: sql}"), "shop/cart", "10.0.0.2:Tcp 5432-5432", "not isolated");
    let own = "{podSelector: {}, ingress: [{ports: [{port: web}]}]}";
    check(&policy("shop", own), "shop/cart", "not isolated", "*:Tcp 8080-8080");
    check(&policy("shop", own), "shop/db", "not isolated", "");
}

#[test]
fn a_name_that_belongs_to_no_workload_is_a_fault_and_allows_nothing() {
    let spec = "{podSelector: {}, policyTypes: [Egress], egress: [{ports: [{port: sql}]}]}";
    let isolation = isolation(&policy("shop", spec));
    assert_eq!(isolation.faults.len(), 1, "{:?}", isolation.faults);
    let cart = isolation.workloads.iter().find(|one| &*one.name.name == "cart").unwrap();
    assert_eq!(told(cart.egress.as_ref()), "");
}

#[test]
fn what_kubernetes_would_refuse_is_refused_by_name() {
    #[track_caller]
    fn check(spec: &str, expected: &str) {
        let parsed = sluis_resources::parse("p.yaml", &policy("shop", spec));
        let text: Vec<String> = parsed
            .faults
            .iter()
            .filter(|fault| fault.is_error())
            .map(ToString::to_string)
            .collect();
        assert!(text.join("\n").contains(expected), "{expected} in {text:?}");
        assert!(parsed.resources.is_empty());
    }
    check("{podSelector: {}, ingress: [{from: [{}]}]}", "spec.ingress[0].from[0]");
    check(
        "{podSelector: {}, ingress: [{from: [{ipBlock: {cidr: 10.0.0.0/8}, podSelector: {}}]}]}",
        "ipBlock",
    );
    check(
        "{podSelector: {}, ingress: [{from: [{ipBlock: {cidr: 10.0.0.0/8, except: [11.0.0.0/16]}}]}]}",
        "11.0.0.0/16",
    );
    check("{podSelector: {}, ingress: [{ports: [{port: 90, endPort: 80}]}]}", "endPort");
    check("{podSelector: {}, ingress: [{ports: [{port: web, endPort: 80}]}]}", "endPort");
    check("{podSelector: {}, ingress: [{ports: [{port: 80, protocol: ICMP}]}]}", "ICMP");
    check("{podSelector: {}, policyTypes: [Both]}", "policyTypes[0]");
    check("{podSelector: {}, egrees: []}", "egrees");
}
