//! External authorization as compiled: whom to ask about a request or connection, with what, and
//! what the answer may change (Envoy's `ext_authz` filters).
//!
//! Start at [`ExtAuthz`].

use std::{sync::Arc, time::Duration};

use crate::{Fraction, MetadataMatch, StringMatcher};

/// Asks a service about each request (the HTTP filter).
#[derive(Clone, Debug, PartialEq)]
pub struct ExtAuthz {
    /// Whom to ask.
    pub service: AuthzService,
    /// Whether a request goes on when the service cannot be asked or fails.
    pub fails_open: bool,
    /// Whether such a request says so (`x-envoy-auth-failure-mode-allowed`).
    pub marks_failure: bool,
    /// How much of the body is sent along; `None` sends nothing.
    pub body: Option<AuthzBody>,
    /// Whether changed request headers make the route be chosen anew.
    pub clears_route: bool,
    /// The answer when the service cannot be asked or fails. Default 403.
    pub status_on_error: u16,
    /// Dynamic metadata that are sent along, by namespace.
    pub namespaces: Vec<Arc<str>>,
    /// The share of requests that is asked about.
    pub enabled: Fraction,
    /// Only requests with metadata like this are asked about.
    pub enabled_metadata: Option<MetadataMatch>,
    /// Whether requests that are not asked about are denied.
    pub denies_when_disabled: bool,
    /// Whether the client's certificate is sent along.
    pub peer_certificate: bool,
    /// Whether the server name of the client's hello is sent along.
    pub tls_session: bool,
    /// Headers that are sent along; `None` sends all to a gRPC service, none but the usual to HTTP.
    pub allowed: Option<Vec<StringMatcher>>,
    /// Headers that are not sent along, whatever `allowed` says.
    pub disallowed: Vec<StringMatcher>,
    /// Whether headers are sent as they came, each value by itself.
    pub raw_headers: bool,
    /// Whether metadata of the answer are taken over.
    pub takes_metadata: bool,
    /// Most bytes of a denial's body that the client gets.
    pub denied_body_max: Option<usize>,
}

/// Asks a service about each connection (the network filter).
#[derive(Clone, Debug, PartialEq)]
pub struct TcpAuthz {
    /// Whom to ask: always gRPC.
    pub service: AuthzGrpc,
    /// Whether a connection goes on when the service cannot be asked or fails.
    pub fails_open: bool,
    /// Whether the client's certificate is sent along.
    pub peer_certificate: bool,
    /// Whether the server name of the client's hello is sent along.
    pub tls_session: bool,
    /// Only connections with metadata like this are asked about.
    pub enabled_metadata: Option<MetadataMatch>,
    /// Dynamic metadata that are sent along, by namespace.
    pub namespaces: Vec<Arc<str>>,
}

/// An authorization service.
#[derive(Clone, Debug, PartialEq)]
pub enum AuthzService {
    /// It speaks `envoy.service.auth.v3.Authorization`.
    Grpc(AuthzGrpc),
    /// It answers the request's own head with 200 or something else.
    Http(Box<AuthzHttp>),
}

/// A gRPC service.
#[derive(Clone, Debug, PartialEq)]
pub struct AuthzGrpc {
    /// Its cluster.
    pub cluster: Arc<str>,
    /// `:authority`; the cluster's name where nothing is said.
    pub authority: Arc<str>,
    /// How long it may take. Default 200 ms.
    pub timeout: Option<Duration>,
    /// Headers of the call.
    pub metadata: Vec<(Arc<str>, Arc<str>)>,
    /// Longest answer taken, in bytes.
    pub answer_max: usize,
}

/// An HTTP service.
#[derive(Clone, Debug, PartialEq)]
pub struct AuthzHttp {
    /// Its cluster.
    pub cluster: Arc<str>,
    /// How long it may take. Default 200 ms.
    pub timeout: Option<Duration>,
    /// Stands before the request's path.
    pub path_prefix: Arc<str>,
    /// Takes the path's place, when it is not empty.
    pub path_override: Arc<str>,
    /// Headers that are set on the question.
    pub set: Vec<(Arc<str>, Arc<str>)>,
    /// Headers of a 200 that are set on the request.
    pub upstream: Vec<StringMatcher>,
    /// Headers of a 200 that are appended to those of the request.
    pub upstream_append: Vec<StringMatcher>,
    /// Headers of another answer that the client gets; `None` passes all.
    pub client: Option<Vec<StringMatcher>>,
    /// Headers of a 200 that the client gets with the response.
    pub client_on_success: Vec<StringMatcher>,
    /// Headers of a 200 that become dynamic metadata.
    pub metadata: Vec<StringMatcher>,
}

/// What of the body is sent along.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AuthzBody {
    /// Most bytes.
    pub bytes_max: usize,
    /// Whether the beginning of a longer body will do; otherwise it is answered 413.
    pub allows_part: bool,
    /// Whether a gRPC service gets it as bytes, not as text.
    pub as_bytes: bool,
}

/// What a route says of the filter, but for switching it off.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct AuthzCheck {
    /// Told to a gRPC service; the more specific one of a name wins.
    pub extensions: Vec<(Arc<str>, Arc<str>)>,
    /// Whether no body is sent along.
    pub skips_body: bool,
    /// What of the body is sent along, in the place of the filter's own setting.
    pub body: Option<AuthzBody>,
}
