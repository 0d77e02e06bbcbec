//! What is done with a request.

#![expect(deprecated, reason = "deprecated fields must be looked at to be refused or understood")]

use std::{sync::Arc, time::Duration};

use envoy_types::pb::envoy::config::{
    core::v3::{DataSource, data_source::Specifier},
    route::v3::{
        DirectResponseAction, RedirectAction, RetryPolicy as PbRetry, RouteAction as PbAction,
        WeightedCluster as PbWeighted,
        redirect_action::{PathRewriteSpecifier, RedirectResponseCode, SchemeRewriteSpecifier},
        retry_policy::{RetryBackOff, RetryHostPredicate},
        route::Action,
        route_action::{
            ClusterNotFoundResponseCode, ClusterSpecifier, HashPolicy as PbHash,
            HostRewriteSpecifier, MaxStreamDuration, UpgradeConfig, hash_policy::PolicySpecifier,
        },
        weighted_cluster::{ClusterWeight, cluster_weight},
    },
};
use envoy_types::pb::google::protobuf::Duration as PbDuration;

use super::{matches, mutations};
use crate::{
    Backoff, DirectResponse, Forward, HashPolicy, HostRewrite, PathRedirect, PathRewrite, Redirect,
    RetryPolicy, RouteAction, Target, WeightedCluster, WeightedClusters,
    compile::{
        at::{At, fields},
        messages,
    },
};

const TIMEOUT: Duration = Duration::from_secs(15);
const RETRY_BACKOFF: Duration = Duration::from_millis(25);

/// The longest wait is this many first waits where it is not set.
const RETRY_BACKOFF_FACTOR: u32 = 10;

const PREVIOUS_HOSTS: &str = "envoy.retry_host_predicates.previous_hosts";

/// Conditions to try again that the proxy can see.
const RETRY_ON: [&str; 16] = [
    "5xx",
    "gateway-error",
    "reset",
    "reset-before-request",
    "connect-failure",
    "refused-stream",
    "retriable-4xx",
    "retriable-status-codes",
    "retriable-headers",
    "envoy-ratelimited",
    "http3-post-connect-failure",
    "cancelled",
    "deadline-exceeded",
    "internal",
    "resource-exhausted",
    "unavailable",
];

pub(super) fn action(at: &At<'_>, action: Option<&Action>) -> Option<RouteAction> {
    match action {
        Some(Action::Route(action)) => forward(&at.field("route"), action)
            .map(|forward| RouteAction::Forward(Box::new(forward))),
        Some(Action::Redirect(action)) => redirect(&at.field("redirect"), action)
            .map(|redirect| RouteAction::Redirect(Box::new(redirect))),
        Some(Action::DirectResponse(action)) => {
            direct(&at.field("direct_response"), action).map(RouteAction::Direct)
        }
        Some(Action::FilterAction(_)) => {
            at.field("filter_action").unsupported();
            None
        }
        Some(Action::NonForwardingAction(_)) => {
            at.field("non_forwarding_action").unsupported();
            None
        }
        None => {
            at.fault("has no action");
            None
        }
    }
}

fn forward(at: &At<'_>, action: &PbAction) -> Option<Forward> {
    fields!(at, action => PbAction {
        use {
            cluster_not_found_response_code, prefix_rewrite, regex_rewrite, append_x_forwarded_host,
            timeout, idle_timeout, retry_policy, hash_policy, upgrade_configs, max_stream_duration,
            cluster_specifier, host_rewrite_specifier, max_grpc_timeout, grpc_timeout_offset,
        }
        accept {}
        refuse {
            metadata_match, path_rewrite_policy, path_rewrite, flush_timeout, early_data_policy,
            retry_policy_typed_config, request_mirror_policies, priority, rate_limits,
            include_vh_rate_limits, cors, internal_redirect_policy, internal_redirect_action,
            max_internal_redirects, hedge_policy,
        }
    });
    no_bound(&at.field("max_grpc_timeout"), max_grpc_timeout.as_ref());
    no_bound(&at.field("grpc_timeout_offset"), grpc_timeout_offset.as_ref());
    let target = target(at, cluster_specifier.as_ref());
    let path = path_rewrite_of(at, prefix_rewrite, regex_rewrite.as_ref());
    let host = host_rewrite(at, host_rewrite_specifier.as_ref());
    let not_found = match ClusterNotFoundResponseCode::try_from(*cluster_not_found_response_code) {
        Ok(ClusterNotFoundResponseCode::NotFound) => 404,
        Ok(ClusterNotFoundResponseCode::InternalServerError) => 500,
        Ok(ClusterNotFoundResponseCode::ServiceUnavailable) | Err(_) => 503,
    };
    // Read so that mistakes are found. As in Envoy it matters only to clusters that choose by hash,
    // and those are refused.
    let hashes = at.field("hash_policy");
    let hash =
        hash_policy.iter().enumerate().filter_map(|(index, value)| hash(&hashes.nth(index), value));
    let hash = hash.collect();
    Some(Forward {
        target: target?,
        cluster_not_found: not_found,
        timeout: messages::limit(&at.field("timeout"), timeout.as_ref(), Some(TIMEOUT)),
        idle_timeout: messages::duration(&at.field("idle_timeout"), idle_timeout.as_ref()),
        max_stream_duration: stream_duration(at, max_stream_duration.as_ref()),
        path: path?,
        host: host?,
        append_x_forwarded_host: *append_x_forwarded_host,
        retry: retry(&at.field("retry_policy"), retry_policy.as_ref()),
        hash,
        upgrades: upgrades(at, upgrade_configs),
    })
}

/// Bounds on the timeout that a gRPC client may ask for by header. We take no timeout from clients;
/// zero, which Istio writes into every route, bounds nothing, and any other value would be a limit
/// that is not kept.
fn no_bound(at: &At<'_>, bound: Option<&PbDuration>) {
    if messages::duration(at, bound).is_some_and(|bound| !bound.is_zero()) {
        at.unsupported();
    }
}

fn target(at: &At<'_>, specifier: Option<&ClusterSpecifier>) -> Option<Target> {
    match specifier {
        Some(ClusterSpecifier::Cluster(name)) if !name.is_empty() => {
            Some(Target::Cluster(name.as_str().into()))
        }
        Some(ClusterSpecifier::ClusterHeader(name)) => {
            Some(Target::Header(messages::header_name(&at.field("cluster_header"), name)))
        }
        Some(ClusterSpecifier::WeightedClusters(clusters)) => {
            weighted(&at.field("weighted_clusters"), clusters).map(Target::Weighted)
        }
        Some(
            ClusterSpecifier::ClusterSpecifierPlugin(_)
            | ClusterSpecifier::InlineClusterSpecifierPlugin(_),
        ) => {
            at.field("cluster_specifier_plugin").unsupported();
            None
        }
        _ => {
            at.field("cluster").fault("is missing");
            None
        }
    }
}

fn weighted(at: &At<'_>, weighted: &PbWeighted) -> Option<WeightedClusters> {
    fields!(at, weighted => PbWeighted {
        use { clusters, total_weight }
        // There is no runtime that could change the weights.
        accept { runtime_key_prefix }
        refuse { random_value_specifier }
    });
    let list = at.field("clusters");
    let compiled = clusters.iter().enumerate().map(|(index, cluster)| {
        let at = list.nth(index);
        fields!(&at, cluster => ClusterWeight {
            use {
                name, weight, request_headers_to_add, request_headers_to_remove,
                response_headers_to_add, response_headers_to_remove, host_rewrite_specifier,
            }
            accept {}
            refuse { cluster_header, metadata_match, typed_per_filter_config }
        });
        if name.is_empty() {
            at.field("name").fault("is missing");
        }
        WeightedCluster {
            name: name.as_str().into(),
            weight: messages::number(weight.as_ref()).unwrap_or(0),
            mutations: mutations(
                &at,
                request_headers_to_add,
                request_headers_to_remove,
                response_headers_to_add,
                response_headers_to_remove,
            ),
            host: host_rewrite_specifier.as_ref().map(|rewrite| {
                let cluster_weight::HostRewriteSpecifier::HostRewriteLiteral(host) = rewrite;
                messages::header_value(&at.field("host_rewrite_literal"), host)
            }),
        }
    });
    let compiled: Vec<_> = compiled.collect();
    let sum: u64 = compiled.iter().map(|cluster| u64::from(cluster.weight)).sum();
    if total_weight.as_ref().is_some_and(|total| u64::from(total.value) != sum) {
        at.field("total_weight").fault("is not the sum of the weights");
    }
    let clusters = WeightedClusters::new(compiled);
    if clusters.is_none() {
        list.fault("has weights that add up to nothing or to too much");
    }
    clusters
}

fn path_rewrite_of(
    at: &At<'_>,
    prefix: &str,
    regex: Option<&envoy_types::pb::envoy::r#type::matcher::v3::RegexMatchAndSubstitute>,
) -> Option<PathRewrite> {
    match (prefix, regex) {
        ("", None) => Some(PathRewrite::Keep),
        (prefix, None) => {
            Some(PathRewrite::Prefix(messages::header_value(&at.field("prefix_rewrite"), prefix)))
        }
        ("", Some(regex)) => {
            let (pattern, by) = messages::rewrite(&at.field("regex_rewrite"), regex)?;
            Some(PathRewrite::Regex(pattern, by))
        }
        (_, Some(_)) => {
            at.field("regex_rewrite").fault("does not go with prefix_rewrite");
            None
        }
    }
}

fn host_rewrite(at: &At<'_>, specifier: Option<&HostRewriteSpecifier>) -> Option<HostRewrite> {
    Some(match specifier {
        None => HostRewrite::Keep,
        Some(HostRewriteSpecifier::HostRewriteLiteral(host)) => {
            HostRewrite::To(messages::header_value(&at.field("host_rewrite_literal"), host))
        }
        Some(HostRewriteSpecifier::AutoHostRewrite(on)) => {
            if on.value {
                HostRewrite::Endpoint
            } else {
                HostRewrite::Keep
            }
        }
        Some(HostRewriteSpecifier::HostRewriteHeader(name)) => {
            HostRewrite::Header(messages::header_name(&at.field("host_rewrite_header"), name))
        }
        Some(HostRewriteSpecifier::HostRewritePathRegex(regex)) => {
            let (pattern, by) = messages::rewrite(&at.field("host_rewrite_path_regex"), regex)?;
            HostRewrite::Path(pattern, by)
        }
        Some(HostRewriteSpecifier::HostRewrite(_)) => {
            at.field("host_rewrite").unsupported();
            return None;
        }
    })
}

fn hash(at: &At<'_>, policy: &PbHash) -> Option<HashPolicy> {
    match policy.policy_specifier.as_ref() {
        Some(PolicySpecifier::Header(header)) if header.regex_rewrite.is_none() => {
            Some(HashPolicy::Header(messages::header_name(at, &header.header_name)))
        }
        Some(PolicySpecifier::ConnectionProperties(properties)) if properties.source_ip => {
            Some(HashPolicy::SourceIp)
        }
        Some(PolicySpecifier::QueryParameter(query)) => {
            Some(HashPolicy::Query(query.name.as_str().into()))
        }
        _ => {
            at.unsupported();
            None
        }
    }
}

fn stream_duration(at: &At<'_>, value: Option<&MaxStreamDuration>) -> Option<Duration> {
    let value = value?;
    let at = at.field("max_stream_duration");
    fields!(&at, value => MaxStreamDuration {
        use { max_stream_duration, grpc_timeout_header_max, grpc_timeout_header_offset }
        accept {}
        refuse {}
    });
    no_bound(&at.field("grpc_timeout_header_max"), grpc_timeout_header_max.as_ref());
    no_bound(&at.field("grpc_timeout_header_offset"), grpc_timeout_header_offset.as_ref());
    messages::duration(&at.field("max_stream_duration"), max_stream_duration.as_ref())
}

fn upgrades(at: &At<'_>, configs: &[UpgradeConfig]) -> Vec<(Arc<str>, bool)> {
    let at = at.field("upgrade_configs");
    let upgrades = configs.iter().enumerate().map(|(index, config)| {
        fields!(&at.nth(index), config => UpgradeConfig {
            use { upgrade_type, enabled }
            accept {}
            refuse { connect_config }
        });
        (upgrade_type.to_ascii_lowercase().into(), messages::flag(enabled.as_ref(), true))
    });
    upgrades.collect()
}

pub(super) fn retry(at: &At<'_>, policy: Option<&PbRetry>) -> Option<Arc<RetryPolicy>> {
    let policy = policy?;
    fields!(at, policy => PbRetry {
        use {
            retry_on, num_retries, per_try_timeout, retry_host_predicate,
            host_selection_retry_max_attempts, retriable_status_codes, retry_back_off,
            retriable_headers, retriable_request_headers,
        }
        accept {}
        refuse {
            per_try_idle_timeout, retry_priority, retry_options_predicates,
            rate_limited_retry_back_off, refresh_cluster_on_retry,
        }
    });
    let mut on: Vec<Arc<str>> = Vec::new();
    for condition in retry_on.split(',').map(str::trim).filter(|condition| !condition.is_empty()) {
        if !RETRY_ON.contains(&condition) {
            at.field("retry_on").fault(format!("{condition:?} is not supported"));
        }
        on.push(condition.into());
    }
    let hosts = at.field("retry_host_predicate");
    for (index, RetryHostPredicate { name, config_type: _ }) in
        retry_host_predicate.iter().enumerate()
    {
        if name != PREVIOUS_HOSTS {
            hosts.nth(index).fault(format!("{name:?} is not supported"));
        }
    }
    let status = |(index, status): (usize, &u32)| match u16::try_from(*status) {
        Ok(status @ 100..=599) => Some(status),
        _ => {
            at.field("retriable_status_codes").nth(index).fault("is not a status");
            None
        }
    };
    Some(Arc::new(RetryPolicy {
        on,
        retries: messages::number(num_retries.as_ref()).unwrap_or(1),
        per_try_timeout: messages::limit(
            &at.field("per_try_timeout"),
            per_try_timeout.as_ref(),
            None,
        ),
        statuses: retriable_status_codes.iter().enumerate().filter_map(status).collect(),
        backoff: backoff(&at.field("retry_back_off"), retry_back_off.as_ref()),
        host_attempts: if retry_host_predicate.is_empty() {
            0
        } else {
            u32::try_from(*host_selection_retry_max_attempts).unwrap_or(0).max(1)
        },
        response_headers: matches::headers_of(&at.field("retriable_headers"), retriable_headers),
        request_headers: matches::headers_of(
            &at.field("retriable_request_headers"),
            retriable_request_headers,
        ),
    }))
}

fn backoff(at: &At<'_>, value: Option<&RetryBackOff>) -> Backoff {
    let interval = |field: &str, value| {
        messages::duration(&at.field(field), value).filter(|interval| !interval.is_zero())
    };
    let base = value
        .and_then(|value| interval("base_interval", value.base_interval.as_ref()))
        .unwrap_or(RETRY_BACKOFF);
    let max = value
        .and_then(|value| interval("max_interval", value.max_interval.as_ref()))
        .unwrap_or_else(|| base.saturating_mul(RETRY_BACKOFF_FACTOR));
    if max < base {
        at.field("max_interval").fault("is shorter than base_interval");
    }
    Backoff { base, max }
}

fn redirect(at: &At<'_>, action: &RedirectAction) -> Option<Redirect> {
    fields!(at, action => RedirectAction {
        use {
            host_redirect, port_redirect, response_code, strip_query, scheme_rewrite_specifier,
            path_rewrite_specifier,
        }
        accept {}
        refuse {}
    });
    let scheme = match scheme_rewrite_specifier {
        Some(SchemeRewriteSpecifier::HttpsRedirect(true)) => Some("https".into()),
        Some(SchemeRewriteSpecifier::SchemeRedirect(scheme)) => {
            Some(messages::header_value(&at.field("scheme_redirect"), scheme))
        }
        Some(SchemeRewriteSpecifier::HttpsRedirect(false)) | None => None,
    };
    let path = match path_rewrite_specifier {
        None => PathRedirect::Keep,
        Some(PathRewriteSpecifier::PathRedirect(path)) => {
            PathRedirect::To(messages::header_value(&at.field("path_redirect"), path))
        }
        Some(PathRewriteSpecifier::PrefixRewrite(prefix)) => {
            PathRedirect::Rewrite(path_rewrite_of(at, prefix, None)?)
        }
        Some(PathRewriteSpecifier::RegexRewrite(regex)) => {
            PathRedirect::Rewrite(path_rewrite_of(at, "", Some(regex))?)
        }
        Some(PathRewriteSpecifier::PathRewrite(_)) => {
            at.field("path_rewrite").unsupported();
            return None;
        }
    };
    let status = match RedirectResponseCode::try_from(*response_code) {
        Ok(RedirectResponseCode::MovedPermanently) => 301,
        Ok(RedirectResponseCode::Found) => 302,
        Ok(RedirectResponseCode::SeeOther) => 303,
        Ok(RedirectResponseCode::TemporaryRedirect) => 307,
        Ok(RedirectResponseCode::PermanentRedirect) => 308,
        Err(_) => {
            at.field("response_code").unsupported();
            return None;
        }
    };
    let Ok(port) = u16::try_from(*port_redirect) else {
        at.field("port_redirect").fault("is not a port number");
        return None;
    };
    Some(Redirect {
        scheme,
        host: (!host_redirect.is_empty())
            .then(|| messages::header_value(&at.field("host_redirect"), host_redirect)),
        port: (port != 0).then_some(port),
        path,
        strip_query: *strip_query,
        status,
    })
}

fn direct(at: &At<'_>, action: &DirectResponseAction) -> Option<DirectResponse> {
    fields!(at, action => DirectResponseAction {
        use { status, body }
        accept {}
        refuse { body_format }
    });
    let Some(status) = u16::try_from(*status).ok().filter(|status| (200..600).contains(status))
    else {
        at.field("status").fault("is not between 200 and 599");
        return None;
    };
    let body: Arc<[u8]> = match body.as_ref() {
        None => Arc::default(),
        Some(DataSource { specifier: Some(Specifier::InlineString(text)), .. }) => {
            text.as_bytes().into()
        }
        Some(DataSource { specifier: Some(Specifier::InlineBytes(bytes)), .. }) => {
            bytes.as_slice().into()
        }
        Some(_) => {
            at.field("body").fault("is not inline");
            return None;
        }
    };
    Some(DirectResponse { status, body })
}
