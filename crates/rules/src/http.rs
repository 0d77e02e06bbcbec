//! How HTTP is served on a connection: limits, filters, logs, and which routes apply.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use crate::{
    AccessLog, Cidr, ExtAuthz, FaultFilter, HealthCheckFilter, JwtFilter, LocalRateLimit,
    MetaFields, MutationFilter, RbacFilter, RouteTable,
};

/// What serves HTTP on a connection (Envoy's HTTP connection manager).
#[derive(Clone, Debug, PartialEq)]
pub struct HttpManager {
    /// The prefix of its metrics.
    pub stat_prefix: Arc<str>,
    /// The HTTP versions to accept.
    pub codec: Codec,
    /// Where the routes are.
    pub routes: Routes,
    /// The filters in order; the last is always the router.
    pub filters: Vec<HttpFilter>,
    /// One line per request goes to each.
    pub access_logs: Vec<AccessLog>,
    /// The `server` header of responses. Default `envoy`.
    pub server_name: Arc<str>,
    /// What happens to the `server` header.
    pub server_header: ServerHeader,
    /// The `via` header to append, on requests and responses.
    pub via: Option<Arc<str>>,
    /// Whether the connection's peer is the client: `x-forwarded-for` is then appended to and
    /// `x-envoy-*` request headers from outside are removed.
    pub use_remote_address: bool,
    /// How many proxies before this one are trusted in `x-forwarded-for`.
    pub xff_trusted_hops: u32,
    /// Whether `x-forwarded-for` is left alone.
    pub skip_xff_append: bool,
    /// Whether `x-forwarded-port` is set.
    pub append_x_forwarded_port: bool,
    /// Addresses that count as internal; `None` is Envoy's default (none but RFC 1918 peers).
    pub internal_addresses: Option<Vec<Cidr>>,
    /// Whether a request without `x-request-id` gets one. Default true.
    pub generate_request_id: bool,
    /// Whether an `x-request-id` from outside is kept.
    pub preserve_external_request_id: bool,
    /// Whether responses carry the `x-request-id`.
    pub request_id_in_response: bool,
    /// What happens to `x-forwarded-client-cert`.
    pub client_cert: ForwardClientCert,
    /// How paths are normalised before matching and forwarding.
    pub path: PathOptions,
    /// How the host is normalised before matching and forwarding.
    pub host: HostOptions,
    /// The HTTP/1.1 codec's options.
    pub http1: Http1Options,
    /// The HTTP/2 codec's options.
    pub http2: Http2Options,
    /// Limits common to all versions.
    pub http: HttpOptions,
    /// Most bytes of a request head. Default 60 KiB.
    pub max_request_headers_bytes: u32,
    /// Longest silence on a stream. Default 5 min; `None` has no limit.
    pub stream_idle_timeout: Option<Duration>,
    /// Longest time for a whole request to arrive. Default none.
    pub request_timeout: Option<Duration>,
    /// Longest time for a request head to arrive. Default none.
    pub request_headers_timeout: Option<Duration>,
    /// How long a draining connection still takes requests. Default 5 s.
    pub drain_timeout: Duration,
    /// How long a connection is kept after a final error response. Default 1 s.
    pub delayed_close_timeout: Duration,
    /// Upgrades that are allowed (lower case, as `websocket`, `connect`), with their default.
    pub upgrades: Vec<Upgrade>,
    /// Whether `Expect: 100-continue` is passed on rather than answered here.
    pub proxy_100_continue: bool,
}

/// An upgrade type and whether it is allowed where a route says nothing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Upgrade {
    /// The type in lower case.
    pub kind: Arc<str>,
    /// Whether it is allowed.
    pub enabled: bool,
}

/// Where an HTTP manager's routes are.
#[derive(Clone, Debug, PartialEq)]
pub enum Routes {
    /// In the runtime, under this name (RDS). Until it arrives, requests are answered 404.
    Named(Arc<str>),
    /// In the listener itself.
    Inline(Arc<RouteTable>),
}

/// The HTTP versions that a listener accepts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Codec {
    /// By ALPN, else by the first bytes.
    Auto,
    /// HTTP/1.0 (if allowed) and HTTP/1.1.
    Http1,
    /// HTTP/2.
    Http2,
}

/// One HTTP filter.
#[derive(Clone, Debug, PartialEq)]
pub struct HttpFilter {
    /// The name by which routes can configure it.
    pub name: Arc<str>,
    /// Whether it is off where a route does not switch it on.
    pub disabled: bool,
    /// What it does.
    pub kind: HttpFilterKind,
}

/// What an HTTP filter does.
#[derive(Clone, Debug, PartialEq)]
pub enum HttpFilterKind {
    /// Runs a script.
    Lua(Arc<LuaFilter>),
    /// Lets browsers read responses across origins, by the policies of routes.
    Cors,
    /// Injects faults.
    Fault(Arc<FaultFilter>),
    /// Turns requests away when there are too many.
    RateLimit(Arc<LocalRateLimit>),
    /// Changes headers.
    Mutation(Arc<MutationFilter>),
    /// Decides who may do what.
    Rbac(Arc<RbacFilter>),
    /// Answers health checks.
    HealthCheck(Arc<HealthCheckFilter>),
    /// Verifies tokens of end users.
    Jwt(Arc<JwtFilter>),
    /// Offers endpoints other protocols in TLS than the cluster does (Istio's ALPN filter).
    Alpn(Arc<AlpnOverride>),
    /// Asks a service whether requests may go on.
    Authz(Arc<ExtAuthz>),
    /// Sends the request to where its route says.
    Router(RouterOptions),
}

/// What is offered in TLS towards an endpoint, by the version of HTTP spoken there. Empty leaves it
/// to the cluster, as does a cluster whose metadata say so.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct AlpnOverride {
    /// For HTTP/1.1.
    pub http1: Vec<Arc<str>>,
    /// For HTTP/2.
    pub http2: Vec<Arc<str>>,
}

/// A Lua filter.
#[derive(Clone, Debug, PartialEq)]
pub struct LuaFilter {
    /// The script of requests whose route names none; `None`: they have none.
    pub source: Option<Source>,
    /// Scripts that routes can name.
    pub sources: BTreeMap<Arc<str>, Source>,
    /// What scripts are told where the route does not say.
    pub context: Option<Arc<MetaFields>>,
    /// Where `require` looks besides the proxy's own directory (`?` stands for the module).
    pub package_paths: Vec<Arc<str>>,
    /// Whether changed request headers make the route be chosen anew. Default true.
    pub clear_route_cache: bool,
}

/// Where a text comes from. Compiling reads nothing; who runs it does.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Source {
    /// The text itself.
    Text(Arc<str>),
    /// A file of this path.
    File(Arc<str>),
    /// An environment variable of the proxy.
    Environment(Arc<str>),
}

/// The router's options.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RouterOptions {
    /// Whether `x-envoy-*` headers are not added to requests and responses.
    pub suppress_envoy_headers: bool,
    /// Whether a timeout that a proxy before us has set is kept as it is.
    pub respects_expected_timeout: bool,
}

/// What happens to a response's `server` header.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ServerHeader {
    /// It is overwritten.
    Overwrite,
    /// It is set when there is none.
    AppendIfAbsent,
    /// It is left alone.
    PassThrough,
}

/// What happens to `x-forwarded-client-cert`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ForwardClientCert {
    /// The rule.
    pub rule: ClientCertRule,
    /// What an element of ours holds besides `By` and `Hash`.
    pub details: ClientCertDetails,
}

/// How `x-forwarded-client-cert` is treated. All but the last forward only over mutual TLS.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ClientCertRule {
    /// Removed.
    Sanitize,
    /// Kept as it is over mutual TLS, else removed.
    ForwardOnly,
    /// Ours is appended over mutual TLS, else removed.
    AppendForward,
    /// Ours takes its place over mutual TLS, else removed.
    SanitizeSet,
    /// Always kept as it is.
    AlwaysForwardOnly,
}

/// Parts of an `x-forwarded-client-cert` element.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ClientCertDetails {
    /// `Subject`.
    pub subject: bool,
    /// `Cert`: the URL-encoded PEM certificate.
    pub cert: bool,
    /// `Chain`.
    pub chain: bool,
    /// `DNS`.
    pub dns: bool,
    /// `URI`.
    pub uri: bool,
}

/// How a path is normalised.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PathOptions {
    /// Whether dot segments are resolved and unreserved characters decoded (RFC 3986 §6). A path
    /// that cannot be normalised is answered 400.
    pub normalize: bool,
    /// Whether `//` becomes `/`.
    pub merge_slashes: bool,
    /// What happens to `%2F`, `%2f`, `%5C` and `%5c`.
    pub escaped_slashes: EscapedSlashes,
}

/// What happens to escaped slashes in a path.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum EscapedSlashes {
    /// They are kept.
    Keep,
    /// The request is answered 400.
    Reject,
    /// They are decoded, and the client is redirected there (307).
    Redirect,
    /// They are decoded.
    Decode,
}

/// How a host is normalised.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct HostOptions {
    /// Which ports are stripped.
    pub strip_port: StripPort,
    /// Whether a trailing dot is stripped.
    pub strip_trailing_dot: bool,
}

/// Which ports are stripped from a host.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum StripPort {
    /// None.
    #[default]
    Never,
    /// The listener's own.
    Matching,
    /// Any.
    Any,
}

/// Options of the HTTP/1.1 codec.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Http1Options {
    /// Whether an absolute URL as request target is taken apart. Default true.
    pub allow_absolute_url: bool,
    /// The host of an HTTP/1.0 request without one; `None` refuses HTTP/1.0.
    pub http10: Option<Arc<str>>,
    /// Whether trailers are passed on rather than dropped.
    pub trailers: bool,
}

impl Default for Http1Options {
    fn default() -> Self {
        Self { allow_absolute_url: true, http10: None, trailers: false }
    }
}

/// Options of the HTTP/2 codec, on either side; absent values are the codec's defaults.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Http2Options {
    /// Most streams at once.
    pub max_concurrent_streams: Option<u32>,
    /// Bytes a stream may be ahead.
    pub stream_window: Option<u32>,
    /// Bytes a connection may be ahead.
    pub connection_window: Option<u32>,
    /// Whether extended CONNECT (RFC 8441) is offered.
    pub allow_connect: bool,
    /// How the peer is asked whether it is still there; `None` asks never.
    pub keepalive: Option<Http2Keepalive>,
}

/// Pings on an HTTP/2 connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Http2Keepalive {
    /// Time between pings; `None` sends none of its own.
    pub interval: Option<Duration>,
    /// How much the interval varies, in percent of it. Default 15.
    pub jitter_percent: u8,
    /// How long an answer may take before the connection is closed.
    pub timeout: Duration,
}

/// Limits common to all HTTP versions, on either side.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HttpOptions {
    /// How long a connection without a request is kept. Default 1 h; `None` has no limit.
    pub idle_timeout: Option<Duration>,
    /// How long a connection lives. Default no limit.
    pub max_connection_duration: Option<Duration>,
    /// How long a stream lives. Default no limit.
    pub max_stream_duration: Option<Duration>,
    /// Most headers in a head. Default 100.
    pub max_headers: u32,
    /// Requests after which a connection is closed. Default no limit.
    pub max_requests: Option<u32>,
    /// What happens to headers with an underscore in their name.
    pub underscores: Underscores,
}

impl Default for HttpOptions {
    fn default() -> Self {
        Self {
            idle_timeout: Some(Duration::from_secs(3600)),
            max_connection_duration: None,
            max_stream_duration: None,
            max_headers: 100,
            max_requests: None,
            underscores: Underscores::Allow,
        }
    }
}

/// What happens to headers with an underscore in their name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Underscores {
    /// They are kept.
    Allow,
    /// The request is answered 400.
    Reject,
    /// They are removed.
    Drop,
}
