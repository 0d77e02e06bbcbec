//! Clusters: discovery, choice, limits, transport, protocol.

#![expect(deprecated, reason = "deprecated fields must be looked at to be refused or understood")]

use std::{collections::HashMap, sync::Arc};

use envoy_types::pb::{
    envoy::{
        config::{
            cluster::v3::{
                CircuitBreakers, Cluster as PbCluster, UpstreamConnectionOptions,
                circuit_breakers::Thresholds,
                circuit_breakers::thresholds::RetryBudget as PbBudget,
                cluster::{ClusterDiscoveryType, DiscoveryType, LbConfig, OriginalDstLbConfig},
            },
            core::v3::{BindConfig, ExtraSourceAddress, UpstreamHttpProtocolOptions},
            endpoint::v3::ClusterLoadAssignment,
        },
        extensions::{
            clusters::original_dst::v3::OriginalDstCluster,
            upstreams::http::v3::{
                HttpProtocolOptions as Extension,
                http_protocol_options::{
                    AutoHttpConfig, ExplicitHttpConfig, UpstreamProtocolOptions,
                    UseDownstreamHttpConfig, explicit_http_config::ProtocolConfig,
                },
            },
        },
    },
    google::protobuf::{Any, value::Kind as ValueKind},
};

use super::{
    at::{At, fields, message_of},
    balance, checks, credentials, dns, endpoints, http, messages,
    sockets::{Sockets, sockets},
};
use crate::{
    CircuitLimits, Cluster, Discovery, DnsOptions, Http1Options, Http2Options, HttpOptions,
    LbPolicy, Limits, RetryBudget, TcpKeepalive, UpstreamFilter, UpstreamProtocol,
};

/// The key under which a cluster's HTTP options are.
const HTTP_EXTENSION: &str = "envoy.extensions.upstreams.http.v3.HttpProtocolOptions";

/// The request header that Envoy's ORIGINAL_DST clusters read when none is named.
const ORIGINAL_DST_HEADER: &str = "x-envoy-original-dst-host";

/// A cluster without the endpoints that come by EDS.
pub(super) struct Shape {
    pub(super) cluster: Cluster,
    pub(super) sockets: Sockets,
}

/// Compiles a cluster; its inline endpoints too.
#[expect(clippy::too_many_lines, reason = "one line per field of the message")]
pub(super) fn cluster(at: &At<'_>, value: &PbCluster) -> Option<Shape> {
    fields!(at, value => PbCluster {
        use {
            transport_socket_matches, name, alt_stat_name, connect_timeout, per_connection_buffer_limit_bytes,
            load_assignment, max_requests_per_connection, circuit_breakers,
            upstream_http_protocol_options, common_http_protocol_options, http_protocol_options,
            http2_protocol_options, typed_extension_protocol_options, upstream_bind_config,
            transport_socket, protocol_selection, upstream_connection_options, health_checks,
            outlier_detection, close_connections_on_host_health_failure,
        }
        // Looked at by `discovery`, `dns` and `balance`; names, statistics, and how eagerly things
        // that we do not have are done.
        accept {
            eds_cluster_config, cluster_discovery_type, lb_config, lb_policy, common_lb_config,
            lb_subset_config, load_balancing_policy, dns_refresh_rate, respect_dns_ttl,
            dns_lookup_family, dns_resolvers, use_tcp_for_dns_lookups, dns_resolution_config,
            typed_dns_resolver_config, dns_failure_refresh_rate, dns_jitter, metadata,
            stats_matcher, track_timeout_budgets, track_cluster_stats,
            lrs_report_endpoint_metrics, wait_for_warm_on_init, cleanup_interval,
            ignore_health_on_host_removal,
        }
        refuse {
            transport_socket_matcher, per_connection_buffer_high_watermark_timeout, filters,
            lrs_server, upstream_config, preconnect_policy,
            connection_pool_per_downstream_connection, queuing_policies,
        }
    });
    let mut cluster = Cluster::new(name);
    if !alt_stat_name.is_empty() {
        cluster.stat_name = alt_stat_name.as_str().into();
    }
    cluster.dns = dns::options(at, value);
    let discovery = discovery(at, value, &mut cluster.dns);
    let choice = balance::choice(at, value);
    let sockets = sockets(at, transport_socket_matches, transport_socket.as_ref());
    let (discovery, choice, mut sockets) = (discovery?, choice?, sockets?);
    let is_provided =
        matches!(discovery, Discovery::OriginalDst { .. } | Discovery::DynamicForward(_));
    if (choice.policy == LbPolicy::ClusterProvided) != is_provided {
        let message = "CLUSTER_PROVIDED and ORIGINAL_DST (or a dynamic cluster) go together only";
        at.field("lb_policy").fault(message);
    }
    let mut protocol = Protocol::default();
    protocol.deprecated(at, common_http_protocol_options.as_ref(), http_protocol_options.as_ref());
    if http2_protocol_options.is_some() {
        let options = http2_protocol_options.as_ref();
        protocol.http2 = http::http2(&at.field("http2_protocol_options"), options);
        protocol.version = UpstreamProtocol::Http2;
    }
    if *protocol_selection == 1 {
        protocol.version = UpstreamProtocol::Downstream;
    }
    if let Some(requests) = max_requests_per_connection {
        protocol.http.max_requests = (requests.value > 0).then_some(requests.value);
    }
    protocol.upstream(at, upstream_http_protocol_options.as_ref());
    protocol.extensions(at, typed_extension_protocol_options);
    sockets.offer(protocol.version);
    let timeout = messages::duration(&at.field("connect_timeout"), connect_timeout.as_ref());
    let mut cluster = Cluster {
        keeps_alpn: keeps_alpn(value.metadata.as_ref()),
        discovery,
        policy: choice.policy,
        slow_start: choice.slow_start,
        subsets: choice.subsets,
        locality_weighted: choice.locality_weighted,
        panic_threshold: choice.panic_threshold,
        ignores_new_hosts: choice.ignores_new_hosts,
        closes_on_failure: *close_connections_on_host_health_failure,
        outlier: checks::outlier(&at.field("outlier_detection"), outlier_detection.as_ref()),
        health_checks: checks::health_checks(&at.field("health_checks"), health_checks),
        connect_timeout: timeout.filter(|t| !t.is_zero()).unwrap_or(cluster.connect_timeout),
        tls: sockets.default.tls.clone(),
        hop: sockets.default.hop,
        auto_sni: protocol.auto_sni,
        auto_san_validation: protocol.auto_san_validation,
        protocol: protocol.version,
        filters: protocol.filters,
        http: protocol.http,
        http1: protocol.http1,
        http2: protocol.http2,
        limits: limits(&at.field("circuit_breakers"), circuit_breakers.as_ref()),
        bind_sources: bind(&at.field("upstream_bind_config"), upstream_bind_config.as_ref()),
        tcp_keepalive: connection_options(
            &at.field("upstream_connection_options"),
            upstream_connection_options.as_ref(),
        ),
        buffer_limit: messages::number(per_connection_buffer_limit_bytes.as_ref())
            .unwrap_or(cluster.buffer_limit),
        ..cluster
    };
    inline_endpoints(at, &mut cluster, &sockets, load_assignment.as_ref());
    Some(Shape { cluster, sockets })
}

fn inline_endpoints(
    at: &At<'_>,
    cluster: &mut Cluster,
    sockets: &Sockets,
    assignment: Option<&ClusterLoadAssignment>,
) {
    let at = &at.field("load_assignment");
    let takes_inline = matches!(
        cluster.discovery,
        Discovery::Static | Discovery::StrictDns | Discovery::LogicalDns
    );
    let Some(assignment) = assignment else { return };
    if !takes_inline {
        at.fault("does not go with this kind of discovery");
        return;
    }
    let endpoints = endpoints::endpoints(at, assignment, sockets);
    let named = endpoints
        .list
        .iter()
        .any(|endpoint| matches!(endpoint.address, crate::EndpointAddress::Name { .. }));
    if cluster.discovery == Discovery::Static && named {
        at.fault("holds a host name, which a STATIC cluster does not resolve");
    }
    if cluster.discovery == Discovery::LogicalDns && endpoints.list.len() != 1 {
        at.fault("must hold exactly one endpoint in a LOGICAL_DNS cluster");
    }
    cluster.endpoints = Arc::new(endpoints);
}

fn discovery(at: &At<'_>, cluster: &PbCluster, options: &mut DnsOptions) -> Option<Discovery> {
    if cluster.name.is_empty() {
        at.field("name").fault("is missing");
    }
    let kind = match &cluster.cluster_discovery_type {
        None => DiscoveryType::Static,
        Some(ClusterDiscoveryType::Type(kind)) => match DiscoveryType::try_from(*kind) {
            Ok(kind) => kind,
            Err(_) => {
                at.field("type").unsupported();
                return None;
            }
        },
        Some(ClusterDiscoveryType::ClusterType(custom)) => {
            let at = at.field("cluster_type");
            let Some(any) = &custom.typed_config else {
                at.fault(format!("{:?} is not supported", custom.name));
                return None;
            };
            return custom_discovery(&at.field("typed_config"), any, cluster, options);
        }
    };
    let eds = cluster.eds_cluster_config.as_ref();
    if kind != DiscoveryType::Eds && eds.is_some() {
        at.field("eds_cluster_config").fault("does not go with this kind of discovery");
    }
    Some(match kind {
        DiscoveryType::Static => Discovery::Static,
        DiscoveryType::StrictDns => Discovery::StrictDns,
        DiscoveryType::LogicalDns => Discovery::LogicalDns,
        DiscoveryType::Eds => {
            let service = eds.map(|eds| eds.service_name.as_str());
            let service = service.filter(|service| !service.is_empty()).unwrap_or(&cluster.name);
            Discovery::Eds { service: service.into() }
        }
        DiscoveryType::OriginalDst => match &cluster.lb_config {
            Some(LbConfig::OriginalDstLbConfig(config)) => {
                original_dst(&at.field("original_dst_lb_config"), config)
            }
            _ => Discovery::OriginalDst { port_override: None, header: None },
        },
    })
}

fn custom_discovery(
    at: &At<'_>,
    any: &Any,
    cluster: &PbCluster,
    options: &mut DnsOptions,
) -> Option<Discovery> {
    match message_of(any) {
        "envoy.extensions.clusters.dns.v3.DnsCluster" => {
            let (dns, is_logical) = dns::cluster(at, any)?;
            *options = dns;
            Some(if is_logical { Discovery::LogicalDns } else { Discovery::StrictDns })
        }
        "envoy.extensions.clusters.original_dst.v3.OriginalDstCluster" => {
            let OriginalDstCluster {
                use_http_header,
                http_header_name,
                upstream_port_override,
                metadata_key,
            } = at.unpack(any)?;
            let config = OriginalDstLbConfig {
                use_http_header,
                http_header_name,
                upstream_port_override,
                metadata_key,
            };
            Some(original_dst(at, &config))
        }
        "envoy.extensions.clusters.dynamic_forward_proxy.v3.ClusterConfig" => {
            let dynamic = dns::dynamic_cluster(at, any, cluster)?;
            *options = dynamic.dns.clone();
            Some(Discovery::DynamicForward(Arc::new(dynamic)))
        }
        other => {
            at.fault(format!("cluster type {other} is not supported"));
            None
        }
    }
}

fn original_dst(at: &At<'_>, config: &OriginalDstLbConfig) -> Discovery {
    fields!(at, config => OriginalDstLbConfig {
        use { upstream_port_override, use_http_header, http_header_name }
        accept {}
        refuse { metadata_key }
    });
    let port = messages::number(upstream_port_override.as_ref()).unwrap_or(0);
    let port = u16::try_from(port).unwrap_or_else(|_| {
        at.field("upstream_port_override").fault("is not a port number");
        0
    });
    let name = if http_header_name.is_empty() { ORIGINAL_DST_HEADER } else { http_header_name };
    let header =
        use_http_header.then(|| messages::header_name(&at.field("http_header_name"), name));
    Discovery::OriginalDst { port_override: (port != 0).then_some(port), header }
}

fn limits(at: &At<'_>, breakers: Option<&CircuitBreakers>) -> Limits {
    let mut limits = Limits::default();
    let Some(breakers) = breakers else { return limits };
    let place = at.field("thresholds");
    for (index, thresholds) in breakers.thresholds.iter().enumerate() {
        let found = thresholds_of(&place.nth(index), thresholds);
        match thresholds.priority {
            0 => limits.default = found,
            1 => limits.high = found,
            _ => place.nth(index).field("priority").unsupported(),
        }
    }
    let place = at.field("per_host_thresholds");
    for (index, thresholds) in breakers.per_host_thresholds.iter().enumerate() {
        // Envoy counts nothing else per endpoint.
        let connections = messages::number(thresholds.max_connections.as_ref());
        let only = Thresholds {
            priority: thresholds.priority,
            max_connections: thresholds.max_connections,
            ..Thresholds::default()
        };
        if *thresholds != only {
            place.nth(index).fault("may only hold max_connections");
        }
        limits.host_connections = connections.or(limits.host_connections);
    }
    limits
}

fn thresholds_of(at: &At<'_>, thresholds: &Thresholds) -> CircuitLimits {
    fields!(at, thresholds => Thresholds {
        use { max_connections, max_pending_requests, max_requests, max_retries, retry_budget }
        // Statistics, and a bound on pools: we have one per worker.
        accept { priority, track_remaining, max_connection_pools }
        refuse {}
    });
    let mut limits = CircuitLimits::default();
    let set = |limit: &mut u32, value: Option<u32>| *limit = value.unwrap_or(*limit);
    set(&mut limits.connections, messages::number(max_connections.as_ref()));
    set(&mut limits.pending, messages::number(max_pending_requests.as_ref()));
    set(&mut limits.requests, messages::number(max_requests.as_ref()));
    set(&mut limits.retries, messages::number(max_retries.as_ref()));
    limits.retry_budget = retry_budget.as_ref().map(|budget| {
        fields!(&at.field("retry_budget"), budget => PbBudget {
            use { budget_percent, min_retry_concurrency }
            accept {}
            refuse { budget_interval }
        });
        RetryBudget {
            percent: budget_percent.as_ref().map_or(20.0, |percent| percent.value),
            min: messages::number(min_retry_concurrency.as_ref()).unwrap_or(3),
        }
    });
    limits
}

fn bind(at: &At<'_>, config: Option<&BindConfig>) -> Vec<std::net::SocketAddr> {
    let Some(config) = config else { return Vec::new() };
    fields!(at, config => BindConfig {
        use { source_address, extra_source_addresses }
        accept {}
        refuse {
            freebind, socket_options, additional_source_addresses,
            local_address_selector, validate_network_namespaces,
        }
    });
    let first = source_address
        .as_ref()
        .and_then(|address| messages::source_address(&at.field("source_address"), address));
    let at = at.field("extra_source_addresses");
    let others = extra_source_addresses.iter().enumerate().filter_map(|(index, extra)| {
        let at = at.nth(index);
        fields!(&at, extra => ExtraSourceAddress {
            use { address }
            accept {}
            refuse { socket_options }
        });
        messages::source_address(&at.field("address"), address.as_ref()?)
    });
    first.into_iter().chain(others).collect()
}

fn connection_options(
    at: &At<'_>,
    options: Option<&UpstreamConnectionOptions>,
) -> Option<TcpKeepalive> {
    let options = options?;
    fields!(at, options => UpstreamConnectionOptions {
        use { tcp_keepalive }
        accept { set_local_interface_name_on_upstream_connections }
        refuse { happy_eyeballs_config }
    });
    messages::keepalive(tcp_keepalive.as_ref())
}

/// What the several places for HTTP options say together.
struct Protocol {
    version: UpstreamProtocol,
    filters: Vec<UpstreamFilter>,
    http: HttpOptions,
    http1: Http1Options,
    http2: Http2Options,
    auto_sni: bool,
    auto_san_validation: bool,
}

impl Default for Protocol {
    fn default() -> Self {
        Self {
            version: UpstreamProtocol::Http1,
            filters: Vec::new(),
            http: HttpOptions::default(),
            http1: Http1Options::default(),
            http2: Http2Options::default(),
            auto_sni: false,
            auto_san_validation: false,
        }
    }
}

impl Protocol {
    fn deprecated(
        &mut self,
        at: &At<'_>,
        common: Option<&envoy_types::pb::envoy::config::core::v3::HttpProtocolOptions>,
        http1: Option<&envoy_types::pb::envoy::config::core::v3::Http1ProtocolOptions>,
    ) {
        self.http = http::options(&at.field("common_http_protocol_options"), common);
        self.http1 = http::http1(&at.field("http_protocol_options"), http1);
    }

    fn upstream(&mut self, at: &At<'_>, options: Option<&UpstreamHttpProtocolOptions>) {
        let Some(options) = options else { return };
        fields!(&at.field("upstream_http_protocol_options"), options =>
        UpstreamHttpProtocolOptions {
            use { auto_sni, auto_san_validation }
            accept {}
            refuse { override_auto_sni_header }
        });
        self.auto_sni = *auto_sni;
        self.auto_san_validation = *auto_san_validation;
    }

    fn extensions(&mut self, at: &At<'_>, extensions: &HashMap<String, Any>) {
        let at = at.field("typed_extension_protocol_options");
        for (key, any) in extensions {
            let at = at.key(key);
            if key != HTTP_EXTENSION {
                at.unsupported();
                continue;
            }
            let Some(extension) = at.unpack::<Extension>(any) else { continue };
            fields!(&at, &extension => Extension {
                use {
                    common_http_protocol_options, upstream_http_protocol_options, http_filters,
                    upstream_protocol_options,
                }
                accept {}
                refuse {
                    header_validation_config, outlier_detection, request_mirror_policies,
                    hash_policy, retry_policy,
                }
            });
            self.filters = credentials::upstream_filters(&at.field("http_filters"), http_filters);
            if common_http_protocol_options.is_some() {
                let common = common_http_protocol_options.as_ref();
                self.http = http::options(&at.field("common_http_protocol_options"), common);
            }
            self.upstream(&at, upstream_http_protocol_options.as_ref());
            self.version(&at, upstream_protocol_options.as_ref());
        }
    }

    fn version(&mut self, at: &At<'_>, options: Option<&UpstreamProtocolOptions>) {
        self.version = match options {
            None => {
                at.field("upstream_protocol_options").fault("is missing");
                return;
            }
            Some(UpstreamProtocolOptions::ExplicitHttpConfig(ExplicitHttpConfig {
                protocol_config,
            })) => match protocol_config {
                None => UpstreamProtocol::Http1,
                Some(ProtocolConfig::HttpProtocolOptions(options)) => {
                    self.http1 = http::http1(&at.field("http_protocol_options"), Some(options));
                    UpstreamProtocol::Http1
                }
                Some(ProtocolConfig::Http2ProtocolOptions(options)) => {
                    self.http2 = http::http2(&at.field("http2_protocol_options"), Some(options));
                    UpstreamProtocol::Http2
                }
                Some(ProtocolConfig::Http3ProtocolOptions(_)) => {
                    at.field("http3_protocol_options").unsupported();
                    return;
                }
            },
            Some(UpstreamProtocolOptions::UseDownstreamProtocolConfig(config)) => {
                fields!(&at.field("use_downstream_protocol_config"), config =>
                UseDownstreamHttpConfig {
                    use { http_protocol_options, http2_protocol_options }
                    accept {}
                    refuse { http3_protocol_options }
                });
                self.http1 = http::http1(at, http_protocol_options.as_ref());
                self.http2 = http::http2(at, http2_protocol_options.as_ref());
                UpstreamProtocol::Downstream
            }
            Some(UpstreamProtocolOptions::AutoConfig(config)) => {
                fields!(&at.field("auto_config"), config => AutoHttpConfig {
                    use { http_protocol_options, http2_protocol_options }
                    accept {}
                    refuse { http3_protocol_options, alternate_protocols_cache_options }
                });
                self.http1 = http::http1(at, http_protocol_options.as_ref());
                self.http2 = http::http2(at, http2_protocol_options.as_ref());
                UpstreamProtocol::Auto
            }
        };
    }
}

/// Istio's word to its ALPN filter, in the cluster's metadata.
fn keeps_alpn(metadata: Option<&envoy_types::pb::envoy::config::core::v3::Metadata>) -> bool {
    let istio = metadata.and_then(|metadata| metadata.filter_metadata.get("istio"));
    let said = istio.and_then(|istio| istio.fields.get("alpn_override"));
    matches!(
        said.and_then(|said| said.kind.as_ref()),
        Some(ValueKind::StringValue(text)) if text == "false"
    )
}
