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
mod record;
mod time;
mod value;

use sluis_rules::{AccessLog, LogFilter, LogFormat, LogSink};

pub use flags::{Flag, Flags};
pub use format::Format;
use json::Json;
pub use operator::FormatError;
pub use record::Record;
pub(crate) use time::http_date;
pub use value::Escape;

use crate::log_sink::LogBuffers;

/// Envoy's own default line, for `LogFormat::Default`.
const ENVOY_DEFAULT: &str = "[%START_TIME%] \"%REQ(:METHOD)% %REQ(X-ENVOY-ORIGINAL-PATH?:PATH)% \
    %PROTOCOL%\" %RESPONSE_CODE% %RESPONSE_FLAGS% %BYTES_RECEIVED% %BYTES_SENT% %DURATION% \
    %RESP(X-ENVOY-UPSTREAM-SERVICE-TIME)% \"%REQ(X-FORWARDED-FOR)%\" \"%REQ(USER-AGENT)%\" \
    \"%REQ(X-REQUEST-ID)%\" \"%REQ(:AUTHORITY)%\" \"%UPSTREAM_HOST%\"\n";

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
    pub fn write(&self, buffers: &LogBuffers, record: &Record<'_>) {
        for log in self.0.iter().filter(|log| log.wants(record)) {
            buffers.append(&log.sink, |out| log.render(record, out));
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
