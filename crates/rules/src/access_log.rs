//! What an access log should hold and where it goes, as plain data.

use std::sync::Arc;

/// One access log of a listener, a TCP proxy or an HTTP connection manager.
#[derive(Clone, Debug, PartialEq)]
pub struct AccessLog {
    /// Where the lines go.
    pub sink: LogSink,
    /// What a line holds.
    pub format: LogFormat,
    /// Which events are logged; `None` logs all.
    pub filter: Option<LogFilter>,
    /// Whether an absent value is printed as nothing rather than `-` (and a JSON key left out).
    pub omit_empty_values: bool,
}

/// Where an access log goes.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum LogSink {
    /// A file, appended to. `/dev/stdout` and `/dev/stderr` become the two variants below.
    File(Arc<str>),
    /// Standard output.
    Stdout,
    /// Standard error.
    Stderr,
}

/// What a log line holds. Strings are in Envoy's command notation (`%RESPONSE_CODE%`).
#[derive(Clone, Debug, PartialEq)]
pub enum LogFormat {
    /// Envoy's default line.
    Default,
    /// A line of text; the newline is part of the format.
    Text(Arc<str>),
    /// A JSON object, one a line, keys sorted.
    Json(JsonFormat),
}

/// A JSON value whose strings are formats.
#[derive(Clone, Debug, PartialEq)]
pub enum JsonFormat {
    /// `null`.
    Null,
    /// A constant.
    Bool(bool),
    /// A constant.
    Number(f64),
    /// A format; a lone command keeps its type (a number stays a number).
    Text(Arc<str>),
    /// A list.
    List(Vec<Self>),
    /// An object, sorted by key.
    Object(Vec<(Arc<str>, Self)>),
}

/// Which events are logged.
#[derive(Clone, Debug, PartialEq)]
pub enum LogFilter {
    /// Those with one of these response flags (short names, as `NR`); an empty list means any flag.
    ResponseFlags(Vec<Arc<str>>),
    /// Those whose status code compares so. A connection without a status has 0.
    StatusCode(Comparison, u32),
    /// Those whose duration in milliseconds compares so.
    DurationMillis(Comparison, u32),
    /// Those that all of these let through.
    All(Vec<Self>),
    /// Those that one of these lets through.
    Any(Vec<Self>),
}

/// A comparison of a measured number with a configured one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Comparison {
    /// Equal.
    Equal,
    /// Not equal.
    NotEqual,
    /// Greater or equal.
    AtLeast,
    /// Less or equal.
    AtMost,
}

impl Comparison {
    /// Whether `measured` compares so with `configured`.
    #[must_use]
    pub fn holds(self, measured: u32, configured: u32) -> bool {
        match self {
            Self::Equal => measured == configured,
            Self::NotEqual => measured != configured,
            Self::AtLeast => measured >= configured,
            Self::AtMost => measured <= configured,
        }
    }
}

impl LogFilter {
    /// Whether an event with these facts is logged.
    #[must_use]
    pub fn passes(&self, flags: &[&str], status: u32, duration_millis: u32) -> bool {
        match self {
            Self::ResponseFlags(wanted) if wanted.is_empty() => !flags.is_empty(),
            Self::ResponseFlags(wanted) => wanted.iter().any(|flag| flags.contains(&&**flag)),
            Self::StatusCode(how, value) => how.holds(status, *value),
            Self::DurationMillis(how, value) => how.holds(duration_millis, *value),
            Self::All(parts) => {
                parts.iter().all(|part| part.passes(flags, status, duration_millis))
            }
            Self::Any(parts) => {
                parts.iter().any(|part| part.passes(flags, status, duration_millis))
            }
        }
    }
}
