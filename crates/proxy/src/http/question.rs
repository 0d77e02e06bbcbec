//! What a call of our own asks and gets, by any HTTP version.

use bytes::Bytes;
use http::{HeaderMap, Request};

use super::{failure::Failure, piece::Fault};
use crate::upstream::ConnectError;

/// A call.
#[derive(Debug)]
pub(super) struct Question {
    /// Its URI has an authority and a path, and no scheme.
    pub(super) head: Request<()>,
    pub(super) body: Bytes,
    /// Longest body of an answer, in bytes.
    pub(super) answer_max: usize,
}

/// What came back.
#[derive(Debug)]
pub(super) struct Answer {
    pub(super) status: u16,
    pub(super) headers: HeaderMap,
    pub(super) body: Vec<u8>,
    pub(super) trailers: HeaderMap,
}

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub(super) enum CallError {
    #[error(transparent)]
    Connect(#[from] ConnectError),
    #[error("no connection: {0:?}")]
    Failed(Failure),
    #[error(transparent)]
    Io(#[from] std::io::Error),
    #[error("the stream ended early: {0:?}")]
    Stream(Fault),
    #[error("the answer is malformed")]
    Malformed,
    #[error("the answer is longer than it may be")]
    TooLong,
    #[error("the cluster adds credentials to requests of clients: a call of ours has none")]
    Credentials,
    #[error("the service took too long")]
    Late,
    #[error("the service must speak HTTP/2, and its cluster does not say so")]
    NotHttp2,
    #[error("nobody makes sure that the endpoint is who it should be")]
    Unverified,
}

impl From<Fault> for CallError {
    fn from(fault: Fault) -> Self {
        Self::Stream(fault)
    }
}
