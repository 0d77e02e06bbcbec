//! A key goes to the endpoint to which Envoy sends it.

use serde_json::{Value, json};

use crate::sides::{Origin, cluster, endpoint, sides, to_origin};

/// Keys that are compared.
const KEYS: u32 = 3000;

/// Where each key goes at each proxy; all must agree, and no endpoint may go without.
async fn check(fields: Value) {
    let mut origins = Vec::new();
    for name in ["a", "b", "c", "d", "e"] {
        origins.push(Origin::start(name).await);
    }
    let mut cluster = cluster(&[], fields);
    let endpoints: Vec<Value> = (1..)
        .zip(&origins)
        .map(|(weight, origin)| {
            let mut endpoint = endpoint(origin.address);
            endpoint["load_balancing_weight"] = json!(weight);
            if weight == 3 {
                endpoint["metadata"] =
                    json!({ "filter_metadata": { "envoy.lb": { "hash_key": "third" } } });
            }
            endpoint
        })
        .collect();
    cluster["load_assignment"]["endpoints"][0]["lb_endpoints"] = json!(endpoints);
    let hash = json!({ "hash_policy": [{ "header": { "header_name": "x-key" } }] });
    let mut placed: Vec<(&str, Vec<String>)> = Vec::new();
    for side in sides(to_origin(hash), json!([cluster])).await {
        let mut client = side.client().await;
        let mut names = Vec::new();
        for key in 0..KEYS {
            let answer = client.get("/", &[("x-key", &format!("key-{key}"))]).await;
            assert_eq!(answer.status, 200, "{}", answer.body);
            names.push(answer.body);
        }
        placed.push((side.name, names));
    }
    let (_, ours) = &placed[0];
    for name in ["a", "b", "c", "d", "e"] {
        let count = ours.iter().filter(|found| *found == name).count();
        assert!(count > 20, "{name} got {count} of {KEYS}");
    }
    for (name, other) in &placed[1..] {
        let differing = ours.iter().zip(other).filter(|(a, b)| a != b).count();
        assert_eq!(differing, 0, "{differing} of {KEYS} keys go elsewhere at {name}");
    }
}

#[tokio::test]
async fn on_a_ring_of_xxh64() {
    check(json!({ "lb_policy": "RING_HASH" })).await;
}

#[tokio::test]
async fn on_a_ring_of_murmur_with_few_places() {
    check(json!({ "lb_policy": "RING_HASH", "ring_hash_lb_config": {
        "hash_function": "MURMUR_HASH_2", "minimum_ring_size": 100, "maximum_ring_size": 120 } }))
    .await;
}

#[tokio::test]
async fn in_the_table_of_maglev() {
    check(json!({ "lb_policy": "MAGLEV" })).await;
}

#[tokio::test]
async fn in_a_small_table_that_an_extension_asks_for() {
    check(json!({ "load_balancing_policy": { "policies": [{ "typed_extension_config": {
        "name": "m", "typed_config": {
            "@type": "type.googleapis.com/envoy.extensions.load_balancing_policies.maglev.v3.Maglev",
            "table_size": 251 } } }] } }))
    .await;
}
