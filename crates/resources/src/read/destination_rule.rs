//! Reads DestinationRule.

use sluis_nouns::is_dns_label;

use super::shared::{LabelSelector, unique};
use super::virtual_service::Port;
use super::{read_fields, read_names};
use crate::kinds::destination_rule::{
    ConnectionPool, ConsistentHash, CookieHash, DestinationRule, H2UpgradePolicy, HashKey,
    HttpPool, Keepalive, LoadBalancer, LocalityDistribution, LocalityFailover, LocalitySetting,
    OutlierDetection, PortTrafficPolicy, ProxyProtocolVersion, RetryBudget, RingAlgorithm,
    SimpleLb, Subset, TcpKeepalive, TcpPool, TrafficPolicy, Tunnel, TunnelMethod, Warmup,
};
use crate::value::{Fields, OpenDuration};

read_fields! {
    DestinationRule => destination_rule,
    Subset => subset,
    TrafficPolicy => traffic_policy,
    PortTrafficPolicy => port_traffic_policy,
    LoadBalancer => load_balancer,
    ConsistentHash => consistent_hash,
    CookieHash => cookie_hash,
    Attribute => attribute,
    Ring => ring,
    MaglevTable => maglev,
    LocalitySetting => locality_setting,
    LocalityDistribution => distribution,
    LocalityFailover => failover,
    Warmup => warmup,
    ConnectionPool => connection_pool,
    TcpPool => tcp_pool,
    TcpKeepalive => tcp_keepalive,
    HttpPool => http_pool,
    Keepalive => keepalive,
    OutlierDetection => outlier_detection,
    Tunnel => tunnel,
    RetryBudget => retry_budget,
    ProxyProtocol => proxy_protocol,
}

read_names! {
    SimpleLb {
        "UNSPECIFIED" => SimpleLb::Unspecified,
        "LEAST_CONN" => SimpleLb::LeastRequest,
        "LEAST_REQUEST" => SimpleLb::LeastRequest,
        "RANDOM" => SimpleLb::Random,
        "PASSTHROUGH" => SimpleLb::Passthrough,
        "ROUND_ROBIN" => SimpleLb::RoundRobin,
    }
    H2UpgradePolicy {
        "DEFAULT" => H2UpgradePolicy::Default,
        "DO_NOT_UPGRADE" => H2UpgradePolicy::DoNotUpgrade,
        "UPGRADE" => H2UpgradePolicy::Upgrade,
    }
    TunnelMethod {
        "CONNECT" => TunnelMethod::Connect,
        "POST" => TunnelMethod::Post,
    }
    ProxyProtocolVersion {
        "V1" => ProxyProtocolVersion::V1,
        "V2" => ProxyProtocolVersion::V2,
    }
}

/// Istio's default size of a hash ring.
const RING_SIZE_DEFAULT: u64 = 1024;

fn destination_rule(fields: &mut Fields<'_, '_>) -> Option<DestinationRule> {
    let host = fields.req("host");
    let export_to = fields.or_default("exportTo");
    let selector = fields.opt("workloadSelector").map(|LabelSelector(labels)| labels);
    let traffic_policy = fields.opt("trafficPolicy");
    let subsets: Vec<Subset> = fields.or_default("subsets");
    unique(fields, "subsets", subsets.iter().map(|subset| subset.name.as_str()), "the name");
    let host = host?;
    Some(DestinationRule { host, export_to, workload_selector: selector, traffic_policy, subsets })
}

fn subset(fields: &mut Fields<'_, '_>) -> Option<Subset> {
    let name: Option<String> = fields.req("name");
    if let (Some(name), Some(value)) = (&name, fields.get("name"))
        && !is_dns_label(name)
    {
        value.fault::<()>(format!("{name:?} is not a subset's name: it must be a DNS label"));
    }
    let labels = fields.or_default("labels");
    let traffic_policy = fields.opt("trafficPolicy");
    Some(Subset { at: fields.at(), name: name?, labels, traffic_policy })
}

fn traffic_policy(fields: &mut Fields<'_, '_>) -> Option<TrafficPolicy> {
    Some(TrafficPolicy {
        at: fields.at(),
        load_balancer: fields.opt("loadBalancer"),
        connection_pool: fields.opt("connectionPool"),
        outlier_detection: fields.opt("outlierDetection"),
        tls: fields.opt("tls"),
        port_level: fields.or_default("portLevelSettings"),
        tunnel: fields.opt("tunnel"),
        proxy_protocol: fields.opt("proxyProtocol").map(|ProxyProtocol(version)| version),
        retry_budget: fields.opt("retryBudget"),
    })
}

fn retry_budget(fields: &mut Fields<'_, '_>) -> Option<RetryBudget> {
    Some(RetryBudget {
        percent: fields.opt("percent"),
        interval: fields.opt("budgetInterval"),
        min_concurrency: fields.opt("minRetryConcurrency"),
    })
}

fn port_traffic_policy(fields: &mut Fields<'_, '_>) -> Option<PortTrafficPolicy> {
    let port = fields.req("port").map(|Port(number)| number);
    let policy = PortTrafficPolicy {
        at: fields.at(),
        port: 0,
        load_balancer: fields.opt("loadBalancer"),
        connection_pool: fields.opt("connectionPool"),
        outlier_detection: fields.opt("outlierDetection"),
        tls: fields.opt("tls"),
    };
    Some(PortTrafficPolicy { port: port?, ..policy })
}

fn load_balancer(fields: &mut Fields<'_, '_>) -> Option<LoadBalancer> {
    fields.at_most_one(&["simple", "consistentHash"]);
    fields.unsupported(&["backendUtilization", "zoneAwareLbSetting"]);
    let old = fields.opt("warmupDurationSecs").map(|duration| Warmup {
        duration,
        minimum_percent: None,
        aggression: None,
    });
    Some(LoadBalancer {
        at: fields.at(),
        simple: fields.or_default("simple"),
        consistent_hash: fields.opt("consistentHash"),
        locality: fields.opt("localityLbSetting"),
        warmup: fields.opt("warmup").or(old),
    })
}

fn consistent_hash(fields: &mut Fields<'_, '_>) -> Option<ConsistentHash> {
    fields.at_most_one(&["httpHeaderName", "httpCookie", "useSourceIp", "httpQueryParameterName"]);
    fields.at_most_one(&["ringHash", "maglev"]);
    let header = fields.opt("httpHeaderName").map(HashKey::Header);
    let cookie = fields.opt("httpCookie").map(HashKey::Cookie);
    let by_source = fields.or_default::<bool>("useSourceIp").then_some(HashKey::SourceIp);
    let query = fields.opt("httpQueryParameterName").map(HashKey::QueryParameter);
    let old_size: Option<u64> = fields.opt("minimumRingSize");
    let ring = fields.opt("ringHash").and_then(|Ring(size)| size);
    let maglev: Option<MaglevTable> = fields.opt("maglev");
    let algorithm = match maglev {
        Some(MaglevTable(table_size)) => RingAlgorithm::Maglev { table_size },
        None => {
            RingAlgorithm::RingHash { minimum_size: ring.or(old_size).unwrap_or(RING_SIZE_DEFAULT) }
        }
    };
    let Some(key) = header.or(cookie).or(by_source).or(query) else {
        return fields.value().fault(
            "one of httpHeaderName, httpCookie, useSourceIp and httpQueryParameterName is required",
        );
    };
    Some(ConsistentHash { key, algorithm })
}

/// `ringHash: {minimumRingSize: …}`.
struct Ring(Option<u64>);

fn ring(fields: &mut Fields<'_, '_>) -> Option<Ring> {
    Some(Ring(fields.opt("minimumRingSize")))
}

/// `maglev: {tableSize: …}`.
struct MaglevTable(Option<u64>);

fn maglev(fields: &mut Fields<'_, '_>) -> Option<MaglevTable> {
    Some(MaglevTable(fields.opt("tableSize")))
}

fn cookie_hash(fields: &mut Fields<'_, '_>) -> Option<CookieHash> {
    let name = fields.req("name");
    let path = fields.opt("path");
    let ttl = fields.opt("ttl").map(|OpenDuration(ttl)| ttl);
    let attributes: Vec<Attribute> = fields.or_default("attributes");
    let attributes = attributes.into_iter().map(|Attribute(name, value)| (name, value)).collect();
    Some(CookieHash { name: name?, path, ttl, attributes })
}

struct Attribute(String, String);

fn attribute(fields: &mut Fields<'_, '_>) -> Option<Attribute> {
    let (name, value) = (fields.req("name"), fields.or_default("value"));
    Some(Attribute(name?, value))
}

fn locality_setting(fields: &mut Fields<'_, '_>) -> Option<LocalitySetting> {
    fields.at_most_one(&["distribute", "failover"]);
    fields.at_most_one(&["distribute", "failoverPriority"]);
    Some(LocalitySetting {
        enabled: fields.opt("enabled"),
        distribute: fields.or_default("distribute"),
        failover: fields.or_default("failover"),
        failover_priority: fields.or_default("failoverPriority"),
    })
}

fn distribution(fields: &mut Fields<'_, '_>) -> Option<LocalityDistribution> {
    let from = fields.req("from");
    let to: std::collections::BTreeMap<String, u32> = fields.or_default("to");
    let sum: u64 = to.values().copied().map(u64::from).sum();
    if sum != 100
        && let Some(value) = fields.get("to")
    {
        value.fault::<()>(format!("the percentages add up to {sum}, not to 100"));
    }
    Some(LocalityDistribution { from: from?, to })
}

fn failover(fields: &mut Fields<'_, '_>) -> Option<LocalityFailover> {
    let (from, to) = (fields.req("from"), fields.req("to"));
    Some(LocalityFailover { from: from?, to: to? })
}

fn warmup(fields: &mut Fields<'_, '_>) -> Option<Warmup> {
    let duration = fields.req("duration");
    let minimum_percent = fields.opt("minimumPercent");
    let aggression: Option<f64> = fields.opt("aggression");
    if aggression.is_some_and(|aggression| aggression < 0.0)
        && let Some(value) = fields.get("aggression")
    {
        value.fault::<()>("this must not be below 0");
    }
    Some(Warmup { duration: duration?, minimum_percent, aggression })
}

fn connection_pool(fields: &mut Fields<'_, '_>) -> Option<ConnectionPool> {
    let (tcp, http) = (fields.or_default("tcp"), fields.or_default("http"));
    Some(ConnectionPool { tcp, http })
}

fn tcp_pool(fields: &mut Fields<'_, '_>) -> Option<TcpPool> {
    Some(TcpPool {
        max_connections: fields.opt("maxConnections"),
        connect_timeout: fields.opt("connectTimeout"),
        keepalive: fields.opt("tcpKeepalive"),
        max_connection_duration: fields.opt("maxConnectionDuration"),
        idle_timeout: fields.opt("idleTimeout").map(|OpenDuration(idle)| idle),
    })
}

pub(super) fn tcp_keepalive(fields: &mut Fields<'_, '_>) -> Option<TcpKeepalive> {
    let (probes, time) = (fields.opt("probes"), fields.opt("time"));
    Some(TcpKeepalive { probes, time, interval: fields.opt("interval") })
}

fn http_pool(fields: &mut Fields<'_, '_>) -> Option<HttpPool> {
    Some(HttpPool {
        http1_max_pending_requests: fields.opt("http1MaxPendingRequests"),
        http2_max_requests: fields.opt("http2MaxRequests"),
        max_requests_per_connection: fields.opt("maxRequestsPerConnection"),
        max_retries: fields.opt("maxRetries"),
        idle_timeout: fields.opt("idleTimeout"),
        h2_upgrade_policy: fields.or_default("h2UpgradePolicy"),
        use_client_protocol: fields.or_default("useClientProtocol"),
        max_concurrent_streams: fields.opt("maxConcurrentStreams"),
        http2_keepalive: fields.opt("http2KeepAlive"),
    })
}

fn keepalive(fields: &mut Fields<'_, '_>) -> Option<Keepalive> {
    Some(Keepalive { interval: fields.opt("interval"), timeout: fields.opt("timeout") })
}

fn outlier_detection(fields: &mut Fields<'_, '_>) -> Option<OutlierDetection> {
    fields.unsupported(&["outlierDetectionHttpErrorCodes"]);
    let old = fields.opt("consecutiveErrors");
    for name in ["maxEjectionPercent", "minHealthPercent"] {
        if let Some(value) = fields.get(name)
            && value.read::<u32>().is_some_and(|percent| percent > 100)
        {
            value.fault::<()>("this must be between 0 and 100");
        }
    }
    Some(OutlierDetection {
        consecutive_5xx_errors: fields.opt("consecutive5xxErrors"),
        consecutive_gateway_errors: fields.opt("consecutiveGatewayErrors").or(old),
        consecutive_local_origin_failures: fields.opt("consecutiveLocalOriginFailures"),
        split_external_local_origin_errors: fields.or_default("splitExternalLocalOriginErrors"),
        interval: fields.opt("interval"),
        base_ejection_time: fields.opt("baseEjectionTime"),
        max_ejection_percent: fields.opt("maxEjectionPercent"),
        min_health_percent: fields.opt("minHealthPercent"),
    })
}

fn tunnel(fields: &mut Fields<'_, '_>) -> Option<Tunnel> {
    let method = fields.or_default("protocol");
    let (host, port) = (fields.req("targetHost"), fields.req("targetPort"));
    Some(Tunnel { method, target_host: host?, target_port: port? })
}

/// `proxyProtocol: {version: …}`.
struct ProxyProtocol(ProxyProtocolVersion);

fn proxy_protocol(fields: &mut Fields<'_, '_>) -> Option<ProxyProtocol> {
    Some(ProxyProtocol(fields.or_default("version")))
}
