//! Clusters and their endpoints.

use std::collections::HashMap;

use envoy_types::pb::{
    envoy::{
        config::{
            cluster::v3::{
                CircuitBreakers, Cluster,
                circuit_breakers::Thresholds,
                cluster::{
                    ClusterDiscoveryType, DiscoveryType, DnsLookupFamily, EdsClusterConfig,
                    LbPolicy,
                },
            },
            core::v3::{Http1ProtocolOptions, Http2ProtocolOptions, UpstreamHttpProtocolOptions},
            endpoint::v3::{
                ClusterLoadAssignment, Endpoint, LbEndpoint, LocalityLbEndpoints, lb_endpoint,
            },
        },
        extensions::upstreams::http::v3::{
            HttpProtocolOptions,
            http_protocol_options::{
                ExplicitHttpConfig, UpstreamProtocolOptions, explicit_http_config::ProtocolConfig,
            },
        },
    },
    google::protobuf::Any,
};
use sluis_envoy::pack;

use super::{tls, wrap};
use crate::{Balance, ClusterInput, Discovery, EndpointInput, MeshInputs, UpstreamProtocol};

/// Where the options of a cluster's HTTP are filed, and their type.
pub(super) const HTTP_OPTIONS: &str = "envoy.extensions.upstreams.http.v3.HttpProtocolOptions";

/// One cluster.
#[expect(deprecated, reason = "Istio and other xDS clients know the DNS settings only here")]
pub(crate) fn cluster(input: &ClusterInput, mesh: &MeshInputs) -> Cluster {
    let mut cluster = Cluster {
        name: input.name.clone(),
        connect_timeout: Some(wrap::duration(input.connect_timeout)),
        lb_policy: policy(input).into(),
        transport_socket: input.tls.as_ref().map(tls::upstream),
        typed_extension_protocol_options: http_options(input),
        metadata: wrap::metadata(input.config.as_deref()),
        circuit_breakers: Some(no_limits()),
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
            cluster.load_assignment = Some(assignment(&input.name, names));
            DiscoveryType::StrictDns
        }
        Discovery::LogicalDns(name) => {
            let name = std::slice::from_ref(name);
            cluster.load_assignment = Some(assignment(&input.name, name));
            DiscoveryType::LogicalDns
        }
        Discovery::OriginalDestination => DiscoveryType::OriginalDst,
        Discovery::BlackHole => {
            cluster.circuit_breakers = None;
            DiscoveryType::Static
        }
    };
    if matches!(kind, DiscoveryType::StrictDns | DiscoveryType::LogicalDns) {
        cluster.dns_refresh_rate = Some(wrap::duration(mesh.dns_refresh));
        cluster.respect_dns_ttl = true;
        cluster.dns_lookup_family = DnsLookupFamily::V4Only.into();
    }
    cluster.cluster_discovery_type = Some(ClusterDiscoveryType::Type(kind.into()));
    cluster
}

/// The endpoints that go over EDS; `None` for a cluster that finds them otherwise.
pub(crate) fn endpoints(input: &ClusterInput) -> Option<ClusterLoadAssignment> {
    match &input.discovery {
        Discovery::Eds(endpoints) => Some(assignment(&input.name, endpoints)),
        _ => None,
    }
}

fn policy(input: &ClusterInput) -> LbPolicy {
    match (&input.discovery, input.balance) {
        (Discovery::OriginalDestination, _) | (_, Balance::Passthrough) => {
            LbPolicy::ClusterProvided
        }
        (Discovery::BlackHole, _) | (_, Balance::RoundRobin) => LbPolicy::RoundRobin,
        (_, Balance::LeastRequest) => LbPolicy::LeastRequest,
        (_, Balance::Random) => LbPolicy::Random,
    }
}

/// Istio lifts Envoy's limits (1024 connections and requests, 3 retries), which surprise users.
fn no_limits() -> CircuitBreakers {
    CircuitBreakers {
        thresholds: vec![Thresholds {
            max_connections: wrap::number(u32::MAX),
            max_pending_requests: wrap::number(u32::MAX),
            max_requests: wrap::number(u32::MAX),
            max_retries: wrap::number(u32::MAX),
            track_remaining: true,
            ..Thresholds::default()
        }],
        ..CircuitBreakers::default()
    }
}

fn http_options(input: &ClusterInput) -> HashMap<String, Any> {
    let tls = input.tls.as_ref();
    let names = UpstreamHttpProtocolOptions {
        auto_sni: tls.is_some_and(|tls| tls.is_sni_auto),
        auto_san_validation: tls.is_some_and(|tls| tls.is_name_check_auto),
        ..UpstreamHttpProtocolOptions::default()
    };
    let has_names = names != UpstreamHttpProtocolOptions::default();
    let protocol = match input.protocol {
        UpstreamProtocol::Http1 if !has_names => return HashMap::new(),
        UpstreamProtocol::Http1 => {
            ProtocolConfig::HttpProtocolOptions(Http1ProtocolOptions::default())
        }
        UpstreamProtocol::Http2 => {
            ProtocolConfig::Http2ProtocolOptions(Http2ProtocolOptions::default())
        }
    };
    let options = HttpProtocolOptions {
        upstream_http_protocol_options: has_names.then_some(names),
        upstream_protocol_options: Some(UpstreamProtocolOptions::ExplicitHttpConfig(
            ExplicitHttpConfig { protocol_config: Some(protocol) },
        )),
        ..HttpProtocolOptions::default()
    };
    HashMap::from([(HTTP_OPTIONS.to_owned(), pack(&options))])
}

pub(super) fn assignment(name: &str, endpoints: &[EndpointInput]) -> ClusterLoadAssignment {
    let lb_endpoints = endpoints.iter().map(endpoint).collect();
    let locality = LocalityLbEndpoints { lb_endpoints, ..LocalityLbEndpoints::default() };
    ClusterLoadAssignment {
        cluster_name: name.to_owned(),
        endpoints: if endpoints.is_empty() { Vec::new() } else { vec![locality] },
        ..ClusterLoadAssignment::default()
    }
}

fn endpoint(input: &EndpointInput) -> LbEndpoint {
    LbEndpoint {
        load_balancing_weight: wrap::number(input.weight),
        host_identifier: Some(lb_endpoint::HostIdentifier::Endpoint(Endpoint {
            address: Some(match input.port {
                Some(port) => wrap::socket(&input.address, port),
                None => wrap::pipe(&input.address),
            }),
            ..Endpoint::default()
        })),
        ..LbEndpoint::default()
    }
}
