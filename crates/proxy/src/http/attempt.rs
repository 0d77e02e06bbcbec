//! One try: choose an endpoint, connect, send, pass the response on.

use std::sync::Arc;

use sluis_http1::{Known, is_dns_name};
use sluis_rules::{Discovery, Health, HostRewrite, UpstreamProtocol};
use tokio::time::timeout_at;

use super::{
    client::Client,
    course::Course,
    credentials,
    desk::Desk,
    failure::{Failure, Finish},
    http2::sessions::{Acquired, Seat},
    link::{Line, Link},
    plan::Plan,
    pool::{Key, Pooled},
    protocol::Protocol,
    reply::Reply,
    rewrite,
    settle::{RESPONSE_TIMEOUT, Seen, response_timeout, settle},
    site::Site,
    text::number,
    trace::Trace,
};
use crate::{
    config::Backend,
    hosts::Permit,
    stats::Counter,
    upstream::{ConnectContext, ConnectError, Held, Pick, Target, Upstream},
};

/// Sends the request once.
pub(super) async fn attempt<'c>(
    client: &mut impl Client,
    site: Site<'_>,
    desk: &mut Desk,
    course: &mut Course<'_, 'c>,
    trace: &mut Trace<'c>,
) -> Result<Finish<'c>, Failure> {
    let plan = course.plan;
    trace.attempts += 1;
    let pick = draw(site, plan, desk, course).await?;
    trace.host = Some(pick.address.clone());
    if plan.forward.host == HostRewrite::Endpoint {
        let name = pick.hostname().map(|name| &**name);
        if rewrite::host(plan, site.program.hides_envoy, name, &mut desk.request).is_err() {
            return Ok(Finish::Reply(Reply::new(500, "host_rewrite_failed").into()));
        }
    }
    let Ok(server_name) = server_name(plan, &pick, desk) else {
        let reply = Reply::new(400, "invalid_server_name").of(plan.matched);
        return Ok(Finish::Reply(reply.closing().into()));
    };
    if let Err(reply) = credentials::guard(site, desk, plan, trace, (&mut course.promise, &pick)) {
        return Ok(Finish::Reply(reply));
    }
    let (mut link, _under_way) = match ready(site, plan, &pick, server_name.as_deref()) {
        Some(ready) => ready?,
        None => {
            // Rare where connections are kept, and large: it must not grow, nor be moved by, requests
            // that need none.
            let connecting = Box::pin(connect(site, plan, pick.clone(), server_name));
            let connecting = async {
                match course.deadlines.response {
                    Some(limit) => timeout_at(limit, connecting).await.ok(),
                    None => Some(connecting.await),
                }
            };
            let is_whole = trace.request_end.is_some();
            let connected = tokio::select! {
                biased;
                connected = connecting => connected,
                event = client.gone(desk, is_whole) => {
                    let seen = Seen { is_request_done: is_whole, ..Seen::default() };
                    return settle(event, seen, trace, false);
                }
            };
            match connected {
                Some(connected) => connected?,
                None => {
                    pick.failed(plan.backend, true);
                    return Ok(Finish::Reply(response_timeout().into()));
                }
            }
        }
    };
    trace.local = link.local();
    count(plan, desk, trace.attempts);
    // Last of all: nothing changes the request from here on.
    if let Err(reply) = credentials::seal(site, desk, plan, trace, &mut course.promise) {
        link.give_back(site, plan, &pick);
        release(site, &pick);
        return Ok(Finish::Reply(reply));
    }
    let closes = client.must_close(site, desk);
    let driven = client.drive(site, desk, course, trace, (&mut link, closes)).await;
    desk.sealed = None;
    credentials::ended(&mut course.promise, desk, trace);
    if !course.promise.is_empty() {
        desk.up.wipe();
    }
    tell(plan, &pick, &driven, desk, trace);
    if let Ok(Finish::Complete { .. }) = &driven {
        link.give_back(site, plan, &pick);
    }
    release(site, &pick);
    driven
}

/// Tells the endpoint which try this is, where the host asks for that.
fn count(plan: &Plan<'_>, desk: &mut Desk, attempts: u32) {
    if plan.matched.virtual_host.request_attempt_count {
        number(u64::from(attempts), &mut desk.text);
        desk.request.fields.set_trusted(Known::XEnvoyAttemptCount, &desk.text);
    }
}

/// Lets the next request have the endpoint's place.
fn release(site: Site<'_>, pick: &Pick) {
    if let Some(host) = &pick.host {
        site.worker.lines.of(host).release();
    }
}

/// Chooses the endpoint of a try: the one that a script has named, else one of the cluster's, and one
/// that was not tried before as long as the policy looks for such.
async fn draw(
    site: Site<'_>,
    plan: &Plan<'_>,
    desk: &Desk,
    course: &mut Course<'_, '_>,
) -> Result<Pick, Failure> {
    let mut context = context(site, plan, desk);
    context.hash = course.hash;
    context.spurned = course.tries.spurned(&course.priorities);
    let mut pick = match of_script(plan, desk).filter(|_| course.draws == 0) {
        Some(pick) => pick?,
        None => choose(site, plan, &context).await?,
    };
    course.draws += 1;
    let host_attempts = course.tries.host_attempts();
    if host_attempts > 0 {
        // As in Envoy: after so many draws the last one is taken, tried before or not.
        for attempt in 1..=host_attempts {
            if !course.tried.contains(&pick.address) {
                break;
            }
            context.attempt = attempt;
            pick = choose(site, plan, &context).await?;
        }
        course.tried.push(pick.address.clone());
    }
    if course.tries.looks_at_priorities() {
        course.priorities.push(pick.priority());
    }
    Ok(pick)
}

/// The endpoint that a script has named for the first try; a failure when it must be that one and
/// cannot be. `None` leaves it to the cluster.
fn of_script(plan: &Plan<'_>, desk: &Desk) -> Option<Result<Pick, Failure>> {
    let (wanted, is_strict) = desk.marks.scripts.override_host.as_ref()?;
    let backend = plan.backend;
    let place = backend.hosts.iter().zip(&backend.endpoints.list).position(|(host, endpoint)| {
        let is_well = matches!(endpoint.health, Health::Healthy | Health::Degraded);
        host.as_ref().is_some_and(|host| {
            is_well
                && !host.is_failed()
                && !host.is_ejected()
                && host.address().to_string() == *wanted
        })
    });
    match place.and_then(|place| Pick::of(backend, place)) {
        None if *is_strict => {
            let cluster = Arc::clone(&backend.name);
            Some(Err(Failure::Connect(ConnectError::NoEndpoint { cluster })))
        }
        pick => pick.map(Ok),
    }
}

/// What the cluster wants to know of the request to choose an endpoint.
fn context<'d>(site: Site<'d>, plan: &Plan<'d>, desk: &'d Desk) -> ConnectContext<'d> {
    let request = &desk.request;
    let mut context = ConnectContext::of(site.connection);
    context.labels = plan.forward.labels.as_ref();
    if let Discovery::OriginalDst { header: Some(name), .. } = &plan.backend.discovery
        && let Some(value) = request.fields.get_name(name.as_bytes())
    {
        // As in Envoy: what is no address leads nowhere.
        context.original_dst = std::str::from_utf8(value).ok().and_then(|text| text.parse().ok());
    }
    if matches!(plan.backend.discovery, Discovery::DynamicForward(_)) {
        let facts = site.connection;
        context.target = rewrite::host_name(request).map(|host| Target {
            host,
            port: rewrite::host_port(request),
            sni: facts.sni.as_deref().filter(|_| facts.tls_terminated),
        });
    }
    context
}

/// Chooses an endpoint.
async fn choose(
    site: Site<'_>,
    plan: &Plan<'_>,
    context: &ConnectContext<'_>,
) -> Result<Pick, Failure> {
    let chosen = match &plan.backend.discovery {
        // Rare, and the only ones that wait.
        Discovery::DynamicForward(_) => Box::pin(site.worker.choose(plan.backend, context)).await,
        _ => site.worker.pick(plan.backend, context),
    };
    chosen.map_err(Failure::Connect)
}

/// Tells outlier detection how a try ended.
fn tell(
    plan: &Plan<'_>,
    pick: &Pick,
    driven: &Result<Finish<'_>, Failure>,
    desk: &Desk,
    trace: &Trace<'_>,
) {
    let backend = plan.backend;
    match driven {
        Err(Failure::Status | Failure::OldCredential) => {
            pick.answered(backend, desk.response.status())
        }
        Err(Failure::TryTimeout) => pick.failed(backend, true),
        Err(_) => pick.failed(backend, false),
        Ok(Finish::Reply(reply)) if reply.details == RESPONSE_TIMEOUT => {
            pick.failed(backend, true);
        }
        Ok(_) if trace.response_start.is_some() => {
            pick.answered(backend, desk.response.status());
        }
        Ok(_) => {}
    }
}

/// The server name that the connection must be for, when the request decides it.
///
/// CVE-2024-32475: what cannot be a server name must not become one.
fn server_name(plan: &Plan<'_>, pick: &Pick, desk: &Desk) -> Result<Option<String>, ()> {
    let backend = plan.backend;
    if pick.tls(backend).is_none() || !(backend.auto_sni || backend.auto_san_validation) {
        return Ok(None);
    }
    let host = rewrite::host_name(&desk.request).ok_or(())?;
    let is_ip = host.trim_matches(['[', ']']).parse::<std::net::IpAddr>().is_ok();
    if is_ip || is_dns_name(host.as_bytes()) {
        Ok(Some(host.trim_end_matches('.').to_ascii_lowercase()))
    } else {
        Err(())
    }
}

/// A kept connection to the endpoint, or a share of one that is there, within the cluster's limits;
/// what is beside it counts the request while it is under way. `None` when there is no such
/// connection: looking costs no wait.
fn ready(
    site: Site<'_>,
    plan: &Plan<'_>,
    pick: &Pick,
    server_name: Option<&str>,
) -> Option<Result<(Link, Permit), Failure>> {
    // A connection that has carried HTTP is not for other bytes.
    if plan.terminates {
        return None;
    }
    let key = key(site, plan, pick, server_name);
    let link = if is_http2(site, plan, pick) {
        Link::Http2(site.worker.http.sessions.lease(site.worker, &key)?)
    } else {
        let pooled = kept(site, &key)?;
        Link::Http1(Line { key, pooled })
    };
    Some(counted(site, plan, link, pick))
}

/// A connection to the endpoint, new or come free meanwhile; as [`ready`] otherwise.
async fn connect(
    site: Site<'_>,
    plan: &Plan<'_>,
    pick: Pick,
    server_name: Option<String>,
) -> Result<(Link, Permit), Failure> {
    let chosen = pick.clone();
    let host = server_name.as_deref();
    let key = key(site, plan, &pick, host);
    let link = if !plan.terminates && is_http2(site, plan, &pick) {
        share(site, plan, pick, (key, host)).await?
    } else {
        open_http1(site, plan, pick, (key, host)).await?
    };
    counted(site, plan, link, &chosen)
}

/// Counts the request that is about to be sent.
fn counted(
    site: Site<'_>,
    plan: &Plan<'_>,
    link: Link,
    pick: &Pick,
) -> Result<(Link, Permit), Failure> {
    let backend = plan.backend;
    match backend.group.request(&backend.limits, plan.priority(), pick.host.as_ref()) {
        Some(permit) => Ok((link, permit)),
        None => {
            // Nothing was sent on it.
            link.give_back(site, plan, pick);
            site.worker.stats().inc(Counter::UpstreamRqOverflow);
            Err(overflow(backend, "requests"))
        }
    }
}

/// Whose connections the request may use.
fn key(site: Site<'_>, plan: &Plan<'_>, pick: &Pick, host: Option<&str>) -> Key {
    let backend = plan.backend;
    let told = pick.hop(backend).proxy_protocol.and(ConnectContext::of(site.connection).downstream);
    // A connection that has told of one client, or comes from its address, is not for another.
    let place = match (told, site.connection.source) {
        (Some((client, ours)), _) => Some(format!("{}|{client}|{ours}", host.unwrap_or_default())),
        (None, Some((client, _))) => Some(format!("{}|{client}", host.unwrap_or_default())),
        (None, None) => None,
    };
    Key::new(backend.cluster(), pick.tls(backend), &pick.address, place.as_deref().or(host))
}

/// Whether HTTP/2 is tried.
fn is_http2(site: Site<'_>, plan: &Plan<'_>, pick: &Pick) -> bool {
    match plan.backend.protocol {
        UpstreamProtocol::Http1 => false,
        UpstreamProtocol::Http2 => true,
        UpstreamProtocol::Downstream => site.protocol == Protocol::Http2,
        UpstreamProtocol::Auto => pick.tls(plan.backend).is_some(),
    }
}

/// A kept connection.
fn kept(site: Site<'_>, key: &Key) -> Option<Pooled> {
    let pooled = site.worker.http.pool.take(key, site.worker.now())?;
    site.worker.stats().inc(Counter::HttpPoolHits);
    Some(pooled)
}

fn overflow(backend: &Backend, what: &'static str) -> Failure {
    Failure::Connect(ConnectError::Overflow { cluster: Arc::clone(&backend.name), what })
}

/// A share of an HTTP/2 connection, of one that is there or of a new one.
async fn share(
    site: Site<'_>,
    plan: &Plan<'_>,
    pick: Pick,
    (key, host): (Key, Option<&str>),
) -> Result<Link, Failure> {
    let backend = plan.backend;
    let sessions = &site.worker.http.sessions;
    if let Some(lease) = sessions.lease(site.worker, &key) {
        return Ok(Link::Http2(lease));
    }
    let priority = plan.priority();
    let Some(waiting) = backend.group.pending(&backend.limits, priority) else {
        site.worker.stats().inc(Counter::UpstreamRqOverflow);
        return Err(overflow(backend, "pending requests"));
    };
    let place = (backend.cluster(), pick.tls(backend));
    let told = pick.clone();
    let seat = Seat { worker: site.worker, limits: site.program.limits };
    let dial = async || {
        let Some(held) = site.worker.lines.open(backend, told.host.as_ref(), priority) else {
            site.worker.stats().inc(Counter::UpstreamCxOverflow);
            return Err(overflow(backend, "connections"));
        };
        dial(site, plan, told, (host, held)).await
    };
    match sessions.acquire(seat, place, &key, dial).await? {
        Acquired::Http2(lease) => Ok(Link::Http2(lease)),
        Acquired::Http1(Some(upstream)) => {
            let pooled = Pooled::fresh(upstream);
            Ok(Link::Http1(Line { key, pooled }))
        }
        Acquired::Http1(None) => {
            drop(waiting);
            if let Some(pooled) = kept(site, &key) {
                return Ok(Link::Http1(Line { key, pooled }));
            }
            open_http1(site, plan, pick, (key, host)).await
        }
    }
}

async fn open_http1(
    site: Site<'_>,
    plan: &Plan<'_>,
    pick: Pick,
    (key, host): (Key, Option<&str>),
) -> Result<Link, Failure> {
    let backend = plan.backend;
    let priority = plan.priority();
    let Some(_waiting) = backend.group.pending(&backend.limits, priority) else {
        site.worker.stats().inc(Counter::UpstreamRqOverflow);
        return Err(overflow(backend, "pending requests"));
    };
    let held = loop {
        if let Some(held) = site.worker.lines.open(backend, pick.host.as_ref(), priority) {
            break held;
        }
        site.worker.stats().inc(Counter::UpstreamCxOverflow);
        let Some(endpoint) = &pick.host else { return Err(overflow(backend, "connections")) };
        site.worker.lines.of(endpoint).freed().await;
        if !plan.terminates
            && let Some(pooled) = kept(site, &key)
        {
            return Ok(Link::Http1(Line { key, pooled }));
        }
    };
    let upstream = dial(site, plan, pick, (host, held)).await?;
    let pooled = Pooled::fresh(upstream);
    Ok(Link::Http1(Line { key, pooled }))
}

/// Opens a connection, and tells outlier detection how that went.
async fn dial(
    site: Site<'_>,
    plan: &Plan<'_>,
    pick: Pick,
    (host, held): (Option<&str>, Held),
) -> Result<Upstream, Failure> {
    let backend = plan.backend;
    let is_http2 =
        backend.protocol == UpstreamProtocol::Downstream && site.protocol == Protocol::Http2;
    let offers = is_http2.then_some("h2");
    let speaks_http2 = is_http2 || backend.protocol == UpstreamProtocol::Http2;
    let of_filter = site.program.alpn.as_ref().filter(|_| !backend.keeps_alpn);
    let alpn = of_filter
        .map(|alpn| if speaks_http2 { &*alpn.http2 } else { &*alpn.http1 })
        .filter(|list| !list.is_empty());
    let context = ConnectContext { host, offers, alpn, ..ConnectContext::of(site.connection) };
    let told = pick.clone();
    match site.worker.dial(backend, pick, &context, Some(held)).await {
        Ok(upstream) => {
            told.reached(backend, false);
            Ok(upstream)
        }
        Err(error) => {
            told.failed(backend, matches!(error, ConnectError::Timeout { .. }));
            Err(Failure::Connect(error))
        }
    }
}
