//! One request from its head to its log record.

use std::{future::poll_fn, rc::Rc, sync::Arc};

use sluis_http1::Framing;
use tracing::debug;

use super::{
    client::{After, Client},
    credentials,
    decide::decide,
    desk::Desk,
    filters::{self, Standing},
    forward::{Outcome, forward},
    protocol::Protocol,
    reply::{Reply, Unsent},
    respond::{self, Dressed},
    site::Site,
    trace::Trace,
};
use crate::{
    access_log::{Flag, Record},
    stats::Counter,
};

/// Serves the request whose head is on the desk.
pub(super) async fn exchange(client: &mut impl Client, desk: &mut Desk) -> After {
    let place = Rc::clone(client.place());
    let now = place.worker.now();
    let site = place.site(now);
    let manager = &place.program.manager;
    let config = place.worker.http.config(&place.worker);
    let mut trace =
        Trace::new(now, place.worker.wall_now(), (site.protocol, desk.request.method()));
    place.worker.stats().inc(Counter::HttpRqTotal);
    if place.program.chain.has_scripts() {
        desk.marks.scripts.place = Some(Rc::new(Standing {
            worker: Rc::clone(&place.worker),
            facts: Arc::clone(&place.facts),
            protocol: place.protocol,
        }));
    }
    let outcome = match decide((&mut *client, site), desk, &config, manager, &mut trace).await {
        Ok(plan) => forward(client, site, desk, &plan, &mut trace).await,
        Err(reply) => Outcome::Reply(reply),
    };
    let after = match outcome {
        Outcome::Done(after) => after,
        Outcome::Reply(reply) => answer(client, site, desk, &reply, &mut trace).await,
    };
    credentials::redact(desk);
    conclude(site, desk, &trace);
    desk.next_request();
    after
}

/// Answers a request whose head could not be read.
pub(super) async fn refuse(client: &mut impl Client, desk: &mut Desk, reply: Reply<'_>) {
    let place = Rc::clone(client.place());
    let now = place.worker.now();
    let site = place.site(now);
    let method = sluis_http1::Method::Other;
    let mut trace = Trace::new(now, place.worker.wall_now(), (site.protocol, method));
    place.worker.stats().inc(Counter::HttpFramingErrors);
    // What was read of the head must not be taken for the request's facts.
    desk.request = sluis_http1::RequestHead::default();
    debug!(remote = %site.connection.remote, details = &*reply.details, "request refused");
    answer(client, site, desk, &reply, &mut trace).await;
    conclude(site, desk, &trace);
}

/// Logs a request that is not answered because it could not be read.
pub(super) fn log_malformed(client: &impl Client, desk: &mut Desk) {
    let place = client.place();
    let now = place.worker.now();
    let site = place.site(now);
    let method = sluis_http1::Method::Other;
    let mut trace = Trace::new(now, place.worker.wall_now(), (site.protocol, method));
    place.worker.stats().inc(Counter::HttpFramingErrors);
    desk.request = sluis_http1::RequestHead::default();
    trace.fault(Flag::DownstreamProtocolError, "http2.violation.of.messaging.rule");
    conclude(site, desk, &trace);
}

/// Sends an answer of ours.
async fn answer(
    client: &mut impl Client,
    site: Site<'_>,
    desk: &mut Desk,
    reply: &Reply<'_>,
    trace: &mut Trace<'_>,
) -> After {
    // What scripts did with a response that does not go on.
    desk.marks.scripts.forget_response();
    trace.details = Some(reply.details.clone());
    if let Some(flag) = reply.flag {
        trace.flags.set(flag);
    }
    // A body that was not read would be taken for the next request.
    let is_read = trace.request_end.is_some() || client.drop_body(desk, trace);
    let is_early = !reply.is_waited && is_early(site, desk, trace);
    let closes = reply.closes || !is_read || is_early || client.must_close(site, desk);
    let has_body = match prepare(site, desk, reply, trace).await {
        Ok(has_body) => has_body,
        Err(Unsent::Fault) => {
            let plain = Reply::fault();
            trace.details = Some(plain.details.clone());
            desk.marks.scripts.forget_response();
            return match prepare(site, desk, &plain, trace).await {
                Ok(has_body) => send(client, desk, (&plain, has_body), trace, closes).await,
                Err(_) => After::Drop,
            };
        }
    };
    let closes = closes || desk.marks.scripts.drains;
    if let Some(held) = desk.marks.scripts.gathered.take() {
        let own = Reply { body: held.bytes.into(), ..Reply::new(reply.status, "") };
        return send(client, desk, (&own, has_body), trace, closes).await;
    }
    send(client, desk, (reply, has_body), trace, closes).await
}

/// Makes the head of an answer, waiting for scripts. True when a body goes with it.
async fn prepare(
    site: Site<'_>,
    desk: &mut Desk,
    reply: &Reply<'_>,
    trace: &mut Trace<'_>,
) -> Result<bool, Unsent> {
    let mut dressed = respond::answer(site, desk, reply, trace)?;
    while dressed == Dressed::Waits {
        poll_fn(|cx| desk.marks.scripts.poll_answer(cx)).await;
        dressed = respond::resume(site, desk, reply.matched.as_ref(), trace)?;
    }
    filters::pass_answer(desk, trace).await.map_err(|_| Unsent::Fault)?;
    Ok(respond::end_answer(site, desk, reply, trace))
}

/// Whether the answer does not wait for the request: an HTTP/1 connection is then closed even
/// when the rest of the request has come already, as by Envoy.
fn is_early(site: Site<'_>, desk: &Desk, trace: &Trace<'_>) -> bool {
    let has_body = desk.request.framing() != Framing::None;
    site.protocol == Protocol::Http1 && has_body && !trace.is_body_begun
}

async fn send(
    client: &mut impl Client,
    desk: &mut Desk,
    (reply, has_body): (&Reply<'_>, bool),
    trace: &mut Trace<'_>,
    closes: bool,
) -> After {
    if !client.send_answer(desk, has_body.then_some(&*reply.body), closes).await {
        trace.flags.set(Flag::DownstreamConnectionTermination);
        return After::Drop;
    }
    if closes { After::Linger } else { After::Keep }
}

/// Counts and logs a request that is done with.
fn conclude(site: Site<'_>, desk: &Desk, trace: &Trace<'_>) {
    let class = match trace.status {
        100..=199 => Some(Counter::HttpRq1xx),
        200..=299 => Some(Counter::HttpRq2xx),
        300..=399 => Some(Counter::HttpRq3xx),
        400..=499 => Some(Counter::HttpRq4xx),
        500..=599 => Some(Counter::HttpRq5xx),
        _ => None,
    };
    if let Some(class) = class {
        site.worker.stats().inc(class);
    }
    if site.program.logs.is_empty() {
        return;
    }
    let record = trace.record(site.connection, site.worker.now());
    let has_head = !desk.request.method_name().is_empty();
    let record = Record {
        request: has_head.then_some(&desk.request),
        response: (trace.status != 0).then_some(&desk.response.fields),
        ..record
    };
    site.program.logs.write(site.worker.logs(), &record);
}
