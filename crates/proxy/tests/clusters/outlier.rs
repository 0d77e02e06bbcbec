//! Endpoints that fail are taken out.

use serde_json::json;

use crate::{
    harness::soon,
    sides::{Client, Origin, cluster, sides, to_origin},
};

/// Asks until twenty answers in a row are good, where every second one is by turns: the endpoint has
/// been taken out, by another thread in its own time. Says how many were bad.
async fn failures_until_taken_out(client: &mut Client, bad: u16) -> u32 {
    const IN_A_ROW: u32 = 20;
    let asked = async {
        let (mut failed, mut good) = (0, 0);
        while good < IN_A_ROW {
            let is_bad = client.get("/", &[]).await.status == bad;
            failed += u32::from(is_bad);
            good = if is_bad { 0 } else { good + 1 };
        }
        failed
    };
    soon("the endpoint is taken out", asked).await
}

#[tokio::test]
async fn an_endpoint_that_answers_badly_gets_no_more_requests() {
    let (good, bad) = (Origin::start("good").await, Origin::failing("bad", 500).await);
    let fields = json!({
        "common_lb_config": { "healthy_panic_threshold": { "value": 0 } },
        "outlier_detection": { "consecutive_5xx": 3, "interval": "60s", "base_ejection_time": "60s",
            "max_ejection_percent": 50 } });
    for side in sides(to_origin(json!({})), json!([cluster(&[&good, &bad], fields)])).await {
        let mut client = side.client().await;
        let failed = failures_until_taken_out(&mut client, 500).await;
        assert!(failed >= 3, "{} saw {failed}", side.name);
    }
}

#[tokio::test]
async fn an_endpoint_that_cannot_be_reached_is_taken_out_and_requests_are_retried() {
    let good = Origin::start("good").await;
    let gone = Origin::start("gone").await.address;
    let mut cluster = cluster(
        &[&good],
        json!({
            "common_lb_config": { "healthy_panic_threshold": { "value": 0 } },
            "outlier_detection": { "split_external_local_origin_errors": true,
                "consecutive_local_origin_failure": 2, "interval": "60s",
                "base_ejection_time": "60s", "max_ejection_percent": 50 } }),
    );
    let list = &mut cluster["load_assignment"]["endpoints"][0]["lb_endpoints"];
    list.as_array_mut().unwrap().push(crate::sides::endpoint(gone));
    for side in sides(to_origin(json!({})), json!([cluster])).await {
        let mut client = side.client().await;
        let failed = failures_until_taken_out(&mut client, 503).await;
        assert!(failed >= 2, "{} saw {failed}", side.name);
    }
}
