//! What is told of credentials: records, counters, metadata for access logs; never a value.

use sluis_rules::{Choice, MetaFields, MetaValue};

use super::{Promise, Refusal};
use crate::{
    audit::{Credential, Destination, Outcome, Ticket, Use, User, Verdict, What, Who},
    http::{desk::Desk, plan::Plan, rewrite, site::Site, trace::Trace},
    stats::Counter,
};

/// Where access logs find it: `%DYNAMIC_METADATA(sluis.credentials:credential)%` and so on.
const NAMESPACE: &str = "sluis.credentials";

/// Where verified tokens are.
const TOKENS: [&str; 2] = ["envoy.filters.http.jwt_authn", "istio_authn"];

/// What stands in logs in place of a field that was injected.
const REDACTED: &[u8] = b"[redacted]";

fn tell(trace: &mut Trace<'_>, key: &str, value: &str) {
    trace.metadata.set(NAMESPACE, key, MetaValue::text(value));
}

/// What was told before; empty for nothing.
fn told<'t>(trace: &'t Trace<'_>, key: &str) -> &'t str {
    let value = trace.metadata.get(NAMESPACE, &[key]);
    value.and_then(MetaValue::as_text).unwrap_or_default()
}

/// A credential was chosen.
pub(super) fn chosen(trace: &mut Trace<'_>, choice: &Choice<'_>) {
    tell(trace, "credential", &choice.credential.name);
    tell(trace, "grant", &choice.grant.name);
    tell(trace, "injection", choice.credential.injection.kind());
}

/// A grant in dry run would have covered the request.
pub(super) fn would(trace: &mut Trace<'_>, credential: &str, grant: &str) {
    tell(trace, "would_credential", credential);
    tell(trace, "would_grant", grant);
}

/// The request is about to go out with the credential.
///
/// # Errors
///
/// When that cannot be recorded: it must not go.
pub(super) fn injected(
    site: Site<'_>,
    (desk, plan): (&Desk, &Plan<'_>),
    trace: &mut Trace<'_>,
    (version, is_previous): (&str, bool),
) -> Result<Ticket, Refusal> {
    tell(trace, "version", version);
    tell(trace, "result", "injected");
    let ticket = site.worker.peek_config().settings.audit.begin(|| {
        let mut used = used(site, (desk, plan), trace);
        // The guard has seen to it before.
        used.destination.verified = rewrite::dns_host(&desk.request);
        "https".clone_into(&mut used.what.scheme);
        used
    });
    let ticket = ticket.map_err(|_| Refusal::Unrecorded)?;
    site.worker.stats().inc(Counter::CredentialsUsed);
    if is_previous {
        site.worker.stats().inc(Counter::CredentialsPrevious);
    }
    Ok(ticket)
}

/// The request goes out without, as the configuration allows.
pub(super) fn without(site: Site<'_>, (desk, plan): (&Desk, &Plan<'_>), trace: &mut Trace<'_>) {
    tell(trace, "result", "without");
    site.worker.stats().inc(Counter::CredentialsWithout);
    let used = || Use { verdict: Verdict::Without, ..used(site, (desk, plan), trace) };
    site.worker.peek_config().settings.audit.refused(used);
}

/// The request is not sent.
pub(super) fn refused(
    site: Site<'_>,
    (desk, plan): (&Desk, &Plan<'_>),
    trace: &mut Trace<'_>,
    refusal: Refusal,
) {
    let (word, counter, verdict) = match refusal {
        Refusal::Denied => ("denied", Counter::CredentialsDenied, Verdict::Denied),
        Refusal::Limited => ("limited", Counter::CredentialsLimited, Verdict::Denied),
        Refusal::Unavailable | Refusal::NotInjected | Refusal::Unrecorded => {
            ("unavailable", Counter::CredentialsUnavailable, Verdict::Unavailable)
        }
        Refusal::Guarded => ("guarded", Counter::CredentialsGuarded, Verdict::Guarded),
    };
    tell(trace, "result", word);
    site.worker.stats().inc(counter);
    let details = refusal.details().to_owned();
    let outcome = Outcome { status: refusal.reply(plan).status, details, ..Outcome::default() };
    let used = || Use { verdict, result: outcome, ..used(site, (desk, plan), trace) };
    site.worker.peek_config().settings.audit.refused(used);
}

/// The response holds the secret.
pub(super) fn echoed(site: Site<'_>) {
    site.worker.stats().inc(Counter::CredentialsEchoed);
}

/// What is known of a use before it.
fn used(site: Site<'_>, (desk, plan): (&Desk, &Plan<'_>), trace: &Trace<'_>) -> Use {
    let connection = site.connection;
    let request = &desk.request;
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    let field = |name: &str| request.fields.get_name(name.as_bytes()).map(text).unwrap_or_default();
    let some = |text: &str| (!text.is_empty()).then(|| text.to_owned());
    let name = told(trace, "credential");
    Use {
        verdict: Verdict::Injected,
        who: Who {
            principal: connection.peer.as_ref().and_then(|peer| peer.uris.first().cloned()),
            user: user(trace),
            source: connection.remote.to_string(),
        },
        what: What {
            method: text(request.method_name()),
            scheme: site.scheme(request).to_owned(),
            host: text(request.authority()),
            path: sluis_audit::target_without_values(&text(request.path())),
            request_id: field("x-request-id"),
            traceparent: field("traceparent"),
        },
        credential: (!name.is_empty()).then(|| Credential {
            name: name.to_owned(),
            version: told(trace, "version").to_owned(),
            injection: told(trace, "injection").to_owned(),
            signature_hash: None,
        }),
        grant: some(told(trace, "grant")),
        would: some(told(trace, "would_grant")),
        destination: Destination {
            cluster: plan.backend.name.to_string(),
            endpoint: trace.host.as_ref().map(ToString::to_string).unwrap_or_default(),
            verified: None,
        },
        attempt: trace.attempts,
        result: Outcome::default(),
    }
}

/// The user of a verified token.
fn user(trace: &Trace<'_>) -> Option<User> {
    let claims = TOKENS.iter().find_map(|namespace| {
        let tokens = trace.metadata.namespace(namespace)?;
        tokens.values().find_map(|token| match token {
            MetaValue::Fields(claims) if claims.contains_key("sub") => Some(claims),
            _ => None,
        })
    })?;
    let claim = |claims: &MetaFields, name: &str| {
        claims.get(name).and_then(MetaValue::as_text).unwrap_or_default().to_owned()
    };
    Some(User { issuer: claim(claims, "iss"), subject: claim(claims, "sub") })
}

/// Records how a try has ended.
pub(in crate::http) fn ended(promise: &mut Promise<'_>, desk: &Desk, trace: &Trace<'_>) {
    for ticket in promise.tickets.drain(..) {
        let has_answer = trace.response_start.is_some() || desk.response.status() != 0;
        ticket.finish(Outcome {
            status: if has_answer { desk.response.status() } else { 0 },
            details: trace.details.as_deref().unwrap_or_default().to_owned(),
            bytes_sent: trace.received,
            bytes_received: trace.sent,
            milliseconds: 0,
        });
    }
}

/// Lets logs see that fields were injected, and nothing of them.
pub(in crate::http) fn redact(desk: &mut Desk) {
    for name in std::mem::take(&mut desk.marks.injected) {
        // There is room: the head was sent with more.
        let _shown = desk.request.fields.set(name.as_bytes(), REDACTED);
    }
}
