//! RequestAuthentication: which tokens of end users are taken.

use std::time::Duration;

use sluis_nouns::SourceRef;

use super::target::PolicyTarget;

/// `security.istio.io` RequestAuthentication.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RequestAuthentication {
    /// `selector`, `targetRef` or `targetRefs`.
    pub target: PolicyTarget,
    /// `jwtRules`.
    pub rules: Vec<JwtRule>,
}

/// One of `jwtRules`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct JwtRule {
    /// Place of the list item.
    pub at: SourceRef,
    /// `issuer`; `None` (only beside [`JwtKeys::Uri`]) takes any.
    pub issuer: Option<String>,
    /// `audiences`, one of which the token must name; empty takes any.
    pub audiences: Vec<String>,
    /// `jwks` or `jwksUri`; `None` means the issuer's OpenID document names the keys.
    pub keys: Option<JwtKeys>,
    /// `fromHeaders`: where the token is looked for.
    pub from_headers: Vec<JwtHeader>,
    /// `fromParams`: query parameters.
    pub from_params: Vec<String>,
    /// `fromCookies`.
    pub from_cookies: Vec<String>,
    /// `outputPayloadToHeader`: the header that gets the token's payload.
    pub output_payload_to_header: Option<String>,
    /// `outputClaimToHeaders`.
    pub output_claim_to_headers: Vec<ClaimToHeader>,
    /// `forwardOriginalToken`.
    pub forward_original_token: bool,
    /// `timeout` of fetching the keys; `None` means 5 s.
    pub timeout: Option<Duration>,
    /// `spaceDelimitedClaims`: claims that are lists, beside `scope` and `permission`.
    pub space_delimited_claims: Vec<String>,
    /// Whether `presence` is REQUIRED: requests without a token are refused.
    pub is_required: bool,
}

/// Where the keys come from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum JwtKeys {
    /// `jwks`: the key set as JSON.
    Inline(String),
    /// `jwksUri`: http or https.
    Uri(String),
}

/// One of `fromHeaders`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct JwtHeader {
    /// `name`.
    pub name: String,
    /// `prefix` before the token; empty where nothing is written.
    pub prefix: String,
}

/// One of `outputClaimToHeaders`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ClaimToHeader {
    /// `header`.
    pub header: String,
    /// `claim`; dots lead into nested ones.
    pub claim: String,
}
