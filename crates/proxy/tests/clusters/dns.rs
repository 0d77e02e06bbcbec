//! Clusters whose endpoints have names.

use serde_json::{Value, json};

use crate::sides::{Dns, Origin, Serve, cluster, sides, to_origin};

const TYPE: &str = "type.googleapis.com/envoy.extensions";

#[tokio::test]
async fn a_name_is_asked_for_again_when_its_time_is_up() {
    let origin = Origin::start("a").await;
    for extension in [false, true] {
        let dns = Dns::start(&[("api.test", &[], 1)]).await;
        let mut cluster = cluster(&[], json!({}));
        let own = json!({ "dns_lookup_family": "V4_ONLY", "respect_dns_ttl": true,
            "dns_refresh_rate": "1s", "typed_dns_resolver_config": dns.resolver() });
        if extension {
            let mut config = own;
            config["@type"] = json!(format!("{TYPE}.clusters.dns.v3.DnsCluster"));
            cluster.as_object_mut().unwrap().remove("type");
            cluster["cluster_type"] =
                json!({ "name": "envoy.cluster.dns", "typed_config": config });
        } else {
            cluster["type"] = json!("STRICT_DNS");
            for (name, value) in own.as_object().unwrap() {
                cluster[name] = value.clone();
            }
        }
        cluster["load_assignment"]["endpoints"][0]["lb_endpoints"] = json!([{ "endpoint": {
            "address": { "socket_address": { "address": "api.test",
                "port_value": origin.address.port() } } } }]);
        for side in sides(to_origin(json!({})), json!([cluster])).await {
            dns.set("api.test", &[], 1);
            let mut client = side.client().await;
            let mut until = async |status| {
                let reached = async { while client.get("/", &[]).await.status != status {} };
                crate::harness::soon("status", reached).await;
            };
            until(503).await;
            dns.set("api.test", &[[127, 0, 0, 1]], 1);
            until(200).await;
            // The name has no address any more.
            dns.set("api.test", &[], 1);
            until(503).await;
        }
    }
}

fn dynamic(dns: &Dns, metadata: Value) -> (Value, Value) {
    let cache = json!({ "name": "cache", "dns_lookup_family": "V4_ONLY",
        "typed_dns_resolver_config": dns.resolver() });
    let cluster = json!({ "name": "origin", "lb_policy": "CLUSTER_PROVIDED",
        "connect_timeout": "2s", "metadata": { "filter_metadata": { "sluis.dev": metadata } },
        "cluster_type": { "name": "envoy.clusters.dynamic_forward_proxy", "typed_config": {
            "@type": format!("{TYPE}.clusters.dynamic_forward_proxy.v3.ClusterConfig"),
            "dns_cache_config": cache } } });
    let filter = json!({ "name": "dynamic", "typed_config": {
        "@type": format!("{TYPE}.filters.http.dynamic_forward_proxy.v3.FilterConfig"),
        "dns_cache_config": cache } });
    (cluster, filter)
}

fn through(filter: Value) -> Serve {
    let routes = json!([{ "match": { "prefix": "/" }, "route": { "cluster": "origin" } }]);
    Serve::Filtered(routes, filter)
}

#[tokio::test]
async fn a_request_goes_to_the_host_that_it_names() {
    let origin = Origin::start("a").await;
    let port = origin.address.port();
    let local: &[[u8; 4]] = &[[127, 0, 0, 1]];
    let dns = Dns::start(&[("one.api.test", local, 60), ("other.test", local, 60)]).await;
    let reach = json!({ "allow_private": true, "pattern": "*.api.test" });
    let (cluster, filter) = dynamic(&dns, reach);
    for side in sides(through(filter), json!([cluster])).await {
        let mut client = side.client().await;
        let answer = client.get_from(&format!("one.api.test:{port}"), "/").await;
        assert_eq!((answer.status, &*answer.body), (200, "a"), "{}", side.name);
        let answer = client.get_from(&format!("gone.api.test:{port}"), "/").await;
        assert_eq!(
            (answer.status, &*answer.body),
            (503, "DNS resolution failure"),
            "{}",
            side.name
        );
        if side.name == "sluis" {
            let answer = client.get_from(&format!("other.test:{port}"), "/").await;
            assert_eq!(answer.status, 403);
            let log = side.log().await;
            assert!(log.contains(&"403 UH dynamic_forward_host_not_allowed".to_owned()), "{log:?}");
            assert!(
                log.iter().any(|line| line.starts_with("503 DF dns_resolution_fail")),
                "{log:?}"
            );
        } else {
            let log = side.log().await;
            assert!(
                log.iter().any(|line| line.starts_with("503 DF dns_resolution_fail")),
                "{log:?}"
            );
        }
    }
}

/// Whatever a name resolves to, it must not lead into the machine or its network.
#[tokio::test]
async fn private_addresses_are_not_reached_unless_the_cluster_says_so() {
    let origin = Origin::start("a").await;
    let port = origin.address.port();
    let dns = Dns::start(&[
        ("loop.test", &[[127, 0, 0, 1]], 60),
        ("metadata.test", &[[169, 254, 169, 254]], 60),
        ("inside.test", &[[10, 1, 2, 3]], 60),
    ])
    .await;
    let (cluster, filter) = dynamic(&dns, json!({}));
    let side = sides(through(filter), json!([cluster])).await.remove(0);
    let mut client = side.client().await;
    for host in ["loop.test", "metadata.test", "inside.test", "127.0.0.1", "169.254.169.254"] {
        let answer = client.get_from(&format!("{host}:{port}"), "/").await;
        assert_eq!((answer.status, &*answer.body), (403, "destination is not allowed"), "{host}");
    }
    let log = side.log().await;
    assert_eq!(log, vec!["403 UH dynamic_forward_address_not_allowed"; 5]);
}
