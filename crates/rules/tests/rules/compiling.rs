//! What compiles, what is rejected, and what is kept.

use std::sync::Arc;

use serde_json::{Value, json};
use sluis_envoy::Kind;
use sluis_rules::{
    Discovery, HttpFilterKind, LbPolicy, Network, Routes, SanKind, Source, UpstreamProtocol,
    compile,
};

use crate::support::{faults, runtime, set};

const TYPE: &str = "type.googleapis.com/envoy.extensions";

fn address(ip: &str, port: u16) -> Value {
    json!({ "socket_address": { "address": ip, "port_value": port } })
}

fn upstream_tls(extra: Value) -> Value {
    let mut context = json!({ "@type": format!("{TYPE}.transport_sockets.tls.v3.UpstreamTlsContext"),
        "sni": "api.data.local",
        "common_tls_context": { "combined_validation_context": {
            "default_validation_context": { "match_typed_subject_alt_names":
                [{ "san_type": "DNS", "matcher": { "exact": "api.data.local" } }] },
            "validation_context_sds_secret_config": { "name": "file-root:system",
                "sds_config": { "api_config_source": { "api_type": "GRPC",
                    "grpc_services": [{ "envoy_grpc": { "cluster_name": "sds-grpc" } }],
                    "transport_api_version": "V3" } } } } } });
    merge(&mut context, extra);
    json!({ "name": "envoy.transport_sockets.tls", "typed_config": context })
}

fn merge(into: &mut Value, from: Value) {
    match (into, from) {
        (Value::Object(into), Value::Object(from)) => {
            for (key, value) in from {
                merge(into.entry(key).or_insert(Value::Null), value);
            }
        }
        (into, from) => *into = from,
    }
}

/// The API's cluster at the gateway, as Istio writes it.
fn api_cluster() -> Value {
    json!({ "name": "outbound|443||api.data.local", "type": "STRICT_DNS",
        "connect_timeout": "10s", "dns_lookup_family": "V4_ONLY", "respect_dns_ttl": true,
        "dns_refresh_rate": "60s", "lb_policy": "ROUND_ROBIN",
        "load_assignment": { "cluster_name": "outbound|443||api.data.local", "endpoints": [
            { "locality": { "region": "eu", "zone": "a" }, "load_balancing_weight": 1,
              "lb_endpoints": [{ "endpoint": { "address": address("api.data.local", 443) },
                "load_balancing_weight": 1,
                "metadata": { "filter_metadata": { "istio": { "workload": ";;;;" } } } }] }] },
        "circuit_breakers": { "thresholds": [{ "max_connections": 4294967295u32,
            "max_pending_requests": 4294967295u32, "max_requests": 4294967295u32,
            "max_retries": 4294967295u32, "track_remaining": true }] },
        "typed_extension_protocol_options": {
            "envoy.extensions.upstreams.http.v3.HttpProtocolOptions": {
                "@type": format!("{TYPE}.upstreams.http.v3.HttpProtocolOptions"),
                "upstream_http_protocol_options": { "auto_sni": true, "auto_san_validation": true },
                "common_http_protocol_options": { "idle_timeout": "30s" },
                "explicit_http_config": { "http_protocol_options": {} } } },
        "metadata": { "filter_metadata": { "istio": { "services": [] } } },
        "common_lb_config": { "healthy_panic_threshold": {} },
        "transport_socket": upstream_tls(json!({})) })
}

fn eds_cluster() -> Value {
    json!({ "name": "outbound|443|mitm|gateway.egress.svc.cluster.local", "type": "EDS",
        "eds_cluster_config": { "eds_config": { "ads": {}, "resource_api_version": "V3",
            "initial_fetch_timeout": "0s" }, "service_name": "eds" },
        "lb_policy": "LEAST_REQUEST", "connect_timeout": "10s",
        "transport_socket_matches": [
            { "name": "tlsMode-istio", "match": { "tlsMode": "istio" },
              "transport_socket": upstream_tls(json!({})) },
            { "name": "tlsMode-disabled", "match": {},
              "transport_socket": { "name": "envoy.transport_sockets.raw_buffer" } }] })
}

fn assignment() -> Value {
    let endpoint = |port: u16, metadata: Value| {
        json!({ "health_status": "HEALTHY",
        "endpoint": { "address": address("127.0.0.2", port) },
        "metadata": { "filter_metadata": metadata } })
    };
    json!({ "cluster_name": "eds", "endpoints": [{ "lb_endpoints": [
        endpoint(1, json!({ "envoy.transport_socket_match": { "tlsMode": "istio" } })),
        endpoint(2, json!({}))] }] })
}

fn http_manager(extra: Value) -> Value {
    let mut manager = json!({
        "@type": format!("{TYPE}.filters.network.http_connection_manager.v3.HttpConnectionManager"),
        "stat_prefix": "outbound_0.0.0.0_8443",
        "rds": { "route_config_name": "https.443", "config_source": { "ads": {} } },
        "http_filters": [
            { "name": "envoy.lua", "typed_config": { "@type": format!("{TYPE}.filters.http.lua.v3.Lua"),
              "inline_code": "function envoy_on_request(h) end" } },
            { "name": "cors", "typed_config": { "@type": format!("{TYPE}.filters.http.cors.v3.Cors") } },
            { "name": "fault",
              "typed_config": { "@type": format!("{TYPE}.filters.http.fault.v3.HTTPFault") } },
            { "name": "router",
              "typed_config": { "@type": format!("{TYPE}.filters.http.router.v3.Router") } }],
        "tracing": { "client_sampling": { "value": 100 }, "random_sampling": { "value": 1 } },
        "access_log": [{ "name": "envoy.access_loggers.file", "typed_config": {
            "@type": format!("{TYPE}.access_loggers.file.v3.FileAccessLog"), "path": "/dev/stdout",
            "log_format": { "text_format_source": { "inline_string": "[%START_TIME%]\n" },
                "formatters": [{ "name": "envoy.formatter.req_without_query", "typed_config":
                    { "@type": format!("{TYPE}.formatter.req_without_query.v3.ReqWithoutQuery") } }] }
        } }],
        "use_remote_address": true, "forward_client_cert_details": "SANITIZE_SET",
        "set_current_client_cert_details": { "subject": true, "uri": true, "dns": true },
        "upgrade_configs": [{ "upgrade_type": "websocket" }], "stream_idle_timeout": "0s",
        "normalize_path": true, "path_with_escaped_slashes_action": "KEEP_UNCHANGED",
        "request_id_extension": { "typed_config": {
            "@type": format!("{TYPE}.request_id.uuid.v3.UuidRequestIdConfig"),
            "use_request_id_for_trace_sampling": true } },
        "http_protocol_options": {}, "server_name": "istio-envoy" });
    merge(&mut manager, extra);
    json!({ "name": "envoy.filters.network.http_connection_manager", "typed_config": manager })
}

fn gateway_listener(extra: Value) -> Value {
    let sds = |name: &str| json!({ "name": name, "sds_config": { "ads": {} } });
    let mut listener = json!({ "name": "0.0.0.0_8443", "address": address("0.0.0.0", 8443),
        "traffic_direction": "OUTBOUND", "continue_on_listener_filters_timeout": true,
        "listener_filters_timeout": "0s",
        "listener_filters": [{ "name": "envoy.filters.listener.tls_inspector", "typed_config":
            { "@type": format!("{TYPE}.filters.listener.tls_inspector.v3.TlsInspector") } }],
        "filter_chains": [{
            "filter_chain_match": { "server_names": ["api.data.local"] },
            "transport_socket": { "name": "envoy.transport_sockets.tls", "typed_config": {
                "@type": format!("{TYPE}.transport_sockets.tls.v3.DownstreamTlsContext"),
                "require_client_certificate": false,
                "common_tls_context": { "alpn_protocols": ["h2", "http/1.1"],
                    "tls_params": { "tls_minimum_protocol_version": "TLSv1_2" },
                    "tls_certificate_sds_secret_configs": [sds("file-cert:/a.crt~/a.key")] } } },
            "filters": [http_manager(json!({}))] }] });
    merge(&mut listener, extra);
    listener
}

fn routes() -> Value {
    json!({ "name": "https.443", "validate_clusters": false,
        "max_direct_response_body_size_bytes": 1048576,
        "virtual_hosts": [{ "name": "api.data.local:443", "domains": ["api.data.local"],
            "include_request_attempt_count": true,
            "routes": [{ "match": { "prefix": "/" }, "decorator": { "operation": "api:443/*" },
                "route": { "cluster": "outbound|443||api.data.local", "timeout": "0s",
                    "retry_policy": { "num_retries": 2, "retry_on":
                        "connect-failure,refused-stream,unavailable,cancelled,retriable-status-codes",
                      "retry_host_predicate": [{ "name": "envoy.retry_host_predicates.previous_hosts" }],
                      "host_selection_retry_max_attempts": "5", "retriable_status_codes": [503] },
                    "max_stream_duration": { "max_stream_duration": "0s",
                        "grpc_timeout_header_max": "0s" } } }] },
            { "name": "blackhole", "domains": ["*"], "routes": [{ "name": "block_all",
                "match": { "prefix": "/" }, "direct_response": { "status": 502 } }] }] })
}

/// One of each kind, as an egress gateway has them.
pub(crate) fn everything() -> Vec<(Kind, Value)> {
    let passthrough = json!({ "name": "PassthroughCluster", "type": "ORIGINAL_DST",
        "lb_policy": "CLUSTER_PROVIDED", "connect_timeout": "10s" });
    let black_hole =
        json!({ "name": "BlackHoleCluster", "type": "STATIC", "connect_timeout": "10s" });
    vec![
        (Kind::Cluster, api_cluster()),
        (Kind::Cluster, eds_cluster()),
        (Kind::Cluster, passthrough),
        (Kind::Cluster, black_hole),
        (Kind::Endpoints, assignment()),
        (Kind::Listener, gateway_listener(json!({}))),
        (Kind::Route, routes()),
    ]
}

#[test]
fn what_an_egress_gateway_has_compiles() {
    let runtime = runtime(&everything());
    let cluster = runtime.cluster("outbound|443||api.data.local").unwrap();
    assert_eq!(cluster.discovery, Discovery::StrictDns);
    assert_eq!(cluster.policy, LbPolicy::RoundRobin);
    assert_eq!(cluster.protocol, UpstreamProtocol::Http1);
    assert_eq!(cluster.panic_threshold, 0);
    assert!(cluster.auto_sni && cluster.auto_san_validation);
    assert_eq!(&*cluster.endpoints.list[0].locality, "eu/a");
    let tls = cluster.tls.as_ref().unwrap();
    let validation = tls.validation.as_ref().unwrap();
    assert_eq!(validation.roots.as_str(), "file-root:system");
    assert_eq!(validation.sans[0].kind, SanKind::Dns);

    let chain = &runtime.listeners["0.0.0.0_8443"].chains[0];
    assert_eq!(chain.tls.as_ref().unwrap().certificates[0].as_str(), "file-cert:/a.crt~/a.key");
    let Network::Http(manager) = &chain.network else { panic!("{chain:?}") };
    assert_eq!(manager.routes, Routes::Named("https.443".into()));
    assert!(runtime.routes_of(manager).is_some());
    assert_eq!(manager.stream_idle_timeout, None);
    let [lua, .., router] = &manager.filters[..] else { panic!("{:?}", manager.filters) };
    assert!(
        matches!(&lua.kind, HttpFilterKind::Lua(lua) if matches!(lua.source, Some(Source::Text(_))))
    );
    assert!(matches!(router.kind, HttpFilterKind::Router(_)));
}

#[test]
fn endpoints_take_the_transport_that_their_metadata_matches() {
    let runtime = runtime(&everything());
    let cluster = runtime.cluster("outbound|443|mitm|gateway.egress.svc.cluster.local").unwrap();
    let tls: Vec<bool> = cluster.endpoints.list.iter().map(|e| e.tls.is_some()).collect();
    assert_eq!(tls, [true, false]);
}

#[track_caller]
fn check(resource: (Kind, Value), expected: &str) {
    let faults = faults(&[resource]);
    assert!(faults.contains(expected), "{faults:?} lacks {expected:?}");
}

#[test]
fn what_is_not_understood_is_refused_by_name() {
    let listener = |extra| (Kind::Listener, gateway_listener(extra));
    let manager =
        |extra| listener(json!({ "filter_chains": [{ "filters": [http_manager(extra)] }] }));
    let cluster = |extra| {
        let mut cluster = api_cluster();
        merge(&mut cluster, extra);
        (Kind::Cluster, cluster)
    };
    let unknown = json!({ "@type": format!("{TYPE}.filters.http.oauth2.v3.OAuth2") });
    let router = json!({ "name": "router",
        "typed_config": { "@type": format!("{TYPE}.filters.http.router.v3.Router") } });
    let in_chain = "LDS 0.0.0.0_8443: filter_chains[0].filters[0].typed_config";
    for (resource, expected) in [
        (
            manager(
                json!({ "http_filters": [{ "name": "oauth2", "typed_config": unknown }, router] }),
            ),
            format!(
                "{in_chain}.http_filters[0].typed_config: HTTP filter \
                envoy.extensions.filters.http.oauth2.v3.OAuth2 is not supported"
            ),
        ),
        (
            manager(json!({ "http_filters": [router, router] })),
            format!("{in_chain}.http_filters: must end in the router"),
        ),
        (manager(json!({ "http_filters": [] })), format!("{in_chain}.http_filters: must end")),
        (
            manager(json!({ "add_user_agent": true })),
            format!("{in_chain}.add_user_agent: is not supported"),
        ),
        (
            manager(json!({ "http_protocol_options": { "allow_chunked_length": true } })),
            format!("{in_chain}.http_protocol_options.allow_chunked_length"),
        ),
        (manager(json!({ "codec_type": "HTTP3" })), format!("{in_chain}.codec_type")),
        (
            listener(
                json!({ "additional_addresses": [{ "address": address("::", 1), "tcp_keepalive": {} }] }),
            ),
            "LDS 0.0.0.0_8443: additional_addresses[0].tcp_keepalive".to_owned(),
        ),
        (
            listener(json!({ "address": address("gateway.local", 1) })),
            "address: \"gateway.local\" is not an IP address".to_owned(),
        ),
        (
            listener(json!({ "listener_filters": [{ "name": "x", "typed_config": {
            "@type": format!("{TYPE}.filters.listener.original_src.v3.OriginalSrc"),
            "bind_port": true } }] })),
            "listener_filters[0].typed_config.bind_port".to_owned(),
        ),
        (cluster(json!({ "queuing_policies": {} })), "queuing_policies: is not".to_owned()),
        (cluster(json!({ "filters": [{}] })), "filters: is not supported".to_owned()),
        (
            cluster(json!({ "lb_policy": "LOAD_BALANCING_POLICY_CONFIG" })),
            "lb_policy: is not supported".to_owned(),
        ),
        (cluster(json!({ "type": "STATIC" })), "load_assignment: holds a host name".to_owned()),
        (cluster(json!({ "type": "EDS" })), "load_assignment: does not go".to_owned()),
        (cluster(json!({ "connect_timeout": "-1s" })), "connect_timeout: is not a".to_owned()),
        (
            cluster(json!({ "transport_socket": upstream_tls(json!({ "common_tls_context": {
            "tls_params": { "tls_minimum_protocol_version": "TLSv1_0" } } })) })),
            "tls_minimum_protocol_version: must be TLSv1_2 or TLSv1_3".to_owned(),
        ),
    ] {
        check(resource, &expected);
    }
}

#[test]
fn an_optional_filter_that_is_unknown_is_left_out() {
    let unknown = json!({ "@type": format!("{TYPE}.filters.http.oauth2.v3.OAuth2") });
    let manager = http_manager(json!({ "http_filters": [
        { "name": "oauth2", "is_optional": true, "typed_config": unknown },
        { "name": "router",
          "typed_config": { "@type": format!("{TYPE}.filters.http.router.v3.Router") } }] }));
    let chains = json!({ "filter_chains": [{ "filters": [manager] }] });
    let runtime = runtime(&[(Kind::Listener, gateway_listener(chains))]);
    let Network::Http(manager) = &runtime.listeners["0.0.0.0_8443"].chains[0].network else {
        panic!("not HTTP");
    };
    assert_eq!(manager.filters.len(), 1);
}

#[test]
fn verification_of_a_server_is_switched_off_only_in_so_many_words() {
    let cluster = |common: Value| {
        let context = json!({ "@type": format!("{TYPE}.transport_sockets.tls.v3.UpstreamTlsContext"),
            "common_tls_context": common });
        let socket = json!({ "name": "tls", "typed_config": context });
        (Kind::Cluster, json!({ "name": "c", "transport_socket": socket }))
    };
    check(cluster(json!({})), "does not say how to verify the server");
    let sans = json!({ "match_typed_subject_alt_names":
        [{ "san_type": "DNS", "matcher": { "exact": "a" } }] });
    check(cluster(json!({ "validation_context": sans })), "names no roots");
    let insecure = runtime(&[cluster(json!({ "validation_context": {} }))]);
    assert_eq!(insecure.clusters["c"].tls.as_ref().unwrap().validation, None);
    let files = runtime(&[cluster(json!({
        "tls_certificates": [{ "certificate_chain": { "filename": "/c.pem" },
            "private_key": { "filename": "/k.pem" } }],
        "validation_context": { "trusted_ca": { "filename": "/ca.pem" } } }))]);
    let tls = files.clusters["c"].tls.as_ref().unwrap();
    assert_eq!(tls.certificate.as_ref().unwrap().as_str(), "file-cert:/c.pem~/k.pem");
    assert_eq!(tls.validation.as_ref().unwrap().roots.as_str(), "file-root:/ca.pem");
    check(
        cluster(json!({ "validation_context": {}, "tls_certificates": [{
            "certificate_chain": { "filename": "/c.pem" },
            "private_key": { "inline_string": "secret" } }] })),
        "private_key: is not a file name",
    );
}

#[test]
fn a_rejected_resource_keeps_its_last_good_form() {
    let before = compile(&set(&everything()), None).runtime;
    let mut bad = api_cluster();
    merge(&mut bad, json!({ "queuing_policies": {} }));
    let mut resources = everything();
    resources[0] = (Kind::Cluster, bad.clone());
    let after = compile(&set(&resources), Some(&before));
    assert_eq!(after.faults.len(), 1);
    let name = "outbound|443||api.data.local";
    assert!(Arc::ptr_eq(&after.runtime.clusters[name], &before.clusters[name]));
    // It is reported again while it lasts, and gone when it is no longer asked for.
    let again = compile(&set(&resources), Some(&after.runtime));
    assert_eq!(again.faults, after.faults);
    let fresh = compile(&set(&[(Kind::Cluster, bad)]), None);
    assert!(fresh.runtime.clusters.is_empty());
    assert!(compile(&set(&[]), Some(&before)).runtime.clusters.is_empty());
}

#[test]
fn rejected_endpoints_keep_the_last_good_ones() {
    let before = compile(&set(&everything()), None).runtime;
    let mut resources = everything();
    let bad = resources.iter_mut().find(|(kind, _)| *kind == Kind::Endpoints).unwrap();
    bad.1["endpoints"][0]["lb_endpoints"][0]["endpoint"]["address"] = address("name", 1);
    let after = compile(&set(&resources), Some(&before));
    assert_eq!(after.faults.len(), 1);
    assert_eq!(after.faults[0].to_string(), "EDS eds: endpoints[0]: \"name\" is not an IP address");
    let name = "outbound|443|mitm|gateway.egress.svc.cluster.local";
    assert_eq!(after.runtime.clusters[name].endpoints.list.len(), 2);
}

#[test]
fn what_did_not_change_is_shared() {
    let before = compile(&set(&everything()), None).runtime;
    let mut resources = everything();
    let (_, listener) = resources.iter_mut().find(|(kind, _)| *kind == Kind::Listener).unwrap();
    let mut other = listener["filter_chains"][0].clone();
    other["filter_chain_match"]["server_names"] = json!(["other.local"]);
    listener["filter_chains"].as_array_mut().unwrap().insert(0, other);
    let after = compile(&set(&resources), Some(&before)).runtime;
    for name in before.clusters.keys() {
        assert!(Arc::ptr_eq(&after.clusters[name], &before.clusters[name]), "{name}");
    }
    assert!(Arc::ptr_eq(&after.routes["https.443"], &before.routes["https.443"]));
    let chains = |runtime: &sluis_rules::Runtime| runtime.listeners["0.0.0.0_8443"].chains.clone();
    assert!(Arc::ptr_eq(&chains(&after)[1], &chains(&before)[0]));
}

#[test]
fn names_that_runtimes_refer_to_are_listed() {
    let runtime = runtime(&everything());
    assert_eq!(runtime.route_names(), ["https.443".into()]);
    assert_eq!(runtime.assignment_names(), ["eds".into()]);
}

#[test]
fn clients_are_offered_the_protocols_of_the_resource() {
    let runtime = runtime(&everything());
    let alpn = &runtime.listeners["0.0.0.0_8443"].chains[0].tls.as_ref().unwrap().alpn;
    assert_eq!(alpn.iter().map(|name| &**name).collect::<Vec<_>>(), ["h2", "http/1.1"]);
    // Bytes that are forwarded unread may be of any protocol.
    let bytes = json!({ "name": "l", "address": { "socket_address":
        { "address": "127.0.0.1", "port_value": 1 } }, "filter_chains": [{
        "filters": [{ "name": "tcp", "typed_config": {
            "@type": "type.googleapis.com/envoy.extensions.filters.network.tcp_proxy.v3.TcpProxy",
            "stat_prefix": "x", "cluster": "c" } }],
        "transport_socket": { "name": "tls", "typed_config": {
            "@type": "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.DownstreamTlsContext",
            "common_tls_context": { "alpn_protocols": ["h2"], "tls_certificate_sds_secret_configs":
                [{ "name": "default", "sds_config": { "ads": {} } }] } } } }] });
    let compiled = crate::support::runtime(&[(Kind::Listener, bytes)]);
    assert_eq!(&*compiled.listeners["l"].chains[0].tls.as_ref().unwrap().alpn[0], "h2");
}
