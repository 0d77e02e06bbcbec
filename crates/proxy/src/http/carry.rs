//! The way between any two HTTP versions but from HTTP/1 to HTTP/1: heads are converted, bodies
//! and trailers passed on piece by piece.
//!
//! In:    a request head in its normal form, the two sides.
//! Out:   the response at the client; what went wrong otherwise.
//! Never: decides otherwise than `direct` does: status, retries and deadlines mean the same.

use sluis_http1::{Known, Method, Upgrade};
use sluis_script::BodyIs;
use tokio::time::Instant;

use super::{
    clock::Clock,
    course::Course,
    credentials::{self, Judged},
    desk::Desk,
    failure::{Failure, Finish},
    flight::Event,
    message::{ClientSide, EndpointSide},
    piece::Fault,
    relay::{Relay, of_client},
    reply::{Reply, Unsent},
    respond::{self, Dressed, INTERIM_MAX, switches},
    settle::{Seen, settle},
    site::Site,
    text::number,
    trace::Trace,
};

/// What a response head led to.
enum Headed<'c> {
    /// It was an interim one; another follows.
    Interim,
    /// The body flows.
    Streaming,
    /// A script waits before it goes on.
    Waits,
    Reply(Box<Reply<'c>>),
    /// The client has gone.
    Gone(Fault),
}

/// How a try over such a connection ended.
pub(super) struct Carried<'c> {
    pub(super) end: Result<Finish<'c>, Failure>,
    /// Whether the endpoint got the whole request and we its whole response.
    pub(super) is_clean: bool,
}

/// What a try begins with.
pub(super) struct Start {
    /// Whether the request ended with its head.
    pub(super) is_bodiless: bool,
    /// Whether the connection has carried requests before.
    pub(super) is_kept: bool,
}

/// Drives both sides until the response has been passed on.
pub(super) async fn carry<'c, C: ClientSide, E: EndpointSide>(
    site: Site<'_>,
    (client, endpoint): (&mut C, &mut E),
    (desk, clock): (&mut Desk, &mut Clock),
    course: &mut Course<'_, 'c>,
    trace: &mut Trace<'c>,
    start: Start,
) -> Carried<'c> {
    let now = Instant::now();
    let mut relay = Relay::new((client, endpoint), desk, clock, now);
    relay.deadlines = course.deadlines;
    relay.deadlines.attempt = course.tries.per_try_timeout().map(|limit| now + limit);
    relay.deadlines.idle_try = course.tries.per_try_idle_timeout();
    relay.deadlines.life = course.plan.backend.http.max_stream_duration.map(|age| now + age);
    relay.response_time = course.plan.timeout;
    relay.request_end = trace.request_end;
    relay.received = trace.received;
    relay.drops_request_trailers = !course.promise.is_empty();
    relay.drops_response_trailers = course.promise.guards_response();
    if course.plan.is_upgrade {
        relay.hold();
    }
    if start.is_bodiless {
        relay.without_body();
    } else if std::mem::take(&mut course.owes_continue) {
        // If the client has gone, its body will tell.
        let _gone = relay.client.interim(relay.desk, 100, false);
    }
    let mut interim = 0;
    let mut is_clean = false;
    let end = loop {
        // The scripts that watch bodies may look at and change what filters have found out.
        std::mem::swap(&mut relay.metadata, &mut trace.metadata);
        let mut event = relay.next().await;
        let scanned = course.promise.scan_bytes();
        if matches!(event, Event::Head)
            && relay.has_body_to_scan(scanned)
            && let Some(fault) = relay.gather(scanned).await
        {
            event = fault;
        }
        std::mem::swap(&mut relay.metadata, &mut trace.metadata);
        let headed = match event {
            Event::Head => on_head(site, &mut relay, course, trace),
            Event::Script => {
                let matched = Some(&course.plan.matched);
                let dressed = respond::resume(site, relay.desk, matched, trace);
                Ok(send_head(site, &mut relay, dressed))
            }
            event => {
                is_clean =
                    matches!(event, Event::Complete) && relay.is_request_sent() && !relay.is_tunnel;
                let closes = relay.client.closes();
                break settle(event, seen(&relay, start.is_kept), trace, closes);
            }
        };
        match headed {
            Ok(Headed::Interim) if interim >= INTERIM_MAX => break Err(Failure::Protocol),
            Ok(Headed::Interim) => interim += 1,
            Ok(Headed::Streaming | Headed::Waits) => {}
            Ok(Headed::Reply(reply)) => break Ok(Finish::Reply(reply)),
            Ok(Headed::Gone(fault)) => {
                break settle(of_client(fault), seen(&relay, start.is_kept), trace, false);
            }
            Err(failure) => break Err(failure),
        }
    };
    course.deadlines = relay.deadlines;
    trace.request_end = relay.request_end;
    trace.received = relay.received;
    trace.sent = relay.sent;
    trace.trailers = relay.trailers.take();
    course.is_repeatable &= relay.desk.replay.is_whole();
    Carried { end, is_clean }
}

fn seen<C: ClientSide, E: EndpointSide>(relay: &Relay<'_, C, E>, is_kept: bool) -> Seen {
    Seen {
        has_begun: relay.is_streaming,
        is_tunnel: relay.is_tunnel,
        is_request_done: relay.request_end.is_some(),
        is_stale: is_kept,
        is_unsent: false,
    }
}

/// Acts on a response head.
fn on_head<'c, C: ClientSide, E: EndpointSide>(
    site: Site<'_>,
    relay: &mut Relay<'_, C, E>,
    course: &Course<'_, 'c>,
    trace: &mut Trace<'c>,
) -> Result<Headed<'c>, Failure> {
    let plan = course.plan;
    let status = relay.desk.response.status();
    // RFC 9110 §15.2.2: only a server that was asked to may switch protocols.
    let method = relay.desk.request.method();
    if status == 101 && (!plan.is_upgrade || method == Method::Connect) {
        return Err(Failure::Protocol);
    }
    if status < 200 && status != 101 {
        // As in Envoy, the option is about all interim responses.
        // One that is not looked into brings no fields along.
        if site.manager.proxy_100_continue
            && !course.promise.guards_response()
            && let Err(fault) = relay.client.interim(relay.desk, status, true)
        {
            return Ok(Headed::Gone(fault));
        }
        return Ok(Headed::Interim);
    }
    let is_repeatable = course.is_repeatable && relay.desk.replay.is_whole();
    match credentials::judge_head(site, &course.promise, relay.desk, is_repeatable) {
        Judged::Passes => {}
        Judged::TryPrevious => return Err(Failure::OldCredential),
        Judged::Echo(reply) => return Ok(Headed::Reply(reply)),
    }
    if course.promise.scan_bytes() > 0
        && let Some(reply) = credentials::judge_body(site, &course.promise, &relay.gathered())
    {
        return Ok(Headed::Reply(reply));
    }
    let fields = &relay.desk.response.fields;
    let values = |name: &str, each: &mut dyn FnMut(&[u8])| {
        fields.all_named(name.as_bytes()).for_each(each);
    };
    if relay.desk.replay.is_whole() && course.wants_another(site, trace, status, values) {
        return Err(Failure::Status);
    }
    trace.response_start = Some(Instant::now());
    trace.request_end = relay.request_end;
    trace.details = Some("via_upstream".into());
    let keeps = if status == 101 { Upgrade::Keep } else { Upgrade::Remove };
    relay.desk.response.strip_hop_by_hop(keeps);
    relay.desk.response.fields.remove(Known::TransferEncoding);
    let is_tunnel = switches(method, status);
    if is_tunnel {
        relay.desk.response.fields.remove(Known::ContentLength);
    }
    relay.desk.marks.scripts.response_body = match () {
        () if is_tunnel => BodyIs::Tunnel,
        () if relay.head_ends || is_bodiless(method, status) => BodyIs::Absent,
        () => BodyIs::Follows,
    };
    let dressed = respond::dress(site, relay.desk, plan, trace);
    Ok(send_head(site, relay, dressed))
}

/// Whether a response to this method with this status has no body, whatever its head says.
fn is_bodiless(method: Method, status: u16) -> bool {
    method == Method::Head || matches!(status, 204 | 304)
}

/// Sends the head of the response to the client, unless a script waits before it.
fn send_head<'c, C: ClientSide, E: EndpointSide>(
    site: Site<'_>,
    relay: &mut Relay<'_, C, E>,
    dressed: Result<Dressed, Unsent>,
) -> Headed<'c> {
    match dressed {
        Ok(Dressed::Ready) => {}
        Ok(Dressed::Waits) => {
            relay.wait_for_script();
            return Headed::Waits;
        }
        Err(Unsent::Fault) => return Headed::Reply(Reply::fault().into()),
    }
    let status = relay.desk.response.status();
    let method = relay.desk.request.method();
    let is_tunnel = switches(method, status);
    let mut ends = relay.head_ends && !is_tunnel;
    if site.program.chain.has_scripts() {
        if let Some(held) = relay.desk.marks.scripts.gathered.take() {
            ends = is_bodiless(method, status);
            let Desk { response, text, marks, .. } = &mut *relay.desk;
            // A response to HEAD tells the length that one to GET would have.
            if held.is_changed && !matches!(status, 204 | 304) {
                number(held.bytes.len() as u64, text);
                response.fields.set_trusted(Known::ContentLength, text);
                marks.scripts.response.expect(held.bytes.len() as u64);
            }
            if !ends {
                relay.release(held);
            }
        }
        if relay.desk.marks.scripts.drains {
            relay.client.close_after();
        }
    }
    if let Err(fault) = relay.client.head(relay.desk, ends) {
        return Headed::Gone(fault);
    }
    relay.begin_response(ends);
    if is_tunnel {
        relay.open_tunnel();
    }
    Headed::Streaming
}
