//! What HTTP keeps per worker: desks, upstream pools, formats.

use std::{
    cell::{Cell, RefCell},
    collections::HashMap,
    fmt,
    ops::Deref,
    rc::Rc,
    sync::Arc,
    time::{SystemTime, UNIX_EPOCH},
};

use foldhash::fast::RandomState;
use sluis_http1::Scan;
use tracing::warn;

use super::{desk::Desk, http2::sessions::Sessions, pool::Pool, shared::Shared, under_way::Count};
use crate::{
    access_log::{Format, http_date},
    upstream::Dialer,
    worker::Worker,
};

/// Desks that wait for their next use: 64 of about 40 KiB are 2.5 MiB per worker.
const DESKS_KEPT_MAX: usize = 64;

/// Compiled header formats that are kept; beyond it all are forgotten and compiled anew.
const FORMATS_KEPT_MAX: usize = 1024;

type Desks = Vec<Box<Desk>>;

/// A header format with the text that it was compiled from; `None` when that is malformed.
type KeptFormat = (Arc<str>, Option<Rc<Format>>);

/// A worker that serves HTTP. Lives in an `Rc`; each connection's task holds one.
#[derive(Debug)]
pub struct HttpWorker {
    dialer: Dialer,
    pub(super) http: WorkerState,
}

/// The worker below, with its way to endpoints.
impl Deref for HttpWorker {
    type Target = Dialer;

    fn deref(&self) -> &Dialer {
        &self.dialer
    }
}

impl HttpWorker {
    /// Makes a worker able to serve HTTP.
    pub(crate) fn new(dialer: Dialer) -> Rc<Self> {
        Rc::new(Self { dialer, http: WorkerState::default() })
    }
}

/// What HTTP keeps per worker.
#[derive(Default)]
pub(super) struct WorkerState {
    desks: RefCell<Desks>,
    pub(super) pool: Pool,
    /// Copies to mirrors.
    pub(super) copies: Count,
    pub(super) sessions: Sessions,
    /// By the format's place in memory, which the entry keeps alive.
    formats: RefCell<HashMap<usize, KeptFormat, RandomState>>,
    config: RefCell<Option<Rc<Shared>>>,
    /// The second of the last `date` header, and its text.
    date: Cell<(u64, [u8; 29])>,
}

impl WorkerState {
    pub(super) fn take_desk(&self) -> Box<Desk> {
        self.desks.borrow_mut().pop().unwrap_or_default()
    }

    pub(super) fn give_desk(&self, mut desk: Box<Desk>) {
        desk.next_request();
        self.give_clean_desk(desk);
    }

    /// The same for a desk that is ready for the next request.
    pub(super) fn give_clean_desk(&self, mut desk: Box<Desk>) {
        let mut kept = self.desks.borrow_mut();
        if kept.len() < DESKS_KEPT_MAX && !desk.input.is_large() && !desk.reply.is_large() {
            desk.input.clear();
            desk.scan = Scan::default();
            kept.push(desk);
        }
    }

    /// The configuration for one request: shared within the worker, so that a request costs no
    /// atomic operation.
    pub(super) fn config(&self, worker: &Worker) -> Rc<Shared> {
        let generation = worker.peek_config().generation;
        let mut kept = self.config.borrow_mut();
        match &*kept {
            Some(config) if config.generation == generation => Rc::clone(config),
            _ => {
                let config = Rc::new(Shared(worker.config()));
                *kept = Some(Rc::clone(&config));
                config
            }
        }
    }

    /// A compiled header format; `None` when it is malformed.
    pub(super) fn format(&self, text: &Arc<str>) -> Option<Rc<Format>> {
        let mut kept = self.formats.borrow_mut();
        if kept.len() > FORMATS_KEPT_MAX {
            kept.clear();
        }
        let entry = kept.entry(Arc::as_ptr(text).cast::<u8>() as usize).or_insert_with(|| {
            let format = Format::parse(text)
                .inspect_err(|error| warn!(%text, %error, "header format cannot be used"));
            (Arc::clone(text), format.ok().map(Rc::new))
        });
        entry.1.clone()
    }

    /// The text of a `date` header.
    pub(super) fn date(&self, now: SystemTime) -> [u8; 29] {
        let second = now.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
        let (kept, text) = self.date.get();
        if kept == second {
            return text;
        }
        let text = http_date(second);
        self.date.set((second, text));
        text
    }
}

impl fmt::Debug for WorkerState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("WorkerState").field("pool", &self.pool).finish_non_exhaustive()
    }
}
