//! Listeners, their chains, and the connection managers and TCP proxies in them.

use std::{net::IpAddr, sync::Arc, time::Duration};

use envoy_types::pb::{
    envoy::{
        config::{
            core::v3::{
                Address, Pipe, SubstitutionFormatString, TrafficDirection, address,
                substitution_format_string::Format,
            },
            listener::v3::{
                Filter, FilterChain, FilterChainMatch, Listener, ListenerFilter,
                listener::{InternalListenerConfig, ListenerSpecifier},
            },
        },
        extensions::filters::{
            common::set_filter_state::v3::{
                FilterStateValue,
                filter_state_value::{Key as StateKey, Value as StateValue},
            },
            http::{
                cors::v3::Cors,
                fault::v3::HttpFault,
                grpc_stats::v3::{
                    FilterConfig as GrpcStats, filter_config::PerMethodStatSpecifier,
                },
                router::v3::Router,
            },
            listener::{
                http_inspector::v3::HttpInspector, proxy_protocol::v3::ProxyProtocol,
                tls_inspector::v3::TlsInspector,
            },
            network::{
                http_connection_manager::v3::{
                    HttpConnectionManager, HttpFilter, Rds,
                    http_connection_manager::{
                        ForwardClientCertDetails, PathWithEscapedSlashesAction, RouteSpecifier,
                        SetCurrentClientCertDetails, UpgradeConfig,
                    },
                },
                set_filter_state::v3::Config as SetFilterState,
                tcp_proxy::v3::{
                    TcpProxy,
                    tcp_proxy::{
                        ClusterSpecifier, TunnelingConfig, WeightedCluster,
                        weighted_cluster::ClusterWeight,
                    },
                },
            },
        },
        r#type::v3::{
            HashPolicy,
            hash_policy::{PolicySpecifier, SourceIp},
        },
    },
    google::protobuf::BoolValue,
};

use super::{
    access_log, alpn, authorization, dynamic,
    filter::{http_filter, listener_filter, network_filter},
    route::{self, PASSTHROUGH},
    route_policy, server_tls, tokens, wrap,
};
use crate::{
    AuthorizationInput, Capture, ChainInput, Handler, HeaderChanges, ListenerInput, MeshInputs,
    Normalization, OutboundInputs, OutboundPolicy, Target, TcpOptions,
};

/// What the inspector calls plain HTTP.
const PLAIN_HTTP: [&str; 3] = ["http/1.0", "http/1.1", "h2c"];

/// The socket of a capturing pipe is for its owner alone.
const PIPE_MODE: u32 = 0o600;

/// The name of the cluster that refuses everything.
pub(crate) const BLACK_HOLE: &str = "BlackHoleCluster";

/// The capturing listener of a sidecar.
///
/// It hands each connection to the listener of the connection's original destination; what none
/// claims stays and follows the outbound policy. Connections for its own port would go round in
/// circles, so they end in the black hole.
pub(crate) fn virtual_outbound(input: &OutboundInputs, mesh: &MeshInputs) -> Listener {
    let loop_guard = FilterChainMatch {
        destination_port: wrap::number(u32::from(input.port)),
        ..FilterChainMatch::default()
    };
    let chain = |name: &str, claims, cluster: &str| FilterChain {
        name: name.to_owned(),
        filter_chain_match: claims,
        filters: vec![tcp_proxy(&[whole(cluster)], cluster, mesh)],
        ..FilterChain::default()
    };
    let (address, is_bound, listener_filters) = match &input.capture {
        Capture::ProxyProtocolPipe(path) => {
            let pipe = Pipe { path: path.clone(), mode: PIPE_MODE };
            let address = Address { address: Some(address::Address::Pipe(pipe)) };
            let header =
                listener_filter("envoy.filters.listener.proxy_protocol", &ProxyProtocol::default());
            (address, true, vec![header])
        }
        Capture::Redirect => (wrap::socket(input.address, input.port), true, Vec::new()),
        Capture::Jail | Capture::None => {
            (wrap::socket(input.address, input.port), false, Vec::new())
        }
    };
    let additional: &[IpAddr] = match &input.capture {
        Capture::ProxyProtocolPipe(_) => &[],
        _ => &input.additional,
    };
    let is_dynamic = input.policy == OutboundPolicy::AllowAnyDynamicDns;
    let mut listener_filters: Vec<ListenerFilter> = listener_filters;
    if is_dynamic {
        listener_filters.extend(inspectors());
    }
    let http = is_dynamic.then(|| any_http(&input.policy, mesh));
    Listener {
        name: "virtualOutbound".to_owned(),
        address: Some(address),
        additional_addresses: wrap::additional(additional, input.port),
        transparent: if input.is_transparent { wrap::yes() } else { None },
        use_original_dst: wrap::yes(),
        bind_to_port: if is_bound { None } else { wrap::boolean(false) },
        listener_filters,
        filter_chains: [chain("virtualOutbound-blackhole", Some(loop_guard), BLACK_HOLE)]
            .into_iter()
            .chain(http)
            .chain([chain("virtualOutbound-catchall-tcp", None, policy_cluster(&input.policy))])
            .collect(),
        listener_filters_timeout: is_dynamic.then(|| wrap::duration(mesh.detection_timeout)),
        continue_on_listener_filters_timeout: is_dynamic,
        traffic_direction: TrafficDirection::Outbound.into(),
        access_log: access_log::listener_loggers(&mesh.access_logs),
        ..Listener::default()
    }
}

/// The chain for plain HTTP of which the policy is to resolve the host again.
fn any_http(policy: &OutboundPolicy, mesh: &MeshInputs) -> FilterChain {
    let stat_prefix = "outbound_virtualOutbound_allow_any_dynamic_dns;";
    let routes = RouteSpecifier::RouteConfig(route::catch_all_table(policy));
    FilterChain {
        name: "virtualOutbound-catchall-tcp-http".to_owned(),
        filter_chain_match: Some(FilterChainMatch {
            application_protocols: PLAIN_HTTP.map(ToOwned::to_owned).to_vec(),
            ..FilterChainMatch::default()
        }),
        filters: vec![connection_manager(routes, stat_prefix, false, http_filters(), mesh)],
        ..FilterChain::default()
    }
}

/// The filters that tell what the first bytes are. The one for HTTP leaves to the one for TLS what
/// that has recognised.
fn inspectors() -> [ListenerFilter; 2] {
    [
        listener_filter("envoy.filters.listener.tls_inspector", &TlsInspector::default()),
        listener_filter("envoy.filters.listener.http_inspector", &HttpInspector::default()),
    ]
}

/// One listener of a port.
pub(crate) fn listener(input: &ListenerInput, mesh: &MeshInputs) -> Listener {
    let reads_http = input
        .chains
        .iter()
        .any(|chain| chain.alpn.iter().any(|name| name == "http/1.1" || name == "h2c"));
    let reads_names = reads_http
        || input.chains.iter().any(|chain| !chain.server_names.is_empty() || chain.tls.is_some());
    let tls = || listener_filter("envoy.filters.listener.tls_inspector", &TlsInspector::default());
    // Behind the one for TLS, whose bytes it leaves alone.
    let http =
        || listener_filter("envoy.filters.listener.http_inspector", &HttpInspector::default());
    let mut chains: Vec<FilterChain> =
        input.chains.iter().map(|chain| filter_chain(chain, mesh)).collect();
    // Envoy never comes back from a transport protocol that some chain names: beside one for plain
    // HTTP, other plain bytes would find no chain. The default chain takes them.
    let rest = chains.iter().position(|chain| chain.filter_chain_match.is_none());
    let rest = rest.filter(|_| reads_http && input.fallback.is_none());
    let rest = rest.map(|place| chains.remove(place));
    Listener {
        name: input.name.clone(),
        address: (!input.is_internal).then(|| match &input.pipe {
            Some(path) => wrap::pipe(path),
            None => wrap::socket(input.address, input.port),
        }),
        additional_addresses: wrap::additional(&input.additional, input.port),
        listener_specifier: input
            .is_internal
            .then_some(ListenerSpecifier::InternalListener(InternalListenerConfig {})),
        bind_to_port: if input.is_bound || input.is_internal { None } else { wrap::boolean(false) },
        filter_chains: chains,
        default_filter_chain: input.fallback.as_ref().map(|policy| fallback(policy, mesh)).or(rest),
        listener_filters: reads_names.then(tls).into_iter().chain(reads_http.then(http)).collect(),
        listener_filters_timeout: reads_http.then(|| wrap::duration(mesh.detection_timeout)),
        continue_on_listener_filters_timeout: reads_http,
        traffic_direction: TrafficDirection::Outbound.into(),
        access_log: access_log::listener_loggers(&mesh.access_logs),
        ..Listener::default()
    }
}

fn policy_cluster(policy: &OutboundPolicy) -> &str {
    match policy {
        OutboundPolicy::RegistryOnly => BLACK_HOLE,
        OutboundPolicy::AllowAny | OutboundPolicy::AllowAnyDynamicDns => PASSTHROUGH,
        OutboundPolicy::Proxy(cluster) => cluster,
    }
}

fn fallback(policy: &OutboundPolicy, mesh: &MeshInputs) -> FilterChain {
    let cluster = policy_cluster(policy);
    FilterChain {
        name: "PassthroughFilterChain".to_owned(),
        filters: vec![tcp_proxy(&[whole(cluster)], cluster, mesh)],
        ..FilterChain::default()
    }
}

fn filter_chain(input: &ChainInput, mesh: &MeshInputs) -> FilterChain {
    let mut claims = FilterChainMatch {
        server_names: input.server_names.clone(),
        prefix_ranges: input.subnets.iter().copied().map(wrap::cidr).collect(),
        application_protocols: input.alpn.clone(),
        ..FilterChainMatch::default()
    };
    if input.tls.is_none() && !input.server_names.is_empty() {
        // Only a ClientHello has a server name; said aloud, it keeps plain bytes from a chain for TLS.
        "tls".clone_into(&mut claims.transport_protocol);
    }
    if input.is_plain_only {
        "raw_buffer".clone_into(&mut claims.transport_protocol);
    }
    let passing = match &input.handler {
        Handler::Tcp { options, .. } => options.passes_name.then(pass_name),
        Handler::Http { .. } => None,
    };
    let dynamic = match &input.handler {
        Handler::Tcp { options, .. } => options.dynamic.map(|(family, port)| {
            let config = dynamic::sni_filter(family, port);
            network_filter("envoy.filters.network.sni_dynamic_forward_proxy", &config)
        }),
        Handler::Http { .. } => None,
    };
    let policies: Vec<Filter> = match &input.handler {
        Handler::Tcp { .. } => input
            .authorization
            .iter()
            .flat_map(|policies| authorization::network(policies))
            .collect(),
        Handler::Http { .. } => Vec::new(),
    };
    let filter = match &input.handler {
        Handler::Http { routes, stat_prefix, is_edge } => {
            let routes = RouteSpecifier::Rds(Rds {
                config_source: Some(wrap::ads()),
                route_config_name: routes.clone(),
            });
            let filters = guarded(http_filters(), &input.authorization, input.has_guards);
            connection_manager(routes, stat_prefix, *is_edge, filters, mesh)
        }
        Handler::Tcp { targets, stat_prefix, options } => {
            tcp_proxy_with(targets, stat_prefix, options, mesh)
        }
    };
    FilterChain {
        name: input.name.clone(),
        filter_chain_match: (claims != FilterChainMatch::default()).then_some(claims),
        filters: policies.into_iter().chain(passing).chain(dynamic).chain([filter]).collect(),
        transport_socket: input.tls.as_ref().map(server_tls::downstream),
        metadata: wrap::metadata(input.config.as_deref()),
        ..FilterChain::default()
    }
}

fn connection_manager(
    routes: RouteSpecifier,
    stat_prefix: &str,
    is_edge: bool,
    filters: Vec<HttpFilter>,
    mesh: &MeshInputs,
) -> Filter {
    let mut manager = HttpConnectionManager {
        stat_prefix: stat_prefix.to_owned(),
        route_specifier: Some(routes),
        http_filters: with_alpn(with_dynamic_dns(filters, mesh), mesh),
        // Zero is "no limit": Istio leaves long polls and watches alone.
        stream_idle_timeout: Some(wrap::duration(Duration::ZERO)),
        upgrade_configs: vec![UpgradeConfig {
            upgrade_type: "websocket".to_owned(),
            ..UpgradeConfig::default()
        }],
        access_log: access_log::loggers(&mesh.access_logs),
        use_remote_address: wrap::boolean(is_edge),
        ..HttpConnectionManager::default()
    };
    if is_edge {
        "istio-envoy".clone_into(&mut manager.server_name);
        manager.forward_client_cert_details = ForwardClientCertDetails::SanitizeSet.into();
        manager.set_current_client_cert_details = Some(SetCurrentClientCertDetails {
            subject: wrap::yes(),
            cert: true,
            uri: true,
            dns: true,
            ..SetCurrentClientCertDetails::default()
        });
    }
    normalize(&mut manager, mesh.normalization);
    network_filter("envoy.filters.network.http_connection_manager", &manager)
}

/// The HTTP filters of every connection manager, in Istio's order; the router ends them.
///
/// Faults and CORS do nothing until a route says so.
pub(super) fn http_filters() -> Vec<HttpFilter> {
    let stats = GrpcStats {
        emit_filter_state: true,
        per_method_stat_specifier: Some(PerMethodStatSpecifier::StatsForAllMethods(BoolValue {
            value: false,
        })),
        ..GrpcStats::default()
    };
    vec![
        http_filter("envoy.filters.http.grpc_stats", &stats),
        http_filter(route_policy::FAULT, &HttpFault::default()),
        http_filter(route_policy::CORS, &Cors::default()),
        http_filter("envoy.filters.http.router", &Router::default()),
    ]
}

/// Puts the filters of policies before all others: those of the proxy, then those that wait for a
/// route to a guarded host.
pub(super) fn guarded(
    filters: Vec<HttpFilter>,
    policies: &[Arc<AuthorizationInput>],
    has_guards: bool,
) -> Vec<HttpFilter> {
    let custom = policies.iter().flat_map(|policies| authorization::custom_http(policies));
    let rules = policies.iter().filter_map(|policies| policies.tokens.as_deref());
    let local = policies.iter().flat_map(|policies| authorization::http(policies));
    let guards = authorization::guards().filter(|_| has_guards);
    custom.chain(rules.map(tokens::filter)).chain(local).chain(guards).chain(filters).collect()
}

/// Puts Istio's ALPN filter where Istio has it, before the one for faults.
fn with_alpn(mut filters: Vec<HttpFilter>, mesh: &MeshInputs) -> Vec<HttpFilter> {
    if mesh.has_alpn_filter {
        let place = filters.iter().position(|filter| filter.name == route_policy::FAULT);
        filters.insert(place.unwrap_or_default(), alpn::filter());
    }
    filters
}

/// Puts the filter that resolves the Host of requests before the router, where a cluster needs it.
fn with_dynamic_dns(mut filters: Vec<HttpFilter>, mesh: &MeshInputs) -> Vec<HttpFilter> {
    if let Some(family) = mesh.dynamic_dns {
        let config = dynamic::http_filter(family);
        let filter = http_filter("envoy.filters.http.dynamic_forward_proxy", &config);
        filters.insert(filters.len().saturating_sub(1), filter);
    }
    filters
}

pub(super) fn normalize(manager: &mut HttpConnectionManager, normalization: Normalization) {
    let (path, slashes, escaped) = match normalization {
        Normalization::None => (false, false, false),
        Normalization::Base => (true, false, false),
        Normalization::MergeSlashes => (true, true, false),
        Normalization::DecodeAndMergeSlashes => (true, true, true),
    };
    manager.normalize_path = wrap::boolean(path);
    manager.merge_slashes = slashes;
    let action = if escaped {
        PathWithEscapedSlashesAction::UnescapeAndForward
    } else {
        PathWithEscapedSlashesAction::KeepUnchanged
    };
    manager.path_with_escaped_slashes_action = action.into();
}

pub(super) fn tcp_proxy(targets: &[Target], stat_prefix: &str, mesh: &MeshInputs) -> Filter {
    tcp_proxy_with(targets, stat_prefix, &TcpOptions::default(), mesh)
}

fn tcp_proxy_with(
    targets: &[Target],
    stat_prefix: &str,
    options: &TcpOptions,
    mesh: &MeshInputs,
) -> Filter {
    let specifier = match targets {
        [target] => ClusterSpecifier::Cluster(target.cluster.clone()),
        _ => ClusterSpecifier::WeightedClusters(WeightedCluster {
            clusters: targets
                .iter()
                .map(|target| ClusterWeight {
                    name: target.cluster.clone(),
                    weight: target.weight,
                    ..ClusterWeight::default()
                })
                .collect(),
        }),
    };
    network_filter(
        "envoy.filters.network.tcp_proxy",
        &TcpProxy {
            stat_prefix: stat_prefix.to_owned(),
            access_log: access_log::loggers(&mesh.access_logs),
            cluster_specifier: Some(specifier),
            idle_timeout: options.idle_timeout.map(wrap::duration),
            max_downstream_connection_duration: options.connection_duration_max.map(wrap::duration),
            tunneling_config: options.tunnel.as_ref().map(|tunnel| TunnelingConfig {
                hostname: tunnel.target.clone(),
                use_post: tunnel.is_post,
                ..TunnelingConfig::default()
            }),
            hash_policy: options.is_hashed_by_source.then(by_source).into_iter().collect(),
            ..TcpProxy::default()
        },
    )
}

/// The filter that has the client's server name be that of the TLS towards the endpoint.
fn pass_name() -> Filter {
    let format = SubstitutionFormatString {
        format: Some(Format::TextFormatSource(wrap::inline("%REQUESTED_SERVER_NAME%"))),
        ..SubstitutionFormatString::default()
    };
    let value = FilterStateValue {
        key: Some(StateKey::ObjectKey("envoy.network.upstream_server_name".to_owned())),
        value: Some(StateValue::FormatString(format)),
        ..FilterStateValue::default()
    };
    let config = SetFilterState { on_new_connection: vec![value], ..SetFilterState::default() };
    network_filter("envoy.filters.network.set_filter_state", &config)
}

fn by_source() -> HashPolicy {
    HashPolicy { policy_specifier: Some(PolicySpecifier::SourceIp(SourceIp {})) }
}

pub(super) fn whole(cluster: &str) -> Target {
    let headers = HeaderChanges::default();
    Target { cluster: cluster.to_owned(), weight: 1, headers, host_rewrite: None }
}
