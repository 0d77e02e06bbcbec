//! What HTTP keeps per worker: desks, upstream pools, compiled managers, formats.

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
use sluis_http1::{Body, RequestHead, ResponseHead, Scan};
use sluis_rules::HttpManager;
use tracing::warn;

use super::{
    buffer::{Buffer, Outgoing},
    http2::sessions::Sessions,
    kept::{Kept, Replay},
    marks::Marks,
    pool::Pool,
    program::Program,
    sealed::Sealed,
    under_way::Count,
};
use crate::{
    access_log::{Format, http_date},
    config::Config,
    upstream::Dialer,
    worker::Worker,
};

/// Desks that wait for their next use: 64 of about 40 KiB are 2.5 MiB per worker.
const DESKS_KEPT_MAX: usize = 64;

/// Compiled header formats that are kept; beyond it all are forgotten and compiled anew.
const FORMATS_KEPT_MAX: usize = 1024;

/// Everything that one exchange is written on. Idle connections have none.
#[derive(Debug, Default)]
pub(super) struct Desk {
    /// From the client: the body under way, then the next requests.
    pub(super) input: Buffer,
    pub(super) scan: Scan,
    pub(super) request: RequestHead,
    pub(super) request_body: Body,
    /// Takes the content out of what of the input is body, where that does not go on as it came.
    pub(super) content: Body,
    /// Trailer lines found by it.
    pub(super) trailers: Vec<u8>,
    /// To the endpoint: head and what of the body came with it.
    pub(super) up: Outgoing,
    /// From the endpoint.
    pub(super) reply: Buffer,
    pub(super) reply_scan: Scan,
    pub(super) response: ResponseHead,
    pub(super) response_body: Body,
    /// To the client: head and what of the body came with it.
    pub(super) down: Outgoing,
    /// What has gone to the endpoint of the request's body.
    pub(super) kept: Kept,
    /// The same of a body that was taken apart.
    pub(super) replay: Replay,
    /// What filters remember of the request.
    pub(super) marks: Marks,
    /// For values under construction.
    pub(super) text: Vec<u8>,
    /// The request as it is sent, where credentials are added: for the codec alone.
    pub(super) sealed: Option<Box<Sealed>>,
}

impl Desk {
    /// Clears what belongs to one exchange; what the client has sent ahead stays.
    pub(super) fn next_request(&mut self) {
        self.input.discard_ready();
        self.up.clear();
        self.down.clear();
        self.reply.clear();
        self.marks = Marks::default();
        self.sealed = None;
        self.kept.restart(false);
        self.replay.restart(false);
        self.reply_scan = Scan::default();
        self.trailers.clear();
    }
}

type Desks = Vec<Box<Desk>>;

/// A header format with the text that it was compiled from; `None` when that is malformed.
type KeptFormat = (Arc<str>, Option<Rc<Format>>);

/// A configuration, counted within its worker.
#[derive(Debug)]
pub(super) struct Shared(Arc<Config>);

impl Deref for Shared {
    type Target = Config;

    fn deref(&self) -> &Config {
        &self.0
    }
}

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
    /// By the manager's place in memory, which the program keeps alive.
    programs: RefCell<HashMap<usize, Rc<Program>, RandomState>>,
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
                self.forget_managers();
                config
            }
        }
    }

    /// The compiled form of a manager; `None` when it cannot be served.
    pub(super) fn program(
        &self,
        worker: &Worker,
        manager: &Arc<HttpManager>,
    ) -> Option<Rc<Program>> {
        let place = Arc::as_ptr(manager) as usize;
        if let Some(program) = self.programs.borrow().get(&place) {
            return Some(Rc::clone(program));
        }
        match Program::new(worker, manager) {
            Ok(program) => {
                let program = Rc::new(program);
                self.programs.borrow_mut().insert(place, Rc::clone(&program));
                Some(program)
            }
            Err(error) => {
                warn!(manager = %manager.stat_prefix, %error, "HTTP manager cannot serve: its connections are closed");
                None
            }
        }
    }

    /// Forgets compiled managers that no configuration and no connection uses any more.
    fn forget_managers(&self) {
        self.programs.borrow_mut().retain(|_, program| Arc::strong_count(&program.manager) > 1);
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
