//! What a log line is written from: one finished request or connection.

use std::{
    net::SocketAddr,
    time::{Duration, SystemTime},
};

use sluis_http1::{Fields, RequestHead};
use sluis_rules::{Address, Metadata};

use super::flags::Flags;
use crate::conn::ConnectionFacts;

/// What is known of one finished request or connection. Absent facts are `None`, zero or empty.
#[derive(Clone, Debug)]
pub struct Record<'r> {
    /// The connection that it came on.
    pub connection: &'r ConnectionFacts,
    /// When it began, on the calendar.
    pub start: SystemTime,
    /// How long it took in all.
    pub duration: Duration,
    /// From its beginning to the last byte of the request; `None` when that never came.
    pub request_duration: Option<Duration>,
    /// From its beginning to the first byte of the response from upstream.
    pub response_duration: Option<Duration>,
    /// The request as it was sent on; `None` for TCP.
    pub request: Option<&'r RequestHead>,
    /// The fields of the response as it was sent.
    pub response: Option<&'r Fields>,
    /// The trailers of the response; `None` without any.
    pub trailers: Option<&'r http::HeaderMap>,
    /// `HTTP/1.1` and so on; `None` for TCP.
    pub protocol: Option<&'static str>,
    /// The status that the client got; 0 when it got none.
    pub response_code: u16,
    /// The client as it is trusted, where that is not the connection's other end.
    pub client: Option<SocketAddr>,
    /// What went wrong.
    pub flags: Flags,
    /// Who made the response and why (Envoy's words).
    pub response_code_details: Option<&'r str>,
    /// Why the connection was ended.
    pub connection_termination_details: Option<&'r str>,
    /// Why TLS towards the endpoint failed.
    pub upstream_transport_failure: Option<&'r str>,
    /// Why TLS with the client failed.
    pub downstream_transport_failure: Option<&'r str>,
    /// Bytes of the request body, or from the client.
    pub bytes_received: u64,
    /// Bytes of the response body, or to the client.
    pub bytes_sent: u64,
    /// The endpoint, once one was chosen.
    pub upstream_host: Option<&'r Address>,
    /// Our end of the connection to it.
    pub upstream_local: Option<SocketAddr>,
    /// The cluster, once one was chosen.
    pub upstream_cluster: Option<&'r str>,
    /// The name of that cluster in statistics.
    pub upstream_cluster_stat: Option<&'r str>,
    /// Tries to send the request upstream.
    pub upstream_attempts: u32,
    /// The name of the route; may be empty.
    pub route_name: &'r str,
    /// The user's resource that the route comes from.
    pub route_origin: Option<&'r str>,
    /// What filters have found out.
    pub metadata: Option<&'r Metadata>,
}

impl<'r> Record<'r> {
    /// A record of a connection about which nothing else is known yet.
    #[must_use]
    pub fn new(connection: &'r ConnectionFacts) -> Self {
        Self {
            connection,
            start: connection.start_time,
            duration: Duration::ZERO,
            request_duration: None,
            response_duration: None,
            request: None,
            response: None,
            trailers: None,
            protocol: None,
            response_code: 0,
            client: None,
            flags: Flags::default(),
            response_code_details: None,
            connection_termination_details: None,
            upstream_transport_failure: None,
            downstream_transport_failure: None,
            bytes_received: 0,
            bytes_sent: 0,
            upstream_host: None,
            upstream_local: None,
            upstream_cluster: None,
            upstream_cluster_stat: None,
            upstream_attempts: 0,
            route_name: "",
            route_origin: None,
            metadata: Some(&connection.metadata),
        }
    }
}
