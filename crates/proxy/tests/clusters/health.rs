//! Health checks: endpoints that are not well get nothing.

use serde_json::{Value, json};

use crate::sides::{Origin, cluster, sides, to_origin};

/// With this check `good` is well and `bad`, which answers 500 to everything, is not.
async fn check(probe: Value) {
    let (good, bad) = (Origin::start("good").await, Origin::failing("bad", 500).await);
    let mut check = json!({ "timeout": "1s", "interval": "0.1s", "no_traffic_interval": "0.1s",
        "unhealthy_threshold": 1, "healthy_threshold": 1 });
    for (name, value) in probe.as_object().unwrap() {
        check[name] = value.clone();
    }
    let fields = json!({ "health_checks": [check],
        "common_lb_config": { "healthy_panic_threshold": { "value": 0 } } });
    for side in sides(to_origin(json!({})), json!([cluster(&[&good, &bad], fields)])).await {
        let mut client = side.client().await;
        // The listener has waited for the first answer of each cluster, not of each endpoint.
        let settled = async {
            let mut in_a_row = 0;
            while in_a_row < 10 {
                let status = client.get("/", &[]).await.status;
                assert_ne!(status, 503, "{}: nobody has answered", side.name);
                in_a_row = if status == 200 { in_a_row + 1 } else { 0 };
            }
        };
        crate::harness::soon("healthy endpoints only", settled).await;
        for _ in 0..20 {
            assert_eq!(client.get("/", &[]).await.body, "good", "{}", side.name);
        }
    }
}

#[tokio::test]
async fn by_http() {
    check(json!({ "http_health_check": { "path": "/200" } })).await;
}

#[tokio::test]
async fn by_http_with_a_text_that_must_be_there() {
    check(json!({ "http_health_check": { "path": "/", "receive": [{ "text": "676f6f64" }],
        "expected_statuses": [{ "start": 200, "end": 300 }] } }))
    .await;
}

#[tokio::test]
async fn by_bytes_over_tcp() {
    // `GET /hc HTTP/1.1`, and ` 200 ` in the answer.
    let get = "474554202f686320485454502f312e310d0a0d0a";
    check(json!({ "tcp_health_check": { "send": { "text": get },
        "receive": [{ "text": "20323030" }] } }))
    .await;
}
