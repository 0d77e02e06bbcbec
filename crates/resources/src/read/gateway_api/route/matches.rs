//! Reads `matches` of an HTTPRoute and a GRPCRoute.

use std::collections::BTreeMap;

use super::super::super::{forms::read_fields, virtual_service::checks::expression};
use crate::kinds::virtual_service::{HttpMatch, StringMatch};
use crate::value::{Fields, Read, Value, one_of};

/// One of `matches` of an HTTPRoute.
pub(super) struct HttpRouteMatch(pub(super) HttpMatch);

/// One of `matches` of a GRPCRoute.
pub(super) struct GrpcMatch(pub(super) HttpMatch);

read_fields! {
    HttpRouteMatch => http_match,
    GrpcMatch => grpc_match,
    PathMatch => path_match,
    NamedMatch => named_match,
    MethodMatch => method_match,
}

fn http_match(fields: &mut Fields<'_, '_>) -> Option<HttpRouteMatch> {
    let path: Option<PathMatch> = fields.opt("path");
    let query: Vec<NamedMatch> = fields.or_default("queryParams");
    let method: Option<String> = fields.opt("method");
    let uri = path.map_or_else(|| StringMatch::Prefix("/".to_owned()), |PathMatch(uri)| uri);
    Some(HttpRouteMatch(HttpMatch {
        at: fields.at(),
        uri: Some(uri),
        headers: headers(fields),
        // Of several for one name the first counts, says the Gateway API.
        query_params: by_name(query, |name| name),
        method: method.map(StringMatch::Exact),
        ..HttpMatch::default()
    }))
}

fn headers(fields: &mut Fields<'_, '_>) -> BTreeMap<String, Option<StringMatch>> {
    let headers: Vec<NamedMatch> = fields.or_default("headers");
    by_name(headers, |name| name.to_ascii_lowercase())
}

fn by_name(
    list: Vec<NamedMatch>,
    key: impl Fn(String) -> String,
) -> BTreeMap<String, Option<StringMatch>> {
    let mut map = BTreeMap::new();
    for NamedMatch(name, value) in list {
        map.entry(key(name)).or_insert(Some(value));
    }
    map
}

struct PathMatch(StringMatch);

#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    Exact,
    Prefix,
    Regex,
}

impl Read for Kind {
    fn read(value: &Value<'_>) -> Option<Self> {
        one_of(
            value,
            &[
                ("Exact", Self::Exact),
                ("PathPrefix", Self::Prefix),
                ("RegularExpression", Self::Regex),
            ],
        )
    }
}

fn path_match(fields: &mut Fields<'_, '_>) -> Option<PathMatch> {
    let kind: Option<Kind> = fields.opt("type");
    let kind = kind.unwrap_or(Kind::Prefix);
    let value: Option<String> = fields.opt("value");
    let value = value.unwrap_or_else(|| "/".to_owned());
    if kind != Kind::Regex && (!value.starts_with('/') || value.contains("//")) {
        fields.fault_at("value", format!("{value:?} is not a path: it must begin with one /"));
        return None;
    }
    Some(PathMatch(match kind {
        Kind::Exact => StringMatch::Exact(value),
        Kind::Regex => StringMatch::Regex(expression(&fields.get("value")?)?),
        // A slash at the end is ignored, says the Gateway API.
        Kind::Prefix if value == "/" => StringMatch::Prefix(value),
        Kind::Prefix => StringMatch::Prefix(value.trim_end_matches('/').to_owned()),
    }))
}

struct NamedMatch(String, StringMatch);

fn named_match(fields: &mut Fields<'_, '_>) -> Option<NamedMatch> {
    let kind: Option<Kind> = fields.opt("type");
    let (name, value) = (fields.req("name"), fields.req::<String>("value"));
    Some(match kind.unwrap_or(Kind::Exact) {
        Kind::Exact => NamedMatch(name?, StringMatch::Exact(value?)),
        Kind::Regex => NamedMatch(name?, StringMatch::Regex(expression(&fields.get("value")?)?)),
        Kind::Prefix => {
            fields.fault_at("type", "PathPrefix is possible only for a path");
            return None;
        }
    })
}

fn grpc_match(fields: &mut Fields<'_, '_>) -> Option<GrpcMatch> {
    let method: Option<MethodMatch> = fields.opt("method");
    Some(GrpcMatch(HttpMatch {
        at: fields.at(),
        uri: method.map(|MethodMatch(uri)| uri),
        headers: headers(fields),
        ..HttpMatch::default()
    }))
}

struct MethodMatch(StringMatch);

/// gRPC's path is `/SERVICE/METHOD`. A part that is not written matches anything.
fn method_match(fields: &mut Fields<'_, '_>) -> Option<MethodMatch> {
    let kind: Option<Kind> = fields.opt("type");
    let is_regex = match kind.unwrap_or(Kind::Exact) {
        Kind::Exact => false,
        Kind::Regex => true,
        Kind::Prefix => {
            fields.fault_at("type", "PathPrefix is possible only for a path");
            return None;
        }
    };
    let (service, method): (Option<String>, Option<String>) =
        (fields.opt("service"), fields.opt("method"));
    if is_regex {
        for name in ["service", "method"] {
            fields.get(name).map(|value| expression(&value));
        }
    }
    Some(MethodMatch(match (service, method, is_regex) {
        (None, None, _) => {
            fields.fault_at("service", "a service or a method is needed");
            return None;
        }
        (Some(service), None, false) => StringMatch::Prefix(format!("/{service}/")),
        (Some(service), Some(method), false) => StringMatch::Exact(format!("/{service}/{method}")),
        (None, Some(method), false) => {
            StringMatch::Regex(format!("/[^/]+/{}", regex::escape(&method)))
        }
        (None, Some(method), true) => StringMatch::Regex(format!("/[^/]+/{method}")),
        (Some(service), None, true) => StringMatch::Regex(format!("/{service}/.+")),
        (Some(service), Some(method), true) => StringMatch::Regex(format!("/{service}/{method}")),
    }))
}
