//! Route tables: which requests go where, and what is changed on them.

use std::{sync::Arc, time::Duration};

use sluis_nouns::Percent;

use super::{AuthorizationInput, OutboundPolicy, Target};

/// One route table.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct RouteTable {
    /// Its RDS name.
    pub name: String,
    /// The ports by which users know the listener that it belongs to.
    pub known_ports: Vec<u16>,
    /// The `Gateway`, as `namespace/name`, for gateways.
    pub gateway: Option<String>,
    /// The hosts, in order.
    pub hosts: Vec<VirtualHostInput>,
    /// Whether the port in the Host header tells hosts apart.
    pub is_port_matched: bool,
    /// What happens to requests for other hosts; `None` answers 404.
    pub fallback: Option<OutboundPolicy>,
}

/// The routes of one or more host names.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct VirtualHostInput {
    /// Istio's name for it: `host:port`.
    pub name: String,
    /// The names in the Host header.
    pub domains: Vec<String>,
    /// Whether plain HTTP is redirected to https.
    pub is_tls_required: bool,
    /// The routes, in order.
    pub routes: Vec<RouteInput>,
}

/// One route.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct RouteInput {
    /// The user's name for it, or `default`.
    pub name: String,
    /// Which requests it claims.
    pub matches: RequestMatch,
    /// What is done with them.
    pub action: RouteAction,
    /// Header changes.
    pub headers: HeaderChanges,
    /// The user's resource that asked for it, as Istio's `config` metadata names it.
    pub config: Option<String>,
    /// The name of the operation in traces: `HOST:PORT/PATH`.
    pub operation: String,
    /// The prefix of its statistics, where it has its own.
    pub stat_prefix: Option<String>,
    /// Trouble made on purpose.
    pub fault: Option<FaultInput>,
    /// Which pages of other origins may read the answers.
    pub cors: Option<CorsInput>,
    /// The policies of the guarded host that it leads to.
    pub guard: Option<Arc<AuthorizationInput>>,
}

/// Which requests a route claims. All parts must hold.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct RequestMatch {
    /// The path.
    pub path: PathMatch,
    /// Whether the path is matched without regard to case.
    pub is_case_ignored: bool,
    /// Headers and pseudo-headers.
    pub headers: Vec<HeaderMatch>,
    /// Query parameters.
    pub query: Vec<(String, TextMatch)>,
    /// Claims of a token that has been verified.
    pub claims: Vec<ClaimMatch>,
}

/// How a path is matched.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum PathMatch {
    /// The whole path, without the query.
    Exact(String),
    /// The start of the path.
    Prefix(String),
    /// The start of the path, as whole segments: `/a` is the start of `/a/b`, and not of `/ab`. Never
    /// ends in a slash.
    Segments(String),
    /// The whole path, by an RE2 expression.
    Regex(String),
}

/// How a text is matched.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum TextMatch {
    /// The whole text.
    Exact(String),
    /// The start of the text.
    Prefix(String),
    /// The whole text, by an RE2 expression.
    Regex(String),
    /// Anything, as long as it is there.
    Present,
}

/// How a header is matched.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct HeaderMatch {
    /// The header, or a pseudo-header such as `:method`.
    pub name: String,
    /// What its value must be.
    pub value: TextMatch,
    /// Whether the match is turned round.
    pub is_inverted: bool,
}

/// How a claim is matched: its text, or one of its texts where it is a list.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct ClaimMatch {
    /// Its name, from the outermost.
    pub path: Vec<String>,
    /// What it must be.
    pub value: TextMatch,
    /// Whether the match is turned round.
    pub is_inverted: bool,
}

/// What a route does.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum RouteAction {
    /// Forwards the request.
    Forward(Forward),
    /// Answers with a redirect.
    Redirect(Redirect),
    /// Answers at once.
    Respond {
        /// The status code.
        status: u32,
        /// The body.
        body: Option<Vec<u8>>,
    },
}

/// How a request is forwarded.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Forward {
    /// Where to.
    pub targets: Vec<Target>,
    /// How long the whole answer may take; `None` for no limit.
    pub timeout: Option<Duration>,
    /// When and how often to try again; `None` for never.
    pub retries: Option<Retries>,
    /// A Host header in place of the client's.
    pub host_rewrite: Option<String>,
    /// What replaces the matched prefix, or the whole path of an exact match.
    pub path_rewrite: Option<String>,
    /// An RE2 expression on the path, and its substitution.
    pub regex_rewrite: Option<(String, String)>,
    /// Where copies go.
    pub mirrors: Vec<MirrorInput>,
    /// Whether requests for a target that is not there are answered 500, and not 503.
    pub is_missing_internal: bool,
    /// What a request's hash is made of, for targets that choose an endpoint by hash.
    pub hashes: Vec<HashInput>,
}

/// Where copies of requests go.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct MirrorInput {
    /// The cluster.
    pub cluster: String,
    /// The share of the requests. Never 0.
    pub share: Percent,
}

/// What a request's hash is made of.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum HashInput {
    /// A header.
    Header(String),
    /// A cookie.
    Cookie {
        /// Its name.
        name: String,
        /// Its path, for one that is made.
        path: String,
        /// Its life; with it, one that is missing is made.
        ttl: Option<Duration>,
        /// More attributes, for one that is made.
        attributes: Vec<(String, String)>,
    },
    /// The client's address.
    SourceIp,
    /// A query parameter.
    Query(String),
}

/// Trouble made on purpose.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct FaultInput {
    /// How long requests wait, and the share of them.
    pub delay: Option<(Duration, Percent)>,
    /// What is answered instead, and for which share of the requests.
    pub abort: Option<(AbortStatus, Percent)>,
}

/// How a request is refused on purpose.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum AbortStatus {
    /// With an HTTP status.
    Http(u32),
    /// With a gRPC status.
    Grpc(u32),
}

/// Which pages of other origins may read the answers.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct CorsInput {
    /// The origins.
    pub origins: Vec<TextMatch>,
    /// The methods, joined by commas.
    pub methods: String,
    /// The request headers, joined by commas.
    pub headers: String,
    /// The response headers that pages may read, joined by commas.
    pub exposed: String,
    /// How long an answer to a preflight is remembered, in whole seconds.
    pub max_age: Option<u64>,
    /// Whether credentials may be sent; `None` says nothing of it.
    pub credentials: Option<bool>,
    /// Whether preflights of other origins go on to the server.
    pub is_unmatched_forwarded: bool,
}

/// When and how often to try again.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Retries {
    /// The number of tries after the first.
    pub attempts: u32,
    /// How long one try may take; `None` for as long as the whole.
    pub per_try_timeout: Option<Duration>,
    /// Envoy's conditions, joined by commas.
    pub on: String,
    /// The status codes that `retriable-status-codes` stands for.
    pub status_codes: Vec<u32>,
    /// The wait before the second try; `None` for the proxy's own (25 ms).
    pub backoff: Option<Duration>,
    /// Whether another endpoint is drawn when one was tried already.
    pub avoids_tried: bool,
    /// Whether localities that were tried are passed over.
    pub avoids_localities: bool,
}

/// Where a redirect points.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Redirect {
    /// Another host.
    pub host: Option<String>,
    /// Another path.
    pub path: Option<String>,
    /// What replaces the matched prefix.
    pub prefix: Option<String>,
    /// Another scheme.
    pub scheme: Option<String>,
    /// Another port.
    pub port: Option<u16>,
    /// 301, 302, 303, 307 or 308.
    pub status: u32,
}

/// Header changes, of requests and of responses.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct HeaderChanges {
    /// Of the request.
    pub request: HeaderEdits,
    /// Of the response.
    pub response: HeaderEdits,
}

/// Changes to one set of headers.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct HeaderEdits {
    /// Replaced or added.
    pub set: Vec<(String, String)>,
    /// Added beside what is there.
    pub add: Vec<(String, String)>,
    /// Taken out.
    pub remove: Vec<String>,
}
