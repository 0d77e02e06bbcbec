//! Brings the values of patches to Envoy's v3 API, as manifests of the time of v2 need it.
//!
//! In:    a value as written.
//! Out:   the same with the names of today's messages, typed structs written out, and the prelude in
//!        front of Lua scripts; the old names that were met.
//! Never: changes what a value says.

use std::collections::BTreeSet;

use serde_json::{Map, Value, json};

const URL_PREFIX: &str = "type.googleapis.com/";

/// The type of Envoy's Lua filter.
const LUA: &str = "type.googleapis.com/envoy.extensions.filters.http.lua.v3.Lua";
/// What a route says of it, with a script of its own perhaps.
const LUA_PER_ROUTE: &str = "type.googleapis.com/envoy.extensions.filters.http.lua.v3.LuaPerRoute";

/// Messages that hold another one as a plain map, under the name of its type.
const TYPED_STRUCTS: [&str; 2] =
    ["type.googleapis.com/udpa.type.v1.TypedStruct", "type.googleapis.com/xds.type.v3.TypedStruct"];

/// HTTP filters: below `envoy.config.filter.http`, and below `envoy.extensions.filters.http`.
const HTTP_FILTERS: [(&str, &str); 25] = [
    ("buffer.v2.Buffer", "buffer.v3.Buffer"),
    ("cors.v2.Cors", "cors.v3.Cors"),
    ("csrf.v2.CsrfPolicy", "csrf.v3.CsrfPolicy"),
    ("dynamic_forward_proxy.v2alpha.FilterConfig", "dynamic_forward_proxy.v3.FilterConfig"),
    ("ext_authz.v2.ExtAuthz", "ext_authz.v3.ExtAuthz"),
    ("fault.v2.HTTPFault", "fault.v3.HTTPFault"),
    ("grpc_http1_bridge.v2.Config", "grpc_http1_bridge.v3.Config"),
    (
        "grpc_http1_reverse_bridge.v2alpha1.FilterConfig",
        "grpc_http1_reverse_bridge.v3.FilterConfig",
    ),
    ("grpc_stats.v2alpha.FilterConfig", "grpc_stats.v3.FilterConfig"),
    ("grpc_web.v2.GrpcWeb", "grpc_web.v3.GrpcWeb"),
    ("header_to_metadata.v2.Config", "header_to_metadata.v3.Config"),
    ("health_check.v2.HealthCheck", "health_check.v3.HealthCheck"),
    ("ip_tagging.v2.IPTagging", "ip_tagging.v3.IPTagging"),
    ("jwt_authn.v2alpha.JwtAuthentication", "jwt_authn.v3.JwtAuthentication"),
    ("lua.v2.Lua", "lua.v3.Lua"),
    ("on_demand.v2.OnDemand", "on_demand.v3.OnDemand"),
    ("original_src.v2alpha1.OriginalSrc", "original_src.v3.OriginalSrc"),
    ("rate_limit.v2.RateLimit", "ratelimit.v3.RateLimit"),
    ("rbac.v2.RBAC", "rbac.v3.RBAC"),
    ("rbac.v2.RBACPerRoute", "rbac.v3.RBACPerRoute"),
    ("router.v2.Router", "router.v3.Router"),
    ("tap.v2alpha.Tap", "tap.v3.Tap"),
    ("transcoder.v2.GrpcJsonTranscoder", "grpc_json_transcoder.v3.GrpcJsonTranscoder"),
    (
        "adaptive_concurrency.v2alpha.AdaptiveConcurrency",
        "adaptive_concurrency.v3.AdaptiveConcurrency",
    ),
    ("compressor.v2.Compressor", "compressor.v3.Compressor"),
];

/// Network filters: below `envoy.config.filter.network`, and below `envoy.extensions.filters.network`.
const NETWORK_FILTERS: [(&str, &str); 15] = [
    ("direct_response.v2.Config", "direct_response.v3.Config"),
    ("echo.v2.Echo", "echo.v3.Echo"),
    ("ext_authz.v2.ExtAuthz", "ext_authz.v3.ExtAuthz"),
    (
        "http_connection_manager.v2.HttpConnectionManager",
        "http_connection_manager.v3.HttpConnectionManager",
    ),
    ("local_rate_limit.v2alpha.LocalRateLimit", "local_ratelimit.v3.LocalRateLimit"),
    ("mongo_proxy.v2.MongoProxy", "mongo_proxy.v3.MongoProxy"),
    ("rate_limit.v2.RateLimit", "ratelimit.v3.RateLimit"),
    ("rbac.v2.RBAC", "rbac.v3.RBAC"),
    ("redis_proxy.v2.RedisProxy", "redis_proxy.v3.RedisProxy"),
    ("sni_cluster.v2.SniCluster", "sni_cluster.v3.SniCluster"),
    ("sni_dynamic_forward_proxy.v2alpha.FilterConfig", "sni_dynamic_forward_proxy.v3.FilterConfig"),
    ("tcp_proxy.v2.TcpProxy", "tcp_proxy.v3.TcpProxy"),
    ("thrift_proxy.v2alpha1.ThriftProxy", "thrift_proxy.v3.ThriftProxy"),
    ("zookeeper_proxy.v2alpha1.ZooKeeperProxy", "zookeeper_proxy.v3.ZooKeeperProxy"),
    ("dubbo_proxy.v2alpha1.DubboProxy", "dubbo_proxy.v3.DubboProxy"),
];

/// Messages that moved elsewhere.
const OTHERS: [(&str, &str); 17] = [
    ("envoy.api.v2.Cluster", "envoy.config.cluster.v3.Cluster"),
    ("envoy.api.v2.Listener", "envoy.config.listener.v3.Listener"),
    ("envoy.api.v2.RouteConfiguration", "envoy.config.route.v3.RouteConfiguration"),
    ("envoy.api.v2.ClusterLoadAssignment", "envoy.config.endpoint.v3.ClusterLoadAssignment"),
    (
        "envoy.api.v2.auth.UpstreamTlsContext",
        "envoy.extensions.transport_sockets.tls.v3.UpstreamTlsContext",
    ),
    (
        "envoy.api.v2.auth.DownstreamTlsContext",
        "envoy.extensions.transport_sockets.tls.v3.DownstreamTlsContext",
    ),
    (
        "envoy.config.accesslog.v2.FileAccessLog",
        "envoy.extensions.access_loggers.file.v3.FileAccessLog",
    ),
    (
        "envoy.config.accesslog.v2.HttpGrpcAccessLogConfig",
        "envoy.extensions.access_loggers.grpc.v3.HttpGrpcAccessLogConfig",
    ),
    (
        "envoy.config.accesslog.v2.TcpGrpcAccessLogConfig",
        "envoy.extensions.access_loggers.grpc.v3.TcpGrpcAccessLogConfig",
    ),
    (
        "envoy.config.filter.listener.original_dst.v2.OriginalDst",
        "envoy.extensions.filters.listener.original_dst.v3.OriginalDst",
    ),
    (
        "envoy.config.filter.listener.original_src.v2alpha1.OriginalSrc",
        "envoy.extensions.filters.listener.original_src.v3.OriginalSrc",
    ),
    (
        "envoy.config.filter.listener.proxy_protocol.v2.ProxyProtocol",
        "envoy.extensions.filters.listener.proxy_protocol.v3.ProxyProtocol",
    ),
    (
        "envoy.config.filter.listener.tls_inspector.v2.TlsInspector",
        "envoy.extensions.filters.listener.tls_inspector.v3.TlsInspector",
    ),
    (
        "envoy.config.filter.listener.http_inspector.v2.HttpInspector",
        "envoy.extensions.filters.listener.http_inspector.v3.HttpInspector",
    ),
    (
        "envoy.config.cluster.dynamic_forward_proxy.v2alpha.ClusterConfig",
        "envoy.extensions.clusters.dynamic_forward_proxy.v3.ClusterConfig",
    ),
    (
        "envoy.config.transport_socket.raw_buffer.v2.RawBuffer",
        "envoy.extensions.transport_sockets.raw_buffer.v3.RawBuffer",
    ),
    ("envoy.config.trace.v2.ZipkinConfig", "envoy.config.trace.v3.ZipkinConfig"),
];

/// What was met in a value.
#[derive(Debug, Default)]
pub(super) struct Met {
    /// The number of Lua scripts.
    pub(super) scripts: usize,
    /// Names of the v2 API.
    pub(super) old_types: BTreeSet<String>,
}

/// Brings a value to Envoy's v3 API and puts the prelude in front of its Lua scripts.
pub(super) fn modernise(value: &mut Value, prelude: Option<&str>, met: &mut Met) {
    match value {
        Value::Array(items) => items.iter_mut().for_each(|item| modernise(item, prelude, met)),
        Value::Object(fields) => {
            write_out(fields);
            let url = fields.get("@type").and_then(Value::as_str).map(str::to_owned);
            if let Some(new) = url.as_deref().and_then(modern_url) {
                met.old_types.extend(url.clone());
                fields.insert("@type".to_owned(), Value::String(new));
            }
            fields.values_mut().for_each(|field| modernise(field, prelude, met));
            let url = fields.get("@type").and_then(Value::as_str);
            if url == Some(LUA) || url == Some(LUA_PER_ROUTE) {
                met.scripts += script(fields, prelude);
            }
        }
        _ => {}
    }
}

/// Writes a typed struct as the message that it stands for, where Envoy's API knows its type.
fn write_out(fields: &mut Map<String, Value>) {
    let is_typed =
        fields.get("@type").and_then(Value::as_str).is_some_and(|url| TYPED_STRUCTS.contains(&url));
    if !is_typed {
        return;
    }
    let url = ["type_url", "typeUrl"].into_iter().find_map(|key| fields.get(key)?.as_str());
    let Some(url) = url.map(|url| modern_url(url).unwrap_or_else(|| url.to_owned())) else {
        return;
    };
    let content = fields.get("value").cloned().unwrap_or_else(|| json!({}));
    let Value::Object(mut content) = content else { return };
    if sluis_protojson::is_known(&url) {
        content.insert("@type".to_owned(), Value::String(url));
        *fields = content;
    }
}

/// The name of today, where the type was renamed.
fn modern_url(url: &str) -> Option<String> {
    let name = url.strip_prefix(URL_PREFIX)?;
    let below = |prefix: &str, table: &[(&str, &str)], new: &str| {
        let rest = name.strip_prefix(prefix)?;
        let (_, found) = table.iter().find(|(old, _)| *old == rest)?;
        Some(format!("{URL_PREFIX}{new}{found}"))
    };
    below("envoy.config.filter.http.", &HTTP_FILTERS, "envoy.extensions.filters.http.")
        .or_else(|| {
            let new = "envoy.extensions.filters.network.";
            below("envoy.config.filter.network.", &NETWORK_FILTERS, new)
        })
        .or_else(|| below("", &OTHERS, ""))
}

/// Moves `inlineCode` to where Envoy wants it today, and puts the prelude in front.
fn script(fields: &mut Map<String, Value>, prelude: Option<&str>) -> usize {
    for old in ["inlineCode", "inline_code"] {
        if let Some(code) = fields.remove(old) {
            fields.insert("default_source_code".to_owned(), json!({ "inline_string": code }));
        }
    }
    let own = ["default_source_code", "defaultSourceCode", "source_code", "sourceCode"];
    let mut found = 0;
    for name in own {
        found += fields.get_mut(name).map_or(0, |one| begin(one, prelude));
    }
    for name in ["source_codes", "sourceCodes"] {
        if let Some(Value::Object(named)) = fields.get_mut(name) {
            found += named.values_mut().map(|one| begin(one, prelude)).sum::<usize>();
        }
    }
    found
}

/// Puts the prelude in front of one source, if it is inline. Returns how many that were.
fn begin(source: &mut Value, prelude: Option<&str>) -> usize {
    for name in ["inline_string", "inlineString"] {
        if let Some(Value::String(code)) = source.get_mut(name) {
            if let Some(prelude) = prelude {
                code.insert_str(0, prelude);
            }
            return 1;
        }
    }
    0
}

#[cfg(test)]
mod tests {
    use super::*;

    fn modern(mut value: Value, prelude: Option<&str>) -> (Value, Met) {
        let mut met = Met::default();
        modernise(&mut value, prelude, &mut met);
        (value, met)
    }

    #[test]
    fn every_inline_script_begins_with_the_prelude() {
        let filter = json!({"@type": LUA, "sourceCodes": {
            "a": {"inlineString": "a()"}, "b": {"filename": "/b.lua"}, "c": {"inline_string": "c()"},
        }});
        let (value, met) = modern(filter, Some("key = 1 "));
        assert_eq!(value["sourceCodes"]["a"]["inlineString"], "key = 1 a()");
        assert_eq!(value["sourceCodes"]["c"]["inline_string"], "key = 1 c()");
        assert_eq!(met.scripts, 2);
        let route = json!({"@type": LUA_PER_ROUTE, "source_code": {"inline_string": "d()"}});
        let (value, met) = modern(route, Some("key = 1 "));
        assert_eq!(value["source_code"]["inline_string"], "key = 1 d()");
        assert_eq!(met.scripts, 1);
    }

    #[test]
    fn a_script_of_the_v2_api_becomes_one_of_today_with_its_lines_in_place() {
        let written = json!({
            "name": "envoy.lua",
            "typed_config": {
                "@type": "type.googleapis.com/envoy.config.filter.http.lua.v2.Lua",
                "inlineCode": "first()\nsecond()",
            },
        });
        let (value, met) = modern(written, Some("key=1 "));
        assert_eq!((met.scripts, met.old_types.len()), (1, 1));
        assert_eq!(value["typed_config"]["@type"], LUA);
        let code = &value["typed_config"]["default_source_code"]["inline_string"];
        assert_eq!(code, "key=1 first()\nsecond()");
    }

    #[test]
    fn other_values_stay_as_they_are() {
        let written = json!({"a": [{"@type": "type.googleapis.com/envoy.x.v3.Y", "b": 1}]});
        let (value, met) = modern(written.clone(), Some("x"));
        assert_eq!((value, met.scripts, met.old_types.len()), (written, 0, 0));
    }

    #[test]
    fn a_typed_struct_is_written_out_where_its_type_is_known() {
        const RBAC: &str = "type.googleapis.com/envoy.extensions.filters.http.rbac.v3.RBAC";
        let written = |url: &str| json!({"@type": TYPED_STRUCTS[0], "type_url": url, "value": {"rules_stat_prefix": "x"}});
        let (value, _) = modern(written(RBAC), None);
        assert_eq!(value, json!({"@type": RBAC, "rules_stat_prefix": "x"}));
        let (value, _) = modern(written("type.googleapis.com/x.Y"), None);
        assert_eq!(value, written("type.googleapis.com/x.Y"));
    }

    #[test]
    fn every_name_of_today_is_one_of_envoys() {
        let check = |prefix: &str, table: &[(&str, &str)]| {
            for (_, new) in table {
                assert!(sluis_protojson::is_known(&format!("{URL_PREFIX}{prefix}{new}")), "{new}");
            }
        };
        check("envoy.extensions.filters.http.", &HTTP_FILTERS);
        check("envoy.extensions.filters.network.", &NETWORK_FILTERS);
        check("", &OTHERS);
    }
}
