//! Whether and when a request is sent again.

use std::time::Duration;

use sluis_rules::{HeaderValues, RequestFacts, RetryPolicy};

use super::failure::Failure;
use crate::{random::Random, upstream::ConnectError};

/// What is left of one request's tries.
#[derive(Debug)]
pub(super) struct Tries<'c> {
    policy: Option<&'c RetryPolicy>,
    left: u32,
    /// Sending again on a fresh connection after a kept one turned out dead; once.
    stale_left: u32,
    made: u32,
}

/// What to do after a try without a response.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Next {
    /// Send it again after this time.
    Again(Duration),
    /// Tell the client.
    GiveUp,
}

impl<'c> Tries<'c> {
    /// `request` decides whether the policy concerns it at all.
    pub(super) fn new(policy: Option<&'c RetryPolicy>, request: &impl RequestFacts) -> Self {
        let policy = policy.filter(|policy| {
            policy.request_headers.is_empty()
                || policy.request_headers.iter().any(|header| header.matches(request))
        });
        Self { policy, left: policy.map_or(0, |policy| policy.retries), stale_left: 1, made: 0 }
    }

    pub(super) fn per_try_timeout(&self) -> Option<Duration> {
        self.policy.and_then(|policy| policy.per_try_timeout).filter(|limit| !limit.is_zero())
    }

    /// Whether the policy knows limits that were reached.
    pub(super) fn are_used_up(&self) -> bool {
        self.policy.is_some_and(|policy| policy.retries > 0) && self.left == 0 && self.made > 0
    }

    /// Whether a response of this status is to be tried again, if that is still possible.
    pub(super) fn wants(&self, status: u16, headers: impl Fn(&str, &mut dyn FnMut(&[u8]))) -> bool {
        let Some(policy) = self.policy.filter(|_| self.left > 0) else { return false };
        policy.on.iter().any(|on| match &**on {
            "5xx" => (500..600).contains(&status),
            "gateway-error" => (502..=504).contains(&status),
            "retriable-4xx" => status == 409,
            "retriable-status-codes" => policy.statuses.contains(&status),
            "retriable-headers" => policy.response_headers.iter().any(|header| {
                let mut values: Vec<Vec<u8>> = Vec::new();
                headers(header.name(), &mut |value| values.push(value.to_vec()));
                let values: HeaderValues<'_> = values.iter().map(Vec::as_slice).collect();
                header.matches_values(&values)
            }),
            _ => false,
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
            return Next::Again(Duration::ZERO);
        }
        let Some(policy) = self.policy.filter(|policy| self.left > 0 && covers(policy, failure))
        else {
            return Next::GiveUp;
        };
        self.left -= 1;
        let base = policy.backoff.base.max(Duration::from_millis(1));
        let wait = base.saturating_mul(1 << self.made.min(10)).min(policy.backoff.max.max(base));
        self.made += 1;
        // Full jitter, as Envoy: many clients must not come back together.
        let nanos = u64::try_from(wait.as_nanos()).unwrap_or(u64::MAX);
        Next::Again(Duration::from_nanos(random.below(nanos)))
    }
}

/// Whether the policy names this kind of failure.
fn covers(policy: &RetryPolicy, failure: &Failure) -> bool {
    policy.on.iter().any(|on| match (&**on, failure) {
        (
            "connect-failure" | "5xx" | "gateway-error" | "reset-before-request",
            Failure::Connect(error),
        ) => is_dialled(error),
        (
            "reset" | "5xx" | "gateway-error",
            Failure::Closed { .. } | Failure::Protocol | Failure::TryTimeout,
        ) => true,
        ("reset-before-request", Failure::Closed { is_unsent, .. }) => *is_unsent,
        // The response asked for it already.
        (_, Failure::Status) => true,
        _ => false,
    })
}

fn is_dialled(error: &ConnectError) -> bool {
    error.is_worth_another_try() || matches!(error, ConnectError::Tls { .. })
}
