//! When to renew, and when to try again.

use std::{
    hash::{BuildHasher as _, RandomState},
    time::Duration,
};

/// First wait after a failure.
const RETRY_MIN: Duration = Duration::from_millis(200);
/// Longest wait while there is time: an authority that restarts is met again within this.
const RETRY_MAX: Duration = Duration::from_secs(15);
/// Attempts that fit in what is left of a certificate, at least.
const ATTEMPTS_IN_TIME: u32 = 10;

/// All workloads of a machine have asked again within this after other roots are trusted.
const SOON_MAX: Duration = Duration::from_secs(2);

/// How long a certificate that is valid for `left` is used before the next is asked for: half of
/// it, give or take a tenth of that, so that workloads started together do not ask together.
pub(super) fn until_renewal(left: Duration) -> Duration {
    left.mul_f64(0.45 + 0.1 * unit_draw())
}

/// A short wait that differs from workload to workload, for what they all hear of at once.
pub(super) fn soon() -> Duration {
    SOON_MAX.mul_f64(unit_draw())
}

/// Waits between attempts that fail: doubling, with a draw, and never so long that a certificate
/// runs out between two attempts.
#[derive(Debug)]
pub(super) struct Backoff(Duration);

impl Backoff {
    pub(super) fn new() -> Self {
        Self(RETRY_MIN)
    }

    /// The next wait; `left` is how long the certificate in use is still valid.
    pub(super) fn next(&mut self, left: Option<Duration>) -> Duration {
        let most = left.map_or(RETRY_MAX, |left| (left / ATTEMPTS_IN_TIME).min(RETRY_MAX));
        let wait = self.0.min(most.max(RETRY_MIN));
        self.0 = (self.0 * 2).min(RETRY_MAX);
        wait.mul_f64(0.75 + 0.25 * unit_draw())
    }
}

/// A number in [0, 1) that differs from call to call and from process to process.
fn unit_draw() -> f64 {
    // The standard library seeds each `RandomState` anew; jitter asks for no better source.
    let bits = RandomState::new().hash_one(()) >> 11;
    #[expect(clippy::cast_precision_loss, reason = "53 bits fit a double")]
    let draw = bits as f64 / (1_u64 << 53) as f64;
    draw
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_certificate_is_renewed_around_its_half_life() {
        for _ in 0..100 {
            let wait = until_renewal(Duration::from_secs(60));
            assert!(wait >= Duration::from_secs(27) && wait <= Duration::from_secs(33), "{wait:?}");
        }
    }

    #[test]
    fn waits_grow_to_a_bound_and_shrink_when_a_certificate_runs_out() {
        let mut backoff = Backoff::new();
        let waits: Vec<_> = (0..12).map(|_| backoff.next(None)).collect();
        assert!(waits[0] <= RETRY_MIN && waits[11] <= RETRY_MAX && waits[11] > RETRY_MAX / 2);
        assert!(backoff.next(Some(Duration::from_secs(20))) <= Duration::from_secs(2));
        assert!(backoff.next(Some(Duration::ZERO)) >= RETRY_MIN / 2);
    }
}
