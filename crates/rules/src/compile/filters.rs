//! HTTP filters but for Lua and the router, and what routes may say of filters.

use std::{collections::HashMap, sync::Arc};

use envoy_types::pb::{
    envoy::{
        config::{
            common::mutation_rules::v3::{
                HeaderMutation as PbStep, header_mutation::Action as PbAction,
            },
            route::v3::{CorsPolicy as PbCors, FilterConfig, cors_policy::EnabledSpecifier},
        },
        extensions::filters::{
            common::fault::v3::{FaultDelay as PbDelay, fault_delay::FaultDelaySecifier},
            http::{
                cors::v3::CorsPolicy as CorsPerRoute,
                fault::v3::{FaultAbort as PbAbort, HttpFault, fault_abort::ErrorType},
                header_mutation::v3::{HeaderMutation, HeaderMutationPerRoute, Mutations},
                health_check::v3::HealthCheck,
                local_ratelimit::v3::LocalRateLimit as PbRateLimit,
                lua::v3::{LuaPerRoute, lua_per_route::Override},
            },
        },
    },
    google::protobuf::Any,
};

use prost::Message;

use super::{
    at::{At, fields, message_of},
    ext_authz, jwt, messages, rbac,
    routes::matches,
    values,
};
use crate::{
    AlpnOverride, CorsPolicy, FaultAbort, FaultDelay, FaultFilter, FilterOverride, FilterSetting,
    Fraction, HealthCheckFilter, LocalRateLimit, LuaRoute, LuaScript, MutationFilter, MutationStep,
    TokenBucket,
};

/// Shortest time between fills, as in Envoy.
const FILL_INTERVAL_MIN: std::time::Duration = std::time::Duration::from_millis(50);

const TOO_MANY_REQUESTS: u16 = 429;

/// What a route, virtual host or table says of filters.
pub(super) fn overrides(at: &At<'_>, configs: &HashMap<String, Any>) -> Vec<FilterOverride> {
    let mut said: Vec<FilterOverride> = configs
        .iter()
        .filter_map(|(name, any)| {
            let setting = setting(&at.key(name), any, true)?;
            Some(FilterOverride { name: name.as_str().into(), setting })
        })
        .collect();
    said.sort_unstable_by(|a, b| a.name.cmp(&b.name));
    said
}

fn setting(at: &At<'_>, any: &Any, may_wrap: bool) -> Option<FilterSetting> {
    match message_of(any) {
        "envoy.config.route.v3.FilterConfig" if may_wrap => {
            let filter = at.unpack::<FilterConfig>(any)?;
            fields!(at, &filter => FilterConfig {
                use { disabled, config }
                accept { is_optional }
                refuse {}
            });
            match config {
                _ if *disabled => Some(FilterSetting::Disabled),
                None => Some(FilterSetting::Enabled),
                Some(any) if any.type_url.is_empty() => Some(FilterSetting::Enabled),
                Some(any) => setting(&at.field("config"), any, false),
            }
        }
        "envoy.extensions.filters.http.lua.v3.LuaPerRoute" => lua_of_route(at, any),
        "envoy.extensions.filters.http.cors.v3.CorsPolicy" => {
            let policy = at.unpack::<CorsPerRoute>(any)?;
            Some(FilterSetting::Cors(cors(at, &older(policy))?))
        }
        "envoy.config.route.v3.CorsPolicy" => {
            Some(FilterSetting::Cors(cors(at, &at.unpack(any)?)?))
        }
        "envoy.extensions.filters.http.fault.v3.HTTPFault" => {
            Some(FilterSetting::Fault(Arc::new(fault(at, any)?)))
        }
        "envoy.extensions.filters.http.local_ratelimit.v3.LocalRateLimit" => {
            let limit = rate_limit(at, any)?;
            if limit.bucket.is_none() {
                at.field("token_bucket").fault("is missing");
            }
            Some(FilterSetting::RateLimit(Arc::new(limit)))
        }
        "envoy.extensions.filters.http.header_mutation.v3.HeaderMutationPerRoute" => {
            let own = at.unpack::<HeaderMutationPerRoute>(any)?;
            let filter = mutations(&at.field("mutations"), own.mutations.as_ref());
            Some(FilterSetting::Mutation(Arc::new(filter)))
        }
        "envoy.extensions.filters.http.rbac.v3.RBACPerRoute" => {
            Some(FilterSetting::Rbac(Arc::new(rbac::per_route(at, any)?)))
        }
        "envoy.extensions.filters.http.ext_authz.v3.ExtAuthzPerRoute" => {
            ext_authz::per_route(at, any)
        }
        "envoy.extensions.filters.http.jwt_authn.v3.PerRouteConfig" => jwt::per_route(at, any),
        other => {
            at.fault(format!("{other} is not supported"));
            None
        }
    }
}

/// What a route says of a script.
fn lua_of_route(at: &At<'_>, any: &Any) -> Option<FilterSetting> {
    let lua = at.unpack::<LuaPerRoute>(any)?;
    fields!(at, &lua => LuaPerRoute {
        use { r#override, filter_context, package_paths }
        accept {}
        // Native libraries would run outside of every bound.
        refuse { package_cpaths }
    });
    let script = match r#override {
        Some(Override::Disabled(true)) => return Some(FilterSetting::Disabled),
        Some(Override::Disabled(false)) => {
            at.field("disabled").fault("is not true");
            return None;
        }
        Some(Override::Name(name)) => LuaScript::Named(name.as_str().into()),
        Some(Override::SourceCode(source)) => LuaScript::Own {
            source: messages::source(&at.field("source_code"), source)?,
            package_paths: package_paths.iter().map(|path| path.as_str().into()).collect(),
        },
        None => LuaScript::Default,
    };
    let context = filter_context.as_ref().map(|fields| Arc::new(values::fields(fields)));
    Some(FilterSetting::Lua(Arc::new(LuaRoute { script, context })))
}

pub(super) fn cors(at: &At<'_>, policy: &PbCors) -> Option<Arc<CorsPolicy>> {
    fields!(at, policy => PbCors {
        use {
            allow_origin_string_match, allow_methods, allow_headers, expose_headers, max_age,
            allow_credentials, allow_private_network_access, forward_not_matching_preflights,
            enabled_specifier,
        }
        // It only counts.
        accept { shadow_enabled }
        refuse {}
    });
    let list = at.field("allow_origin_string_match");
    let origins = allow_origin_string_match
        .iter()
        .enumerate()
        .filter_map(|(index, value)| messages::string_matcher(&list.nth(index), Some(value)))
        .collect();
    let text = |field: &str, value: &str| messages::header_value(&at.field(field), value);
    let enabled = match enabled_specifier {
        Some(EnabledSpecifier::FilterEnabled(share)) => {
            messages::runtime_fraction(&at.field("filter_enabled"), share)
        }
        None => Fraction::ALL,
    };
    Some(Arc::new(CorsPolicy {
        origins,
        methods: text("allow_methods", allow_methods),
        headers: text("allow_headers", allow_headers),
        expose: text("expose_headers", expose_headers),
        max_age: text("max_age", max_age),
        credentials: allow_credentials.as_ref().map(|flag| flag.value),
        private_network: allow_private_network_access.as_ref().map(|flag| flag.value),
        forwards_unmatched: forward_not_matching_preflights.as_ref().map(|flag| flag.value),
        enabled,
    }))
}

/// The filter's own message has the fields of the route's older one.
fn older(policy: CorsPerRoute) -> PbCors {
    let CorsPerRoute {
        allow_origin_string_match,
        allow_methods,
        allow_headers,
        expose_headers,
        max_age,
        allow_credentials,
        filter_enabled,
        shadow_enabled,
        allow_private_network_access,
        forward_not_matching_preflights,
    } = policy;
    PbCors {
        allow_origin_string_match,
        allow_methods,
        allow_headers,
        expose_headers,
        max_age,
        allow_credentials,
        shadow_enabled,
        allow_private_network_access,
        forward_not_matching_preflights,
        enabled_specifier: filter_enabled.map(EnabledSpecifier::FilterEnabled),
    }
}

pub(super) fn fault(at: &At<'_>, any: &Any) -> Option<FaultFilter> {
    let fault = at.unpack::<HttpFault>(any)?;
    fields!(at, &fault => HttpFault {
        use {
            delay, abort, upstream_cluster, headers, downstream_nodes, max_active_faults,
        }
        // There is no runtime that could change the numbers; statistics and metadata are not ours.
        accept {
            delay_percent_runtime, abort_percent_runtime, delay_duration_runtime,
            abort_http_status_runtime, max_active_faults_runtime,
            response_rate_limit_percent_runtime, abort_grpc_status_runtime,
            disable_downstream_cluster_stats, filter_metadata,
        }
        refuse { response_rate_limit }
    });
    let delay = match delay {
        Some(delay) => Some(delay_of(&at.field("delay"), delay)?),
        None => None,
    };
    let body = abort.as_ref().map(|abort| abort.response_body.as_str()).unwrap_or_default();
    let abort = match abort {
        Some(abort) => Some(abort_of(&at.field("abort"), abort)?),
        None => None,
    };
    Some(FaultFilter {
        delay,
        abort,
        abort_body: (!body.is_empty()).then(|| body.into()),
        headers: matches::headers_of(&at.field("headers"), headers),
        cluster: (!upstream_cluster.is_empty()).then(|| upstream_cluster.as_str().into()),
        nodes: downstream_nodes.iter().map(|node| node.as_str().into()).collect(),
        active_max: messages::number(max_active_faults.as_ref()),
    })
}

fn delay_of(at: &At<'_>, delay: &PbDelay) -> Option<(FaultDelay, Fraction)> {
    let share = messages::fraction(&at.field("percentage"), delay.percentage.as_ref());
    let time = match &delay.fault_delay_secifier {
        Some(FaultDelaySecifier::FixedDelay(time)) => {
            FaultDelay::Fixed(messages::duration(&at.field("fixed_delay"), Some(time))?)
        }
        Some(FaultDelaySecifier::HeaderDelay(_)) => FaultDelay::Header,
        None => {
            at.field("fixed_delay").fault("is missing");
            return None;
        }
    };
    Some((time, share))
}

fn abort_of(at: &At<'_>, abort: &PbAbort) -> Option<(FaultAbort, Fraction)> {
    let share = messages::fraction(&at.field("percentage"), abort.percentage.as_ref());
    let kind = match abort.error_type {
        Some(ErrorType::HttpStatus(status)) => match u16::try_from(status) {
            Ok(status @ 200..=599) => FaultAbort::Http(status),
            _ => {
                at.field("http_status").fault("is not between 200 and 599");
                return None;
            }
        },
        Some(ErrorType::GrpcStatus(status)) => FaultAbort::Grpc(status),
        Some(ErrorType::HeaderAbort(_)) => FaultAbort::Header,
        None => {
            at.field("http_status").fault("is missing");
            return None;
        }
    };
    Some((kind, share))
}

pub(super) fn rate_limit(at: &At<'_>, any: &Any) -> Option<LocalRateLimit> {
    let limit = at.unpack::<PbRateLimit>(any)?;
    fields!(at, &limit => PbRateLimit {
        use {
            status, token_bucket, filter_enabled, filter_enforced,
            request_headers_to_add_when_not_enforced, response_headers_to_add,
            local_rate_limit_per_downstream_connection, enable_x_ratelimit_headers,
            rate_limited_as_resource_exhausted,
        }
        // Statistics, and settings of descriptors, which are refused.
        accept { stat_prefix, stage, vh_rate_limits, max_dynamic_descriptors }
        refuse {
            descriptors, rate_limits, local_cluster_rate_limit, enable_retry_after_header,
            always_consume_default_token_bucket,
        }
    });
    let status = status.as_ref().map_or(0, |status| status.code);
    let bucket = match token_bucket {
        None => None,
        Some(bucket) => {
            let at = at.field("token_bucket");
            let interval =
                messages::duration(&at.field("fill_interval"), bucket.fill_interval.as_ref());
            let interval = interval.filter(|interval| *interval >= FILL_INTERVAL_MIN);
            if interval.is_none() {
                at.field("fill_interval").fault("is missing or shorter than 50 ms");
            }
            if bucket.max_tokens == 0 {
                at.field("max_tokens").fault("must be at least 1");
            }
            Some(TokenBucket {
                tokens_max: bucket.max_tokens,
                per_fill: messages::positive(
                    &at.field("tokens_per_fill"),
                    bucket.tokens_per_fill.as_ref(),
                    1,
                ),
                fill_interval: interval?,
            })
        }
    };
    let share = |field: &str, share: Option<&_>| {
        share.map_or(Fraction::NONE, |share| messages::runtime_fraction(&at.field(field), share))
    };
    Some(LocalRateLimit {
        // As in Envoy: a status below 400 is none.
        status: u16::try_from(status)
            .ok()
            .filter(|status| (400..=599).contains(status))
            .unwrap_or(TOO_MANY_REQUESTS),
        bucket,
        enabled: share("filter_enabled", filter_enabled.as_ref()),
        enforced: share("filter_enforced", filter_enforced.as_ref()),
        response_set: messages::header_edits(
            &at.field("response_headers_to_add"),
            response_headers_to_add,
        ),
        request_set: messages::header_edits(
            &at.field("request_headers_to_add_when_not_enforced"),
            request_headers_to_add_when_not_enforced,
        ),
        per_connection: *local_rate_limit_per_downstream_connection,
        says_state: *enable_x_ratelimit_headers == 1,
        is_resource_exhausted: *rate_limited_as_resource_exhausted,
    })
}

pub(super) fn mutation(at: &At<'_>, any: &Any) -> Option<MutationFilter> {
    let filter = at.unpack::<HeaderMutation>(any)?;
    Some(MutationFilter {
        most_specific_wins: filter.most_specific_header_mutations_wins,
        ..mutations(&at.field("mutations"), filter.mutations.as_ref())
    })
}

fn mutations(at: &At<'_>, value: Option<&Mutations>) -> MutationFilter {
    let Some(value) = value else { return MutationFilter::default() };
    fields!(at, value => Mutations {
        use { request_mutations, response_mutations }
        accept {}
        refuse { query_parameter_mutations, response_trailers_mutations, request_trailers_mutations }
    });
    MutationFilter {
        request: steps(&at.field("request_mutations"), request_mutations),
        response: steps(&at.field("response_mutations"), response_mutations),
        most_specific_wins: false,
    }
}

fn steps(at: &At<'_>, steps: &[PbStep]) -> Vec<MutationStep> {
    let mut out = Vec::with_capacity(steps.len());
    for (index, step) in steps.iter().enumerate() {
        let at = at.nth(index);
        match &step.action {
            Some(PbAction::Remove(name)) => {
                let names = messages::header_names(&at.field("remove"), std::slice::from_ref(name));
                out.extend(names.into_iter().map(MutationStep::Remove));
            }
            Some(PbAction::Append(edit)) => {
                let edits = messages::header_edits(&at.field("append"), std::slice::from_ref(edit));
                out.extend(edits.into_iter().map(MutationStep::Set));
            }
            Some(PbAction::RemoveOnMatch(by)) => {
                let at = at.field("remove_on_match");
                out.extend(
                    messages::string_matcher(&at.field("key_matcher"), by.key_matcher.as_ref())
                        .map(MutationStep::RemoveMatching),
                );
            }
            None => at.fault("says nothing to do"),
        }
    }
    out
}

pub(super) fn health_check(at: &At<'_>, any: &Any) -> Option<HealthCheckFilter> {
    let filter = at.unpack::<HealthCheck>(any)?;
    fields!(at, &filter => HealthCheck {
        use { pass_through_mode, headers }
        accept {}
        refuse { cache_time, cluster_min_healthy_percentages }
    });
    match pass_through_mode {
        None => at.field("pass_through_mode").fault("is missing"),
        Some(passes) if passes.value => at.field("pass_through_mode").unsupported(),
        Some(_) => {}
    }
    Some(HealthCheckFilter { headers: matches::headers_of(&at.field("headers"), headers) })
}

/// Istio's own message, which is in no library: `istio.envoy.config.filter.http.alpn.v2alpha1`.
#[derive(Clone, PartialEq, Message)]
struct AlpnConfig {
    #[prost(message, repeated, tag = "1")]
    alpn_override: Vec<AlpnOf>,
}

#[derive(Clone, PartialEq, Message)]
struct AlpnOf {
    /// 0 is HTTP/1.0, 1 HTTP/1.1, 2 HTTP/2.
    #[prost(int32, tag = "1")]
    upstream_protocol: i32,
    #[prost(string, repeated, tag = "2")]
    alpn_override: Vec<String>,
}

pub(super) fn alpn(at: &At<'_>, any: &Any) -> Option<AlpnOverride> {
    let config = match AlpnConfig::decode(any.value.as_slice()) {
        Ok(config) => config,
        Err(error) => {
            at.fault(error.to_string());
            return None;
        }
    };
    let mut alpn = AlpnOverride::default();
    for AlpnOf { upstream_protocol, alpn_override } in &config.alpn_override {
        let list = alpn_override.iter().map(|name| name.as_str().into()).collect();
        match upstream_protocol {
            // Nobody is spoken HTTP/1.0 to.
            0 => {}
            1 => alpn.http1 = list,
            2 => alpn.http2 = list,
            _ => at.field("upstream_protocol").unsupported(),
        }
    }
    Some(alpn)
}
