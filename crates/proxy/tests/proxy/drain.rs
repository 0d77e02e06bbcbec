//! How a proxy ends.

use std::time::Duration;

use serde_json::json;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
    time::Instant,
};

use crate::harness::{Echo, Proxy, cluster, expect, listener, log_in, soon, tcp_chain};

async fn proxy(drain: Duration, echo: &Echo) -> Proxy {
    let dir = tempfile::tempdir().unwrap();
    let resources = json!({
        "listeners": [listener("in", json!({"filter_chains": [tcp_chain("echo", &log_in(&dir))]}))],
        "clusters": [cluster("echo", &[echo.address])],
    });
    Proxy::start(dir, json!({"static_resources": resources}), drain).await
}

#[tokio::test]
async fn a_stopped_proxy_accepts_nothing_and_lets_connections_finish() {
    let echo = Echo::start("hi").await;
    let mut proxy = proxy(Duration::from_secs(15), &echo).await;
    let mut client = proxy.connect("in").await;
    expect(&mut client, "hi").await;
    let address = proxy.address("in");
    assert!(proxy.admin("GET /ready").await.contains("LIVE"));
    proxy.ask_to_stop();
    // The listener is gone when connecting is refused; until then the kernel may still take one.
    soon("refusal", async { while TcpStream::connect(address).await.is_ok() {} }).await;
    client.write_all(b"still here").await.unwrap();
    expect(&mut client, "still here").await;
    drop(client);
    proxy.ended().await.unwrap();
}

#[tokio::test]
async fn a_connection_that_does_not_end_is_ended_when_its_time_is_up() {
    let echo = Echo::start("hi").await;
    let mut proxy = proxy(Duration::from_millis(300), &echo).await;
    let log = proxy.dir.path().join("access.log");
    let mut client = proxy.connect("in").await;
    expect(&mut client, "hi").await;
    let start = Instant::now();
    let lines = proxy.stop_and_read(&log).await;
    assert!(start.elapsed() >= Duration::from_millis(300));
    assert_eq!(lines, ["- 0 2 echo -"]);
    drop(soon("end", client.read_to_end(&mut Vec::new())).await);
}
