//! When and how a request is tried again.

use std::{sync::Arc, time::Duration};

use crate::HeaderMatch;

/// When and how a request is tried again.
#[derive(Clone, Debug, PartialEq)]
pub struct RetryPolicy {
    /// The conditions.
    pub on: RetryOn,
    /// Tries after the first. Default 1.
    pub retries: u32,
    /// Longest time of one try; `None` has none of its own.
    pub per_try_timeout: Option<Duration>,
    /// Longest silence of one try; `None` has no limit of its own.
    pub per_try_idle_timeout: Option<Duration>,
    /// Statuses that `retriable-status-codes` means.
    pub statuses: Vec<u16>,
    /// Waits between tries.
    pub backoff: Backoff,
    /// Waits that the response asks for, before [`RetryPolicy::backoff`] is asked.
    pub reset: Option<RateLimitedBackoff>,
    /// How often an endpoint is drawn anew when it was tried before. 0 allows the same again.
    pub host_attempts: u32,
    /// After how many tries each the priorities that were tried are left out; `None` never.
    pub priorities_after: Option<u32>,
    /// Response headers that `retriable-headers` means.
    pub response_headers: Vec<HeaderMatch>,
    /// Only requests with one of these headers are tried again; empty means any.
    pub request_headers: Vec<HeaderMatch>,
}

/// How long to wait between tries: doubling, with jitter.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Backoff {
    /// The first wait. Default 25 ms.
    pub base: Duration,
    /// The longest wait. Default ten first waits.
    pub max: Duration,
}

/// Waits that a response asks for (`retry-after` and its kin).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RateLimitedBackoff {
    /// The headers, in order; the first that is there and can be read counts.
    pub headers: Vec<(Arc<str>, ResetFormat)>,
    /// The longest wait that is believed. Default 300 s.
    pub max: Duration,
}

/// What such a header says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ResetFormat {
    /// Seconds from now.
    Seconds,
    /// Seconds since 1970.
    UnixTime,
}

/// A set of conditions.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct RetryOn(u32);

macro_rules! conditions {
    ($($name:ident = $bit:literal, $text:literal, $is_grpc:literal;)*) => {
        impl RetryOn {
            $(
                #[doc = concat!("`", $text, "`")]
                pub const $name: Self = Self(1 << $bit);
            )*
        }

        /// Names, and whether each is one of gRPC's.
        const CONDITIONS: &[(&str, RetryOn, bool)] =
            &[$(($text, RetryOn::$name, $is_grpc),)*];
    };
}

conditions! {
    SERVER_ERROR = 0, "5xx", false;
    GATEWAY_ERROR = 1, "gateway-error", false;
    RESET = 2, "reset", false;
    RESET_BEFORE_REQUEST = 3, "reset-before-request", false;
    CONNECT_FAILURE = 4, "connect-failure", false;
    REFUSED_STREAM = 5, "refused-stream", false;
    RETRIABLE_4XX = 6, "retriable-4xx", false;
    STATUS_CODES = 7, "retriable-status-codes", false;
    HEADERS = 8, "retriable-headers", false;
    RATE_LIMITED = 9, "envoy-ratelimited", false;
    HTTP3_POST_CONNECT_FAILURE = 10, "http3-post-connect-failure", false;
    GRPC_CANCELLED = 11, "cancelled", true;
    GRPC_DEADLINE_EXCEEDED = 12, "deadline-exceeded", true;
    GRPC_INTERNAL = 13, "internal", true;
    GRPC_RESOURCE_EXHAUSTED = 14, "resource-exhausted", true;
    GRPC_UNAVAILABLE = 15, "unavailable", true;
}

/// The conditions that a client of the mesh may ask for by header, and what it may not.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RetryNames {
    /// Those of `x-envoy-retry-on`.
    Http,
    /// Those of `x-envoy-retry-grpc-on`.
    Grpc,
    /// Both, as in a route.
    Both,
}

impl RetryOn {
    /// Reads names that are separated by commas; `unknown` hears of those that are none.
    pub fn read(text: &str, names: RetryNames, mut unknown: impl FnMut(&str)) -> Self {
        let mut on = Self::default();
        for name in text.split(',').map(str::trim).filter(|name| !name.is_empty()) {
            let found = CONDITIONS.iter().find(|(known, _, is_grpc)| {
                *known == name
                    && match names {
                        RetryNames::Both => true,
                        RetryNames::Http => !is_grpc,
                        RetryNames::Grpc => *is_grpc,
                    }
            });
            match found {
                Some((_, condition, _)) => on = on.and(*condition),
                None => unknown(name),
            }
        }
        on
    }

    /// These conditions and those.
    #[must_use]
    pub fn and(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    /// Whether one of those conditions is among these.
    #[must_use]
    pub fn has(self, any_of: Self) -> bool {
        self.0 & any_of.0 != 0
    }

    /// Whether nothing is ever tried again.
    #[must_use]
    pub fn is_empty(self) -> bool {
        self.0 == 0
    }

    /// The condition that a gRPC status means.
    #[must_use]
    pub fn of_grpc(status: u32) -> Self {
        match status {
            1 => Self::GRPC_CANCELLED,
            4 => Self::GRPC_DEADLINE_EXCEEDED,
            8 => Self::GRPC_RESOURCE_EXHAUSTED,
            13 => Self::GRPC_INTERNAL,
            14 => Self::GRPC_UNAVAILABLE,
            _ => Self::default(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_read_and_strangers_reported() {
        let mut strange = Vec::new();
        let on = RetryOn::read("5xx, reset,unavailable,503", RetryNames::Both, |name| {
            strange.push(name.to_owned());
        });
        assert_eq!(strange, ["503"]);
        assert!(on.has(RetryOn::SERVER_ERROR) && on.has(RetryOn::GRPC_UNAVAILABLE));
        assert!(!on.has(RetryOn::CONNECT_FAILURE));
        assert!(RetryOn::read("unavailable", RetryNames::Http, |_| {}).is_empty());
    }
}
