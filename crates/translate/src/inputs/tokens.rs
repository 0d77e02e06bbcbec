//! Which tokens of end users requests may carry.
//!
//! In:    what `select` made of `RequestAuthentication` objects.
//! Out:   rules in Istio's order.

use std::time::Duration;

/// The tokens that are taken at one place. A request with none passes where no rule requires one; a
/// token that is not good never does.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct TokensInput {
    /// The rules, in order of issuer.
    pub rules: Vec<TokenRule>,
    /// Whether the route is chosen anew by the claims (gateways).
    pub chooses_route: bool,
}

/// The tokens of one issuer.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct TokenRule {
    /// The issuer; empty for any.
    pub issuer: String,
    /// The audiences; empty for any.
    pub audiences: Vec<String>,
    /// The keys.
    pub keys: TokenKeys,
    /// The headers that it is looked for in, and the text before it.
    pub from_headers: Vec<(String, String)>,
    /// The query parameters that it is looked for in.
    pub from_params: Vec<String>,
    /// The cookies that it is looked for in.
    pub from_cookies: Vec<String>,
    /// The header that gets the payload.
    pub payload_header: Option<String>,
    /// Claims, and the headers that get them.
    pub claims: Vec<(String, String)>,
    /// Whether the request goes on with the token.
    pub is_forwarded: bool,
    /// Claims that are lists, written with spaces.
    pub spaced_claims: Vec<String>,
    /// Whether a request without a token is refused.
    pub is_required: bool,
}

/// Where keys are.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum TokenKeys {
    /// Here, as JSON.
    Inline(String),
    /// On a server.
    Remote {
        /// The URL.
        uri: String,
        /// The cluster that is asked; one that there is not where it must not be.
        cluster: String,
        /// How long one question may take.
        timeout: Duration,
    },
}
