//! HTTP routes of VirtualServices.
//!
//! In:    the `http` list of one VirtualService, and where the requests come in.
//! Out:   routes in order, each with its matches, action and targets.
//! Never: leaves out in silence what it does not carry out.

mod action;
mod policy;

use std::collections::BTreeMap;

use sluis_model::{Owned, is_gateway_api};
use sluis_resources::{GatewayRef, HttpMatch, HttpRoute, StringMatch, VirtualService};

use super::{Selection, config_path, delegate, destination::ClusterKey};
use crate::{
    ClaimMatch, Fault, Forward, HeaderChanges, HeaderMatch, PathMatch, RequestMatch, RouteAction,
    RouteInput, Target, TextMatch,
};

/// What the names of headers begin with that stand for claims (Istio's notation).
const CLAIMS: &str = "@request.auth.claims";

/// Where requests come in.
#[derive(Clone, Copy)]
pub(super) struct Entrance<'a> {
    /// The mesh, or one gateway.
    pub(super) gateway: &'a GatewayRef,
    /// The port as users know it.
    pub(super) port: u16,
    /// Whether the requests come under TLS.
    pub(super) is_tls: bool,
}

/// The routes of a VirtualService for an entrance; `None` when it has none there.
///
/// A route that claims every request is the last: what is written behind it is never used.
pub(super) fn routes(
    selection: &mut Selection<'_>,
    owned: &Owned<VirtualService>,
    entrance: Entrance<'_>,
) -> Option<Vec<RouteInput>> {
    let mut routes = Vec::new();
    'list: for route in delegate::expand(selection, owned) {
        let matches: Vec<Option<&HttpMatch>> = if route.matches.is_empty() {
            vec![None]
        } else {
            let holds = |wanted: &&HttpMatch| is_here(selection, wanted, entrance);
            route.matches.iter().filter(holds).map(Some).collect()
        };
        let (matches, lost): (Vec<_>, Vec<_>) = matches.into_iter().partition(|wanted| {
            *entrance.gateway != GatewayRef::Mesh || !wanted.is_some_and(reads_claims)
        });
        if !lost.is_empty() {
            let message = "claims of tokens are known at gateways only: the match is left out here";
            let fault = Fault::error(route.at.clone(), message.to_owned());
            selection.fault(owned.meta(), fault.field("match.headers"));
        }
        if matches.is_empty() {
            continue;
        }
        let meta = owned.meta();
        let (action, headers) = action::select(selection, meta, &route, entrance);
        let (fault, cors) = (policy::fault(selection, meta, &route), policy::cors(&route));
        for wanted in matches {
            let mut matches = wanted.map_or_else(match_all, request_match);
            let mut action = action.clone();
            if is_gateway_api(meta) {
                gateway_semantics(&mut matches, &mut action);
            }
            let made = RouteInput {
                name: name(&route, wanted),
                operation: operation(&action, &matches, &meta.name.name, entrance.port),
                matches,
                action,
                headers: headers.clone(),
                config: Some(config_path("virtual-service", meta)),
                stat_prefix: wanted.and_then(|wanted| wanted.stat_prefix.clone()),
                fault: fault.clone(),
                cors: cors.clone(),
                guard: None,
            };
            let is_last = is_catch_all(&made);
            routes.push(made);
            if is_last {
                break 'list;
            }
        }
    }
    (!routes.is_empty()).then_some(routes)
}

/// What the Gateway API means otherwise than VirtualService, as Istio carries it out: prefixes are of
/// whole segments, a prefix that is replaced by `/` goes with its slash, and a backend that is not there
/// is our own error.
fn gateway_semantics(matches: &mut RequestMatch, action: &mut RouteAction) {
    let mut prefix = "";
    if let PathMatch::Prefix(path) = &matches.path
        && path != "/"
    {
        matches.path = PathMatch::Segments(path.trim_end_matches('/').to_owned());
    }
    if let PathMatch::Segments(path) = &matches.path {
        prefix = path;
    }
    let RouteAction::Forward(forward) = action else { return };
    forward.is_missing_internal = true;
    if forward.path_rewrite.as_deref() == Some("/") {
        forward.path_rewrite = None;
        let pattern = format!("^{}(/?)(.*)", regex::escape(prefix));
        forward.regex_rewrite = Some((pattern, r"/\2".to_owned()));
    }
}

/// The route of a service that no VirtualService says anything about.
pub(super) fn default_route(selection: &Selection<'_>, key: &ClusterKey) -> RouteInput {
    let headers = HeaderChanges::default();
    let target = Target { cluster: key.name(), weight: 1, headers, host_rewrite: None };
    let matches = match_all();
    let action = RouteAction::Forward(Forward {
        targets: vec![target],
        retries: policy::retries(selection, None, false),
        hashes: selection.hash(key).into_iter().collect(),
        ..Forward::default()
    });
    RouteInput {
        name: "default".to_owned(),
        operation: operation(&action, &matches, "", key.port),
        matches,
        action,
        headers: HeaderChanges::default(),
        config: None,
        stat_prefix: None,
        fault: None,
        cors: None,
        guard: None,
    }
}

/// Whether a route claims every request.
pub(super) fn is_catch_all(route: &RouteInput) -> bool {
    let path = match &route.matches.path {
        PathMatch::Prefix(prefix) => prefix == "/",
        PathMatch::Regex(pattern) => pattern == ".*",
        PathMatch::Exact(_) | PathMatch::Segments(_) => false,
    };
    path && route.matches.headers.is_empty()
        && route.matches.query.is_empty()
        && route.matches.claims.is_empty()
}

/// Whether a match looks at claims of a token.
fn reads_claims(wanted: &HttpMatch) -> bool {
    let mut all = wanted.headers.keys().chain(wanted.without_headers.keys());
    all.any(|name| claim_path(name).is_some())
}

/// Whether a match bears on an entrance, as far as can be told before there is a request.
///
/// As in Istio: a match that names gateways does not look at the client; and at a gateway, "the
/// client" is the gateway itself, so a match on labels that it has not is left out there.
fn is_here(selection: &Selection<'_>, wanted: &HttpMatch, entrance: Entrance<'_>) -> bool {
    if wanted.port.is_some_and(|port| port != entrance.port) {
        return false;
    }
    if !wanted.gateways.is_empty() {
        return wanted.gateways.contains(entrance.gateway);
    }
    selection.is_source(&wanted.source_labels, wanted.source_namespace.as_deref())
}

/// Istio's name for a route: that of the rule, a dot, and that of the match where it has one.
fn name(route: &HttpRoute, wanted: Option<&HttpMatch>) -> String {
    let of_rule = route.name.clone().unwrap_or_default();
    match wanted.and_then(|wanted| wanted.name.as_deref()) {
        Some(wanted) => format!("{of_rule}.{wanted}"),
        None => of_rule,
    }
}

/// Istio's name for what a route does: the lone destination, else the VirtualService, and the path.
fn operation(action: &RouteAction, matches: &RequestMatch, owner: &str, port: u16) -> String {
    let path = match &matches.path {
        PathMatch::Prefix(prefix) | PathMatch::Segments(prefix) => format!("{prefix}*"),
        PathMatch::Exact(path) => path.clone(),
        PathMatch::Regex(pattern) => pattern.clone(),
    };
    if let RouteAction::Forward(forward) = action
        && let [target] = forward.targets.as_slice()
        && let [_, port, _, host] = target.cluster.split('|').collect::<Vec<_>>().as_slice()
    {
        return format!("{host}:{port}{path}");
    }
    format!("{owner}:{port}{path}")
}

pub(super) fn match_all() -> RequestMatch {
    RequestMatch {
        path: PathMatch::Prefix("/".to_owned()),
        is_case_ignored: false,
        headers: Vec::new(),
        query: Vec::new(),
        claims: Vec::new(),
    }
}

fn request_match(wanted: &HttpMatch) -> RequestMatch {
    let mut matches = match_all();
    matches.is_case_ignored = wanted.ignore_uri_case;
    match &wanted.uri {
        Some(StringMatch::Exact(path)) => matches.path = PathMatch::Exact(path.clone()),
        Some(StringMatch::Prefix(prefix)) => matches.path = PathMatch::Prefix(prefix.clone()),
        Some(StringMatch::Regex(pattern)) => matches.path = PathMatch::Regex(pattern.clone()),
        None => {}
    }
    let listed = |headers: &BTreeMap<String, Option<StringMatch>>, is_inverted: bool| {
        headers
            .iter()
            .filter(|(name, _)| claim_path(name).is_none())
            .map(|(name, value)| header(name, value.as_ref(), is_inverted))
            .collect::<Vec<_>>()
    };
    matches.headers.extend(listed(&wanted.headers, false));
    matches.headers.extend(listed(&wanted.without_headers, true));
    for (headers, is_inverted) in [(&wanted.headers, false), (&wanted.without_headers, true)] {
        for (name, value) in headers {
            let path = claim_path(name).into_iter();
            let value = text(value.as_ref());
            matches.claims.extend(path.map(|path| ClaimMatch {
                path,
                value: value.clone(),
                is_inverted,
            }));
        }
    }
    matches.headers.sort_by(|a, b| a.name.cmp(&b.name));
    for (name, value) in [
        (":method", &wanted.method),
        (":authority", &wanted.authority),
        (":scheme", &wanted.scheme),
    ] {
        if value.is_some() {
            matches.headers.push(header(name, value.as_ref(), false));
        }
    }
    matches.query = wanted
        .query_params
        .iter()
        .map(|(name, value)| (name.clone(), text(value.as_ref())))
        .collect();
    matches
}

/// The claim that a header stands for: `@request.auth.claims.a.b` and `@request.auth.claims[a][b]`.
fn claim_path(name: &str) -> Option<Vec<String>> {
    let (start, rest) = name.split_at_checked(CLAIMS.len())?;
    if !start.eq_ignore_ascii_case(CLAIMS) {
        return None;
    }
    let split = |text: &str, by: &str| text.split(by).map(str::to_owned).collect();
    match rest.strip_prefix('.') {
        Some(rest) => Some(split(rest, ".")),
        None => Some(split(rest.strip_prefix('[')?.strip_suffix(']')?, "][")),
    }
}

fn header(name: &str, value: Option<&StringMatch>, is_inverted: bool) -> HeaderMatch {
    HeaderMatch { name: name.to_owned(), value: text(value), is_inverted }
}

fn text(value: Option<&StringMatch>) -> TextMatch {
    match value {
        None => TextMatch::Present,
        Some(StringMatch::Exact(text)) => TextMatch::Exact(text.clone()),
        Some(StringMatch::Prefix(text)) => TextMatch::Prefix(text.clone()),
        Some(StringMatch::Regex(text)) => TextMatch::Regex(text.clone()),
    }
}
