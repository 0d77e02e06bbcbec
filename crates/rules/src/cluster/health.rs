//! How endpoints are asked whether they are well.

use std::{sync::Arc, time::Duration};

use crate::HeaderEdit;

/// One way of asking.
#[derive(Clone, Debug, PartialEq)]
pub struct HealthCheck {
    /// Longest wait for an answer.
    pub timeout: Duration,
    /// Time between two questions.
    pub interval: Duration,
    /// Time between questions to a cluster that has no traffic. Default 60 s.
    pub no_traffic_interval: Duration,
    /// The same for an endpoint that was found healthy; `None` as `no_traffic_interval`.
    pub no_traffic_healthy_interval: Option<Duration>,
    /// Time between questions to an unhealthy endpoint; `None` as `interval`.
    pub unhealthy_interval: Option<Duration>,
    /// Time to the next question once an endpoint has failed.
    pub unhealthy_edge_interval: Option<Duration>,
    /// Time to the next question once an endpoint has recovered.
    pub healthy_edge_interval: Option<Duration>,
    /// The first question comes after up to this time, drawn at random.
    pub initial_jitter: Duration,
    /// Up to this much is added to each wait, drawn at random.
    pub interval_jitter: Duration,
    /// The same in percent of the wait.
    pub interval_jitter_percent: u32,
    /// Failures in a row until an endpoint is unhealthy.
    pub unhealthy_threshold: u32,
    /// Good answers in a row until it is healthy again.
    pub healthy_threshold: u32,
    /// Another port to ask at; 0 for the endpoint's.
    pub port: u16,
    /// What is asked.
    pub probe: Probe,
}

/// What is asked.
#[derive(Clone, Debug, PartialEq)]
pub enum Probe {
    /// An HTTP request.
    Http(HttpProbe),
    /// A connection, and perhaps bytes.
    Tcp(TcpProbe),
    /// `grpc.health.v1.Health/Check`.
    Grpc(GrpcProbe),
}

/// An HTTP request that a healthy endpoint answers well.
#[derive(Clone, Debug, PartialEq)]
pub struct HttpProbe {
    /// The host; empty for the cluster's name.
    pub host: Arc<str>,
    /// The path.
    pub path: Arc<str>,
    /// The method.
    pub method: Arc<str>,
    /// What is done to its headers.
    pub edits: Vec<HeaderEdit>,
    /// Headers that are left out.
    pub removed: Vec<Arc<str>>,
    /// Whether HTTP/2 is spoken.
    pub is_http2: bool,
    /// Statuses of a good answer, each from (included) to (not included); empty for 200.
    pub expected: Vec<(u16, u16)>,
    /// Bad statuses that count by the threshold; all others that are not good fail at once.
    pub retriable: Vec<(u16, u16)>,
    /// Texts that must be in the body, in this order.
    pub receive: Vec<Arc<[u8]>>,
}

/// Bytes that a healthy endpoint answers.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct TcpProbe {
    /// What is sent.
    pub send: Arc<[u8]>,
    /// What must be in the answer, in this order.
    pub receive: Vec<Arc<[u8]>>,
}

/// A gRPC health check.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct GrpcProbe {
    /// The service to ask about; empty for the server.
    pub service: Arc<str>,
    /// The authority; empty for the cluster's name.
    pub authority: Arc<str>,
}
