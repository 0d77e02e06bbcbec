//! Route tables.

use std::time::Duration;

use envoy_types::pb::envoy::{
    config::{
        core::v3::{HeaderValue, HeaderValueOption, header_value_option::HeaderAppendAction},
        route::v3::{
            Decorator, DirectResponseAction, HeaderMatcher, QueryParameterMatcher, RedirectAction,
            RetryPolicy, Route, RouteAction as EnvoyAction, RouteConfiguration, RouteMatch,
            VirtualHost, WeightedCluster,
            header_matcher::HeaderMatchSpecifier,
            query_parameter_matcher::QueryParameterMatchSpecifier,
            redirect_action::{PathRewriteSpecifier, RedirectResponseCode, SchemeRewriteSpecifier},
            retry_policy::{
                RetryBackOff, RetryHostPredicate, RetryPriority, retry_host_predicate,
                retry_priority,
            },
            route::Action,
            route_action::{
                ClusterNotFoundResponseCode, ClusterSpecifier, HostRewriteSpecifier,
                MaxStreamDuration,
            },
            route_match::PathSpecifier,
            virtual_host::TlsRequirementType,
            weighted_cluster::{ClusterWeight, cluster_weight},
        },
    },
    extensions::retry::{
        host::previous_hosts::v3::PreviousHostsPredicate,
        priority::previous_priorities::v3::PreviousPrioritiesConfig,
    },
    r#type::matcher::v3::{MetadataMatcher, RegexMatchAndSubstitute},
};
use sluis_envoy::pack;

use super::{
    authorization,
    matcher::{regex, string},
    route_policy, wrap,
};
use crate::{
    ClaimMatch, Forward, HeaderEdits, HeaderMatch, OutboundPolicy, PathMatch, Redirect,
    RequestMatch, Retries, RouteAction, RouteInput, RouteTable, Target, TextMatch,
    VirtualHostInput,
};

/// How often another endpoint is drawn when one that was tried is drawn again (Istio's figure).
const OTHER_HOST_TRIES: i64 = 5;

/// The longest body of a direct response, as Istio allows it; Envoy's own limit is 4 KiB.
const DIRECT_BODY_MAX: u32 = 1 << 20;

/// What a sidecar answers for a host outside of the registry.
const BLOCKED_STATUS: u32 = 502;

/// The cluster that resolves whatever host is asked for, and the virtual host that leads there.
const ANY_NAME: &str = "AllowAnyDynamicDNSCluster";
const ANY_NAME_HOST: &str = "allow_any_dynamic_dns";

/// The name of the cluster that passes connections on as they are.
pub(crate) const PASSTHROUGH: &str = "PassthroughCluster";

/// One route table.
pub(crate) fn table(input: &RouteTable) -> RouteConfiguration {
    let mut virtual_hosts: Vec<VirtualHost> = input.hosts.iter().map(virtual_host).collect();
    virtual_hosts.extend(input.fallback.as_ref().map(catch_all));
    RouteConfiguration { name: input.name.clone(), virtual_hosts, ..frame(input) }
}

/// What a table says for all its hosts. In the encoding it stands behind them.
pub(crate) fn frame(input: &RouteTable) -> RouteConfiguration {
    RouteConfiguration {
        validate_clusters: wrap::boolean(false),
        max_direct_response_body_size_bytes: wrap::number(DIRECT_BODY_MAX),
        ignore_port_in_host_matching: !input.is_port_matched,
        ..RouteConfiguration::default()
    }
}

pub(crate) fn virtual_host(input: &VirtualHostInput) -> VirtualHost {
    let tls =
        if input.is_tls_required { TlsRequirementType::All } else { TlsRequirementType::None };
    VirtualHost {
        name: input.name.clone(),
        domains: input.domains.clone(),
        routes: input.routes.iter().map(route).collect(),
        require_tls: tls.into(),
        include_request_attempt_count: true,
        ..VirtualHost::default()
    }
}

/// A table with nothing but the virtual host for all hosts, under its name.
pub(crate) fn catch_all_table(policy: &OutboundPolicy) -> RouteConfiguration {
    let host = catch_all(policy);
    RouteConfiguration {
        name: host.name.clone(),
        virtual_hosts: vec![host],
        validate_clusters: wrap::boolean(false),
        max_direct_response_body_size_bytes: wrap::number(DIRECT_BODY_MAX),
        ignore_port_in_host_matching: true,
        ..RouteConfiguration::default()
    }
}

/// The virtual host for all other hosts: Istio's `block_all` and `allow_any`.
pub(crate) fn catch_all(policy: &OutboundPolicy) -> VirtualHost {
    let pass = |cluster: &str| {
        Action::Route(EnvoyAction {
            timeout: Some(wrap::duration(Duration::ZERO)),
            max_stream_duration: Some(clients_limit()),
            cluster_specifier: Some(ClusterSpecifier::Cluster(cluster.to_owned())),
            ..EnvoyAction::default()
        })
    };
    let (name, action) = match policy {
        OutboundPolicy::RegistryOnly => {
            let refuse =
                DirectResponseAction { status: BLOCKED_STATUS, ..DirectResponseAction::default() };
            ("block_all", Action::DirectResponse(refuse))
        }
        OutboundPolicy::AllowAny => ("allow_any", pass(PASSTHROUGH)),
        OutboundPolicy::Proxy(cluster) => ("allow_any", pass(cluster)),
        OutboundPolicy::AllowAnyDynamicDns => (ANY_NAME_HOST, pass(ANY_NAME)),
    };
    let matches = RouteMatch {
        path_specifier: Some(PathSpecifier::Prefix("/".to_owned())),
        ..RouteMatch::default()
    };
    VirtualHost {
        name: name.to_owned(),
        domains: vec!["*".to_owned()],
        routes: vec![Route {
            name: name.to_owned(),
            r#match: Some(matches),
            action: Some(action),
            ..Route::default()
        }],
        include_request_attempt_count: true,
        ..VirtualHost::default()
    }
}

fn route(input: &RouteInput) -> Route {
    let mut lone = None;
    let action = match &input.action {
        RouteAction::Forward(forward) => {
            lone = lone_target(forward);
            Action::Route(forward_action(forward))
        }
        RouteAction::Redirect(redirect) => Action::Redirect(redirect_action(redirect)),
        RouteAction::Respond { status, body } => Action::DirectResponse(DirectResponseAction {
            status: *status,
            body: body.as_deref().map(wrap::bytes),
            ..DirectResponseAction::default()
        }),
    };
    // The changes of a lone target come behind those of the route, as in Istio.
    let all = || std::iter::once(&input.headers).chain(lone.map(|target| &target.headers));
    Route {
        name: input.name.clone(),
        r#match: Some(request_match(&input.matches)),
        metadata: wrap::metadata(input.config.as_deref()),
        decorator: Some(Decorator { operation: input.operation.clone(), ..Decorator::default() }),
        typed_per_filter_config: route_policy::per_filter(input),
        request_headers_to_add: all().flat_map(|changes| added(&changes.request)).collect(),
        request_headers_to_remove: all().flat_map(|changes| removed(&changes.request)).collect(),
        response_headers_to_add: all().flat_map(|changes| added(&changes.response)).collect(),
        response_headers_to_remove: all().flat_map(|changes| removed(&changes.response)).collect(),
        stat_prefix: input.stat_prefix.clone().unwrap_or_default(),
        action: Some(action),
        ..Route::default()
    }
}

fn lone_target(forward: &Forward) -> Option<&Target> {
    match forward.targets.as_slice() {
        [target] => Some(target),
        _ => None,
    }
}

fn request_match(input: &RequestMatch) -> RouteMatch {
    RouteMatch {
        case_sensitive: if input.is_case_ignored { wrap::boolean(false) } else { wrap::yes() },
        headers: input.headers.iter().map(header).collect(),
        query_parameters: input.query.iter().map(query).collect(),
        dynamic_metadata: input.claims.iter().map(claim).collect(),
        path_specifier: Some(match &input.path {
            PathMatch::Exact(path) => PathSpecifier::Path(path.clone()),
            PathMatch::Prefix(prefix) => PathSpecifier::Prefix(prefix.clone()),
            PathMatch::Segments(prefix) => PathSpecifier::PathSeparatedPrefix(prefix.clone()),
            PathMatch::Regex(pattern) => PathSpecifier::SafeRegex(regex(pattern)),
        }),
        ..RouteMatch::default()
    }
}

/// As in Istio: the text itself, or one in a list.
fn claim(input: &ClaimMatch) -> MetadataMatcher {
    let matcher = match string(&input.value) {
        None => authorization::anything(),
        Some(matcher) => matcher,
    };
    MetadataMatcher {
        invert: input.is_inverted,
        ..authorization::listed_claim(&input.path, &[matcher])
    }
}

fn header(input: &HeaderMatch) -> HeaderMatcher {
    HeaderMatcher {
        name: input.name.clone(),
        invert_match: input.is_inverted,
        // A header that is not there is none that a request must do without.
        treat_missing_header_as_empty: input.is_inverted && input.value != TextMatch::Present,
        header_match_specifier: Some(match string(&input.value) {
            None => HeaderMatchSpecifier::PresentMatch(true),
            Some(matcher) => HeaderMatchSpecifier::StringMatch(matcher),
        }),
    }
}

fn query((name, value): &(String, TextMatch)) -> QueryParameterMatcher {
    QueryParameterMatcher {
        name: name.clone(),
        query_parameter_match_specifier: Some(match string(value) {
            None => QueryParameterMatchSpecifier::PresentMatch(true),
            Some(matcher) => QueryParameterMatchSpecifier::StringMatch(matcher),
        }),
    }
}

fn forward_action(input: &Forward) -> EnvoyAction {
    let host = input.host_rewrite.as_ref();
    let host = host.or_else(|| lone_target(input)?.host_rewrite.as_ref());
    let not_found = match input.is_missing_internal {
        true => ClusterNotFoundResponseCode::InternalServerError,
        false => ClusterNotFoundResponseCode::ServiceUnavailable,
    };
    EnvoyAction {
        cluster_not_found_response_code: not_found.into(),
        // Zero turns Envoy's own limit of 15 s off; Istio has none unless it is asked for.
        timeout: Some(wrap::duration(input.timeout.unwrap_or_default())),
        max_stream_duration: input.timeout.is_none().then(clients_limit),
        retry_policy: input.retries.as_ref().map(retry_policy),
        cluster_specifier: Some(clusters(&input.targets)),
        host_rewrite_specifier: host.cloned().map(HostRewriteSpecifier::HostRewriteLiteral),
        regex_rewrite: input
            .regex_rewrite
            .as_ref()
            .map(|(pattern, substitution)| substitute(pattern, substitution)),
        prefix_rewrite: input.path_rewrite.clone().unwrap_or_default(),
        request_mirror_policies: input.mirrors.iter().map(route_policy::mirror).collect(),
        hash_policy: input.hashes.iter().map(route_policy::hash).collect(),
        ..EnvoyAction::default()
    }
}

/// Without a limit of its own a route obeys the one that a gRPC client asks for. Istio says so by a
/// field that Envoy has deprecated since; this is the one that took its place.
fn clients_limit() -> MaxStreamDuration {
    MaxStreamDuration {
        grpc_timeout_header_max: Some(wrap::duration(Duration::ZERO)),
        ..MaxStreamDuration::default()
    }
}

fn substitute(pattern: &str, substitution: &str) -> RegexMatchAndSubstitute {
    RegexMatchAndSubstitute { pattern: Some(regex(pattern)), substitution: substitution.to_owned() }
}

fn clusters(targets: &[Target]) -> ClusterSpecifier {
    if let [target] = targets {
        return ClusterSpecifier::Cluster(target.cluster.clone());
    }
    let weighted = |target: &Target| ClusterWeight {
        name: target.cluster.clone(),
        weight: wrap::number(target.weight),
        request_headers_to_add: added(&target.headers.request),
        request_headers_to_remove: target.headers.request.remove.clone(),
        response_headers_to_add: added(&target.headers.response),
        response_headers_to_remove: target.headers.response.remove.clone(),
        host_rewrite_specifier: target
            .host_rewrite
            .clone()
            .map(cluster_weight::HostRewriteSpecifier::HostRewriteLiteral),
        ..ClusterWeight::default()
    };
    ClusterSpecifier::WeightedClusters(WeightedCluster {
        clusters: targets.iter().map(weighted).collect(),
        ..WeightedCluster::default()
    })
}

fn retry_policy(input: &Retries) -> RetryPolicy {
    let previous_hosts = RetryHostPredicate {
        name: "envoy.retry_host_predicates.previous_hosts".to_owned(),
        config_type: Some(retry_host_predicate::ConfigType::TypedConfig(pack(
            &PreviousHostsPredicate {},
        ))),
    };
    RetryPolicy {
        retry_on: input.on.clone(),
        num_retries: wrap::number(input.attempts),
        per_try_timeout: input.per_try_timeout.map(wrap::duration),
        retry_host_predicate: input.avoids_tried.then_some(previous_hosts).into_iter().collect(),
        host_selection_retry_max_attempts: OTHER_HOST_TRIES,
        retry_priority: input.avoids_localities.then(previous_priorities),
        retry_back_off: input.backoff.map(|base| RetryBackOff {
            base_interval: Some(wrap::duration(base)),
            ..RetryBackOff::default()
        }),
        retriable_status_codes: input.status_codes.clone(),
        ..RetryPolicy::default()
    }
}

fn previous_priorities() -> RetryPriority {
    // One try in a priority is enough to pass it over, as in Istio.
    let config = PreviousPrioritiesConfig { update_frequency: 2 };
    RetryPriority {
        name: "envoy.retry_priorities.previous_priorities".to_owned(),
        config_type: Some(retry_priority::ConfigType::TypedConfig(pack(&config))),
    }
}

fn redirect_action(input: &Redirect) -> RedirectAction {
    let code = match input.status {
        302 => RedirectResponseCode::Found,
        303 => RedirectResponseCode::SeeOther,
        307 => RedirectResponseCode::TemporaryRedirect,
        308 => RedirectResponseCode::PermanentRedirect,
        _ => RedirectResponseCode::MovedPermanently,
    };
    let path = input.path.clone().map(PathRewriteSpecifier::PathRedirect);
    let prefix = input.prefix.clone().map(PathRewriteSpecifier::PrefixRewrite);
    RedirectAction {
        host_redirect: input.host.clone().unwrap_or_default(),
        port_redirect: input.port.map_or(0, u32::from),
        response_code: code.into(),
        scheme_rewrite_specifier: input.scheme.clone().map(SchemeRewriteSpecifier::SchemeRedirect),
        path_rewrite_specifier: path.or(prefix),
        ..RedirectAction::default()
    }
}

fn removed(edits: &HeaderEdits) -> Vec<String> {
    edits.remove.clone()
}

fn added(edits: &HeaderEdits) -> Vec<HeaderValueOption> {
    let option = |action: HeaderAppendAction| {
        move |(key, value): &(String, String)| HeaderValueOption {
            header: Some(HeaderValue {
                key: key.clone(),
                value: value.clone(),
                ..HeaderValue::default()
            }),
            append_action: action.into(),
            ..HeaderValueOption::default()
        }
    };
    let set = edits.set.iter().map(option(HeaderAppendAction::OverwriteIfExistsOrAdd));
    let add = edits.add.iter().map(option(HeaderAppendAction::AppendIfExistsOrAdd));
    set.chain(add).collect()
}
