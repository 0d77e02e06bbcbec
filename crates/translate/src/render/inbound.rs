//! The inbound side of a sidecar: its listeners with their inline routes, and its clusters.

use std::{
    collections::{BTreeMap, HashMap},
    net::IpAddr,
    sync::Arc,
    time::Duration,
};

use envoy_types::pb::{
    envoy::{
        config::{
            cluster::v3::{
                CircuitBreakers, Cluster, UpstreamConnectionOptions,
                circuit_breakers::Thresholds,
                cluster::{ClusterDiscoveryType, DiscoveryType, LbPolicy},
            },
            core::v3::{
                BindConfig, ExtraSourceAddress, Http1ProtocolOptions, Http2ProtocolOptions,
                HttpProtocolOptions, SocketAddress, TcpKeepalive, TrafficDirection, address,
            },
            listener::v3::{
                Filter, FilterChain, FilterChainMatch, Listener, ListenerFilter,
                ListenerFilterChainMatchPredicate,
                listener_filter_chain_match_predicate::{MatchSet, Rule},
            },
            route::v3::{
                Decorator, RetryPolicy, Route, RouteAction, RouteConfiguration, RouteMatch,
                VirtualHost, route::Action, route_action::ClusterSpecifier,
                route_action::MaxStreamDuration, route_match::PathSpecifier,
            },
        },
        extensions::{
            filters::{
                listener::{
                    http_inspector::v3::HttpInspector, original_dst::v3::OriginalDst,
                    original_src::v3::OriginalSrc, tls_inspector::v3::TlsInspector,
                },
                network::http_connection_manager::v3::{
                    HttpConnectionManager,
                    http_connection_manager::{
                        ForwardClientCertDetails, RouteSpecifier, SetCurrentClientCertDetails,
                        UpgradeConfig,
                    },
                },
            },
            upstreams::http::v3::{
                HttpProtocolOptions as UpstreamOptions,
                http_protocol_options::{
                    ExplicitHttpConfig, UpstreamProtocolOptions, UseDownstreamHttpConfig,
                    explicit_http_config::ProtocolConfig,
                },
            },
        },
        r#type::v3::Int32Range,
    },
    google::protobuf::{Any, Duration as ProtoDuration},
};
use sluis_envoy::pack;

use super::{
    access_log, authorization, cluster, filter,
    listener::{self, BLACK_HOLE},
    server_tls, wrap,
};
use crate::{
    AuthorizationInput, InboundChain, InboundCluster, InboundHandler, InboundListener, InboundPool,
    InboundProtocol, MeshInputs, Transport,
};

/// The mark of packets that carry the client's own address (Istio's figure, as its packet filter has).
const TPROXY_MARK: u32 = 1337;

/// Istio keeps the addresses of inbound clusters for good: the longest duration that Envoy counts (in nanoseconds, signed).
const CLEANUP: ProtoDuration = ProtoDuration { seconds: 9_223_372_035, nanos: 0 };

/// How often a request that never reached the workload is tried again.
const RETRIES: u32 = 2;

/// One inbound listener.
pub(crate) fn listener(input: &InboundListener, mesh: &MeshInputs) -> Listener {
    // Telemetry may log what is received elsewhere than what is sent.
    let received = mesh.inbound_access_logs.clone();
    let mesh = &MeshInputs { access_logs: received, ..mesh.clone() };
    Listener {
        name: input.name.clone(),
        address: Some(wrap::socket(input.address, input.port)),
        additional_addresses: wrap::additional(&input.additional, input.port),
        traffic_direction: TrafficDirection::Inbound.into(),
        continue_on_listener_filters_timeout: true,
        listener_filters_timeout: Some(wrap::duration(input.detection_timeout)),
        transparent: if input.is_transparent { wrap::yes() } else { None },
        access_log: access_log::listener_loggers(&mesh.access_logs),
        listener_filters: listener_filters(input),
        filter_chains: input
            .chains
            .iter()
            .map(|chain| filter_chain(chain, &input.authorization, mesh))
            .collect(),
        ..Listener::default()
    }
}

/// Which inspectors the connections of one port need.
#[derive(Clone, Copy, Default)]
struct Needs {
    tls: bool,
    http: bool,
}

/// The filters that find out where a connection was going and what it speaks.
///
/// Ports whose chains do not ask are left out, as in Istio: a server that speaks first would wait for
/// an inspector in vain. Port 0 stands for all ports without chains of their own.
fn listener_filters(input: &InboundListener) -> Vec<ListenerFilter> {
    let mut needs: BTreeMap<u16, Needs> = BTreeMap::new();
    for chain in &input.chains {
        let of_port = needs.entry(chain.port.unwrap_or(0)).or_default();
        of_port.tls |= chain.transport == Transport::Tls;
        of_port.http |= chain.alpn.iter().any(|name| name == "http/1.1" || name == "h2c");
    }
    let mut filters = Vec::new();
    if input.is_captured {
        let config = OriginalDst::default();
        filters.push(filter::listener_filter("envoy.filters.listener.original_dst", &config));
    }
    if input.is_captured && input.is_transparent {
        let config = OriginalSrc { mark: TPROXY_MARK, ..OriginalSrc::default() };
        filters.push(filter::listener_filter("envoy.filters.listener.original_src", &config));
    }
    if needs.values().any(|needs| needs.tls) {
        let config = TlsInspector::default();
        let mut inspector =
            filter::listener_filter("envoy.filters.listener.tls_inspector", &config);
        inspector.filter_disabled = disabled(&needs, |needs| needs.tls);
        filters.push(inspector);
    }
    if needs.values().any(|needs| needs.http) {
        let config = HttpInspector::default();
        let mut inspector =
            filter::listener_filter("envoy.filters.listener.http_inspector", &config);
        inspector.filter_disabled = disabled(&needs, |needs| needs.http);
        filters.push(inspector);
    }
    filters
}

/// Where an inspector is not needed: on the ports named, or on all but those that need it.
fn disabled(
    needs: &BTreeMap<u16, Needs>,
    wanted: impl Fn(&Needs) -> bool,
) -> Option<ListenerFilterChainMatchPredicate> {
    let is_default_on = needs.get(&0).is_none_or(&wanted);
    let ports: Vec<u16> = needs
        .iter()
        .filter(|(port, needs)| **port != 0 && wanted(needs) != is_default_on)
        .map(|(port, _)| *port)
        .collect();
    let named = any_of(&ports)?;
    if is_default_on {
        return Some(named);
    }
    Some(ListenerFilterChainMatchPredicate { rule: Some(Rule::NotMatch(Box::new(named))) })
}

fn any_of(ports: &[u16]) -> Option<ListenerFilterChainMatchPredicate> {
    let one = |port: &u16| ListenerFilterChainMatchPredicate {
        rule: Some(Rule::DestinationPortRange(Int32Range {
            start: i32::from(*port),
            end: i32::from(*port) + 1,
        })),
    };
    match ports {
        [] => None,
        [port] => Some(one(port)),
        ports => {
            let rules = ports.iter().map(one).collect();
            Some(ListenerFilterChainMatchPredicate {
                rule: Some(Rule::OrMatch(MatchSet { rules })),
            })
        }
    }
}

fn filter_chain(
    input: &InboundChain,
    policies: &Arc<AuthorizationInput>,
    mesh: &MeshInputs,
) -> FilterChain {
    let transport = match input.transport {
        Transport::Any => "",
        Transport::Tls => "tls",
        Transport::Plain => "raw_buffer",
    };
    let claims = FilterChainMatch {
        destination_port: input.port.and_then(|port| wrap::number(u32::from(port))),
        transport_protocol: transport.to_owned(),
        application_protocols: input.alpn.clone(),
        ..FilterChainMatch::default()
    };
    let filters = match &input.handler {
        InboundHandler::Http { .. } => vec![connection_manager(&input.handler, policies, mesh)],
        InboundHandler::Tcp { cluster, stat_prefix } => {
            let mut filters = authorization::network(policies);
            filters.push(listener::tcp_proxy(&[listener::whole(cluster)], stat_prefix, mesh));
            filters
        }
        InboundHandler::Refuse => {
            vec![listener::tcp_proxy(&[listener::whole(BLACK_HOLE)], BLACK_HOLE, mesh)]
        }
    };
    FilterChain {
        name: input.name.clone(),
        filter_chain_match: (claims != FilterChainMatch::default()).then_some(claims),
        filters,
        transport_socket: input.tls.as_ref().map(server_tls::downstream),
        metadata: wrap::metadata(input.config.as_deref()),
        ..FilterChain::default()
    }
}

fn connection_manager(
    handler: &InboundHandler,
    policies: &Arc<AuthorizationInput>,
    mesh: &MeshInputs,
) -> Filter {
    let InboundHandler::Http { stat_prefix, is_http2, .. } = handler else {
        return listener::tcp_proxy(&[listener::whole(BLACK_HOLE)], BLACK_HOLE, mesh);
    };
    let mut manager = HttpConnectionManager {
        stat_prefix: stat_prefix.clone(),
        route_specifier: route_table(handler).map(RouteSpecifier::RouteConfig),
        http_filters: listener::guarded(
            listener::http_filters(),
            std::slice::from_ref(policies),
            false,
        ),
        server_name: "istio-envoy".to_owned(),
        // Zero is "no limit": Istio leaves long polls and watches alone.
        stream_idle_timeout: Some(wrap::duration(Duration::ZERO)),
        upgrade_configs: vec![UpgradeConfig {
            upgrade_type: "websocket".to_owned(),
            ..UpgradeConfig::default()
        }],
        access_log: access_log::loggers(&mesh.access_logs),
        use_remote_address: wrap::boolean(false),
        forward_client_cert_details: ForwardClientCertDetails::AppendForward.into(),
        set_current_client_cert_details: Some(SetCurrentClientCertDetails {
            subject: wrap::yes(),
            uri: true,
            dns: true,
            ..SetCurrentClientCertDetails::default()
        }),
        proxy_100_continue: true,
        http2_protocol_options: is_http2.then(Http2ProtocolOptions::default),
        ..HttpConnectionManager::default()
    };
    listener::normalize(&mut manager, mesh.normalization);
    filter::network_filter("envoy.filters.network.http_connection_manager", &manager)
}

/// The one route of an inbound chain: every request goes to the workload, with no limit of time.
fn route_table(handler: &InboundHandler) -> Option<RouteConfiguration> {
    let InboundHandler::Http { cluster, service_port, operation, is_retried, .. } = handler else {
        return None;
    };
    let none = Some(wrap::duration(Duration::ZERO));
    let action = RouteAction {
        cluster_specifier: Some(ClusterSpecifier::Cluster(cluster.clone())),
        timeout: none,
        max_stream_duration: Some(MaxStreamDuration {
            max_stream_duration: none,
            grpc_timeout_header_max: none,
            ..MaxStreamDuration::default()
        }),
        retry_policy: is_retried.then(|| RetryPolicy {
            retry_on: "reset-before-request".to_owned(),
            num_retries: wrap::number(RETRIES),
            ..RetryPolicy::default()
        }),
        ..RouteAction::default()
    };
    let route = Route {
        name: "default".to_owned(),
        r#match: Some(RouteMatch {
            path_specifier: Some(PathSpecifier::Prefix("/".to_owned())),
            ..RouteMatch::default()
        }),
        decorator: Some(Decorator { operation: operation.clone(), ..Decorator::default() }),
        action: Some(Action::Route(action)),
        ..Route::default()
    };
    Some(RouteConfiguration {
        name: cluster.clone(),
        virtual_hosts: vec![VirtualHost {
            name: format!("inbound|http|{service_port}"),
            domains: vec!["*".to_owned()],
            routes: vec![route],
            ..VirtualHost::default()
        }],
        validate_clusters: wrap::boolean(false),
        ..RouteConfiguration::default()
    })
}

/// One inbound cluster.
pub(crate) fn cluster(input: &InboundCluster) -> Cluster {
    let kind = match input.endpoint {
        Some(_) => DiscoveryType::Static,
        None => DiscoveryType::OriginalDst,
    };
    let policy = match input.endpoint {
        Some(_) => LbPolicy::RoundRobin,
        None => LbPolicy::ClusterProvided,
    };
    let endpoint = input.endpoint.as_slice();
    Cluster {
        name: input.name.clone(),
        connect_timeout: Some(wrap::duration(input.connect_timeout)),
        cluster_discovery_type: Some(ClusterDiscoveryType::Type(kind.into())),
        lb_policy: policy.into(),
        load_assignment: input
            .endpoint
            .is_some()
            .then(|| cluster::assignment(&input.name, endpoint)),
        cleanup_interval: (input.endpoint.is_none() && !input.services.is_empty())
            .then_some(CLEANUP),
        upstream_bind_config: bind(&input.sources),
        typed_extension_protocol_options: http_options(input),
        circuit_breakers: Some(limits(&input.pool)),
        upstream_connection_options: input.pool.keepalive.map(|(probes, time, interval)| {
            let seconds = |value: Option<Duration>| {
                value.and_then(|value| {
                    wrap::number(u32::try_from(value.as_secs()).unwrap_or(u32::MAX))
                })
            };
            UpstreamConnectionOptions {
                tcp_keepalive: Some(TcpKeepalive {
                    keepalive_probes: probes.and_then(wrap::number),
                    keepalive_time: seconds(time),
                    keepalive_interval: seconds(interval),
                }),
                ..UpstreamConnectionOptions::default()
            }
        }),
        metadata: wrap::metadata(input.config.as_deref()),
        ..Cluster::default()
    }
}

fn bind(sources: &[IpAddr]) -> Option<BindConfig> {
    let source = |address: &IpAddr| -> Option<SocketAddress> {
        match wrap::socket(address, 0).address? {
            address::Address::SocketAddress(socket) => Some(socket),
            _ => None,
        }
    };
    let (first, others) = sources.split_first()?;
    let extra =
        |address| ExtraSourceAddress { address: source(address), ..ExtraSourceAddress::default() };
    Some(BindConfig {
        source_address: source(first),
        extra_source_addresses: others.iter().map(extra).collect(),
        ..BindConfig::default()
    })
}

fn limits(pool: &InboundPool) -> CircuitBreakers {
    let limit = |written: Option<u32>| wrap::number(written.unwrap_or(u32::MAX));
    CircuitBreakers {
        thresholds: vec![Thresholds {
            max_connections: limit(pool.connections_max),
            max_pending_requests: limit(pool.pending_max),
            max_requests: limit(pool.requests_max),
            max_retries: limit(pool.retries_max),
            track_remaining: true,
            ..Thresholds::default()
        }],
        ..CircuitBreakers::default()
    }
}

fn http_options(input: &InboundCluster) -> HashMap<String, Any> {
    let pool = &input.pool;
    let common = HttpProtocolOptions {
        idle_timeout: pool.idle_timeout.map(wrap::duration),
        max_connection_duration: pool.connection_duration_max.map(wrap::duration),
        max_requests_per_connection: pool.requests_per_connection_max.and_then(wrap::number),
        ..HttpProtocolOptions::default()
    };
    let has_common = common != HttpProtocolOptions::default();
    let http2 = Http2ProtocolOptions {
        max_concurrent_streams: pool.streams_max.and_then(wrap::number),
        ..Http2ProtocolOptions::default()
    };
    let explicit = |config: ProtocolConfig| {
        UpstreamProtocolOptions::ExplicitHttpConfig(ExplicitHttpConfig {
            protocol_config: Some(config),
        })
    };
    let protocol = match input.protocol {
        InboundProtocol::Http1 if !has_common => return HashMap::new(),
        InboundProtocol::Http1 => {
            explicit(ProtocolConfig::HttpProtocolOptions(Http1ProtocolOptions::default()))
        }
        InboundProtocol::Http2 => explicit(ProtocolConfig::Http2ProtocolOptions(http2)),
        InboundProtocol::AsClient => {
            UpstreamProtocolOptions::UseDownstreamProtocolConfig(UseDownstreamHttpConfig {
                http_protocol_options: Some(Http1ProtocolOptions::default()),
                http2_protocol_options: Some(http2),
                ..UseDownstreamHttpConfig::default()
            })
        }
    };
    let options = UpstreamOptions {
        common_http_protocol_options: has_common.then_some(common),
        upstream_protocol_options: Some(protocol),
        ..UpstreamOptions::default()
    };
    HashMap::from([(cluster::HTTP_OPTIONS.to_owned(), pack(&options))])
}
