//! Values of credentials: who is sent them, and what else a change of them changes.

use std::collections::BTreeMap;

use envoy_types::pb::envoy::config::core::v3::Node;
use sluis_envoy::Kind;
use sluis_model::{Age, Batch, held_key, held_values};
use sluis_nouns::ObjectName;
use sluis_resources::SecretValue;
use sluis_xds::{Action, Ask, Connection, Dialect, Directory, Event, Names, Peer, Session};

use super::{
    tests::{batch, node},
    *,
};

/// A gateway of `egress` that leads to the credential's host; one of `other` that does too; and a
/// sidecar in `egress` itself.
const MESH: &str = r#"
apiVersion: networking.istio.io/v1
kind: WorkloadEntry
metadata: {name: gateway, namespace: egress, labels: {istio: out}, annotations: {sluis.dev/run: gateway}}
spec: {address: 127.0.0.3, serviceAccount: gateway}
---
apiVersion: networking.istio.io/v1
kind: WorkloadEntry
metadata: {name: gateway, namespace: other, labels: {istio: out}, annotations: {sluis.dev/run: gateway}}
spec: {address: 127.0.0.4, serviceAccount: gateway}
---
apiVersion: networking.istio.io/v1
kind: WorkloadEntry
metadata: {name: app, namespace: egress, labels: {istio: out}, annotations: {sluis.dev/run: sidecar}}
spec: {address: 127.0.0.2, serviceAccount: app}
---
apiVersion: networking.istio.io/v1
kind: ServiceEntry
metadata: {name: api, namespace: egress}
spec:
  hosts: [api.example.com]
  location: MESH_EXTERNAL
  ports: [{number: 443, name: https, protocol: HTTPS}]
  resolution: DNS
---
apiVersion: networking.istio.io/v1
kind: DestinationRule
metadata: {name: api, namespace: egress}
spec:
  host: api.example.com
  trafficPolicy: {tls: {mode: SIMPLE}}
---
apiVersion: networking.istio.io/v1
kind: Gateway
metadata: {name: out, namespace: egress}
spec:
  selector: {istio: out}
  servers: [{port: {number: 80, name: http, protocol: HTTP}, hosts: [api.example.com]}]
---
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: api, namespace: egress}
spec:
  hosts: [api.example.com]
  gateways: [egress/out]
  http: [{route: [{destination: {host: api.example.com, port: {number: 443}}}]}]
---
apiVersion: egress.sluis.dev/v1alpha1
kind: Credential
metadata: {name: api, namespace: egress}
spec:
  source: {env: {value: API_KEY}}
  inject: {header: {name: X-Api-Key}}
  guard: {hosts: [api.example.com]}
---
apiVersion: egress.sluis.dev/v1alpha1
kind: CredentialGrant
metadata: {name: all, namespace: egress}
spec:
  credential: api
  from: [{principals: ["cluster.local/ns/egress/sa/app"]}]
  to: [{hosts: [api.example.com]}]
"#;

const NAME: &str = "credential://egress/api";
const PREVIOUS: &str = "credential://egress/api#previous";

fn values(age: Age, value: &str) -> Batch {
    let data = BTreeMap::from([
        ("value".to_owned(), SecretValue::new(value)),
        ("@version".to_owned(), SecretValue::new("1")),
    ]);
    let upserts = vec![held_values(&ObjectName::new("egress", "api"), age, data)];
    Batch { upserts, removals: vec![] }
}

fn mesh() -> Control {
    let control = Control::new(TrustDomain::default());
    control.apply(batch(MESH));
    control.apply(values(Age::Current, "s3cret-one"));
    control
}

/// Our own proxy, which has the filter for credentials, as its node says.
fn proxy(namespace: &str, name: &str, role: &str, address: &str) -> Node {
    let id = format!("{role}~{address}~{name}.{namespace}~{namespace}.svc.cluster.local");
    let mut node = node(&id, &[("NAMESPACE", namespace), ("WORKLOAD_NAME", name)]);
    let filter = sluis_envoy::credentials::CREDENTIALS_FILTER.to_owned();
    node.extensions.push(envoy_types::pb::envoy::config::core::v3::Extension {
        name: filter,
        category: "envoy.filters.http.upstream".to_owned(),
        ..Default::default()
    });
    node
}

fn connect(
    control: &Control,
    namespace: &str,
    name: &str,
    role: &str,
    address: &str,
) -> Connection {
    let id = format!("spiffe://cluster.local/ns/{namespace}/sa/{name}");
    let peer = Peer::Verified(id.parse().unwrap());
    control.connect(&peer, &proxy(namespace, name, role, address)).unwrap()
}

/// The names of the secrets that a proxy is sent that asks for these.
fn sent(connection: &Connection, names: &[&str]) -> Vec<String> {
    let set = Arc::clone(&connection.sets.borrow());
    let mut session = Session::new(Dialect::Delta, set);
    let subscribe = names.iter().map(|name| (*name).to_owned()).collect();
    let names = Names::Change { subscribe, unsubscribe: vec![], held: Default::default() };
    let ask = Ask { kind: Kind::Secret, nonce: String::new(), error: None, names };
    let actions = session.on(Event::Ask(ask)).into_iter();
    let upserts = actions.filter_map(|action| match action {
        Action::Send(response) => Some(response.upserts),
        _ => None,
    });
    upserts.flatten().map(|resource| resource.name.clone()).collect()
}

fn versions(connection: &Connection, kind: Kind) -> Vec<(String, String)> {
    let set = connection.sets.borrow();
    set.of(kind).map(|one| (one.name.clone(), one.version.to_string())).collect()
}

#[test]
fn the_gateway_that_leads_to_the_host_is_sent_the_values_and_nobody_else_is() {
    let control = mesh();
    control.apply(values(Age::Previous, "s3cret-zero"));
    let own = connect(&control, "egress", "gateway", "router", "127.0.0.3");
    let all = [NAME, PREVIOUS, "*"];
    assert_eq!(sent(&own, &all), [NAME, PREVIOUS], "so there is something to steal");
    let other_gateway = connect(&control, "other", "gateway", "router", "127.0.0.4");
    let sidecar = connect(&control, "egress", "app", "sidecar", "127.0.0.2");
    let local = proxy("egress", "gateway", "router", "127.0.0.3");
    let unproven = control.connect(&Peer::Local, &local).unwrap();
    for (who, thief) in
        [("other gateway", &other_gateway), ("sidecar", &sidecar), ("without TLS", &unproven)]
    {
        for name in [
            NAME,
            PREVIOUS,
            "credential://egress/api?value=value",
            "kubernetes://credential:api",
            "kubernetes://egress/credential:api",
            "kubernetes-gateway://egress/credential:api",
            "credential://other/../egress/api",
            "*",
        ] {
            assert_eq!(sent(thief, &[name]), [""; 0], "{who} asks for {name}");
        }
        let set = thief.sets.borrow();
        for kind in Kind::ALL {
            for resource in set.of(kind) {
                let holds = resource.body.value.windows(6).any(|bytes| bytes == b"s3cret");
                assert!(!holds, "{who} has it in {kind} {}", resource.name);
            }
        }
    }
}

#[test]
fn a_change_of_values_is_one_of_secrets_and_of_gateways_alone() {
    let control = mesh();
    let mut gateway = connect(&control, "egress", "gateway", "router", "127.0.0.3");
    let mut sidecar = connect(&control, "egress", "app", "sidecar", "127.0.0.2");
    let before: Vec<_> = Kind::ALL.map(|kind| (kind, versions(&gateway, kind))).into();
    gateway.sets.borrow_and_update();
    sidecar.sets.borrow_and_update();
    control.apply(values(Age::Current, "s3cret-two"));
    assert!(gateway.sets.has_changed().unwrap());
    assert!(!sidecar.sets.has_changed().unwrap(), "a sidecar is told nothing");
    for (kind, known) in before {
        let is_same = versions(&gateway, kind) == known;
        assert_eq!(is_same, kind != Kind::Secret, "{kind}");
    }
}

#[test]
fn values_that_are_withdrawn_are_taken_from_the_gateway() {
    let control = mesh();
    let gateway = connect(&control, "egress", "gateway", "router", "127.0.0.3");
    assert_eq!(sent(&gateway, &[NAME]), [NAME]);
    let removals = vec![held_key(&ObjectName::new("egress", "api"), Age::Current)];
    control.apply(Batch { upserts: vec![], removals });
    assert_eq!(sent(&gateway, &[NAME]), [""; 0]);
    control.apply(values(Age::Current, "s3cret-one"));
    assert_eq!(sent(&gateway, &[NAME]), [NAME], "and given back");
}
