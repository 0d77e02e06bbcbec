//! Where a request is served: the scene, and the program that serves it.

use std::{ops::Deref, rc::Rc, sync::Arc};

use tokio::time::Instant;

use super::{program::Program, protocol::Protocol, scene::Scene, state::HttpWorker};
use crate::conn::ConnectionFacts;

/// What does not change while a connection lives.
#[derive(Debug)]
pub(super) struct Place {
    pub(super) worker: Rc<HttpWorker>,
    pub(super) program: Rc<Program>,
    pub(super) facts: Arc<ConnectionFacts>,
    pub(super) protocol: Protocol,
}

impl Place {
    pub(super) fn site(&self, now: Instant) -> Site<'_> {
        let scene = Scene {
            worker: &self.worker,
            manager: &self.program.manager,
            connection: &self.facts,
            protocol: self.protocol,
            now,
            draw: self.worker.random().next(),
        };
        Site { scene, program: &self.program }
    }
}

/// Where a request is served.
#[derive(Clone, Copy, Debug)]
pub(super) struct Site<'s> {
    pub(super) scene: Scene<'s>,
    pub(super) program: &'s Program,
}

impl<'s> Deref for Site<'s> {
    type Target = Scene<'s>;

    fn deref(&self) -> &Scene<'s> {
        &self.scene
    }
}
