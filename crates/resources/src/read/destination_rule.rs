//! Reads DestinationRule.

use sluis_nouns::{is_dns_label, is_dns_name};

use super::forms::{read_fields, read_names};
use super::shared::{Exporter, LabelSelector, check_labels, export_to, unique};
use super::virtual_service::Port;
use crate::kinds::destination_rule::{
    ConnectionPool, ConsistentHash, CookieHash, DestinationRule, H2UpgradePolicy, HashKey,
    HttpPool, Keepalive, LoadBalancer, LocalityDistribution, LocalityFailover, LocalitySetting,
    OutlierDetection, PortTrafficPolicy, ProxyProtocolVersion, RetryBudget, RingAlgorithm,
    SimpleLb, Subset, TcpKeepalive, TcpPool, TrafficPolicy, Tunnel, TunnelMethod, Warmup,
};
use crate::value::{Fields, OpenDuration, Value};

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
    let selector = fields.opt("workloadSelector").map(|LabelSelector(labels)| labels);
    let exporter = if selector.is_some() { Exporter::Selected } else { Exporter::Rule };
    let export_to = export_to(fields, exporter);
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
    if let Some(value) = fields.get("labels") {
        check_labels(&value);
    }
    let labels = fields.or_default("labels");
    let traffic_policy = fields.opt("trafficPolicy");
    Some(Subset { at: fields.at(), name: name?, labels, traffic_policy })
}

/// What a policy says, of which Istio wants something.
const SECTIONS: [&str; 8] = [
    "loadBalancer",
    "connectionPool",
    "outlierDetection",
    "tls",
    "portLevelSettings",
    "tunnel",
    "proxyProtocol",
    "retryBudget",
];

fn traffic_policy(fields: &mut Fields<'_, '_>) -> Option<TrafficPolicy> {
    need_one(fields, &SECTIONS);
    fields.at_most_one(&["tunnel", "proxyProtocol"]);
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

/// Notes a fault when nothing of a section is written.
fn need_one(fields: &mut Fields<'_, '_>, names: &[&'static str]) {
    if !names.iter().any(|name| fields.has(name)) {
        fields.value().fault::<()>(format!("one of {} is required", names.join(", ")));
    }
}

fn port_traffic_policy(fields: &mut Fields<'_, '_>) -> Option<PortTrafficPolicy> {
    need_one(fields, &SECTIONS[..4]);
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
    // Of weights that endpoints report, and of a balancing that Envoy does by its own locality.
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
    if let Some(value) = fields.get("minimumRingSize").filter(Value::is_set) {
        if fields.has("ringHash") || fields.has("maglev") {
            value.fault::<()>("this cannot be beside ringHash and maglev");
        } else {
            value.warn("this is deprecated: write ringHash.minimumRingSize");
        }
    }
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
    let size: Option<u64> = fields.opt("tableSize");
    if size.is_none() {
        fields.missing("tableSize");
    }
    if let Some(value) = fields.get("tableSize")
        && size.is_some_and(|size| size >= TABLE_SIZE_MAX || !is_prime(size))
    {
        value.fault::<()>(format!("a prime number below {TABLE_SIZE_MAX} is expected"));
    }
    Some(MaglevTable(size))
}

/// Envoy's limit for the table of Maglev.
const TABLE_SIZE_MAX: u64 = 5_000_011;

fn is_prime(number: u64) -> bool {
    let mut factors = (2..).take_while(|factor| factor * factor <= number);
    number > 1 && !factors.any(|factor| number.is_multiple_of(factor))
}

fn cookie_hash(fields: &mut Fields<'_, '_>) -> Option<CookieHash> {
    let name: Option<String> = fields.req("name");
    if name.as_deref() == Some("")
        && let Some(value) = fields.get("name")
    {
        value.fault::<()>("a name must not be empty");
    }
    let path = fields.opt("path");
    let ttl = fields.opt("ttl").map(|OpenDuration(ttl)| ttl);
    let attributes: Vec<Attribute> = fields.or_default("attributes");
    unique(fields, "attributes", attributes.iter().map(|Attribute(n, _)| n.as_str()), "the name");
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
    let setting = LocalitySetting {
        enabled: fields.opt("enabled"),
        distribute: fields.or_default("distribute"),
        failover: fields.or_default("failover"),
        failover_priority: fields.or_default("failoverPriority"),
    };
    let topology = |label: &String| {
        label.starts_with("topology.kubernetes.io/") || label == "topology.istio.io/subzone"
    };
    if !setting.failover.is_empty()
        && setting.failover_priority.iter().any(topology)
        && let Some(value) = fields.get("failoverPriority")
    {
        value.fault::<()>("labels of the topology cannot be beside failover");
    }
    let from = setting.distribute.iter().map(|distribution| distribution.from.as_str());
    check_localities(fields, "distribute", from);
    Some(setting)
}

/// Istio: `region/zone/sub-zone`, a star only at the end, and none inside of another.
fn check_localities<'l>(
    fields: &mut Fields<'_, '_>,
    name: &'static str,
    localities: impl Iterator<Item = &'l str>,
) {
    let Some(value) = fields.get(name) else { return };
    let mut seen: Vec<Vec<&str>> = Vec::new();
    for locality in localities {
        let parts: Vec<&str> = locality.split('/').collect();
        let stars = locality.matches('*').count();
        let bad = parts.len() > 3 || parts.iter().any(|part| part.is_empty());
        if bad || stars > 1 || (stars == 1 && !locality.ends_with('*')) {
            value.fault::<()>(format!("{locality:?} has not the form region/zone/sub-zone"));
            continue;
        }
        let own: Vec<&str> = parts.into_iter().filter(|part| *part != "*").collect();
        if seen.iter().any(|other| own.starts_with(other) || other.starts_with(&own)) {
            value.fault::<()>(format!("{locality:?} falls together with another one"));
        }
        seen.push(own);
    }
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
    if to.values().any(|share| *share == 0)
        && let Some(value) = fields.get("to")
    {
        value.fault::<()>("each percentage must be 1 to 100");
    }
    check_localities(fields, "to", to.keys().map(String::as_str));
    Some(LocalityDistribution { from: from?, to })
}

fn failover(fields: &mut Fields<'_, '_>) -> Option<LocalityFailover> {
    let (from, to): (Option<String>, Option<String>) = (fields.req("from"), fields.req("to"));
    let narrow = |region: &Option<String>| region.as_ref().is_some_and(|r| r.contains(['/', '*']));
    if narrow(&from) || narrow(&to) {
        fields.value().fault::<()>("a region is expected, without zone and star");
    }
    if from.is_some() && from == to {
        fields.value().fault::<()>("two different regions are expected");
    }
    Some(LocalityFailover { from: from?, to: to? })
}

fn warmup(fields: &mut Fields<'_, '_>) -> Option<Warmup> {
    let duration = fields.req("duration");
    let minimum_percent = fields.opt("minimumPercent");
    let aggression: Option<f64> = fields.opt("aggression");
    if aggression.is_some_and(|aggression| aggression <= 0.0)
        && let Some(value) = fields.get("aggression")
    {
        value.fault::<()>("this must be above 0");
    }
    if let Some(value) = fields.get("minimumPercent")
        && value.read::<f64>().is_some_and(|percent| !(0.0..=100.0).contains(&percent))
    {
        value.fault::<()>("this must be between 0 and 100");
    }
    Some(Warmup { duration: duration?, minimum_percent, aggression })
}

fn connection_pool(fields: &mut Fields<'_, '_>) -> Option<ConnectionPool> {
    need_one(fields, &["tcp", "http"]);
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
    if fields.opt("h2UpgradePolicy") == Some(H2UpgradePolicy::Upgrade)
        && fields.or_default::<bool>("useClientProtocol")
        && let Some(value) = fields.get("useClientProtocol")
    {
        value.fault::<()>("this cannot be beside h2UpgradePolicy UPGRADE");
    }
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
    for name in ["interval", "timeout"] {
        if !fields.has(name) {
            fields.missing(name);
        }
    }
    Some(Keepalive { interval: fields.opt("interval"), timeout: fields.opt("timeout") })
}

fn outlier_detection(fields: &mut Fields<'_, '_>) -> Option<OutlierDetection> {
    fields.unsupported(&["outlierDetectionHttpErrorCodes"]);
    let old = fields.opt("consecutiveErrors");
    if let Some(value) = fields.get("consecutiveErrors").filter(Value::is_set) {
        value.warn("this is deprecated: write consecutiveGatewayErrors or consecutive5xxErrors");
    }
    if !fields.or_default::<bool>("splitExternalLocalOriginErrors")
        && let Some(value) = fields.get("consecutiveLocalOriginFailures").filter(Value::is_set)
    {
        value.fault::<()>("this needs splitExternalLocalOriginErrors");
    }
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
    let method = match fields.get("protocol").filter(Value::is_set) {
        Some(value) => value.read(),
        None => Some(TunnelMethod::default()),
    };
    let (host, port): (Option<String>, _) = (fields.req("targetHost"), fields.req("targetPort"));
    let is_host = |host: &str| is_dns_name(host) || host.parse::<std::net::IpAddr>().is_ok();
    if let Some(value) = fields.get("targetHost")
        && host.as_ref().is_some_and(|host| !is_host(host))
    {
        value.fault::<()>("a name or an IP address is expected");
    }
    let method = method?;
    Some(Tunnel { method, target_host: host?, target_port: port? })
}

/// `proxyProtocol: {version: …}`.
struct ProxyProtocol(ProxyProtocolVersion);

fn proxy_protocol(fields: &mut Fields<'_, '_>) -> Option<ProxyProtocol> {
    Some(ProxyProtocol(fields.or_default("version")))
}
