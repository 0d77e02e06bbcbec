//! Whether and when a request is sent again.

use std::{cell::Cell, time::Duration};

use sluis_http1::{Fields, Known, Names};
use sluis_rules::{HeaderValues, RequestFacts, ResetFormat, RetryNames, RetryOn, RetryPolicy};

use super::failure::Failure;
use crate::{random::Random, upstream::ConnectError};

/// What is left of one request's tries.
#[derive(Debug)]
pub(super) struct Tries<'c> {
    policy: Option<&'c RetryPolicy>,
    on: RetryOn,
    /// Statuses that the client asks for besides the policy's.
    statuses: Vec<u16>,
    per_try_timeout: Option<Duration>,
    left: u32,
    /// Sending again on a fresh connection after a kept one turned out dead; once.
    stale_left: u32,
    made: u32,
    /// Whether the last further try took the place of a kept connection that was dead.
    is_silent: bool,
    /// Whether a try would have followed, had one been left.
    is_exhausted: Cell<bool>,
    /// The wait that a response asks for.
    asked_wait: Cell<Option<Duration>>,
}

/// What to do after a try without a response.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Next {
    /// Send it again after this time.
    Again(Duration),
    /// Tell the client.
    GiveUp,
}

const BASE: Duration = Duration::from_millis(25);
const BASE_MAX: Duration = Duration::from_millis(250);

/// What a client inside the mesh may ask for. From others these fields have been removed.
const ASKED: [Known; 6] = [
    Known::XEnvoyRetryOn,
    Known::XEnvoyRetryGrpcOn,
    Known::XEnvoyMaxRetries,
    Known::XEnvoyRetriableStatusCodes,
    Known::XEnvoyRetriableHeaderNames,
    Known::XEnvoyUpstreamRqPerTryTimeoutMs,
];

impl<'c> Tries<'c> {
    /// `request` decides whether the policy concerns it at all; `asks` says whether it has fields
    /// that change the policy.
    pub(super) fn new(
        policy: Option<&'c RetryPolicy>,
        request: &impl RequestFacts,
        asks: bool,
    ) -> Self {
        let policy = policy.filter(|policy| {
            policy.request_headers.is_empty()
                || policy.request_headers.iter().any(|header| header.matches(request))
        });
        if !asks {
            return Self::of_policy(policy);
        }
        let text = |name: &str| {
            let mut values = HeaderValues::new();
            request.header(name, &mut values);
            values.first().and_then(|value| std::str::from_utf8(value).ok().map(str::to_owned))
        };
        let read = |name, names| {
            text(name).map_or(RetryOn::default(), |text| RetryOn::read(&text, names, |_| {}))
        };
        let of_policy = policy.map(|policy| policy.on).unwrap_or_default();
        let on = of_policy
            .and(read("x-envoy-retry-on", RetryNames::Http))
            .and(read("x-envoy-retry-grpc-on", RetryNames::Grpc));
        let number = |name| text(name).and_then(|text| text.trim().parse::<u64>().ok());
        let left = number("x-envoy-max-retries")
            .and_then(|count| u32::try_from(count).ok())
            .unwrap_or_else(|| policy.map_or(1, |policy| policy.retries));
        let codes = text("x-envoy-retriable-status-codes").unwrap_or_default();
        let own = number("x-envoy-upstream-rq-per-try-timeout-ms").map(Duration::from_millis);
        Self {
            on,
            statuses: codes.split(',').filter_map(|code| code.trim().parse().ok()).collect(),
            per_try_timeout: own
                .or_else(|| policy.and_then(|policy| policy.per_try_timeout))
                .filter(|limit| !limit.is_zero()),
            left: if on.is_empty() { 0 } else { left },
            ..Self::of_policy(policy)
        }
    }

    /// Those of a request that asks for nothing.
    fn of_policy(policy: Option<&'c RetryPolicy>) -> Self {
        let on = policy.map(|policy| policy.on).unwrap_or_default();
        let per_try_timeout = policy.and_then(|policy| policy.per_try_timeout);
        let left = policy.map_or(1, |policy| policy.retries);
        Self {
            policy,
            on,
            statuses: Vec::new(),
            per_try_timeout: per_try_timeout.filter(|limit| !limit.is_zero()),
            left: if on.is_empty() { 0 } else { left },
            stale_left: 1,
            made: 0,
            is_silent: false,
            is_exhausted: Cell::new(false),
            asked_wait: Cell::new(None),
        }
    }

    /// Removes from a request what only we read.
    pub(super) fn clean(fields: &mut Fields) {
        for name in ASKED {
            fields.remove(name);
        }
    }

    pub(super) fn per_try_timeout(&self) -> Option<Duration> {
        self.per_try_timeout
    }

    /// Longest silence of one try.
    pub(super) fn per_try_idle_timeout(&self) -> Option<Duration> {
        self.policy.and_then(|policy| policy.per_try_idle_timeout)
    }

    /// Whether a further try may follow, so that the request must be kept.
    pub(super) fn may_follow(&self) -> bool {
        self.left > 0
    }

    /// Whether a try would have followed, had one been left.
    pub(super) fn are_used_up(&self) -> bool {
        self.is_exhausted.get()
    }

    /// Whether the last further try took the place of one on a dead connection: nobody counts it.
    pub(super) fn was_silent(&self) -> bool {
        self.is_silent
    }

    /// Whether a further try has followed the first.
    pub(super) fn have_followed(&self) -> bool {
        self.made > 0
    }

    /// How often an endpoint is drawn anew when it was tried before.
    pub(super) fn host_attempts(&self) -> u32 {
        self.policy.map_or(0, |policy| policy.host_attempts)
    }

    /// Whether the policy looks at the priorities of the endpoints that were tried.
    pub(super) fn looks_at_priorities(&self) -> bool {
        self.policy.is_some_and(|policy| policy.priorities_after.is_some())
    }

    /// The priorities that are left out of the next choice, as bits, by those of the endpoints that
    /// were tried: as in Envoy, looked at anew after so many tries each.
    pub(super) fn spurned(&self, tried: &[u32]) -> u64 {
        let Some(every) = self.policy.and_then(|policy| policy.priorities_after) else { return 0 };
        let every = usize::try_from(every).unwrap_or(usize::MAX);
        let seen = tried.len() - tried.len() % every;
        tried[..seen].iter().fold(0, |bits, at| bits | 1_u64.checked_shl(*at).unwrap_or(0))
    }

    /// Whether a response of this status is to be tried again, if that is still possible.
    pub(super) fn wants(&self, status: u16, headers: impl Fn(&str, &mut dyn FnMut(&[u8]))) -> bool {
        if self.on.is_empty() || !self.covers_response(status, &headers) {
            return false;
        }
        if self.left == 0 {
            self.is_exhausted.set(true);
            return false;
        }
        self.asked_wait.set(self.asked(&headers));
        true
    }

    fn covers_response(&self, status: u16, headers: &impl Fn(&str, &mut dyn FnMut(&[u8]))) -> bool {
        let first = |name: &str| {
            let mut found = None;
            headers(name, &mut |value| {
                found.get_or_insert_with(|| value.to_vec());
            });
            found
        };
        // As in Envoy: who says that there is too much is asked again only if the policy says so.
        if first("x-envoy-ratelimited").is_some() {
            return self.on.has(RetryOn::RATE_LIMITED);
        }
        let is_named = || {
            let listed = |policy: &RetryPolicy| policy.statuses.contains(&status);
            self.statuses.contains(&status) || self.policy.is_some_and(listed)
        };
        let is_marked = || {
            self.policy.into_iter().flat_map(|policy| &policy.response_headers).any(|header| {
                let mut values: Vec<Vec<u8>> = Vec::new();
                headers(header.name(), &mut |value| values.push(value.to_vec()));
                let values: HeaderValues<'_> = values.iter().map(Vec::as_slice).collect();
                header.matches_values(&values)
            })
        };
        let grpc = || {
            let status = first("grpc-status")?;
            std::str::from_utf8(&status).ok()?.parse().ok().map(RetryOn::of_grpc)
        };
        (self.on.has(RetryOn::SERVER_ERROR) && (500..600).contains(&status))
            || (self.on.has(RetryOn::GATEWAY_ERROR) && (502..=504).contains(&status))
            || (self.on.has(RetryOn::RETRIABLE_4XX) && status == 409)
            || (self.on.has(RetryOn::STATUS_CODES) && is_named())
            || (self.on.has(RetryOn::HEADERS) && is_marked())
            || grpc().is_some_and(|condition| self.on.has(condition))
    }

    /// The wait that a response asks for, where the policy believes it.
    fn asked(&self, headers: &impl Fn(&str, &mut dyn FnMut(&[u8]))) -> Option<Duration> {
        let reset = self.policy?.reset.as_ref()?;
        let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).ok()?;
        reset.headers.iter().find_map(|(name, format)| {
            let mut found = None;
            headers(name, &mut |value| {
                let text = std::str::from_utf8(value).ok();
                found = found.or(text.and_then(|text| text.trim().parse::<u64>().ok()));
            });
            let seconds = match format {
                ResetFormat::Seconds => found?,
                ResetFormat::UnixTime => found?.checked_sub(now.as_secs())?,
            };
            Some(Duration::from_secs(seconds)).filter(|wait| *wait <= reset.max)
        })
    }

    /// Decides after a failure. The request must be one that can be sent again.
    pub(super) fn after(
        &mut self,
        failure: &Failure,
        is_idempotent: bool,
        random: &Random,
    ) -> Next {
        // RFC 9110 §9.2.2: a proxy may send a request again on its own only when it is idempotent.
        // A kept connection that closes before anything came back has most likely closed before
        // the request arrived, but only such a request (or one of which nothing was sent) makes
        // that guess harmless.
        if let Failure::Closed { is_stale: true, is_unsent } = failure
            && (is_idempotent || *is_unsent)
            && self.stale_left > 0
        {
            self.stale_left -= 1;
            self.is_silent = true;
            return Next::Again(Duration::ZERO);
        }
        if !covers(self.on, failure) {
            return Next::GiveUp;
        }
        if self.left == 0 {
            self.is_exhausted.set(true);
            return Next::GiveUp;
        }
        self.left -= 1;
        self.is_silent = false;
        Next::Again(self.wait(random))
    }

    fn wait(&mut self, random: &Random) -> Duration {
        let below = |wait: Duration| {
            let nanos = u64::try_from(wait.as_nanos()).unwrap_or(u64::MAX);
            Duration::from_nanos(random.below(nanos))
        };
        if let Some(asked) = self.asked_wait.take() {
            // As in Envoy: never before the time that was asked for, and at most half of it later.
            self.made += 1;
            return asked + below(asked / 2);
        }
        let (base, max) = self
            .policy
            .map_or((BASE, BASE_MAX), |policy| (policy.backoff.base, policy.backoff.max));
        let base = base.max(Duration::from_millis(1));
        let wait = base.saturating_mul(1 << self.made.min(10)).min(max.max(base));
        self.made += 1;
        // Full jitter, as Envoy: many clients must not come back together.
        below(wait)
    }
}

/// Whether a request has fields that change how it is tried again.
pub(super) fn asks(fields: &Fields) -> bool {
    const NAMES: Names = Names::of(&ASKED);
    fields.has_any(NAMES)
}

/// Whether the conditions name this kind of failure. As in Envoy a failed connection counts as a
/// reset, and a reset as a response of 5xx.
fn covers(on: RetryOn, failure: &Failure) -> bool {
    let resets = RetryOn::SERVER_ERROR.and(RetryOn::GATEWAY_ERROR).and(RetryOn::RESET);
    let unsent = RetryOn::RESET_BEFORE_REQUEST;
    match failure {
        Failure::Connect(error) => {
            is_dialled(error) && on.has(resets.and(unsent).and(RetryOn::CONNECT_FAILURE))
        }
        Failure::Closed { is_unsent: true, .. } => on.has(resets.and(unsent)),
        Failure::Reset { is_refused: true } => on.has(resets.and(RetryOn::REFUSED_STREAM)),
        Failure::Closed { .. }
        | Failure::Reset { .. }
        | Failure::Protocol
        | Failure::TryTimeout
        | Failure::TryIdle => on.has(resets),
        // The response asked for it already.
        Failure::Status => true,
        Failure::OldCredential => false,
    }
}

fn is_dialled(error: &ConnectError) -> bool {
    error.is_worth_another_try() || matches!(error, ConnectError::Tls { .. })
}
