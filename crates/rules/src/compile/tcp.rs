//! The TCP proxy, and what may come before it in a chain.

#![expect(deprecated, reason = "deprecated fields must be looked at to be refused or understood")]

use std::time::Duration;

use envoy_types::pb::{
    envoy::{
        config::core::v3::{data_source::Specifier, substitution_format_string::Format},
        extensions::filters::common::set_filter_state::v3::{
            FilterStateValue,
            filter_state_value::{Key as StateKey, Value as StateValue},
        },
        extensions::filters::network::{
            set_filter_state::v3::Config as SetFilterState,
            sni_dynamic_forward_proxy::v3::{
                FilterConfig as SniForward, filter_config::PortSpecifier as SniPort,
            },
            tcp_proxy::v3::{
                TcpProxy as PbTcpProxy,
                tcp_proxy::{
                    ClusterSpecifier, TunnelingConfig, WeightedCluster as PbWeighted,
                    weighted_cluster::ClusterWeight,
                },
            },
        },
        r#type::v3::hash_policy::PolicySpecifier,
    },
    google::protobuf::Any,
};

use super::{
    access_log::access_logs,
    at::{At, fields},
    balance, dns, messages,
};
use crate::{
    HeaderMutations, HeaderText, TcpProxy, TcpTarget, Tunnel, WeightedCluster, WeightedClusters,
};

/// Envoy's name for the server name of the TLS towards the endpoint.
const UPSTREAM_SERVER_NAME: &str = "envoy.network.upstream_server_name";

const TCP_IDLE_TIMEOUT: Duration = Duration::from_secs(3600);

/// The port of the host that a client's hello names.
pub(super) fn sni_forward(at: &At<'_>, any: &Any) -> Option<u16> {
    let filter = at.unpack::<SniForward>(any)?;
    fields!(at, &filter => SniForward {
        use { dns_cache_config, port_specifier }
        accept { save_upstream_address }
        refuse {}
    });
    let port = match port_specifier {
        Some(SniPort::PortValue(port)) => u16::try_from(*port).ok().filter(|port| *port != 0),
        // Envoy's default.
        None => Some(443),
    };
    if port.is_none() {
        at.field("port_value").fault("is not a port number");
    }
    match dns_cache_config {
        // The cluster resolves the name, by the settings of its own.
        Some(cache) => drop(dns::dns_cache(&at.field("dns_cache_config"), cache)),
        None => at.field("dns_cache_config").fault("is missing"),
    }
    port
}

/// The filter that has the server name of the client's hello be that of the TLS towards the endpoint:
/// the one use of filter state that is known here.
pub(super) fn passes_name(at: &At<'_>, any: &Any) -> bool {
    let Some(filter) = at.unpack::<SetFilterState>(any) else { return false };
    fields!(at, &filter => SetFilterState {
        use { on_new_connection }
        accept {}
        refuse { on_downstream_tls_handshake, on_downstream_data }
    });
    let at = at.field("on_new_connection");
    let [value] = on_new_connection.as_slice() else {
        at.fault("must hold one value");
        return false;
    };
    let at = at.nth(0);
    fields!(&at, value => FilterStateValue {
        use { key, value }
        accept { shared_with_upstream, skip_if_empty, read_only, factory_key }
        refuse {}
    });
    let is_key = matches!(key, Some(StateKey::ObjectKey(key)) if key == UPSTREAM_SERVER_NAME);
    let format = match value {
        Some(StateValue::FormatString(format)) => match &format.format {
            Some(Format::TextFormatSource(source)) => match &source.specifier {
                Some(Specifier::InlineString(text)) => Some(text),
                _ => None,
            },
            Some(Format::TextFormat(text)) => Some(text),
            _ => None,
        },
        None => None,
    };
    let is_name = format.is_some_and(|format| format == "%REQUESTED_SERVER_NAME%");
    if !is_key || !is_name {
        at.fault(format!("only {UPSTREAM_SERVER_NAME}: %REQUESTED_SERVER_NAME% is supported"));
    }
    is_key && is_name
}

pub(super) fn tcp_proxy(at: &At<'_>, any: &Any) -> Option<TcpProxy> {
    let proxy = at.unpack::<PbTcpProxy>(any)?;
    fields!(at, &proxy => PbTcpProxy {
        use {
            stat_prefix, idle_timeout, access_log, max_connect_attempts, hash_policy,
            max_downstream_connection_duration, cluster_specifier, metadata_match,
            tunneling_config,
        }
        // Draining is the listener's business.
        accept { check_drain_close }
        refuse {
            on_demand, downstream_idle_timeout, upstream_idle_timeout, backoff_options, max_downstream_connection_duration_jitter_percentage,
            access_log_flush_interval, flush_access_log_on_connected, access_log_options,
            proxy_protocol_tlvs, proxy_protocol_tlv_merge_policy, upstream_connect_mode,
            max_early_data_bytes,
        }
    });
    for (index, policy) in hash_policy.iter().enumerate() {
        if !matches!(policy.policy_specifier, Some(PolicySpecifier::SourceIp(_))) {
            at.field("hash_policy").nth(index).unsupported();
        }
    }
    let target = match cluster_specifier {
        Some(ClusterSpecifier::Cluster(name)) if !name.is_empty() => {
            Some(TcpTarget::Cluster(name.as_str().into()))
        }
        Some(ClusterSpecifier::WeightedClusters(clusters)) => {
            weighted(&at.field("weighted_clusters"), clusters).map(TcpTarget::Weighted)
        }
        _ => {
            at.field("cluster").fault("is missing");
            None
        }
    };
    Some(TcpProxy {
        stat_prefix: stat_prefix.as_str().into(),
        target: target?,
        idle_timeout: messages::limit(
            &at.field("idle_timeout"),
            idle_timeout.as_ref(),
            Some(TCP_IDLE_TIMEOUT),
        ),
        max_duration: messages::limit(
            &at.field("max_downstream_connection_duration"),
            max_downstream_connection_duration.as_ref(),
            None,
        ),
        max_connect_attempts: messages::positive(
            &at.field("max_connect_attempts"),
            max_connect_attempts.as_ref(),
            1,
        ),
        hashes_source: !hash_policy.is_empty(),
        labels: metadata_match
            .as_ref()
            .map(|all| balance::labels(all.filter_metadata.get("envoy.lb"))),
        tunnel: tunneling_config
            .as_ref()
            .and_then(|config| tunnel(&at.field("tunneling_config"), config)),
        sni_port: None,
        passes_name: false,
        access_logs: access_logs(&at.field("access_log"), access_log),
    })
}

fn tunnel(at: &At<'_>, config: &TunnelingConfig) -> Option<Tunnel> {
    fields!(at, config => TunnelingConfig {
        use { hostname, headers_to_add }
        // Where responses' headers are kept for others to read; nobody here does.
        accept { propagate_response_headers, propagate_response_trailers, post_path }
        refuse { use_post, request_id_extension, request_id_header, request_id_metadata_key, formatters }
    });
    if hostname.is_empty() || hostname.bytes().any(|b| b.is_ascii_whitespace() || b == b'%') {
        at.field("hostname").fault("is not a host and port (commands are not supported)");
        return None;
    }
    let edits = messages::header_edits(&at.field("headers_to_add"), headers_to_add);
    let headers = edits.into_iter().enumerate().filter_map(|(index, edit)| match edit.value {
        HeaderText::Literal(value) => Some((edit.name, value)),
        HeaderText::Format(_) => {
            at.field("headers_to_add").nth(index).fault("holds a command, which is not supported");
            None
        }
    });
    Some(Tunnel { target: hostname.as_str().into(), headers: headers.collect() })
}

fn weighted(at: &At<'_>, clusters: &PbWeighted) -> Option<WeightedClusters> {
    let at = at.field("clusters");
    let list = clusters.clusters.iter().enumerate().map(|(index, cluster)| {
        fields!(&at.nth(index), cluster => ClusterWeight {
            use { name, weight }
            accept {}
            refuse { metadata_match }
        });
        WeightedCluster {
            name: name.as_str().into(),
            header: None,
            weight: *weight,
            mutations: HeaderMutations::default(),
            host: None,
        }
    });
    let clusters = WeightedClusters::new(list.collect());
    if clusters.is_none() {
        at.fault("has weights that add up to nothing or to too much");
    }
    clusters
}
