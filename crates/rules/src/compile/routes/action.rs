//! What is done with a request.

#![expect(deprecated, reason = "deprecated fields must be looked at to be refused or understood")]

use std::{sync::Arc, time::Duration};

use envoy_types::pb::envoy::config::{
    core::v3::{DataSource, data_source::Specifier},
    route::v3::{
        DirectResponseAction, HedgePolicy, RedirectAction, RouteAction as PbAction,
        WeightedCluster as PbWeighted,
        redirect_action::{PathRewriteSpecifier, RedirectResponseCode, SchemeRewriteSpecifier},
        route::Action,
        route_action::{
            ClusterNotFoundResponseCode, ClusterSpecifier, HostRewriteSpecifier, MaxStreamDuration,
            RequestMirrorPolicy, UpgradeConfig, upgrade_config::ConnectConfig,
        },
        weighted_cluster::{ClusterWeight, cluster_weight},
    },
};
use envoy_types::pb::google::protobuf::Duration as PbDuration;

use super::{hash, mutations, retry};
use crate::{
    DirectResponse, Forward, Fraction, GrpcTimeout, HostRewrite, Mirror, MirrorTarget,
    PathRedirect, PathRewrite, Redirect, RouteAction, RouteUpgrade, Target, WeightedCluster,
    WeightedClusters,
    compile::{
        at::{At, fields},
        filters, messages,
    },
};

const TIMEOUT: Duration = Duration::from_secs(15);
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
            timeout, idle_timeout, retry_policy, hash_policy, metadata_match, priority, upgrade_configs, max_stream_duration,
            cluster_specifier, host_rewrite_specifier, max_grpc_timeout, grpc_timeout_offset,
            request_mirror_policies, cors, hedge_policy,
        }
        accept {}
        refuse {
            path_rewrite_policy, path_rewrite, flush_timeout, early_data_policy,
            retry_policy_typed_config, rate_limits, include_vh_rate_limits,
            internal_redirect_policy, internal_redirect_action, max_internal_redirects,
        }
    });
    hedges(&at.field("hedge_policy"), hedge_policy.as_ref());
    let old_grpc = max_grpc_timeout.as_ref().map(|max| GrpcTimeout {
        max: messages::limit(&at.field("max_grpc_timeout"), Some(max), None),
        offset: messages::limit(
            &at.field("grpc_timeout_offset"),
            grpc_timeout_offset.as_ref(),
            None,
        ),
        is_of_stream: false,
    });
    let (life, new_grpc) = stream_duration(at, max_stream_duration.as_ref());
    let target = target(at, cluster_specifier.as_ref());
    let path = path_rewrite_of(at, prefix_rewrite, regex_rewrite.as_ref());
    let host = host_rewrite(at, host_rewrite_specifier.as_ref());
    let not_found = match ClusterNotFoundResponseCode::try_from(*cluster_not_found_response_code) {
        Ok(ClusterNotFoundResponseCode::NotFound) => 404,
        Ok(ClusterNotFoundResponseCode::InternalServerError) => 500,
        Ok(ClusterNotFoundResponseCode::ServiceUnavailable) | Err(_) => 503,
    };
    Some(Forward {
        target: target?,
        cluster_not_found: not_found,
        // As in Envoy: where the stream's life is bounded, the older timeouts do not count.
        timeout: messages::limit(&at.field("timeout"), timeout.as_ref(), Some(TIMEOUT))
            .filter(|_| max_stream_duration.is_none()),
        idle_timeout: messages::duration(&at.field("idle_timeout"), idle_timeout.as_ref()),
        max_stream_duration: life,
        path: path?,
        host: host?,
        append_x_forwarded_host: *append_x_forwarded_host,
        retry: retry::retry(&at.field("retry_policy"), retry_policy.as_ref()),
        is_high_priority: *priority == 1,
        labels: metadata_match
            .as_ref()
            .map(|all| crate::compile::balance::labels(all.filter_metadata.get("envoy.lb"))),
        hash: hash::policies(&at.field("hash_policy"), hash_policy),
        upgrades: upgrades(at, upgrade_configs),
        mirrors: mirrors(&at.field("request_mirror_policies"), request_mirror_policies),
        grpc_timeout: new_grpc.or(old_grpc.filter(|_| max_stream_duration.is_none())),
        cors: cors.as_ref().and_then(|cors| filters::cors(&at.field("cors"), cors)),
    })
}

/// Refuses to send a further try beside one that takes too long. Envoy has the policy's other
/// fields without carrying them out.
pub(super) fn hedges(at: &At<'_>, policy: Option<&HedgePolicy>) {
    if policy.is_some_and(|policy| policy.hedge_on_per_try_timeout) {
        at.field("hedge_on_per_try_timeout").unsupported();
    }
}

/// Clusters that get a copy; none said is `None`, so that the next less specific place counts.
pub(super) fn mirrors(at: &At<'_>, policies: &[RequestMirrorPolicy]) -> Option<Vec<Mirror>> {
    if policies.is_empty() {
        return None;
    }
    let mirrors = policies.iter().enumerate().filter_map(|(index, policy)| {
        let at = at.nth(index);
        fields!(&at, policy => RequestMirrorPolicy {
            use {
                cluster, cluster_header, runtime_fraction, disable_shadow_host_suffix_append,
                host_rewrite_literal,
            }
            // There is no tracing.
            accept { trace_sampled }
            refuse { request_headers_mutations }
        });
        let target = match (cluster.as_str(), cluster_header.as_str()) {
            ("", "") => {
                at.field("cluster").fault("is missing");
                return None;
            }
            ("", name) => {
                MirrorTarget::Header(messages::header_name(&at.field("cluster_header"), name))
            }
            (name, _) => MirrorTarget::Cluster(name.into()),
        };
        let share = |share| messages::runtime_fraction(&at.field("runtime_fraction"), share);
        // As in Envoy: a share of nothing without a runtime is every request.
        let fraction = runtime_fraction.as_ref().map(share);
        let host = (!host_rewrite_literal.is_empty()).then(|| {
            messages::header_value(&at.field("host_rewrite_literal"), host_rewrite_literal)
        });
        Some(Mirror {
            target,
            fraction: fraction.unwrap_or(Fraction::ALL),
            marks_host: !disable_shadow_host_suffix_append,
            host,
        })
    });
    Some(mirrors.collect())
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
                cluster_header,
            }
            accept {}
            refuse { metadata_match, typed_per_filter_config }
        });
        if name.is_empty() == cluster_header.is_empty() {
            at.field("name").fault("or cluster_header must be set, and not both");
        }
        WeightedCluster {
            name: name.as_str().into(),
            header: (!cluster_header.is_empty())
                .then(|| messages::header_name(&at.field("cluster_header"), cluster_header)),
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

/// The longest life of a stream, and how a gRPC client's timeout counts.
fn stream_duration(
    at: &At<'_>,
    value: Option<&MaxStreamDuration>,
) -> (Option<Duration>, Option<GrpcTimeout>) {
    let Some(value) = value else { return (None, None) };
    let at = at.field("max_stream_duration");
    fields!(&at, value => MaxStreamDuration {
        use { max_stream_duration, grpc_timeout_header_max, grpc_timeout_header_offset }
        accept {}
        refuse {}
    });
    let limit = |field, value: Option<&PbDuration>| messages::limit(&at.field(field), value, None);
    let grpc = grpc_timeout_header_max.as_ref().map(|max| GrpcTimeout {
        max: limit("grpc_timeout_header_max", Some(max)),
        offset: limit("grpc_timeout_header_offset", grpc_timeout_header_offset.as_ref()),
        is_of_stream: true,
    });
    (messages::duration(&at.field("max_stream_duration"), max_stream_duration.as_ref()), grpc)
}

fn upgrades(at: &At<'_>, configs: &[UpgradeConfig]) -> Vec<RouteUpgrade> {
    let at = at.field("upgrade_configs");
    let upgrades = configs.iter().enumerate().map(|(index, config)| {
        let at = at.nth(index);
        fields!(&at, config => UpgradeConfig {
            use { upgrade_type, enabled, connect_config }
            accept {}
            refuse {}
        });
        let kind = upgrade_type.to_ascii_lowercase();
        if let Some(connect) = connect_config {
            let at = at.field("connect_config");
            fields!(&at, connect => ConnectConfig {
                use {}
                accept {}
                refuse { proxy_protocol_config, allow_post }
            });
            if kind != "connect" {
                at.fault("goes with upgrade_type CONNECT only");
            }
        }
        RouteUpgrade {
            kind: kind.into(),
            enabled: messages::flag(enabled.as_ref(), true),
            terminates: connect_config.is_some(),
        }
    });
    upgrades.collect()
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
