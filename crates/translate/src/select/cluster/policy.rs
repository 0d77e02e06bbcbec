//! The sections of a rule, one by one, as Istio turns them into a cluster's settings.
//!
//! In:    what users wrote: `loadBalancer`, `connectionPool`, `outlierDetection`.
//! Out:   the matching parts of a cluster, with Istio's defaults.
//! Never: looks at endpoints or TLS.

use std::time::Duration;

use sluis_model::{MeshPort, PolicyDefaults};
use sluis_resources::{
    ConnectionPool, H2UpgradePolicy, LoadBalancer, LocalitySetting, MeshConfig, OutlierDetection,
    Protocol, ProxyProtocolVersion, RetryBudget as WrittenBudget, RingAlgorithm, SimpleLb,
    TcpKeepalive as WrittenKeepalive, TrafficDistribution, Warmup,
};

use super::super::Selection;
use crate::{
    Balance, ConnectionLife, Limits, OutlierInput, ProxyProtocol, RetryBudget, SlowStart,
    TcpKeepalive, UpstreamProtocol,
};

/// How long connections of the passthrough cluster may stay unused.
pub(super) const IDLE: Duration = Duration::from_mins(5);

/// The share of a new endpoint, in millionths, and the aggression, where `warmup` says nothing.
const WARMUP_SHARE: u32 = 100_000;
const WARMUP_AGGRESSION: f64 = 1.0;

/// What the mesh configuration says for services whose rule says nothing.
pub(super) fn defaults<'a>(selection: &Selection<'a>) -> PolicyDefaults<'a> {
    let written = &selection.snapshot.mesh().default_traffic_policy;
    PolicyDefaults {
        connection_pool: written.connection_pool.as_ref(),
        outlier_detection: written.outlier_detection.as_ref(),
    }
}

/// How an endpoint is chosen. A consistent hash stands in place of `simple`.
pub(super) fn balance(written: Option<&LoadBalancer>) -> Balance {
    let Some(written) = written else { return Balance::default() };
    match written.consistent_hash.as_ref().map(|hash| hash.algorithm) {
        Some(RingAlgorithm::RingHash { minimum_size }) => return Balance::RingHash(minimum_size),
        Some(RingAlgorithm::Maglev { table_size }) => return Balance::Maglev(table_size),
        None => {}
    }
    let slow = written.warmup.as_ref().map(slow_start);
    match written.simple {
        SimpleLb::Unspecified | SimpleLb::LeastRequest => Balance::LeastRequest(slow),
        SimpleLb::RoundRobin => Balance::RoundRobin(slow),
        SimpleLb::Random => Balance::Random,
        SimpleLb::Passthrough => Balance::Passthrough,
    }
}

fn slow_start(warmup: &Warmup) -> SlowStart {
    let share = warmup.minimum_percent.map_or(WARMUP_SHARE, sluis_nouns::Percent::millionths);
    let aggression = warmup.aggression.unwrap_or(WARMUP_AGGRESSION);
    SlowStart { window: warmup.duration, curve: Some((share, aggression.to_bits())) }
}

/// The locality setting that holds, and whether it holds without outlier detection: that of the rule,
/// else what the service prefers, else that of the mesh, which is to fail over by locality.
pub(super) fn locality(
    written: Option<&LoadBalancer>,
    preferred: TrafficDistribution,
    mesh: &MeshConfig,
) -> (Option<LocalitySetting>, bool) {
    let by_labels = |labels: &[&str]| LocalitySetting {
        failover_priority: labels.iter().map(|label| (*label).to_owned()).collect(),
        ..LocalitySetting::default()
    };
    match (written.and_then(|balancer| balancer.locality.as_ref()), preferred) {
        (Some(setting), _) if setting.enabled == Some(false) => (None, false),
        (Some(setting), _) => (Some(setting.clone()), false),
        (None, TrafficDistribution::SameZone) => (Some(by_labels(&NEAR[..3])), true),
        (None, TrafficDistribution::SameNode) => (Some(by_labels(&NEAR)), true),
        (None, TrafficDistribution::Any) => {
            let of_mesh = mesh.locality_lb_setting.clone().unwrap_or_default();
            ((of_mesh.enabled != Some(false)).then_some(of_mesh), false)
        }
    }
}

/// What an endpoint that is near has in common with the client, from far to near.
pub(crate) const NEAR: [&str; 5] = [
    "topology.istio.io/network",
    "topology.kubernetes.io/region",
    "topology.kubernetes.io/zone",
    "topology.istio.io/subzone",
    "kubernetes.io/hostname",
];

/// Which HTTP is spoken: by the port's protocol, and the upgrade that rule or mesh ask for.
pub(super) fn protocol(
    port: &MeshPort,
    pool: &ConnectionPool,
    mesh: &MeshConfig,
    is_sidecar: bool,
) -> UpstreamProtocol {
    let http = &pool.http;
    if http.use_client_protocol {
        return UpstreamProtocol::AsClient;
    }
    let is_upgraded = match http.h2_upgrade_policy {
        H2UpgradePolicy::Upgrade => true,
        H2UpgradePolicy::DoNotUpgrade => false,
        H2UpgradePolicy::Default => {
            port.protocol.is_http() && mesh.h2_upgrade_policy == H2UpgradePolicy::Upgrade
        }
    };
    match port.protocol {
        Protocol::Http2 | Protocol::Grpc | Protocol::GrpcWeb => UpstreamProtocol::Http2,
        // Told from the first bytes: whatever the client speaks, the server must.
        Protocol::Unknown if is_sidecar => UpstreamProtocol::AsClient,
        _ if is_upgraded => UpstreamProtocol::Http2,
        _ => UpstreamProtocol::Http1,
    }
}

/// Limits; what is 0 or not written is none, as in Istio.
pub(super) fn limits(pool: &ConnectionPool, retry_budget: Option<RetryBudget>) -> Limits {
    let limit = |written: Option<u32>| written.filter(|limit| *limit > 0).unwrap_or(u32::MAX);
    Limits {
        connections_max: limit(pool.tcp.max_connections),
        pending_max: limit(pool.http.http1_max_pending_requests),
        requests_max: limit(pool.http.http2_max_requests),
        retries_max: limit(pool.http.max_retries),
        retry_budget,
    }
}

/// Retries in proportion to requests, with Istio's defaults.
pub(super) fn retry_budget(written: WrittenBudget) -> RetryBudget {
    /// 20 %, in millionths.
    const SHARE: u32 = 200_000;
    /// Retries that are always possible.
    const RETRIES_MIN: u32 = 3;
    RetryBudget {
        share_millionths: written.percent.map_or(SHARE, sluis_nouns::Percent::millionths),
        interval: written.interval,
        retries_min: written.min_concurrency.filter(|count| *count > 0).unwrap_or(RETRIES_MIN),
    }
}

/// The life of connections. Keepalive is the mesh's, each part in place of which the rule may put its
/// own.
pub(super) fn connection(pool: &ConnectionPool, mesh: Option<&WrittenKeepalive>) -> ConnectionLife {
    let some = |written: Option<u32>| written.filter(|count| *count > 0);
    let own = pool.tcp.keepalive.as_ref();
    let tcp_keepalive = (own.is_some() || mesh.is_some()).then(|| {
        let secs = |duration: Duration| u32::try_from(duration.as_secs()).unwrap_or(u32::MAX);
        let pick = |part: fn(&WrittenKeepalive) -> Option<u32>| {
            own.and_then(part).or_else(|| mesh.and_then(part))
        };
        let time = |part: fn(&WrittenKeepalive) -> Option<Duration>| {
            own.and_then(part).or_else(|| mesh.and_then(part)).map(secs)
        };
        TcpKeepalive {
            probes: pick(|keepalive| keepalive.probes.filter(|count| *count > 0)),
            time_secs: time(|keepalive| keepalive.time),
            interval_secs: time(|keepalive| keepalive.interval),
        }
    });
    ConnectionLife {
        idle_timeout: pool.http.idle_timeout.or(pool.tcp.idle_timeout),
        duration_max: pool.tcp.max_connection_duration,
        requests_max: some(pool.http.max_requests_per_connection),
        streams_max: some(pool.http.max_concurrent_streams),
        ping: pool.http.http2_keepalive.as_ref().map(|ping| (ping.interval, ping.timeout)),
        tcp_keepalive,
    }
}

/// When endpoints are left out for a while.
pub(super) fn outliers(written: &OutlierDetection) -> OutlierInput {
    let splits_local = written.split_external_local_origin_errors;
    OutlierInput {
        consecutive_5xx: written.consecutive_5xx_errors,
        consecutive_gateway: written.consecutive_gateway_errors,
        consecutive_local: written
            .consecutive_local_origin_failures
            .filter(|count| splits_local && *count > 0),
        splits_local,
        interval: written.interval,
        base_time: written.base_ejection_time,
        ejected_percent_max: written.max_ejection_percent.filter(|percent| *percent > 0),
    }
}

pub(super) fn proxy_protocol(written: ProxyProtocolVersion) -> ProxyProtocol {
    match written {
        ProxyProtocolVersion::V1 => ProxyProtocol::V1,
        ProxyProtocolVersion::V2 => ProxyProtocol::V2,
    }
}
