//! Reads `extensionProviders` and `defaultProviders` of the mesh configuration.

use serde_json::Value as Json;
use sluis_nouns::{is_dns_label, is_dns_name};

use super::forms::{checked, read_fields};
use crate::kinds::mesh_policy::DefaultProviders;
use crate::kinds::provider::{
    ExtAuthz, ExtensionProvider, FileAccessLog, LogFormat, LogService, ProviderAddress,
    ProviderKind, RequestBody, TraceService,
};
use crate::value::{Fields, OpenDuration, Value};

read_fields! {
    ExtensionProvider => provider,
    DefaultProviders => default_providers,
    ExtAuthz => ext_authz,
    RequestBody => request_body,
    FileAccessLog => file_access_log,
    LogFormat => log_format,
    LogService => log_service,
    OtelTracing => otel_tracing,
    OtelHttp => otel_http,
    Zipkin => zipkin,
    Nothing => nothing,
    Unread => unread,
}

/// Istio's kinds of providers that cannot be used here.
const OTHERS: [&str; 6] =
    ["lightstep", "datadog", "stackdriver", "opencensus", "skywalking", "sds"];

fn provider(fields: &mut Fields<'_, '_>) -> Option<ExtensionProvider> {
    let name: Option<String> = fields.req("name");
    if name.as_deref() == Some("") {
        fields.fault_at("name", "a name must not be empty");
    }
    let kinds = [
        fields.opt("envoyExtAuthzHttp").map(ProviderKind::ExtAuthzHttp),
        fields.opt("envoyExtAuthzGrpc").map(ProviderKind::ExtAuthzGrpc),
        fields.opt("envoyFileAccessLog").map(ProviderKind::FileAccessLog),
        fields.opt("prometheus").map(|Nothing| ProviderKind::Prometheus),
        fields.opt("opentelemetry").map(|OtelTracing(one)| ProviderKind::OpenTelemetry(one)),
        fields.opt("zipkin").map(|Zipkin(one)| ProviderKind::Zipkin(one)),
        fields.opt("envoyHttpAls").map(ProviderKind::HttpAls),
        fields.opt("envoyTcpAls").map(ProviderKind::TcpAls),
        fields.opt("envoyOtelAls").map(ProviderKind::OtelAls),
    ];
    let others = OTHERS.map(|kind| fields.opt(kind).map(|Unread| ProviderKind::Other(kind)));
    let mut kinds = kinds.into_iter().chain(others).flatten();
    let kind = kinds.next();
    if kinds.next().is_some() {
        fields.value().fault::<()>("a provider is of one kind");
    }
    if kind.is_none() {
        fields.value().fault::<()>("a provider has a kind, such as envoyExtAuthzGrpc");
    }
    Some(ExtensionProvider { name: name?, kind: kind? })
}

fn address(fields: &mut Fields<'_, '_>) -> Option<ProviderAddress> {
    let service = fields.get("service").and_then(|value| checked(&value, service));
    if !fields.has("service") {
        fields.missing("service");
    }
    let port = fields.req("port");
    Some(ProviderAddress { service: service?, port: port? })
}

fn service(text: &str) -> Result<String, String> {
    let host = |host: &str| is_dns_name(host) || host.parse::<std::net::IpAddr>().is_ok();
    let fits = match text.split_once('/') {
        Some((namespace, name)) => is_dns_label(namespace) && host(name),
        None => host(text),
    };
    if !fits {
        return Err(format!("{text:?} is neither a host nor namespace/host"));
    }
    Ok(text.to_owned())
}

fn ext_authz(fields: &mut Fields<'_, '_>) -> Option<ExtAuthz> {
    let address = address(fields);
    let status = fields.get("statusOnError").and_then(|value| {
        checked(&value, |text| match text.parse::<u16>() {
            Ok(code) if (100..=599).contains(&code) => Ok(code),
            _ => Err(format!("{text:?} is not a status code")),
        })
    });
    let prefix = fields.get("pathPrefix").and_then(|value| {
        checked(&value, |text| match text.starts_with('/') || text.is_empty() {
            true => Ok(text.to_owned()),
            false => Err(format!("{text:?} must begin with a slash")),
        })
    });
    let mut request_headers: Vec<String> = fields.or_default("includeRequestHeadersInCheck");
    request_headers.extend(fields.or_default::<Vec<String>>("includeHeadersInCheck"));
    let settings = ExtAuthz {
        address: ProviderAddress::default(),
        timeout: fields.opt("timeout").map(|OpenDuration(timeout)| timeout),
        fail_open: fields.or_default("failOpen"),
        clear_route_cache: fields.or_default("clearRouteCache"),
        status_on_error: status,
        request_body: fields.opt("includeRequestBodyInCheck"),
        path_prefix: prefix.filter(|prefix| !prefix.is_empty()),
        request_headers,
        additional_headers: fields.or_default("includeAdditionalHeadersInCheck"),
        headers_to_upstream_on_allow: fields.or_default("headersToUpstreamOnAllow"),
        headers_to_downstream_on_deny: fields.or_default("headersToDownstreamOnDeny"),
        headers_to_downstream_on_allow: fields.or_default("headersToDownstreamOnAllow"),
    };
    Some(ExtAuthz { address: address?, ..settings })
}

fn request_body(fields: &mut Fields<'_, '_>) -> Option<RequestBody> {
    Some(RequestBody {
        max_bytes: fields.or_default("maxRequestBytes"),
        allow_partial: fields.or_default("allowPartialMessage"),
        pack_as_bytes: fields.or_default("packAsBytes"),
    })
}

fn file_access_log(fields: &mut Fields<'_, '_>) -> Option<FileAccessLog> {
    Some(FileAccessLog {
        path: fields.or_default("path"),
        format: fields.opt("logFormat"),
        omit_empty_values: fields.or_default("omitEmptyValues"),
    })
}

fn log_format(fields: &mut Fields<'_, '_>) -> Option<LogFormat> {
    let (text, labels) = (fields.opt("text"), fields.opt::<Json>("labels"));
    Some(LogFormat { text, labels })
}

fn log_service(fields: &mut Fields<'_, '_>) -> Option<LogService> {
    let address = address(fields);
    let service = LogService {
        address: ProviderAddress::default(),
        log_name: fields.opt("logName"),
        format: fields.opt("logFormat"),
        request_headers: fields.or_default("additionalRequestHeadersToLog"),
        response_headers: fields.or_default("additionalResponseHeadersToLog"),
        response_trailers: fields.or_default("additionalResponseTrailersToLog"),
        filter_state: fields.or_default("filterStateObjectsToLog"),
    };
    Some(LogService { address: address?, ..service })
}

struct OtelTracing(TraceService);

fn otel_tracing(fields: &mut Fields<'_, '_>) -> Option<OtelTracing> {
    fields.at_most_one(&["http", "grpc"]);
    let address = address(fields);
    let http: Option<OtelHttp> = fields.opt("http");
    fields.not_carried_out(&[
        "grpc",
        "resourceDetectors",
        "serviceAttributeEnrichment",
        "dynatraceSampler",
    ]);
    let max_tag_length = fields.opt("maxTagLength");
    let (is_http, path) = (http.is_some(), http.and_then(|OtelHttp(path)| path));
    Some(OtelTracing(TraceService { address: address?, max_tag_length, path, is_http }))
}

struct OtelHttp(Option<String>);

fn otel_http(fields: &mut Fields<'_, '_>) -> Option<OtelHttp> {
    fields.not_carried_out(&["timeout", "headers"]);
    Some(OtelHttp(fields.opt("path")))
}

struct Zipkin(TraceService);

fn zipkin(fields: &mut Fields<'_, '_>) -> Option<Zipkin> {
    let address = address(fields);
    fields.not_carried_out(&["enable64bitTraceId", "traceContextOption", "timeout", "headers"]);
    let (max_tag_length, path) = (fields.opt("maxTagLength"), fields.opt("path"));
    Some(Zipkin(TraceService { address: address?, max_tag_length, path, is_http: true }))
}

struct Nothing;

fn nothing(_: &mut Fields<'_, '_>) -> Option<Nothing> {
    Some(Nothing)
}

/// The fields of a provider that cannot be used.
struct Unread;

fn unread(fields: &mut Fields<'_, '_>) -> Option<Unread> {
    fields.ignore_rest();
    Some(Unread)
}

fn default_providers(fields: &mut Fields<'_, '_>) -> Option<DefaultProviders> {
    fields.not_carried_out(&["tracing", "metrics"]);
    let (tracing, metrics) = (fields.or_default("tracing"), fields.or_default("metrics"));
    Some(DefaultProviders { tracing, metrics, access_logging: fields.or_default("accessLogging") })
}

/// Notes providers with the name of another, and those that no policy can name.
pub(super) fn check_providers(fields: &mut Fields<'_, '_>, providers: &[ExtensionProvider]) {
    let items = fields.get("extensionProviders").and_then(|value| value.items());
    let mut seen = std::collections::BTreeSet::new();
    for (provider, item) in providers.iter().zip(items.unwrap_or_default()) {
        check_provider(&item, provider, seen.insert(provider.name.as_str()));
    }
}

fn check_provider(item: &Value<'_>, provider: &ExtensionProvider, is_new: bool) {
    if !is_new {
        item.fault::<()>(format!("the provider {:?} is there twice", provider.name));
    }
    if let ProviderKind::Other(kind) = provider.kind {
        item.warn(format!("{kind} cannot be used here: what names this provider is refused"));
    }
}
