//! Who may do what: the policies that a proxy, a chain or a route holds to.
//!
//! In:    what `select` made of `AuthorizationPolicy` objects.
//! Out:   policies by action, each rule as Istio's model has it: alternatives of clauses that all hold.
//! Never: a rule that could not be read: `select` has refused it, or made it match nothing.

use std::sync::Arc;

use sluis_resources::{ConditionKey, ConditionValue, ExtAuthz};

use super::TokensInput;

/// The policies of one place, in the order in which they are asked.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct AuthorizationInput {
    /// The tokens of end users that are taken: behind those below, before all others.
    pub tokens: Option<Arc<TokensInput>>,
    /// Those that another server decides, one for each provider, in order of name.
    pub custom: Vec<CustomInput>,
    /// What matches is marked.
    pub audit: PolicySet,
    /// What matches is refused.
    pub deny: PolicySet,
    /// What matches is let through, and nothing else.
    pub allow: PolicySet,
}

impl AuthorizationInput {
    /// Whether nothing is asked.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }
}

/// The policies of one action. `None` and no rules differ: ALLOW with no rules refuses everything.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct PolicySet {
    /// Those whose verdict holds.
    pub enforced: Option<Vec<RuleInput>>,
    /// Those whose verdict is only told (annotation `istio.io/dry-run`).
    pub dry_run: Option<Vec<RuleInput>>,
}

/// The policies with one provider.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct CustomInput {
    /// The provider's name.
    pub provider: String,
    /// The requests that it is asked about.
    pub rules: Vec<RuleInput>,
    /// How it is asked; `None` when it cannot be: what the rules match is refused.
    pub backend: Option<ExtAuthzInput>,
}

/// How a provider is asked.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct ExtAuthzInput {
    /// Whether it is asked over HTTP, and not over gRPC.
    pub is_http: bool,
    /// Its cluster.
    pub cluster: String,
    /// Its host.
    pub host: String,
    /// What the mesh configuration says of it.
    pub settings: ExtAuthz,
}

/// One rule of a policy.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct RuleInput {
    /// Istio's name for it, which refusals are told with: `ns[foo]-policy[bar]-rule[0]`.
    pub id: String,
    /// What it matches; `None` for nothing.
    pub matches: Option<RuleMatch>,
}

/// What a rule matches: one of `from` and one of `to`, all clauses of each. Both have one at least; one
/// without clauses matches everything.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct RuleMatch {
    /// Who asks.
    pub from: Vec<Vec<Clause>>,
    /// What is asked.
    pub to: Vec<Vec<Clause>>,
}

/// One attribute and its wanted values: any of `any` where there are some, and none of `none`.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Clause {
    /// What is looked at.
    pub attribute: Attribute,
    /// The values of which one must be there.
    pub any: Vec<Wanted>,
    /// The values that must not be there.
    pub none: Vec<Wanted>,
}

/// What a clause looks at.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Attribute {
    /// What a condition can look at as well.
    Key(ConditionKey),
    /// The request's authority.
    Host,
    /// The request's method.
    Method,
    /// The request's path, without the query.
    Path,
}

/// A value that a clause compares with.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Wanted {
    /// Of the type that the attribute has.
    Value(ConditionValue),
    /// A path with `{*}` and `{**}`.
    Template(String),
}
