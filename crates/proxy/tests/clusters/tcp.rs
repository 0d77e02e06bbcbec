//! TCP through clusters: choice by the client's address, retries, what the log says.

use serde_json::json;

use crate::sides::{Origin, Serve, cluster, endpoint, sides};

#[tokio::test]
async fn one_client_goes_to_one_endpoint_by_its_address() {
    let mut origins = Vec::new();
    for name in ["a", "b", "c", "d"] {
        origins.push(Origin::start(name).await);
    }
    let all: Vec<&Origin> = origins.iter().collect();
    let serve = Serve::Tcp(json!({ "cluster": "origin", "hash_policy": [{ "source_ip": {} }] }));
    let clusters = json!([cluster(&all, json!({ "lb_policy": "RING_HASH" }))]);
    let mut seen = std::collections::BTreeSet::new();
    for side in sides(serve, clusters).await {
        for _ in 0..10 {
            seen.insert(side.client().await.get("/", &[]).await.body);
        }
    }
    assert_eq!(seen.len(), 1, "{seen:?}");
}

#[tokio::test]
async fn another_endpoint_is_tried_when_one_cannot_be_reached() {
    let good = Origin::start("good").await;
    let gone = Origin::start("gone").await.address;
    let mut cluster = cluster(&[&good], json!({}));
    let list = &mut cluster["load_assignment"]["endpoints"][0]["lb_endpoints"];
    list.as_array_mut().unwrap().push(endpoint(gone));
    let serve = Serve::Tcp(json!({ "cluster": "origin", "max_connect_attempts": 3 }));
    for side in sides(serve, json!([cluster])).await {
        for _ in 0..6 {
            assert_eq!(side.client().await.get("/", &[]).await.body, "good", "{}", side.name);
        }
    }
}

#[tokio::test]
async fn the_log_says_why_a_connection_ended() {
    let gone = Origin::start("gone").await.address;
    let mut cluster = cluster(&[], json!({}));
    cluster["load_assignment"]["endpoints"][0]["lb_endpoints"] = json!([endpoint(gone)]);
    let nobody = json!({ "name": "nobody", "type": "STATIC", "connect_timeout": "1s" });
    let mut logs = Vec::new();
    for target in ["origin", "nobody"] {
        let serve = Serve::Tcp(json!({ "cluster": target }));
        for side in sides(serve, json!([cluster, nobody])).await {
            use tokio::io::AsyncReadExt as _;
            let mut stream = tokio::net::TcpStream::connect(side.address).await.unwrap();
            let mut rest = Vec::new();
            drop(crate::harness::soon("close", stream.read_to_end(&mut rest)).await);
            let name = side.name;
            let flags: std::collections::BTreeSet<String> = side
                .log()
                .await
                .iter()
                .map(|line| line.split(' ').nth(1).unwrap().to_owned())
                .collect();
            logs.push((target, name, flags));
        }
    }
    for (target, name, flags) in logs {
        let expected = if target == "origin" { "UF,URX" } else { "UH" };
        assert_eq!(flags.into_iter().collect::<Vec<_>>(), [expected], "{target} at {name}");
    }
}
