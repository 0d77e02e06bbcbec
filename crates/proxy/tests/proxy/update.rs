//! Configuration that changes while connections are open.

use std::{net::SocketAddr, path::Path, sync::Arc, time::Duration};

use serde_json::{Value, json};
use sluis_envoy::{Kind, ResourceSet};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use crate::{
    control_plane::ControlPlane,
    harness::{Echo, Proxy, address, cluster, expect, listener, log_in, spare_port, tcp_chain},
    pki::Pki,
};

fn set(listeners: &[Value], clusters: &[Value]) -> ResourceSet {
    let mut set = ResourceSet::default();
    for json in listeners {
        let message: envoy_types::pb::envoy::config::listener::v3::Listener =
            sluis_protojson::message_from_json(json).unwrap();
        set.listeners.insert(message.name.clone(), Arc::new(message));
    }
    for json in clusters {
        let message: envoy_types::pb::envoy::config::cluster::v3::Cluster =
            sluis_protojson::message_from_json(json).unwrap();
        set.clusters.insert(message.name.clone(), Arc::new(message));
    }
    set
}

fn spare() -> SocketAddr {
    SocketAddr::from(([127, 0, 0, 1], spare_port()))
}

fn tcp(at: SocketAddr, to: &str, log: &Path) -> Value {
    let chain = tcp_chain(to, log);
    listener("in", json!({"address": address(at), "filter_chains": [chain]}))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_update_reaches_new_connections_and_old_ones_stay() {
    let dir = tempfile::tempdir().unwrap();
    let (log, pki) = (log_in(&dir), Pki::new(dir.path()));
    let (a, b) = (Echo::start("a").await, Echo::start("b").await);
    let clusters = [cluster("a", &[a.address]), cluster("b", &[b.address])];
    let at = spare();
    let control = ControlPlane::start(&pki, &set(&[tcp(at, "a", &log)], &clusters)).await;
    let proxy =
        Proxy::start(tempfile::tempdir().unwrap(), control.bootstrap(), Duration::ZERO).await;
    control.answer(Kind::Listener).await.unwrap();
    let mut old = proxy.connect("in").await;
    expect(&mut old, "a").await;

    control.push(&set(&[tcp(at, "b", &log)], &clusters));
    control.answer(Kind::Listener).await.unwrap();
    let mut new = proxy.connect("in").await;
    expect(&mut new, "b").await;
    old.write_all(b"still").await.unwrap();
    expect(&mut old, "still").await;

    // A change elsewhere: nothing that is open is touched.
    let mut more = clusters.to_vec();
    more.push(cluster("c", &[a.address]));
    control.push(&set(&[tcp(at, "b", &log)], &more));
    control.answer(Kind::Cluster).await.unwrap();
    new.write_all(b"there").await.unwrap();
    expect(&mut new, "there").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_rejected_listener_is_named_and_the_last_good_one_stays() {
    let dir = tempfile::tempdir().unwrap();
    let (log, pki) = (log_in(&dir), Pki::new(dir.path()));
    let a = Echo::start("a").await;
    let clusters = [cluster("a", &[a.address])];
    let at = spare();
    let control = ControlPlane::start(&pki, &set(&[tcp(at, "a", &log)], &clusters)).await;
    let proxy =
        Proxy::start(tempfile::tempdir().unwrap(), control.bootstrap(), Duration::ZERO).await;
    control.answer(Kind::Listener).await.unwrap();

    let mut bad = tcp(at, "a", &log);
    bad["filter_chains"][0]["filters"][0]["typed_config"]["access_log"][0]["typed_config"]["log_format"]
        ["text_format_source"]["inline_string"] = json!("%NO_SUCH_OPERATOR%");
    control.push(&set(&[bad], &clusters));
    let refusal = control.answer(Kind::Listener).await.unwrap_err();
    assert!(refusal.contains("LDS in") && refusal.contains("NO_SUCH_OPERATOR"), "{refusal}");
    expect(&mut proxy.connect("in").await, "a").await;

    control.push(&set(&[tcp(at, "a", &log)], &clusters));
    control.answer(Kind::Listener).await.unwrap();
    expect(&mut proxy.connect("in").await, "a").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_listener_that_cannot_listen_is_refused_by_name() {
    let dir = tempfile::tempdir().unwrap();
    let (log, pki) = (log_in(&dir), Pki::new(dir.path()));
    let taken = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let (at, a) = (spare(), Echo::start("a").await);
    let clusters = [cluster("a", &[a.address])];
    let control = ControlPlane::start(&pki, &set(&[tcp(at, "a", &log)], &clusters)).await;
    let proxy =
        Proxy::start(tempfile::tempdir().unwrap(), control.bootstrap(), Duration::ZERO).await;
    control.answer(Kind::Listener).await.unwrap();
    let mut second = tcp(taken.local_addr().unwrap(), "a", &log);
    second["name"] = json!("second");
    control.push(&set(&[tcp(at, "a", &log), second], &clusters));
    let refusal = control.answer(Kind::Listener).await.unwrap_err();
    assert!(refusal.contains("listener second cannot listen on"), "{refusal}");
    expect(&mut proxy.connect("in").await, "a").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_proxy_works_on_when_its_control_plane_is_gone() {
    let dir = tempfile::tempdir().unwrap();
    let (log, pki) = (log_in(&dir), Pki::new(dir.path()));
    let (at, a) = (spare(), Echo::start("a").await);
    let control =
        ControlPlane::start(&pki, &set(&[tcp(at, "a", &log)], &[cluster("a", &[a.address])])).await;
    let proxy =
        Proxy::start(tempfile::tempdir().unwrap(), control.bootstrap(), Duration::ZERO).await;
    control.answer(Kind::Listener).await.unwrap();
    drop(control);
    for _ in 0..4 {
        let mut client = proxy.connect("in").await;
        expect(&mut client, "a").await;
        client.shutdown().await.unwrap();
        client.read_to_end(&mut Vec::new()).await.unwrap();
    }
    assert!(proxy.admin("GET /ready").await.contains("LIVE"));
    assert!(proxy.admin("GET /config").await.contains("\"name\": \"in\""));
}
