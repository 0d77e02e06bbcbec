//! How long to wait before the next attempt to connect.

use std::time::Duration;

/// First wait. A control plane that restarts on the same machine is back within tenths of a second.
const WAIT_MIN: Duration = Duration::from_millis(100);

/// Longest wait. A proxy works on without its control plane, so there is no hurry, but a person who
/// restarts it should not have to wait.
const WAIT_MAX: Duration = Duration::from_secs(10);

/// Draws a number in `0.0..1.0`. Given by the binary, so that nothing here has a random source.
pub type Jitter = Box<dyn FnMut() -> f64 + Send>;

/// Doubles the wait from [`WAIT_MIN`] to [`WAIT_MAX`]; up to half of it is taken off at random, so
/// that many proxies do not come back together.
pub(super) struct Backoff {
    jitter: Jitter,
    wait: Duration,
}

impl Backoff {
    pub(super) fn new(jitter: Jitter) -> Self {
        Self { jitter, wait: WAIT_MIN }
    }

    /// Returns the next wait.
    pub(super) fn next(&mut self) -> Duration {
        let wait = self.wait;
        self.wait = (wait * 2).min(WAIT_MAX);
        wait - wait.mul_f64((self.jitter)().clamp(0.0, 1.0) / 2.0)
    }

    /// Begins anew after a success.
    pub(super) fn reset(&mut self) {
        self.wait = WAIT_MIN;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_wait_doubles_up_to_its_bound_and_begins_anew_after_a_success() {
        let mut backoff = Backoff::new(Box::new(|| 0.0));
        let waits: Vec<_> = (0..9).map(|_| backoff.next().as_millis()).collect();
        assert_eq!(waits, [100, 200, 400, 800, 1600, 3200, 6400, 10_000, 10_000]);
        backoff.reset();
        assert_eq!(backoff.next(), WAIT_MIN);
    }

    #[test]
    fn at_most_half_of_the_wait_is_taken_off() {
        let mut backoff = Backoff::new(Box::new(|| 1.0));
        assert_eq!(backoff.next(), WAIT_MIN / 2);
    }
}
