//! VirtualService: where requests and connections for a host go.

use std::collections::BTreeMap;
use std::time::Duration;

use sluis_nouns::{Cidr, HostPattern, Labels, ObjectName, Percent, SourceRef};

use super::shared::ExportTo;

/// `networking.istio.io` VirtualService.
#[derive(Clone, Debug, PartialEq)]
pub struct VirtualService {
    /// `hosts`; short names are as written. Empty only in the target of a `delegate`.
    pub hosts: Vec<HostPattern>,
    /// `gateways`. Where none is written: `mesh` alone.
    pub gateways: Vec<GatewayRef>,
    /// `exportTo`; empty means the mesh-wide default.
    pub export_to: Vec<ExportTo>,
    /// `http`, first match wins.
    pub http: Vec<HttpRoute>,
    /// `tls`, for TLS that is not terminated; first match wins.
    pub tls: Vec<TlsRoute>,
    /// `tcp`, for opaque bytes; first match wins.
    pub tcp: Vec<TcpRoute>,
}

/// An entry of `gateways`.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum GatewayRef {
    /// `mesh`: all sidecars.
    Mesh,
    /// A Gateway; the namespace is the VirtualService's own where none is written.
    Gateway(ObjectName),
}

/// One of `http`.
#[derive(Clone, Debug, PartialEq)]
pub struct HttpRoute {
    /// Place of the list item.
    pub at: SourceRef,
    /// `name`, for logs.
    pub name: Option<String>,
    /// `match`; any of them is enough, and none written matches all.
    pub matches: Vec<HttpMatch>,
    /// `route`, `redirect`, `directResponse` or `delegate`.
    pub action: HttpAction,
    /// `rewrite`, before forwarding.
    pub rewrite: Option<Rewrite>,
    /// `timeout` for the whole request; `None` and zero mean no limit.
    pub timeout: Option<Duration>,
    /// `retries`; `None` means the mesh-wide default.
    pub retries: Option<Retries>,
    /// `fault`.
    pub fault: Option<FaultInjection>,
    /// `mirror` and `mirrors`.
    pub mirrors: Vec<Mirror>,
    /// `corsPolicy`.
    pub cors: Option<CorsPolicy>,
    /// `headers`.
    pub headers: HeaderChanges,
}

/// What an HTTP route does.
#[derive(Clone, Debug, PartialEq)]
pub enum HttpAction {
    /// `route`: forwards to one of these, by weight. At least one.
    Route(Vec<WeightedDestination>),
    /// `redirect`.
    Redirect(Redirect),
    /// `directResponse`.
    DirectResponse(DirectResponse),
    /// `delegate`: the routes of another VirtualService.
    Delegate(ObjectName),
}

/// One of `http[].match`: all that is written must hold.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct HttpMatch {
    /// Place of the list item.
    pub at: SourceRef,
    /// `name`, for logs.
    pub name: Option<String>,
    /// `uri`: the path.
    pub uri: Option<StringMatch>,
    /// `ignoreUriCase`, for exact and prefix.
    pub ignore_uri_case: bool,
    /// `scheme`.
    pub scheme: Option<StringMatch>,
    /// `method`.
    pub method: Option<StringMatch>,
    /// `authority`.
    pub authority: Option<StringMatch>,
    /// `headers`, names in lower case; `None` asks only for presence.
    pub headers: BTreeMap<String, Option<StringMatch>>,
    /// `withoutHeaders`: none of these may hold.
    pub without_headers: BTreeMap<String, Option<StringMatch>>,
    /// `queryParams`; `None` asks only for presence.
    pub query_params: BTreeMap<String, Option<StringMatch>>,
    /// `port` that was asked for.
    pub port: Option<u16>,
    /// `gateways`; empty means those of the VirtualService.
    pub gateways: Vec<GatewayRef>,
    /// `sourceLabels` of the client's workload; of no effect on gateways.
    pub source_labels: Labels,
    /// `sourceNamespace` of the client's workload.
    pub source_namespace: Option<String>,
    /// `statPrefix`.
    pub stat_prefix: Option<String>,
}

/// How a text is compared. A regex is RE2 and matches the whole text.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum StringMatch {
    /// The whole text, letter case included.
    Exact(String),
    /// The start of the text.
    Prefix(String),
    /// An expression for the whole text.
    Regex(String),
}

/// Where to forward to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Destination {
    /// Place of the section.
    pub at: SourceRef,
    /// `host` in the registry; a short name is as written. Never `*`; a wildcard names the service that has it as its host.
    pub host: HostPattern,
    /// `subset` of a DestinationRule.
    pub subset: Option<String>,
    /// `port.number`; `None` when the service has a single port.
    pub port: Option<u16>,
}

/// One of `http[].route`.
#[derive(Clone, Debug, PartialEq)]
pub struct WeightedDestination {
    /// `destination`.
    pub destination: Destination,
    /// `weight`, relative to the sum; 1 for a lone destination where nothing is written.
    pub weight: u32,
    /// `headers`, on top of those of the route.
    pub headers: HeaderChanges,
}

/// One of `tls[].route` or `tcp[].route`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct L4Destination {
    /// `destination`.
    pub destination: Destination,
    /// `weight`, relative to the sum; 1 for a lone destination where nothing is written.
    pub weight: u32,
}

/// One of `tls`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TlsRoute {
    /// Place of the list item.
    pub at: SourceRef,
    /// `match`; any of them is enough. At least one.
    pub matches: Vec<TlsMatch>,
    /// `route`, by weight. At least one.
    pub route: Vec<L4Destination>,
}

/// One of `tls[].match`: all that is written must hold.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TlsMatch {
    /// Place of the list item.
    pub at: SourceRef,
    /// `sniHosts`, each under one of the VirtualService's hosts. At least one.
    pub sni_hosts: Vec<HostPattern>,
    /// `destinationSubnets`.
    pub destination_subnets: Vec<Cidr>,
    /// `port` that was asked for.
    pub port: Option<u16>,
    /// `gateways`; empty means those of the VirtualService.
    pub gateways: Vec<GatewayRef>,
    /// `sourceLabels` of the client's workload.
    pub source_labels: Labels,
    /// `sourceNamespace` of the client's workload.
    pub source_namespace: Option<String>,
}

/// One of `tcp`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TcpRoute {
    /// Place of the list item.
    pub at: SourceRef,
    /// `match`; any of them is enough, and none written matches all.
    pub matches: Vec<TcpMatch>,
    /// `route`, by weight. At least one.
    pub route: Vec<L4Destination>,
}

/// One of `tcp[].match`: all that is written must hold.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TcpMatch {
    /// Place of the list item.
    pub at: SourceRef,
    /// `destinationSubnets`.
    pub destination_subnets: Vec<Cidr>,
    /// `port` that was asked for.
    pub port: Option<u16>,
    /// `gateways`; empty means those of the VirtualService.
    pub gateways: Vec<GatewayRef>,
    /// `sourceLabels` of the client's workload.
    pub source_labels: Labels,
    /// `sourceNamespace` of the client's workload.
    pub source_namespace: Option<String>,
}

/// `redirect`. What is not written stays as in the request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Redirect {
    /// `uri`: the whole new path.
    pub uri: Option<String>,
    /// `prefixRewrite`: in place of the matched prefix.
    pub prefix_rewrite: Option<String>,
    /// `authority`.
    pub authority: Option<String>,
    /// `scheme`.
    pub scheme: Option<String>,
    /// `port` or `derivePort`.
    pub port: Option<RedirectPort>,
    /// `redirectCode`: 301 (the default), 302, 303, 307 or 308.
    pub code: u16,
}

/// The port of a redirect's answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RedirectPort {
    /// This one.
    Number(u16),
    /// 80 for http, 443 for https.
    ProtocolDefault,
    /// The one that was asked for.
    RequestPort,
}

/// `directResponse`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DirectResponse {
    /// `status`, 100 to 599.
    pub status: u16,
    /// `body`.
    pub body: Option<DirectBody>,
}

/// `directResponse.body`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum DirectBody {
    /// `string`.
    Text(String),
    /// `bytes`, decoded from base64.
    Bytes(Vec<u8>),
}

/// `rewrite`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rewrite {
    /// `uri` or `uriRegexRewrite`.
    pub uri: Option<UriRewrite>,
    /// `authority`.
    pub authority: Option<String>,
}

/// How a path is rewritten.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum UriRewrite {
    /// `uri`: in place of the matched path or prefix.
    Matched(String),
    /// `uriRegexRewrite`.
    Regex {
        /// The expression, RE2.
        pattern: String,
        /// What replaces a match; `\1` is a group.
        replacement: String,
    },
}

/// `retries`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Retries {
    /// `attempts`: how many further tries; 0 turns retries off.
    pub attempts: u32,
    /// `perTryTimeout`; `None` means that of the route.
    pub per_try_timeout: Option<Duration>,
    /// `retryOn`: Envoy's conditions; `None` means the default ones.
    pub retry_on: Option<String>,
    /// `retryRemoteLocalities`.
    pub retry_remote_localities: Option<bool>,
    /// `retryIgnorePreviousHosts`; `None` means yes.
    pub retry_ignore_previous_hosts: Option<bool>,
    /// `backoff` before the first retry; `None` means 25 ms.
    pub backoff: Option<Duration>,
}

/// `fault`: trouble made on purpose.
#[derive(Clone, Debug, PartialEq)]
pub struct FaultInjection {
    /// `delay`.
    pub delay: Option<Delay>,
    /// `abort`.
    pub abort: Option<HttpAbort>,
}

/// `fault.delay`.
#[derive(Clone, Debug, PartialEq)]
pub struct Delay {
    /// How long.
    pub kind: DelayKind,
    /// Which share of the requests.
    pub percentage: Percent,
}

/// How long a delay is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DelayKind {
    /// `fixedDelay`.
    Fixed(Duration),
    /// `exponentialDelay`.
    Exponential(Duration),
}

/// `fault.abort`.
#[derive(Clone, Debug, PartialEq)]
pub struct HttpAbort {
    /// `httpStatus`.
    pub http_status: Option<u16>,
    /// `grpcStatus`, by name or number as written.
    pub grpc_status: Option<String>,
    /// Which share of the requests.
    pub percentage: Percent,
}

/// A copy of requests for which no answer is awaited.
#[derive(Clone, Debug, PartialEq)]
pub struct Mirror {
    /// Where to.
    pub destination: Destination,
    /// Which share of the requests.
    pub percentage: Percent,
}

/// `corsPolicy`.
#[derive(Clone, Debug, PartialEq)]
pub struct CorsPolicy {
    /// `allowOrigins`, and the old `allowOrigin`.
    pub allow_origins: Vec<StringMatch>,
    /// `allowMethods`.
    pub allow_methods: Vec<String>,
    /// `allowHeaders`.
    pub allow_headers: Vec<String>,
    /// `exposeHeaders`.
    pub expose_headers: Vec<String>,
    /// `maxAge`.
    pub max_age: Option<Duration>,
    /// `allowCredentials`.
    pub allow_credentials: Option<bool>,
    /// `unmatchedPreflights`.
    pub unmatched_preflights: UnmatchedPreflights,
}

/// What happens to a preflight that no origin matches.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum UnmatchedPreflights {
    /// It goes to the server. The default.
    #[default]
    Forward,
    /// It is answered without CORS headers.
    Ignore,
}

/// `headers`: changes to a request's and its response's head.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct HeaderChanges {
    /// `request`.
    pub request: HeaderOps,
    /// `response`.
    pub response: HeaderOps,
}

impl HeaderChanges {
    /// Returns whether nothing changes.
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }
}

/// Changes to one head.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct HeaderOps {
    /// `set`: in place of what is there.
    pub set: BTreeMap<String, String>,
    /// `add`: behind what is there.
    pub add: BTreeMap<String, String>,
    /// `remove`.
    pub remove: Vec<String>,
}

/// The names of gRPC's status codes, by number from 0.
pub const GRPC_STATUSES: [&str; 17] = [
    "OK",
    "CANCELLED",
    "UNKNOWN",
    "INVALID_ARGUMENT",
    "DEADLINE_EXCEEDED",
    "NOT_FOUND",
    "ALREADY_EXISTS",
    "PERMISSION_DENIED",
    "RESOURCE_EXHAUSTED",
    "FAILED_PRECONDITION",
    "ABORTED",
    "OUT_OF_RANGE",
    "UNIMPLEMENTED",
    "INTERNAL",
    "UNAVAILABLE",
    "DATA_LOSS",
    "UNAUTHENTICATED",
];
