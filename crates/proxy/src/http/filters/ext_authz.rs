//! The external authorization filter: asks a service about each request.
//!
//! In:    a request head, its route, what earlier filters found out.
//! Out:   the request with the changes that the service makes; or its denial.
//! Never: lets a request go on without a yes, unless `failure_mode_allow` says so.

mod question;
mod verdict;

use std::sync::Arc;

use sluis_http1::{Framing, Known, Method};
use sluis_rules::{
    AuthzBody, AuthzCheck, AuthzService, ExtAuthz, FilterSetting, Matched, MetaFields, MetaValue,
};
use tracing::debug;

use crate::{
    access_log::Flag,
    config::Config,
    http::{
        authz::{self, AuthzError},
        call,
        desk::Desk,
        incoming::Incoming,
        reply::{Reply, Unsent},
        scene::Scene,
        trace::Trace,
    },
};
use question::Told;
use verdict::{Changes, Denial, Outcome, Verdict};

/// Where an answer's metadata are put, whatever the filter is called (as in Envoy).
const NAMESPACE: &str = "envoy.filters.http.ext_authz";

/// How long the service took, in milliseconds, among the metadata of its answer.
const DURATION: &str = "ext_authz_duration";

const FAILURE_ALLOWED: &[u8] = b"x-envoy-auth-failure-mode-allowed";

const DENIED: &str = "ext_authz_denied";
const ERROR: &str = "ext_authz_error";

/// The filter on one worker.
#[derive(Debug)]
pub(super) struct Authz {
    own: Arc<ExtAuthz>,
}

/// A request's body as far as the service is told of it.
#[derive(Debug, Default)]
pub(super) struct Seen {
    bytes: Vec<u8>,
    /// How many bytes had come, told or not.
    arrived: usize,
    is_part: bool,
}

impl Authz {
    pub(super) fn new(own: &Arc<ExtAuthz>) -> Self {
        Self { own: Arc::clone(own) }
    }

    /// Asks about a request. True when its route must be found anew.
    pub(super) async fn on_request<'c>(
        &self,
        (name, scene): (&str, Scene<'_>),
        matched: Option<&Matched<'c>>,
        config: &Config,
        client: &mut impl Incoming,
        (desk, trace): (&mut Desk, &mut Trace<'c>),
    ) -> Result<bool, Box<Reply<'c>>> {
        // As in Envoy: what has no route goes nowhere.
        let Some(matched) = matched else { return Ok(false) };
        let own = &*self.own;
        let draw = scene.worker.random().next();
        let is_asked = own.enabled.holds(draw)
            && own.enabled_metadata.as_ref().is_none_or(|one| one.matches(Some(&trace.metadata)));
        if !is_asked {
            return match own.denies_when_disabled {
                true => Err(failed(own.status_on_error, *matched)),
                false => Ok(false),
            };
        }
        let check = check_of(name, matched);
        let body = match check.skips_body {
            true => None,
            false => check.body.or(own.body),
        };
        let body = match body {
            Some(limits) if has_body(desk) => {
                let seen = peek(client, (desk, trace), limits, *matched).await?;
                Some((seen, limits))
            }
            _ => None,
        };
        let told = Told { scene, desk, trace, check: &check, body: body.as_ref() };
        let asked = self.ask(&told, config).await;
        let (arrived, is_whole) = client.arrived(desk);
        let arrived = body.as_ref().map_or(arrived, |(seen, _)| seen.arrived);
        let verdict = match asked {
            Ok(verdict) => verdict,
            Err(error) => {
                debug!(filter = name, %error, "the authorization service gave no verdict");
                Verdict { outcome: Outcome::Failed(None), metadata: MetaFields::new() }
            }
        };
        let obeyed = self.obey(verdict, (scene, *matched), (desk, trace));
        obeyed.map_err(|reply| {
            trace.received = arrived as u64;
            Reply { is_waited: is_whole, ..*reply }.into()
        })
    }

    async fn ask(&self, told: &Told<'_, '_>, config: &Config) -> Result<Verdict, AuthzError> {
        let own = &*self.own;
        let worker = told.scene.worker;
        match &own.service {
            AuthzService::Grpc(service) => {
                let request = question::grpc(own, told);
                let answer = authz::check(worker, config, service, &request).await?;
                Ok(verdict::of_grpc(answer))
            }
            AuthzService::Http(service) => {
                let backend = config.backend(&service.cluster);
                let backend =
                    backend.ok_or_else(|| AuthzError::NoCluster((&*service.cluster).into()))?;
                let question = question::http(own, service, told);
                let question = question.ok_or(AuthzError::Inexpressible)?;
                let how = (service.timeout, false);
                let answer = call::ask(worker, backend, &question, how).await;
                Ok(verdict::of_http(service, answer?))
            }
        }
    }

    /// Does what the service says.
    fn obey<'c>(
        &self,
        verdict: Verdict,
        (scene, matched): (Scene<'_>, Matched<'c>),
        (desk, trace): (&mut Desk, &mut Trace<'c>),
    ) -> Result<bool, Box<Reply<'c>>> {
        let own = &*self.own;
        let Verdict { outcome, mut metadata } = verdict;
        if own.takes_metadata && !metadata.is_empty() {
            if let Outcome::Yes(_) = outcome {
                let waited = scene.worker.now().saturating_duration_since(trace.start).as_millis();
                let waited = u32::try_from(waited).unwrap_or(u32::MAX);
                metadata.insert(DURATION.into(), MetaValue::Number(f64::from(waited)));
            }
            for (key, value) in metadata {
                trace.metadata.set(NAMESPACE, &key, value);
            }
        }
        match outcome {
            Outcome::Yes(changes) => {
                let clears = own.clears_route && changes.concerns_route();
                let Changes { request, remove, query_set, query_remove, response } = changes;
                let changed = verdict::change_request(&mut desk.request, &request, &remove)
                    .and_then(|()| {
                        let head = &mut desk.request;
                        verdict::change_query(head, &query_set, &query_remove, &mut desk.text)
                    });
                changed.map_err(|_| invalid(matched))?;
                desk.marks.authz.extend(response);
                Ok(clears)
            }
            Outcome::No(denial) => Err(denied(denial, own.denied_body_max, matched)),
            Outcome::Failed(_) if own.fails_open => {
                if own.marks_failure {
                    let marked = desk.request.fields.append(FAILURE_ALLOWED, b"true");
                    marked.map_err(|_| invalid(matched))?;
                }
                Ok(false)
            }
            Outcome::Failed(None) => Err(failed(own.status_on_error, matched)),
            Outcome::Failed(Some(denial)) => {
                let status = if denial.status == 0 { own.status_on_error } else { denial.status };
                let reply = denied(Denial { status, ..denial }, own.denied_body_max, matched);
                Err(Reply { details: ERROR.into(), ..*reply }.into())
            }
        }
    }

    /// Makes the changes to a response that the service asked for.
    pub(super) fn on_response(desk: &mut Desk) -> Result<(), Unsent> {
        let changes = std::mem::take(&mut desk.marks.authz);
        for change in &changes {
            verdict::change(&mut desk.response.fields, change).map_err(|_| Unsent::Fault)?;
        }
        Ok(())
    }
}

/// What table, host and route say together: the most specific wins, and names add up.
fn check_of(name: &str, matched: &Matched<'_>) -> AuthzCheck {
    let mut all = AuthzCheck::default();
    let mut is_first = true;
    for setting in matched.settings(name) {
        let FilterSetting::Authz(said) = setting else { continue };
        if std::mem::take(&mut is_first) {
            (all.skips_body, all.body) = (said.skips_body, said.body);
        }
        for (key, value) in &said.extensions {
            if !all.extensions.iter().any(|(known, _)| known == key) {
                all.extensions.push((Arc::clone(key), Arc::clone(value)));
            }
        }
    }
    all
}

/// Whether there is a body to send along: not where bytes of another protocol follow.
fn has_body(desk: &Desk) -> bool {
    let head = &desk.request;
    head.framing() != Framing::None
        && head.method() != Method::Connect
        && !head.fields.has(Known::Upgrade)
}

/// Waits for as much of the body as the service is to see.
async fn peek<'c>(
    client: &mut impl Incoming,
    (desk, trace): (&mut Desk, &mut Trace<'_>),
    limits: AuthzBody,
    matched: Matched<'c>,
) -> Result<Seen, Box<Reply<'c>>> {
    let enough = if limits.allows_part { limits.bytes_max } else { limits.bytes_max + 1 };
    let (mut bytes, is_whole) =
        client.peek_body(desk, enough).await.map_err(|why| why.reply().of(matched).closing())?;
    if !limits.allows_part && (!is_whole || bytes.len() > limits.bytes_max) {
        trace.received = bytes.len() as u64;
        let reply = Reply::new(413, "request_payload_too_large").text("Payload Too Large");
        return Err(reply.of(matched).closing().into());
    }
    let is_part = !is_whole || bytes.len() > limits.bytes_max;
    let arrived = bytes.len();
    bytes.truncate(limits.bytes_max);
    Ok(Seen { bytes, arrived, is_part })
}

/// The answer to who has no yes.
fn failed<'c>(status: u16, matched: Matched<'c>) -> Box<Reply<'c>> {
    Reply::new(status, ERROR).flag(Flag::UnauthorizedExternalService).of(matched).into()
}

/// The answer when the service wants of a request what cannot be.
fn invalid<'c>(matched: Matched<'c>) -> Box<Reply<'c>> {
    Reply::new(500, "ext_authz_invalid").flag(Flag::UnauthorizedExternalService).of(matched).into()
}

fn denied<'c>(denial: Denial, body_max: Option<usize>, matched: Matched<'c>) -> Box<Reply<'c>> {
    let Denial { status, mut body, headers } = denial;
    if !(200..=599).contains(&status) {
        return invalid(matched);
    }
    if let Some(most) = body_max {
        body.truncate(most);
    }
    let Ok(fields) = verdict::fields_of(&headers) else { return invalid(matched) };
    let reply = Reply::new(status, DENIED).flag(Flag::UnauthorizedExternalService).of(matched);
    Reply { body: body.into(), fields, ..reply }.into()
}
