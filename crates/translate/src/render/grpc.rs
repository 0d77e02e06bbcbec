//! Retells a sidecar's resources for a gRPC library that is its own proxy (`GENERATOR: grpc`).
//!
//! In:    what a sidecar of the same workload would hold.
//! Out:   for each HTTP port of each host an API listener `host:port` with a route table of its own;
//!        clusters that such a library can use, and their endpoints. Names are Istio's
//!        (`outbound|port||host`), and so is the choice of fields (gRFC A27, A28, A36, A55).
//! Never: leaves a cluster's TLS away: a cluster whose TLS the library cannot do is left out, with a
//!        fault.

use std::sync::Arc;

use envoy_types::pb::envoy::{
    config::{
        cluster::v3::{
            Cluster,
            cluster::{ClusterDiscoveryType, DiscoveryType, EdsClusterConfig, LbPolicy},
        },
        core::v3::{
            AggregatedConfigSource, ApiVersion, ConfigSource, TransportSocket,
            config_source::ConfigSourceSpecifier, transport_socket,
        },
        endpoint::v3::{ClusterLoadAssignment, LbEndpoint},
        listener::v3::{ApiListener, Listener},
        route::v3::{RouteConfiguration, VirtualHost},
    },
    extensions::{
        filters::{
            http::{fault::v3::HttpFault, router::v3::Router},
            network::http_connection_manager::v3::{
                HttpConnectionManager, HttpFilter, Rds, http_connection_manager::RouteSpecifier,
                http_filter,
            },
        },
        transport_sockets::tls::v3::{
            CertificateProviderPluginInstance, CommonTlsContext, UpstreamTlsContext,
            common_tls_context::{CombinedCertificateValidationContext, ValidationContextType},
        },
    },
};
use envoy_types::pb::google::protobuf::{Any, UInt32Value};
use sluis_envoy::{ResourceSet, pack, unpack};
use sluis_nouns::SourceRef;

use crate::Fault;

/// The certificate provider that Istio's agents write into a gRPC library's bootstrap.
const PROVIDER: &str = "default";

/// The only per-route configuration that gRPC libraries know (gRFC A33).
const FAULT_FILTER: &str = "envoy.filters.http.fault";

/// The set as a gRPC library can use it.
pub(super) fn adapt(set: &ResourceSet, faults: &mut Vec<Fault>) -> ResourceSet {
    let mut own = ResourceSet::default();
    for cluster in set.clusters.values().filter(|cluster| cluster.name.starts_with("outbound|")) {
        match adapt_cluster(cluster) {
            Ok(adapted) => {
                if let Some(endpoints) = set.endpoints.get(&cluster.name) {
                    own.endpoints.insert(cluster.name.clone(), Arc::new(placed(endpoints)));
                }
                own.clusters.insert(cluster.name.clone(), Arc::new(adapted));
            }
            Err(why) => {
                let message = format!("a gRPC library {why}: cluster {} is left out", cluster.name);
                faults.push(Fault::warning(SourceRef::default(), message));
            }
        }
    }
    for table in set.routes.values() {
        let Ok(port) = table.name.parse::<u16>() else { continue };
        for host in &table.virtual_hosts {
            let Some(name) = host.name.strip_suffix(&format!(":{port}")) else { continue };
            add_host(&mut own, name, port, host);
        }
    }
    own
}

/// The listeners of one host, under each of its names, and their route table.
fn add_host(own: &mut ResourceSet, name: &str, port: u16, host: &VirtualHost) {
    let table = format!("outbound|{port}||{name}");
    let mut host = host.clone();
    let with_port: Vec<String> = host
        .domains
        .iter()
        .filter(|domain| !domain.contains(':') && *domain != "*")
        .map(|domain| format!("{domain}:{port}"))
        .collect();
    for domain in &with_port {
        let listener = Arc::new(listener(domain, &table));
        own.listeners.entry(domain.clone()).or_insert(listener);
    }
    for domain in with_port {
        if !host.domains.contains(&domain) {
            host.domains.push(domain);
        }
    }
    host.typed_per_filter_config.retain(|filter, _| filter == FAULT_FILTER);
    for route in &mut host.routes {
        route.typed_per_filter_config.retain(|filter, _| filter == FAULT_FILTER);
    }
    let routes = RouteConfiguration {
        name: table.clone(),
        virtual_hosts: vec![host],
        ..RouteConfiguration::default()
    };
    own.routes.insert(table, Arc::new(routes));
}

fn listener(name: &str, table: &str) -> Listener {
    let manager = HttpConnectionManager {
        stat_prefix: table.to_owned(),
        route_specifier: Some(RouteSpecifier::Rds(Rds {
            config_source: Some(ads()),
            route_config_name: table.to_owned(),
        })),
        http_filters: vec![
            filter(FAULT_FILTER, pack(&HttpFault::default())),
            filter("envoy.filters.http.router", pack(&Router::default())),
        ],
        ..HttpConnectionManager::default()
    };
    Listener {
        name: name.to_owned(),
        api_listener: Some(ApiListener { api_listener: Some(pack(&manager)) }),
        ..Listener::default()
    }
}

fn filter(name: &str, config: Any) -> HttpFilter {
    HttpFilter {
        name: name.to_owned(),
        config_type: Some(http_filter::ConfigType::TypedConfig(config)),
        ..HttpFilter::default()
    }
}

fn ads() -> ConfigSource {
    ConfigSource {
        resource_api_version: ApiVersion::V3.into(),
        config_source_specifier: Some(ConfigSourceSpecifier::Ads(AggregatedConfigSource {})),
        ..ConfigSource::default()
    }
}

/// The fields of a cluster that gRPC libraries know, or why it is of no use to them.
///
/// Any policy but the ring is round robin: Istio sends no other.
fn adapt_cluster(cluster: &Cluster) -> Result<Cluster, &'static str> {
    let is_eds = cluster.cluster_discovery_type
        == Some(ClusterDiscoveryType::Type(DiscoveryType::Eds.into()));
    let is_ring = cluster.lb_policy == i32::from(LbPolicy::RingHash);
    let mut adapted = Cluster {
        name: cluster.name.clone(),
        lb_policy: if is_ring { LbPolicy::RingHash } else { LbPolicy::RoundRobin }.into(),
        lb_config: if is_ring { cluster.lb_config.clone() } else { None },
        circuit_breakers: cluster.circuit_breakers.clone(),
        outlier_detection: cluster.outlier_detection.clone(),
        transport_socket: cluster.transport_socket.as_ref().map(mutual).transpose()?,
        ..Cluster::default()
    };
    if is_eds {
        let found = cluster.eds_cluster_config.as_ref();
        adapted.cluster_discovery_type = cluster.cluster_discovery_type.clone();
        adapted.eds_cluster_config = Some(EdsClusterConfig {
            eds_config: Some(ads()),
            service_name: found.map(|found| found.service_name.clone()).unwrap_or_default(),
        });
        return Ok(adapted);
    }
    let all = cluster.load_assignment.iter().flat_map(|assignment| &assignment.endpoints);
    if all.map(|locality| locality.lb_endpoints.len()).sum::<usize>() != 1 {
        return Err("resolves one name for each cluster, not several");
    }
    adapted.cluster_discovery_type =
        Some(ClusterDiscoveryType::Type(DiscoveryType::LogicalDns.into()));
    adapted.load_assignment = cluster.load_assignment.clone();
    Ok(adapted)
}

/// The endpoints with a locality and a weight for each group: a gRPC library passes over a group
/// without (gRFC A27), where Envoy needs neither.
fn placed(endpoints: &ClusterLoadAssignment) -> ClusterLoadAssignment {
    let mut placed = endpoints.clone();
    for group in &mut placed.endpoints {
        group.locality.get_or_insert_default();
        let weight = |endpoint: &LbEndpoint| endpoint.load_balancing_weight.map_or(1, |w| w.value);
        let sum = group.lb_endpoints.iter().map(weight).fold(0, u32::saturating_add);
        group.load_balancing_weight.get_or_insert(UInt32Value { value: sum.max(1) });
    }
    placed
}

/// Mutual TLS with the mesh's certificate, from the library's own provider.
fn mutual(socket: &TransportSocket) -> Result<TransportSocket, &'static str> {
    const ERROR: &str = "can do no TLS but the mesh's own";
    let Some(transport_socket::ConfigType::TypedConfig(config)) = &socket.config_type else {
        return Err(ERROR);
    };
    let context: UpstreamTlsContext = unpack(config).map_err(|_| ERROR)?;
    let common = context.common_tls_context.unwrap_or_default();
    let is_ours =
        common.tls_certificate_sds_secret_configs.iter().any(|secret| secret.name == PROVIDER);
    let Some(ValidationContextType::CombinedValidationContext(combined)) =
        common.validation_context_type.filter(|_| is_ours)
    else {
        return Err(ERROR);
    };
    let instance = |certificate: &str| CertificateProviderPluginInstance {
        instance_name: PROVIDER.to_owned(),
        certificate_name: certificate.to_owned(),
    };
    #[expect(deprecated, reason = "gRPC libraries read this field first, and Istio writes it")]
    let combined = CombinedCertificateValidationContext {
        default_validation_context: combined.default_validation_context,
        validation_context_certificate_provider_instance: Some(
            envoy_types::pb::envoy::extensions::transport_sockets::tls::v3::common_tls_context::CertificateProviderInstance {
                instance_name: PROVIDER.to_owned(),
                certificate_name: "ROOTCA".to_owned(),
            },
        ),
        ..CombinedCertificateValidationContext::default()
    };
    let context = UpstreamTlsContext {
        common_tls_context: Some(CommonTlsContext {
            tls_certificate_provider_instance: Some(instance(PROVIDER)),
            validation_context_type: Some(ValidationContextType::CombinedValidationContext(
                combined,
            )),
            ..CommonTlsContext::default()
        }),
        sni: context.sni,
        ..UpstreamTlsContext::default()
    };
    Ok(TransportSocket {
        name: socket.name.clone(),
        config_type: Some(transport_socket::ConfigType::TypedConfig(pack(&context))),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn set() -> ResourceSet {
        let mut set = ResourceSet::default();
        let mut cluster = |name: &str, change: &dyn Fn(&mut Cluster)| {
            let mut cluster = Cluster {
                name: name.to_owned(),
                cluster_discovery_type: Some(ClusterDiscoveryType::Type(DiscoveryType::Eds.into())),
                lb_policy: LbPolicy::LeastRequest.into(),
                ..Cluster::default()
            };
            change(&mut cluster);
            set.clusters.insert(name.to_owned(), Arc::new(cluster));
        };
        cluster("outbound|80||a.shop", &|_| {});
        cluster("outbound|443||tls.shop", &|cluster| {
            let context = pack(&UpstreamTlsContext::default());
            let config_type = Some(transport_socket::ConfigType::TypedConfig(context));
            cluster.transport_socket = Some(TransportSocket { name: "tls".into(), config_type });
        });
        cluster("PassthroughCluster", &|_| {});
        let host = VirtualHost {
            name: "a.shop:80".to_owned(),
            domains: vec!["a.shop".to_owned(), "a".to_owned()],
            ..VirtualHost::default()
        };
        let rest = VirtualHost { name: "allow_any".to_owned(), ..VirtualHost::default() };
        let table = RouteConfiguration {
            name: "80".to_owned(),
            virtual_hosts: vec![host, rest],
            ..RouteConfiguration::default()
        };
        set.routes.insert("80".to_owned(), Arc::new(table));
        set
    }

    #[test]
    fn each_name_of_a_host_has_an_api_listener_and_the_host_a_table() {
        let own = adapt(&set(), &mut Vec::new());
        let names: Vec<&String> = own.listeners.keys().collect();
        assert_eq!(names, ["a.shop:80", "a:80"]);
        let table = &own.routes["outbound|80||a.shop"];
        assert_eq!(table.virtual_hosts[0].domains, ["a.shop", "a", "a.shop:80", "a:80"]);
        assert_eq!((own.routes.len(), own.clusters.len()), (1, 1));
        let cluster = &own.clusters["outbound|80||a.shop"];
        assert_eq!(cluster.lb_policy, i32::from(LbPolicy::RoundRobin));
    }

    #[test]
    fn a_cluster_whose_tls_the_library_cannot_do_is_left_out_with_a_fault() {
        let mut faults = Vec::new();
        let own = adapt(&set(), &mut faults);
        assert!(!own.clusters.contains_key("outbound|443||tls.shop"));
        assert_eq!(faults.len(), 1, "{faults:?}");
        assert!(faults[0].to_string().contains("outbound|443||tls.shop"), "{}", faults[0]);
    }
}
