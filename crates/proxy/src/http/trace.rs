//! What becomes of one request, gathered for its log record.

use std::{borrow::Cow, net::SocketAddr, time::SystemTime};

use sluis_http1::Method;
use sluis_rules::{Address, Cluster, Metadata, Route};
use tokio::time::Instant;

use super::protocol::Protocol;
use crate::{
    access_log::{Flag, Flags, Record},
    conn::ConnectionFacts,
};

/// One request's story. Borrows from the configuration that decided it.
#[derive(Clone, Debug)]
pub(super) struct Trace<'c> {
    pub(super) start: Instant,
    pub(super) wall: SystemTime,
    /// The method that the client sent: a filter may change the one that goes on.
    pub(super) method: Method,
    /// What the client speaks.
    pub(super) protocol: Protocol,
    pub(super) request_end: Option<Instant>,
    /// Whether the desk knows how far the request's body has come.
    pub(super) is_body_begun: bool,
    pub(super) response_start: Option<Instant>,
    /// The client as it is trusted; `None` before that is known.
    pub(super) client: Option<SocketAddr>,
    pub(super) flags: Flags,
    pub(super) details: Option<Cow<'static, str>>,
    pub(super) transport_failure: Option<String>,
    pub(super) status: u16,
    /// The trailers of a relayed response.
    pub(super) trailers: Option<http::HeaderMap>,
    pub(super) received: u64,
    pub(super) sent: u64,
    pub(super) host: Option<Address>,
    pub(super) local: Option<SocketAddr>,
    pub(super) cluster: Option<&'c Cluster>,
    pub(super) attempts: u32,
    pub(super) route: Option<&'c Route>,
    /// What filters have found out of the request.
    pub(super) metadata: Metadata,
}

impl<'c> Trace<'c> {
    pub(super) fn new(
        start: Instant,
        wall: SystemTime,
        (protocol, method): (Protocol, Method),
    ) -> Self {
        Self {
            start,
            wall,
            method,
            protocol,
            request_end: None,
            is_body_begun: false,
            response_start: None,
            client: None,
            flags: Flags::default(),
            details: None,
            transport_failure: None,
            status: 0,
            trailers: None,
            received: 0,
            sent: 0,
            host: None,
            local: None,
            cluster: None,
            attempts: 0,
            route: None,
            metadata: Metadata::default(),
        }
    }

    /// Says what went wrong.
    pub(super) fn fault(&mut self, flag: Flag, details: impl Into<Cow<'static, str>>) {
        self.flags.set(flag);
        self.details = Some(details.into());
    }

    /// The log record as far as it is known, without heads.
    pub(super) fn record<'r>(
        &'r self,
        connection: &'r ConnectionFacts,
        now: Instant,
    ) -> Record<'r> {
        let since = |moment: Option<Instant>| moment.map(|at| at.duration_since(self.start));
        Record {
            start: self.wall,
            duration: now.duration_since(self.start),
            request_duration: since(self.request_end),
            response_duration: since(self.response_start),
            protocol: Some(self.protocol.name()),
            trailers: self.trailers.as_ref(),
            response_code: self.status,
            client: self.client,
            flags: self.flags,
            response_code_details: self.details.as_deref(),
            upstream_transport_failure: self.transport_failure.as_deref(),
            bytes_received: self.received,
            bytes_sent: self.sent,
            upstream_host: self.host.as_ref(),
            upstream_local: self.local,
            upstream_cluster: self.cluster.map(|cluster| &*cluster.name),
            upstream_cluster_stat: self.cluster.map(|cluster| &*cluster.stat_name),
            upstream_attempts: self.attempts,
            route_name: self.route.map_or("", |route| &route.name),
            route_origin: self.route.and_then(|route| route.origin.as_deref()),
            metadata: Some(&self.metadata),
            ..Record::new(connection)
        }
    }
}
