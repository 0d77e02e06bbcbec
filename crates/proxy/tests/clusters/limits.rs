//! Circuit breakers: what is refused, with which flags and words.

use serde_json::json;

use crate::sides::{Origin, Serve, cluster, sides, to_origin};

const OVERFLOW: &str =
    "upstream connect error or disconnect/reset before headers. reset reason: overflow";

fn limits(thresholds: serde_json::Value) -> serde_json::Value {
    json!({ "circuit_breakers": { "thresholds": [thresholds] } })
}

#[tokio::test]
async fn with_one_connection_one_request_waits_and_the_next_is_refused() {
    let origin = Origin::start("a").await;
    let limits = limits(json!({ "max_connections": 1, "max_pending_requests": 1 }));
    for side in sides(to_origin(json!({})), json!([cluster(&[&origin], limits)])).await {
        let (mut first, mut second) = (side.client().await, side.client().await);
        first.send("/hold", &[]).await;
        origin.holds_one().await;
        second.send("/hold", &[]).await;
        // The second waits: only a third can tell, once the second has come that far.
        let refused = loop {
            let mut third = side.client().await;
            third.send("/", &[]).await;
            tokio::select! {
                answer = third.answer() => break answer,
                () = tokio::time::sleep(std::time::Duration::from_millis(200)) => {}
            }
        };
        assert_eq!((refused.status, &*refused.body), (503, OVERFLOW), "{}", side.name);
        assert!(refused.head.contains("x-envoy-overloaded: true"), "{}", refused.head);
        origin.release();
        assert_eq!(first.answer().await.status, 200);
        origin.holds_one().await;
        origin.release();
        assert_eq!(second.answer().await.status, 200);
        let name = side.name;
        let log = side.log().await;
        let refused = "503 UO upstream_reset_before_response_started{overflow}";
        assert!(log.contains(&refused.to_owned()), "{name}: {log:?}");
    }
}

#[tokio::test]
async fn more_requests_than_may_be_under_way_are_refused() {
    let origin = Origin::start("a").await;
    let limits = limits(json!({ "max_requests": 1 }));
    for side in sides(to_origin(json!({})), json!([cluster(&[&origin], limits)])).await {
        let (mut first, mut second) = (side.client().await, side.client().await);
        first.send("/hold", &[]).await;
        origin.holds_one().await;
        let refused = second.get("/", &[]).await;
        assert_eq!((refused.status, &*refused.body), (503, OVERFLOW), "{}", side.name);
        origin.release();
        assert_eq!(first.answer().await.status, 200);
        assert_eq!(second.get("/", &[]).await.status, 200);
        assert_eq!(
            side.log().await,
            [
                "200 - via_upstream",
                "200 - via_upstream",
                "503 UO upstream_reset_before_response_started{overflow}"
            ]
        );
    }
}

#[tokio::test]
async fn without_retries_a_bad_answer_is_passed_on_as_it_is() {
    let origin = Origin::failing("a", 503).await;
    let limits = limits(json!({ "max_retries": 0 }));
    let retry = json!({ "retry_policy": { "retry_on": "5xx", "num_retries": 2 } });
    for side in sides(to_origin(retry), json!([cluster(&[&origin], limits)])).await {
        let answer = side.client().await.get("/", &[]).await;
        assert_eq!((answer.status, &*answer.body), (503, "a"), "{}", side.name);
        assert_eq!(side.log().await, ["503 UO via_upstream"]);
    }
}

#[tokio::test]
async fn a_connection_carries_as_many_requests_as_it_may() {
    let origin = Origin::start("a").await;
    let fields = json!({ "max_requests_per_connection": 1,
        "circuit_breakers": { "thresholds": [{ "max_connections": 1 }] } });
    for side in sides(to_origin(json!({})), json!([cluster(&[&origin], fields)])).await {
        let mut client = side.client().await;
        for _ in 0..3 {
            assert_eq!(client.get("/", &[]).await.status, 200, "{}", side.name);
        }
    }
}

#[tokio::test]
async fn a_second_connection_is_refused_as_tcp() {
    let origin = Origin::start("a").await;
    let serve = || Serve::Tcp(json!({ "cluster": "origin" }));
    let limits = limits(json!({ "max_connections": 1 }));
    for side in sides(serve(), json!([cluster(&[&origin], limits)])).await {
        let mut first = side.client().await;
        assert_eq!(first.get("/", &[]).await.status, 200);
        let mut rest = Vec::new();
        let mut second = tokio::net::TcpStream::connect(side.address).await.unwrap();
        use tokio::io::AsyncReadExt as _;
        drop(crate::harness::soon("close", second.read_to_end(&mut rest)).await);
        drop(first);
        let name = side.name;
        let log = side.log().await;
        assert!(log.iter().any(|line| line.starts_with("0 UO ")), "{name}: {log:?}");
    }
}

#[tokio::test]
async fn overload_that_the_control_plane_knows_of_is_dropped() {
    let origin = Origin::start("a").await;
    let mut cluster = cluster(&[&origin], json!({}));
    cluster["load_assignment"]["policy"] = json!({ "drop_overloads": [
        { "category": "x", "drop_percentage": { "numerator": 100 } }] });
    for side in sides(to_origin(json!({})), json!([cluster])).await {
        let answer = side.client().await.get("/", &[]).await;
        let name = side.name;
        assert_eq!(
            (answer.status, &*answer.body, side.log().await.remove(0)),
            (503, "unconditional drop overload", "503 UDO unconditional_drop_overload".to_owned()),
            "{name} {}",
            answer.head
        );
    }
}
