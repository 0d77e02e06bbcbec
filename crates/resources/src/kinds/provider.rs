//! `extensionProviders` of the mesh configuration: services that other objects name.

use std::collections::BTreeMap;
use std::time::Duration;

use serde_json::Value;

/// One of `extensionProviders`. Of no effect until a policy names it.
#[derive(Clone, Debug, PartialEq)]
pub struct ExtensionProvider {
    /// `name`, unique.
    pub name: String,
    /// What it is.
    pub kind: ProviderKind,
}

/// What a provider does.
#[derive(Clone, Debug, PartialEq)]
pub enum ProviderKind {
    /// `envoyExtAuthzHttp`: decides about requests, asked over HTTP.
    ExtAuthzHttp(ExtAuthz),
    /// `envoyExtAuthzGrpc`: decides about requests and connections, asked over gRPC.
    ExtAuthzGrpc(ExtAuthz),
    /// `envoyFileAccessLog`: a log in a file.
    FileAccessLog(FileAccessLog),
    /// `prometheus`: metrics to be scraped.
    Prometheus,
    /// `opentelemetry`: traces over OTLP.
    OpenTelemetry(TraceService),
    /// `zipkin`: traces in Zipkin's format.
    Zipkin(TraceService),
    /// `envoyHttpAls`: a log over gRPC, of requests.
    HttpAls(LogService),
    /// `envoyTcpAls`: a log over gRPC, of connections.
    TcpAls(LogService),
    /// `envoyOtelAls`: a log over OTLP.
    OtelAls(LogService),
    /// Another of Istio's kinds, by its name in the configuration: it cannot be used here.
    Other(&'static str),
}

/// Where a provider is reached.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct ProviderAddress {
    /// `service`: a host of the registry, as `host` or `namespace/host`.
    pub service: String,
    /// `port`.
    pub port: u16,
}

/// `envoyExtAuthzHttp` and `envoyExtAuthzGrpc`; fields of the first only are empty in the second.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct ExtAuthz {
    /// `service` and `port`.
    pub address: ProviderAddress,
    /// `timeout`; `None` means 600 s.
    pub timeout: Option<Duration>,
    /// `failOpen`: requests pass when the provider cannot be asked.
    pub fail_open: bool,
    /// `clearRouteCache`.
    pub clear_route_cache: bool,
    /// `statusOnError`; `None` means 403.
    pub status_on_error: Option<u16>,
    /// `includeRequestBodyInCheck`.
    pub request_body: Option<RequestBody>,
    /// `pathPrefix` before the request's path.
    pub path_prefix: Option<String>,
    /// `includeRequestHeadersInCheck`, and the old `includeHeadersInCheck`.
    pub request_headers: Vec<String>,
    /// `includeAdditionalHeadersInCheck`.
    pub additional_headers: BTreeMap<String, String>,
    /// `headersToUpstreamOnAllow`.
    pub headers_to_upstream_on_allow: Vec<String>,
    /// `headersToDownstreamOnDeny`.
    pub headers_to_downstream_on_deny: Vec<String>,
    /// `headersToDownstreamOnAllow`.
    pub headers_to_downstream_on_allow: Vec<String>,
}

/// `includeRequestBodyInCheck`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct RequestBody {
    /// `maxRequestBytes`.
    pub max_bytes: u32,
    /// `allowPartialMessage`.
    pub allow_partial: bool,
    /// `packAsBytes`.
    pub pack_as_bytes: bool,
}

/// `envoyFileAccessLog`.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct FileAccessLog {
    /// `path`; empty means `/dev/stdout`.
    pub path: String,
    /// `logFormat`; `None` means Istio's.
    pub format: Option<LogFormat>,
    /// `omitEmptyValues`.
    pub omit_empty_values: bool,
}

/// `logFormat`.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct LogFormat {
    /// `text`.
    pub text: Option<String>,
    /// `labels`: a JSON object whose texts are formats.
    pub labels: Option<Value>,
}

/// `envoyHttpAls`, `envoyTcpAls` and `envoyOtelAls`.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct LogService {
    /// `service` and `port`.
    pub address: ProviderAddress,
    /// `logName`.
    pub log_name: Option<String>,
    /// `logFormat`, of OTLP.
    pub format: Option<LogFormat>,
    /// `additionalRequestHeadersToLog`.
    pub request_headers: Vec<String>,
    /// `additionalResponseHeadersToLog`.
    pub response_headers: Vec<String>,
    /// `additionalResponseTrailersToLog`.
    pub response_trailers: Vec<String>,
    /// `filterStateObjectsToLog`.
    pub filter_state: Vec<String>,
}

/// `opentelemetry` and `zipkin`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TraceService {
    /// `service` and `port`.
    pub address: ProviderAddress,
    /// `maxTagLength`; `None` means 256.
    pub max_tag_length: Option<u32>,
    /// `path`, of Zipkin and of OTLP over HTTP (`http.path`).
    pub path: Option<String>,
    /// Whether OTLP goes over HTTP (`http` is written), and not over gRPC.
    pub is_http: bool,
}
