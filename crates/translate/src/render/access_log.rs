//! Access loggers, in Istio's default format unless the mesh configuration gives another.

use std::collections::BTreeMap;

use envoy_types::pb::{
    envoy::{
        config::{
            accesslog::v3::{
                AccessLog, AccessLogFilter, ResponseFlagFilter, access_log,
                access_log_filter::FilterSpecifier,
            },
            core::v3::{SubstitutionFormatString, substitution_format_string::Format},
        },
        extensions::access_loggers::file::v3::{FileAccessLog, file_access_log::AccessLogFormat},
    },
    google::protobuf::Any,
};
use prost::Message;
use sluis_envoy::{pack, type_url};

use super::wrap;
use crate::AccessLogInput;

/// Istio's default line.
const TEXT: &str = concat!(
    "[%START_TIME%] \"%REQ(:METHOD)% %REQ(X-ENVOY-ORIGINAL-PATH?:PATH)% %PROTOCOL%\" ",
    "%RESPONSE_CODE% %RESPONSE_FLAGS% %RESPONSE_CODE_DETAILS% ",
    "%CONNECTION_TERMINATION_DETAILS% \"%UPSTREAM_TRANSPORT_FAILURE_REASON%\" ",
    "%BYTES_RECEIVED% %BYTES_SENT% %DURATION% %RESP(X-ENVOY-UPSTREAM-SERVICE-TIME)% ",
    "\"%REQ(X-FORWARDED-FOR)%\" \"%REQ(USER-AGENT)%\" \"%REQ(X-REQUEST-ID)%\" ",
    "\"%REQ(:AUTHORITY)%\" \"%UPSTREAM_HOST%\" %UPSTREAM_CLUSTER_RAW% ",
    "%UPSTREAM_LOCAL_ADDRESS% %DOWNSTREAM_LOCAL_ADDRESS% %DOWNSTREAM_REMOTE_ADDRESS% ",
    "%REQUESTED_SERVER_NAME% %ROUTE_NAME%\n"
);

/// Istio's default JSON object.
const JSON: [(&str, &str); 24] = [
    ("start_time", "%START_TIME%"),
    ("method", "%REQ(:METHOD)%"),
    ("path", "%REQ(X-ENVOY-ORIGINAL-PATH?:PATH)%"),
    ("protocol", "%PROTOCOL%"),
    ("response_code", "%RESPONSE_CODE%"),
    ("response_flags", "%RESPONSE_FLAGS%"),
    ("response_code_details", "%RESPONSE_CODE_DETAILS%"),
    ("connection_termination_details", "%CONNECTION_TERMINATION_DETAILS%"),
    ("upstream_transport_failure_reason", "%UPSTREAM_TRANSPORT_FAILURE_REASON%"),
    ("bytes_received", "%BYTES_RECEIVED%"),
    ("bytes_sent", "%BYTES_SENT%"),
    ("duration", "%DURATION%"),
    ("upstream_service_time", "%RESP(X-ENVOY-UPSTREAM-SERVICE-TIME)%"),
    ("x_forwarded_for", "%REQ(X-FORWARDED-FOR)%"),
    ("user_agent", "%REQ(USER-AGENT)%"),
    ("request_id", "%REQ(X-REQUEST-ID)%"),
    ("authority", "%REQ(:AUTHORITY)%"),
    ("upstream_host", "%UPSTREAM_HOST%"),
    ("upstream_cluster", "%UPSTREAM_CLUSTER_RAW%"),
    ("upstream_local_address", "%UPSTREAM_LOCAL_ADDRESS%"),
    ("downstream_local_address", "%DOWNSTREAM_LOCAL_ADDRESS%"),
    ("downstream_remote_address", "%DOWNSTREAM_REMOTE_ADDRESS%"),
    ("requested_server_name", "%REQUESTED_SERVER_NAME%"),
    ("route_name", "%ROUTE_NAME%"),
];

/// The loggers of a connection manager or TCP proxy.
pub(crate) fn loggers(inputs: &[AccessLogInput]) -> Vec<AccessLog> {
    inputs.iter().map(|input| logger(input, None)).collect()
}

/// The loggers of a listener: only for connections that no chain claims (flag `NR`), which nothing
/// else would log.
pub(crate) fn listener_loggers(inputs: &[AccessLogInput]) -> Vec<AccessLog> {
    let unclaimed = AccessLogFilter {
        filter_specifier: Some(FilterSpecifier::ResponseFlagFilter(ResponseFlagFilter {
            flags: vec!["NR".to_owned()],
        })),
    };
    inputs.iter().map(|input| logger(input, Some(unclaimed.clone()))).collect()
}

fn logger(input: &AccessLogInput, filter: Option<AccessLogFilter>) -> AccessLog {
    let config = if input.json { json(input) } else { text(input) };
    AccessLog {
        name: "envoy.access_loggers.file".to_owned(),
        filter,
        config_type: Some(access_log::ConfigType::TypedConfig(config)),
    }
}

fn text(input: &AccessLogInput) -> Any {
    let line = input.format.clone().unwrap_or_else(|| TEXT.to_owned());
    pack(&FileAccessLog {
        path: input.path.clone(),
        access_log_format: Some(AccessLogFormat::LogFormat(SubstitutionFormatString {
            format: Some(Format::TextFormatSource(wrap::inline(line))),
            ..SubstitutionFormatString::default()
        })),
    })
}

fn json(input: &AccessLogInput) -> Any {
    let default = || JSON.iter().map(|(k, v)| ((*k).into(), (*v).into())).collect();
    let fields: BTreeMap<String, String> = input
        .format
        .as_deref()
        .and_then(|format| serde_json::from_str(format).ok())
        .unwrap_or_else(default);
    let fields = fields.into_iter().map(|(key, value)| (key, SortedValue { text: value }));
    let config = SortedFileAccessLog {
        path: input.path.clone(),
        log_format: Some(SortedFormat {
            json_format: Some(SortedStruct { fields: fields.collect() }),
        }),
    };
    Any { type_url: type_url::<FileAccessLog>(), value: config.encode_to_vec() }
}

// The generated `Struct` holds a hash map, whose order changes from run to run; equal inputs must
// give equal bytes. These mirror the few messages on the way to it, with the same field numbers.

#[derive(Clone, PartialEq, Message)]
struct SortedFileAccessLog {
    #[prost(string, tag = "1")]
    path: String,
    #[prost(message, optional, tag = "5")]
    log_format: Option<SortedFormat>,
}

#[derive(Clone, PartialEq, Message)]
struct SortedFormat {
    #[prost(message, optional, tag = "2")]
    json_format: Option<SortedStruct>,
}

#[derive(Clone, PartialEq, Message)]
struct SortedStruct {
    #[prost(btree_map = "string, message", tag = "1")]
    fields: BTreeMap<String, SortedValue>,
}

#[derive(Clone, PartialEq, Message)]
struct SortedValue {
    #[prost(string, tag = "3")]
    text: String,
}

#[cfg(test)]
mod tests {
    use super::*;
    use sluis_envoy::unpack;

    #[test]
    fn the_sorted_messages_are_read_as_envoys_own() {
        let input = AccessLogInput { path: "/dev/stdout".into(), format: None, json: true };
        let log: FileAccessLog = unpack(&json(&input)).unwrap();
        assert_eq!(log.path, "/dev/stdout");
        let Some(AccessLogFormat::LogFormat(format)) = log.access_log_format else { panic!() };
        let Some(Format::JsonFormat(fields)) = format.format else { panic!() };
        assert_eq!(fields.fields.len(), JSON.len());
    }
}
