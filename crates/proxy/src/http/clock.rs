//! One timer per connection, moved only when a deadline comes closer than it is set.

use std::{
    future::Future as _,
    pin::Pin,
    task::{Context, Poll, ready},
    time::Duration,
};

use tokio::time::{Instant, Sleep, sleep_until};

/// Where "never" is: further than any connection lives.
const NEVER: Duration = Duration::from_secs(30 * 24 * 3600);

/// A connection's timer. Deadlines are plain values: a request that finishes in time moves nothing.
#[derive(Debug)]
pub(super) struct Clock {
    sleep: Pin<Box<Sleep>>,
    set: Instant,
}

impl Clock {
    pub(super) fn new(now: Instant) -> Self {
        let set = now + NEVER;
        Self { sleep: Box::pin(sleep_until(set)), set }
    }

    /// Ready when the deadline has passed.
    pub(super) fn poll_until(
        &mut self,
        cx: &mut Context<'_>,
        deadline: Option<Instant>,
    ) -> Poll<()> {
        let Some(deadline) = deadline else { return Poll::Pending };
        if deadline < self.set {
            self.set = deadline;
            self.sleep.as_mut().reset(deadline);
        }
        loop {
            ready!(self.sleep.as_mut().poll(cx));
            if Instant::now() >= deadline {
                return Poll::Ready(());
            }
            // It was set for an earlier request.
            self.set = deadline;
            self.sleep.as_mut().reset(deadline);
        }
    }
}

/// The earlier of two deadlines; `None` is never.
pub(super) fn earlier(a: Option<Instant>, b: Option<Instant>) -> Option<Instant> {
    match (a, b) {
        (Some(a), Some(b)) => Some(a.min(b)),
        (one, None) | (None, one) => one,
    }
}
