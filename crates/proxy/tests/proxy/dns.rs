//! Names: those of clusters, and those that a jail asks for.

use std::{net::UdpSocket, sync::Arc, time::Duration};

use serde_json::json;
use sluis_capture::handoff::{self, Sockets};
use sluis_envoy::{NameInfo, NameTable, ResourceSet};

use crate::{
    control_plane::ControlPlane,
    harness::{DEADLINE, Echo, Proxy, cluster, expect, listener, log_in, tcp_chain},
    pki::Pki,
};

#[tokio::test]
async fn a_listener_waits_until_the_names_of_its_clusters_are_resolved() {
    let dir = tempfile::tempdir().unwrap();
    let echo = Echo::start("resolved").await;
    let mut named = cluster("named", &[echo.address]);
    named["type"] = json!("STRICT_DNS");
    named["dns_lookup_family"] = json!("V4_ONLY");
    named["load_assignment"]["endpoints"][0]["lb_endpoints"][0]["endpoint"]["address"]["socket_address"]
        ["address"] = json!("localhost");
    let proxy = Proxy::with(
        json!([listener("in", json!({"filter_chains": [tcp_chain("named", &log_in(&dir))]}))]),
        json!([named]),
    )
    .await;
    // The first connection already finds an endpoint.
    expect(&mut proxy.connect("in").await, "resolved").await;
}

/// A query for the addresses of a name (RFC 1035 §4.1).
fn query(name: &str) -> Vec<u8> {
    let mut query = vec![0xab, 0xcd, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0];
    for label in name.split('.') {
        query.push(u8::try_from(label.len()).unwrap());
        query.extend(label.as_bytes());
    }
    query.extend([0, 0, 1, 0, 1]);
    query
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_jail_gets_the_addresses_of_the_mesh_and_no_others() {
    let dir = tempfile::tempdir().unwrap();
    let pki = Pki::new(dir.path());
    let info = NameInfo { ips: vec!["240.0.0.7".to_owned()], ..NameInfo::default() };
    let names = NameTable { table: [("api.data.local".to_owned(), info)].into() };
    let set = ResourceSet { names: Some(Arc::new(names)), ..ResourceSet::default() };
    let control = ControlPlane::start(&pki, &set).await;
    let handoff = dir.path().join("handoff");
    let mut bootstrap = control.bootstrap();
    bootstrap["node"]["metadata"] = json!({
        "NAMESPACE": "lab",
        "WORKLOAD_NAME": "notebook",
        "SLUIS_HANDOFF": handoff,
    });
    let proxy = Proxy::start(tempfile::tempdir().unwrap(), bootstrap, Duration::ZERO).await;
    control.answer(sluis_envoy::Kind::NameTable).await.unwrap();

    let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
    let resolver = socket.local_addr().unwrap();
    let answers = tokio::task::spawn_blocking(move || {
        let sockets = Sockets { dns_udp: vec![socket], ..Sockets::default() };
        let _life = handoff::send(&handoff, "lab/notebook", &sockets).unwrap();
        let client = UdpSocket::bind("127.0.0.1:0").unwrap();
        client.set_read_timeout(Some(DEADLINE)).unwrap();
        ["api.data.local", "evil.test"].map(|name| {
            client.send_to(&query(name), resolver).unwrap();
            let mut reply = [0; 512];
            let length = client.recv(&mut reply).unwrap();
            reply[..length].to_vec()
        })
    })
    .await
    .unwrap();
    assert!(answers[0].ends_with(&[0, 4, 240, 0, 0, 7]), "{:?}", answers[0]);
    assert_eq!(answers[1][3] & 0xf, 3, "NXDOMAIN, in {:?}", answers[1]);
    assert_eq!(proxy.counter("dns.query_unknown").await, 1);
}
