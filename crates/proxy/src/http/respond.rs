//! The head of every response to the client, whoever made it.

use sluis_http1::{Framing, Known, Method, ResponseHead, Upgrade, Version};
use sluis_rules::{Matched, ServerHeader};
use sluis_script::BodyIs;
use tokio::time::Instant;

use super::{
    desk::Desk,
    flight::Passing,
    mutate::{self, Unmade},
    plan::Plan,
    protocol::Protocol,
    reply::{Reply, Unsent},
    site::Site,
    strand::Gathered,
    text::number,
    trace::Trace,
};
use crate::grpc;

/// Interim responses that one request may have; more are a flood.
pub(super) const INTERIM_MAX: u32 = 16;

/// How far the head of a response has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Dressed {
    /// It can be sent.
    Ready,
    /// A script waits before it; [`resume`] goes on.
    Waits,
}

impl From<Unmade> for Unsent {
    fn from(_: Unmade) -> Self {
        Self::Fault
    }
}

/// Whether a response ends HTTP on the connection: 101, or success of a CONNECT (RFC 9110 §9.3.6).
pub(super) fn switches(method: Method, status: u16) -> bool {
    status == 101 || (method == Method::Connect && (200..300).contains(&status))
}

/// Writes the head of the endpoint's response to `desk.down`, and says how its body passes on.
pub(super) fn pass_on(
    site: Site<'_>,
    desk: &mut Desk,
    plan: &Plan<'_>,
    trace: &mut Trace<'_>,
    closes: bool,
) -> Result<(Passing, bool), Unsent> {
    let status = desk.response.status();
    let is_tunnel = switches(desk.request.method(), status);
    let framing = if is_tunnel { Framing::None } else { desk.response.framing() };
    let (passing, closes) = shape(framing, desk.request.version(), closes);
    let keeps = if status == 101 { Upgrade::Keep } else { Upgrade::Remove };
    desk.response.strip_hop_by_hop(keeps);
    if is_tunnel {
        desk.response.fields.remove(Known::ContentLength);
        desk.response.fields.remove(Known::TransferEncoding);
    }
    match passing {
        Passing::IntoChunks => {
            desk.response.fields.set_trusted(Known::TransferEncoding, b"chunked");
        }
        Passing::OutOfChunks => desk.response.fields.remove(Known::TransferEncoding),
        Passing::Raw => {}
    }
    // Where a script may wait the bodies are taken apart.
    if dress(site, desk, plan, trace)? == Dressed::Waits {
        return Err(Unsent::Fault);
    }
    close_head(desk, closes && !is_tunnel);
    Ok((passing, closes))
}

/// What is done to the head of an endpoint's response, whatever the client speaks. Hop-by-hop
/// fields have been removed.
pub(super) fn dress(
    site: Site<'_>,
    desk: &mut Desk,
    plan: &Plan<'_>,
    trace: &mut Trace<'_>,
) -> Result<Dressed, Unsent> {
    if desk.response.status() == 204 {
        desk.response.fields.remove(Known::ContentLength);
    }
    if !site.program.hides_envoy {
        // As in Envoy: an endpoint that answers before it has the whole request has no time.
        if let Some(sent) = trace.request_end.filter(|_| !plan.is_upgrade) {
            let now = trace.response_start.unwrap_or_else(Instant::now);
            let waited = now.saturating_duration_since(sent).as_millis();
            number(u64::try_from(waited).unwrap_or(u64::MAX), &mut desk.text);
            desk.response.fields.set_trusted(Known::XEnvoyUpstreamServiceTime, &desk.text);
        }
        if plan.matched.virtual_host.response_attempt_count {
            number(u64::from(trace.attempts), &mut desk.text);
            desk.response.fields.set_trusted(Known::XEnvoyAttemptCount, &desk.text);
        }
    }
    for cookie in &desk.marks.cookies {
        desk.response.fields.append_trusted(Known::SetCookie, cookie.as_bytes());
    }
    if let Some(weighted) = plan.weighted {
        mutate_response(site, &weighted.mutations, desk, trace)?;
    }
    let passed = adjust(site, desk, Some(&plan.matched), trace)?;
    Ok(dressed(site, desk, trace, passed))
}

/// Goes on with the filters, once a script has what it waited for.
pub(super) fn resume(
    site: Site<'_>,
    desk: &mut Desk,
    matched: Option<&Matched<'_>>,
    trace: &mut Trace<'_>,
) -> Result<Dressed, Unsent> {
    let passed =
        site.program.chain.resume_response(site.scene, matched, (&mut *desk, &mut *trace))?;
    Ok(dressed(site, desk, trace, passed))
}

fn dressed(site: Site<'_>, desk: &mut Desk, trace: &mut Trace<'_>, passed: bool) -> Dressed {
    if !passed {
        return Dressed::Waits;
    }
    finish(site, desk, trace);
    Dressed::Ready
}

/// How a body of this framing reaches a client of this version, and whether the connection's end
/// is its end.
fn shape(framing: Framing, version: Version, closes: bool) -> (Passing, bool) {
    match (framing, version) {
        (Framing::UntilClose, Version::Http11) => (Passing::IntoChunks, closes),
        (Framing::UntilClose, Version::Http10) => (Passing::Raw, true),
        (Framing::Chunked, Version::Http10) => (Passing::OutOfChunks, true),
        _ => (Passing::Raw, closes),
    }
}

/// Makes the head of an answer of ours; [`end_answer`] follows.
pub(super) fn answer(
    site: Site<'_>,
    desk: &mut Desk,
    reply: &Reply<'_>,
    trace: &mut Trace<'_>,
) -> Result<Dressed, Unsent> {
    desk.response.begin(reply.status);
    let fields = &mut desk.response.fields;
    for (name, value) in &reply.fields {
        fields.append(name, value).map_err(|_| Unsent::Fault)?;
    }
    if let Some(location) = &reply.location {
        fields.set(b"location", location).map_err(|_| Unsent::Fault)?;
    }
    let counts = reply.matched.is_some_and(|route| route.virtual_host.response_attempt_count);
    if counts && reply.tells_attempts && trace.attempts > 0 && !site.program.hides_envoy {
        number(u64::from(trace.attempts), &mut desk.text);
        fields.set_trusted(Known::XEnvoyAttemptCount, &desk.text);
    }
    let is_grpc = grpc::is_request(&desk.request);
    let has_body = may_have_body(reply.status, is_grpc);
    if is_grpc {
        tell_grpc(reply, &mut desk.response, &mut desk.text);
        if site.protocol == Protocol::Http1 {
            desk.response.fields.set_trusted(Known::ContentLength, b"0");
        }
    }
    let fields = &mut desk.response.fields;
    // HTTP/2 says by the end of the stream that there is no body.
    if has_body && (site.protocol == Protocol::Http1 || !reply.body.is_empty()) {
        number(reply.body.len() as u64, &mut desk.text);
        fields.set_trusted(Known::ContentLength, &desk.text);
        if !reply.body.is_empty() && !fields.has(Known::ContentType) {
            fields.set_trusted(Known::ContentType, b"text/plain");
        }
    }
    if site.program.chain.has_scripts() && !reply.is_plain {
        let is_sent = has_body && trace.method != Method::Head && !reply.body.is_empty();
        let scripts = &mut desk.marks.scripts;
        scripts.response_body = if is_sent { BodyIs::Follows } else { BodyIs::Absent };
        scripts.gathered =
            is_sent.then(|| Gathered { bytes: reply.body.to_vec(), ..Gathered::default() });
    }
    let passed = if reply.is_unchanged {
        trace.status = reply.status;
        site.program.chain.on_response(
            site.scene,
            reply.matched.as_ref(),
            (&mut *desk, &mut *trace),
        )?
    } else if !reply.is_plain {
        adjust(site, desk, reply.matched.as_ref(), trace)?
    } else {
        true
    };
    Ok(dressed(site, desk, trace, passed))
}

fn may_have_body(status: u16, is_grpc: bool) -> bool {
    !matches!(status, 204 | 304) && !is_grpc
}

/// Ends the head of an answer of ours, now that its body is known. True when a body goes with it.
pub(super) fn end_answer(
    site: Site<'_>,
    desk: &mut Desk,
    reply: &Reply<'_>,
    trace: &mut Trace<'_>,
) -> bool {
    let has_body = may_have_body(reply.status, grpc::is_request(&desk.request));
    let held = desk.marks.scripts.gathered.as_ref();
    let len = held.map_or(reply.body.len(), |held| held.bytes.len());
    // A script may have changed the body, or taken its length away.
    if has_body && site.program.chain.has_scripts() && (site.protocol == Protocol::Http1 || len > 0)
    {
        number(len as u64, &mut desk.text);
        desk.response.fields.set_trusted(Known::ContentLength, &desk.text);
    }
    let sends_body = has_body && trace.method != Method::Head;
    if sends_body {
        trace.sent = len as u64;
    }
    sends_body
}

/// A gRPC client looks for the outcome in `grpc-status`, whatever the HTTP status.
fn tell_grpc(reply: &Reply<'_>, response: &mut ResponseHead, text: &mut Vec<u8>) {
    response.set_status(200);
    let fields = &mut response.fields;
    fields.set_trusted(Known::ContentType, b"application/grpc");
    let status = reply.grpc_status.unwrap_or_else(|| grpc::status(reply.status));
    number(u64::from(status), text);
    fields.set_trusted(Known::GrpcStatus, text);
    if !reply.body.is_empty() {
        grpc::message(&reply.body, text);
        // It is printable ASCII; if there is no room the client has the status.
        let _said = fields.set(b"grpc-message", text);
    }
}

/// What the route and the filters make of a response. False when a script waits.
fn adjust(
    site: Site<'_>,
    desk: &mut Desk,
    matched: Option<&Matched<'_>>,
    trace: &mut Trace<'_>,
) -> Result<bool, Unsent> {
    trace.status = desk.response.status();
    if let Some(matched) = matched {
        for mutations in matched.mutations() {
            mutate_response(site, mutations, desk, trace)?;
        }
    }
    site.program.chain.on_response(site.scene, matched, (desk, trace))
}

/// What all responses have in common.
fn finish(site: Site<'_>, desk: &mut Desk, trace: &mut Trace<'_>) {
    trace.status = desk.response.status();
    let manager = site.manager;
    let fields = &mut desk.response.fields;
    match manager.server_header {
        ServerHeader::AppendIfAbsent if fields.has(Known::Server) => {}
        ServerHeader::PassThrough => {}
        _ => fields.set_trusted(Known::Server, manager.server_name.as_bytes()),
    }
    if !fields.has(Known::Date) {
        fields.append_trusted(Known::Date, &site.worker.http.date(trace.wall));
    }
    if let Some(via) = &manager.via {
        fields.append_trusted(Known::Via, via.as_bytes());
    }
    let asks_trace = desk.request.fields.has(Known::XEnvoyForceTrace);
    if (manager.request_id_in_response || asks_trace)
        && let Some(id) = desk.request.fields.get(Known::XRequestId)
    {
        fields.set_trusted(Known::XRequestId, id);
    }
}

fn mutate_response(
    site: Site<'_>,
    mutations: &sluis_rules::HeaderMutations,
    desk: &mut Desk,
    trace: &Trace<'_>,
) -> Result<(), Unmade> {
    if mutations.response_remove.is_empty() && mutations.response_set.is_empty() {
        return Ok(());
    }
    let Desk { request, response, text, .. } = desk;
    mutate::response(site.scene, mutations, request, &mut response.fields, trace, text)
}

/// Serialises the head; what was not sent before it stays before it.
pub(super) fn close_head(desk: &mut Desk, closes: bool) {
    if desk.down.is_sent() {
        desk.down.clear();
    }
    let start = desk.down.bytes.len();
    desk.response.write_open_to(&mut desk.down.bytes);
    if desk.request.version() == Version::Http10 && desk.response.status() != 426 {
        // As Envoy: a client is answered in its own version, unless that is what is refused.
        desk.down.bytes[start + b"HTTP/1.".len()] = b'0';
        if !closes {
            desk.down.bytes.extend_from_slice(b"connection: keep-alive\r\n");
        }
    }
    if closes {
        desk.down.bytes.extend_from_slice(b"connection: close\r\n");
    }
    desk.down.bytes.extend_from_slice(b"\r\n");
}
