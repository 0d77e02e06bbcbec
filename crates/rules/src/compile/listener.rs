//! Listeners: addresses, listener filters, filter chains, network filters.

#![expect(deprecated, reason = "deprecated fields must be looked at to be refused or understood")]

use std::{sync::Arc, time::Duration};

use envoy_types::pb::{
    envoy::{
        config::core::v3::Address as PbAddress,
        config::listener::v3::{
            AdditionalAddress, Filter, FilterChain as PbChain, FilterChainMatch,
            Listener as PbListener, ListenerFilter as PbListenerFilter,
            ListenerFilterChainMatchPredicate,
            filter::ConfigType as FilterConfig,
            filter_chain_match::ConnectionSourceType,
            listener::{DrainType, ListenerSpecifier},
            listener_filter::ConfigType as ListenerFilterConfig,
            listener_filter_chain_match_predicate::Rule,
        },
        extensions::filters::listener::{
            original_src::v3::OriginalSrc, proxy_protocol::v3::ProxyProtocol,
            tls_inspector::v3::TlsInspector,
        },
    },
    google::protobuf::Any,
};

use super::{
    access_log::access_logs,
    at::{At, fields, message_of, refuse},
    ext_authz, http, messages, rbac,
    tcp::{passes_name as name_filter, sni_forward, tcp_proxy},
    tls,
};
use crate::{
    Address, Direction, FilterChain, Listener, ListenerFilter, ListenerFilterKind, Network,
    NetworkGuard, PortPredicate, TcpProxy,
    listener::{ChainMatch, ChainTable, Overlap, SourceType},
};

const FILTERS_TIMEOUT: Duration = Duration::from_secs(15);
const BUFFER_LIMIT: u32 = 1 << 20;

/// How deep port predicates may be nested.
const DEPTH_MAX: usize = 16;

pub(super) fn listener(at: &At<'_>, value: &PbListener) -> Option<Listener> {
    fields!(at, value => PbListener {
        use {
            name, address, filter_chains, use_original_dst, default_filter_chain,
            per_connection_buffer_limit_bytes, deprecated_v1, drain_type, listener_filters,
            listener_filters_timeout, continue_on_listener_filters_timeout, transparent, freebind,
            traffic_direction, enable_reuse_port, access_log, tcp_backlog_size, bind_to_port,
            tcp_keepalive, listener_specifier, additional_addresses,
        }
        // Statistics, process-wide limits that we do not have, and how connections are spread
        // over workers, which we do in our own way.
        accept {
            stat_prefix, stats_matcher, metadata, connection_balance_config, reuse_port,
            max_connections_to_accept_per_socket_event, ignore_global_conn_limit,
            bypass_overload_manager,
        }
        refuse {
            fcds_config, filter_chain_matcher,
            per_connection_buffer_high_watermark_timeout, socket_options,
            tcp_fast_open_queue_length, udp_listener_config, api_listener, enable_mptcp,
        }
    });
    if name.is_empty() {
        at.field("name").fault("is missing");
    }
    let is_internal = matches!(listener_specifier, Some(ListenerSpecifier::InternalListener(_)));
    let address = if is_internal {
        refuse(at, "address", address);
        refuse(at, "bind_to_port", bind_to_port);
        refuse(at, "additional_addresses", additional_addresses);
        Some(Address::Internal(name.as_str().into()))
    } else {
        place(&at.field("address"), address.as_ref())
    };
    let old_bind = deprecated_v1.as_ref().and_then(|old| old.bind_to_port.as_ref());
    let (chains, table) = chains(at, filter_chains);
    let default_chain = default_filter_chain.as_ref().and_then(|default| {
        let at = at.field("default_filter_chain");
        refuse(&at, "filter_chain_match", &default.filter_chain_match);
        chain(&at, default).map(Arc::new)
    });
    if filter_chains.is_empty() && default_filter_chain.is_none() {
        at.field("filter_chains").fault("is empty");
    }
    Some(Listener {
        name: name.as_str().into(),
        address: address?,
        additional: additional(&at.field("additional_addresses"), additional_addresses),
        transparent: messages::flag(transparent.as_ref(), false),
        bind_to_port: !is_internal && messages::flag(bind_to_port.as_ref().or(old_bind), true),
        use_original_dst: messages::flag(use_original_dst.as_ref(), false),
        filters: listener_filters_of(&at.field("listener_filters"), listener_filters),
        filters_timeout: messages::limit(
            &at.field("listener_filters_timeout"),
            listener_filters_timeout.as_ref(),
            Some(FILTERS_TIMEOUT),
        ),
        continue_on_filters_timeout: *continue_on_listener_filters_timeout,
        chains,
        default_chain,
        access_logs: access_logs(&at.field("access_log"), access_log),
        drains_with_process: *drain_type != DrainType::ModifyOnly as i32,
        buffer_limit: messages::number(per_connection_buffer_limit_bytes.as_ref())
            .unwrap_or(BUFFER_LIMIT),
        backlog: messages::number(tcp_backlog_size.as_ref()),
        tcp_keepalive: messages::keepalive(tcp_keepalive.as_ref()),
        reuse_port: messages::flag(enable_reuse_port.as_ref(), true),
        freebind: messages::flag(freebind.as_ref(), false),
        direction: direction(*traffic_direction),
        table: table?,
    })
}

fn direction(written: i32) -> Direction {
    match written {
        1 => Direction::Inbound,
        2 => Direction::Outbound,
        _ => Direction::Unspecified,
    }
}

/// Where a socket is bound.
fn place(at: &At<'_>, value: Option<&PbAddress>) -> Option<Address> {
    match messages::address(at, value) {
        Some(Address::Internal(_)) => {
            at.field("envoy_internal_address").unsupported();
            None
        }
        address => address,
    }
}

fn additional(at: &At<'_>, values: &[AdditionalAddress]) -> Vec<Address> {
    let one = |(index, value): (usize, &AdditionalAddress)| {
        let at = at.nth(index);
        fields!(&at, value => AdditionalAddress {
            use { address }
            accept {}
            refuse { socket_options, tcp_keepalive }
        });
        place(&at.field("address"), address.as_ref())
    };
    values.iter().enumerate().filter_map(one).collect()
}

fn chains(at: &At<'_>, values: &[PbChain]) -> (Vec<Arc<FilterChain>>, Option<ChainTable>) {
    let at = at.field("filter_chains");
    let mut chains = Vec::with_capacity(values.len());
    let mut matches = Vec::with_capacity(values.len());
    for (index, value) in values.iter().enumerate() {
        let at = at.nth(index);
        chains.extend(chain(&at, value).map(Arc::new));
        matches.push(chain_match(&at.field("filter_chain_match"), &value.filter_chain_match));
    }
    let table = ChainTable::build(&matches).map_err(|Overlap(place)| {
        at.nth(place).field("filter_chain_match").fault("overlaps with that of another chain");
    });
    (chains, table.ok())
}

fn chain(at: &At<'_>, value: &PbChain) -> Option<FilterChain> {
    fields!(at, value => PbChain {
        use {
            filters, use_proxy_proto, transport_socket, transport_socket_connect_timeout, name,
        }
        accept { metadata, filter_chain_match }
        refuse {}
    });
    if messages::flag(use_proxy_proto.as_ref(), false) {
        at.field("use_proxy_proto").unsupported();
    }
    let tls = tls::downstream(&at.field("transport_socket"), transport_socket.as_ref());
    let (guards, network) = network(&at.field("filters"), filters);
    let handshake_timeout = messages::limit(
        &at.field("transport_socket_connect_timeout"),
        transport_socket_connect_timeout.as_ref(),
        None,
    );
    Some(FilterChain {
        name: name.as_str().into(),
        tls: tls?,
        handshake_timeout,
        guards,
        network: network?,
    })
}

fn chain_match(at: &At<'_>, value: &Option<FilterChainMatch>) -> ChainMatch {
    let Some(value) = value else { return ChainMatch::default() };
    fields!(at, value => FilterChainMatch {
        use {
            destination_port, prefix_ranges, direct_source_prefix_ranges, source_type,
            source_prefix_ranges, source_ports, server_names, transport_protocol,
            application_protocols,
        }
        accept {}
        refuse { address_suffix, suffix_len }
    });
    let port = |at: &At<'_>, port: u32| match u16::try_from(port) {
        Ok(port) if port > 0 => Some(port),
        _ => {
            at.fault("is not a port number");
            None
        }
    };
    let names = at.field("server_names");
    let server_names = server_names.iter().enumerate().map(|(index, name)| {
        let lower = name.to_ascii_lowercase();
        let suffix = lower.strip_prefix("*.").map(|suffix| format!(".{suffix}"));
        let name = suffix.unwrap_or(lower);
        if name.is_empty() || name.contains('*') {
            names.nth(index).fault("is not a name and not a wildcard of the form *.suffix");
        }
        name
    });
    if !matches!(transport_protocol.as_str(), "" | "tls" | "raw_buffer") {
        at.field("transport_protocol").unsupported();
    }
    ChainMatch {
        destination_port: destination_port
            .as_ref()
            .and_then(|value| port(&at.field("destination_port"), value.value)),
        destinations: messages::cidrs(&at.field("prefix_ranges"), prefix_ranges),
        server_names: server_names.collect(),
        transport: transport_protocol.clone(),
        applications: application_protocols.clone(),
        direct_sources: messages::cidrs(
            &at.field("direct_source_prefix_ranges"),
            direct_source_prefix_ranges,
        ),
        source_type: match ConnectionSourceType::try_from(*source_type) {
            Ok(ConnectionSourceType::SameIpOrLoopback) => SourceType::Local,
            Ok(ConnectionSourceType::External) => SourceType::External,
            Ok(ConnectionSourceType::Any) => SourceType::Any,
            Err(_) => {
                at.field("source_type").unsupported();
                SourceType::Any
            }
        },
        sources: messages::cidrs(&at.field("source_prefix_ranges"), source_prefix_ranges),
        source_ports: source_ports
            .iter()
            .filter_map(|value| port(&at.field("source_ports"), *value))
            .collect(),
    }
}

fn listener_filters_of(at: &At<'_>, filters: &[PbListenerFilter]) -> Vec<ListenerFilter> {
    let filters = filters.iter().enumerate().filter_map(|(index, filter)| {
        let at = at.nth(index);
        let disabled = match &filter.filter_disabled {
            Some(rule) => Some(ports(&at.field("filter_disabled"), rule, 0)?),
            None => None,
        };
        match &filter.config_type {
            Some(ListenerFilterConfig::TypedConfig(any)) => {
                let kind = listener_filter(&at.field("typed_config"), any)?;
                Some(ListenerFilter { kind, disabled })
            }
            Some(ListenerFilterConfig::ConfigDiscovery(_)) => {
                at.field("config_discovery").unsupported();
                None
            }
            None => {
                at.field("typed_config").fault(format!("is missing for {:?}", filter.name));
                None
            }
        }
    });
    filters.collect()
}

fn listener_filter(at: &At<'_>, any: &Any) -> Option<ListenerFilterKind> {
    match message_of(any) {
        "envoy.extensions.filters.listener.original_dst.v3.OriginalDst" => {
            Some(ListenerFilterKind::OriginalDst)
        }
        "envoy.extensions.filters.listener.original_src.v3.OriginalSrc" => {
            let source = at.unpack::<OriginalSrc>(any)?;
            fields!(at, &source => OriginalSrc {
                use { mark }
                accept {}
                refuse { bind_port }
            });
            Some(ListenerFilterKind::OriginalSrc { mark: *mark })
        }
        "envoy.extensions.filters.listener.http_inspector.v3.HttpInspector" => {
            Some(ListenerFilterKind::HttpInspector)
        }
        "envoy.extensions.filters.listener.tls_inspector.v3.TlsInspector" => {
            let inspector = at.unpack::<TlsInspector>(any)?;
            fields!(at, &inspector => TlsInspector {
                use { enable_ja3_fingerprinting, enable_ja4_fingerprinting }
                // The size of the first read; a hello that cannot be parsed is not TLS.
                accept { initial_read_buffer_size }
                refuse { close_connection_on_client_hello_parsing_errors, max_client_hello_size }
            });
            for (field, value) in [
                ("enable_ja3_fingerprinting", enable_ja3_fingerprinting),
                ("enable_ja4_fingerprinting", enable_ja4_fingerprinting),
            ] {
                if messages::flag(value.as_ref(), false) {
                    at.field(field).unsupported();
                }
            }
            Some(ListenerFilterKind::TlsInspector)
        }
        "envoy.extensions.filters.listener.proxy_protocol.v3.ProxyProtocol" => {
            let protocol = at.unpack::<ProxyProtocol>(any)?;
            fields!(at, &protocol => ProxyProtocol {
                use { allow_requests_without_proxy_protocol }
                accept { stat_prefix, tlv_location }
                refuse { rules, pass_through_tlvs, disallowed_versions }
            });
            Some(ListenerFilterKind::ProxyProtocol {
                optional: *allow_requests_without_proxy_protocol,
            })
        }
        other => {
            at.fault(format!("listener filter {other} is not supported"));
            None
        }
    }
}

fn ports(
    at: &At<'_>,
    rule: &ListenerFilterChainMatchPredicate,
    depth: usize,
) -> Option<PortPredicate> {
    if depth > DEPTH_MAX {
        at.fault(format!("is nested deeper than {DEPTH_MAX}"));
        return None;
    }
    let all = |rules: &[ListenerFilterChainMatchPredicate]| -> Option<Vec<PortPredicate>> {
        let rules = rules.iter().enumerate();
        rules.map(|(index, rule)| ports(&at.nth(index), rule, depth + 1)).collect()
    };
    Some(match rule.rule.as_ref() {
        Some(Rule::OrMatch(set)) => PortPredicate::OneOf(all(&set.rules)?),
        Some(Rule::AndMatch(set)) => PortPredicate::All(all(&set.rules)?),
        Some(Rule::NotMatch(rule)) => PortPredicate::Not(Box::new(ports(at, rule, depth + 1)?)),
        Some(Rule::AnyMatch(true)) => PortPredicate::Any,
        Some(Rule::DestinationPortRange(range)) => PortPredicate::Range(range.start, range.end),
        Some(Rule::AnyMatch(false)) | None => {
            at.fault("says nothing to match");
            return None;
        }
    })
}

/// The network filters of a chain: what decides, then exactly one that serves the connection.
fn network(at: &At<'_>, filters: &[Filter]) -> (Vec<NetworkGuard>, Option<Network>) {
    let mut guards = Vec::new();
    let mut network = None;
    let (mut sni_port, mut passes_name) = (None, false);
    for (index, filter) in filters.iter().enumerate() {
        let at = at.nth(index);
        let any = match &filter.config_type {
            Some(FilterConfig::TypedConfig(any)) => any,
            Some(FilterConfig::ConfigDiscovery(_)) => {
                at.field("config_discovery").unsupported();
                continue;
            }
            None => {
                at.field("typed_config").fault(format!("is missing for {:?}", filter.name));
                continue;
            }
        };
        let place = &at;
        let at = at.field("typed_config");
        let found = match message_of(any) {
            "envoy.extensions.filters.network.tcp_proxy.v3.TcpProxy" => tcp_proxy(&at, any)
                .map(|proxy| Network::Tcp(Arc::new(TcpProxy { sni_port, passes_name, ..proxy }))),
            "envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager" => {
                http::manager(&at, any).map(|manager| Network::Http(Arc::new(manager)))
            }
            "envoy.extensions.filters.network.sni_dynamic_forward_proxy.v3.FilterConfig" => {
                // It comes before the filter that serves the connection.
                sni_port = sni_forward(&at, any);
                if index + 1 == filters.len() {
                    place.fault("serves nothing by itself");
                }
                continue;
            }
            "envoy.extensions.filters.network.set_filter_state.v3.Config" => {
                passes_name |= name_filter(&at, any);
                if index + 1 == filters.len() {
                    place.fault("serves nothing by itself");
                }
                continue;
            }
            "envoy.extensions.filters.network.rbac.v3.RBAC" => {
                let own = rbac::network_filter(&at, any);
                guards.extend(own.map(|own| NetworkGuard::Rbac(Arc::new(own))));
                if index + 1 == filters.len() {
                    place.fault("serves nothing by itself");
                }
                continue;
            }
            "envoy.extensions.filters.network.ext_authz.v3.ExtAuthz" => {
                let own = ext_authz::tcp(&at, any);
                guards.extend(own.map(|own| NetworkGuard::Authz(Arc::new(own))));
                if index + 1 == filters.len() {
                    place.fault("serves nothing by itself");
                }
                continue;
            }
            other => {
                at.fault(format!("network filter {other} is not supported"));
                None
            }
        };
        if index + 1 < filters.len() && found.is_some() {
            place.fault("serves the connection, so that the filters after it would never run");
        }
        network = found;
    }
    if filters.is_empty() {
        at.fault("is empty");
    }
    (guards, network)
}
