//! How long a request may take: the route's time, or the one that a client asks for and may.
//!
//! In:    the route, the retry policy, the request's head.
//! Out:   the times, and a head that tells the endpoint which.
//! Never: believes a client outside the mesh: its `x-envoy-*` fields have been removed.

use std::time::Duration;

use sluis_http1::{Fields, Known, RequestHead};
use sluis_rules::{Forward, GrpcTimeout, is_grpc_type};

use super::{plan::Plan, program::Program, text::number};

const GRPC_TIMEOUT: &[u8] = b"grpc-timeout";

/// Most digits of a `grpc-timeout`, as gRPC has it.
const GRPC_DIGITS_MAX: usize = 8;

/// The time for the whole request; `None` has no limit.
pub(super) fn of_request(
    program: &Program,
    forward: &Forward,
    head: &mut RequestHead,
) -> Option<Duration> {
    let fields = &mut head.fields;
    let expected = program
        .respects_expected_timeout
        .then(|| millis(fields.get(Known::XEnvoyExpectedRqTimeoutMs)?))
        .flatten();
    let asked = expected.or_else(|| millis(fields.get(Known::XEnvoyUpstreamRqTimeoutMs)?));
    fields.remove(Known::XEnvoyUpstreamRqTimeoutMs);
    let time = match (asked, forward.grpc_timeout) {
        (Some(asked), _) => Some(asked),
        (None, Some(rule)) if !rule.is_of_stream && is_grpc(fields) => grpc(fields, rule),
        (None, _) => forward.timeout,
    };
    time.filter(|time| !time.is_zero())
}

fn is_grpc(fields: &Fields) -> bool {
    fields.get(Known::ContentType).is_some_and(is_grpc_type)
}

/// The stream's longest life: what a gRPC client asks for where the route takes that, else the
/// route's.
pub(super) fn of_stream(forward: &Forward, head: &mut RequestHead) -> Option<Duration> {
    let Some(rule) = forward.grpc_timeout.filter(|rule| rule.is_of_stream) else {
        return forward.max_stream_duration;
    };
    let fields = &mut head.fields;
    let asked = fields.get_name(GRPC_TIMEOUT).and_then(grpc_duration);
    let Some(asked) = asked.filter(|_| is_grpc(fields)) else { return forward.max_stream_duration };
    let granted = rule.max.map_or(asked, |max| asked.min(max));
    let offset = rule.offset.filter(|offset| *offset < granted).unwrap_or_default();
    let time = granted - offset;
    let millis = u64::try_from(time.as_millis()).unwrap_or(u64::MAX);
    // It cannot fail: the name is a token, the value digits and a letter.
    let _ = fields.set(GRPC_TIMEOUT, grpc_text(millis).as_bytes());
    Some(time)
}

/// What a gRPC client asks for, as far as the route grants it. One that asks for nothing has no
/// limit but the route's.
fn grpc(fields: &Fields, rule: GrpcTimeout) -> Option<Duration> {
    let asked = fields.get_name(GRPC_TIMEOUT).and_then(grpc_duration);
    let asked = match (asked, rule.offset) {
        // As in Envoy: never so much that nothing is left.
        (Some(asked), Some(offset)) => Some(asked.checked_sub(offset).unwrap_or(asked)),
        (asked, _) => asked,
    };
    match (asked, rule.max) {
        (Some(asked), Some(max)) => Some(asked.min(max)),
        (one, other) => one.or(other),
    }
}

/// Tells the endpoint how long it has: the whole time but for what has `gone` by, or that of one try
/// when that is shorter.
pub(super) fn tell(
    program: &Program,
    plan: &Plan<'_>,
    own: Option<Duration>,
    gone: Duration,
    head: &mut RequestHead,
    text: &mut Vec<u8>,
) {
    let left = plan.timeout.map(|whole| whole.saturating_sub(gone).max(Duration::from_millis(1)));
    let time = match (left, own) {
        (Some(left), Some(own)) => Some(left.min(own)),
        (left, own) => left.or(own),
    };
    let Some(time) = time else { return };
    let millis = u64::try_from(time.as_millis()).unwrap_or(u64::MAX);
    if !program.hides_envoy {
        number(millis, text);
        head.fields.set_trusted(Known::XEnvoyExpectedRqTimeoutMs, text);
    }
    let rule = plan.forward.grpc_timeout.filter(|rule| !rule.is_of_stream);
    if rule.is_some() && is_grpc(&head.fields) {
        // It cannot fail: the name is a token, the value digits and a letter.
        let _ = head.fields.set(GRPC_TIMEOUT, grpc_text(millis).as_bytes());
    }
}

fn millis(value: &[u8]) -> Option<Duration> {
    std::str::from_utf8(value).ok()?.trim().parse().ok().map(Duration::from_millis)
}

/// Reads `grpc-timeout`: up to eight digits and a unit.
fn grpc_duration(value: &[u8]) -> Option<Duration> {
    let (unit, digits) = value.split_last()?;
    if digits.is_empty() || digits.len() > GRPC_DIGITS_MAX {
        return None;
    }
    let count: u64 = std::str::from_utf8(digits).ok()?.parse().ok()?;
    Some(match unit {
        b'H' => Duration::from_secs(count * 3600),
        b'M' => Duration::from_secs(count * 60),
        b'S' => Duration::from_secs(count),
        b'm' => Duration::from_millis(count),
        b'u' => Duration::from_micros(count),
        b'n' => Duration::from_nanos(count),
        _ => return None,
    })
}

/// Writes `grpc-timeout` in the finest unit that eight digits hold.
fn grpc_text(millis: u64) -> String {
    const MOST: u64 = 99_999_999;
    match millis {
        0..=MOST => format!("{millis}m"),
        _ if millis / 1000 <= MOST => format!("{}S", millis / 1000),
        _ if millis / 60_000 <= MOST => format!("{}M", millis / 60_000),
        _ => format!("{}H", (millis / 3_600_000).min(MOST)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn grpc_timeouts_are_read_and_written() {
        for (text, expected) in [
            ("1H", Some(Duration::from_secs(3600))),
            ("20m", Some(Duration::from_millis(20))),
            ("99999999n", Some(Duration::from_nanos(99_999_999))),
            ("123456789S", None),
            ("S", None),
            ("5", None),
            ("-5S", None),
        ] {
            assert_eq!(grpc_duration(text.as_bytes()), expected, "{text}");
        }
        assert_eq!(grpc_text(15_000), "15000m");
        assert_eq!(grpc_text(100_000_000), "100000S");
    }
}
