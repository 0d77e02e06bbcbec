//! Clusters and their endpoints.

mod endpoints;
mod options;

use envoy_types::pb::envoy::{
    config::{
        cluster::v3::{
            Cluster,
            cluster::{
                ClusterDiscoveryType, CommonLbConfig, CustomClusterType, DiscoveryType,
                DnsLookupFamily, EdsClusterConfig, LbConfig, LbPolicy, OriginalDstLbConfig,
                common_lb_config::{LocalityConfigSpecifier, LocalityWeightedLbConfig},
            },
        },
        core::v3::{HealthStatus, HealthStatusSet},
    },
    r#type::v3::Percent,
};

pub(crate) use self::endpoints::{assignment, endpoints};
pub(super) use self::options::HTTP_OPTIONS;
use super::{dynamic, tls, wrap};
use crate::{Balance, ClusterInput, Discovery, DnsFamily, MeshInputs};

/// By how much the times at which names are resolved are spread, in milliseconds, as Istio does.
const DNS_JITTER_MS: u64 = 100;

/// One cluster.
#[expect(deprecated, reason = "Istio and other xDS clients know the DNS settings only here")]
pub(crate) fn cluster(input: &ClusterInput, mesh: &MeshInputs) -> Cluster {
    let (socket, matches) = tls::sockets(input);
    let mut cluster = Cluster {
        name: input.name.clone(),
        alt_stat_name: input.stat_name.clone(),
        connect_timeout: Some(wrap::duration(input.connect_timeout)),
        lb_policy: policy(input).into(),
        lb_config: options::lb_config(input.balance),
        common_lb_config: common(input),
        outlier_detection: input.outliers.as_ref().map(options::outliers),
        transport_socket: socket,
        transport_socket_matches: matches,
        typed_extension_protocol_options: options::http(input),
        upstream_connection_options: input.connection.tcp_keepalive.map(options::keepalive),
        metadata: options::metadata(input),
        circuit_breakers: Some(options::limits(&input.limits)),
        ..Cluster::default()
    };
    let kind = match &input.discovery {
        Discovery::Eds(_) => {
            cluster.eds_cluster_config = Some(EdsClusterConfig {
                eds_config: Some(wrap::ads()),
                service_name: input.name.clone(),
            });
            DiscoveryType::Eds
        }
        Discovery::Dns(names) => {
            cluster.load_assignment = Some(endpoints::localities(&input.name, names));
            DiscoveryType::StrictDns
        }
        Discovery::LogicalDns(names) => {
            cluster.load_assignment = Some(endpoints::localities(&input.name, names));
            DiscoveryType::LogicalDns
        }
        Discovery::OriginalDestination(port) => {
            cluster.lb_config = port.map(|port| {
                LbConfig::OriginalDstLbConfig(OriginalDstLbConfig {
                    upstream_port_override: wrap::number(u32::from(port)),
                    ..OriginalDstLbConfig::default()
                })
            });
            DiscoveryType::OriginalDst
        }
        Discovery::DynamicDns(_) => {
            cluster.lb_config = None;
            cluster.cluster_discovery_type =
                Some(ClusterDiscoveryType::ClusterType(CustomClusterType {
                    name: "envoy.clusters.dynamic_forward_proxy".to_owned(),
                    typed_config: Some(dynamic::cluster(input)),
                }));
            return cluster;
        }
        Discovery::BlackHole => {
            cluster.circuit_breakers = None;
            cluster.lb_config = None;
            DiscoveryType::Static
        }
    };
    if matches!(kind, DiscoveryType::StrictDns | DiscoveryType::LogicalDns) {
        cluster.dns_refresh_rate = Some(wrap::duration(mesh.dns_refresh));
        cluster.dns_jitter = Some(wrap::duration(std::time::Duration::from_millis(DNS_JITTER_MS)));
        cluster.respect_dns_ttl = true;
        cluster.dns_lookup_family = family(input.dns_family).into();
    }
    cluster.cluster_discovery_type = Some(ClusterDiscoveryType::Type(kind.into()));
    cluster
}

fn policy(input: &ClusterInput) -> LbPolicy {
    match (&input.discovery, input.balance) {
        (Discovery::OriginalDestination(_) | Discovery::DynamicDns(_), _)
        | (_, Balance::Passthrough) => LbPolicy::ClusterProvided,
        (Discovery::BlackHole, _) | (_, Balance::RoundRobin(_)) => LbPolicy::RoundRobin,
        (_, Balance::LeastRequest(_)) => LbPolicy::LeastRequest,
        (_, Balance::Random) => LbPolicy::Random,
        (_, Balance::RingHash(_)) => LbPolicy::RingHash,
        (_, Balance::Maglev(_)) => LbPolicy::Maglev,
    }
}

fn common(input: &ClusterInput) -> Option<CommonLbConfig> {
    let config = CommonLbConfig {
        healthy_panic_threshold: input
            .panic_percent
            .map(|percent| Percent { value: f64::from(percent) }),
        locality_config_specifier: input.is_locality_weighted.then_some(
            LocalityConfigSpecifier::LocalityWeightedLbConfig(LocalityWeightedLbConfig {}),
        ),
        override_host_status: input.keeps_draining.then(|| HealthStatusSet {
            statuses: [
                HealthStatus::Healthy,
                HealthStatus::Draining,
                HealthStatus::Unknown,
                HealthStatus::Degraded,
            ]
            .map(i32::from)
            .to_vec(),
        }),
        ..CommonLbConfig::default()
    };
    (config != CommonLbConfig::default()).then_some(config)
}

fn family(family: DnsFamily) -> DnsLookupFamily {
    match family {
        DnsFamily::V4 => DnsLookupFamily::V4Only,
        DnsFamily::V6 => DnsLookupFamily::V6Only,
        DnsFamily::All => DnsLookupFamily::All,
    }
}
