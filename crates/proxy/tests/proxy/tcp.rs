//! TCP through the proxy.

use std::time::Duration;

use serde_json::json;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use crate::harness::{
    Echo, Proxy, cluster, expect, listener, listener_filter, log_in, soon, tcp_chain,
};

#[tokio::test]
async fn bytes_go_both_ways_and_each_side_may_close_first() {
    let dir = tempfile::tempdir().unwrap();
    let log = log_in(&dir);
    let echo = Echo::start("hello ").await;
    let mut proxy = Proxy::with(
        json!([listener("in", json!({"filter_chains": [tcp_chain("echo", &log)]}))]),
        json!([cluster("echo", &[echo.address])]),
    )
    .await;
    let mut client = proxy.connect("in").await;
    expect(&mut client, "hello ").await;
    // More than any buffer on the way holds.
    let sent: Vec<u8> = (0..3_000_000_u32).map(|n| (n % 251) as u8).collect();
    let (mut reader, mut writer) = client.split();
    let (written, received) = tokio::join!(
        async {
            writer.write_all(&sent).await.unwrap();
            // The client has said all: the end must reach the server, and its answer come back.
            writer.shutdown().await.unwrap();
            sent.len()
        },
        async {
            let mut received = Vec::new();
            soon("echo", reader.read_to_end(&mut received)).await.unwrap();
            received
        }
    );
    assert_eq!(written, received.len());
    assert!(received == sent);
    assert_eq!(proxy.stop_and_read(&log).await, ["- 3000000 3000006 echo -"]);
}

#[tokio::test]
async fn a_black_hole_closes_at_once_and_the_log_says_uh() {
    let dir = tempfile::tempdir().unwrap();
    let log = log_in(&dir);
    let mut proxy = Proxy::with(
        json!([listener("in", json!({"filter_chains": [tcp_chain("BlackHoleCluster", &log)]}))]),
        json!([{"name": "BlackHoleCluster", "type": "STATIC", "connect_timeout": "1s"}]),
    )
    .await;
    let mut client = proxy.connect("in").await;
    let mut rest = Vec::new();
    soon("close", client.read_to_end(&mut rest)).await.unwrap();
    assert!(rest.is_empty());
    proxy.until_counter("tcp.blocked", 1).await;
    assert_eq!(proxy.stop_and_read(&log).await, ["UH 0 0 BlackHoleCluster -"]);
}

#[tokio::test]
async fn an_endpoint_that_refuses_is_logged_as_uf() {
    let dir = tempfile::tempdir().unwrap();
    let log = log_in(&dir);
    // Bound, then closed: nobody listens there.
    let nobody = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
    let mut proxy = Proxy::with(
        json!([listener("in", json!({"filter_chains": [tcp_chain("gone", &log)]}))]),
        json!([cluster("gone", &[nobody])]),
    )
    .await;
    let mut client = proxy.connect("in").await;
    soon("close", client.read_to_end(&mut Vec::new())).await.unwrap();
    assert_eq!(proxy.stop_and_read(&log).await, ["UF,URX 0 0 gone -"]);
}

#[tokio::test]
async fn connections_go_to_the_endpoints_in_turn() {
    let dir = tempfile::tempdir().unwrap();
    let (a, b) = (Echo::start("a").await, Echo::start("b").await);
    let mut body = json!({"filter_chains": [tcp_chain("both", &log_in(&dir))]});
    // One socket for both workers would still be two turns: ask one worker only.
    body["enable_reuse_port"] = json!(true);
    let proxy = Proxy::with(
        json!([listener("in", body)]),
        json!([cluster("both", &[a.address, b.address])]),
    )
    .await;
    let mut seen = std::collections::BTreeMap::<u8, usize>::new();
    for _ in 0..32 {
        let mut client = proxy.connect("in").await;
        *seen.entry(soon("name", client.read_u8()).await.unwrap()).or_default() += 1;
    }
    // Each of the two workers takes turns of its own: they differ by one at most each.
    assert!((15..=17).contains(&seen[&b'a']), "{seen:?}");
}

#[tokio::test]
async fn a_proxy_header_tells_the_destination_and_hands_over_to_its_listener() {
    let dir = tempfile::tempdir().unwrap();
    let log = log_in(&dir);
    let echo = Echo::start("port 7 ").await;
    let outbound = json!({
        "use_original_dst": true,
        "listener_filters": [listener_filter("proxy_protocol", "ProxyProtocol")],
        "filter_chains": [tcp_chain("BlackHoleCluster", &log)],
    });
    let port7 = json!({
        "address": {"socket_address": {"address": "0.0.0.0", "port_value": 7}},
        "bind_to_port": false,
        "filter_chains": [tcp_chain("echo", &log)],
    });
    let mut proxy = Proxy::with(
        json!([listener("outbound", outbound), listener("0.0.0.0_7", port7)]),
        json!([
            cluster("echo", &[echo.address]),
            {"name": "BlackHoleCluster", "type": "STATIC", "connect_timeout": "1s"},
        ]),
    )
    .await;
    let mut client = proxy.connect("outbound").await;
    client.write_all(b"PROXY TCP4 10.1.1.1 10.2.2.2 999 7\r\n").await.unwrap();
    expect(&mut client, "port 7 ").await;
    client.write_all(b"x").await.unwrap();
    expect(&mut client, "x").await;
    drop(client);
    let mut other = proxy.connect("outbound").await;
    other.write_all(b"PROXY TCP4 10.1.1.1 10.2.2.2 999 8\r\n").await.unwrap();
    soon("close", other.read_to_end(&mut Vec::new())).await.unwrap();
    let mut liar = proxy.connect("outbound").await;
    liar.write_all(b"GET / HTTP/1.1\r\n\r\n").await.unwrap();
    // Closed with bytes unread may be a reset; what matters is that nothing comes.
    let mut rest = Vec::new();
    drop(soon("close", liar.read_to_end(&mut rest)).await);
    assert!(rest.is_empty());
    let mut lines = proxy.stop_and_read(&log).await;
    lines.sort();
    assert_eq!(lines, ["- 1 8 echo -", "UH 0 0 BlackHoleCluster -"]);
}

#[tokio::test]
async fn a_connection_to_its_own_listener_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let log = log_in(&dir);
    let own = std::net::SocketAddr::from(([127, 0, 0, 1], crate::harness::spare_port()));
    let body = json!({
        "address": crate::harness::address(own),
        "use_original_dst": true,
        "listener_filters": [listener_filter("proxy_protocol", "ProxyProtocol")],
        "filter_chains": [tcp_chain("PassthroughCluster", &log)],
    });
    let mut proxy = Proxy::with(
        json!([listener("outbound", body)]),
        json!([{
            "name": "PassthroughCluster",
            "type": "ORIGINAL_DST",
            "lb_policy": "CLUSTER_PROVIDED",
            "connect_timeout": "1s",
        }]),
    )
    .await;
    let mut client = proxy.connect("outbound").await;
    let header = format!("PROXY TCP4 10.1.1.1 127.0.0.1 999 {}\r\n", own.port());
    client.write_all(header.as_bytes()).await.unwrap();
    soon("close", client.read_to_end(&mut Vec::new())).await.unwrap();
    proxy.until_counter("upstream_cx_loop", 1).await;
    assert_eq!(proxy.stop_and_read(&log).await, ["UF 0 0 PassthroughCluster -"]);
}

#[tokio::test]
async fn an_idle_connection_is_closed_after_its_time() {
    let dir = tempfile::tempdir().unwrap();
    let echo = Echo::start("hi").await;
    let mut chain = tcp_chain("echo", &log_in(&dir));
    chain["filters"][0]["typed_config"]["idle_timeout"] = json!("0.2s");
    let proxy = Proxy::with(
        json!([listener("in", json!({"filter_chains": [chain]}))]),
        json!([cluster("echo", &[echo.address])]),
    )
    .await;
    let mut client = proxy.connect("in").await;
    let start = tokio::time::Instant::now();
    let mut all = Vec::new();
    soon("close", client.read_to_end(&mut all)).await.unwrap();
    assert_eq!(all, b"hi");
    assert!(start.elapsed() >= Duration::from_millis(190));
    proxy.until_counter("tcp.idle_timeout", 1).await;
}
