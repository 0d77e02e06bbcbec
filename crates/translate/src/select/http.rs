//! HTTP routes of VirtualServices.
//!
//! In:    the `http` list of one VirtualService, and where the requests come in.
//! Out:   routes in order, each with its matches, action and targets.
//! Never: leaves out in silence what it does not carry out.

use std::collections::BTreeMap;

use sluis_model::Owned;
use sluis_nouns::Percent;
use sluis_resources::{
    DirectBody, GatewayRef, HeaderOps, HttpAction, HttpMatch, HttpRoute, Meta,
    Redirect as WrittenRedirect, RedirectPort, Retries as WrittenRetries, StringMatch, UriRewrite,
    VirtualService, WeightedDestination,
};

use super::{Selection, config_path, names_gateway};
use crate::{
    Fault, Forward, HeaderChanges, HeaderEdits, HeaderMatch, PathMatch, Redirect, RequestMatch,
    Retries, RouteAction, RouteInput, Target, TextMatch,
};

/// Istio's conditions for another try, where none are written.
const RETRY_ON: &str =
    "connect-failure,refused-stream,unavailable,cancelled,retriable-status-codes";

/// Istio's number of further tries, where none is written.
const RETRY_ATTEMPTS: u32 = 2;

/// What is answered for a route that cannot be carried out: requests must not fall to the next one.
const NOT_CARRIED_OUT: u32 = 503;

/// Envoy's body for a request that a fault aborts.
const ABORTED: &[u8] = b"fault filter abort";

/// Where requests come in.
#[derive(Clone, Copy)]
pub(super) struct Entrance<'a> {
    /// The mesh, or one gateway.
    pub(super) gateway: &'a GatewayRef,
    /// The port as users know it.
    pub(super) port: u16,
}

/// The routes of a VirtualService for an entrance; `None` when it has no `http` part at all.
pub(super) fn routes(
    selection: &mut Selection<'_>,
    owned: &Owned<VirtualService>,
    entrance: Entrance<'_>,
) -> Option<Vec<RouteInput>> {
    let (meta, spec) = (owned.meta(), owned.spec());
    if spec.http.is_empty() {
        return None;
    }
    let mut routes = Vec::new();
    for route in &spec.http {
        let matches: Vec<Option<&HttpMatch>> = if route.matches.is_empty() {
            vec![None]
        } else {
            let holds = |wanted: &&HttpMatch| is_here(selection, wanted, entrance);
            route.matches.iter().filter(holds).map(Some).collect()
        };
        if matches.is_empty() {
            continue;
        }
        let (action, headers) = match aborted(selection, meta, route) {
            Some(aborted) => (aborted, HeaderChanges::default()),
            None => action(selection, meta, route, entrance.port),
        };
        for wanted in matches {
            routes.push(RouteInput {
                name: name(route, wanted),
                matches: wanted.map_or_else(match_all, request_match),
                action: action.clone(),
                headers: headers.clone(),
                config: Some(config_path("virtual-service", meta)),
            });
        }
    }
    Some(routes)
}

/// The route of a service that no VirtualService says anything about.
pub(super) fn default_route(selection: &Selection<'_>, cluster: String) -> RouteInput {
    let headers = HeaderChanges::default();
    let target = Target { cluster, weight: 1, headers, host_rewrite: None };
    RouteInput {
        name: "default".to_owned(),
        matches: match_all(),
        action: RouteAction::Forward(Forward {
            targets: vec![target],
            retries: retries(selection, None),
            ..Forward::default()
        }),
        headers: HeaderChanges::default(),
        config: None,
    }
}

/// Whether a route claims every request.
pub(super) fn is_catch_all(route: &RouteInput) -> bool {
    let path = match &route.matches.path {
        PathMatch::Prefix(prefix) => prefix == "/",
        PathMatch::Regex(pattern) => pattern == ".*",
        PathMatch::Exact(_) => false,
    };
    path && route.matches.headers.is_empty() && route.matches.query.is_empty()
}

fn is_here(selection: &Selection<'_>, wanted: &HttpMatch, entrance: Entrance<'_>) -> bool {
    // As in Istio: a match that names gateways does not look at the client's labels.
    let is_source = !wanted.gateways.is_empty()
        || *entrance.gateway != GatewayRef::Mesh
        || selection.view.labels.matches(&wanted.source_labels);
    let namespace = wanted.source_namespace.as_deref();
    names_gateway(&wanted.gateways, entrance.gateway)
        && wanted.port.is_none_or(|port| port == entrance.port)
        && is_source
        && namespace.is_none_or(|namespace| namespace == &*selection.view.name.namespace)
}

fn name(route: &HttpRoute, wanted: Option<&HttpMatch>) -> String {
    let of_match = wanted.and_then(|wanted| wanted.name.as_deref());
    match (route.name.as_deref(), of_match) {
        (Some(route), Some(wanted)) => format!("{route}.{wanted}"),
        (Some(name), None) | (None, Some(name)) => name.to_owned(),
        (None, None) => String::new(),
    }
}

fn match_all() -> RequestMatch {
    RequestMatch {
        path: PathMatch::Prefix("/".to_owned()),
        is_case_ignored: false,
        headers: Vec::new(),
        query: Vec::new(),
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
    for (name, value) in [
        (":method", &wanted.method),
        (":authority", &wanted.authority),
        (":scheme", &wanted.scheme),
    ] {
        if value.is_some() {
            matches.headers.push(header(name, value.as_ref(), false));
        }
    }
    let listed = |headers: &BTreeMap<String, Option<StringMatch>>, is_inverted: bool| {
        headers
            .iter()
            .map(|(name, value)| header(name, value.as_ref(), is_inverted))
            .collect::<Vec<_>>()
    };
    matches.headers.extend(listed(&wanted.headers, false));
    matches.headers.extend(listed(&wanted.without_headers, true));
    matches.query = wanted
        .query_params
        .iter()
        .map(|(name, value)| (name.clone(), text(value.as_ref())))
        .collect();
    matches
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

fn action(
    selection: &mut Selection<'_>,
    meta: &Meta,
    route: &HttpRoute,
    port: u16,
) -> (RouteAction, HeaderChanges) {
    let (headers, host) = changes(&route.headers);
    let action = match &route.action {
        HttpAction::Route(destinations) => {
            let mut forward = Forward {
                targets: targets(selection, meta, destinations, port),
                timeout: route.timeout.filter(|timeout| !timeout.is_zero()),
                retries: retries(selection, route.retries.as_ref()),
                host_rewrite: host,
                ..Forward::default()
            };
            if let Some(rewrite) = &route.rewrite {
                forward.host_rewrite = rewrite.authority.clone().or(forward.host_rewrite);
                match &rewrite.uri {
                    Some(UriRewrite::Matched(path)) => forward.path_rewrite = Some(path.clone()),
                    Some(UriRewrite::Regex { pattern, replacement }) => {
                        forward.regex_rewrite = Some((pattern.clone(), replacement.clone()));
                    }
                    None => {}
                }
            }
            RouteAction::Forward(forward)
        }
        HttpAction::Redirect(redirect) => RouteAction::Redirect(self::redirect(redirect, port)),
        HttpAction::DirectResponse(response) => RouteAction::Respond {
            status: u32::from(response.status),
            body: response.body.as_ref().map(|body| match body {
                DirectBody::Text(text) => text.clone().into_bytes(),
                DirectBody::Bytes(bytes) => bytes.clone(),
            }),
        },
        HttpAction::Delegate(name) => {
            let message = format!(
                "delegation to {name} is not supported yet: the requests get {NOT_CARRIED_OUT}"
            );
            let fault = Fault::error(route.at.clone(), message).field("spec.http.delegate");
            selection.fault(meta, fault);
            RouteAction::Respond { status: NOT_CARRIED_OUT, body: None }
        }
    };
    (action, headers)
}

fn targets(
    selection: &mut Selection<'_>,
    meta: &Meta,
    destinations: &[WeightedDestination],
    port: u16,
) -> Vec<Target> {
    let mut targets = Vec::new();
    for destination in destinations {
        if destination.weight == 0 && destinations.len() > 1 {
            continue;
        }
        let key = selection.destination(meta, &destination.destination, port);
        let (headers, host_rewrite) = changes(&destination.headers);
        let weight = destination.weight.max(1);
        targets.push(Target { cluster: key.name(), weight, headers, host_rewrite });
    }
    targets
}

fn redirect(written: &WrittenRedirect, asked: u16) -> Redirect {
    let port = match written.port {
        Some(RedirectPort::Number(port)) => Some(port),
        Some(RedirectPort::RequestPort) => Some(asked),
        // Envoy's own default.
        Some(RedirectPort::ProtocolDefault) | None => None,
    };
    Redirect {
        host: written.authority.clone(),
        path: written.uri.clone(),
        prefix: written.prefix_rewrite.clone(),
        scheme: written.scheme.clone(),
        port,
        status: u32::from(written.code),
    }
}

fn retries(selection: &Selection<'_>, written: Option<&WrittenRetries>) -> Option<Retries> {
    let policy = written.or(selection.snapshot.mesh().default_http_retry_policy.as_ref());
    let attempts = policy.map_or(RETRY_ATTEMPTS, |policy| policy.attempts);
    if attempts == 0 {
        return None;
    }
    let conditions = policy.and_then(|policy| policy.retry_on.as_deref()).unwrap_or(RETRY_ON);
    let (mut on, mut status_codes) = (Vec::new(), Vec::new());
    for condition in conditions.split(',').map(str::trim).filter(|text| !text.is_empty()) {
        match condition.parse() {
            Ok(code) => status_codes.push(code),
            Err(_) => on.push(condition),
        }
    }
    if !status_codes.is_empty() && !on.contains(&"retriable-status-codes") {
        on.push("retriable-status-codes");
    }
    Some(Retries {
        attempts,
        per_try_timeout: policy.and_then(|policy| policy.per_try_timeout),
        on: on.join(","),
        status_codes,
        backoff: policy.and_then(|policy| policy.backoff).filter(|wait| !wait.is_zero()),
        avoids_tried: policy.and_then(|policy| policy.retry_ignore_previous_hosts).unwrap_or(true),
    })
}

/// Header changes, and a new Host where the request's `Host` or `:authority` is set.
fn changes(written: &sluis_resources::HeaderChanges) -> (HeaderChanges, Option<String>) {
    let is_host =
        |name: &str| name.eq_ignore_ascii_case("host") || name.eq_ignore_ascii_case(":authority");
    let mut request = edits(&written.request);
    let host = request.set.iter().find(|(name, _)| is_host(name)).map(|(_, value)| value.clone());
    request.set.retain(|(name, _)| !is_host(name));
    (HeaderChanges { request, response: edits(&written.response) }, host)
}

fn edits(written: &HeaderOps) -> HeaderEdits {
    let pairs = |map: &BTreeMap<String, String>| {
        map.iter().map(|(key, value)| (key.clone(), value.clone())).collect()
    };
    HeaderEdits {
        set: pairs(&written.set),
        add: pairs(&written.add),
        remove: written.remove.clone(),
    }
}

/// What is answered where a fault aborts every request: some shut a path in this way. Aborts of a part
/// of the requests are named when the file is read, and not carried out.
fn aborted(selection: &mut Selection<'_>, meta: &Meta, route: &HttpRoute) -> Option<RouteAction> {
    let abort = route.fault.as_ref()?.abort.as_ref()?;
    if abort.percentage != Percent::ALL {
        return None;
    }
    let status = match abort.http_status {
        Some(status) => u32::from(status),
        None => {
            let message =
                format!("a gRPC status is not supported yet: the requests get {NOT_CARRIED_OUT}");
            let fault = Fault::error(route.at.clone(), message);
            selection.fault(meta, fault.field("spec.http.fault.abort.grpcStatus"));
            NOT_CARRIED_OUT
        }
    };
    Some(RouteAction::Respond { status, body: Some(ABORTED.to_vec()) })
}
