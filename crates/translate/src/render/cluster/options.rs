//! The settings of a cluster that stand beside its endpoints: protocol, limits, balance, outliers.

use std::collections::HashMap;

use envoy_types::pb::{
    envoy::{
        config::{
            cluster::v3::{
                CircuitBreakers, OutlierDetection, UpstreamConnectionOptions,
                circuit_breakers::{Thresholds, thresholds},
                cluster::{
                    LbConfig, LeastRequestLbConfig, MaglevLbConfig, RingHashLbConfig,
                    RoundRobinLbConfig, SlowStartConfig,
                },
            },
            core::v3::{
                Http1ProtocolOptions, Http2ProtocolOptions, HttpProtocolOptions as CommonOptions,
                KeepaliveSettings, Metadata, RuntimeDouble, TcpKeepalive as PbKeepalive,
                UpstreamHttpProtocolOptions,
            },
        },
        extensions::upstreams::http::v3::{
            HttpProtocolOptions,
            http_protocol_options::{
                ExplicitHttpConfig, UpstreamProtocolOptions, UseDownstreamHttpConfig,
                explicit_http_config::ProtocolConfig,
            },
        },
        r#type::v3::Percent,
    },
    google::protobuf::{Any, ListValue, Struct, UInt64Value, Value, value::Kind},
};
use sluis_envoy::pack;

use super::super::{credentials, wrap};
use crate::{
    Balance, ClusterInput, Discovery, Limits, OutlierInput, SlowStart, TcpKeepalive,
    UpstreamProtocol,
};

/// Where the options of a cluster's HTTP are filed, and their type.
pub(crate) const HTTP_OPTIONS: &str = "envoy.extensions.upstreams.http.v3.HttpProtocolOptions";

/// Where our own words about a cluster are filed.
const OWN: &str = "sluis.dev";

/// Envoy demands a key by which a running proxy may change the value; Istio gives this one.
const NO_RUNTIME_KEY: &str = "(";

/// Millionths in one percent.
const PER_PERCENT: f64 = 10_000.0;

/// HTTP towards the endpoints; nothing where Envoy's defaults do.
pub(super) fn http(input: &ClusterInput) -> HashMap<String, Any> {
    let tls = input.tls.as_ref();
    let names = UpstreamHttpProtocolOptions {
        auto_sni: tls.is_some_and(|tls| tls.is_sni_auto),
        auto_san_validation: tls.is_some_and(|tls| tls.is_name_check_auto),
        ..UpstreamHttpProtocolOptions::default()
    };
    let life = &input.connection;
    let common = CommonOptions {
        idle_timeout: life.idle_timeout.map(wrap::duration),
        max_connection_duration: life.duration_max.map(wrap::duration),
        max_requests_per_connection: life.requests_max.and_then(wrap::number),
        ..CommonOptions::default()
    };
    let has_names = names != UpstreamHttpProtocolOptions::default();
    let has_common = common != CommonOptions::default();
    let http2 = || Http2ProtocolOptions {
        max_concurrent_streams: life.streams_max.and_then(wrap::number),
        connection_keepalive: life.ping.map(|(interval, timeout)| KeepaliveSettings {
            interval: interval.map(wrap::duration),
            timeout: timeout.map(wrap::duration),
            ..KeepaliveSettings::default()
        }),
        ..Http2ProtocolOptions::default()
    };
    let explicit = |protocol| {
        UpstreamProtocolOptions::ExplicitHttpConfig(ExplicitHttpConfig {
            protocol_config: Some(protocol),
        })
    };
    let filters = input.credentials.as_deref().map(credentials::filters).unwrap_or_default();
    let protocol = match input.protocol {
        UpstreamProtocol::Http1 if !has_names && !has_common && filters.is_empty() => {
            return HashMap::new();
        }
        UpstreamProtocol::Http1 => {
            explicit(ProtocolConfig::HttpProtocolOptions(Http1ProtocolOptions::default()))
        }
        UpstreamProtocol::Http2 => explicit(ProtocolConfig::Http2ProtocolOptions(http2())),
        UpstreamProtocol::AsClient => {
            UpstreamProtocolOptions::UseDownstreamProtocolConfig(UseDownstreamHttpConfig {
                http_protocol_options: Some(Http1ProtocolOptions::default()),
                http2_protocol_options: Some(http2()),
                ..UseDownstreamHttpConfig::default()
            })
        }
    };
    let options = HttpProtocolOptions {
        common_http_protocol_options: has_common.then_some(common),
        upstream_http_protocol_options: has_names.then_some(names),
        upstream_protocol_options: Some(protocol),
        http_filters: filters,
        ..HttpProtocolOptions::default()
    };
    HashMap::from([(HTTP_OPTIONS.to_owned(), pack(&options))])
}

pub(super) fn limits(limits: &Limits) -> CircuitBreakers {
    CircuitBreakers {
        thresholds: vec![Thresholds {
            max_connections: wrap::number(limits.connections_max),
            max_pending_requests: wrap::number(limits.pending_max),
            max_requests: wrap::number(limits.requests_max),
            max_retries: wrap::number(limits.retries_max),
            retry_budget: limits.retry_budget.map(|budget| thresholds::RetryBudget {
                budget_percent: Some(Percent {
                    value: f64::from(budget.share_millionths) / PER_PERCENT,
                }),
                budget_interval: budget.interval.map(wrap::duration),
                min_retry_concurrency: wrap::number(budget.retries_min),
            }),
            track_remaining: true,
            ..Thresholds::default()
        }],
        ..CircuitBreakers::default()
    }
}

pub(super) fn lb_config(balance: Balance) -> Option<LbConfig> {
    let wide = |value: u64| Some(UInt64Value { value });
    Some(match balance {
        Balance::LeastRequest(Some(slow)) => LbConfig::LeastRequestLbConfig(LeastRequestLbConfig {
            slow_start_config: Some(slow_start(slow)),
            ..LeastRequestLbConfig::default()
        }),
        Balance::RoundRobin(Some(slow)) => LbConfig::RoundRobinLbConfig(RoundRobinLbConfig {
            slow_start_config: Some(slow_start(slow)),
        }),
        Balance::RingHash(size) => LbConfig::RingHashLbConfig(RingHashLbConfig {
            minimum_ring_size: wide(size),
            ..RingHashLbConfig::default()
        }),
        Balance::Maglev(Some(size)) => {
            LbConfig::MaglevLbConfig(MaglevLbConfig { table_size: wide(size) })
        }
        Balance::LeastRequest(None)
        | Balance::RoundRobin(None)
        | Balance::Maglev(None)
        | Balance::Random
        | Balance::Passthrough => return None,
    })
}

fn slow_start(slow: SlowStart) -> SlowStartConfig {
    SlowStartConfig {
        slow_start_window: Some(wrap::duration(slow.window)),
        aggression: slow.curve.map(|(_, aggression)| RuntimeDouble {
            default_value: f64::from_bits(aggression),
            runtime_key: NO_RUNTIME_KEY.to_owned(),
        }),
        min_weight_percent: slow
            .curve
            .map(|(share, _)| Percent { value: f64::from(share) / PER_PERCENT }),
    }
}

/// Istio's reading: what is counted is enforced always, and success rates never.
pub(super) fn outliers(input: &OutlierInput) -> OutlierDetection {
    let enforced = |count: u32| wrap::number(if count > 0 { 100 } else { 0 });
    OutlierDetection {
        consecutive_5xx: input.consecutive_5xx.and_then(wrap::number),
        enforcing_consecutive_5xx: input.consecutive_5xx.and_then(enforced),
        consecutive_gateway_failure: input.consecutive_gateway.and_then(wrap::number),
        enforcing_consecutive_gateway_failure: input.consecutive_gateway.and_then(enforced),
        interval: input.interval.map(wrap::duration),
        base_ejection_time: input.base_time.map(wrap::duration),
        max_ejection_percent: input.ejected_percent_max.and_then(wrap::number),
        enforcing_success_rate: wrap::number(0),
        split_external_local_origin_errors: input.splits_local,
        consecutive_local_origin_failure: input.consecutive_local.and_then(wrap::number),
        enforcing_consecutive_local_origin_failure: input.consecutive_local.and_then(enforced),
        enforcing_local_origin_success_rate: if input.splits_local {
            wrap::number(0)
        } else {
            None
        },
        ..OutlierDetection::default()
    }
}

pub(super) fn keepalive(input: TcpKeepalive) -> UpstreamConnectionOptions {
    UpstreamConnectionOptions {
        tcp_keepalive: Some(PbKeepalive {
            keepalive_probes: input.probes.and_then(wrap::number),
            keepalive_time: input.time_secs.and_then(wrap::number),
            keepalive_interval: input.interval_secs.and_then(wrap::number),
        }),
        ..UpstreamConnectionOptions::default()
    }
}

/// What is told about a cluster: Istio's words, and our own pattern for names that are resolved on
/// demand.
pub(super) fn metadata(input: &ClusterInput) -> Option<Metadata> {
    let about = &input.about;
    let mut istio = HashMap::new();
    if let Some((host, name, namespace)) = &about.service {
        let fields = [("host", host), ("name", name), ("namespace", namespace)];
        let fields = fields.map(|(key, value)| (key.to_owned(), wrap::text(value)));
        let service = Kind::StructValue(Struct { fields: HashMap::from(fields) });
        let values = vec![Value { kind: Some(service) }];
        let list = Value { kind: Some(Kind::ListValue(ListValue { values })) };
        istio.insert("services".to_owned(), list);
    }
    let texts = [
        ("config", about.config.as_deref()),
        ("subset", Some(input.subset.as_str()).filter(|subset| !subset.is_empty())),
        ("alpn_override", about.keeps_alpn.then_some("false")),
    ];
    for (key, value) in texts {
        istio.extend(value.map(|value| (key.to_owned(), wrap::text(value))));
    }
    if about.is_external {
        istio.insert("external".to_owned(), Value { kind: Some(Kind::BoolValue(true)) });
    }
    let mut filter_metadata = HashMap::new();
    if !istio.is_empty() {
        filter_metadata.insert("istio".to_owned(), Struct { fields: istio });
    }
    if let Discovery::DynamicDns(pattern) = &input.discovery {
        let fields = HashMap::from([("pattern".to_owned(), wrap::text(pattern))]);
        filter_metadata.insert(OWN.to_owned(), Struct { fields });
    }
    (!filter_metadata.is_empty()).then(|| Metadata { filter_metadata, ..Metadata::default() })
}
