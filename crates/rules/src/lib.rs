//! What to do with one connection or request: the compiled form of Envoy's configuration.
//!
//! In:    a `ResourceSet` of Envoy messages, and facts about connections and requests.
//! Out:   an immutable [`Runtime`] with its faults; decisions with their reasons.
//! Never: reads a clock, a file, the environment or the network, or draws a random number.
//!
//! Start at [`compile`]; then [`Runtime::listener_for`], [`Listener::chain`],
//! [`RouteTable::route`] and [`Balancer::pick`] are the decisions on a request's way.

mod access_log;
mod address;
mod balance;
mod cluster;
mod compile;
mod credentials;
mod ext_authz;
mod fault;
mod filter;
mod fraction;
mod hash;
mod http;
mod jwt;
mod listener;
mod matcher;
mod metadata;
mod metadata_match;
mod names;
mod rbac;
mod route;
mod runtime;
mod tls;

pub use access_log::{AccessLog, Comparison, JsonFormat, LogFilter, LogFormat, LogSink};
pub use address::{Address, Cidr};
pub use balance::{Balancer, Draw, NoEndpoint, Observed, Turns};
pub use cluster::{
    CircuitLimits, Cluster, Discovery, DnsFamily, DnsOptions, DynamicForward, Endpoint,
    EndpointAddress, Endpoints, Fallback, GrpcProbe, HashFunction, Health, HealthCheck, Hop,
    HttpProbe, HttpProxyHop, Labels, LbPolicy, Limits, Outlier, Probe, ProbeAddress, ProxyProtocol,
    Reach, RetryBudget, Selector, SlowStart, Subsets, TcpKeepalive, TcpProbe, UpstreamProtocol,
};
pub use compile::{Compiled, compile};
pub use credentials::{
    Choice, Credential, Credentials, Denial, Grant, Guard, Injection, Injector, Signature,
    TokenUse, UpstreamFilter, is_same, is_verified,
};
pub use ext_authz::{
    AuthzBody, AuthzCheck, AuthzGrpc, AuthzHttp, AuthzService, ExtAuthz, TcpAuthz,
};
pub use fault::Fault;
pub use filter::{
    CorsPolicy, FaultAbort, FaultDelay, FaultFilter, FilterOverride, FilterSetting,
    HealthCheckFilter, LocalRateLimit, LuaRoute, LuaScript, MutationFilter, MutationStep,
    TokenBucket,
};
pub use fraction::Fraction;
pub use hash::{join as join_hashes, xx64};
pub use http::{
    AlpnOverride, ClientCertDetails, ClientCertRule, Codec, EscapedSlashes, ForwardClientCert,
    HostOptions, Http1Options, Http2Keepalive, Http2Options, HttpFilter, HttpFilterKind,
    HttpManager, HttpOptions, LuaFilter, PathOptions, RouterOptions, Routes, ServerHeader, Source,
    StripPort, Underscores, Upgrade,
};
pub use jwt::{ClaimHeader, JwtFilter, JwtKeys, JwtProvider, JwtRequirement, JwtRule, RemoteKeys};
pub use listener::{
    ChainReason, ConnectionFacts, Direction, FilterChain, Listener, ListenerFilter,
    ListenerFilterKind, Network, NetworkGuard, NoChain, PortPredicate, TcpProxy, TcpTarget,
    TransportProtocol, Tunnel,
};
pub use matcher::{Case, Pattern, PatternError, StringMatcher, Substitution, Text};
pub use metadata::{MetaFields, MetaValue, Metadata, fields_json};
pub use metadata_match::{MetadataMatch, ValueMatch};
pub use names::Names;
pub use rbac::{NetworkRbac, PeerFacts, Rbac, RbacAction, RbacFacts, RbacFilter, Verdict};
pub use route::{
    Backoff, CookieMatch, DirectResponse, Forward, GrpcTimeout, HashCookie, HashPolicy, HashSource,
    HeaderAction, HeaderEdit, HeaderMatch, HeaderMutations, HeaderText, HeaderValues, HostRewrite,
    Matched, Mirror, MirrorTarget, NoRoute, PathMatch, PathRedirect, PathRewrite, QueryMatch,
    RateLimitedBackoff, Redirect, RequestFacts, RequestHash, ResetFormat, RetryNames, RetryOn,
    RetryPolicy, Route, RouteAction, RouteMatch, RouteTable, RouteUpgrade, Target, TlsRequirement,
    VirtualHost, WeightedCluster, WeightedClusters, hash_of, is_grpc_type,
};
pub use runtime::Runtime;
pub use tls::{
    CipherSuites, DownstreamTls, KeyGroups, SanKind, SanMatcher, SecretName, TlsVersion,
    TlsVersions, UpstreamTls, Validation,
};
