//! What is done with one request: answered here, or forwarded by a plan.
//!
//! In:    a request head, the connection's facts, the configuration.
//! Out:   a [`Plan`], or a [`Reply`] that says why not.
//! Never: waits or writes. Everything is judged by the head in its normal form.

use sluis_http1::{Framing, Known, Method, RequestHead, Upgrade, Version};
use sluis_rules::{Forward, HttpManager, Matched, RouteAction, Underscores};

use super::{
    desk::Desk,
    edge::{self, Path},
    incoming::Incoming,
    plan::Plan,
    reply::Reply,
    rewrite,
    routing::{Missing, cluster_of},
    site::Site,
    text, timeouts,
    trace::Trace,
};
use crate::{access_log::Flag, config::Config};

/// How CONNECT is called among upgrades.
const CONNECT: &str = "connect";

type Verdict<'c, T> = Result<T, Box<Reply<'c>>>;

/// Decides, bringing the head into the form in which it will be forwarded.
pub(super) async fn decide<'c>(
    (client, site): (&mut impl Incoming, Site<'_>),
    desk: &mut Desk,
    config: &'c Config,
    manager: &'c HttpManager,
    trace: &mut Trace<'c>,
) -> Verdict<'c, Plan<'c>> {
    let upgrade = admit(site, &mut desk.request)?;
    let is_connect = desk.request.method() == Method::Connect;
    let keeps = if upgrade.is_some() && !is_connect { Upgrade::Keep } else { Upgrade::Remove };
    // Before any field of ours: a client cannot make us drop those.
    let takes_trailers = edge::takes_trailers(&desk.request);
    desk.request.strip_hop_by_hop(keeps);
    if takes_trailers {
        desk.request.fields.set_trusted(Known::Te, b"trailers");
    }
    trace.client = edge::mark_origin(site, &mut desk.request, &mut desk.text);
    edge::normalise_host(site, &mut desk.request, &mut desk.text);
    // CONNECT has no path.
    let path = match is_connect {
        true => Path::Good,
        false => edge::normalise_path(site, &mut desk.request, &mut desk.text),
    };
    match path {
        Path::Good => {}
        Path::Bad => return Err(Reply::new(400, "path_normalization_failed").closing().into()),
        Path::Redirect => {
            let location = desk.request.path().to_vec();
            let details = "path_normalization_failed".into();
            return Err(Reply { details, ..Reply::redirect(307, location) }.into());
        }
    }
    let table = config.runtime.routes_of(manager).map(|table| &**table);
    let chain = &site.program.chain;
    let found = chain.on_request(site.scene, table, config, client, (desk, trace)).await?;
    let matched = found.map_err(|none| no_route(none, &desk.request))?;
    trace.route = Some(matched.route);
    match &matched.route.action {
        RouteAction::Forward(forward) => {
            let plan = plan(site, &mut desk.request, config, matched, forward, trace)?;
            permit_upgrade(site, plan, upgrade.as_deref())
        }
        RouteAction::Redirect(redirect) => {
            let scheme = site.scheme(&desk.request);
            let location = rewrite::location(redirect, matched.route, &desk.request, scheme);
            Err(Reply::redirect(redirect.status, location).of(matched).into())
        }
        RouteAction::Direct(direct) => Err(Box::new(Reply {
            // As in Envoy: a status that speaks of another place names this one.
            location: matches!(direct.status, 201 | 300..=399).then(|| {
                let scheme = site.scheme(&desk.request).as_bytes();
                let head = &desk.request;
                [scheme, b"://", head.authority(), head.path()].concat()
            }),
            body: (&*direct.body).into(),
            ..Reply::new(direct.status, "direct_response").of(matched)
        })),
    }
}

/// Turns away what cannot be served at all; returns the protocol that the client would change to.
fn admit<'c>(site: Site<'_>, head: &mut RequestHead) -> Verdict<'c, Option<String>> {
    let manager = site.manager;
    if head.version() == Version::Http10 {
        let Some(host) = &manager.http1.http10 else {
            return Err(low_version().into());
        };
        if head.authority().is_empty() && head.set_authority(host.as_bytes()).is_err() {
            return Err(Reply::new(400, "missing_host_header").closing().into());
        }
    }
    if head.is_absolute() && !manager.http1.allow_absolute_url {
        return Err(Reply::new(404, "absolute_path_rejected").into());
    }
    if head.expects_continue().is_none() {
        return Err(Reply::new(417, "unknown_expectation").closing().into());
    }
    match manager.http.underscores {
        Underscores::Allow => {}
        Underscores::Drop => head.fields.remove_where(|name, _| name.contains(&b'_')),
        Underscores::Reject => {
            if head.fields.iter().any(|(name, _)| name.contains(&b'_')) {
                let details = "http1.unexpected_underscore";
                return Err(Reply::new(400, details).closing().into());
            }
        }
    }
    if head.method() == Method::Connect {
        return Ok(Some(CONNECT.to_owned()));
    }
    upgrade(head)
}

fn low_version<'c>() -> Reply<'c> {
    let reply = Reply::new(426, "low_version").flag(Flag::DownstreamProtocolError);
    reply.text("Upgrade Required").closing()
}

/// What the client would change to. `h2c` and TLS upgrades are ignored, as by Envoy.
fn upgrade<'c>(head: &RequestHead) -> Verdict<'c, Option<String>> {
    let Some(kind) = head.fields.get(Known::Upgrade).filter(|_| head.connection().upgrade) else {
        return Ok(None);
    };
    let kind = text::lower(kind);
    if kind.is_empty() || kind.starts_with("h2c") || kind.starts_with("tls/") {
        return Ok(None);
    }
    // Bytes behind such a request could be taken for its body by one side and for the new
    // protocol by the other.
    if head.framing() != Framing::None || head.version() == Version::Http10 {
        return Err(Reply::new(400, "upgrade_with_body").closing().into());
    }
    Ok(Some(kind))
}

/// An upgrade is allowed where the route or else the manager says so.
fn permit_upgrade<'c>(site: Site<'_>, plan: Plan<'c>, kind: Option<&str>) -> Verdict<'c, Plan<'c>> {
    let Some(kind) = kind else { return Ok(plan) };
    let said = plan.forward.upgrades.iter().find(|known| &*known.kind == kind);
    let by_route = said.map(|known| known.enabled);
    let known = &site.manager.upgrades;
    let by_manager = known.iter().find(|known| &*known.kind == kind).map(|known| known.enabled);
    let terminates = said.is_some_and(|known| known.terminates);
    // As in Envoy: the route's word counts, and CONNECT needs no other.
    match (by_manager, by_route) {
        (Some(_), Some(true)) | (Some(true), None) | (None, Some(true)) => {
            Ok(Plan { is_upgrade: true, terminates, timeout: None, ..plan })
        }
        _ => Err(Reply::new(403, "upgrade_failed").of(plan.matched).closing().into()),
    }
}

fn no_route<'c>(none: Missing, head: &RequestHead) -> Box<Reply<'c>> {
    match none {
        Missing::Https => {
            let location = [b"https://", head.authority(), head.path()].concat();
            Reply::redirect(301, location).into()
        }
        Missing::Table => {
            Reply::new(404, "route_configuration_not_found").flag(Flag::NoRouteFound).into()
        }
        Missing::Route => Reply::new(404, "route_not_found").flag(Flag::NoRouteFound).into(),
    }
}

fn plan<'c>(
    site: Site<'_>,
    head: &mut RequestHead,
    config: &'c Config,
    matched: Matched<'c>,
    forward: &'c Forward,
    trace: &mut Trace<'c>,
) -> Verdict<'c, Plan<'c>> {
    let (name, weighted) = cluster_of(site.scene, forward, head);
    let Some(backend) = name.and_then(|name| config.backend(name)) else {
        let reply = Reply::new(forward.cluster_not_found, "cluster_not_found");
        return Err(reply.flag(Flag::NoClusterFound).of(matched).into());
    };
    trace.cluster = Some(backend);
    Ok(Plan {
        matched,
        forward,
        backend,
        weighted,
        retry: matched.retry().map(|policy| &**policy),
        is_upgrade: false,
        terminates: false,
        timeout: timeouts::of_request(site.program, forward, head),
    })
}
