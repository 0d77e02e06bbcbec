//! What one worker serves HTTP with: the worker, and the managers compiled for it.

use std::{
    cell::{Cell, RefCell},
    collections::HashMap,
    fmt,
    rc::Rc,
    sync::Arc,
};

use foldhash::fast::RandomState;
use sluis_rules::HttpManager;
use tracing::warn;

use super::{program::Program, state::HttpWorker};

/// Serves the connections of one worker. Lives in an `Rc`; each connection's task holds one.
pub struct Server {
    /// The worker.
    pub worker: Rc<HttpWorker>,
    /// By the manager's place in memory, which the program keeps alive.
    programs: RefCell<HashMap<usize, Rc<Program>, RandomState>>,
    /// The configuration for which programs were last forgotten.
    generation: Cell<u64>,
}

impl Server {
    /// Makes a worker ready to serve.
    pub(crate) fn new(worker: Rc<HttpWorker>) -> Rc<Self> {
        Rc::new(Self { worker, programs: RefCell::default(), generation: Cell::new(0) })
    }

    /// The compiled form of a manager; `None` when it cannot be served.
    pub(super) fn program(&self, manager: &Arc<HttpManager>) -> Option<Rc<Program>> {
        let generation = self.worker.peek_config().generation;
        if self.generation.replace(generation) != generation {
            self.forget_managers();
        }
        let place = Arc::as_ptr(manager) as usize;
        if let Some(program) = self.programs.borrow().get(&place) {
            return Some(Rc::clone(program));
        }
        match Program::new(&self.worker, manager) {
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
}

impl fmt::Debug for Server {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Server").field("worker", &self.worker).finish_non_exhaustive()
    }
}
