//! What the end of a try means: for the client, for the log, for another try.

use super::{
    failure::{Failure, Finish},
    flight::{Deadline, Event},
    reply::{Reply, bad_body},
    strand::cut,
    trace::Trace,
};
use crate::{access_log::Flag, grpc};

/// How far a try had come when it ended.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Seen {
    /// Whether the response's head has gone to the client.
    pub(super) has_begun: bool,
    /// Whether both sides talk past HTTP.
    pub(super) is_tunnel: bool,
    /// Whether the client has sent its whole request.
    pub(super) is_request_done: bool,
    /// Whether it was a kept connection that nothing had come back on.
    pub(super) is_stale: bool,
    /// Whether the endpoint has taken no byte of the request.
    pub(super) is_unsent: bool,
}

/// Says what the end of a flight means.
pub(super) fn settle<'c>(
    event: Event,
    seen: Seen,
    trace: &mut Trace<'_>,
    closes: bool,
) -> Result<Finish<'c>, Failure> {
    let has_begun = seen.has_begun;
    match event {
        _ if seen.is_tunnel => Ok(Finish::Broken),
        Event::Complete => Ok(Finish::Complete { closes }),
        Event::ClientGone => {
            let flag = Flag::DownstreamConnectionTermination;
            trace.fault(flag, "downstream_remote_disconnect");
            Ok(Finish::Broken)
        }
        Event::ClientReset => {
            trace.fault(Flag::DownstreamRemoteReset, "http2.remote_reset");
            Ok(Finish::Broken)
        }
        Event::BadRequestBody if has_begun => {
            trace.flags.set(Flag::DownstreamProtocolError);
            Ok(Finish::Broken)
        }
        Event::BadRequestBody => Ok(Finish::Reply(bad_body().into())),
        Event::EndpointGone if has_begun => {
            let details = "upstream_reset_after_response_started{connection_termination}";
            trace.fault(Flag::UpstreamConnectionTermination, details);
            Ok(Finish::Broken)
        }
        Event::EndpointGone => {
            Err(Failure::Closed { is_stale: seen.is_stale, is_unsent: seen.is_unsent })
        }
        Event::EndpointReset { .. } if has_begun => {
            let details = "upstream_reset_after_response_started{remote_reset}";
            trace.fault(Flag::UpstreamRemoteReset, details);
            Ok(Finish::Broken)
        }
        Event::EndpointReset { is_refused } => Err(Failure::Reset { is_refused }),
        Event::BadResponse if has_begun => {
            let details = "upstream_reset_after_response_started{protocol_error}";
            trace.fault(Flag::UpstreamProtocolError, details);
            Ok(Finish::Broken)
        }
        Event::ScriptFailed | Event::ResponseTooLong if has_begun => {
            trace.details = Some(cut().details);
            Ok(Finish::Broken)
        }
        Event::ScriptFailed => Ok(Finish::Reply(cut().into())),
        Event::ResponseTooLong => {
            let reply = Reply::new(500, "response_payload_too_large");
            // As in Envoy the scripts, one of which asked for it, do not see this.
            Ok(Finish::Reply(reply.text("Internal Server Error").plain().into()))
        }
        Event::BadResponse | Event::Head | Event::Script => Err(Failure::Protocol),
        Event::Late(Deadline::Try) => Err(Failure::TryTimeout),
        Event::Late(Deadline::TryIdle) if !has_begun => Err(Failure::TryIdle),
        Event::Late(deadline) => Ok(late(deadline, seen, trace)),
    }
}

/// Why the client is told so, in Envoy's words.
pub(super) const RESPONSE_TIMEOUT: &str = "response_timeout";

/// The answer when the response took too long.
pub(super) fn response_timeout<'c>() -> Reply<'c> {
    let reply = Reply::new(504, RESPONSE_TIMEOUT);
    reply.text("upstream request timeout").flag(Flag::UpstreamRequestTimeout).tried()
}

/// What the client is told when its time is up.
fn late<'c>(deadline: Deadline, seen: Seen, trace: &mut Trace<'_>) -> Finish<'c> {
    // Envoy's rule: who has sent the whole request has waited for us, the others made us wait.
    let status = if seen.is_request_done { 504 } else { 408 };
    let reply = match deadline {
        Deadline::Response | Deadline::Try | Deadline::TryIdle => response_timeout(),
        Deadline::Request => Reply::new(408, "request_overall_timeout").text("request timeout"),
        Deadline::Idle => {
            let reply = Reply::new(status, "stream_idle_timeout");
            reply.text("stream timeout").flag(Flag::StreamIdleTimeout)
        }
        Deadline::Life => {
            let reply = Reply::new(408, "upstream_max_stream_duration_reached");
            let reply = reply.text("upstream max stream duration reached");
            reply.flag(Flag::UpstreamMaxStreamDuration)
        }
        Deadline::Age => {
            let reply = Reply::new(status, "max_duration_timeout");
            // As in Envoy: the log has no flag for it.
            let reply = reply.text("downstream duration timeout");
            Reply { grpc_status: Some(grpc::DEADLINE_EXCEEDED), ..reply }
        }
    };
    if !seen.has_begun {
        return Finish::Reply(reply.into());
    }
    trace.details = Some(reply.details.clone());
    if let Some(flag) = reply.flag {
        trace.fault(flag, reply.details.clone());
    }
    Finish::Broken
}
