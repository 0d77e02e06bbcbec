//! The filter that verifies tokens of end users, as Istio makes it.
//!
//! In:    [`TokensInput`].
//! Out:   a `jwt_authn` filter: no token passes where none is required, a bad one never.
//! Never: takes a key that the rule does not name.

use std::{collections::HashMap, time::Duration};

use envoy_types::pb::{
    envoy::{
        config::{
            core::v3::{DataSource, HttpUri, data_source::Specifier, http_uri::HttpUpstreamType},
            route::v3::{RouteMatch, route_match::PathSpecifier},
        },
        extensions::filters::{
            http::jwt_authn::v3::{
                JwtAuthentication, JwtClaimToHeader, JwtHeader, JwtProvider, JwtRequirement,
                JwtRequirementAndList, JwtRequirementOrList, RemoteJwks, RequirementRule,
                jwt_provider::{JwksSourceSpecifier, NormalizePayload},
                jwt_requirement::RequiresType,
                requirement_rule::RequirementType,
            },
            network::http_connection_manager::v3::HttpFilter,
        },
    },
    google::protobuf::Empty,
};

use super::{filter::http_filter, wrap};
use crate::{TokenKeys, TokenRule, TokensInput};

/// The filter, and the namespace of what it tells others.
pub(super) const FILTER: &str = "envoy.filters.http.jwt_authn";

/// The key under which the claims are.
pub(super) const PAYLOAD: &str = "payload";

/// How long Istio's proxies use keys that they have fetched.
const CACHE_DURATION: Duration = Duration::from_secs(300);

/// The filter of some rules.
pub(super) fn filter(input: &TokensInput) -> HttpFilter {
    let name = |index: usize| format!("origins-{index}");
    let rules = input.rules.iter().enumerate();
    let providers: HashMap<String, JwtProvider> =
        rules.map(|(index, rule)| (name(index), provider(rule, input.chooses_route))).collect();
    let all = RouteMatch {
        path_specifier: Some(PathSpecifier::Prefix("/".to_owned())),
        ..RouteMatch::default()
    };
    let rule = RequirementRule {
        r#match: Some(all),
        requirement_type: Some(RequirementType::Requires(requirement(&input.rules, name))),
    };
    let config = JwtAuthentication {
        providers,
        rules: vec![rule],
        bypass_cors_preflight: true,
        ..JwtAuthentication::default()
    };
    http_filter(FILTER, &config)
}

/// What a request needs, as Istio puts it together: a token that is there is good, whosever it is. With
/// several issuers a good token of one is enough, for they may share a place. Where a rule requires a
/// token, only those that do are enough.
fn requirement(rules: &[TokenRule], name: impl Fn(usize) -> String) -> JwtRequirement {
    let of = |index: usize| needs(RequiresType::ProviderName(name(index)));
    let each = rules.iter().enumerate().map(|(index, rule)| {
        if rule.is_required {
            of(index)
        } else {
            any(vec![of(index), needs(RequiresType::AllowMissing(Empty {}))])
        }
    });
    let mut each: Vec<JwtRequirement> = each.collect();
    if each.len() == 1 {
        return each.remove(0);
    }
    let is_any_required = rules.iter().any(|rule| rule.is_required);
    let enough = rules.iter().enumerate().filter(|(_, rule)| rule.is_required || !is_any_required);
    let mut outer: Vec<JwtRequirement> = enough.map(|(index, _)| of(index)).collect();
    let all = JwtRequirementAndList { requirements: each };
    outer.push(needs(RequiresType::RequiresAll(all)));
    any(outer)
}

fn needs(what: RequiresType) -> JwtRequirement {
    JwtRequirement { requires_type: Some(what) }
}

fn any(requirements: Vec<JwtRequirement>) -> JwtRequirement {
    needs(RequiresType::RequiresAny(JwtRequirementOrList { requirements }))
}

fn provider(rule: &TokenRule, chooses_route: bool) -> JwtProvider {
    let headers = rule
        .from_headers
        .iter()
        .map(|(name, prefix)| JwtHeader { name: name.clone(), value_prefix: prefix.clone() });
    let claims = rule.claims.iter().map(|(claim, header)| JwtClaimToHeader {
        header_name: header.clone(),
        claim_name: claim.clone(),
        ..JwtClaimToHeader::default()
    });
    let keys = match &rule.keys {
        TokenKeys::Inline(keys) => JwksSourceSpecifier::LocalJwks(DataSource {
            specifier: Some(Specifier::InlineString(keys.clone())),
            ..DataSource::default()
        }),
        TokenKeys::Remote { uri, cluster, timeout } => {
            JwksSourceSpecifier::RemoteJwks(RemoteJwks {
                http_uri: Some(HttpUri {
                    uri: uri.clone(),
                    timeout: Some(wrap::duration(*timeout)),
                    http_upstream_type: Some(HttpUpstreamType::Cluster(cluster.clone())),
                }),
                cache_duration: Some(wrap::duration(CACHE_DURATION)),
                ..RemoteJwks::default()
            })
        }
    };
    JwtProvider {
        issuer: rule.issuer.clone(),
        audiences: rule.audiences.clone(),
        forward: rule.is_forwarded,
        from_headers: headers.collect(),
        from_params: rule.from_params.clone(),
        from_cookies: rule.from_cookies.clone(),
        forward_payload_header: rule.payload_header.clone().unwrap_or_default(),
        payload_in_metadata: PAYLOAD.to_owned(),
        normalize_payload_in_metadata: Some(NormalizePayload {
            space_delimited_claims: rule.spaced_claims.clone(),
        }),
        claim_to_headers: claims.collect(),
        clear_route_cache: chooses_route,
        jwks_source_specifier: Some(keys),
        ..JwtProvider::default()
    }
}
