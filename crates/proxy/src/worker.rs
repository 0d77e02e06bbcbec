//! What one data-plane thread owns: configuration, counters, logs, buffers, gates.
//!
//! In:    the configuration that the control thread publishes.
//! Out:   cheap handles for the connections on this thread: nothing here is shared across threads.
//! Never: waits for another thread; knows what a connection is used for.
//!
//! [`crate::upstream::Dialer`] adds the way to endpoints, [`crate::http::HttpWorker`] what HTTP keeps.

use std::{
    cell::{Cell, Ref, RefCell},
    fmt,
    rc::Rc,
    sync::Arc,
    time::SystemTime,
};

use bytes::BytesMut;
use tokio::time::Instant;

use crate::{
    audit::AuditLog,
    config::Config,
    gates::Gates,
    log_sink::{LogBuffers, LogSender},
    pipes::Pipes,
    random::{Nonces, Random},
    stats::Shard,
};

/// The size of a pooled buffer: one TLS record, and more than any usual HTTP head.
pub const BUFFER_BYTES: usize = 16 * 1024;

/// Buffers that wait for their next use: 64 of 16 KiB are 1 MiB per worker.
const BUFFERS_KEPT_MAX: usize = 64;

/// The size of the worker's scratch buffer: what one read of a long transfer takes.
const SCRATCH_BYTES: usize = 64 * 1024;

/// One data-plane thread's own things.
pub struct Worker {
    index: usize,
    config: RefCell<Arc<Config>>,
    random: Random,
    nonces: Nonces,
    stats: Arc<Shard>,
    logs: Rc<LogBuffers>,
    buffers: RefCell<Vec<BytesMut>>,
    scratch: RefCell<Box<[u8]>>,
    active: Cell<usize>,
    next_id: Cell<u64>,
    pub(crate) gates: Gates,
    pub(crate) pipes: Rc<Pipes>,
}

impl Worker {
    /// Makes the state of one worker. `index` counts from 0.
    #[must_use]
    pub(crate) fn new(
        index: usize,
        config: Arc<Config>,
        stats: Arc<Shard>,
        logs: LogSender,
    ) -> Self {
        Self {
            index,
            config: RefCell::new(config),
            random: Random::from_os(),
            nonces: Nonces::default(),
            logs: Rc::new(LogBuffers::new(logs, Arc::clone(&stats))),
            stats,
            buffers: RefCell::default(),
            scratch: RefCell::new(vec![0; SCRATCH_BYTES].into_boxed_slice()),
            active: Cell::new(0),
            next_id: Cell::new(0),
            gates: Gates::default(),
            pipes: Rc::default(),
        }
    }

    /// Which worker this is, from 0.
    #[must_use]
    pub fn index(&self) -> usize {
        self.index
    }

    /// The configuration now, to keep: for a connection or a request.
    #[must_use]
    pub fn config(&self) -> Arc<Config> {
        Arc::clone(&self.config.borrow())
    }

    /// The configuration now, for a look without an atomic operation. Not across an `await`.
    #[must_use]
    pub fn peek_config(&self) -> Ref<'_, Config> {
        Ref::map(self.config.borrow(), Arc::as_ref)
    }

    /// Takes over a newer configuration. Connections see it at their next request.
    pub(crate) fn publish(&self, config: Arc<Config>) {
        *self.config.borrow_mut() = config;
    }

    /// The monotonic clock.
    #[must_use]
    pub fn now(&self) -> Instant {
        Instant::now()
    }

    /// The calendar.
    #[must_use]
    pub fn wall_now(&self) -> SystemTime {
        self.peek_config().clock.now()
    }

    /// This worker's randomness: not for keys.
    #[must_use]
    pub fn random(&self) -> &Random {
        &self.random
    }

    /// What makes a signature unlike others.
    #[must_use]
    pub fn nonces(&self) -> &Nonces {
        &self.nonces
    }

    /// This worker's counters.
    #[must_use]
    pub fn stats(&self) -> &Shard {
        &self.stats
    }

    /// This worker's access-log buffers.
    #[must_use]
    pub fn logs(&self) -> &Rc<LogBuffers> {
        &self.logs
    }

    /// Where each use of a credential is recorded.
    #[must_use]
    pub fn audit(&self) -> AuditLog {
        self.peek_config().settings.audit.clone()
    }

    /// An empty buffer of at least [`BUFFER_BYTES`]. Give it back when it is drained.
    #[must_use]
    pub fn take_buffer(&self) -> BytesMut {
        self.buffers.borrow_mut().pop().unwrap_or_else(|| BytesMut::with_capacity(BUFFER_BYTES))
    }

    /// Takes a buffer back for the next user. What is left in it is erased from view, not wiped.
    pub fn give_buffer(&self, mut buffer: BytesMut) {
        buffer.clear();
        let fits = (BUFFER_BYTES..=2 * BUFFER_BYTES).contains(&buffer.capacity());
        let mut kept = self.buffers.borrow_mut();
        if fits && kept.len() < BUFFERS_KEPT_MAX {
            kept.push(buffer);
        }
    }

    /// Lends the worker's one scratch buffer. Not re-entrant: `work` must not ask for it again.
    pub fn with_scratch<T>(&self, work: impl FnOnce(&mut [u8]) -> T) -> T {
        work(&mut self.scratch.borrow_mut())
    }

    /// The next connection number, unique in this process.
    pub(crate) fn next_connection_id(&self) -> u64 {
        let next = self.next_id.get() + 1;
        self.next_id.set(next);
        ((self.index as u64) << 48) | next
    }

    /// How many downstream connections this worker holds.
    #[must_use]
    pub fn connections(&self) -> usize {
        self.active.get()
    }

    pub(crate) fn set_connections(&self, count: usize) {
        self.active.set(count);
    }
}

impl fmt::Debug for Worker {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Worker")
            .field("index", &self.index)
            .field("connections", &self.active.get())
            .finish_non_exhaustive()
    }
}
