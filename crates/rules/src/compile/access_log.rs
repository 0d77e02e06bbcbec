//! Access logs: where they go, what they hold, what is left out.

use std::sync::Arc;

use envoy_types::pb::{
    envoy::{
        config::{
            accesslog::v3::{
                AccessLog as PbLog, AccessLogFilter, ComparisonFilter, access_log::ConfigType,
                access_log_filter::FilterSpecifier, comparison_filter::Op,
            },
            core::v3::{SubstitutionFormatString, substitution_format_string::Format},
        },
        extensions::access_loggers::{
            file::v3::{FileAccessLog, file_access_log::AccessLogFormat as FileFormat},
            stream::v3::{
                StderrAccessLog, StdoutAccessLog, stderr_access_log::AccessLogFormat as ErrFormat,
                stdout_access_log::AccessLogFormat as OutFormat,
            },
        },
    },
    google::protobuf::{Struct, Value, value::Kind},
};

use super::{
    at::{At, fields, message_of},
    messages,
};
use crate::{AccessLog, Comparison, JsonFormat, LogFilter, LogFormat, LogSink, Source};

/// Formatters whose commands the log writer knows without being told.
const KNOWN_FORMATTERS: [&str; 2] =
    ["envoy.formatter.req_without_query", "envoy.formatter.metadata"];

/// How deep filters and JSON formats may be nested: deeper than anyone writes by hand, and far from
/// the end of the stack.
const DEPTH_MAX: usize = 16;

pub(super) fn access_logs(at: &At<'_>, logs: &[PbLog]) -> Vec<AccessLog> {
    let logs = logs.iter().enumerate().filter_map(|(index, log)| access_log(&at.nth(index), log));
    logs.collect()
}

fn access_log(at: &At<'_>, log: &PbLog) -> Option<AccessLog> {
    let filter = match &log.filter {
        Some(filter) => Some(log_filter(&at.field("filter"), filter, 0)?),
        None => None,
    };
    let at = &at.field("typed_config");
    let Some(ConfigType::TypedConfig(any)) = &log.config_type else {
        at.fault("is missing");
        return None;
    };
    let (sink, (format, omit_empty_values)) = match message_of(any) {
        "envoy.extensions.access_loggers.file.v3.FileAccessLog" => {
            file(at, &at.unpack::<FileAccessLog>(any)?)?
        }
        "envoy.extensions.access_loggers.stream.v3.StdoutAccessLog" => {
            let OutFormat::LogFormat(format) = at
                .unpack::<StdoutAccessLog>(any)?
                .access_log_format
                .unwrap_or_else(|| OutFormat::LogFormat(SubstitutionFormatString::default()));
            (LogSink::Stdout, format_string(&at.field("log_format"), &format)?)
        }
        "envoy.extensions.access_loggers.stream.v3.StderrAccessLog" => {
            let ErrFormat::LogFormat(format) = at
                .unpack::<StderrAccessLog>(any)?
                .access_log_format
                .unwrap_or_else(|| ErrFormat::LogFormat(SubstitutionFormatString::default()));
            (LogSink::Stderr, format_string(&at.field("log_format"), &format)?)
        }
        other => {
            at.fault(format!("access logger {other} is not supported"));
            return None;
        }
    };
    Some(AccessLog { sink, format, filter, omit_empty_values })
}

#[expect(deprecated, reason = "older configurations give the format so")]
fn file(at: &At<'_>, log: &FileAccessLog) -> Option<(LogSink, (LogFormat, bool))> {
    let sink = match log.path.as_str() {
        "" => {
            at.field("path").fault("is missing");
            return None;
        }
        "/dev/stdout" => LogSink::Stdout,
        "/dev/stderr" => LogSink::Stderr,
        path => LogSink::File(path.into()),
    };
    let format = match &log.access_log_format {
        None => (LogFormat::Default, false),
        Some(FileFormat::Format(text)) => (text_format(text), false),
        Some(FileFormat::JsonFormat(fields) | FileFormat::TypedJsonFormat(fields)) => {
            (LogFormat::Json(json_object(at, fields, 0)), false)
        }
        Some(FileFormat::LogFormat(format)) => format_string(&at.field("log_format"), format)?,
    };
    Some((sink, format))
}

/// A format, and whether empty values are left out.
#[expect(deprecated, reason = "text_format is what everyone writes")]
fn format_string(at: &At<'_>, value: &SubstitutionFormatString) -> Option<(LogFormat, bool)> {
    fields!(at, value => SubstitutionFormatString {
        use { omit_empty_values, formatters, format }
        // Keys are always sorted.
        accept { json_format_options }
        refuse { content_type }
    });
    for (index, formatter) in formatters.iter().enumerate() {
        if !KNOWN_FORMATTERS.contains(&formatter.name.as_str()) {
            let message = format!("formatter {:?} is not supported", formatter.name);
            at.field("formatters").nth(index).fault(message);
        }
    }
    let format = match format {
        None => LogFormat::Default,
        Some(Format::TextFormat(text)) => text_format(text),
        Some(Format::JsonFormat(fields)) => {
            LogFormat::Json(json_object(&at.field("json_format"), fields, 0))
        }
        Some(Format::TextFormatSource(source)) => {
            let at = &at.field("text_format_source");
            match messages::source(at, source)? {
                Source::Text(text) => text_format(&text),
                Source::File(_) | Source::Environment(_) => {
                    at.fault("is not inline");
                    return None;
                }
            }
        }
    };
    Some((format, *omit_empty_values))
}

fn text_format(text: &str) -> LogFormat {
    if text.is_empty() { LogFormat::Default } else { LogFormat::Text(text.into()) }
}

fn json_object(at: &At<'_>, fields: &Struct, depth: usize) -> JsonFormat {
    let mut members: Vec<(Arc<str>, JsonFormat)> = fields
        .fields
        .iter()
        .map(|(key, value)| (key.as_str().into(), json_value(at, value, depth)))
        .collect();
    members.sort_by(|(a, _), (b, _)| a.cmp(b));
    JsonFormat::Object(members)
}

fn json_value(at: &At<'_>, value: &Value, depth: usize) -> JsonFormat {
    if depth > DEPTH_MAX {
        at.fault(format!("is nested deeper than {DEPTH_MAX}"));
        return JsonFormat::Null;
    }
    match &value.kind {
        None | Some(Kind::NullValue(_)) => JsonFormat::Null,
        Some(Kind::BoolValue(value)) => JsonFormat::Bool(*value),
        Some(Kind::NumberValue(value)) => JsonFormat::Number(*value),
        Some(Kind::StringValue(text)) => JsonFormat::Text(text.as_str().into()),
        Some(Kind::ListValue(list)) => JsonFormat::List(
            list.values.iter().map(|value| json_value(at, value, depth + 1)).collect(),
        ),
        Some(Kind::StructValue(fields)) => json_object(at, fields, depth + 1),
    }
}

fn log_filter(at: &At<'_>, filter: &AccessLogFilter, depth: usize) -> Option<LogFilter> {
    if depth > DEPTH_MAX {
        at.fault(format!("is nested deeper than {DEPTH_MAX}"));
        return None;
    }
    let parts = |at: &At<'_>, filters: &[AccessLogFilter]| -> Option<Vec<LogFilter>> {
        let at = at.field("filters");
        let parts = filters.iter().enumerate();
        parts.map(|(index, filter)| log_filter(&at.nth(index), filter, depth + 1)).collect()
    };
    match filter.filter_specifier.as_ref() {
        Some(FilterSpecifier::ResponseFlagFilter(filter)) => Some(LogFilter::ResponseFlags(
            filter.flags.iter().map(|flag| flag.as_str().into()).collect(),
        )),
        Some(FilterSpecifier::StatusCodeFilter(filter)) => {
            let (how, value) = comparison(&at.field("status_code_filter"), &filter.comparison)?;
            Some(LogFilter::StatusCode(how, value))
        }
        Some(FilterSpecifier::DurationFilter(filter)) => {
            let (how, value) = comparison(&at.field("duration_filter"), &filter.comparison)?;
            Some(LogFilter::DurationMillis(how, value))
        }
        Some(FilterSpecifier::AndFilter(filter)) => {
            Some(LogFilter::All(parts(&at.field("and_filter"), &filter.filters)?))
        }
        Some(FilterSpecifier::OrFilter(filter)) => {
            Some(LogFilter::Any(parts(&at.field("or_filter"), &filter.filters)?))
        }
        // There are no health checks by HTTP here, so that no request is one.
        Some(FilterSpecifier::NotHealthCheckFilter(_)) => Some(LogFilter::All(Vec::new())),
        _ => {
            at.unsupported();
            None
        }
    }
}

fn comparison(at: &At<'_>, filter: &Option<ComparisonFilter>) -> Option<(Comparison, u32)> {
    let at = &at.field("comparison");
    let Some(filter) = filter else {
        at.fault("is missing");
        return None;
    };
    let how = match Op::try_from(filter.op) {
        Ok(Op::Eq) => Comparison::Equal,
        Ok(Op::Ge) => Comparison::AtLeast,
        Ok(Op::Le) => Comparison::AtMost,
        Ok(Op::Ne) => Comparison::NotEqual,
        Err(_) => {
            at.field("op").unsupported();
            return None;
        }
    };
    // There is no runtime: the default is the value.
    Some((how, filter.value.as_ref().map_or(0, |value| value.default_value)))
}
