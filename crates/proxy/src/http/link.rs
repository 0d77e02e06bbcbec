//! What carries one try: a connection to an endpoint, or a stream of one.

use std::net::SocketAddr;

use super::{
    http2::sessions::Lease,
    plan::Plan,
    pool::{Key, Pooled},
    site::Site,
};
use crate::upstream::Pick;

/// The way to an endpoint, for one request.
#[derive(Debug)]
pub(super) enum Link {
    /// A connection, ours alone until the response has ended.
    Http1(Line),
    /// One stream of a shared connection.
    Http2(Lease),
}

/// An HTTP/1 connection with its place in the pool.
#[derive(Debug)]
pub(super) struct Line {
    pub(super) key: Key,
    pub(super) pooled: Pooled,
}

impl Link {
    /// Our end, for the log.
    pub(super) fn local(&self) -> Option<SocketAddr> {
        match self {
            Self::Http1(line) => line.pooled.upstream.local,
            Self::Http2(lease) => lease.local(),
        }
    }

    /// Keeps the connection for the next request, when it is at the end of a response and nothing
    /// else.
    pub(super) fn give_back(self, site: Site<'_>, plan: &Plan<'_>, pick: &Pick) {
        match self {
            Self::Http1(Line { key, mut pooled }) => {
                pooled.requests += 1;
                let max = plan.backend.http.max_requests;
                if max.is_some_and(|max| pooled.requests >= max) {
                    return;
                }
                let place = (plan.backend.cluster(), pick.tls(plan.backend));
                site.worker.http.pool.give(key, pooled, place, site.worker.now());
            }
            Self::Http2(lease) => drop(lease),
        }
    }
}
