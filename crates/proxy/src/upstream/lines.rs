//! How many connections one worker has to each endpoint, and who waits for one to be free.
//!
//! The limits are the process's ([`crate::hosts`]); who has no connection at all may always open
//! one, so that nobody waits for ever for another worker.

use std::{
    cell::{Cell, RefCell},
    collections::HashMap,
    rc::Rc,
    sync::Arc,
};

use foldhash::fast::RandomState;
use tokio::sync::Notify;

use crate::{
    config::Backend,
    hosts::{ConnectionPermit, Host, Priority},
};

/// One worker's connections, by endpoint.
#[derive(Debug, Default)]
pub(crate) struct Lines(RefCell<HashMap<usize, Rc<Line>, RandomState>>);

/// One worker's connections to one endpoint.
#[derive(Debug, Default)]
pub(crate) struct Line {
    open: Cell<u32>,
    /// Rings when a connection is free or gone.
    freed: Notify,
}

/// A connection that is counted while this lives.
#[derive(Debug)]
pub struct Held {
    line: Option<Rc<Line>>,
    _permit: ConnectionPermit,
}

impl Held {
    /// A connection that nobody shares.
    pub(crate) fn of(permit: ConnectionPermit) -> Self {
        Self { line: None, _permit: permit }
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        if let Some(line) = &self.line {
            line.open.set(line.open.get().saturating_sub(1));
            line.freed.notify_one();
        }
    }
}

impl Line {
    /// Tells one who waits that a connection is free.
    pub(crate) fn release(&self) {
        self.freed.notify_one();
    }

    /// Waits until a connection is free or gone.
    pub(crate) async fn freed(&self) {
        self.freed.notified().await;
    }
}

impl Lines {
    /// The connections to an endpoint.
    pub(crate) fn of(&self, host: &Arc<Host>) -> Rc<Line> {
        let mut lines = self.0.borrow_mut();
        Rc::clone(lines.entry(Arc::as_ptr(host) as usize).or_default())
    }

    /// Permission for one more connection, if the limits allow it.
    pub(crate) fn open(
        &self,
        backend: &Backend,
        host: Option<&Arc<Host>>,
        priority: Priority,
    ) -> Option<Held> {
        let line = host.map(|host| self.of(host));
        // To an original destination each connection is the first.
        let is_first = line.as_ref().is_none_or(|line| line.open.get() == 0);
        let permit = backend.group.connection(&backend.limits, priority, host, is_first)?;
        if let Some(line) = &line {
            line.open.set(line.open.get() + 1);
        }
        Some(Held { line, _permit: permit })
    }

    /// Forgets endpoints to which there is nothing. For when the configuration changes.
    pub(crate) fn forget_idle(&self) {
        self.0.borrow_mut().retain(|_, line| Rc::strong_count(line) > 1);
    }
}
