//! AuthorizationPolicy: who may do what.

use sluis_nouns::{Cidr, SourceRef};

use super::target::PolicyTarget;

/// `security.istio.io` AuthorizationPolicy.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct AuthorizationPolicy {
    /// `selector`, `targetRef` or `targetRefs`.
    pub target: PolicyTarget,
    /// `action`, with `provider` where it is CUSTOM.
    pub action: AuthorizationAction,
    /// `rules`: any of them is enough. None matches nothing, so that ALLOW without rules denies all.
    pub rules: Vec<AuthorizationRule>,
    /// Annotation `istio.io/dry-run`: the verdict is only told. Only with ALLOW and DENY.
    pub dry_run: bool,
}

/// What is done with what matches.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum AuthorizationAction {
    /// It is allowed, and what no such policy matches is denied. The default.
    #[default]
    Allow,
    /// It is denied.
    Deny,
    /// It is marked for an audit.
    Audit,
    /// The extension provider of this name decides. Its rules look at nothing of the peer's or the
    /// token's identity.
    Custom(String),
}

/// One of `rules`: one of `from`, one of `to` and all of `when` must match; nothing written matches.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct AuthorizationRule {
    /// Place of the list item.
    pub at: SourceRef,
    /// `from[].source`.
    pub from: Vec<Source>,
    /// `to[].operation`.
    pub to: Vec<Operation>,
    /// `when`.
    pub when: Vec<Condition>,
}

/// A field `x` and its negation `notX`: one of the values must match where some are written, and none
/// of the negated ones.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Values<T> {
    /// `x`; empty means anything.
    pub any: Vec<T>,
    /// `notX`.
    pub none: Vec<T>,
}

impl<T> Values<T> {
    /// Returns whether nothing is written.
    pub fn is_empty(&self) -> bool {
        self.any.is_empty() && self.none.is_empty()
    }
}

impl<T> Default for Values<T> {
    fn default() -> Self {
        Self { any: Vec::new(), none: Vec::new() }
    }
}

/// One of `from`: all that is written must match. Something is.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Source {
    /// `principals`: identities without `spiffe://`, of the peer's certificate.
    pub principals: Values<TextPattern>,
    /// `requestPrincipals`: `issuer/subject` of the token.
    pub request_principals: Values<TextPattern>,
    /// `namespaces` of the peer.
    pub namespaces: Values<TextPattern>,
    /// `serviceAccounts` of the peer. Never beside principals or namespaces.
    pub service_accounts: Values<ServiceAccountRef>,
    /// `trustDomains` of the peer.
    pub trust_domains: Values<TextPattern>,
    /// `ipBlocks`: the address of the peer.
    pub ip_blocks: Values<Cidr>,
    /// `remoteIpBlocks`: the client's address by `X-Forwarded-For` or the PROXY protocol.
    pub remote_ip_blocks: Values<Cidr>,
}

impl Source {
    /// Returns whether nothing is written.
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }
}

/// One of `to`: all that is written must match. Something is.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Operation {
    /// `hosts`: the request's authority, letter case aside.
    pub hosts: Values<TextPattern>,
    /// `ports` of the destination.
    pub ports: Values<u16>,
    /// `methods`.
    pub methods: Values<TextPattern>,
    /// `paths`, without the query.
    pub paths: Values<PathPattern>,
}

impl Operation {
    /// Returns whether nothing is written.
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }
}

/// How a text is compared in a policy.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum TextPattern {
    /// The whole text.
    Exact(String),
    /// `abc*`: the start.
    Prefix(String),
    /// `*abc`: the end.
    Suffix(String),
    /// `*`: any text but none.
    Present,
}

impl TextPattern {
    /// Reads a pattern as Istio writes it. A star in the middle is a star.
    pub fn new(text: &str) -> Self {
        match (text.strip_prefix('*'), text.strip_suffix('*')) {
            (Some(""), _) => Self::Present,
            (Some(end), _) => Self::Suffix(end.to_owned()),
            (None, Some(start)) => Self::Prefix(start.to_owned()),
            (None, None) => Self::Exact(text.to_owned()),
        }
    }
}

/// How a path is compared in a policy.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum PathPattern {
    /// As any text.
    Text(TextPattern),
    /// With `{*}` for one segment and, at the end of what is open, `{**}` for any number of them.
    Template(String),
}

/// One of `serviceAccounts`: `account` or `namespace/account`.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct ServiceAccountRef {
    /// The namespace; the policy's own where none is written.
    pub namespace: String,
    /// The account.
    pub account: String,
}

/// One of `when`.
#[derive(Clone, Debug, PartialEq)]
pub struct Condition {
    /// Place of the list item.
    pub at: SourceRef,
    /// `key`.
    pub key: ConditionKey,
    /// `values` and `notValues`, some of them. Of the type that the key has.
    pub values: Values<ConditionValue>,
}

/// What a condition looks at.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum ConditionKey {
    /// `request.headers[NAME]`; the name is as written.
    RequestHeader(String),
    /// `source.ip`.
    SourceIp,
    /// `remote.ip`.
    RemoteIp,
    /// `source.namespace`.
    SourceNamespace,
    /// `source.serviceAccount`.
    SourceServiceAccount,
    /// `source.principal`.
    SourcePrincipal,
    /// `source.trustDomain`.
    SourceTrustDomain,
    /// `request.auth.principal`.
    RequestPrincipal,
    /// `request.auth.audiences`.
    RequestAudiences,
    /// `request.auth.presenter`.
    RequestPresenter,
    /// `request.auth.claims[a][b]`: the names on the way. At least one.
    RequestClaim(Vec<String>),
    /// `destination.ip`.
    DestinationIp,
    /// `destination.port`.
    DestinationPort,
    /// `connection.sni`.
    ConnectionSni,
}

/// What a condition compares with.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum ConditionValue {
    /// Of the keys that are addresses.
    Ip(Cidr),
    /// Of `destination.port`.
    Port(u16),
    /// Of `source.serviceAccount`.
    ServiceAccount(ServiceAccountRef),
    /// Of all other keys.
    Text(TextPattern),
}
