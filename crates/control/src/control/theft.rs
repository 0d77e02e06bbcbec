//! A compromised proxy with a good certificate of its own tries to get what is others'.

use envoy_types::pb::envoy::config::core::v3::Node;
use sluis_envoy::Kind;
use sluis_xds::{Action, Ask, Connection, Dialect, Directory, Event, Names, Refusal, Session};

use super::{
    tests::{batch, node},
    *,
};

/// A gateway of `egress` with a secret, and a workload of `a` that nothing entitles to it.
const MESH: &str = r#"
apiVersion: networking.istio.io/v1
kind: WorkloadEntry
metadata:
  name: gateway
  namespace: egress
  labels: {istio: egressgateway}
  annotations: {sluis.dev/run: gateway}
spec: {address: 127.0.0.3, serviceAccount: gateway}
---
apiVersion: networking.istio.io/v1
kind: WorkloadEntry
metadata:
  name: app
  namespace: a
  labels: {app: app}
  annotations: {sluis.dev/run: sidecar}
spec: {address: 127.0.0.2, serviceAccount: app}
---
apiVersion: networking.istio.io/v1
kind: WorkloadEntry
metadata:
  name: free
  namespace: a
  labels: {app: free}
spec: {address: 127.0.0.4, serviceAccount: free}
---
apiVersion: networking.istio.io/v1
kind: Gateway
metadata: {name: out, namespace: egress}
spec:
  selector: {istio: egressgateway}
  servers:
    - port: {number: 443, name: https, protocol: HTTPS}
      hosts: [api.example.com]
      tls: {mode: SIMPLE, credentialName: pair}
---
apiVersion: v1
kind: Secret
metadata: {name: pair, namespace: egress}
type: kubernetes.io/tls
stringData:
  tls.crt: "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"
  tls.key: "-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n"
"#;

const APP: &str = "spiffe://cluster.local/ns/a/sa/app";
const GATEWAY: &str = "spiffe://cluster.local/ns/egress/sa/gateway";

fn mesh() -> Control {
    let control = Control::new(TrustDomain::default());
    control.apply(batch(MESH));
    control
}

fn peer(id: &str) -> Peer {
    Peer::Verified(id.parse().unwrap())
}

fn app(id: &str, more: &[(&str, &str)]) -> Node {
    let own = [("NAMESPACE", "a"), ("WORKLOAD_NAME", "app")];
    node(id, &[&own[..], more].concat())
}

const APP_NODE: &str = "sidecar~127.0.0.2~app.a~a.svc.cluster.local";

/// What a proxy is sent that asks for everything of a kind, and for these by name.
fn sent(connection: &Connection, dialect: Dialect, kind: Kind, names: &[&str]) -> Vec<String> {
    let set = Arc::clone(&connection.sets.borrow());
    let mut session = Session::new(dialect, set);
    let all = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>();
    let names = match dialect {
        Dialect::Sotw => Names::All(all(names)),
        Dialect::Delta => {
            Names::Change { subscribe: all(names), unsubscribe: vec![], held: Default::default() }
        }
    };
    let ask = Ask { kind, nonce: String::new(), error: None, names };
    let actions = session.on(Event::Ask(ask));
    let upserts = actions.into_iter().filter_map(|action| match action {
        Action::Send(response) => Some(response.upserts),
        _ => None,
    });
    upserts.flatten().map(|resource| resource.name.clone()).collect()
}

const DIALECTS: [Dialect; 2] = [Dialect::Sotw, Dialect::Delta];

#[test]
fn a_gateway_gets_the_secret_of_its_role_and_a_sidecar_that_asks_for_it_gets_none() {
    let control = mesh();
    let gateway = [("NAMESPACE", "egress"), ("WORKLOAD_NAME", "gateway")];
    let id = "router~127.0.0.3~gateway.egress~egress.svc.cluster.local";
    let own = control.connect(&peer(GATEWAY), &node(id, &gateway)).unwrap();
    let thief = control.connect(&peer(APP), &app(APP_NODE, &[])).unwrap();
    for dialect in DIALECTS {
        let given = sent(&own, dialect, Kind::Secret, &["kubernetes://pair"]);
        assert_eq!(given, ["kubernetes://pair"], "so there is something to steal");
        for name in [
            "kubernetes://pair",
            "kubernetes://egress/pair",
            "kubernetes-gateway://egress/pair",
            "kubernetes://egress/pair-cacert",
            "kubernetes://a/../egress/pair",
            "kubernetes://pair.egress",
            "default",
            "file-cert:/etc/ssl/cert.pem~/etc/ssl/key.pem",
            "*",
        ] {
            assert_eq!(sent(&thief, dialect, Kind::Secret, &[name]), [""; 0], "{name}");
        }
    }
}

#[test]
fn a_sidecar_that_asks_for_a_gateways_listeners_by_name_or_for_all_gets_its_own() {
    let control = mesh();
    let gateway = [("NAMESPACE", "egress"), ("WORKLOAD_NAME", "gateway")];
    let id = "router~127.0.0.3~gateway.egress~egress.svc.cluster.local";
    let theirs = control.connect(&peer(GATEWAY), &node(id, &gateway)).unwrap();
    let thief = control.connect(&peer(APP), &app(APP_NODE, &[])).unwrap();
    for dialect in DIALECTS {
        let wanted = sent(&theirs, dialect, Kind::Listener, &[]);
        assert!(!wanted.is_empty());
        let names: Vec<&str> = wanted.iter().map(String::as_str).collect();
        assert_eq!(sent(&thief, dialect, Kind::Listener, &names), [""; 0]);
        let own = sent(&thief, dialect, Kind::Listener, &[]);
        assert!(own.iter().all(|name| !wanted.contains(name)), "{own:?}");
    }
}

#[test]
fn what_is_asked_for_in_vain_is_counted() {
    let control = mesh();
    let thief = control.connect(&peer(APP), &app(APP_NODE, &[])).unwrap();
    control.absent(thief.key, Kind::Secret, &["kubernetes://egress/pair".to_owned()]);
    assert_eq!(control.metrics().absent_of(Kind::Secret), 1);
    let mut text = crate::Exposition::default();
    control.expose(&mut text);
    let text = text.into_text();
    assert!(text.contains("sluis_xds_absent_total{type=\"sds\"} 1"), "{text}");
}

#[test]
fn a_proxy_that_claims_to_be_another_is_refused() {
    let control = mesh();
    let check = |id: &str, proved: &str, metadata: &[(&str, &str)], why: &str| {
        let refused = control.connect(&peer(proved), &node(id, metadata)).unwrap_err();
        assert!(
            matches!(&refused, Refusal::Forbidden(found) if found.contains(why)),
            "{refused:?}"
        );
    };
    let own = [("NAMESPACE", "a"), ("WORKLOAD_NAME", "app")];
    let theirs = [("NAMESPACE", "egress"), ("WORKLOAD_NAME", "gateway")];
    let with = |more| [&own[..], &[more]].concat();
    for (what, id, metadata, why) in [
        (
            "the gateway's name",
            "router~127.0.0.3~gateway.egress~egress.svc.cluster.local",
            theirs.to_vec(),
            "is not spiffe",
        ),
        ("its own id, the gateway's name", APP_NODE, theirs.to_vec(), "is not spiffe"),
        (
            "the gateway's account",
            APP_NODE,
            with(("SERVICE_ACCOUNT", "gateway")),
            "SERVICE_ACCOUNT",
        ),
        (
            "another namespace in the id",
            "sidecar~127.0.0.2~app.egress~a.svc.cluster.local",
            own.to_vec(),
            r#"namespace "egress""#,
        ),
        (
            "another namespace in the domain",
            "sidecar~127.0.0.2~app.a~egress.svc.cluster.local",
            own.to_vec(),
            r#"namespace "egress""#,
        ),
        (
            "a gateway's role",
            "router~127.0.0.2~app.a~a.svc.cluster.local",
            own.to_vec(),
            "is a gateway's",
        ),
        (
            "another of its own namespace",
            APP_NODE,
            vec![("NAMESPACE", "a"), ("WORKLOAD_NAME", "free")],
            "is not spiffe",
        ),
    ] {
        assert!(!what.is_empty());
        check(id, APP, &metadata, why);
    }
    check(APP_NODE, "spiffe://other.domain/ns/a/sa/app", &own, "is not spiffe");
}

#[test]
fn labels_and_addresses_that_a_proxy_claims_do_not_count() {
    let control = mesh();
    let labels =
        [("LABELS", "istio=egressgateway"), ("INSTANCE_IPS", "127.0.0.2,127.0.0.3,10.9.9.9")];
    let connection = control.connect(&peer(APP), &app(APP_NODE, &labels)).unwrap();
    let client = control.clients().pop().unwrap();
    assert_eq!(client.view.labels.get("app"), Some("app"));
    assert_eq!(client.view.labels.get("istio"), None);
    let ips: Vec<String> = client.view.node.instance_ips.iter().map(ToString::to_string).collect();
    assert_eq!(ips, ["127.0.0.2", "10.9.9.9"], "the gateway's address is cut");
    assert_eq!(sent(&connection, Dialect::Delta, Kind::Secret, &["*"]), [""; 0]);
    // A workload without a role of its own may be a gateway, with its own labels: none selects it.
    let free = [("NAMESPACE", "a"), ("WORKLOAD_NAME", "free"), ("LABELS", "istio=egressgateway")];
    let id = "router~127.0.0.4~free.a~a.svc.cluster.local";
    let proved = "spiffe://cluster.local/ns/a/sa/free";
    let connection = control.connect(&peer(proved), &node(id, &free)).unwrap();
    for kind in [Kind::Secret, Kind::Listener] {
        assert_eq!(sent(&connection, Dialect::Delta, kind, &["*"]), [""; 0], "{kind}");
    }
}

#[test]
fn a_proxy_of_an_alias_of_the_trust_domain_is_the_same_workload() {
    let control = mesh();
    let old = peer("spiffe://old.domain/ns/a/sa/app");
    let refused = control.connect(&old, &app(APP_NODE, &[])).unwrap_err();
    assert!(matches!(refused, Refusal::Forbidden(_)));
    control.apply(batch(
        "
apiVersion: v1
kind: ConfigMap
metadata: {name: istio, namespace: istio-system}
data:
  mesh: |
    trustDomainAliases: [old.domain]
",
    ));
    assert!(control.connect(&old, &app(APP_NODE, &[])).is_ok());
    let other = peer("spiffe://old.domain/ns/egress/sa/gateway");
    assert!(control.connect(&other, &app(APP_NODE, &[])).is_err());
}

#[test]
fn who_proved_nothing_gets_no_private_key_even_by_claiming_to_be_the_gateway() {
    let control = mesh();
    let gateway = [("NAMESPACE", "egress"), ("WORKLOAD_NAME", "gateway")];
    let id = "router~127.0.0.3~gateway.egress~egress.svc.cluster.local";
    let connection = control.connect(&Peer::Local, &node(id, &gateway)).unwrap();
    for dialect in DIALECTS {
        assert_eq!(sent(&connection, dialect, Kind::Secret, &["kubernetes://pair"]), [""; 0]);
    }
}

#[test]
fn no_gateway_gets_the_meshs_own_authority() {
    let mesh = MESH.replace("namespace: egress", "namespace: istio-system");
    for name in ["pair", "cacerts"] {
        let control = Control::new(TrustDomain::default());
        let mesh = mesh.replace("name: pair", &format!("name: {name}"));
        control.apply(batch(
            &mesh.replace("credentialName: pair", &format!("credentialName: {name}")),
        ));
        let own = [("NAMESPACE", "istio-system"), ("WORKLOAD_NAME", "gateway")];
        let id = "router~127.0.0.3~gateway.istio-system~istio-system.svc.cluster.local";
        let proved = peer("spiffe://cluster.local/ns/istio-system/sa/gateway");
        let connection = control.connect(&proved, &node(id, &own)).unwrap();
        let secret = format!("kubernetes://{name}");
        let given = sent(&connection, Dialect::Delta, Kind::Secret, &[&secret]);
        assert_eq!(given.len(), usize::from(name == "pair"), "{name}: {given:?}");
    }
}
