//! Tells connections when to finish, and how long they have.
//!
//! In:    the shell closes a gate: its filter chain changed or went, or the process drains.
//! Out:   each connection asks [`Gate::is_draining`] between requests, or waits for it.
//! Never: reads a clock; the shell decides when graceful becomes now.

use std::{
    cell::Cell,
    future::{Future as _, poll_fn},
    pin::pin,
    rc::Rc,
    task::{Poll, Waker},
};

use tokio::sync::Notify;

/// How far a drain has gone.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
enum Phase {
    /// Work as usual.
    #[default]
    Open,
    /// Finish what is under way; answer with `Connection: close`.
    Draining,
    /// Time is up: the connection's task is dropped.
    Closed,
}

#[derive(Debug, Default)]
struct State {
    phase: Cell<Phase>,
    changed: Notify,
}

/// One worker's view of a drain, shared by the connections of one filter chain.
#[derive(Clone, Debug, Default)]
pub struct Gate(Rc<State>);

impl Gate {
    /// Whether the connection should finish: no new request, `Connection: close`.
    #[must_use]
    pub fn is_draining(&self) -> bool {
        self.0.phase.get() >= Phase::Draining
    }

    /// Waits until the connection should finish.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future loses nothing.
    pub async fn draining(&self) {
        self.reached(Phase::Draining).await;
    }

    /// Waits until the connection's time is up. Only the shell awaits this.
    pub(crate) async fn closed(&self) {
        self.reached(Phase::Closed).await;
    }

    /// Asks the connections to finish.
    pub(crate) fn drain(&self) {
        self.advance(Phase::Draining);
    }

    /// Ends the connections that still run.
    pub(crate) fn close(&self) {
        self.advance(Phase::Closed);
    }

    fn advance(&self, to: Phase) {
        if self.0.phase.get() < to {
            self.0.phase.set(to);
            self.0.changed.notify_waiters();
        }
    }

    async fn reached(&self, phase: Phase) {
        while self.0.phase.get() < phase {
            // One thread: nothing can change between the test and the registration.
            let mut changed = pin!(self.0.changed.notified());
            let mut told: Option<(Waker, Phase)> = None;
            poll_fn(|cx| {
                let now = self.0.phase.get();
                // Asked at every turn of a connection: who waits already need not say so again.
                match &told {
                    Some((by, at)) if *at == now && by.will_wake(cx.waker()) => Poll::Pending,
                    _ => {
                        told = Some((cx.waker().clone(), now));
                        changed.as_mut().poll(cx)
                    }
                }
            })
            .await;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_waiter_hears_of_the_drain_and_a_late_one_too() {
        let gate = Gate::default();
        let waiter = gate.clone();
        assert!(!gate.is_draining());
        tokio::join!(async { waiter.draining().await }, async { gate.drain() });
        gate.draining().await;
        assert!(gate.is_draining());
        gate.close();
        gate.closed().await;
    }
}
