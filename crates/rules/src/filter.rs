//! HTTP filters as compiled: what each does, and what routes may change of it.
//!
//! Start at [`FilterOverride`] for what a route may say, and `HttpFilterKind` for the filters.

use std::{sync::Arc, time::Duration};

use crate::{
    AuthzCheck, Fraction, HeaderEdit, HeaderMatch, MetaFields, RbacFilter, Source, StringMatcher,
};

/// What a route, virtual host or table says of one HTTP filter, by the filter's name.
#[derive(Clone, Debug, PartialEq)]
pub struct FilterOverride {
    /// The filter's name.
    pub name: Arc<str>,
    /// What is said of it.
    pub setting: FilterSetting,
}

/// What is said of a filter. Anything but `Disabled` also switches on a filter that is off.
#[derive(Clone, Debug, PartialEq)]
pub enum FilterSetting {
    /// It is off.
    Disabled,
    /// It is on, as configured.
    Enabled,
    /// CORS.
    Cors(Arc<CorsPolicy>),
    /// Injected faults.
    Fault(Arc<FaultFilter>),
    /// A rate limit of its own.
    RateLimit(Arc<LocalRateLimit>),
    /// Header mutations, besides the filter's own.
    Mutation(Arc<MutationFilter>),
    /// Other policies of who may do what.
    Rbac(Arc<RbacFilter>),
    /// What an authorization service is told, and how much of the body.
    Authz(Arc<AuthzCheck>),
    /// The requirement of this name, of a filter for tokens.
    Jwt(Arc<str>),
    /// Which script runs, and what it is told.
    Lua(Arc<LuaRoute>),
}

/// What a route says of a Lua filter.
#[derive(Clone, Debug, PartialEq)]
pub struct LuaRoute {
    /// The script.
    pub script: LuaScript,
    /// What the script is told; `None` leaves it to the filter.
    pub context: Option<Arc<MetaFields>>,
}

/// Which script of a Lua filter runs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LuaScript {
    /// The filter's own.
    Default,
    /// The filter's script of this name.
    Named(Arc<str>),
    /// A script of the route's own.
    Own {
        /// The script.
        source: Source,
        /// Where `require` looks besides the proxy's own directory.
        package_paths: Vec<Arc<str>>,
    },
}

/// Which origins a browser may let read responses (Envoy's CORS filter). What is absent is taken
/// from the next less specific policy.
#[derive(Clone, Debug, PartialEq)]
pub struct CorsPolicy {
    /// The origins that are allowed.
    pub origins: Vec<StringMatcher>,
    /// `access-control-allow-methods`; empty is absent, `*` what was asked for.
    pub methods: Arc<str>,
    /// `access-control-allow-headers`; empty is absent, `*` what was asked for.
    pub headers: Arc<str>,
    /// `access-control-expose-headers`; empty is absent.
    pub expose: Arc<str>,
    /// `access-control-max-age`; empty is absent.
    pub max_age: Arc<str>,
    /// Whether credentials are allowed.
    pub credentials: Option<bool>,
    /// Whether requests from public to private networks are allowed.
    pub private_network: Option<bool>,
    /// Whether a preflight of an origin that is not allowed is passed on. Default true.
    pub forwards_unmatched: Option<bool>,
    /// The requests that the policy concerns.
    pub enabled: Fraction,
}

/// Faults to inject (Envoy's fault filter).
#[derive(Clone, Debug, Default, PartialEq)]
pub struct FaultFilter {
    /// Time to wait before the request goes on.
    pub delay: Option<(FaultDelay, Fraction)>,
    /// The answer in the request's place.
    pub abort: Option<(FaultAbort, Fraction)>,
    /// The body of that answer.
    pub abort_body: Option<Arc<str>>,
    /// Only requests like this; all must match.
    pub headers: Vec<HeaderMatch>,
    /// Only requests to this cluster.
    pub cluster: Option<Arc<str>>,
    /// Only requests from these nodes (`x-envoy-downstream-service-node`); empty is any.
    pub nodes: Vec<Arc<str>>,
    /// Most requests that suffer a fault at a time, on each worker.
    pub active_max: Option<u32>,
}

/// How long to wait.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FaultDelay {
    /// So long.
    Fixed(Duration),
    /// As the request's `x-envoy-fault-delay-request` says.
    Header,
}

/// What to answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FaultAbort {
    /// This status.
    Http(u16),
    /// This gRPC status (with HTTP status 200).
    Grpc(u32),
    /// As `x-envoy-fault-abort-request` or `x-envoy-fault-abort-grpc-request` says.
    Header,
}

/// A rate limit of this proxy alone (Envoy's local rate limit filter).
///
/// The bucket is the proxy's: all workers take from one.
#[derive(Clone, Debug, PartialEq)]
pub struct LocalRateLimit {
    /// The status of requests that are turned away. Default 429.
    pub status: u16,
    /// The bucket; `None` limits nothing.
    pub bucket: Option<TokenBucket>,
    /// The requests that are counted. Default none.
    pub enabled: Fraction,
    /// Of those the requests that are turned away when the bucket is empty. Default none.
    pub enforced: Fraction,
    /// Added to the answer of a request that is turned away.
    pub response_set: Vec<HeaderEdit>,
    /// Added to a request that would have been turned away.
    pub request_set: Vec<HeaderEdit>,
    /// Whether each connection has a bucket of its own.
    pub per_connection: bool,
    /// Whether responses carry `x-ratelimit-*`.
    pub says_state: bool,
    /// Whether a gRPC client is told `RESOURCE_EXHAUSTED` rather than `UNAVAILABLE`.
    pub is_resource_exhausted: bool,
}

/// Tokens that come back with time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct TokenBucket {
    /// Most tokens, and how many there are at first.
    pub tokens_max: u32,
    /// How many come back at a time. Default 1.
    pub per_fill: u32,
    /// How often.
    pub fill_interval: Duration,
}

/// Header changes of Envoy's header mutation filter.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct MutationFilter {
    /// To the request, in order.
    pub request: Vec<MutationStep>,
    /// To the response, in order.
    pub response: Vec<MutationStep>,
    /// Whether the route's mutations come after the table's. Default false. The filter's own
    /// always come first.
    pub most_specific_wins: bool,
}

/// One change.
#[derive(Clone, Debug, PartialEq)]
pub enum MutationStep {
    /// Removes a header.
    Remove(Arc<str>),
    /// Removes the headers whose name matches.
    RemoveMatching(StringMatcher),
    /// Sets or adds one.
    Set(HeaderEdit),
}

/// Answers health checks of load balancers in the origin's place.
#[derive(Clone, Debug, PartialEq)]
pub struct HealthCheckFilter {
    /// Which requests are health checks; all must match.
    pub headers: Vec<HeaderMatch>,
}
