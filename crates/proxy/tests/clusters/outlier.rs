//! Endpoints that fail are taken out.

use serde_json::json;

use crate::sides::{Origin, cluster, sides, to_origin};

#[tokio::test]
async fn an_endpoint_that_answers_badly_gets_no_more_requests() {
    let (good, bad) = (Origin::start("good").await, Origin::failing("bad", 500).await);
    let fields = json!({
        "common_lb_config": { "healthy_panic_threshold": { "value": 0 } },
        "outlier_detection": { "consecutive_5xx": 3, "interval": "60s", "base_ejection_time": "60s",
            "max_ejection_percent": 50 } });
    for side in sides(to_origin(json!({})), json!([cluster(&[&good, &bad], fields)])).await {
        let mut client = side.client().await;
        let mut failed = 0;
        for _ in 0..40 {
            failed += u32::from(client.get("/", &[]).await.status == 500);
        }
        // One more may be on its way while the control thread takes it out.
        assert!((3..=5).contains(&failed), "{} saw {failed}", side.name);
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
        let mut failed = 0;
        for _ in 0..40 {
            failed += u32::from(client.get("/", &[]).await.status == 503);
        }
        assert!((2..=4).contains(&failed), "{} saw {failed}", side.name);
    }
}
