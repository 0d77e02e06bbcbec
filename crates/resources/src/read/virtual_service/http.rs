//! Reads `http` of a VirtualService.

use std::collections::BTreeMap;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use sluis_nouns::{ObjectName, Percent, is_dns_label};

use super::super::forms::{read_fields, read_names};
use super::super::shared::check_labels;
use super::checks::{
    HeaderChange, changed_header, cors_header, cors_method, expression, grpc_status, header_value,
    is_authority, matched_header, retry_on,
};
use super::{entry, weighed, weight};
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
    RequestOps => request_ops,
    ResponseOps => response_ops,
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

/// Largest body of a direct response, and the one from which it is told of, as Istio has them.
const BODY_BYTES_MAX: usize = 1 << 20;
const BODY_BYTES_MANY: usize = 100 << 10;

/// Smallest share above none, as Istio has it: one request of a million.
const SHARE_MIN: f64 = 0.0001;

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
    check_conflicts(fields, &action);
    check_prefix_rewrite(fields, &action, &route.matches);
    check_authority(fields, &route);
    Some(HttpRoute { action, ..route })
}

/// What cannot be beside a route that does not forward. A delegate's rules take everything over.
fn check_conflicts(fields: &mut Fields<'_, '_>, action: &HttpAction) {
    if !matches!(action, HttpAction::Redirect(_) | HttpAction::DirectResponse(_)) {
        return;
    }
    for name in ["rewrite", "fault"] {
        if let Some(value) = fields.get(name) {
            value.fault::<()>("this is not possible in a route that does not forward");
        }
    }
    for name in ["mirror", "mirrors", "retries"] {
        if let Some(value) = fields.get(name) {
            value.warn("this has no effect in a route that does not forward");
        }
    }
}

/// Istio: a prefix can be rewritten only where prefixes are matched.
fn check_prefix_rewrite(fields: &mut Fields<'_, '_>, action: &HttpAction, matches: &[HttpMatch]) {
    let HttpAction::Redirect(Redirect { prefix_rewrite: Some(_), .. }) = action else { return };
    let is_other = |wanted: &HttpMatch| {
        wanted.uri.as_ref().is_some_and(|uri| !matches!(uri, StringMatch::Prefix(_)))
    };
    if matches.iter().any(is_other)
        && let Some(value) = fields.get("redirect")
    {
        value.fault::<()>("prefixRewrite needs matches of a uri by prefix");
    }
}

/// Istio: the host is rewritten in one place.
fn check_authority(fields: &mut Fields<'_, '_>, route: &HttpRoute) {
    let rewrite = route.rewrite.as_ref().and_then(|rewrite| rewrite.authority.as_ref());
    let request = &route.headers.request;
    let changed = request.set.keys().chain(request.add.keys()).filter(|name| is_authority(name));
    if changed.count() + usize::from(rewrite.is_some()) > 1 {
        fields.fault_at("headers.request", "the host is rewritten in more than one place");
    }
}

fn action(fields: &mut Fields<'_, '_>) -> Option<HttpAction> {
    fields.at_most_one(&["route", "redirect", "directResponse", "delegate"]);
    let route: Option<Vec<WeightedDestination>> =
        fields.get("route").filter(Value::is_set).and_then(|value| value.read());
    let route = weighed(fields, route, |to| &mut to.weight);
    let redirect = fields.opt("redirect").map(HttpAction::Redirect);
    let response = fields.opt("directResponse").map(HttpAction::DirectResponse);
    let delegate = fields.opt("delegate").map(|Delegate(name)| HttpAction::Delegate(name));
    let written = ["route", "redirect", "directResponse", "delegate"];
    let empty = |value: Value<'_>| value.items().is_some_and(|items| items.is_empty());
    if fields.get("route").is_none_or(empty) && !written[1..].iter().any(|name| fields.has(name)) {
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
            matched_header(header, &value);
        }
    }
    if let Some(value) = fields.get("sourceLabels") {
        check_labels(&value);
    }
    if let Some(value) = fields.get("sourceNamespace")
        && value.read::<String>().is_some_and(|text| !text.is_empty() && !is_dns_label(&text))
    {
        value.fault::<()>("this is not a namespace: it must be a DNS label");
    }
    let text = |fields: &mut Fields<'_, '_>, name| -> Option<StringMatch> {
        // An empty section compares nothing.
        fields.get(name).filter(Value::is_set).and_then(|value| value.read())
    };
    Some(HttpMatch {
        at: fields.at(),
        name: fields.opt("name"),
        uri: fields.opt("uri").and_then(|Path(path)| path),
        ignore_uri_case: fields.or_default("ignoreUriCase"),
        scheme: text(fields, "scheme"),
        method: text(fields, "method"),
        authority: text(fields, "authority"),
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
            // Istio takes the regex `*`, which is none, for presence.
            let is_star = |value: &Value<'_>| {
                let regex = entry(value, "regex").and_then(|regex| regex.read::<String>());
                regex.as_deref() == Some("*")
            };
            let presence = value.is_null()
                || value.entries().is_some_and(|map| map.is_empty())
                || is_star(value);
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

/// `uri`, whose prefix may be empty, unlike that of other texts.
struct Path(Option<StringMatch>);

impl Read for Path {
    fn read(value: &Value<'_>) -> Option<Self> {
        if !value.is_set() && value.entries().is_some() {
            return Some(Self(None));
        }
        let prefix = entry(value, "prefix").and_then(|prefix| prefix.read::<String>());
        if prefix.as_deref() == Some("") && value.entries()?.len() == 1 {
            return Some(Self(Some(StringMatch::Prefix("/".to_owned()))));
        }
        value.read().map(|path| Self(Some(path)))
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
    let possible = |code| matches!(code, 0 | 301 | 302 | 303 | 307 | 308);
    let code = status(fields, "redirectCode", possible).filter(|code| *code != 0);
    let written = ["uri", "prefixRewrite", "authority", "port", "derivePort", "scheme"]
        .map(|name| fields.get(name).is_some_and(|value| value.is_set()));
    if !written.contains(&true) {
        fields
            .value()
            .fault::<()>("a redirect must change the uri, the host, the scheme or the port");
    }
    if let Some(value) = fields.get("scheme")
        && value
            .read::<String>()
            .is_some_and(|text| !matches!(text.as_str(), "" | "http" | "https"))
    {
        value.fault::<()>("a scheme is http or https");
    }
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
    let bytes = match &body {
        Some(DirectBody::Text(text)) => text.len(),
        Some(DirectBody::Bytes(bytes)) => bytes.len(),
        None => 0,
    };
    if let Some(value) = fields.get("body") {
        if bytes > BODY_BYTES_MAX {
            value.fault::<()>("a body must not be larger than 1 MiB");
        } else if bytes > BODY_BYTES_MANY {
            value.warn("a body larger than 100 KiB slows every change of the configuration");
        }
    }
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
    let written = ["uri", "uriRegexRewrite", "authority"]
        .map(|name| fields.get(name).is_some_and(|value| value.is_set()));
    if !written.contains(&true) {
        fields.value().fault::<()>("one of uri, uriRegexRewrite and authority is required");
    }
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
    let replacement: Option<String> = fields.req("rewrite");
    if replacement.as_deref() == Some("")
        && let Some(value) = fields.get("rewrite")
    {
        value.fault::<()>("this must not be empty");
    }
    Some(RegexRewrite { pattern: pattern?, replacement: replacement? })
}

fn retries(fields: &mut Fields<'_, '_>) -> Option<Retries> {
    let attempts = fields.or_default("attempts");
    if attempts == 0 {
        for name in ["perTryTimeout", "retryOn", "retryRemoteLocalities"] {
            if let Some(value) = fields.get(name) {
                value.fault::<()>("attempts is 0, which turns retries off");
            }
        }
    }
    if let Some(value) = fields.get("retryOn") {
        retry_on(&value);
    }
    Some(Retries {
        attempts,
        per_try_timeout: fields.opt("perTryTimeout"),
        retry_on: fields.opt("retryOn"),
        retry_remote_localities: fields.opt("retryRemoteLocalities"),
        retry_ignore_previous_hosts: fields.opt("retryIgnorePreviousHosts"),
        backoff: fields.opt("backoff"),
    })
}

fn fault_injection(fields: &mut Fields<'_, '_>) -> Option<FaultInjection> {
    if !(fields.has("delay") || fields.has("abort")) {
        fields.value().fault::<()>("one of delay and abort is required");
    }
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
    let percent = percentage(fields, "percentage", &["percent"]);
    if let Some(value) = fields.get("percentage").and_then(|share| entry(&share, "value"))
        && value.read::<f64>().is_some_and(|share| share > 0.0 && share < SHARE_MIN)
    {
        value.fault::<()>(format!("this must be 0, or at least {SHARE_MIN}"));
    }
    percent
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
    // Istio refuses it too.
    fields.unsupported(&["exponentialDelay"]);
    if !(fields.has("fixedDelay") || fields.has("exponentialDelay")) {
        fields.missing("fixedDelay");
    }
    Some(Delay { kind: fixed.or(exponential)?, percentage })
}

fn abort(fields: &mut Fields<'_, '_>) -> Option<HttpAbort> {
    fields.at_most_one(&["httpStatus", "grpcStatus", "http2Error"]);
    fields.unsupported(&["http2Error"]);
    let http_status = status(fields, "httpStatus", |code| (200..=599).contains(&code));
    let grpc = fields.opt("grpcStatus");
    if let Some(value) = fields.get("grpcStatus") {
        grpc_status(&value);
    }
    if !(fields.has("httpStatus") || fields.has("grpcStatus")) {
        fields.value().warn("without httpStatus and grpcStatus nothing is aborted");
    }
    let percentage = fault_percentage(fields);
    Some(HttpAbort { http_status, grpc_status: grpc, percentage })
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
    for (name, check) in [
        ("allowMethods", cors_method as fn(&Value<'_>)),
        ("allowHeaders", cors_header),
        ("exposeHeaders", cors_header),
    ] {
        for value in fields.get(name).and_then(|value| value.items()).unwrap_or_default() {
            check(&value);
        }
    }
    let max_age: Option<std::time::Duration> = fields.opt("maxAge");
    if let Some(value) = fields.get("maxAge")
        && max_age.is_some_and(|age| age.subsec_nanos() > 0)
    {
        value.fault::<()>("whole seconds are expected");
    }
    let mut allow_origins: Vec<StringMatch> = fields.or_default("allowOrigins");
    if let Some(value) = fields.get("allowOrigins")
        && allow_origins.contains(&StringMatch::Exact(String::new()))
    {
        value.fault::<()>("an origin must not be empty");
    }
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
        max_age,
        allow_credentials: fields.opt("allowCredentials"),
        unmatched_preflights: fields.or_default("unmatchedPreflights"),
    })
}

fn header_changes(fields: &mut Fields<'_, '_>) -> Option<HeaderChanges> {
    let RequestOps(request) = fields.or_default("request");
    let ResponseOps(response) = fields.or_default("response");
    Some(HeaderChanges { request, response })
}

#[derive(Default)]
struct RequestOps(HeaderOps);

fn request_ops(fields: &mut Fields<'_, '_>) -> Option<RequestOps> {
    header_ops(fields, HeaderChange::OfRequest).map(RequestOps)
}

#[derive(Default)]
struct ResponseOps(HeaderOps);

fn response_ops(fields: &mut Fields<'_, '_>) -> Option<ResponseOps> {
    header_ops(fields, HeaderChange::Other).map(ResponseOps)
}

fn header_ops(fields: &mut Fields<'_, '_>, change: HeaderChange) -> Option<HeaderOps> {
    for list in ["set", "add"] {
        for (name, value) in fields.get(list).and_then(|value| value.entries()).unwrap_or_default()
        {
            changed_header(name, &value, change);
            header_value(&value);
        }
    }
    for value in fields.get("remove").and_then(|value| value.items()).unwrap_or_default() {
        if let Some(name) = value.read::<String>() {
            changed_header(&name, &value, HeaderChange::Other);
        }
    }
    Some(HeaderOps {
        set: fields.or_default("set"),
        add: fields.or_default("add"),
        remove: fields.or_default("remove"),
    })
}

/// `delegate: {name: …, namespace: …}`.
struct Delegate(ObjectName);

fn delegate(fields: &mut Fields<'_, '_>) -> Option<Delegate> {
    let name: Option<String> = fields.req("name");
    let namespace: Option<String> = fields.opt("namespace");
    let own = || fields.value().doc.namespace.clone();
    Some(Delegate(ObjectName::new(namespace.unwrap_or_else(own), name?)))
}
