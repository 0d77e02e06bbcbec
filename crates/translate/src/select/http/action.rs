//! What a route does: forwards, redirects or answers.
//!
//! In:    one rule of `http`, with its delegate already put in.
//! Out:   a [`RouteAction`] and the header changes of the route.
//! Never: sends requests anywhere for a rule that cannot be carried out.

use sluis_resources::{
    DirectBody, HttpAction, HttpRoute, Meta, Redirect as WrittenRedirect, RedirectPort, UriRewrite,
    WeightedDestination,
};

use super::{Entrance, policy};
use crate::{
    Forward, HashInput, HeaderChanges, MirrorInput, Redirect, RouteAction, Target,
    select::Selection,
};

/// What is answered for a route that cannot be carried out: requests must not fall to the next one.
const NOT_CARRIED_OUT: u32 = 503;

/// What stands before a redirect's path that is put in place of the matched prefix.
const PREFIX: &str = "%PREFIX()%";

pub(super) fn select(
    selection: &mut Selection<'_>,
    meta: &Meta,
    route: &HttpRoute,
    entrance: Entrance<'_>,
) -> (RouteAction, HeaderChanges) {
    let (headers, host) = policy::changes(&route.headers);
    let action = match &route.action {
        HttpAction::Route(destinations) => {
            let forward = forward(selection, meta, route, destinations, entrance.port);
            RouteAction::Forward(Forward { host_rewrite: forward.host_rewrite.or(host), ..forward })
        }
        HttpAction::Redirect(written) => RouteAction::Redirect(redirect(written, entrance)),
        HttpAction::DirectResponse(response) => RouteAction::Respond {
            status: u32::from(response.status),
            body: response.body.as_ref().map(|body| match body {
                DirectBody::Text(text) => text.clone().into_bytes(),
                DirectBody::Bytes(bytes) => bytes.clone(),
            }),
        },
        // A rule that delegates was replaced by what it delegates to; see `delegate`.
        HttpAction::Delegate(_) => RouteAction::Respond { status: NOT_CARRIED_OUT, body: None },
    };
    (action, headers)
}

fn forward(
    selection: &mut Selection<'_>,
    meta: &Meta,
    route: &HttpRoute,
    destinations: &[WeightedDestination],
    port: u16,
) -> Forward {
    let (targets, hashes) = targets(selection, meta, destinations, port);
    let is_hashed = destinations.len() == 1 && !hashes.is_empty();
    let mut forward = Forward {
        targets,
        timeout: route.timeout.filter(|timeout| !timeout.is_zero()),
        retries: policy::retries(selection, route.retries.as_ref(), is_hashed),
        mirrors: mirrors(selection, meta, route, port),
        hashes,
        ..Forward::default()
    };
    if let Some(rewrite) = &route.rewrite {
        forward.host_rewrite.clone_from(&rewrite.authority);
        match &rewrite.uri {
            Some(UriRewrite::Matched(path)) if !path.is_empty() => {
                forward.path_rewrite = Some(path.clone());
            }
            Some(UriRewrite::Regex { pattern, replacement }) => {
                forward.regex_rewrite = Some((pattern.clone(), replacement.clone()));
            }
            Some(UriRewrite::Matched(_)) | None => {}
        }
    }
    forward
}

/// The targets, and what requests are hashed by for those that choose by hash.
fn targets(
    selection: &mut Selection<'_>,
    meta: &Meta,
    destinations: &[WeightedDestination],
    port: u16,
) -> (Vec<Target>, Vec<HashInput>) {
    let (mut targets, mut hashes) = (Vec::new(), Vec::new());
    for destination in destinations {
        if destination.weight == 0 && destinations.len() > 1 {
            continue;
        }
        let key = selection.destination(meta, &destination.destination, port);
        hashes.extend(selection.hash(&key));
        let (headers, host_rewrite) = policy::changes(&destination.headers);
        let weight = destination.weight.max(1);
        targets.push(Target { cluster: key.name(), weight, headers, host_rewrite });
    }
    (targets, hashes)
}

fn mirrors(
    selection: &mut Selection<'_>,
    meta: &Meta,
    route: &HttpRoute,
    port: u16,
) -> Vec<MirrorInput> {
    let mut mirrors = Vec::new();
    for mirror in route.mirrors.iter().filter(|mirror| mirror.percentage.millionths() > 0) {
        let key = selection.destination(meta, &mirror.destination, port);
        mirrors.push(MirrorInput { cluster: key.name(), share: mirror.percentage });
    }
    mirrors
}

fn redirect(written: &WrittenRedirect, entrance: Entrance<'_>) -> Redirect {
    let port = match written.port {
        Some(RedirectPort::Number(port)) => Some(port),
        // Routes are made for each port, so that of the request is known.
        Some(RedirectPort::RequestPort) => Some(entrance.port),
        // Envoy's own default.
        Some(RedirectPort::ProtocolDefault) | None => None,
    };
    let own = if entrance.is_tls { "https" } else { "http" };
    let scheme = written.scheme.as_deref().unwrap_or(own);
    // As in Istio: the port that a scheme means anyway is not said.
    let is_said = |port: &u16| !matches!((*port, scheme), (80, "http") | (443, "https"));
    let (path, of_uri) = match &written.uri {
        Some(uri) => match uri.strip_prefix(PREFIX) {
            Some(prefix) => (None, Some(prefix.to_owned())),
            None => (Some(uri.clone()), None),
        },
        None => (None, None),
    };
    Redirect {
        host: written.authority.clone(),
        path,
        prefix: written.prefix_rewrite.clone().or(of_uri),
        scheme: written.scheme.clone(),
        port: port.filter(is_said),
        status: u32::from(written.code),
    }
}
