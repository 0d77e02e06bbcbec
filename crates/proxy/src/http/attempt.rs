//! One try: choose an endpoint, connect, send, pass the response on.

use sluis_http1::{Known, is_dns_name};
use sluis_rules::HostRewrite;
use tokio::time::Instant;

use super::{
    connection::Connection,
    decide::Plan,
    edge::{Site, number},
    failure::Failure,
    flight::{Deadline, Event, Flight, Passing},
    forward::{Course, bad_body},
    pool::{Key, Pooled},
    reply::Reply,
    respond::{self, Unsent},
    rewrite,
    state::Desk,
    trace::Trace,
};
use crate::{
    access_log::Flag,
    stats::Counter,
    upstream::{ConnectContext, Pick},
};

/// Interim responses that one request may have; more are a flood.
const INTERIM_MAX: u32 = 16;

const CONTINUE: &[u8] = b"HTTP/1.1 100 Continue\r\n\r\n";

/// How one try ended, when not with a [`Failure`].
pub(super) enum Finish<'c> {
    /// The response was passed on as a whole.
    Complete {
        /// Whether the client was told that the connection ends.
        closes: bool,
    },
    /// The connection to the client is of no more use.
    Broken,
    /// The client is to be told this instead.
    Reply(Box<Reply<'c>>),
}

/// What a response head led to.
enum Headed<'c> {
    /// It was an interim one; another follows.
    Interim,
    /// The body flows.
    Streaming {
        closes: bool,
    },
    Reply(Box<Reply<'c>>),
}

impl Connection {
    /// Sends the request once.
    pub(super) async fn attempt<'c>(
        &mut self,
        site: Site<'_>,
        desk: &mut Desk,
        course: &mut Course<'_, 'c>,
        trace: &mut Trace<'c>,
    ) -> Result<Finish<'c>, Failure> {
        let plan = course.plan;
        trace.attempts += 1;
        let original_dst = site.connection.original_dst;
        let context = ConnectContext { original_dst, ..ConnectContext::default() };
        let pick = site.worker.pick(plan.backend, &context).map_err(Failure::Connect)?;
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
        let (key, pooled) = connect(site, plan, pick.clone(), server_name).await?;
        trace.local = pooled.upstream.local;
        write_request(desk, course, trace);
        let closes = self.must_close(site, desk);
        let mut pooled = pooled;
        let driven = self.drive(site, desk, course, trace, (&mut pooled, closes)).await;
        if let Ok(Finish::Complete { .. }) = &driven
            && is_reusable(desk)
        {
            pooled.requests += 1;
            let tls = pick.tls(plan.backend);
            let place = (plan.backend.cluster(), tls);
            site.worker.http.pool.give(key, pooled, place, site.worker.now());
        }
        driven
    }

    /// Drives the two connections until the response has been passed on.
    async fn drive<'c>(
        &mut self,
        site: Site<'_>,
        desk: &mut Desk,
        course: &mut Course<'_, 'c>,
        trace: &mut Trace<'c>,
        (pooled, closes): (&mut Pooled, bool),
    ) -> Result<Finish<'c>, Failure> {
        let now = Instant::now();
        let is_kept = pooled.requests > 0;
        let method = desk.request.method();
        let gate = &self.gate;
        let io = (&mut self.io, &mut pooled.upstream.io);
        let mut flight = Flight::new(io, desk, &mut self.clock, (site.program.limits, method), now);
        flight.deadlines = course.deadlines;
        flight.deadlines.attempt = course.tries.per_try_timeout().map(|limit| now + limit);
        flight.response_time = course.plan.timeout;
        flight.request_end = trace.request_end;
        flight.received = trace.received;
        if std::mem::take(&mut course.owes_continue) && !flight.desk.request_body.is_done() {
            flight.desk.down.bytes.extend_from_slice(CONTINUE);
        }
        let mut closes = closes;
        let mut interim = 0;
        let end = loop {
            match flight.next().await {
                Event::Head => {
                    let ends = closes || gate.is_draining();
                    let headed = on_head(site, &mut flight, course, trace, ends);
                    match headed {
                        Ok(Headed::Interim) if interim >= INTERIM_MAX => {
                            break Err(Failure::Protocol);
                        }
                        Ok(Headed::Interim) => interim += 1,
                        Ok(Headed::Streaming { closes: last }) => closes = last,
                        Ok(Headed::Reply(reply)) => break Ok(Finish::Reply(reply)),
                        Err(failure) => break Err(failure),
                    }
                }
                event => break settle(event, &flight, trace, (is_kept, closes)),
            }
        };
        course.deadlines = flight.deadlines;
        course.is_repeatable &= !flight.has_streamed;
        trace.request_end = flight.request_end;
        trace.received = flight.received;
        trace.sent = flight.sent;
        pooled.is_done = flight.is_endpoint_deaf;
        end
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

/// A kept connection to the endpoint, or a new one.
async fn connect(
    site: Site<'_>,
    plan: &Plan<'_>,
    pick: Pick,
    server_name: Option<String>,
) -> Result<(Key, Pooled), Failure> {
    let backend = plan.backend;
    let host = server_name.as_deref();
    let key = Key::new(backend.cluster(), pick.tls(backend), &pick.address, host);
    if let Some(pooled) = site.worker.http.pool.take(&key, site.now) {
        site.worker.stats().inc(Counter::HttpPoolHits);
        return Ok((key, pooled));
    }
    let context = ConnectContext { host, original_dst: site.connection.original_dst };
    let upstream = site.worker.dial(backend, pick, &context).await.map_err(Failure::Connect)?;
    Ok((key, Pooled { upstream, requests: 0, is_done: false }))
}

/// Serialises the request, with the first bytes of its body behind it.
fn write_request(desk: &mut Desk, course: &mut Course<'_, '_>, trace: &Trace<'_>) {
    if course.plan.matched.virtual_host.request_attempt_count {
        number(u64::from(trace.attempts), &mut desk.text);
        desk.request.fields.set_trusted(Known::XEnvoyAttemptCount, &desk.text);
    }
    // At a further try the first bytes of the body are in `up` already.
    desk.text.clear();
    desk.text.extend_from_slice(desk.up.bytes.get(course.head_len..).unwrap_or_default());
    desk.up.clear();
    desk.request.write_to(&mut desk.up.bytes);
    course.head_len = desk.up.bytes.len();
    desk.up.bytes.extend_from_slice(&desk.text);
    let first = desk.input.ready().len();
    desk.up.bytes.extend_from_slice(desk.input.ready());
    desk.input.consume(first);
}

/// Whether the endpoint's connection is at the end of a response and nothing else.
fn is_reusable(desk: &Desk) -> bool {
    desk.response.persists()
        && desk.response.status() != 101
        && desk.response_body.is_done()
        && desk.reply.is_empty()
        && desk.up.is_sent()
        && desk.request_body.is_done()
        && desk.input.ready().is_empty()
}

/// Acts on a response head.
fn on_head<'c>(
    site: Site<'_>,
    flight: &mut Flight<'_>,
    course: &Course<'_, 'c>,
    trace: &mut Trace<'c>,
    closes: bool,
) -> Result<Headed<'c>, Failure> {
    let plan = course.plan;
    let status = flight.desk.response.status();
    match status {
        // RFC 9110 §15.2.2: only a server that was asked to may switch protocols.
        101 if !plan.is_upgrade => return Err(Failure::Protocol),
        100 if site.manager().proxy_100_continue => {
            flight.desk.down.bytes.extend_from_slice(CONTINUE);
        }
        _ => {}
    }
    if status < 200 && status != 101 {
        flight.has_unparsed = true;
        return Ok(Headed::Interim);
    }
    let fields = &flight.desk.response.fields;
    let values = |name: &str, each: &mut dyn FnMut(&[u8])| {
        fields.all_named(name.as_bytes()).for_each(each);
    };
    if course.is_repeatable && !flight.has_streamed && course.tries.wants(status, values) {
        return Err(Failure::Status);
    }
    trace.response_start = Some(Instant::now());
    trace.request_end = flight.request_end;
    trace.details = Some("via_upstream");
    let (passing, closes) = match respond::pass_on(site, flight.desk, plan, trace, closes) {
        Ok(shape) => shape,
        Err(Unsent::Fault) => return Ok(Headed::Reply(Reply::fault().into())),
        Err(Unsent::Replaced(reply)) => return Ok(Headed::Reply(reply.plain().into())),
    };
    let framing = flight.desk.response.framing();
    if status == 101 {
        flight.open_tunnel();
    } else {
        flight.desk.response_body.restart(framing);
    }
    flight.passing = passing;
    flight.is_streaming = true;
    if flight.judge_response_body().is_err() {
        flight.desk.down.clear();
        trace.response_start = None;
        return Err(Failure::Protocol);
    }
    if passing == Passing::Raw {
        flight.join_first_bytes();
    }
    Ok(Headed::Streaming { closes })
}

/// Says what the end of a flight means.
fn settle<'c>(
    event: Event,
    flight: &Flight<'_>,
    trace: &mut Trace<'_>,
    (is_kept, closes): (bool, bool),
) -> Result<Finish<'c>, Failure> {
    let has_begun = flight.is_streaming;
    match event {
        _ if flight.is_tunnel => Ok(Finish::Broken),
        Event::Complete => Ok(Finish::Complete { closes }),
        Event::ClientGone => {
            let flag = Flag::DownstreamConnectionTermination;
            trace.fault(flag, "downstream_remote_disconnect");
            Ok(Finish::Broken)
        }
        Event::BadRequestBody if has_begun => {
            trace.flags.set(Flag::DownstreamProtocolError);
            Ok(Finish::Broken)
        }
        Event::BadRequestBody => Ok(Finish::Reply(bad_body().into())),
        Event::EndpointGone if has_begun => {
            let details = "upstream_reset_after_response_started{connection_termination}";
            trace.fault(Flag::UpstreamConnectionTermination, details);
            Ok(Finish::Broken)
        }
        Event::EndpointGone => Err(Failure::Closed {
            is_stale: is_kept && !flight.has_reply,
            is_unsent: !flight.has_sent,
        }),
        Event::BadResponse if has_begun => {
            let details = "upstream_reset_after_response_started{protocol_error}";
            trace.fault(Flag::UpstreamProtocolError, details);
            Ok(Finish::Broken)
        }
        Event::BadResponse | Event::Head => Err(Failure::Protocol),
        Event::Late(Deadline::Try) => Err(Failure::TryTimeout),
        Event::Late(deadline) => Ok(late(deadline, flight, trace)),
    }
}

/// What the client is told when its time is up.
fn late<'c>(deadline: Deadline, flight: &Flight<'_>, trace: &mut Trace<'_>) -> Finish<'c> {
    // Envoy's rule: who has sent the whole request has waited for us, the others made us wait.
    let status = if flight.desk.request_body.is_done() { 504 } else { 408 };
    let reply = match deadline {
        Deadline::Response | Deadline::Try => {
            let reply = Reply::new(504, "upstream_response_timeout");
            reply.text("upstream request timeout").flag(Flag::UpstreamRequestTimeout)
        }
        Deadline::Request => Reply::new(408, "request_overall_timeout").text("request timeout"),
        Deadline::Idle => {
            let reply = Reply::new(status, "stream_idle_timeout");
            reply.text("stream timeout").flag(Flag::StreamIdleTimeout)
        }
        Deadline::Age => {
            let reply = Reply::new(status, "max_duration_timeout");
            reply.text("downstream duration timeout").flag(Flag::DurationTimeout)
        }
    };
    if !flight.is_streaming {
        return Finish::Reply(reply.into());
    }
    if let Some(flag) = reply.flag {
        trace.fault(flag, reply.details);
    }
    Finish::Broken
}
