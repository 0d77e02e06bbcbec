//! How one try ended: why an endpoint gave no response, and what the client is told.

use std::borrow::Cow;

use super::reply::Reply;
use crate::{access_log::Flag, names::NameError, upstream::ConnectError};

/// Why one try gave no response.
#[derive(Debug)]
pub(super) enum Failure {
    /// No connection.
    Connect(ConnectError),
    /// The connection ended before a response, or while the request was sent.
    Closed {
        /// Whether it was a kept connection that nothing had come back on.
        is_stale: bool,
        /// Whether not one byte of the request was taken by the connection.
        is_unsent: bool,
    },
    /// The endpoint reset the stream.
    Reset {
        /// Whether it says that nobody has acted on the request (RFC 9113 §8.7).
        is_refused: bool,
    },
    /// What came was not a response.
    Protocol,
    /// The try took longer than its own limit.
    TryTimeout,
    /// Nothing moved in the try for longer than its own limit.
    TryIdle,
    /// A response with a status that the policy tries again. Only ever a reason to try again.
    Status,
    /// The endpoint does not know the credential's new version yet. Only ever a reason to try again.
    OldCredential,
}

/// How one try ended, when not with a [`Failure`].
pub(super) enum Finish<'c> {
    /// The response was passed on as a whole.
    Complete {
        /// Whether the client was told that the connection ends.
        closes: bool,
    },
    /// The connection to the client is of no more use.
    Broken,
    /// The client is to be told this instead.
    Reply(Box<Reply<'c>>),
}

const RESET: &str = "upstream connect error or disconnect/reset before headers. reset reason: ";
const RESET_AGAIN: &str = "upstream connect error or disconnect/reset before headers. \
    retried and the latest reset reason: ";

impl Failure {
    pub(super) fn flag(&self) -> Flag {
        match self {
            Self::Connect(error) => {
                Flag::of(error.flag()).unwrap_or(Flag::UpstreamConnectionFailure)
            }
            Self::Closed { .. } => Flag::UpstreamConnectionTermination,
            Self::Reset { .. } => Flag::UpstreamRemoteReset,
            Self::Protocol => Flag::UpstreamProtocolError,
            Self::TryTimeout | Self::TryIdle => Flag::UpstreamRequestTimeout,
            Self::Status | Self::OldCredential => Flag::UpstreamRetryLimitExceeded,
        }
    }

    /// The answer to the client, with Envoy's status and words.
    pub(super) fn reply<'c>(&self, is_retried: bool) -> Reply<'c> {
        let start = if is_retried { RESET_AGAIN } else { RESET };
        let told = |status, details, body: Cow<'static, str>| {
            let reply = Reply::new(status, details).flag(self.flag()).tried();
            Reply { body: body.into_owned().into_bytes().into(), ..reply }
        };
        match self {
            Self::Connect(
                error @ (ConnectError::NoEndpoint { .. }
                | ConnectError::NoOriginalDestination { .. }),
            ) => told(503, error.details(), "no healthy upstream".into()),
            Self::Connect(error @ ConnectError::Overflow { .. }) => {
                let mut reply = told(503, error.details(), format!("{RESET}overflow").into());
                reply.fields.push((b"x-envoy-overloaded".to_vec(), b"true".to_vec()));
                reply
            }
            Self::Connect(error @ ConnectError::Dropped { is_unconditional, .. }) => {
                let text =
                    if *is_unconditional { "unconditional drop overload" } else { "drop overload" };
                told(503, error.details(), text.into())
            }
            Self::Connect(error @ ConnectError::Forbidden { .. }) => {
                told(403, error.details(), "destination is not allowed".into())
            }
            Self::Connect(error @ ConnectError::Name { source, .. }) => {
                let text = match source {
                    NameError::Unresolved => "DNS resolution failure",
                    NameError::TooMany => "DNS cache overflow",
                    NameError::Overflow => "Dynamic forward proxy pending request overflow",
                };
                told(503, error.details(), text.into())
            }
            Self::Connect(error) => {
                let reason = match error {
                    ConnectError::Timeout { .. } => "connection timeout",
                    _ => "remote connection failure",
                };
                // As in Envoy why a handshake failed is for the log: the client may be anyone.
                told(503, error.details(), format!("{start}{reason}").into())
            }
            Self::Closed { .. } => told(
                503,
                "upstream_reset_before_response_started{connection_termination}",
                format!("{start}connection termination").into(),
            ),
            Self::Reset { is_refused: true } => told(
                503,
                "upstream_reset_before_response_started{remote_refused_stream_reset}",
                format!("{start}remote refused stream reset").into(),
            ),
            Self::Reset { is_refused: false } => told(
                503,
                "upstream_reset_before_response_started{remote_reset}",
                format!("{start}remote reset").into(),
            ),
            Self::Protocol => told(
                502,
                "upstream_reset_before_response_started{protocol_error}",
                format!("{start}protocol error").into(),
            ),
            Self::TryTimeout => {
                told(504, "upstream_per_try_timeout", "upstream request timeout".into())
            }
            Self::TryIdle => {
                told(504, "upstream_per_try_idle_timeout", "upstream request timeout".into())
            }
            Self::Status | Self::OldCredential => told(503, "upstream_response", "".into()),
        }
    }
}
