//! The endpoints of clusters: over EDS, or inside of the cluster.

use std::collections::HashMap;

use envoy_types::pb::{
    envoy::config::{
        core::v3::{
            Address, EnvoyInternalAddress, HealthStatus, Locality, Metadata, address,
            envoy_internal_address::AddressNameSpecifier,
        },
        endpoint::v3::{
            ClusterLoadAssignment, Endpoint, LbEndpoint, LocalityLbEndpoints, lb_endpoint,
        },
    },
    google::protobuf::Struct,
};

use super::super::wrap;
use crate::{ClusterInput, Discovery, EndpointHealth, EndpointInput, LocalityInput};

/// Where the transport sockets of a cluster look at an endpoint.
const SOCKET_MATCH: &str = "envoy.transport_socket_match";

/// The endpoints that go over EDS; `None` for a cluster that finds them otherwise.
pub(crate) fn endpoints(input: &ClusterInput) -> Option<ClusterLoadAssignment> {
    match &input.discovery {
        Discovery::Eds(groups) => Some(localities(&input.name, groups)),
        _ => None,
    }
}

/// Endpoints of which nothing is known but where they are.
pub(crate) fn assignment(name: &str, endpoints: &[EndpointInput]) -> ClusterLoadAssignment {
    let lb_endpoints = endpoints.iter().map(endpoint).collect();
    let locality = LocalityLbEndpoints { lb_endpoints, ..LocalityLbEndpoints::default() };
    ClusterLoadAssignment {
        cluster_name: name.to_owned(),
        endpoints: if endpoints.is_empty() { Vec::new() } else { vec![locality] },
        ..ClusterLoadAssignment::default()
    }
}

/// The one endpoint that is a listener of the proxy itself.
pub(super) fn internal(name: &str, listener: &str) -> ClusterLoadAssignment {
    let address = address::Address::EnvoyInternalAddress(EnvoyInternalAddress {
        address_name_specifier: Some(AddressNameSpecifier::ServerListenerName(listener.to_owned())),
        ..EnvoyInternalAddress::default()
    });
    let endpoint = LbEndpoint {
        host_identifier: Some(lb_endpoint::HostIdentifier::Endpoint(Endpoint {
            address: Some(Address { address: Some(address) }),
            ..Endpoint::default()
        })),
        ..LbEndpoint::default()
    };
    ClusterLoadAssignment {
        cluster_name: name.to_owned(),
        endpoints: vec![LocalityLbEndpoints {
            lb_endpoints: vec![endpoint],
            ..LocalityLbEndpoints::default()
        }],
        ..ClusterLoadAssignment::default()
    }
}

/// Endpoints by locality.
pub(super) fn localities(name: &str, groups: &[LocalityInput]) -> ClusterLoadAssignment {
    ClusterLoadAssignment {
        cluster_name: name.to_owned(),
        endpoints: groups.iter().map(locality).collect(),
        ..ClusterLoadAssignment::default()
    }
}

fn locality(input: &LocalityInput) -> LocalityLbEndpoints {
    let [region, zone, sub_zone] = input.place.clone();
    LocalityLbEndpoints {
        locality: Some(Locality { region, zone, sub_zone }),
        load_balancing_weight: wrap::number(input.weight),
        priority: input.priority,
        lb_endpoints: input.endpoints.iter().map(endpoint).collect(),
        ..LocalityLbEndpoints::default()
    }
}

fn endpoint(input: &EndpointInput) -> LbEndpoint {
    let health = match input.health {
        EndpointHealth::Unknown => HealthStatus::Unknown,
        EndpointHealth::Healthy => HealthStatus::Healthy,
        EndpointHealth::Unhealthy => HealthStatus::Unhealthy,
        EndpointHealth::Draining => HealthStatus::Draining,
    };
    LbEndpoint {
        health_status: health.into(),
        load_balancing_weight: wrap::number(input.weight),
        metadata: metadata(input),
        host_identifier: Some(lb_endpoint::HostIdentifier::Endpoint(Endpoint {
            address: Some(match input.port {
                Some(port) => wrap::socket(&input.address, port),
                None => wrap::pipe(&input.address),
            }),
            ..Endpoint::default()
        })),
    }
}

fn metadata(input: &EndpointInput) -> Option<Metadata> {
    let mut filter_metadata = HashMap::new();
    let one = |key: &str, value: &str| Struct {
        fields: HashMap::from([(key.to_owned(), wrap::text(value))]),
    };
    if input.takes_mesh_tls {
        filter_metadata.insert(SOCKET_MATCH.to_owned(), one("tlsMode", "istio"));
    }
    if !input.workload.is_empty() {
        filter_metadata.insert("istio".to_owned(), one("workload", &input.workload));
    }
    (!filter_metadata.is_empty()).then(|| Metadata { filter_metadata, ..Metadata::default() })
}
