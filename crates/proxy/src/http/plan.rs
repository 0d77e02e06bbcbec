//! How one request is forwarded, as it was decided.

use std::{sync::Arc, time::Duration};

use sluis_rules::{Forward, Matched, RetryPolicy, UpstreamProtocol, WeightedCluster};

use crate::{config::Backend, hosts::Priority};

/// How one request is forwarded.
#[derive(Clone, Copy, Debug)]
pub(super) struct Plan<'c> {
    pub(super) matched: Matched<'c>,
    pub(super) forward: &'c Forward,
    pub(super) backend: &'c Arc<Backend>,
    pub(super) weighted: Option<&'c WeightedCluster>,
    pub(super) retry: Option<&'c RetryPolicy>,
    /// Whether the client asks for another protocol, and may.
    pub(super) is_upgrade: bool,
    /// Whether the client's CONNECT ends here: the endpoint hears nothing of HTTP.
    pub(super) terminates: bool,
    /// How long the response may take, once the request has been received.
    pub(super) timeout: Option<Duration>,
}

impl Plan<'_> {
    /// Whether the endpoint may be sent trailers.
    pub(super) fn takes_trailers(&self) -> bool {
        if !self.backend.credentials().is_empty() {
            // They could name fields that only the proxy sets.
            return false;
        }
        match self.backend.protocol {
            UpstreamProtocol::Http1 | UpstreamProtocol::Downstream => self.backend.http1.trailers,
            UpstreamProtocol::Http2 | UpstreamProtocol::Auto => true,
        }
    }

    /// Whose limits count.
    pub(super) fn priority(&self) -> Priority {
        if self.forward.is_high_priority { Priority::High } else { Priority::Default }
    }
}
