//! Access-log lines: Envoy's format strings compiled to operations, one record per event.
//!
//! In:    [`sluis_rules::AccessLog`] (what a line holds and where it goes), and a [`Record`].
//! Out:   whole lines in the worker's [`crate::log_sink::LogBuffers`]; values of formatted headers.
//! Never: writes a byte of a peer's value that could end a line or close a quotation.
//!
//! Start at [`Logs::compile`]. An operator that we do not know is an error there, not a dash in a
//! line that somebody relies on.

mod flags;
mod format;
mod grpc;
mod json;
mod operator;
mod time;
mod value;

use std::{
    net::SocketAddr,
    time::{Duration, SystemTime},
};

use sluis_http1::{Fields, RequestHead};
use sluis_rules::{AccessLog, Address, LogFilter, LogFormat, LogSink, Metadata};

pub use flags::{Flag, Flags};
pub use format::{Escape, Format, FormatError};
use json::Json;
pub(crate) use time::http_date;

use crate::{conn::ConnectionFacts, worker::Worker};

/// Envoy's own default line, for `LogFormat::Default`.
const ENVOY_DEFAULT: &str = "[%START_TIME%] \"%REQ(:METHOD)% %REQ(X-ENVOY-ORIGINAL-PATH?:PATH)% \
    %PROTOCOL%\" %RESPONSE_CODE% %RESPONSE_FLAGS% %BYTES_RECEIVED% %BYTES_SENT% %DURATION% \
    %RESP(X-ENVOY-UPSTREAM-SERVICE-TIME)% \"%REQ(X-FORWARDED-FOR)%\" \"%REQ(USER-AGENT)%\" \
    \"%REQ(X-REQUEST-ID)%\" \"%REQ(:AUTHORITY)%\" \"%UPSTREAM_HOST%\"\n";

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

/// The access logs of one listener, TCP proxy or HTTP manager, compiled.
#[derive(Debug, Default)]
pub struct Logs(Vec<Log>);

#[derive(Debug)]
struct Log {
    sink: LogSink,
    line: Line,
    filter: Option<LogFilter>,
    absent: &'static [u8],
}

#[derive(Debug)]
enum Line {
    Text(Format),
    Json(Json),
}

impl Logs {
    /// Compiles the logs.
    ///
    /// # Errors
    ///
    /// [`FormatError`] names the operator that is not understood, or where the text is malformed.
    pub fn compile(logs: &[AccessLog]) -> Result<Self, FormatError> {
        logs.iter().map(Log::compile).collect::<Result<_, _>>().map(Self)
    }

    /// Whether there is no log, so that no record need be made.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Writes the record to each log whose filter lets it through.
    pub fn write(&self, worker: &Worker, record: &Record<'_>) {
        for log in self.0.iter().filter(|log| log.wants(record)) {
            worker.logs().append(&log.sink, |out| log.render(record, out));
        }
    }
}

impl Log {
    fn compile(log: &AccessLog) -> Result<Self, FormatError> {
        let line = match &log.format {
            LogFormat::Default => Line::Text(Format::parse(ENVOY_DEFAULT)?),
            LogFormat::Text(text) => Line::Text(Format::parse(text)?),
            LogFormat::Json(json) => Line::Json(Json::compile(json, log.omit_empty_values)?),
        };
        let absent: &[u8] = if log.omit_empty_values { b"" } else { b"-" };
        Ok(Self { sink: log.sink.clone(), line, filter: log.filter.clone(), absent })
    }

    fn wants(&self, record: &Record<'_>) -> bool {
        let Some(filter) = &self.filter else { return true };
        let millis = u32::try_from(record.duration.as_millis()).unwrap_or(u32::MAX);
        filter.passes(&record.flags.names(), u32::from(record.response_code), millis)
    }

    fn render(&self, record: &Record<'_>, out: &mut Vec<u8>) {
        match &self.line {
            Line::Text(format) => format.write(record, Escape::Log, self.absent, out),
            Line::Json(json) => json.write_line(record, out),
        }
    }
}

#[cfg(test)]
mod tests;
