//! One request from its head to its log record.

use std::rc::Rc;

use tokio::time::Instant;
use tracing::debug;

use super::{
    connection::{After, Connection},
    decide::decide,
    edge::Site,
    flight,
    forward::Outcome,
    reply::Reply,
    respond::{self, Unsent},
    state::Desk,
    trace::Trace,
};
use crate::{
    access_log::{Flag, Record},
    stats::Counter,
};

/// How long a client may take to accept an answer of ours.
const ANSWER_WAIT_MAX: std::time::Duration = std::time::Duration::from_secs(10);

impl Connection {
    /// Serves the request whose head is on the desk.
    pub(super) async fn exchange(&mut self, desk: &mut Desk) -> After {
        let place = Rc::clone(&self.place);
        let now = place.worker.now();
        let site = place.site(now);
        let manager = &place.program.manager;
        let config = place.worker.http.config(&place.worker);
        let mut trace = Trace::new(now, place.worker.wall_now(), desk.request.method());
        place.worker.stats().inc(Counter::HttpRqTotal);
        let outcome = match decide(site, desk, &config, manager, &mut trace) {
            Ok(plan) => self.forward(site, desk, &plan, &mut trace).await,
            Err(reply) => Outcome::Reply(reply),
        };
        let after = match outcome {
            Outcome::Done(after) => after,
            Outcome::Reply(reply) => self.answer(site, desk, &reply, &mut trace).await,
        };
        conclude(site, desk, &trace);
        desk.next_request();
        after
    }

    /// Answers a request whose head could not be read.
    pub(super) async fn refuse(&mut self, desk: &mut Desk, reply: Reply<'_>) {
        let place = Rc::clone(&self.place);
        let now = place.worker.now();
        let site = place.site(now);
        let method = sluis_http1::Method::Other;
        let mut trace = Trace::new(now, place.worker.wall_now(), method);
        place.worker.stats().inc(Counter::HttpFramingErrors);
        // What was read of the head must not be taken for the request's facts.
        desk.request = sluis_http1::RequestHead::default();
        debug!(remote = %site.connection.remote, details = reply.details, "request refused");
        self.answer(site, desk, &reply, &mut trace).await;
        conclude(site, desk, &trace);
    }

    /// Sends an answer of ours.
    async fn answer(
        &mut self,
        site: Site<'_>,
        desk: &mut Desk,
        reply: &Reply<'_>,
        trace: &mut Trace<'_>,
    ) -> After {
        trace.details = Some(reply.details);
        if let Some(flag) = reply.flag {
            trace.flags.set(flag);
        }
        // A body that was not read would be taken for the next request.
        let is_read = trace.request_end.is_some() || drops_body(desk, trace);
        let closes = reply.closes || !is_read || self.must_close(site, desk);
        if let Err(unsent) = respond::answer(site, desk, reply, trace, closes) {
            let plain = match unsent {
                Unsent::Fault => Reply::fault(),
                Unsent::Replaced(reply) => reply.plain(),
            };
            trace.details = Some(plain.details);
            if respond::answer(site, desk, &plain, trace, closes).is_err() {
                return After::Drop;
            }
        }
        let deadline = Instant::now() + ANSWER_WAIT_MAX;
        if !flight::send(&mut self.io, &mut desk.down, &mut self.clock, deadline).await {
            trace.flags.set(Flag::DownstreamConnectionTermination);
            return After::Drop;
        }
        if closes { After::Linger } else { After::Keep }
    }
}

/// Throws away the rest of the body of a request that goes nowhere, if all of it has come.
fn drops_body(desk: &mut Desk, trace: &Trace<'_>) -> bool {
    if !trace.is_body_begun {
        desk.request_body.restart(desk.request.framing());
    }
    if let Ok(taken) = desk.request_body.take(desk.input.unread()) {
        desk.input.mark(taken.len, taken.dropped);
        desk.input.discard_ready();
    }
    desk.request_body.is_done()
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
    site.program.logs.write(site.worker, &record);
}
