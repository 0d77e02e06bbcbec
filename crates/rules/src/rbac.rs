//! Who may do what: Envoy's role-based access control, decided by index rather than in turn.
//!
//! In:    a compiled [`Rbac`] and what is known of the connection and the request ([`RbacFacts`]).
//! Out:   a [`Verdict`] that names the policy which decided.
//! Never: lets a request through because something about it could not be decided.
//!
//! Start at [`Rbac::decide`]. The answer is that of trying the policies one by one in the order of
//! their names, as Envoy does: the index only leaves out policies that cannot match.

mod condition;
mod facts;
mod grouped;
mod index;
mod keys;
mod lookup;
mod template;

use std::{sync::Arc, time::Duration};

pub(crate) use condition::Condition;
pub use facts::{PeerFacts, RbacFacts};
pub(crate) use template::template_pattern;

use condition::Holds;
use grouped::grouped;
use index::Index;

/// One set of policies and what a match means.
#[derive(Clone, Debug, PartialEq)]
pub struct Rbac {
    action: RbacAction,
    /// In the order of their names.
    policies: Vec<Policy>,
    index: Index,
}

/// What it means that a policy matches.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum RbacAction {
    /// Only what a policy matches may pass.
    Allow,
    /// What a policy matches may not pass.
    Deny,
    /// Everything may pass; what a policy matches is to be logged.
    Log,
}

/// A policy: its name, and when it matches.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Policy {
    pub(crate) name: Arc<str>,
    pub(crate) when: Condition,
}

/// What an [`Rbac`] says of one request or connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Verdict<'p> {
    /// Whether it may pass.
    pub is_allowed: bool,
    /// The first policy that matched, by name; `None` when none did.
    pub policy: Option<&'p Arc<str>>,
    /// Whether it is to be logged, where the policies are about that.
    pub logs: Option<bool>,
}

impl Verdict<'_> {
    /// Why a request was denied, as Envoy writes it into the log.
    #[must_use]
    pub fn details(&self) -> String {
        let policy = self.policy.map_or("none", |name| name);
        // As Envoy: white space would look like the next column of the log.
        let policy: String =
            policy.chars().map(|c| if c.is_ascii_whitespace() { '_' } else { c }).collect();
        format!("rbac_access_denied_matched_policy[{policy}]")
    }
}

impl Rbac {
    pub(crate) fn new(action: RbacAction, mut policies: Vec<Policy>) -> Self {
        policies.sort_unstable_by(|a, b| a.name.cmp(&b.name));
        let index = Index::build(&policies);
        let policies = policies
            .into_iter()
            .map(|policy| Policy { name: policy.name, when: grouped(policy.when) })
            .collect();
        Self { action, policies, index }
    }

    /// Whether a request or connection may pass, and by which policy.
    ///
    /// What cannot be decided (an expression over bytes that are no text) matches a policy that
    /// denies and no policy that allows.
    #[must_use]
    pub fn decide(&self, facts: &RbacFacts<'_>) -> Verdict<'_> {
        let first = self.index.candidates(facts, |at| {
            let holds = self.policies[at].when.holds(facts);
            match self.action {
                RbacAction::Deny => holds != Holds::No,
                RbacAction::Allow | RbacAction::Log => holds == Holds::Yes,
            }
        });
        let is_matched = first.is_some();
        Verdict {
            is_allowed: match self.action {
                RbacAction::Allow => is_matched,
                RbacAction::Deny => !is_matched,
                RbacAction::Log => true,
            },
            policy: first.map(|at| &self.policies[at].name),
            logs: (self.action == RbacAction::Log).then_some(is_matched),
        }
    }

    /// Whether a policy looks at a header.
    pub(crate) fn asks_for_headers(&self) -> bool {
        self.policies.iter().any(|policy| policy.when.asks_for_headers())
    }

    /// How many policies there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.policies.len()
    }

    /// Whether there is no policy.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.policies.is_empty()
    }
}

/// The HTTP filter.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct RbacFilter {
    /// What is enforced; `None` lets everything pass.
    pub rules: Option<Arc<Rbac>>,
    /// What is only told.
    pub shadow: Option<Arc<Rbac>>,
    /// The start of the names of counters and metadata of what is enforced.
    pub prefix: Arc<str>,
    /// The same of what is only told.
    pub shadow_prefix: Arc<str>,
    /// Whether each policy is counted.
    pub counts_policies: bool,
}

/// The network filter.
#[derive(Clone, Debug, PartialEq)]
pub struct NetworkRbac {
    /// What is decided. Its `prefix` is empty.
    pub filter: RbacFilter,
    /// The start of the names of its counters.
    pub stat_prefix: Arc<str>,
    /// How long a connection that is denied is held before it is closed.
    pub delay: Option<Duration>,
}

#[cfg(test)]
mod tests;
