//! What rules and filters may see of where a request takes place.
//!
//! In:    a worker, a manager, a connection.
//! Out:   facts for rules, shares, the scheme.
//! Never: knows what serves the request: filters are part of that, and see only this.

use sluis_http1::{Known, RequestHead};
use sluis_rules::HttpManager;
use tokio::time::Instant;

use super::{facts::Facts, protocol::Protocol, state::HttpWorker};
use crate::conn::ConnectionFacts;

/// Where a request is judged, and when.
#[derive(Clone, Copy, Debug)]
pub(super) struct Scene<'s> {
    pub(super) worker: &'s HttpWorker,
    pub(super) manager: &'s HttpManager,
    pub(super) connection: &'s ConnectionFacts,
    /// What the client speaks.
    pub(super) protocol: Protocol,
    /// When the request began.
    pub(super) now: Instant,
    /// The number that decides on shares of requests: one for the whole request, as in Envoy.
    pub(super) draw: u64,
}

impl Scene<'_> {
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
