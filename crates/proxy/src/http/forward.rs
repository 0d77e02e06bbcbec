//! Sends a request to an endpoint and its response back, trying again where that is allowed.
//!
//! In:    a plan, a request head in its normal form.
//! Out:   a response at the client, or the reply that takes its place.
//! Never: sends a request again on which an endpoint may have acted, unless the policy or the
//!        method allows it; sends anything again once the response has begun.

use std::{cell::RefCell, time::Duration};

use sluis_http1::{Known, Scan};
use sluis_rules::{HostRewrite, Mirror, RequestHash, hash_of};
use tokio::time::{Instant, sleep};

use super::{
    attempt::attempt,
    client::{After, Client},
    course::Course,
    credentials::{self, Promise},
    desk::Desk,
    failure::{Failure, Finish},
    flight::Deadlines,
    mirror, mutate,
    plan::Plan,
    reply::Reply,
    retry::{self, Next, Tries},
    rewrite,
    site::Site,
    timeouts,
    trace::Trace,
};
use crate::{access_log::Flag, stats::Counter};

/// How forwarding ended.
pub(super) enum Outcome<'c> {
    /// The client has its response, or is gone.
    Done(After),
    /// The client is to be told this.
    Reply(Box<Reply<'c>>),
}

/// The request could not be brought into the form that its route asks for.
struct Unprepared;

/// Forwards the request on the desk.
pub(super) async fn forward<'c>(
    client: &mut impl Client,
    site: Site<'_>,
    desk: &mut Desk,
    plan: &Plan<'c>,
    trace: &mut Trace<'c>,
) -> Outcome<'c> {
    let mut course = match set_out(client, site, desk, plan, trace).await {
        Ok(course) => course,
        Err(reply) => return Outcome::Reply(reply),
    };
    let mut mirrors = mirror::chosen(site, plan);
    let goes_on =
        course.tries.may_follow() || !mirrors.is_empty() || course.promise.may_fall_back();
    desk.kept.restart(goes_on);
    desk.replay.restart(goes_on);
    copy(client, site, plan, &mut mirrors, desk);
    loop {
        let tried = attempt(client, site, desk, &mut course, trace).await;
        copy(client, site, plan, &mut mirrors, desk);
        let failure = match tried {
            Err(failure) => failure,
            Ok(finish) => {
                if course.tries.are_used_up() {
                    trace.flags.set(Flag::UpstreamRetryLimitExceeded);
                }
                return match finish {
                    Finish::Complete { closes } => {
                        Outcome::Done(client.after_response(desk, closes))
                    }
                    Finish::Broken => Outcome::Done(After::Drop),
                    Finish::Reply(mut reply) => {
                        reply.matched.get_or_insert(plan.matched);
                        Outcome::Reply(reply)
                    }
                };
            }
        };
        if matches!(failure, Failure::OldCredential) {
            course.promise.fall_back();
            desk.reply.clear();
            desk.reply_scan = Scan::default();
            continue;
        }
        let is_idempotent = trace.method.is_idempotent();
        let next = match course.is_repeatable {
            true => course.tries.after(&failure, is_idempotent, site.worker.random()),
            false => Next::GiveUp,
        };
        let Next::Again(wait) = next else {
            return Outcome::Reply(give_up(&failure, &course, trace));
        };
        // Another connection in place of a kept one that was dead is no retry; what the response
        // asked for has its place already.
        let is_stale = matches!(failure, Failure::Closed { is_stale: true, .. }) && wait.is_zero();
        let has_place = is_stale || matches!(failure, Failure::Status);
        if !has_place && !course.may_retry(site, trace) {
            return Outcome::Reply(give_up(&failure, &course, trace));
        }
        site.worker.stats().inc(Counter::HttpRetries);
        if course.tries.was_silent() {
            trace.attempts -= 1;
        }
        if !wait.is_zero() {
            sleep(wait).await;
        }
        if course.deadlines.response.is_some_and(|at| Instant::now() >= at) {
            return Outcome::Reply(give_up(&Failure::TryTimeout, &course, trace));
        }
        let gone = Instant::now().saturating_duration_since(trace.start);
        let own = course.tries.per_try_timeout();
        timeouts::tell(site.program, plan, own, gone, &mut desk.request, &mut desk.text);
        desk.reply.clear();
        desk.reply_scan = Scan::default();
    }
}

/// Brings the request into its form, promises it credentials, and takes what has come of its body.
async fn set_out<'p, 'c>(
    client: &mut impl Client,
    site: Site<'_>,
    desk: &mut Desk,
    plan: &'p Plan<'c>,
    trace: &mut Trace<'c>,
) -> Result<Course<'p, 'c>, Box<Reply<'c>>> {
    let Ok(owes_continue) = prepare(site, desk, plan, trace) else {
        return Err(Reply::fault().into());
    };
    // While the body is where it can be looked at.
    let promise = credentials::admit(client, site, desk, plan, trace).await?;
    let course = begin(client, site, desk, plan, trace)?;
    Ok(Course { owes_continue, promise, ..course })
}

/// Sends copies to the mirrors, once the whole body has come.
fn copy(
    client: &impl Client,
    site: Site<'_>,
    plan: &Plan<'_>,
    mirrors: &mut Vec<&Mirror>,
    desk: &Desk,
) {
    if mirrors.is_empty() {
        return;
    }
    if let Some(body) = client.whole_body(desk) {
        mirror::copy(site, &client.place().worker, plan, &std::mem::take(mirrors), (desk, &body));
    }
}

/// Words the last failure for the client and the log.
fn give_up<'c>(
    failure: &Failure,
    course: &Course<'_, 'c>,
    trace: &mut Trace<'_>,
) -> Box<Reply<'c>> {
    if course.tries.are_used_up() {
        trace.flags.set(Flag::UpstreamRetryLimitExceeded);
    }
    if let Failure::Connect(error) = failure {
        trace.transport_failure = error.transport_failure().map(str::to_owned);
    }
    let is_retried = course.tries.have_followed();
    Reply { matched: Some(course.plan.matched), ..failure.reply(is_retried) }.into()
}

/// Takes what has come of the body, and sets the deadlines.
fn begin<'p, 'c>(
    client: &mut impl Client,
    site: Site<'_>,
    desk: &mut Desk,
    plan: &'p Plan<'c>,
    trace: &mut Trace<'c>,
) -> Result<Course<'p, 'c>, Box<Reply<'c>>> {
    let manager = site.manager;
    let begun = client.begin_body(desk, plan, trace);
    let is_received = begun.map_err(|reply| reply.of(plan.matched))?;
    if is_received {
        trace.request_end = Some(trace.start);
    }
    let nonzero = |limit: Option<Duration>| limit.filter(|limit| !limit.is_zero());
    let from_start = |limit: Option<Duration>| limit.map(|limit| trace.start + limit);
    let age = timeouts::of_stream(plan.forward, &mut desk.request);
    let age = age.or(manager.http.max_stream_duration);
    let deadlines = Deadlines {
        response: from_start(plan.timeout.filter(|_| is_received)),
        request: from_start(nonzero(manager.request_timeout).filter(|_| !is_received)),
        age: from_start(nonzero(age)),
        idle: nonzero(plan.forward.idle_timeout.or(manager.stream_idle_timeout)),
        ..Deadlines::default()
    };
    let asks = retry::asks(&desk.request.fields);
    let tries = Tries::new(plan.retry, &site.facts(&desk.request), asks);
    if asks {
        Tries::clean(&mut desk.request.fields);
    }
    let own = tries.per_try_timeout();
    timeouts::tell(site.program, plan, own, Duration::ZERO, &mut desk.request, &mut desk.text);
    let hash = hash(site, desk, plan, trace);
    Ok(Course {
        plan,
        tries,
        deadlines,
        draws: 0,
        tried: Vec::new(),
        priorities: Vec::new(),
        hash,
        is_repeatable: true,
        owes_continue: false,
        is_relayed: false,
        is_watched: site.program.chain.watch(site.scene, &plan.matched, desk),
        retrying: RefCell::default(),
        promise: Promise::default(),
    })
}

/// What chooses the endpoint. Cookies that are made for it are kept for the response.
fn hash(site: Site<'_>, desk: &mut Desk, plan: &Plan<'_>, trace: &Trace<'_>) -> Option<u64> {
    if plan.forward.hash.is_empty() {
        return None;
    }
    let connection = site.connection;
    let source = trace.client.map(|client| client.ip());
    let seed = || format!("{}{}", connection.remote, connection.local);
    let facts = site.facts(&desk.request);
    let RequestHash { value, cookies } = hash_of(&plan.forward.hash, &facts, source, seed);
    desk.marks.cookies = cookies;
    value
}

/// Brings the head into the form that the route asks for, but for what the endpoint decides.
/// Returns whether `100 Continue` is ours to say.
fn prepare(
    site: Site<'_>,
    desk: &mut Desk,
    plan: &Plan<'_>,
    trace: &Trace<'_>,
) -> Result<bool, Unprepared> {
    let Desk { request, text, .. } = desk;
    let of_cluster = plan.weighted.map(|cluster| &cluster.mutations);
    for mutations in of_cluster.into_iter().chain(plan.matched.mutations()) {
        mutate::request(site.scene, mutations, request, trace, text).map_err(|_| Unprepared)?;
    }
    let hides_envoy = site.program.hides_envoy;
    // The host first: a rewrite by path means the path that the client asked for.
    if plan.forward.host != HostRewrite::Endpoint {
        rewrite::host(plan, hides_envoy, None, request).map_err(|_| Unprepared)?;
    }
    rewrite::path(plan, hides_envoy, request).map_err(|_| Unprepared)?;
    let expects = request.expects_continue() == Some(true);
    if expects && !site.manager.proxy_100_continue {
        request.fields.remove(Known::Expect);
        return Ok(true);
    }
    Ok(false)
}
