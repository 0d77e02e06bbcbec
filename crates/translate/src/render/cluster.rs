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
    extensions::clusters::{
        common::dns::v3::DnsLookupFamily as NewLookupFamily,
        dns::v3::{DnsCluster, dns_cluster},
    },
    r#type::v3::Percent,
};
use sluis_envoy::pack;

pub(crate) use self::endpoints::{assignment, endpoints};
pub(super) use self::options::HTTP_OPTIONS;
use super::{dynamic, tls, wrap};
use crate::{Balance, ClusterInput, Discovery, DnsFamily, MeshInputs};

/// By how much the times at which names are resolved are spread, in milliseconds, as Istio does.
const DNS_JITTER_MS: u64 = 100;

/// One cluster, with the DNS settings where Istio writes them and patches look for them; they end up
/// where Envoy wants them by [`modernize`].
#[expect(deprecated, reason = "users' patches speak of these fields")]
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
        Discovery::Internal(_) | Discovery::BlackHole => {
            cluster.circuit_breakers = None;
            cluster.lb_config = None;
            if let Discovery::Internal(listener) = &input.discovery {
                cluster.load_assignment = Some(endpoints::internal(&input.name, listener));
            }
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

/// Moves the DNS settings of a cluster to the extension that Envoy has for them now: the fields of the
/// cluster itself are deprecated. A cluster with a field that the extension lacks stays as it is.
#[expect(deprecated, reason = "reads the older fields to move them")]
pub(crate) fn modernize(cluster: &mut Cluster) {
    let is_logical = match cluster.cluster_discovery_type {
        Some(ClusterDiscoveryType::Type(kind)) if kind == DiscoveryType::StrictDns as i32 => false,
        Some(ClusterDiscoveryType::Type(kind)) if kind == DiscoveryType::LogicalDns as i32 => true,
        _ => return,
    };
    let has_older = !cluster.dns_resolvers.is_empty()
        || cluster.dns_resolution_config.is_some()
        || cluster.use_tcp_for_dns_lookups;
    if has_older {
        return;
    }
    let lookup = match DnsLookupFamily::try_from(std::mem::take(&mut cluster.dns_lookup_family)) {
        Ok(DnsLookupFamily::Auto) => NewLookupFamily::Auto,
        Ok(DnsLookupFamily::V4Only) => NewLookupFamily::V4Only,
        Ok(DnsLookupFamily::V6Only) => NewLookupFamily::V6Only,
        Ok(DnsLookupFamily::V4Preferred) => NewLookupFamily::V4Preferred,
        Ok(DnsLookupFamily::All) => NewLookupFamily::All,
        Err(_) => NewLookupFamily::Unspecified,
    };
    let failure = cluster.dns_failure_refresh_rate.take();
    let dns = DnsCluster {
        dns_refresh_rate: cluster.dns_refresh_rate.take(),
        dns_failure_refresh_rate: failure.map(|rate| dns_cluster::RefreshRate {
            base_interval: rate.base_interval,
            max_interval: rate.max_interval,
        }),
        respect_dns_ttl: std::mem::take(&mut cluster.respect_dns_ttl),
        dns_jitter: cluster.dns_jitter.take(),
        typed_dns_resolver_config: cluster.typed_dns_resolver_config.take(),
        dns_lookup_family: lookup.into(),
        all_addresses_in_single_endpoint: is_logical,
        dns_min_refresh_rate: None,
    };
    cluster.cluster_discovery_type = Some(ClusterDiscoveryType::ClusterType(CustomClusterType {
        name: "envoy.cluster.dns".to_owned(),
        typed_config: Some(pack(&dns)),
    }));
}

fn policy(input: &ClusterInput) -> LbPolicy {
    match (&input.discovery, input.balance) {
        (Discovery::OriginalDestination(_) | Discovery::DynamicDns(_), _)
        | (_, Balance::Passthrough) => LbPolicy::ClusterProvided,
        (Discovery::BlackHole | Discovery::Internal(_), _) | (_, Balance::RoundRobin(_)) => {
            LbPolicy::RoundRobin
        }
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
