//! How endpoints share the requests.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use crate::sides::{Origin, Side, cluster, endpoint, sides, to_origin};

/// How many of so many requests each origin gets.
async fn counts(side: &Side, requests: u32) -> BTreeMap<String, u32> {
    let mut client = side.client().await;
    let mut counts = BTreeMap::new();
    for _ in 0..requests {
        let answer = client.get("/", &[]).await;
        *counts.entry(format!("{}{}", answer.status, answer.body)).or_default() += 1;
    }
    counts
}

#[track_caller]
fn check_near(counts: &BTreeMap<String, u32>, expected: &[(&str, u32)], name: &str) {
    let total: u32 = counts.values().sum();
    for (origin, want) in expected {
        let got = counts.get(&format!("200{origin}")).copied().unwrap_or(0);
        assert!(got.abs_diff(*want) <= total / 12, "{origin} at {name}: {counts:?}");
    }
}

async fn origins() -> [Origin; 3] {
    [Origin::start("a").await, Origin::start("b").await, Origin::start("c").await]
}

/// A name, weight, priority, and endpoints with their health.
type Locality<'o> = (&'o str, u32, u32, &'o [(&'o Origin, &'o str)]);

/// A cluster of these localities.
fn localities(list: &[Locality<'_>], fields: Value) -> Value {
    let mut cluster = cluster(&[], fields);
    let endpoints = list.iter().map(|(name, weight, priority, members)| {
        let members: Vec<Value> = members
            .iter()
            .map(|(origin, health)| {
                let mut endpoint = endpoint(origin.address);
                endpoint["health_status"] = json!(health);
                endpoint
            })
            .collect();
        json!({ "locality": { "region": name }, "load_balancing_weight": weight,
            "priority": priority, "lb_endpoints": members })
    });
    cluster["load_assignment"]["endpoints"] = endpoints.collect();
    cluster
}

#[tokio::test]
async fn by_weight_in_turn_and_for_the_least_loaded() {
    let [a, b, c] = origins().await;
    for policy in ["ROUND_ROBIN", "LEAST_REQUEST"] {
        let mut cluster = cluster(&[&a, &b, &c], json!({ "lb_policy": policy }));
        let list = &mut cluster["load_assignment"]["endpoints"][0]["lb_endpoints"];
        for (at, weight) in [5, 1, 4].into_iter().enumerate() {
            list[at]["load_balancing_weight"] = json!(weight);
        }
        for side in sides(to_origin(json!({})), json!([cluster])).await {
            let counts = counts(&side, 200).await;
            check_near(&counts, &[("a", 100), ("b", 20), ("c", 80)], side.name);
        }
    }
}

#[tokio::test]
async fn by_locality_weight_and_what_is_left_of_each() {
    let [a, b, c] = origins().await;
    let fields = json!({ "common_lb_config": { "locality_weighted_lb_config": {},
        "healthy_panic_threshold": { "value": 0 } } });
    let list: [Locality<'_>; 2] =
        [("one", 3, 0, &[(&a, "HEALTHY")]), ("two", 1, 0, &[(&b, "HEALTHY"), (&c, "UNHEALTHY")])];
    for side in sides(to_origin(json!({})), json!([localities(&list, fields)])).await {
        let counts = counts(&side, 400).await;
        check_near(&counts, &[("a", 324), ("b", 76), ("c", 0)], side.name);
    }
}

#[tokio::test]
async fn the_next_priority_takes_what_the_first_cannot() {
    let [a, b, c] = origins().await;
    // Half of the first is healthy: 70 % stay, by the overprovisioning of 1.4. What drains is not
    // counted at all: the first is whole.
    for (health, expected) in [
        ("UNHEALTHY", [("a", 210), ("b", 0), ("c", 90)]),
        ("DRAINING", [("a", 300), ("b", 0), ("c", 0)]),
    ] {
        let list: [Locality<'_>; 2] =
            [("one", 1, 0, &[(&a, "HEALTHY"), (&b, health)]), ("two", 1, 1, &[(&c, "HEALTHY")])];
        for side in sides(to_origin(json!({})), json!([localities(&list, json!({}))])).await {
            let counts = counts(&side, 300).await;
            check_near(&counts, &expected, side.name);
        }
    }
}

#[tokio::test]
async fn degraded_endpoints_and_panic() {
    let [a, b, c] = origins().await;
    let lonely: [Locality<'_>; 1] =
        [("one", 1, 0, &[(&a, "HEALTHY"), (&b, "UNHEALTHY"), (&c, "UNHEALTHY")])];
    // A third is healthy, less than half: all are used.
    for side in sides(to_origin(json!({})), json!([localities(&lonely, json!({}))])).await {
        let counts = counts(&side, 300).await;
        check_near(&counts, &[("a", 100), ("b", 100), ("c", 100)], side.name);
    }
    let mixed: [Locality<'_>; 1] =
        [("one", 1, 0, &[(&a, "HEALTHY"), (&b, "DEGRADED"), (&c, "DEGRADED")])];
    let fields = json!({ "common_lb_config": { "healthy_panic_threshold": { "value": 0 } } });
    for side in sides(to_origin(json!({})), json!([localities(&mixed, fields)])).await {
        let counts = counts(&side, 300).await;
        check_near(&counts, &[("a", 138), ("b", 81), ("c", 81)], side.name);
    }
}

#[tokio::test]
async fn a_busy_endpoint_is_avoided() {
    let (a, b) = (Origin::start("a").await, Origin::start("b").await);
    let fields = json!({ "lb_policy": "LEAST_REQUEST",
        "least_request_lb_config": { "choice_count": 10 } });
    for side in sides(to_origin(json!({})), json!([cluster(&[&a, &b], fields)])).await {
        let mut busy = side.client().await;
        busy.send("/hold", &[]).await;
        let held = tokio::select! { () = a.holds_one() => &a, () = b.holds_one() => &b };
        let other = if std::ptr::eq(held, &a) { "b" } else { "a" };
        let counts = counts(&side, 100).await;
        check_near(&counts, &[(other, 100)], side.name);
        held.release();
        assert_eq!(busy.answer().await.status, 200);
    }
}

#[tokio::test]
async fn a_route_asks_for_the_endpoints_of_a_subset() {
    let [a, b, c] = origins().await;
    let mut cluster = cluster(
        &[&a, &b, &c],
        json!({ "lb_subset_config": { "fallback_policy": "NO_FALLBACK",
            "subset_selectors": [{ "keys": ["version"] }] } }),
    );
    let list = &mut cluster["load_assignment"]["endpoints"][0]["lb_endpoints"];
    for (at, version) in ["1", "2", "2"].into_iter().enumerate() {
        list[at]["metadata"] = json!({ "filter_metadata": { "envoy.lb": { "version": version } } });
    }
    let of = |version: &str| {
        to_origin(json!({ "metadata_match": {
            "filter_metadata": { "envoy.lb": { "version": version } } } }))
    };
    for side in sides(of("2"), json!([cluster])).await {
        let counts = counts(&side, 100).await;
        check_near(&counts, &[("a", 0), ("b", 50), ("c", 50)], side.name);
    }
    for side in sides(of("3"), json!([cluster])).await {
        let name = side.name;
        assert_eq!(
            counts(&side, 1).await.into_keys().collect::<Vec<_>>(),
            ["503no healthy upstream"]
        );
        assert_eq!(side.log().await, ["503 UH no_healthy_upstream"], "{name}");
    }
}

#[tokio::test]
async fn a_new_endpoint_grows_into_its_share() {
    let [a, b, _] = origins().await;
    let mut cluster = cluster(
        &[&a, &b],
        json!({ "round_robin_lb_config": { "slow_start_config": {
            "slow_start_window": "60s", "min_weight_percent": { "value": 10 } } } }),
    );
    cluster["load_assignment"]["endpoints"][0]["lb_endpoints"][0]["load_balancing_weight"] =
        json!(3);
    for side in sides(to_origin(json!({})), json!([cluster])).await {
        // Both are new, so that weights are what they were.
        let counts = counts(&side, 200).await;
        check_near(&counts, &[("a", 150), ("b", 50)], side.name);
    }
}
