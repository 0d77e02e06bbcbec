//! Reads `filters` of a rule or a backend.

use std::collections::BTreeMap;
use std::time::Duration;

use sluis_nouns::Percent;

use super::super::super::{
    forms::{checked, read_fields},
    virtual_service::checks::header_value,
};
use crate::kinds::gateway_api::{ApiMirror, BackendRef};
use crate::kinds::virtual_service::{
    CorsPolicy, HeaderChanges, HeaderOps, Redirect, RedirectPort, Rewrite, StringMatch,
    UnmatchedPreflights, UriRewrite,
};
use crate::value::Fields;

/// The status of a redirect that says none, by the Gateway API.
const REDIRECT_CODE: u16 = 302;

/// Any origin: a scheme and a host (RFC 6454 §6.2).
const ANY_ORIGIN: &str = r"^[a-zA-Z][a-zA-Z0-9+.-]*://[^/\s?#]+$";

/// One of `filters`.
pub(super) enum Filter {
    Request(HeaderOps),
    Response(HeaderOps),
    Redirect(Redirect),
    Rewrite(Rewrite),
    Mirror(ApiMirror),
    Cors(CorsPolicy),
}

/// All of `filters`, by what they do.
#[derive(Default)]
pub(super) struct Filters {
    pub(super) headers: HeaderChanges,
    pub(super) redirect: Option<Redirect>,
    pub(super) rewrite: Option<Rewrite>,
    pub(super) mirrors: Vec<ApiMirror>,
    pub(super) cors: Option<CorsPolicy>,
}

impl Filters {
    pub(super) fn of(list: Vec<Filter>) -> Self {
        let mut all = Self::default();
        for filter in list {
            match filter {
                Filter::Request(ops) => all.headers.request = ops,
                Filter::Response(ops) => all.headers.response = ops,
                Filter::Redirect(redirect) => all.redirect = Some(redirect),
                Filter::Rewrite(rewrite) => all.rewrite = Some(rewrite),
                Filter::Mirror(mirror) => all.mirrors.push(mirror),
                Filter::Cors(cors) => all.cors = Some(cors),
            }
        }
        all
    }

    pub(super) fn is_headers_only(&self) -> bool {
        self.redirect.is_none()
            && self.rewrite.is_none()
            && self.mirrors.is_empty()
            && self.cors.is_none()
    }
}

read_fields! {
    Filter => filter,
    HeaderOps => header_ops,
    Header => header,
    ApiRedirect => redirect,
    ApiRewrite => rewrite,
    PathChange => path_change,
    ApiMirror => mirror,
    Fraction => fraction,
    Cors => cors,
}

fn filter(fields: &mut Fields<'_, '_>) -> Option<Filter> {
    let kind: Option<String> = fields.req("type");
    let request = fields.opt("requestHeaderModifier");
    let response = fields.opt("responseHeaderModifier");
    let redirect: Option<ApiRedirect> = fields.opt("requestRedirect");
    let rewrite: Option<ApiRewrite> = fields.opt("urlRewrite");
    let (mirror, cors) = (fields.opt("requestMirror"), fields.opt::<Cors>("cors"));
    fields.unsupported(&["extensionRef", "externalAuth"]);
    let (found, field) = match kind?.as_str() {
        "RequestHeaderModifier" => (request.map(Filter::Request), "requestHeaderModifier"),
        "ResponseHeaderModifier" => (response.map(Filter::Response), "responseHeaderModifier"),
        "RequestRedirect" => {
            (redirect.map(|ApiRedirect(redirect)| Filter::Redirect(redirect)), "requestRedirect")
        }
        "URLRewrite" => (rewrite.map(|ApiRewrite(rewrite)| Filter::Rewrite(rewrite)), "urlRewrite"),
        "RequestMirror" => (mirror.map(Filter::Mirror), "requestMirror"),
        "CORS" => (cors.map(|Cors(cors)| Filter::Cors(cors)), "cors"),
        other => {
            fields.fault_at("type", format!("the filter {other:?} is not supported"));
            return None;
        }
    };
    if found.is_none() {
        fields.missing(field);
    }
    found
}

fn header_ops(fields: &mut Fields<'_, '_>) -> Option<HeaderOps> {
    let (set, add) = (fields.or_default("set"), fields.or_default("add"));
    Some(HeaderOps { set: by_name(set), add: by_name(add), remove: fields.or_default("remove") })
}

struct Header(String, String);

fn header(fields: &mut Fields<'_, '_>) -> Option<Header> {
    let (name, value) = (fields.req("name"), fields.req("value"));
    if let Some(value) = fields.get("value") {
        header_value(&value);
    }
    Some(Header(name?, value?))
}

/// Of several for one name the first counts, says the Gateway API.
fn by_name(list: Vec<Header>) -> BTreeMap<String, String> {
    let mut map = BTreeMap::new();
    for Header(name, value) in list {
        map.entry(name.to_ascii_lowercase()).or_insert(value);
    }
    map
}

struct ApiRedirect(Redirect);

fn redirect(fields: &mut Fields<'_, '_>) -> Option<ApiRedirect> {
    let scheme = fields.get("scheme").and_then(|value| {
        checked(&value, |text| match text {
            "http" | "https" => Ok(text.to_owned()),
            other => Err(format!("{other:?} is none of http, https")),
        })
    });
    let code: Option<u32> = fields.opt("statusCode");
    if code.is_some_and(|code| !matches!(code, 301 | 302 | 303 | 307 | 308)) {
        fields.fault_at("statusCode", "301, 302, 303, 307 or 308 is expected");
    }
    let path: Option<PathChange> = fields.opt("path");
    // A port that is not written is the scheme's, and without a scheme the request's.
    let derived =
        if scheme.is_some() { RedirectPort::ProtocolDefault } else { RedirectPort::RequestPort };
    let port = fields.opt("port").map_or(derived, RedirectPort::Number);
    let (uri, prefix_rewrite) = match path {
        Some(PathChange::Full(path)) => (Some(path), None),
        Some(PathChange::Prefix(prefix)) => (None, Some(prefix)),
        None => (None, None),
    };
    Some(ApiRedirect(Redirect {
        uri,
        prefix_rewrite,
        authority: fields.opt("hostname"),
        scheme,
        port: Some(port),
        code: code.and_then(|code| u16::try_from(code).ok()).unwrap_or(REDIRECT_CODE),
    }))
}

enum PathChange {
    Full(String),
    Prefix(String),
}

fn path_change(fields: &mut Fields<'_, '_>) -> Option<PathChange> {
    let kind: Option<String> = fields.req("type");
    let (full, prefix) = (fields.opt("replaceFullPath"), fields.opt("replacePrefixMatch"));
    let (found, field) = match kind?.as_str() {
        "ReplaceFullPath" => (full.map(PathChange::Full), "replaceFullPath"),
        "ReplacePrefixMatch" => (prefix.map(PathChange::Prefix), "replacePrefixMatch"),
        other => {
            let message = format!("{other:?} is none of ReplaceFullPath, ReplacePrefixMatch");
            fields.fault_at("type", message);
            return None;
        }
    };
    if found.is_none() {
        fields.missing(field);
    }
    found
}

struct ApiRewrite(Rewrite);

fn rewrite(fields: &mut Fields<'_, '_>) -> Option<ApiRewrite> {
    let path: Option<PathChange> = fields.opt("path");
    let uri = path.map(|path| match path {
        PathChange::Prefix(prefix) => {
            // Without the slash at its end; nothing left means that the prefix goes.
            let prefix = prefix.trim_end_matches('/');
            UriRewrite::Matched(if prefix.is_empty() { "/" } else { prefix }.to_owned())
        }
        PathChange::Full(path) => {
            UriRewrite::Regex { pattern: "/.*".to_owned(), replacement: path }
        }
    });
    Some(ApiRewrite(Rewrite { uri, authority: fields.opt("hostname") }))
}

fn mirror(fields: &mut Fields<'_, '_>) -> Option<ApiMirror> {
    let backend: Option<BackendRef> = fields.req("backendRef");
    let percent: Option<Percent> = fields.opt("percent");
    let fraction: Option<Fraction> = fields.opt("fraction");
    fields.at_most_one(&["percent", "fraction"]);
    let share = fraction.map(|Fraction(share)| share).or(percent);
    let share = share.or_else(|| Percent::new(100.0).ok());
    Some(ApiMirror { backend: backend?, share: share? })
}

struct Fraction(Percent);

fn fraction(fields: &mut Fields<'_, '_>) -> Option<Fraction> {
    let numerator: Option<u32> = fields.req("numerator");
    let denominator: Option<u32> = fields.opt("denominator");
    let share = 100.0 * f64::from(numerator?) / f64::from(denominator.unwrap_or(100));
    match Percent::new(share) {
        Ok(share) => Some(Fraction(share)),
        Err(_) => {
            fields.fault_at("numerator", "this is more than the denominator");
            None
        }
    }
}

struct Cors(CorsPolicy);

fn cors(fields: &mut Fields<'_, '_>) -> Option<Cors> {
    let origins: Vec<String> = fields.or_default("allowOrigins");
    let max_age: Option<u32> = fields.opt("maxAge");
    let allow_credentials: Option<bool> = fields.opt("allowCredentials");
    Some(Cors(CorsPolicy {
        allow_origins: origins.iter().map(|origin| self::origin(origin)).collect(),
        allow_methods: fields.or_default("allowMethods"),
        allow_headers: fields.or_default("allowHeaders"),
        expose_headers: fields.or_default("exposeHeaders"),
        max_age: max_age.filter(|age| *age > 0).map(|age| Duration::from_secs(age.into())),
        allow_credentials: allow_credentials.filter(|allowed| *allowed),
        unmatched_preflights: UnmatchedPreflights::Ignore,
    }))
}

fn origin(text: &str) -> StringMatch {
    match text.split_once('*') {
        None => StringMatch::Exact(text.to_owned()),
        Some(("", "")) => StringMatch::Regex(ANY_ORIGIN.to_owned()),
        Some((prefix, "")) => StringMatch::Prefix(prefix.to_owned()),
        Some(_) => {
            let parts: Vec<String> = text.split('*').map(regex::escape).collect();
            StringMatch::Regex(format!("^{}$", parts.join(".*")))
        }
    }
}
