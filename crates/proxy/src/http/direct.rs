//! The way from HTTP/1 to HTTP/1: both connections driven by one poll function, heads and bodies
//! copied as they are.
//!
//! In:    a request head in its normal form, a connection to an endpoint.
//! Out:   the response at the client; what went wrong otherwise.
//! Never: takes a body apart that can be passed on as it comes.

use sluis_http1::Method;
use tokio::time::Instant;

use super::{
    client::CONTINUE,
    connection::Connection,
    course::Course,
    credentials::{self, Judged},
    desk::Desk,
    failure::{Failure, Finish},
    flight::{Event, Flight, Passing},
    pool::Pooled,
    reply::{Reply, Unsent},
    respond::{self, INTERIM_MAX, switches},
    settle::{Seen, settle},
    site::Site,
    trace::Trace,
};

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
    /// Drives the two connections until the response has been passed on.
    pub(super) async fn direct<'c>(
        &mut self,
        site: Site<'_>,
        desk: &mut Desk,
        course: &mut Course<'_, 'c>,
        trace: &mut Trace<'c>,
        (pooled, closes): (&mut Pooled, bool),
    ) -> Result<Finish<'c>, Failure> {
        write_request(desk);
        let now = Instant::now();
        let is_kept = pooled.requests > 0;
        let method = desk.request.method();
        let gate = &self.gate;
        let io = (&mut self.io, &mut pooled.upstream.io);
        let codec = (site.program.limits, method);
        let start = (now, &***site.worker);
        let mut flight = Flight::new(io, desk, &mut self.clock, codec, start);
        flight.deadlines = course.deadlines;
        flight.deadlines.attempt = course.tries.per_try_timeout().map(|limit| now + limit);
        flight.deadlines.idle_try = course.tries.per_try_idle_timeout();
        flight.deadlines.life = course.plan.backend.http.max_stream_duration.map(|age| now + age);
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
                event => break settle(event, seen(&flight, is_kept), trace, closes),
            }
        };
        course.deadlines = flight.deadlines;
        course.is_repeatable &= flight.desk.kept.is_whole();
        trace.request_end = flight.request_end;
        trace.received = flight.received;
        trace.sent = flight.sent;
        pooled.is_done = flight.is_endpoint_deaf || flight.holds_request() || !is_reusable(desk);
        end
    }
}

/// Serialises the request, with the first bytes of its body behind it.
fn write_request(desk: &mut Desk) {
    desk.up.clear();
    credentials::say_length(&mut desk.request);
    match desk.sealed.take() {
        Some(sealed) => sealed.head().write_to(&mut desk.up.bytes),
        None => desk.request.write_to(&mut desk.up.bytes),
    }
    desk.up.bytes.extend_from_slice(desk.kept.bytes());
    let first = desk.input.ready();
    desk.up.bytes.extend_from_slice(first);
    desk.kept.first(first);
    let first = first.len();
    desk.input.consume(first);
}

/// Whether the endpoint's connection is at the end of a response and nothing else.
fn is_reusable(desk: &Desk) -> bool {
    desk.response.persists()
        // One that a CONNECT has gone out on is not trusted again, whatever came of it.
        && desk.request.method() != Method::Connect
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
        101 if !plan.is_upgrade || flight.method == Method::Connect => {
            return Err(Failure::Protocol);
        }
        100 if site.manager.proxy_100_continue => {
            flight.desk.down.bytes.extend_from_slice(CONTINUE);
        }
        _ => {}
    }
    if status < 200 && status != 101 {
        flight.has_unparsed = true;
        return Ok(Headed::Interim);
    }
    let is_repeatable = course.is_repeatable && flight.desk.kept.is_whole();
    match credentials::judge_head(site, &course.promise, flight.desk, is_repeatable) {
        Judged::Passes => {}
        Judged::TryPrevious => return Err(Failure::OldCredential),
        Judged::Echo(reply) => return Ok(Headed::Reply(reply)),
    }
    let fields = &flight.desk.response.fields;
    let values = |name: &str, each: &mut dyn FnMut(&[u8])| {
        fields.all_named(name.as_bytes()).for_each(each);
    };
    if flight.desk.kept.is_whole() && course.wants_another(site, trace, status, values) {
        return Err(Failure::Status);
    }
    trace.response_start = Some(Instant::now());
    trace.request_end = flight.request_end;
    trace.details = Some("via_upstream".into());
    let (passing, closes) = match respond::pass_on(site, flight.desk, plan, trace, closes) {
        Ok(shape) => shape,
        Err(Unsent::Fault) => return Ok(Headed::Reply(Reply::fault().into())),
    };
    let framing = flight.desk.response.framing();
    if switches(flight.desk.request.method(), status) {
        flight.open_tunnel();
    } else {
        flight.desk.response_body.restart(framing);
        let has_trailers = site.manager.http1.trailers && plan.backend.http1.trailers;
        if has_trailers && !course.promise.guards_response() {
            flight.desk.response_body.keep_trailers();
        }
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

fn seen(flight: &Flight<'_>, is_kept: bool) -> Seen {
    Seen {
        has_begun: flight.is_streaming,
        is_tunnel: flight.is_tunnel,
        is_request_done: flight.desk.request_body.is_done(),
        is_stale: is_kept && !flight.has_reply,
        is_unsent: !flight.has_sent,
    }
}
