//! How endpoints are watched: health checks, and outlier detection.

#![expect(deprecated, reason = "deprecated fields must be looked at to be refused or understood")]

use std::{sync::Arc, time::Duration};

use envoy_types::pb::{
    envoy::{
        config::{
            cluster::v3::OutlierDetection,
            core::v3::{
                HealthCheck as PbCheck,
                health_check::{
                    GrpcHealthCheck, HealthChecker, HttpHealthCheck, Payload, TcpHealthCheck,
                    payload::Payload as PbPayload,
                },
            },
        },
        r#type::v3::Int64Range,
    },
    google::protobuf::UInt32Value,
};

use super::{
    at::{At, fields, refuse},
    messages,
};
use crate::{GrpcProbe, HealthCheck, HttpProbe, Outlier, Probe, TcpProbe};

/// Envoy's interval for clusters without traffic.
const NO_TRAFFIC: Duration = Duration::from_secs(60);

/// Longest text that is looked for in an answer.
const RECEIVE_BYTES_MAX: usize = 4096;

#[expect(clippy::too_many_lines, reason = "one line per field of the message")]
pub(super) fn outlier(at: &At<'_>, value: Option<&OutlierDetection>) -> Option<Arc<Outlier>> {
    let value = value?;
    fields!(at, value => OutlierDetection {
        use {
            consecutive_5xx, interval, base_ejection_time, max_ejection_percent,
            enforcing_consecutive_5xx, enforcing_success_rate, success_rate_minimum_hosts,
            success_rate_request_volume, success_rate_stdev_factor, consecutive_gateway_failure,
            enforcing_consecutive_gateway_failure, split_external_local_origin_errors,
            consecutive_local_origin_failure, enforcing_consecutive_local_origin_failure,
            enforcing_local_origin_success_rate, failure_percentage_threshold,
            enforcing_failure_percentage, enforcing_failure_percentage_local_origin,
            failure_percentage_minimum_hosts, failure_percentage_request_volume,
            max_ejection_time, max_ejection_time_jitter,
            successful_active_health_check_uneject_host, always_eject_one_host,
        }
        accept {}
        refuse { monitors, detect_degraded_hosts }
    });
    let d = Outlier::default();
    let number = |value: &Option<UInt32Value>, default: u32| {
        messages::number(value.as_ref()).unwrap_or(default)
    };
    let percent = |field: &str, value: &Option<UInt32Value>, default: u32| {
        let value = number(value, default);
        if value > 100 {
            at.field(field).fault("is more than 100");
        }
        value.min(100)
    };
    let time = |field: &str, value, default| {
        messages::duration(&at.field(field), value).unwrap_or(default)
    };
    let interval = time("interval", interval.as_ref(), d.interval);
    if interval.is_zero() {
        at.field("interval").fault("must be above 0");
    }
    let base_time = time("base_ejection_time", base_ejection_time.as_ref(), d.base_time);
    let max_time = time("max_ejection_time", max_ejection_time.as_ref(), d.max_time.max(base_time));
    if max_time < base_time {
        at.field("max_ejection_time").fault("is shorter than base_ejection_time");
    }
    Some(Arc::new(Outlier {
        consecutive_5xx: number(consecutive_5xx, d.consecutive_5xx),
        enforce_5xx: percent("enforcing_consecutive_5xx", enforcing_consecutive_5xx, d.enforce_5xx),
        consecutive_gateway: number(consecutive_gateway_failure, d.consecutive_gateway),
        enforce_gateway: percent(
            "enforcing_consecutive_gateway_failure",
            enforcing_consecutive_gateway_failure,
            d.enforce_gateway,
        ),
        consecutive_local: number(consecutive_local_origin_failure, d.consecutive_local),
        enforce_local: percent(
            "enforcing_consecutive_local_origin_failure",
            enforcing_consecutive_local_origin_failure,
            d.enforce_local,
        ),
        splits_local: *split_external_local_origin_errors,
        interval,
        base_time,
        max_time,
        jitter: time("max_ejection_time_jitter", max_ejection_time_jitter.as_ref(), d.jitter),
        max_percent: percent("max_ejection_percent", max_ejection_percent, d.max_percent),
        always_one: messages::flag(always_eject_one_host.as_ref(), d.always_one),
        enforce_success_rate: percent(
            "enforcing_success_rate",
            enforcing_success_rate,
            d.enforce_success_rate,
        ),
        enforce_local_success_rate: percent(
            "enforcing_local_origin_success_rate",
            enforcing_local_origin_success_rate,
            d.enforce_local_success_rate,
        ),
        success_rate_hosts: number(success_rate_minimum_hosts, d.success_rate_hosts),
        success_rate_volume: number(success_rate_request_volume, d.success_rate_volume),
        stdev_factor: number(success_rate_stdev_factor, d.stdev_factor),
        enforce_failure_percentage: percent(
            "enforcing_failure_percentage",
            enforcing_failure_percentage,
            d.enforce_failure_percentage,
        ),
        enforce_local_failure_percentage: percent(
            "enforcing_failure_percentage_local_origin",
            enforcing_failure_percentage_local_origin,
            d.enforce_local_failure_percentage,
        ),
        failure_percentage: percent(
            "failure_percentage_threshold",
            failure_percentage_threshold,
            d.failure_percentage,
        ),
        failure_percentage_hosts: number(
            failure_percentage_minimum_hosts,
            d.failure_percentage_hosts,
        ),
        failure_percentage_volume: number(
            failure_percentage_request_volume,
            d.failure_percentage_volume,
        ),
        health_check_readmits: messages::flag(
            successful_active_health_check_uneject_host.as_ref(),
            d.health_check_readmits,
        ),
    }))
}

pub(super) fn health_checks(at: &At<'_>, list: &[PbCheck]) -> Vec<Arc<HealthCheck>> {
    let checks = list.iter().enumerate();
    checks.filter_map(|(index, value)| health_check(&at.nth(index), value).map(Arc::new)).collect()
}

fn health_check(at: &At<'_>, value: &PbCheck) -> Option<HealthCheck> {
    fields!(at, value => PbCheck {
        use {
            timeout, interval, initial_jitter, interval_jitter, interval_jitter_percent,
            unhealthy_threshold, healthy_threshold, alt_port, no_traffic_interval,
            no_traffic_healthy_interval, unhealthy_interval, unhealthy_edge_interval,
            healthy_edge_interval, health_checker,
        }
        // Logs of their own; a connection of its own for each question is always good.
        accept {
            reuse_connection, event_log_path, event_logger, always_log_health_check_failures,
            always_log_health_check_success,
        }
        refuse { event_service, transport_socket_match_criteria, tls_options }
    });
    let time = |field: &str, value| messages::duration(&at.field(field), value);
    let needed = |field: &'static str, value| match time(field, value) {
        Some(time) if !time.is_zero() => time,
        _ => {
            at.field(field).fault("is missing");
            Duration::from_secs(1)
        }
    };
    let threshold =
        |field: &str, value: &Option<UInt32Value>| match messages::number(value.as_ref()) {
            Some(value) => value.max(1),
            None => {
                at.field(field).fault("is missing");
                1
            }
        };
    let port = messages::number(alt_port.as_ref()).unwrap_or(0);
    Some(HealthCheck {
        timeout: needed("timeout", timeout.as_ref()),
        interval: needed("interval", interval.as_ref()),
        no_traffic_interval: time("no_traffic_interval", no_traffic_interval.as_ref())
            .unwrap_or(NO_TRAFFIC),
        no_traffic_healthy_interval: time(
            "no_traffic_healthy_interval",
            no_traffic_healthy_interval.as_ref(),
        ),
        unhealthy_interval: time("unhealthy_interval", unhealthy_interval.as_ref()),
        unhealthy_edge_interval: time("unhealthy_edge_interval", unhealthy_edge_interval.as_ref()),
        healthy_edge_interval: time("healthy_edge_interval", healthy_edge_interval.as_ref()),
        initial_jitter: time("initial_jitter", initial_jitter.as_ref()).unwrap_or_default(),
        interval_jitter: time("interval_jitter", interval_jitter.as_ref()).unwrap_or_default(),
        interval_jitter_percent: *interval_jitter_percent,
        unhealthy_threshold: threshold("unhealthy_threshold", unhealthy_threshold),
        healthy_threshold: threshold("healthy_threshold", healthy_threshold),
        port: u16::try_from(port).unwrap_or_else(|_| {
            at.field("alt_port").fault("is not a port number");
            0
        }),
        probe: probe(at, health_checker.as_ref())?,
    })
}

fn probe(at: &At<'_>, checker: Option<&HealthChecker>) -> Option<Probe> {
    match checker {
        Some(HealthChecker::HttpHealthCheck(http)) => {
            http_probe(&at.field("http_health_check"), http).map(Probe::Http)
        }
        Some(HealthChecker::TcpHealthCheck(tcp)) => {
            let at = at.field("tcp_health_check");
            fields!(&at, tcp => TcpHealthCheck {
                use { send, receive }
                accept {}
                refuse { proxy_protocol_config }
            });
            let send = send.as_ref().map(|send| payload(&at.field("send"), send));
            Some(Probe::Tcp(TcpProbe {
                send: send.unwrap_or_default(),
                receive: payloads(&at.field("receive"), receive),
            }))
        }
        Some(HealthChecker::GrpcHealthCheck(grpc)) => {
            fields!(&at.field("grpc_health_check"), grpc => GrpcHealthCheck {
                use { service_name, authority }
                accept {}
                refuse { initial_metadata }
            });
            let (service, authority) = (service_name.as_str().into(), authority.as_str().into());
            Some(Probe::Grpc(GrpcProbe { service, authority }))
        }
        Some(HealthChecker::CustomHealthCheck(custom)) => {
            let message = format!("{:?} is not supported", custom.name);
            at.field("custom_health_check").fault(message);
            None
        }
        None => {
            at.fault("says nothing to ask");
            None
        }
    }
}

fn http_probe(at: &At<'_>, http: &HttpHealthCheck) -> Option<HttpProbe> {
    fields!(at, http => HttpHealthCheck {
        use {
            host, path, receive, request_headers_to_add, request_headers_to_remove,
            expected_statuses, retriable_statuses, codec_client_type, method,
        }
        accept { response_buffer_size }
        refuse { send, service_name_matcher }
    });
    if !path.starts_with('/') {
        at.field("path").fault("does not begin with a slash");
    }
    let method = match method {
        0 | 1 => "GET",
        2 => "HEAD",
        3 => "POST",
        4 => "PUT",
        5 => "DELETE",
        7 => "OPTIONS",
        8 => "TRACE",
        9 => "PATCH",
        _ => {
            at.field("method").unsupported();
            "GET"
        }
    };
    if *codec_client_type == 2 {
        at.field("codec_client_type").unsupported();
    }
    Some(HttpProbe {
        host: host.as_str().into(),
        path: messages::header_value(&at.field("path"), path),
        method: method.into(),
        edits: messages::header_edits(&at.field("request_headers_to_add"), request_headers_to_add),
        removed: messages::header_names(
            &at.field("request_headers_to_remove"),
            request_headers_to_remove,
        ),
        is_http2: *codec_client_type == 1,
        expected: ranges(&at.field("expected_statuses"), expected_statuses),
        retriable: ranges(&at.field("retriable_statuses"), retriable_statuses),
        receive: payloads(&at.field("receive"), receive),
    })
}

fn ranges(at: &At<'_>, list: &[Int64Range]) -> Vec<(u16, u16)> {
    let ranges = list.iter().enumerate().filter_map(|(index, range)| {
        match (u16::try_from(range.start), u16::try_from(range.end)) {
            (Ok(start), Ok(end)) if (100..600).contains(&start) && start < end && end <= 600 => {
                Some((start, end))
            }
            _ => {
                at.nth(index).fault("is not a range of statuses from 100 to 599");
                None
            }
        }
    });
    ranges.collect()
}

fn payloads(at: &At<'_>, list: &[Payload]) -> Vec<Arc<[u8]>> {
    list.iter().enumerate().map(|(index, value)| payload(&at.nth(index), value)).collect()
}

fn payload(at: &At<'_>, value: &Payload) -> Arc<[u8]> {
    let bytes = match &value.payload {
        Some(PbPayload::Text(hex)) => decode_hex(hex),
        Some(PbPayload::Binary(bytes)) => Some(bytes.clone()),
        None => None,
    };
    match bytes {
        Some(bytes) if !bytes.is_empty() && bytes.len() <= RECEIVE_BYTES_MAX => bytes.into(),
        _ => {
            at.fault(format!("is not 1 to {RECEIVE_BYTES_MAX} bytes, in hexadecimal as a text"));
            Arc::default()
        }
    }
}

fn decode_hex(text: &str) -> Option<Vec<u8>> {
    let digit = |byte: u8| char::from(byte).to_digit(16).map(|digit| digit as u8);
    let pairs = text.as_bytes().chunks(2);
    pairs.map(|pair| Some(digit(*pair.first()?)? << 4 | digit(*pair.get(1)?)?)).collect()
}

/// What an endpoint says of how it is asked for its health.
pub(super) fn probe_address(
    at: &At<'_>,
    config: Option<&envoy_types::pb::envoy::config::endpoint::v3::endpoint::HealthCheckConfig>,
) -> crate::ProbeAddress {
    use envoy_types::pb::envoy::config::endpoint::v3::endpoint::HealthCheckConfig;
    let Some(config) = config else { return crate::ProbeAddress::default() };
    fields!(at, config => HealthCheckConfig {
        use { port_value, hostname, address, disable_active_health_check }
        accept {}
        refuse {}
    });
    let address = address.as_ref().and_then(|address| {
        match messages::address(&at.field("address"), Some(address))? {
            crate::Address::Socket(address) => Some(address),
            crate::Address::Pipe(_) | crate::Address::Internal(_) => {
                refuse(&at.field("address"), "pipe", &true);
                None
            }
        }
    });
    crate::ProbeAddress {
        address,
        port: u16::try_from(*port_value).unwrap_or_else(|_| {
            at.field("port_value").fault("is not a port number");
            0
        }),
        hostname: hostname.as_str().into(),
        is_disabled: *disable_active_health_check,
    }
}
