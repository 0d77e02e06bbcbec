//! Which credential a request gets, if it may have one at all; and where it may go with it.

use std::{borrow::Cow, sync::Arc};

use sluis_http1::{Framing, Known, Method};
use sluis_rules::{Choice, Credentials, Denial, HostRewrite, Injection, RbacFacts, is_verified};
use sluis_signing::{BodyNeed, Digest};
use tracing::debug;
use zeroize::Zeroizing;

use super::{Part, Promise, Refusal, record, sealed::values, tokens};
use crate::{
    credentials::{Places, Ready},
    http::{
        desk::Desk, incoming::Incoming, plan::Plan, reply::Reply, rewrite, site::Site, trace::Trace,
    },
    rbac::peer_facts,
    upstream::Pick,
};

/// Decides what is promised to a request, before its body is asked for. What only the proxy may set
/// is gone from the request afterwards.
///
/// # Errors
///
/// The answer, where it may not have what its cluster demands.
pub(in crate::http) async fn admit<'c>(
    client: &mut impl Incoming,
    site: Site<'_>,
    desk: &mut Desk,
    plan: &Plan<'c>,
    trace: &mut Trace<'c>,
) -> Result<Promise<'c>, Box<Reply<'c>>> {
    let mut promise = Promise::default();
    let filters = plan.backend.credentials();
    if filters.is_empty() {
        return Ok(promise);
    }
    for filter in filters {
        match filter {
            Ready::Injector(rules, slot) => {
                promise.parts.push(Part::Injector(rules, slot.as_ref()));
            }
            Ready::Credentials(rules, places) => {
                // A token that is exchanged goes with the rest.
                let subjects = subjects(desk, rules);
                desk.request.fields.remove_where(|name, _| rules.own(name));
                let part = match choose(site, desk, plan, trace, (rules, places)) {
                    Ok(part) => fetched(site, &mut promise, part, &subjects).await.map(|()| part),
                    Err(refusal) => Err(refusal),
                };
                match part {
                    Ok(part) => promise.parts.push(part),
                    Err(_) if rules.allow_without() => record::without(site, (desk, plan), trace),
                    Err(refusal) => {
                        record::refused(site, (desk, plan), trace, refusal);
                        return Err(refusal.reply(plan));
                    }
                }
            }
        }
    }
    promise.digests = digests((client, site), desk, plan, trace, &promise).await?;
    Ok(promise)
}

/// A subject's token, for the credential at this place of the list.
type Subjects = Vec<(usize, Zeroizing<String>)>;

fn subjects(desk: &Desk, rules: &Credentials) -> Subjects {
    let found = rules.list.iter().enumerate().filter_map(|(place, credential)| {
        let Injection::Token(token) = &credential.injection else { return None };
        Some((place, tokens::subject(desk, token.flow().subject_field()?)?))
    });
    found.collect()
}

/// Has the token that the request is to carry, where it carries one.
async fn fetched<'c>(
    site: Site<'_>,
    promise: &mut Promise<'c>,
    part: Part<'c>,
    subjects: &Subjects,
) -> Result<(), Refusal> {
    let Part::Credential { choice, places, .. } = part else { return Ok(()) };
    let Injection::Token(token) = &choice.credential.injection else { return Ok(()) };
    let now = values(site, places, false);
    let secret = now.or_else(|_| values(site, places, true))?;
    let subject = subjects.iter().find(|(place, _)| *place == choice.place);
    let wanted = tokens::Wanted {
        credential: &choice.credential.name,
        token,
        secret: &secret,
        subject: subject.map(|(_, subject)| subject.as_str()),
    };
    let held = tokens::token(site.worker, wanted).await?;
    promise.tokens.push((Arc::clone(&choice.credential.name), held));
    Ok(())
}

fn choose<'c>(
    site: Site<'_>,
    desk: &Desk,
    plan: &Plan<'c>,
    trace: &mut Trace<'c>,
    (rules, places): (&'c Credentials, &'c [Places]),
) -> Result<Part<'c>, Refusal> {
    let host = rewrite::dns_host(&desk.request).ok_or(Refusal::Guarded)?;
    // A CONNECT leads to whatever its client says inside; the endpoint's name is not the client's
    // request.
    let is_connect = plan.terminates || desk.request.method() == Method::Connect;
    if is_connect || plan.forward.host == HostRewrite::Endpoint {
        return Err(Refusal::Guarded);
    }
    let request = site.facts(&desk.request);
    let found = {
        let facts = RbacFacts {
            peer: peer_facts(site.connection, trace.client),
            request: Some(&request),
            metadata: &trace.metadata,
        };
        let mut dry = None;
        let found = rules.choose(&host, &facts, |credential, grant| {
            dry.get_or_insert((credential, grant));
        });
        (found, dry)
    };
    let (found, dry) = found;
    if let Some((credential, grant)) = dry {
        record::would(trace, &credential.name, &grant.name);
    }
    let choice: Choice<'c> = found.map_err(|denial| match denial {
        Denial::NotGranted => Refusal::Denied,
        Denial::OtherHost => Refusal::Guarded,
    })?;
    record::chosen(trace, &choice);
    if let Some(most) = choice.grant.per_minute {
        let identity = identity(site);
        let limits = &site.worker.peek_config().settings.limits;
        if !limits.take(&choice.grant.name, &identity, most, site.now.into_std()) {
            return Err(Refusal::Limited);
        }
    }
    Ok(Part::Credential { choice, rules, places: &places[choice.place] })
}

/// Whose uses are counted together: the client's identity, else its address.
fn identity<'s>(site: Site<'s>) -> Cow<'s, str> {
    let peer = site.connection.peer.as_ref();
    match peer.and_then(|peer| peer.uris.first()) {
        Some(uri) => uri.as_str().into(),
        None => match &site.connection.remote {
            sluis_rules::Address::Socket(address) => address.ip().to_string().into(),
            other => other.to_string().into(),
        },
    }
}

/// Holds an attempt to endpoints that are who the request names.
///
/// # Errors
///
/// The answer, where this one is not, or nobody would make sure.
pub(in crate::http) fn guard<'c>(
    site: Site<'_>,
    desk: &Desk,
    plan: &Plan<'c>,
    trace: &mut Trace<'c>,
    (promise, pick): (&mut Promise<'c>, &Pick),
) -> Result<(), Box<Reply<'c>>> {
    if promise.parts.is_empty() {
        return Ok(());
    }
    let host = rewrite::dns_host(&desk.request);
    let is_good = |part: &Part<'c>| {
        let Part::Credential { choice, .. } = part else { return true };
        let hosts = &choice.credential.guard.hosts;
        let host = host.as_deref().filter(|host| hosts.iter().any(|one| one.matches(host)));
        let (Some(host), Some(tls)) = (host, pick.tls(plan.backend)) else { return false };
        let endpoint = pick.hostname().map(|name| &**name);
        is_verified(plan.backend.cluster(), tls, (host, endpoint), hosts)
    };
    let mut refusal = None;
    promise.parts.retain(|part| {
        let goes = is_good(part);
        if let (false, Part::Credential { rules, .. }) = (goes, part) {
            if rules.allow_without() {
                record::without(site, (desk, plan), trace);
            } else {
                refusal = Some(Refusal::Guarded);
            }
        }
        goes
    });
    let Some(refusal) = refusal else { return Ok(()) };
    debug!(cluster = %plan.backend.name, host, "credential kept from an endpoint that is not verified");
    record::refused(site, (desk, plan), trace, refusal);
    Err(refusal.reply(plan))
}

/// Digests the body by each algorithm that is asked for, once it has come as a whole; it stays
/// where it is.
async fn digests<'c>(
    (client, site): (&mut impl Incoming, Site<'_>),
    desk: &mut Desk,
    plan: &Plan<'c>,
    trace: &mut Trace<'_>,
    promise: &Promise<'c>,
) -> Result<Vec<Digest>, Box<Reply<'c>>> {
    let needs: Vec<BodyNeed> = promise
        .choices()
        .filter_map(|(choice, _)| match &choice.credential.injection {
            Injection::Signed(signature) => signature.scheme().needs_body(),
            Injection::Token(_) | Injection::ClientCertificate => None,
        })
        .collect();
    let Some(most) = needs.iter().map(|need| need.bytes_max).min() else { return Ok(Vec::new()) };
    if !desk.marks.scripts.request.is_idle() {
        // What would be digested is not what a script will send.
        let refusal = Refusal::Unavailable;
        record::refused(site, (desk, plan), trace, refusal);
        return Err(refusal.reply(plan));
    }
    let head = &desk.request;
    let has_body = head.framing() != Framing::None && !head.fields.has(Known::Upgrade);
    let mut body = Vec::new();
    if has_body {
        let most = usize::try_from(most).unwrap_or(usize::MAX - 1);
        let peeked = client.peek_body(desk, most + 1).await;
        let (bytes, is_whole) = peeked.map_err(|why| why.reply().of(plan.matched).closing())?;
        if !is_whole || bytes.len() > most {
            trace.received = bytes.len() as u64;
            let reply = Reply::new(413, "request_payload_too_large").text("Payload Too Large");
            return Err(reply.of(plan.matched).closing().into());
        }
        body = bytes;
    }
    Ok(needs.iter().map(|need| Digest::of(need.algorithm, &body)).collect())
}
