//! Reads HTTPRoute, GRPCRoute, TLSRoute and TCPRoute.
//!
//! In:    the `spec` of a route.
//! Out:   an [`ApiRoute`], whose conditions and filters are in the terms of VirtualService.
//! Never: leaves out a filter that it does not know: the route is refused.

mod filter;
mod matches;

use std::time::Duration;

use super::super::forms::read_fields;
use super::super::shared::some_of;
use crate::kinds::gateway_api::{ApiRoute, ApiRule, BackendRef, ParentRef};
use crate::kinds::virtual_service::{HeaderChanges, Retries};
use crate::value::{Fields, OpenDuration};

use filter::{Filter, Filters};
use matches::{GrpcMatch, HttpRouteMatch};

read_fields! {
    ParentRef => parent,
    HttpRule => http_rule,
    GrpcRule => grpc_rule,
    BytesRule => bytes_rule,
    BackendRef => backend,
    Timeouts => timeouts,
    Retry => retry,
}

/// Most weight of a backend, as the Gateway API has it.
const WEIGHT_MAX: u32 = 1_000_000;

/// How often Istio tries again where `retry` says no number.
const ATTEMPTS: u32 = 2;

/// When Istio tries again in any case.
const RETRY_ON: &str = "connect-failure,refused-stream,unavailable,cancelled";

/// Reads the spec of an HTTPRoute.
pub(in crate::read) fn http(fields: &mut Fields<'_, '_>) -> Option<ApiRoute> {
    let rules: Option<Vec<HttpRule>> = rules_or_one(fields);
    route(fields, rules.map(|rules| rules.into_iter().map(|HttpRule(rule)| rule).collect()))
}

/// Reads the spec of a GRPCRoute.
pub(in crate::read) fn grpc(fields: &mut Fields<'_, '_>) -> Option<ApiRoute> {
    let rules: Vec<GrpcRule> = fields.or_default("rules");
    route(fields, Some(rules.into_iter().map(|GrpcRule(rule)| rule).collect()))
}

/// Reads the spec of a TLSRoute.
pub(in crate::read) fn tls(fields: &mut Fields<'_, '_>) -> Option<ApiRoute> {
    let rules: Option<Vec<BytesRule>> = some_of(fields, "rules");
    route(fields, rules.map(|rules| rules.into_iter().map(|BytesRule(rule)| rule).collect()))
}

/// Reads the spec of a TCPRoute.
pub(in crate::read) fn tcp(fields: &mut Fields<'_, '_>) -> Option<ApiRoute> {
    let rules: Option<Vec<BytesRule>> = some_of(fields, "rules");
    let parents = fields.or_default("parentRefs");
    let rules = rules?.into_iter().map(|BytesRule(rule)| rule).collect();
    Some(ApiRoute { parents, hostnames: Vec::new(), rules })
}

/// `rules` of an HTTPRoute; without any there is one that matches everything and has no backend.
fn rules_or_one(fields: &mut Fields<'_, '_>) -> Option<Vec<HttpRule>> {
    match fields.get("rules") {
        Some(value) => value.read(),
        None => Some(vec![HttpRule(empty_rule(fields))]),
    }
}

fn route(fields: &mut Fields<'_, '_>, rules: Option<Vec<ApiRule>>) -> Option<ApiRoute> {
    let (parents, hostnames) = (fields.or_default("parentRefs"), fields.or_default("hostnames"));
    Some(ApiRoute { parents, hostnames, rules: rules? })
}

fn parent(fields: &mut Fields<'_, '_>) -> Option<ParentRef> {
    let (section, port) = (fields.opt("sectionName"), fields.opt("port"));
    let object = super::reference(fields);
    Some(ParentRef { object: object?, section, port })
}

struct HttpRule(ApiRule);
struct GrpcRule(ApiRule);
struct BytesRule(ApiRule);

fn empty_rule(fields: &Fields<'_, '_>) -> ApiRule {
    ApiRule {
        at: fields.at(),
        name: None,
        matches: Vec::new(),
        headers: HeaderChanges::default(),
        redirect: None,
        rewrite: None,
        mirrors: Vec::new(),
        cors: None,
        backends: Vec::new(),
        timeout: None,
        backend_timeout: None,
        retries: None,
    }
}

fn http_rule(fields: &mut Fields<'_, '_>) -> Option<HttpRule> {
    let matches: Vec<HttpRouteMatch> = fields.or_default("matches");
    let matches = matches.into_iter().map(|HttpRouteMatch(wanted)| wanted).collect();
    let filters: Filters = Filters::of(fields.or_default("filters"));
    let timeouts: Timeouts = fields.or_default("timeouts");
    let retries: Option<Retry> = fields.opt("retry");
    fields.unsupported(&["sessionPersistence"]);
    if filters.redirect.is_some() && fields.has("backendRefs") {
        fields.fault_at("backendRefs", "a rule that redirects cannot have backends");
    }
    Some(HttpRule(ApiRule {
        name: fields.opt("name"),
        matches,
        headers: filters.headers,
        redirect: filters.redirect,
        rewrite: filters.rewrite,
        mirrors: filters.mirrors,
        cors: filters.cors,
        backends: fields.or_default("backendRefs"),
        timeout: timeouts.request,
        backend_timeout: timeouts.backend,
        retries: retries.map(|Retry(retries)| retries),
        ..empty_rule(fields)
    }))
}

fn grpc_rule(fields: &mut Fields<'_, '_>) -> Option<GrpcRule> {
    let matches: Vec<GrpcMatch> = fields.or_default("matches");
    let filters: Filters = Filters::of(fields.or_default("filters"));
    if filters.redirect.is_some() || filters.rewrite.is_some() || filters.cors.is_some() {
        fields.fault_at("filters", "a GRPCRoute can change headers and mirror, and no more");
    }
    fields.unsupported(&["sessionPersistence"]);
    Some(GrpcRule(ApiRule {
        name: fields.opt("name"),
        matches: matches.into_iter().map(|GrpcMatch(wanted)| wanted).collect(),
        headers: filters.headers,
        mirrors: filters.mirrors,
        backends: fields.or_default("backendRefs"),
        ..empty_rule(fields)
    }))
}

fn bytes_rule(fields: &mut Fields<'_, '_>) -> Option<BytesRule> {
    let (name, backends) = (fields.opt("name"), fields.or_default("backendRefs"));
    Some(BytesRule(ApiRule { name, backends, ..empty_rule(fields) }))
}

fn backend(fields: &mut Fields<'_, '_>) -> Option<BackendRef> {
    let (port, weight) = (fields.opt("port"), fields.opt("weight"));
    if weight.is_some_and(|weight: u32| weight > WEIGHT_MAX) {
        fields.fault_at("weight", format!("a weight is at most {WEIGHT_MAX}"));
    }
    let filters = Filters::of(fields.or_default::<Vec<Filter>>("filters"));
    if !filters.is_headers_only() {
        fields
            .fault_at("filters", "only filters that change headers are supported in a backendRef");
    }
    let object = super::reference(fields);
    Some(BackendRef {
        object: object?,
        port,
        weight: weight.unwrap_or(1),
        headers: filters.headers,
    })
}

/// `timeouts`.
#[derive(Default)]
struct Timeouts {
    request: Option<Duration>,
    backend: Option<Duration>,
}

fn timeouts(fields: &mut Fields<'_, '_>) -> Option<Timeouts> {
    let request: Option<OpenDuration> = fields.opt("request");
    let backend: Option<OpenDuration> = fields.opt("backendRequest");
    let (request, backend) = (request.map(|OpenDuration(d)| d), backend.map(|OpenDuration(d)| d));
    if let (Some(request), Some(backend)) = (request, backend)
        && !request.is_zero()
        && backend > request
    {
        fields.fault_at("backendRequest", "this is longer than the whole request may take");
    }
    Some(Timeouts { request, backend })
}

/// `retry`.
struct Retry(Retries);

fn retry(fields: &mut Fields<'_, '_>) -> Option<Retry> {
    let codes: Vec<u32> = fields.or_default("codes");
    for code in codes.iter().filter(|code| !(400..600).contains(*code)) {
        fields.fault_at("codes", format!("{code} is not the status of an error"));
    }
    let attempts: Option<u32> = fields.opt("attempts");
    let attempts = attempts.unwrap_or(ATTEMPTS);
    let mut retry_on = RETRY_ON.to_owned();
    for code in codes {
        retry_on += &format!(",{code}");
    }
    Some(Retry(Retries {
        attempts,
        per_try_timeout: None,
        retry_on: (attempts > 0).then_some(retry_on),
        retry_remote_localities: None,
        retry_ignore_previous_hosts: None,
        backoff: fields.opt("backoff"),
    }))
}
