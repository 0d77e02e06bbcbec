//! Clusters: discovery, choice, limits, transport, protocol.

#![expect(deprecated, reason = "deprecated fields must be looked at to be refused or understood")]

use std::{collections::HashMap, sync::Arc, time::Duration};

use envoy_types::pb::{
    envoy::{
        config::{
            cluster::v3::{
                CircuitBreakers, Cluster as PbCluster, UpstreamConnectionOptions,
                circuit_breakers::Thresholds,
                cluster::{
                    ClusterDiscoveryType, CommonLbConfig, DiscoveryType, DnsLookupFamily,
                    EdsClusterConfig, LbConfig, LbPolicy as PbPolicy, LeastRequestLbConfig,
                    OriginalDstLbConfig, TransportSocketMatch,
                    common_lb_config::LocalityConfigSpecifier,
                },
            },
            core::v3::{BindConfig, UpstreamHttpProtocolOptions},
            endpoint::v3::ClusterLoadAssignment,
        },
        extensions::upstreams::http::v3::{
            HttpProtocolOptions as Extension,
            http_protocol_options::{
                AutoHttpConfig, ExplicitHttpConfig, UpstreamProtocolOptions,
                UseDownstreamHttpConfig, explicit_http_config::ProtocolConfig,
            },
        },
    },
    google::protobuf::{Any, Struct, value::Kind as ValueKind},
};

use super::{
    at::{At, fields, refuse},
    endpoints, http, messages, tls,
};
use crate::{
    CircuitLimits, Cluster, Discovery, DnsFamily, HttpOptions, LbPolicy, TcpKeepalive,
    UpstreamProtocol, UpstreamTls,
};

/// The key under which a cluster's HTTP options are.
const HTTP_EXTENSION: &str = "envoy.extensions.upstreams.http.v3.HttpProtocolOptions";

const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
const DNS_REFRESH: Duration = Duration::from_secs(5);
const BUFFER_LIMIT: u32 = 1 << 20;

/// A cluster without the endpoints that come by EDS.
pub(super) struct Shape {
    pub(super) cluster: Cluster,
    pub(super) sockets: Sockets,
    /// Whether localities share the traffic by their own weights.
    pub(super) locality_weighted: bool,
}

/// TLS by endpoint: the first match that fits, else the cluster's own.
pub(super) struct Sockets {
    matches: Vec<SocketMatch>,
    default: Option<Arc<UpstreamTls>>,
}

/// The metadata that an endpoint must have, and TLS towards such endpoints.
struct SocketMatch {
    wanted: Vec<(String, String)>,
    tls: Option<Arc<UpstreamTls>>,
}

impl Sockets {
    /// TLS for an endpoint with this metadata.
    pub(super) fn of(&self, metadata: Option<&Struct>) -> Option<Arc<UpstreamTls>> {
        let has = |key: &String, value: &String| {
            let found = metadata.and_then(|all| all.fields.get(key)).and_then(|v| v.kind.as_ref());
            matches!(found, Some(ValueKind::StringValue(text)) if text == value)
        };
        self.matches
            .iter()
            .find(|entry| entry.wanted.iter().all(|(key, value)| has(key, value)))
            .map_or_else(|| self.default.clone(), |entry| entry.tls.clone())
    }
}

/// Compiles a cluster; its inline endpoints too.
#[expect(clippy::too_many_lines, reason = "one line per field of the message")]
pub(super) fn cluster(at: &At<'_>, value: &PbCluster) -> Option<Shape> {
    fields!(at, value => PbCluster {
        use {
            transport_socket_matches, name, eds_cluster_config, connect_timeout,
            per_connection_buffer_limit_bytes, lb_policy, load_assignment,
            max_requests_per_connection, circuit_breakers, upstream_http_protocol_options,
            common_http_protocol_options, http_protocol_options, http2_protocol_options,
            typed_extension_protocol_options, dns_refresh_rate, respect_dns_ttl, dns_lookup_family,
            upstream_bind_config, common_lb_config, transport_socket, protocol_selection,
            upstream_connection_options, cluster_discovery_type, lb_config,
        }
        // Names, statistics, and how eagerly things that we do not have are done.
        accept {
            alt_stat_name, stats_matcher, metadata, track_timeout_budgets, track_cluster_stats,
            lrs_report_endpoint_metrics, wait_for_warm_on_init, cleanup_interval,
            close_connections_on_host_health_failure, ignore_health_on_host_removal,
            dns_failure_refresh_rate, dns_jitter,
        }
        refuse {
            transport_socket_matcher, per_connection_buffer_high_watermark_timeout, health_checks,
            dns_resolvers, use_tcp_for_dns_lookups, dns_resolution_config,
            typed_dns_resolver_config, outlier_detection, lb_subset_config, filters,
            load_balancing_policy, lrs_server, upstream_config, preconnect_policy,
            connection_pool_per_downstream_connection, queuing_policies,
        }
    });
    let discovery = discovery(at, name, cluster_discovery_type, eds_cluster_config, lb_config);
    let policy = policy(at, *lb_policy, lb_config.as_ref());
    let sockets = sockets(at, transport_socket_matches, transport_socket.as_ref());
    let (panic_threshold, locality_weighted) =
        common_lb(&at.field("common_lb_config"), common_lb_config.as_ref());
    let (discovery, policy, sockets) = (discovery?, policy?, sockets?);
    if (policy == LbPolicy::ClusterProvided) != matches!(discovery, Discovery::OriginalDst { .. }) {
        at.field("lb_policy").fault("CLUSTER_PROVIDED and ORIGINAL_DST go together only");
    }
    let mut protocol = Protocol::default();
    protocol.deprecated(at, common_http_protocol_options.as_ref(), http_protocol_options.as_ref());
    if http2_protocol_options.is_some() {
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
    let mut cluster = Cluster {
        name: name.as_str().into(),
        discovery,
        endpoints: Arc::default(),
        policy,
        panic_threshold,
        connect_timeout: messages::duration(&at.field("connect_timeout"), connect_timeout.as_ref())
            .filter(|timeout| !timeout.is_zero())
            .unwrap_or(CONNECT_TIMEOUT),
        tls: sockets.default.clone(),
        auto_sni: protocol.auto_sni,
        auto_san_validation: protocol.auto_san_validation,
        protocol: protocol.version,
        http: protocol.http,
        limits: limits(&at.field("circuit_breakers"), circuit_breakers.as_ref()),
        bind_source: bind(&at.field("upstream_bind_config"), upstream_bind_config.as_ref()),
        tcp_keepalive: connection_options(
            &at.field("upstream_connection_options"),
            upstream_connection_options.as_ref(),
        ),
        dns_family: dns_family(at, *dns_lookup_family),
        dns_refresh: messages::duration(&at.field("dns_refresh_rate"), dns_refresh_rate.as_ref())
            .filter(|rate| !rate.is_zero())
            .unwrap_or(DNS_REFRESH),
        respect_dns_ttl: *respect_dns_ttl,
        buffer_limit: messages::number(per_connection_buffer_limit_bytes.as_ref())
            .unwrap_or(BUFFER_LIMIT),
    };
    inline_endpoints(at, &mut cluster, &sockets, locality_weighted, load_assignment.as_ref());
    Some(Shape { cluster, sockets, locality_weighted })
}

fn inline_endpoints(
    at: &At<'_>,
    cluster: &mut Cluster,
    sockets: &Sockets,
    locality_weighted: bool,
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
    let endpoints = endpoints::endpoints(at, assignment, sockets, locality_weighted);
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

fn discovery(
    at: &At<'_>,
    name: &str,
    kind: &Option<ClusterDiscoveryType>,
    eds: &Option<EdsClusterConfig>,
    lb: &Option<LbConfig>,
) -> Option<Discovery> {
    if name.is_empty() {
        at.field("name").fault("is missing");
    }
    let kind = match kind {
        None => DiscoveryType::Static,
        Some(ClusterDiscoveryType::Type(kind)) => match DiscoveryType::try_from(*kind) {
            Ok(kind) => kind,
            Err(_) => {
                at.field("type").unsupported();
                return None;
            }
        },
        Some(ClusterDiscoveryType::ClusterType(custom)) => {
            let message = format!("{:?} is not supported", custom.name);
            at.field("cluster_type").fault(message);
            return None;
        }
    };
    if kind != DiscoveryType::Eds && eds.is_some() {
        at.field("eds_cluster_config").fault("does not go with this kind of discovery");
    }
    Some(match kind {
        DiscoveryType::Static => Discovery::Static,
        DiscoveryType::StrictDns => Discovery::StrictDns,
        DiscoveryType::LogicalDns => Discovery::LogicalDns,
        DiscoveryType::Eds => {
            let service = eds.as_ref().map(|eds| eds.service_name.as_str());
            let service = service.filter(|service| !service.is_empty()).unwrap_or(name);
            Discovery::Eds { service: service.into() }
        }
        DiscoveryType::OriginalDst => {
            let port_override = match lb {
                Some(LbConfig::OriginalDstLbConfig(config)) => {
                    original_dst(&at.field("original_dst_lb_config"), config)
                }
                _ => None,
            };
            Discovery::OriginalDst { port_override }
        }
    })
}

fn original_dst(at: &At<'_>, config: &OriginalDstLbConfig) -> Option<u16> {
    fields!(at, config => OriginalDstLbConfig {
        use { upstream_port_override }
        accept {}
        // The client must not choose the address by a header.
        refuse { use_http_header, http_header_name, metadata_key }
    });
    let port = messages::number(upstream_port_override.as_ref())?;
    let port = u16::try_from(port).map_err(|_| {
        at.field("upstream_port_override").fault("is not a port number");
    });
    port.ok().filter(|port| *port != 0)
}

fn policy(at: &At<'_>, policy: i32, config: Option<&LbConfig>) -> Option<LbPolicy> {
    let policy = match PbPolicy::try_from(policy) {
        Ok(PbPolicy::RoundRobin) => LbPolicy::RoundRobin,
        Ok(PbPolicy::LeastRequest) => LbPolicy::LeastRequest { choices: 2 },
        Ok(PbPolicy::Random) => LbPolicy::Random,
        Ok(PbPolicy::ClusterProvided) => LbPolicy::ClusterProvided,
        _ => {
            at.field("lb_policy").unsupported();
            return None;
        }
    };
    match (policy, config) {
        (LbPolicy::RoundRobin, Some(LbConfig::RoundRobinLbConfig(config))) => {
            let at = at.field("round_robin_lb_config");
            refuse(&at, "slow_start_config", &config.slow_start_config);
        }
        (LbPolicy::LeastRequest { .. }, Some(LbConfig::LeastRequestLbConfig(config))) => {
            let at = at.field("least_request_lb_config");
            fields!(&at, config => LeastRequestLbConfig {
                use { choice_count }
                accept {}
                refuse { active_request_bias, slow_start_config }
            });
            let choices = messages::number(choice_count.as_ref()).unwrap_or(2);
            return Some(LbPolicy::LeastRequest { choices: choices.clamp(2, 10) });
        }
        (_, None) | (LbPolicy::ClusterProvided, Some(LbConfig::OriginalDstLbConfig(_))) => {}
        _ => at.field("lb_config").fault("does not go with the lb_policy"),
    }
    Some(policy)
}

fn sockets(
    at: &At<'_>,
    matches: &[TransportSocketMatch],
    default: Option<&envoy_types::pb::envoy::config::core::v3::TransportSocket>,
) -> Option<Sockets> {
    let default = tls::upstream(&at.field("transport_socket"), default);
    let field = at.field("transport_socket_matches");
    let mut compiled = Vec::new();
    for (index, entry) in matches.iter().enumerate() {
        let at = field.nth(index);
        let wanted = entry.r#match.iter().flat_map(|wanted| &wanted.fields);
        let wanted = wanted.filter_map(|(key, value)| match &value.kind {
            Some(ValueKind::StringValue(text)) => Some((key.clone(), text.clone())),
            _ => {
                at.field("match").key(key).fault("is not a string");
                None
            }
        });
        let wanted: Vec<_> = wanted.collect();
        let socket = entry.transport_socket.as_ref();
        if let Some(tls) = tls::upstream(&at.field("transport_socket"), socket) {
            compiled.push(SocketMatch { wanted, tls });
        }
    }
    Some(Sockets { matches: compiled, default: default? })
}

/// The panic threshold, and whether localities have weights.
fn common_lb(at: &At<'_>, config: Option<&CommonLbConfig>) -> (u8, bool) {
    let Some(config) = config else { return (50, false) };
    fields!(at, config => CommonLbConfig {
        use { healthy_panic_threshold, locality_config_specifier }
        // When updates are merged, and what happens to connections of endpoints that leave.
        accept {
            update_merge_window, ignore_new_hosts_until_first_hc,
            close_connections_on_host_set_change,
        }
        refuse { consistent_hashing_lb_config, override_host_status }
    });
    let threshold = healthy_panic_threshold.as_ref().map_or(50.0, |percent| percent.value);
    if !(0.0..=100.0).contains(&threshold) {
        at.field("healthy_panic_threshold").fault("is not between 0 and 100");
    }
    let weighted = match locality_config_specifier {
        None => false,
        Some(LocalityConfigSpecifier::LocalityWeightedLbConfig(_)) => true,
        Some(LocalityConfigSpecifier::ZoneAwareLbConfig(_)) => {
            at.field("zone_aware_lb_config").unsupported();
            false
        }
    };
    (threshold.clamp(0.0, 100.0) as u8, weighted)
}

fn limits(at: &At<'_>, breakers: Option<&CircuitBreakers>) -> CircuitLimits {
    let mut limits = CircuitLimits::default();
    let Some(breakers) = breakers else { return limits };
    refuse(at, "per_host_thresholds", &breakers.per_host_thresholds);
    for (index, thresholds) in breakers.thresholds.iter().enumerate() {
        let at = at.field("thresholds");
        fields!(&at.nth(index), thresholds => Thresholds {
            use { priority, max_connections, max_pending_requests, max_requests, max_retries }
            // Statistics, and a bound on pools: we have one per worker.
            accept { track_remaining, max_connection_pools }
            refuse { retry_budget }
        });
        // No route asks for the high priority: routes that do are refused.
        if *priority != 0 {
            continue;
        }
        let set = |limit: &mut u32, value: Option<u32>| *limit = value.unwrap_or(*limit);
        set(&mut limits.connections, messages::number(max_connections.as_ref()));
        set(&mut limits.pending, messages::number(max_pending_requests.as_ref()));
        set(&mut limits.requests, messages::number(max_requests.as_ref()));
        set(&mut limits.retries, messages::number(max_retries.as_ref()));
    }
    limits
}

fn bind(at: &At<'_>, config: Option<&BindConfig>) -> Option<std::net::SocketAddr> {
    let config = config?;
    fields!(at, config => BindConfig {
        use { source_address }
        accept {}
        refuse {
            freebind, socket_options, extra_source_addresses, additional_source_addresses,
            local_address_selector, validate_network_namespaces,
        }
    });
    messages::source_address(&at.field("source_address"), source_address.as_ref()?)
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

fn dns_family(at: &At<'_>, family: i32) -> DnsFamily {
    match DnsLookupFamily::try_from(family) {
        Ok(DnsLookupFamily::Auto) => DnsFamily::V6Preferred,
        Ok(DnsLookupFamily::V4Only) => DnsFamily::V4Only,
        Ok(DnsLookupFamily::V6Only) => DnsFamily::V6Only,
        Ok(DnsLookupFamily::V4Preferred) => DnsFamily::V4Preferred,
        Ok(DnsLookupFamily::All) => DnsFamily::All,
        Err(_) => {
            at.field("dns_lookup_family").unsupported();
            DnsFamily::All
        }
    }
}

/// What the several places for HTTP options say together.
struct Protocol {
    version: UpstreamProtocol,
    http: HttpOptions,
    auto_sni: bool,
    auto_san_validation: bool,
}

impl Default for Protocol {
    fn default() -> Self {
        Self {
            version: UpstreamProtocol::Http1,
            http: HttpOptions::default(),
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
        http::http1(&at.field("http_protocol_options"), http1);
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
            http::only_upstream_codec(&at.field("http_filters"), http_filters);
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
                    http::http1(&at.field("http_protocol_options"), Some(options));
                    UpstreamProtocol::Http1
                }
                Some(ProtocolConfig::Http2ProtocolOptions(options)) => {
                    http::http2(&at.field("http2_protocol_options"), Some(options));
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
                http::http1(at, http_protocol_options.as_ref());
                http::http2(at, http2_protocol_options.as_ref());
                UpstreamProtocol::Downstream
            }
            Some(UpstreamProtocolOptions::AutoConfig(config)) => {
                fields!(&at.field("auto_config"), config => AutoHttpConfig {
                    use { http_protocol_options, http2_protocol_options }
                    accept {}
                    refuse { http3_protocol_options, alternate_protocols_cache_options }
                });
                http::http1(at, http_protocol_options.as_ref());
                http::http2(at, http2_protocol_options.as_ref());
                UpstreamProtocol::Auto
            }
        };
    }
}
