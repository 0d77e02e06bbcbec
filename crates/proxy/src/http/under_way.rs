//! Counts what is under way: copies, calls that nobody waits for, requests that suffer a fault.

use std::{cell::Cell, rc::Rc};

/// How many of something are under way on a worker.
#[derive(Clone, Debug, Default)]
pub(super) struct Count(Rc<Cell<u32>>);

/// One of them, until it is dropped.
#[derive(Debug)]
pub(super) struct UnderWay(Rc<Cell<u32>>);

impl Count {
    pub(super) fn get(&self) -> u32 {
        self.0.get()
    }

    /// One more.
    pub(super) fn begin(&self) -> UnderWay {
        self.0.set(self.0.get() + 1);
        UnderWay(Rc::clone(&self.0))
    }

    /// One more, if there are fewer than `max`.
    pub(super) fn within(&self, max: u32) -> Option<UnderWay> {
        (self.get() < max).then(|| self.begin())
    }
}

impl Drop for UnderWay {
    fn drop(&mut self) {
        self.0.set(self.0.get().saturating_sub(1));
    }
}
