//! Reads `http` of a VirtualService.

use std::collections::BTreeMap;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use sluis_nouns::{ObjectName, Percent};

use super::super::shared::some_of;
use super::super::{read_fields, read_names};
use super::{weighed, weight};
use crate::kinds::virtual_service::{
    CorsPolicy, Delay, DelayKind, Destination, DirectBody, DirectResponse, FaultInjection,
    HeaderChanges, HeaderOps, HttpAbort, HttpAction, HttpMatch, HttpRoute, Mirror, Redirect,
    RedirectPort, Retries, Rewrite, StringMatch, UnmatchedPreflights, UriRewrite,
    WeightedDestination,
};
use crate::value::{Fields, Read, Value};

read_fields! {
    HttpRoute => http_route,
    HttpMatch => http_match,
    StringMatch => string_match,
    WeightedDestination => weighted_destination,
    Redirect => redirect,
    DirectResponse => direct_response,
    DirectBody => direct_body,
    Rewrite => rewrite,
    RegexRewrite => regex_rewrite,
    Retries => retries,
    FaultInjection => fault_injection,
    Delay => delay,
    HttpAbort => abort,
    Share => share,
    Mirror => mirror,
    CorsPolicy => cors_policy,
    HeaderChanges => header_changes,
    HeaderOps => header_ops,
    Delegate => delegate,
}

read_names! {
    UnmatchedPreflights {
        "UNSPECIFIED" => UnmatchedPreflights::Forward,
        "FORWARD" => UnmatchedPreflights::Forward,
        "IGNORE" => UnmatchedPreflights::Ignore,
    }
    RedirectPort {
        "FROM_PROTOCOL_DEFAULT" => RedirectPort::ProtocolDefault,
        "FROM_REQUEST_PORT" => RedirectPort::RequestPort,
    }
}

/// Longest expression after compiling; a longer one is a mistake or an attack on memory.
const REGEX_BYTES_MAX: usize = 1 << 20;

fn http_route(fields: &mut Fields<'_, '_>) -> Option<HttpRoute> {
    // Of Istio 1.0; upgrades are always possible since.
    fields.without_effect(&["websocketUpgrade"]);
    let action = action(fields);
    let route = HttpRoute {
        at: fields.at(),
        name: fields.opt("name"),
        matches: fields.or_default("match"),
        action: HttpAction::Route(Vec::new()),
        rewrite: fields.opt("rewrite"),
        timeout: fields.opt("timeout"),
        retries: fields.opt("retries"),
        fault: fields.opt("fault"),
        mirrors: mirrors(fields),
        cors: fields.opt("corsPolicy"),
        headers: fields.or_default("headers"),
    };
    let action = action?;
    let forbidden: &[&'static str] = match &action {
        HttpAction::Route(_) => &[],
        HttpAction::Redirect(_) => &["rewrite", "fault"],
        HttpAction::DirectResponse(_) => &["rewrite", "mirror", "mirrors"],
        // The delegate's rules take them over.
        HttpAction::Delegate(_) => &[],
    };
    for name in forbidden {
        if let Some(value) = fields.get(name) {
            value.warn("this has no effect in a route that does not forward");
        }
    }
    Some(HttpRoute { action, ..route })
}

fn action(fields: &mut Fields<'_, '_>) -> Option<HttpAction> {
    fields.at_most_one(&["route", "redirect", "directResponse", "delegate"]);
    let route: Option<Vec<WeightedDestination>> =
        fields.has("route").then(|| some_of(fields, "route")).flatten();
    let route = weighed(fields, route, |to| &mut to.weight);
    let redirect = fields.opt("redirect").map(HttpAction::Redirect);
    let response = fields.opt("directResponse").map(HttpAction::DirectResponse);
    let delegate = fields.opt("delegate").map(|Delegate(name)| HttpAction::Delegate(name));
    let written = ["route", "redirect", "directResponse", "delegate"];
    if !written.into_iter().any(|name| fields.has(name)) {
        fields.fault_at("route", "one of route, redirect, directResponse and delegate is required");
    }
    route.map(HttpAction::Route).or(redirect).or(response).or(delegate)
}

fn http_match(fields: &mut Fields<'_, '_>) -> Option<HttpMatch> {
    let headers: Headers = fields.or_default("headers");
    let without: Headers = fields.or_default("withoutHeaders");
    let query: Headers = fields.or_default("queryParams");
    let lower = |Headers(map): Headers| {
        map.into_iter().map(|(name, value)| (name.to_ascii_lowercase(), value)).collect()
    };
    for name in ["headers", "withoutHeaders"] {
        for (header, value) in
            fields.get(name).and_then(|value| value.entries()).unwrap_or_default()
        {
            if !is_header_name(header) {
                value.fault::<()>(format!("{header:?} is not the name of a header"));
            }
        }
    }
    Some(HttpMatch {
        at: fields.at(),
        name: fields.opt("name"),
        uri: fields.opt("uri"),
        ignore_uri_case: fields.or_default("ignoreUriCase"),
        scheme: fields.opt("scheme"),
        method: fields.opt("method"),
        authority: fields.opt("authority"),
        headers: lower(headers),
        without_headers: lower(without),
        query_params: query.0,
        port: fields.opt("port"),
        gateways: fields.or_default("gateways"),
        source_labels: fields.or_default("sourceLabels"),
        source_namespace: fields.opt("sourceNamespace"),
        stat_prefix: fields.opt("statPrefix"),
    })
}

/// Names with what their values are compared with; `{}` asks only for presence.
#[derive(Default)]
struct Headers(BTreeMap<String, Option<StringMatch>>);

impl Read for Headers {
    fn read(value: &Value<'_>) -> Option<Self> {
        let read = |(name, value): &(&str, Value<'_>)| {
            let presence = value.is_null() || value.entries().is_some_and(|map| map.is_empty());
            let wanted = if presence { None } else { Some(value.read()?) };
            Some(((*name).to_owned(), wanted))
        };
        let all: Vec<_> = value.entries()?.iter().map(read).collect();
        Some(Self(all.into_iter().collect::<Option<_>>()?))
    }
}

fn string_match(fields: &mut Fields<'_, '_>) -> Option<StringMatch> {
    fields.at_most_one(&["exact", "prefix", "regex"]);
    let exact = fields.opt("exact").map(StringMatch::Exact);
    let prefix: Option<String> = fields.opt("prefix");
    let regex = fields.get("regex").and_then(|value| expression(&value));
    if !["exact", "prefix", "regex"].into_iter().any(|name| fields.has(name)) {
        return fields.value().fault("one of exact, prefix and regex is required");
    }
    if prefix.as_deref() == Some("") {
        return fields.get("prefix")?.fault("a prefix must not be empty");
    }
    exact.or(prefix.map(StringMatch::Prefix)).or(regex.map(StringMatch::Regex))
}

/// Reads a regular expression and sees that it compiles.
fn expression(value: &Value<'_>) -> Option<String> {
    let text: String = value.read()?;
    match regex::RegexBuilder::new(&text).size_limit(REGEX_BYTES_MAX).build() {
        Ok(_) => Some(text),
        Err(regex::Error::CompiledTooBig(_)) => value.fault("this regular expression is too large"),
        Err(_) => value.fault(format!("{text:?} is not a regular expression")),
    }
}

fn weighted_destination(fields: &mut Fields<'_, '_>) -> Option<WeightedDestination> {
    let destination = fields.req("destination");
    let weight = weight(fields);
    let headers = fields.or_default("headers");
    Some(WeightedDestination { destination: destination?, weight, headers })
}

fn redirect(fields: &mut Fields<'_, '_>) -> Option<Redirect> {
    fields.at_most_one(&["port", "derivePort"]);
    fields.at_most_one(&["uri", "prefixRewrite"]);
    let number = fields.opt("port").map(RedirectPort::Number);
    let derived: Option<RedirectPort> = fields.opt("derivePort");
    let code = status(fields, "redirectCode", |code| matches!(code, 301 | 302 | 303 | 307 | 308));
    Some(Redirect {
        uri: fields.opt("uri"),
        prefix_rewrite: fields.opt("prefixRewrite"),
        authority: fields.opt("authority"),
        scheme: fields.opt("scheme"),
        port: number.or(derived),
        code: code.unwrap_or(301),
    })
}

/// Reads a status code that a check accepts.
fn status(
    fields: &mut Fields<'_, '_>,
    name: &'static str,
    accept: impl Fn(u32) -> bool,
) -> Option<u16> {
    let value = fields.get(name)?;
    let code: u32 = value.read()?;
    if !accept(code) {
        return value.fault(format!("{code} is not a status code that is possible here"));
    }
    u16::try_from(code).ok()
}

fn direct_response(fields: &mut Fields<'_, '_>) -> Option<DirectResponse> {
    if !fields.has("status") {
        fields.missing("status");
    }
    let status = status(fields, "status", |code| (200..=599).contains(&code));
    let body = fields.opt("body");
    Some(DirectResponse { status: status?, body })
}

fn direct_body(fields: &mut Fields<'_, '_>) -> Option<DirectBody> {
    fields.at_most_one(&["string", "bytes"]);
    let text = fields.opt("string").map(DirectBody::Text);
    let bytes = fields.get("bytes").and_then(|value| {
        let text: String = value.read()?;
        match STANDARD.decode(text.trim()) {
            Ok(bytes) => Some(DirectBody::Bytes(bytes)),
            Err(_) => value.fault("this is not base64"),
        }
    });
    text.or(bytes)
}

fn rewrite(fields: &mut Fields<'_, '_>) -> Option<Rewrite> {
    fields.at_most_one(&["uri", "uriRegexRewrite"]);
    let matched = fields.opt("uri").map(UriRewrite::Matched);
    let regex = fields
        .opt("uriRegexRewrite")
        .map(|RegexRewrite { pattern, replacement }| UriRewrite::Regex { pattern, replacement });
    Some(Rewrite { uri: matched.or(regex), authority: fields.opt("authority") })
}

struct RegexRewrite {
    pattern: String,
    replacement: String,
}

fn regex_rewrite(fields: &mut Fields<'_, '_>) -> Option<RegexRewrite> {
    if !fields.has("match") {
        fields.missing("match");
    }
    let pattern = fields.get("match").and_then(|value| expression(&value));
    let replacement = fields.req("rewrite");
    Some(RegexRewrite { pattern: pattern?, replacement: replacement? })
}

fn retries(fields: &mut Fields<'_, '_>) -> Option<Retries> {
    Some(Retries {
        attempts: fields.or_default("attempts"),
        per_try_timeout: fields.opt("perTryTimeout"),
        retry_on: fields.opt("retryOn"),
        retry_remote_localities: fields.opt("retryRemoteLocalities"),
        retry_ignore_previous_hosts: fields.opt("retryIgnorePreviousHosts"),
        backoff: fields.opt("backoff"),
    })
}

fn fault_injection(fields: &mut Fields<'_, '_>) -> Option<FaultInjection> {
    Some(FaultInjection { delay: fields.opt("delay"), abort: fields.opt("abort") })
}

/// `percentage: {value: …}`.
struct Share(Percent);

fn share(fields: &mut Fields<'_, '_>) -> Option<Share> {
    Some(Share(fields.req("value")?))
}

/// Reads `percentage` of a fault, and its older form.
///
/// Istio injects nothing where nothing is written, which nobody means: so it is said.
fn fault_percentage(fields: &mut Fields<'_, '_>) -> Percent {
    if !(fields.has("percentage") || fields.has("percent")) {
        fields.value().warn("without a percentage no request is touched, as in Istio");
        return Percent::default();
    }
    percentage(fields, "percentage", &["percent"])
}

/// Reads `percentage` and its older whole-number forms; nothing written means all.
fn percentage(fields: &mut Fields<'_, '_>, new: &'static str, old: &[&'static str]) -> Percent {
    let share = fields.opt(new).map(|Share(percent)| percent);
    let mut whole = None;
    for name in old {
        whole = fields.opt(name).or(whole);
    }
    share.or(whole).unwrap_or(Percent::ALL)
}

fn delay(fields: &mut Fields<'_, '_>) -> Option<Delay> {
    fields.at_most_one(&["fixedDelay", "exponentialDelay"]);
    let percentage = fault_percentage(fields);
    let fixed = fields.opt("fixedDelay").map(DelayKind::Fixed);
    let exponential = fields.opt("exponentialDelay").map(DelayKind::Exponential);
    if !(fields.has("fixedDelay") || fields.has("exponentialDelay")) {
        fields.missing("fixedDelay");
    }
    Some(Delay { kind: fixed.or(exponential)?, percentage })
}

fn abort(fields: &mut Fields<'_, '_>) -> Option<HttpAbort> {
    fields.at_most_one(&["httpStatus", "grpcStatus", "http2Error"]);
    fields.unsupported(&["http2Error"]);
    let http_status = status(fields, "httpStatus", |code| (200..=599).contains(&code));
    let grpc_status = fields.opt("grpcStatus");
    let percentage = fault_percentage(fields);
    Some(HttpAbort { http_status, grpc_status, percentage })
}

/// Reads `mirror` with its percentages, or the newer list `mirrors`.
fn mirrors(fields: &mut Fields<'_, '_>) -> Vec<Mirror> {
    fields.at_most_one(&["mirror", "mirrors"]);
    let percentage = percentage(fields, "mirrorPercentage", &["mirrorPercent", "mirror_percent"]);
    let single: Option<Destination> = fields.opt("mirror");
    let mut mirrors: Vec<Mirror> = fields.or_default("mirrors");
    mirrors.extend(single.map(|destination| Mirror { destination, percentage }));
    mirrors
}

fn mirror(fields: &mut Fields<'_, '_>) -> Option<Mirror> {
    let destination = fields.req("destination");
    let percentage = percentage(fields, "percentage", &[]);
    Some(Mirror { destination: destination?, percentage })
}

fn cors_policy(fields: &mut Fields<'_, '_>) -> Option<CorsPolicy> {
    let mut allow_origins: Vec<StringMatch> = fields.or_default("allowOrigins");
    let old: Vec<String> = fields.or_default("allowOrigin");
    allow_origins.extend(old.into_iter().map(|origin| match origin.as_str() {
        "*" => StringMatch::Regex(".*".to_owned()),
        _ => StringMatch::Exact(origin),
    }));
    Some(CorsPolicy {
        allow_origins,
        allow_methods: fields.or_default("allowMethods"),
        allow_headers: fields.or_default("allowHeaders"),
        expose_headers: fields.or_default("exposeHeaders"),
        max_age: fields.opt("maxAge"),
        allow_credentials: fields.opt("allowCredentials"),
        unmatched_preflights: fields.or_default("unmatchedPreflights"),
    })
}

fn header_changes(fields: &mut Fields<'_, '_>) -> Option<HeaderChanges> {
    let (request, response) = (fields.or_default("request"), fields.or_default("response"));
    Some(HeaderChanges { request, response })
}

fn header_ops(fields: &mut Fields<'_, '_>) -> Option<HeaderOps> {
    for list in ["set", "add"] {
        for (name, value) in fields.get(list).and_then(|value| value.entries()).unwrap_or_default()
        {
            check_header(name, &value);
            if value.read::<String>().is_some_and(|text| text.contains(['\r', '\n', '\0'])) {
                value.fault::<()>("a header's value must be one line");
            }
        }
    }
    for value in fields.get("remove").and_then(|value| value.items()).unwrap_or_default() {
        if let Some(name) = value.read::<String>() {
            check_header(&name, &value);
        }
    }
    Some(HeaderOps {
        set: fields.or_default("set"),
        add: fields.or_default("add"),
        remove: fields.or_default("remove"),
    })
}

fn check_header(name: &str, value: &Value<'_>) {
    if !is_header_name(name) {
        value.fault::<()>(format!("{name:?} is not the name of a header"));
    }
}

/// A token of RFC 9110 §5.6.2, or a pseudo header such as `:authority`.
fn is_header_name(name: &str) -> bool {
    let token = name.strip_prefix(':').unwrap_or(name);
    let allowed = |b: u8| b.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&b);
    !token.is_empty() && token.bytes().all(allowed)
}

/// `delegate: {name: …, namespace: …}`.
struct Delegate(ObjectName);

fn delegate(fields: &mut Fields<'_, '_>) -> Option<Delegate> {
    let name: Option<String> = fields.req("name");
    let namespace: Option<String> = fields.opt("namespace");
    let own = || fields.value().doc.namespace.clone();
    Some(Delegate(ObjectName::new(namespace.unwrap_or_else(own), name?)))
}
