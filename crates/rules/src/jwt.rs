//! The filter for tokens of end users, as compiled (Envoy's `jwt_authn`).
//!
//! Start at [`JwtFilter`]: its rules say which requests need which tokens, its providers how a token
//! is found, verified and told of.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use crate::{RouteMatch, Source, StringMatcher};

/// Which requests need which tokens.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct JwtFilter {
    /// Who gives out tokens, by name.
    pub providers: BTreeMap<Arc<str>, Arc<JwtProvider>>,
    /// What requests need; the first that matches counts, and none needs nothing.
    pub rules: Vec<JwtRule>,
    /// What routes may ask for by name.
    pub requirements: BTreeMap<Arc<str>, JwtRequirement>,
    /// Whether preflights of CORS need nothing.
    pub bypasses_preflights: bool,
    /// Whether a request that is refused is not told why.
    pub strips_answers: bool,
}

/// What the requests of a path need.
#[derive(Clone, Debug, PartialEq)]
pub struct JwtRule {
    /// Which requests.
    pub matches: RouteMatch,
    /// What they need; `None` for nothing.
    pub requirement: Option<JwtRequirement>,
}

/// What a request needs. Names of providers are those of the filter's.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum JwtRequirement {
    /// A token of this provider, for one of these audiences where they are given.
    Provider {
        /// The provider.
        name: Arc<str>,
        /// In place of the provider's own; empty for those.
        audiences: Vec<Arc<str>>,
    },
    /// One of these.
    Any(Vec<Self>),
    /// All of these.
    All(Vec<Self>),
    /// No token, or good ones.
    AllowMissing,
    /// Nothing; tokens are verified and told of where they are good.
    AllowMissingOrFailed,
    /// Nothing.
    Nothing,
}

/// Who gives out tokens.
#[derive(Clone, Debug, PartialEq)]
pub struct JwtProvider {
    /// Its name in the filter.
    pub name: Arc<str>,
    /// What `iss` must be; empty for anything.
    pub issuer: Arc<str>,
    /// What `aud` must have one of; empty for anything.
    pub audiences: Vec<Arc<str>>,
    /// What `sub` must be.
    pub subjects: Option<StringMatcher>,
    /// Whether `exp` must be there.
    pub requires_expiration: bool,
    /// How far off `exp` may be at most; then it must be there too.
    pub lifetime_max: Option<Duration>,
    /// Whether the request goes on with the token.
    pub forwards: bool,
    /// The headers that it is looked for in, by name, with the text before it.
    pub headers: Vec<(Arc<str>, Arc<str>)>,
    /// The query parameters that it is looked for in.
    pub params: Vec<Arc<str>>,
    /// The cookies that it is looked for in.
    pub cookies: Vec<Arc<str>>,
    /// The header that gets the payload, base64url as in the token.
    pub payload_header: Option<Arc<str>>,
    /// Whether that is padded.
    pub pads_payload: bool,
    /// The headers that get claims.
    pub claims: Vec<ClaimHeader>,
    /// The key of the payload in the filter's metadata.
    pub payload_key: Option<Arc<str>>,
    /// The key of the token's header there.
    pub header_key: Option<Arc<str>>,
    /// The key of the reason there, where a token is refused.
    pub failed_key: Option<Arc<str>>,
    /// Claims that are lists in the metadata: texts with spaces between them.
    pub spaced_claims: Vec<Arc<str>>,
    /// How much clocks may differ, in seconds. Default 60.
    pub skew_secs: u64,
    /// How many verified tokens are remembered, and how long one may be in bytes; `None` leaves it
    /// to the proxy.
    pub cache: Option<(usize, usize)>,
    /// Whether the route is chosen anew when claims were told.
    pub clears_route: bool,
    /// Where the keys are.
    pub keys: JwtKeys,
}

/// A header that gets a claim.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClaimHeader {
    /// The header in lower case.
    pub header: Arc<str>,
    /// Names, from the outermost.
    pub path: Vec<Arc<str>>,
}

/// Where a provider's keys are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum JwtKeys {
    /// In the configuration or a file.
    Local(Source),
    /// On a server.
    Remote(Arc<RemoteKeys>),
}

/// Keys on a server.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct RemoteKeys {
    /// The URL as it was written.
    pub uri: Arc<str>,
    /// Its host, with the port where one is written.
    pub host: Arc<str>,
    /// Its path with the query.
    pub path: Arc<str>,
    /// The cluster that is asked.
    pub cluster: Arc<str>,
    /// How long one question may take.
    pub timeout: Duration,
    /// How long keys are used. Default 10 min.
    pub cache_duration: Duration,
    /// How long after a failure the server is asked again. Default 1 s.
    pub refetch_after: Duration,
    /// Further tries of one question.
    pub retries: u32,
    /// The time before the first of them, and the longest.
    pub backoff: (Duration, Duration),
}
