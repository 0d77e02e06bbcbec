//! Where a request takes place: its worker, its manager, its connection.

use std::{rc::Rc, sync::Arc};

use sluis_http1::{Known, RequestHead};
use sluis_rules::HttpManager;
use tokio::time::Instant;

use super::{facts::Facts, program::Program, protocol::Protocol, state::HttpWorker};
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
        Site {
            worker: &self.worker,
            program: &self.program,
            connection: &self.facts,
            protocol: self.protocol,
            now,
            draw: self.worker.random().next(),
        }
    }
}

/// Where a request is judged: its worker, manager and connection.
#[derive(Clone, Copy, Debug)]
pub(super) struct Site<'s> {
    pub(super) worker: &'s HttpWorker,
    pub(super) program: &'s Program,
    pub(super) connection: &'s ConnectionFacts,
    /// What the client speaks.
    pub(super) protocol: Protocol,
    /// When the request began.
    pub(super) now: Instant,
    /// The number that decides on shares of requests: one for the whole request, as in Envoy.
    pub(super) draw: u64,
}

impl Site<'_> {
    pub(super) fn manager(&self) -> &HttpManager {
        &self.program.manager
    }

    /// The request as rules see it.
    pub(super) fn facts<'r>(&self, head: &'r RequestHead) -> Facts<'r> {
        Facts { head, scheme: self.scheme(head), draw: self.draw, metadata: None }
    }

    /// `https` when the client's TLS ends here, or when a proxy that we trust says so: what is not
    /// trusted has been overwritten.
    pub(super) fn scheme(&self, head: &RequestHead) -> &'static str {
        match head.fields.get(Known::XForwardedProto) {
            Some(b"https") => "https",
            Some(b"http") => "http",
            _ if self.connection.tls_terminated => "https",
            _ => "http",
        }
    }
}
