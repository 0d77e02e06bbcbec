//! The filter for tokens of end users.

use std::{collections::HashMap, sync::Arc, time::Duration};

use envoy_types::pb::{
    envoy::{
        config::core::v3::{HttpUri, RetryPolicy, http_uri::HttpUpstreamType},
        extensions::filters::http::jwt_authn::v3::{
            JwtAuthentication, JwtCacheConfig, JwtClaimToHeader, JwtHeader,
            JwtProvider as PbProvider, JwtRequirement as PbRequirement, PerRouteConfig,
            ProviderWithAudiences, RemoteJwks, RequirementRule, jwt_provider::JwksSourceSpecifier,
            jwt_requirement::RequiresType, per_route_config::RequirementSpecifier,
            requirement_rule::RequirementType,
        },
    },
    google::protobuf::Any,
};

use sluis_jwt::{KeySet, Origin};

use super::{
    at::{At, fields},
    messages,
    routes::matches,
};
use crate::{
    ClaimHeader, FilterSetting, JwtFilter, JwtKeys, JwtProvider, JwtRequirement, JwtRule,
    RemoteKeys, Source,
};

/// Envoy's default, in seconds.
const CLOCK_SKEW: u64 = 60;
/// Envoy's default for remote keys.
const CACHE_DURATION: Duration = Duration::from_secs(600);
/// Envoy's default.
const REFETCH_AFTER: Duration = Duration::from_secs(1);
/// Envoy's defaults for tries.
const BACKOFF: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(10));
/// Further tries of one question; beyond it the server is down.
const RETRIES_MAX: u32 = 10;
/// Envoy's defaults of `jwt_cache_config`: tokens, and bytes of one.
const CACHE: (u32, u32) = (100, 4096);
/// Most tokens that are remembered, for each worker and provider.
const CACHE_TOKENS_MAX: u32 = 100_000;
/// Deepest nesting of requirements.
const DEPTH_MAX: usize = 16;

pub(super) fn filter(at: &At<'_>, any: &Any) -> Option<JwtFilter> {
    let filter = at.unpack::<JwtAuthentication>(any)?;
    fields!(at, &filter => JwtAuthentication {
        use { providers, rules, bypass_cors_preflight, requirement_map, strip_failure_response }
        // It only names statistics.
        accept { stat_prefix }
        refuse { filter_state_rules }
    });
    let list = at.field("providers");
    let compiled = providers.iter().filter_map(|(name, value)| {
        let compiled = provider(&list.key(name), name, value)?;
        Some((Arc::clone(&compiled.name), Arc::new(compiled)))
    });
    let compiled = compiled.collect();
    let known = Known { providers, requirements: requirement_map };
    let list = at.field("requirement_map");
    let requirements = requirement_map.iter().filter_map(|(name, value)| {
        Some((name.as_str().into(), known.requirement(&list.key(name), value, 0)?))
    });
    let requirements = requirements.collect();
    let list = at.field("rules");
    let rules =
        rules.iter().enumerate().filter_map(|(index, value)| known.rule(&list.nth(index), value));
    Some(JwtFilter {
        providers: compiled,
        rules: rules.collect(),
        requirements,
        bypasses_preflights: *bypass_cors_preflight,
        strips_answers: *strip_failure_response,
    })
}

/// What a route says of the filter.
pub(super) fn per_route(at: &At<'_>, any: &Any) -> Option<FilterSetting> {
    let config = at.unpack::<PerRouteConfig>(any)?;
    match config.requirement_specifier {
        Some(RequirementSpecifier::Disabled(true)) => Some(FilterSetting::Disabled),
        Some(RequirementSpecifier::RequirementName(name)) if !name.is_empty() => {
            Some(FilterSetting::Jwt(name.into()))
        }
        _ => {
            at.fault("neither switches the filter off nor names a requirement");
            None
        }
    }
}

/// What requirements may name.
struct Known<'m> {
    providers: &'m HashMap<String, PbProvider>,
    requirements: &'m HashMap<String, PbRequirement>,
}

impl Known<'_> {
    fn rule(&self, at: &At<'_>, rule: &RequirementRule) -> Option<JwtRule> {
        fields!(at, rule => RequirementRule {
            use { r#match, requirement_type }
            accept {}
            refuse {}
        });
        let requirement = match requirement_type {
            None => None,
            Some(RequirementType::Requires(value)) => {
                Some(self.requirement(&at.field("requires"), value, 0)?)
            }
            Some(RequirementType::RequirementName(name)) => {
                let at = at.field("requirement_name");
                let Some(value) = self.requirements.get(name) else {
                    at.fault(format!("{name:?} is not in requirement_map"));
                    return None;
                };
                Some(self.requirement(&at, value, 0)?)
            }
        };
        let matches = matches::route_match(&at.field("match"), r#match.as_ref())?;
        Some(JwtRule { matches, requirement })
    }

    fn requirement(
        &self,
        at: &At<'_>,
        value: &PbRequirement,
        depth: usize,
    ) -> Option<JwtRequirement> {
        if depth > DEPTH_MAX {
            at.fault("is nested too deep");
            return None;
        }
        let all = |field: &str, list: &[PbRequirement]| {
            let at = at.field(field);
            if list.len() < 2 {
                at.field("requirements").fault("has fewer than two entries");
            }
            let list = list.iter().enumerate();
            list.map(|(index, one)| self.requirement(&at.nth(index), one, depth + 1))
                .collect::<Option<Vec<_>>>()
        };
        Some(match &value.requires_type {
            None => JwtRequirement::Nothing,
            Some(RequiresType::ProviderName(name)) => {
                self.provider(&at.field("provider_name"), name, &[])?
            }
            Some(RequiresType::ProviderAndAudiences(both)) => {
                let ProviderWithAudiences { provider_name, audiences } = both;
                self.provider(&at.field("provider_and_audiences"), provider_name, audiences)?
            }
            Some(RequiresType::RequiresAny(list)) => {
                JwtRequirement::Any(all("requires_any", &list.requirements)?)
            }
            Some(RequiresType::RequiresAll(list)) => {
                JwtRequirement::All(all("requires_all", &list.requirements)?)
            }
            Some(RequiresType::AllowMissing(_)) => JwtRequirement::AllowMissing,
            Some(RequiresType::AllowMissingOrFailed(_)) => JwtRequirement::AllowMissingOrFailed,
            // It would tell later filters of claims that nobody has verified.
            Some(RequiresType::ExtractOnlyWithoutValidation(_)) => {
                at.field("extract_only_without_validation").unsupported();
                return None;
            }
        })
    }

    fn provider(&self, at: &At<'_>, name: &str, audiences: &[String]) -> Option<JwtRequirement> {
        if !self.providers.contains_key(name) {
            at.fault(format!("{name:?} is not in providers"));
            return None;
        }
        let audiences = texts(audiences);
        Some(JwtRequirement::Provider { name: name.into(), audiences })
    }
}

fn texts(list: &[String]) -> Vec<Arc<str>> {
    list.iter().map(|text| text.as_str().into()).collect()
}

fn some(text: &str) -> Option<Arc<str>> {
    (!text.is_empty()).then(|| text.into())
}

fn provider(at: &At<'_>, name: &str, value: &PbProvider) -> Option<JwtProvider> {
    fields!(at, value => PbProvider {
        use {
            issuer, audiences, subjects, require_expiration, max_lifetime, forward, from_headers,
            from_params, from_cookies, forward_payload_header, pad_forward_payload_header,
            payload_in_metadata, normalize_payload_in_metadata, header_in_metadata,
            failed_status_in_metadata, clock_skew_seconds, jwt_cache_config, claim_to_headers,
            clear_route_cache, jwks_source_specifier,
        }
        accept {}
        refuse {}
    });
    let (mut headers, mut params) = (headers(at, from_headers), texts(from_params));
    if headers.is_empty() && params.is_empty() && from_cookies.is_empty() {
        headers = vec![("authorization".into(), "Bearer ".into())];
        params = vec!["access_token".into()];
    }
    let list = at.field("claim_to_headers");
    let claims = claim_to_headers.iter().enumerate();
    let claims = claims.filter_map(|(index, value)| claim(&list.nth(index), value)).collect();
    let payload_header = some(forward_payload_header)
        .map(|name| messages::header_name(&at.field("forward_payload_header"), &name));
    let keys = keys(at, jwks_source_specifier.as_ref())?;
    let subjects = match subjects {
        None => None,
        some => Some(messages::string_matcher(&at.field("subjects"), some.as_ref())?),
    };
    Some(JwtProvider {
        name: name.into(),
        issuer: issuer.as_str().into(),
        audiences: texts(audiences),
        subjects,
        requires_expiration: *require_expiration,
        lifetime_max: messages::duration(&at.field("max_lifetime"), max_lifetime.as_ref()),
        forwards: *forward,
        headers,
        params,
        cookies: texts(from_cookies),
        payload_header,
        pads_payload: *pad_forward_payload_header,
        claims,
        payload_key: some(payload_in_metadata),
        header_key: some(header_in_metadata),
        failed_key: some(failed_status_in_metadata),
        spaced_claims: normalize_payload_in_metadata
            .as_ref()
            .map(|how| texts(&how.space_delimited_claims))
            .unwrap_or_default(),
        skew_secs: match clock_skew_seconds {
            0 => CLOCK_SKEW,
            seconds => u64::from(*seconds),
        },
        cache: jwt_cache_config.as_ref().map(|config| cache(&at.field("jwt_cache_config"), config)),
        clears_route: *clear_route_cache,
        keys,
    })
}

fn keys(at: &At<'_>, source: Option<&JwksSourceSpecifier>) -> Option<JwtKeys> {
    match source {
        Some(JwksSourceSpecifier::LocalJwks(source)) => {
            let at = at.field("local_jwks");
            let source = messages::source(&at, source)?;
            if let Source::Text(text) = &source
                && let Err(refusal) = KeySet::parse(text, Origin::Local)
            {
                at.fault(refusal.message());
            }
            Some(JwtKeys::Local(source))
        }
        Some(JwksSourceSpecifier::RemoteJwks(remote)) => {
            let remote = remote_keys(&at.field("remote_jwks"), remote)?;
            Some(JwtKeys::Remote(Arc::new(remote)))
        }
        None => {
            at.field("local_jwks").fault("is missing, and so is remote_jwks");
            None
        }
    }
}

fn headers(at: &At<'_>, list: &[JwtHeader]) -> Vec<(Arc<str>, Arc<str>)> {
    let at = at.field("from_headers");
    let headers = list.iter().enumerate().map(|(index, header)| {
        let JwtHeader { name, value_prefix } = header;
        let name = messages::header_name(&at.nth(index).field("name"), name);
        (name, value_prefix.as_str().into())
    });
    headers.collect()
}

fn claim(at: &At<'_>, value: &JwtClaimToHeader) -> Option<ClaimHeader> {
    fields!(at, value => JwtClaimToHeader {
        use { header_name, claim_name, claim_path }
        accept {}
        refuse {}
    });
    let path: Vec<Arc<str>> = match (claim_name.as_str(), claim_path.as_slice()) {
        ("", []) => {
            at.field("claim_name").fault("is missing");
            return None;
        }
        ("", path) => path.iter().map(|segment| segment.key.as_str().into()).collect(),
        (name, []) => name.split('.').map(Arc::from).collect(),
        _ => {
            at.field("claim_path").fault("does not go with claim_name");
            return None;
        }
    };
    let header = messages::header_name(&at.field("header_name"), header_name);
    if header.starts_with(':') || &*header == "host" {
        at.field("header_name").fault(format!("{header:?} cannot be set"));
    }
    Some(ClaimHeader { header, path })
}

fn cache(at: &At<'_>, config: &JwtCacheConfig) -> (usize, usize) {
    let JwtCacheConfig { jwt_cache_size, jwt_max_token_size } = config;
    let or = |value: u32, default: u32| if value == 0 { default } else { value };
    let tokens = or(*jwt_cache_size, CACHE.0);
    if tokens > CACHE_TOKENS_MAX {
        at.field("jwt_cache_size").fault(format!("is more than {CACHE_TOKENS_MAX}"));
    }
    (tokens as usize, or(*jwt_max_token_size, CACHE.1) as usize)
}

fn remote_keys(at: &At<'_>, remote: &RemoteJwks) -> Option<RemoteKeys> {
    fields!(at, remote => RemoteJwks {
        use { http_uri, cache_duration, async_fetch, retry_policy }
        accept {}
        refuse {}
    });
    let uri_at = at.field("http_uri");
    let Some(HttpUri { uri, timeout, http_upstream_type }) = http_uri else {
        uri_at.fault("is missing");
        return None;
    };
    let cluster = match http_upstream_type {
        Some(HttpUpstreamType::Cluster(cluster)) if !cluster.is_empty() => cluster.as_str(),
        _ => {
            uri_at.field("cluster").fault("is missing");
            return None;
        }
    };
    let Some((host, path)) = parts(uri) else {
        uri_at.field("uri").fault(format!("{uri:?} is not a URL of http or https"));
        return None;
    };
    let time = |field: &str, value| messages::duration(&at.field(field), value);
    let Some(timeout) = messages::duration(&uri_at.field("timeout"), timeout.as_ref()) else {
        uri_at.field("timeout").fault("is missing");
        return None;
    };
    // Requests wait for the keys; the listener never does (`fast_listener`).
    let refetch_after = async_fetch.as_ref().and_then(|how| how.failed_refetch_duration.as_ref());
    let (retries, backoff) = match retry_policy {
        Some(policy) => retries(&at.field("retry_policy"), policy),
        None => (0, BACKOFF),
    };
    Some(RemoteKeys {
        uri: uri.as_str().into(),
        host,
        path,
        cluster: cluster.into(),
        timeout,
        cache_duration: time("cache_duration", cache_duration.as_ref()).unwrap_or(CACHE_DURATION),
        refetch_after: time("async_fetch", refetch_after).unwrap_or(REFETCH_AFTER),
        retries,
        backoff,
    })
}

fn retries(at: &At<'_>, policy: &RetryPolicy) -> (u32, (Duration, Duration)) {
    fields!(at, policy => RetryPolicy {
        use { retry_back_off, num_retries }
        // Every failure of a fetch is tried again.
        accept { retry_on }
        refuse { retry_priority, retry_host_predicate, host_selection_retry_max_attempts }
    });
    let retries = messages::number(num_retries.as_ref()).unwrap_or(1);
    if retries > RETRIES_MAX {
        at.field("num_retries").fault(format!("is more than {RETRIES_MAX}"));
    }
    let Some(backoff) = retry_back_off else { return (retries, BACKOFF) };
    let at = at.field("retry_back_off");
    let time = |field: &str, value| messages::duration(&at.field(field), value);
    let base = time("base_interval", backoff.base_interval.as_ref()).unwrap_or(BACKOFF.0);
    let max = time("max_interval", backoff.max_interval.as_ref()).unwrap_or(base * 10);
    if max < base {
        at.field("max_interval").fault("is shorter than base_interval");
    }
    (retries, (base, max))
}

/// Host (with port) and path (with query) of a URL.
fn parts(uri: &str) -> Option<(Arc<str>, Arc<str>)> {
    let rest = uri.strip_prefix("https://").or_else(|| uri.strip_prefix("http://"))?;
    let rest = rest.split('#').next().unwrap_or_default();
    let end = rest.find(['/', '?']).unwrap_or(rest.len());
    let (host, path) = rest.split_at(end);
    let is_plain = |text: &str| text.bytes().all(|byte| byte.is_ascii_graphic());
    if host.is_empty() || host.contains('@') || !is_plain(host) || !is_plain(path) {
        return None;
    }
    let path = match path {
        "" => "/".into(),
        query if query.starts_with('?') => format!("/{query}").into(),
        path => path.into(),
    };
    Some((host.into(), path))
}
