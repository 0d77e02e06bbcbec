//! Sends a request to an endpoint and its response back, trying again where that is allowed.
//!
//! In:    a plan, a request head in its normal form.
//! Out:   a response at the client, or the reply that takes its place.
//! Never: sends a request again on which an endpoint may have acted, unless the policy or the
//!        method allows it; sends anything again once the response has begun.

use std::time::Duration;

use sluis_http1::{Known, Scan};
use sluis_rules::HostRewrite;
use tokio::time::{Instant, sleep};

use super::{
    attempt::{Finish, attempt},
    client::Client,
    connection::After,
    decide::Plan,
    edge::{Site, number},
    failure::Failure,
    flight::Deadlines,
    mutate,
    reply::Reply,
    retry::{Next, Tries},
    rewrite,
    state::Desk,
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

/// What all tries of one request share.
pub(super) struct Course<'p, 'c> {
    pub(super) plan: &'p Plan<'c>,
    pub(super) tries: Tries<'c>,
    pub(super) deadlines: Deadlines,
    /// Length of the head in `desk.up`; the rest is the first bytes of the body.
    pub(super) head_len: usize,
    /// Whether what an endpoint got can still be sent to another.
    pub(super) is_repeatable: bool,
    /// Whether the client waits for `100 Continue` before it sends the body.
    pub(super) owes_continue: bool,
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
    let Ok(owes_continue) = prepare(site, desk, plan, trace) else {
        return Outcome::Reply(Reply::fault().into());
    };
    let mut course = match begin(client, site, desk, plan, trace) {
        Ok(course) => Course { owes_continue, ..course },
        Err(reply) => return Outcome::Reply(reply),
    };
    loop {
        let failure = match attempt(client, site, desk, &mut course, trace).await {
            Ok(Finish::Complete { closes }) => {
                return Outcome::Done(client.after_response(desk, closes));
            }
            Ok(Finish::Broken) => return Outcome::Done(After::Drop),
            Ok(Finish::Reply(reply)) => return Outcome::Reply(reply),
            Err(failure) => failure,
        };
        let is_idempotent = trace.method.is_idempotent();
        let next = match course.is_repeatable {
            true => course.tries.after(&failure, is_idempotent, site.worker.random()),
            false => Next::GiveUp,
        };
        let Next::Again(wait) = next else {
            return Outcome::Reply(give_up(&failure, &course, trace));
        };
        site.worker.stats().inc(Counter::HttpRetries);
        if !wait.is_zero() {
            sleep(wait).await;
        }
        if course.deadlines.response.is_some_and(|at| Instant::now() >= at) {
            return Outcome::Reply(give_up(&Failure::TryTimeout, &course, trace));
        }
        desk.reply.clear();
        desk.reply_scan = Scan::default();
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
    Reply { matched: Some(course.plan.matched), ..failure.reply() }.into()
}

/// Takes what has come of the body, and sets the deadlines.
fn begin<'p, 'c>(
    client: &mut impl Client,
    site: Site<'_>,
    desk: &mut Desk,
    plan: &'p Plan<'c>,
    trace: &mut Trace<'c>,
) -> Result<Course<'p, 'c>, Box<Reply<'c>>> {
    let manager = site.manager();
    let begun = client.begin_body(desk, trace);
    let is_received = begun.map_err(|reply| Reply::from(reply).of(plan.matched))?;
    if is_received {
        trace.request_end = Some(trace.start);
    }
    let nonzero = |limit: Option<Duration>| limit.filter(|limit| !limit.is_zero());
    let from_start = |limit: Option<Duration>| limit.map(|limit| trace.start + limit);
    let age = plan.forward.max_stream_duration.or(manager.http.max_stream_duration);
    let deadlines = Deadlines {
        response: from_start(plan.timeout.filter(|_| is_received)),
        request: from_start(nonzero(manager.request_timeout).filter(|_| !is_received)),
        age: from_start(nonzero(age)),
        idle: nonzero(plan.forward.idle_timeout.or(manager.stream_idle_timeout)),
        attempt: None,
    };
    let tries = Tries::new(plan.retry, &site.facts(&desk.request));
    Ok(Course { plan, tries, deadlines, head_len: 0, is_repeatable: true, owes_continue: false })
}

pub(super) fn bad_body<'c>() -> Reply<'c> {
    let reply = Reply::new(400, "http1.codec_error").flag(Flag::DownstreamProtocolError);
    reply.text("Bad Request").closing()
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
        mutate::request(site, mutations, request, trace, text).map_err(|_| Unprepared)?;
    }
    let hides_envoy = site.program.hides_envoy;
    // The host first: a rewrite by path means the path that the client asked for.
    if plan.forward.host != HostRewrite::Endpoint {
        rewrite::host(plan, hides_envoy, None, request).map_err(|_| Unprepared)?;
    }
    rewrite::path(plan, hides_envoy, request).map_err(|_| Unprepared)?;
    if let (Some(limit), false) = (plan.timeout, hides_envoy) {
        let per_try = plan.retry.and_then(|policy| policy.per_try_timeout);
        let limit = per_try.filter(|limit| !limit.is_zero()).map_or(limit, |own| own.min(limit));
        number(u64::try_from(limit.as_millis()).unwrap_or(u64::MAX), text);
        request.fields.set_trusted(Known::XEnvoyExpectedRqTimeoutMs, text);
    }
    let expects = request.expects_continue() == Some(true);
    if expects && !site.manager().proxy_100_continue {
        request.fields.remove(Known::Expect);
        return Ok(true);
    }
    Ok(false)
}
