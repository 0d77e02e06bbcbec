//! Behaviour of the control plane: who is let in, what is pushed, what is shown.

use std::{collections::HashMap, future::pending};

use envoy_types::pb::{
    envoy::config::core::v3::Node,
    google::protobuf::{Struct, Value, value::Kind as ValueKind},
};
use sluis_envoy::Kind;
use sluis_resources::parse;
use sluis_translate::{Capture, Role};
use sluis_xds::{Connection, Directory, Refusal, Report};

use super::*;
use crate::Sync;

const WEB: &str = "
apiVersion: networking.istio.io/v1
kind: WorkloadEntry
metadata:
  name: web
  namespace: shop
  labels: {app: web}
  annotations: {sluis.dev/run: sidecar}
spec:
  address: 127.0.0.2
  serviceAccount: web
";

const ADDRESSES: &str = "
apiVersion: networking.istio.io/v1
kind: WorkloadEntry
metadata:
  name: elsewhere
  namespace: shop
spec:
  address: 127.0.0.9
  serviceAccount: elsewhere
";

const API: &str = "
apiVersion: networking.istio.io/v1
kind: ServiceEntry
metadata:
  name: api
  namespace: shop
spec:
  hosts: [api.example.com]
  ports: [{number: 443, name: tls, protocol: TLS}]
  resolution: DNS
";

#[track_caller]
pub(super) fn batch(yaml: &str) -> Batch {
    let parsed = parse("mesh.yaml", yaml);
    assert!(parsed.faults.is_empty(), "{:?}", parsed.faults);
    Batch { upserts: parsed.resources, removals: vec![] }
}

fn removal(yaml: &str) -> Batch {
    let removals = batch(yaml).upserts.iter().map(sluis_resources::Resource::key).collect();
    Batch { upserts: vec![], removals }
}

fn control(yaml: &str) -> Control {
    let control = Control::new(TrustDomain::default());
    control.apply(batch(yaml));
    control
}

pub(super) fn node(id: &str, metadata: &[(&str, &str)]) -> Node {
    let fields: HashMap<_, _> = metadata
        .iter()
        .map(|(key, text)| {
            let kind = Some(ValueKind::StringValue((*text).to_owned()));
            ((*key).to_owned(), Value { kind })
        })
        .collect();
    Node { id: id.to_owned(), metadata: Some(Struct { fields }), ..Node::default() }
}

fn web() -> Node {
    let id = "sidecar~127.0.0.2~web.shop~shop.svc.cluster.local";
    node(id, &[("NAMESPACE", "shop"), ("WORKLOAD_NAME", "web")])
}

fn connect(control: &Control, account: &str) -> Result<Connection, Refusal> {
    let peer = format!("spiffe://cluster.local/ns/shop/sa/{account}").parse().unwrap();
    control.connect(&Peer::Verified(peer), &web())
}

#[test]
fn a_proxy_is_let_in_for_the_workload_of_its_own_certificate_only() {
    let control = control(WEB);
    assert!(connect(&control, "web").is_ok());
    let refused = connect(&control, "thief").unwrap_err();
    assert!(matches!(&refused, Refusal::Forbidden(why) if why.contains("shop/web")), "{refused:?}");
    let peer = Peer::Verified("spiffe://elsewhere/ns/shop/sa/web".parse().unwrap());
    assert!(matches!(control.connect(&peer, &web()), Err(Refusal::Forbidden(_))));
}

#[test]
fn a_proxy_that_names_no_workload_or_an_unknown_one_is_refused() {
    let control = control(WEB);
    let peer = Peer::Verified("spiffe://cluster.local/ns/shop/sa/web".parse().unwrap());
    let check = |metadata: &[(&str, &str)], is_malformed: bool| {
        let refusal = control.connect(&peer, &node("sidecar~", metadata)).unwrap_err();
        assert_eq!(matches!(refusal, Refusal::Malformed(_)), is_malformed, "{refusal:?}");
    };
    check(&[], true);
    check(&[("NAMESPACE", "shop")], true);
    check(&[("NAMESPACE", "shop"), ("WORKLOAD_NAME", "db")], false);
}

#[test]
fn before_the_mesh_is_known_proxies_are_told_to_come_back() {
    let control = Control::new(TrustDomain::default());
    assert!(matches!(connect(&control, "web"), Err(Refusal::Unavailable(_))));
}

#[test]
fn the_stream_ends_when_the_workload_goes_or_changes_its_identity() {
    for next in [removal(WEB), batch(&WEB.replace("serviceAccount: web", "serviceAccount: other"))]
    {
        let control = control(WEB);
        let connection = connect(&control, "web").unwrap();
        assert!(connection.sets.has_changed().is_ok());
        control.apply(next);
        assert!(connection.sets.has_changed().is_err());
    }
}

#[test]
fn a_change_reaches_the_proxies_that_it_concerns_and_no_others() {
    let control = control(WEB);
    let mut connection = connect(&control, "web").unwrap();
    control.apply(batch(ADDRESSES));
    assert!(!connection.sets.has_changed().unwrap());
    control.apply(batch(API));
    assert!(connection.sets.has_changed().unwrap());
    let set = connection.sets.borrow_and_update().clone();
    assert!(set.get(Kind::Cluster, "outbound|443||api.example.com").is_some());
}

#[test]
fn the_status_of_a_proxy_follows_its_answers() {
    let control = control(WEB);
    let sync = |control: &Control| {
        let proxies = control.proxies();
        assert_eq!(proxies.len(), 1);
        proxies[0].kinds[&Kind::Listener].sync.clone()
    };
    assert!(control.proxies()[0].connected.is_none());
    let connection = connect(&control, "web").unwrap();
    let version = || "1".to_owned();
    for (report, expected) in [
        (Report::Sent { version: version() }, Sync::Stale),
        (Report::Nack { version: version(), detail: "bad".into() }, Sync::Nack("bad".into())),
        (Report::Sent { version: version() }, Sync::Stale),
        (Report::Ack { version: version() }, Sync::Synced),
    ] {
        control.report(connection.key, vec![(Kind::Listener, report)]);
        assert_eq!(sync(&control), expected);
    }
    assert!(control.proxies()[0].is_synced());
    control.disconnect(connection.key);
    assert_eq!(sync(&control), Sync::NotSent);
    assert!(!control.proxies()[0].is_synced());
}

#[test]
fn pushes_refusals_and_convergence_are_counted_under_istios_names() {
    let control = control(WEB);
    let connection = connect(&control, "web").unwrap();
    control.apply(batch(API));
    let version = || "1".to_owned();
    let sent = (Kind::Cluster, Report::Sent { version: version() });
    control.report(connection.key, vec![sent]);
    let text = |control: &Control| {
        let mut text = crate::Exposition::default();
        control.expose(&mut text);
        text.into_text()
    };
    assert!(text(&control).contains("pilot_proxy_convergence_time_count 0"));
    let nack = Report::Nack { version: version(), detail: "bad".to_owned() };
    control.report(connection.key, vec![(Kind::Cluster, nack)]);
    let text = text(&control);
    for line in [
        "pilot_xds 1",
        "pilot_xds_pushes{type=\"cds\"} 1",
        "pilot_total_xds_rejects{type=\"cds\"} 1",
        "pilot_xds_cds_reject{node=\"sidecar~127.0.0.2~web.shop~shop.svc.cluster.local\"} 1",
        "pilot_proxy_convergence_time_count 1",
        "pilot_services 1",
        "pilot_virt_services 0",
    ] {
        assert!(text.lines().any(|found| found == line), "{line} in\n{text}");
    }
}

#[test]
fn the_end_of_an_older_stream_says_nothing_about_the_newer_one() {
    let control = control(WEB);
    let older = connect(&control, "web").unwrap();
    let newer = connect(&control, "web").unwrap();
    control.disconnect(older.key);
    assert!(control.proxies()[0].connected.is_some());
    assert!(newer.sets.has_changed().is_ok());
}

#[test]
fn proxies_with_equal_inputs_share_one_configuration() {
    let control = control(WEB);
    let (_first, _second) = (connect(&control, "web").unwrap(), connect(&control, "web").unwrap());
    let state = control.lock();
    let configs: Vec<_> = state.streams.values().map(|stream| &stream.config).collect();
    assert!(Arc::ptr_eq(configs[0], configs[1]));
}

#[test]
fn the_configuration_of_a_workload_is_known_before_its_proxy_connects() {
    let control = control(WEB);
    let config = control.config_of(&ObjectName::new("shop", "web")).unwrap().unwrap();
    assert_eq!((config.view.role, &config.view.capture), (Role::Sidecar, &Capture::Jail));
    assert!(control.config_of(&ObjectName::new("shop", "db")).is_none());
}

#[test]
fn a_workload_that_can_have_no_proxy_is_a_fault_at_its_place() {
    let control = control(&WEB.replace("sluis.dev/run: sidecar", "sluis.dev/run: router"));
    let faults = control.faults();
    assert_eq!(faults.len(), 1, "{faults:?}");
    let text = faults[0].to_string();
    for part in ["mesh.yaml:", "WorkloadEntry shop/web", "sluis.dev/run", "\"router\""] {
        assert!(text.contains(part), "{part} in {text}");
    }
}

#[track_caller]
fn check_view(replace: (&str, &str), node: Option<ProxyNode>, role: Role, capture: &Capture) {
    let snapshot = apply(&Snapshot::default(), batch(&WEB.replace(replace.0, replace.1))).0;
    let workload = snapshot.workload(&ObjectName::new("shop", "web")).unwrap();
    let view = proxy_view(workload, node.as_ref(), &TrustDomain::default()).unwrap();
    assert_eq!((view.role, &view.capture), (role, capture), "{replace:?} {node:?}");
    assert_eq!(view.dns, role == Role::Sidecar);
    assert_eq!(view.id.to_string(), "spiffe://cluster.local/ns/shop/sa/web");
}

#[test]
fn role_and_capture_follow_from_annotations_and_node() {
    let node = |id: &str, pipe: Option<&str>| {
        let capture_pipe = pipe.map(str::to_owned);
        Some(ProxyNode { id: id.to_owned(), capture_pipe, ..ProxyNode::default() })
    };
    let written = ("", "");
    let gateway = ("run: sidecar", "run: gateway");
    let silent = ("sluis.dev/run: sidecar", "");
    let envoy = ("sluis.dev/run: sidecar", "sluis.dev/run: sidecar, sluis.dev/proxy: envoy");
    let pipe = Capture::ProxyProtocolPipe("/run/pipe".to_owned());
    check_view(written, None, Role::Sidecar, &Capture::Jail);
    check_view(written, node("router~", None), Role::Sidecar, &Capture::Jail);
    check_view(gateway, node("sidecar~", Some("/run/pipe")), Role::Gateway, &Capture::None);
    check_view(silent, node("router~", None), Role::Gateway, &Capture::None);
    check_view(silent, node("sidecar~", None), Role::Sidecar, &Capture::Jail);
    check_view(written, node("sidecar~", Some("/run/pipe")), Role::Sidecar, &pipe);
    check_view(envoy, node("sidecar~", Some("/run/pipe")), Role::Sidecar, &pipe);
    check_view(envoy, None, Role::Sidecar, &Capture::None);
    let host = ("run: sidecar", "run: sidecar, sluis.dev/netns: /run/netns/web");
    check_view(host, None, Role::Sidecar, &Capture::Redirect);
    let mode = |mode: &str| format!("run: sidecar, sidecar.istio.io/interceptionMode: {mode}");
    check_view(("run: sidecar", &mode("TPROXY")), None, Role::Sidecar, &Capture::Redirect);
    check_view(("run: sidecar", &mode("NONE")), None, Role::Sidecar, &Capture::None);
}

#[test]
fn a_view_is_refused_by_name_of_what_is_wrong() {
    let check = |replace: (&str, &str), pipe: Option<&str>, expected: &str| {
        let snapshot = apply(&Snapshot::default(), batch(&WEB.replace(replace.0, replace.1))).0;
        let workload = snapshot.workload(&ObjectName::new("shop", "web")).unwrap();
        let node = ProxyNode { capture_pipe: pipe.map(str::to_owned), ..ProxyNode::default() };
        let error = proxy_view(workload, Some(&node), &TrustDomain::default()).unwrap_err();
        assert!(error.to_string().contains(expected), "{expected} in {error}");
    };
    check(("127.0.0.2", "web.example.com"), None, "spec.address");
    let proxy = |name: &str| format!("run: sidecar, sluis.dev/proxy: {name}");
    check(("run: sidecar", &proxy("nginx")), None, "sluis.dev/proxy");
    check(("run: sidecar", &proxy("envoy")), None, "SLUIS_CAPTURE_PIPE");
    check(("", ""), Some("relative"), "SLUIS_CAPTURE_PIPE");
    let mode = "run: sidecar, sidecar.istio.io/interceptionMode: PERHAPS";
    check(("run: sidecar", mode), None, "sidecar.istio.io/interceptionMode");
}

#[test]
fn without_tls_a_proxy_is_what_it_says_and_its_workload_knows_better() {
    let control = control(WEB);
    let connect = |id: &str| control.connect(&Peer::Local, &node(id, &[("DNS_CAPTURE", "true")]));
    let first = connect("sidecar~127.0.0.7~anything.shop~shop.svc.cluster.local").unwrap();
    let known = connect("sidecar~127.0.0.2~web.shop~shop.svc.cluster.local").unwrap();
    let state = control.lock();
    let view = &state.streams[&first.key].view;
    assert_eq!((view.role, &view.capture, view.dns), (Role::Sidecar, &Capture::Redirect, true));
    assert_eq!(view.id.to_string(), "spiffe://cluster.local/ns/shop/sa/default");
    assert!(view.labels.is_empty());
    let view = &state.streams[&known.key].view;
    assert_eq!(view.id.to_string(), "spiffe://cluster.local/ns/shop/sa/web");
    assert_eq!(view.labels.get("app"), Some("web"));
    drop(state);
    let refused = connect("ztunnel~127.0.0.7~z.shop~shop.svc.cluster.local").unwrap_err();
    assert!(matches!(&refused, Refusal::Malformed(why) if why.contains("ztunnel")), "{refused:?}");
    control.apply(removal(WEB));
    assert!(known.sets.has_changed().is_ok(), "it is served without a workload as well");
}

#[tokio::test(start_paused = true)]
async fn changes_that_follow_each_other_closely_are_applied_as_one() {
    let control = Control::new(TrustDomain::default());
    let (sender, batches) = mpsc::channel(8);
    let task = tokio::spawn(control.clone().run(batches, pending()));
    for batch in [batch(WEB), batch(API), removal(API)] {
        sender.send(batch).await.unwrap();
    }
    let mut events = control.events();
    events.changed().await.unwrap();
    assert_eq!(control.lock().generation, 1);
    assert_eq!(control.snapshot().resources().count(), 1);
    drop(sender);
    task.await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_restless_source_is_applied_after_a_second_all_the_same() {
    let control = Control::new(TrustDomain::default());
    let (sender, batches) = mpsc::channel(1);
    tokio::spawn(control.clone().run(batches, pending()));
    let began = Instant::now();
    let mut events = control.events();
    let restless = async {
        loop {
            sender.send(batch(WEB)).await.unwrap();
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    tokio::select! {
        () = restless => unreachable!(),
        changed = events.changed() => changed.unwrap(),
    }
    assert_eq!(began.elapsed().as_secs(), 1);
}
