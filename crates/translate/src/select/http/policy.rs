//! What goes with a route: retries, faults, CORS, header changes.
//!
//! In:    one rule of `http`, and the mesh-wide defaults.
//! Out:   the inputs of the same name, as Istio reads them.
//! Never: turns a fault that cannot be carried out into one that lets requests pass.

use std::collections::BTreeMap;

use sluis_resources::{
    Delay, DelayKind, GRPC_STATUSES, HeaderOps, HttpAbort, HttpRoute, Meta,
    Retries as WrittenRetries, UnmatchedPreflights,
};

use super::text;
use crate::{
    AbortStatus, CorsInput, Fault, FaultInput, HeaderChanges, HeaderEdits, Retries,
    select::Selection,
};

/// Istio's conditions for another try, where none are written.
const RETRY_ON: &str =
    "connect-failure,refused-stream,unavailable,cancelled,retriable-status-codes";

/// Istio's number of further tries, where none is written.
const RETRY_ATTEMPTS: u32 = 2;

/// The condition that the listed status codes are for.
const BY_STATUS: &str = "retriable-status-codes";

/// What is answered when a fault names a gRPC status that does not exist: `UNKNOWN`.
const GRPC_UNKNOWN: u32 = 2;

/// When and how often to try again.
///
/// Where the lone target chooses by hash, another try goes to the same endpoint unless the user says
/// otherwise: an endpoint chosen by hash is the only one that has what the client wants.
pub(super) fn retries(
    selection: &Selection<'_>,
    written: Option<&WrittenRetries>,
    is_hashed: bool,
) -> Option<Retries> {
    let policy = written.or(selection.snapshot.mesh().default_http_retry_policy.as_ref());
    let attempts = policy.map_or(RETRY_ATTEMPTS, |policy| policy.attempts);
    if attempts == 0 {
        return None;
    }
    let conditions = policy.and_then(|policy| policy.retry_on.as_deref());
    let conditions = conditions.filter(|text| !text.is_empty()).unwrap_or(RETRY_ON);
    let (mut on, mut status_codes) = (Vec::new(), Vec::new());
    for condition in conditions.split(',').map(str::trim).filter(|text| !text.is_empty()) {
        match condition.parse() {
            Ok(code) if (100..600).contains(&code) => status_codes.push(code),
            _ => on.push(condition),
        }
    }
    if !status_codes.is_empty() && !on.contains(&BY_STATUS) {
        on.push(BY_STATUS);
    }
    Some(Retries {
        attempts,
        per_try_timeout: policy.and_then(|policy| policy.per_try_timeout),
        on: on.join(","),
        status_codes,
        backoff: policy.and_then(|policy| policy.backoff).filter(|wait| !wait.is_zero()),
        avoids_tried: policy
            .and_then(|policy| policy.retry_ignore_previous_hosts)
            .unwrap_or(!is_hashed),
        avoids_localities: policy
            .and_then(|policy| policy.retry_remote_localities)
            .unwrap_or(false),
    })
}

/// Trouble made on purpose.
pub(super) fn fault(
    selection: &mut Selection<'_>,
    meta: &Meta,
    route: &HttpRoute,
) -> Option<FaultInput> {
    let written = route.fault.as_ref()?;
    let mut refuse = |field: &str, message: String| {
        let fault = Fault::error(route.at.clone(), message);
        selection.fault(meta, fault.field(format!("spec.http.fault.{field}")));
    };
    let delay = written.delay.as_ref().and_then(|Delay { kind, percentage }| match kind {
        DelayKind::Fixed(duration) => Some((*duration, *percentage)),
        DelayKind::Exponential(_) => {
            // Istio leaves it out too, in silence.
            refuse("delay.exponentialDelay", "not carried out: write a fixedDelay".to_owned());
            None
        }
    });
    let abort = written.abort.as_ref().and_then(|abort| {
        let status = abort_status(abort).unwrap_or_else(|name| {
            let message = format!("{name:?} is not a gRPC status: UNKNOWN is answered");
            refuse("abort.grpcStatus", message);
            Some(AbortStatus::Grpc(GRPC_UNKNOWN))
        });
        Some((status?, abort.percentage))
    });
    (delay.is_some() || abort.is_some()).then_some(FaultInput { delay, abort })
}

/// The status of an abort; `None` where none is written, and the name of one that does not exist.
fn abort_status(abort: &HttpAbort) -> Result<Option<AbortStatus>, &str> {
    if let Some(status) = abort.http_status {
        return Ok(Some(AbortStatus::Http(u32::from(status))));
    }
    let Some(name) = abort.grpc_status.as_deref() else { return Ok(None) };
    let by_name = GRPC_STATUSES.iter().position(|known| known.eq_ignore_ascii_case(name));
    let number = by_name.and_then(|number| u32::try_from(number).ok()).or(name.parse().ok());
    number.map(|number| Some(AbortStatus::Grpc(number))).ok_or(name)
}

/// Which pages of other origins may read the answers.
pub(super) fn cors(route: &HttpRoute) -> Option<CorsInput> {
    let written = route.cors.as_ref()?;
    Some(CorsInput {
        origins: written.allow_origins.iter().map(|origin| text(Some(origin))).collect(),
        methods: written.allow_methods.join(","),
        headers: written.allow_headers.join(","),
        exposed: written.expose_headers.join(","),
        max_age: written.max_age.map(|age| age.as_secs()),
        credentials: written.allow_credentials,
        is_unmatched_forwarded: written.unmatched_preflights == UnmatchedPreflights::Forward,
    })
}

/// Header changes, and a new Host where the request's `Host` or `:authority` is set or added.
///
/// Other pseudo headers cannot be changed; as in Istio they are left out.
pub(super) fn changes(written: &sluis_resources::HeaderChanges) -> (HeaderChanges, Option<String>) {
    let host_of = |headers: &BTreeMap<String, String>| {
        headers.iter().find(|(name, _)| is_host(name)).map(|(_, value)| value.clone())
    };
    let host = host_of(&written.request.set).or_else(|| host_of(&written.request.add));
    let changes =
        HeaderChanges { request: edits(&written.request), response: edits(&written.response) };
    (changes, host.filter(|host| !host.is_empty()))
}

fn is_host(name: &str) -> bool {
    name.eq_ignore_ascii_case("host") || name.eq_ignore_ascii_case(":authority")
}

fn edits(written: &HeaderOps) -> HeaderEdits {
    let is_free = |name: &str| !name.starts_with(':') && !name.eq_ignore_ascii_case("host");
    let pairs = |map: &BTreeMap<String, String>| {
        let free = map.iter().filter(|(name, _)| is_free(name));
        free.map(|(key, value)| (key.clone(), value.clone())).collect()
    };
    HeaderEdits {
        set: pairs(&written.set),
        add: pairs(&written.add),
        remove: written.remove.iter().filter(|name| is_free(name)).cloned().collect(),
    }
}
