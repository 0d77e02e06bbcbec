//! CredentialGrant: who may have a credential used for what.

use sluis_nouns::{ObjectName, SourceRef};

use super::authorization::{Condition, Operation, Source};

/// `egress.sluis.dev` CredentialGrant. One of `from`, one of `to` and all of `when` must match; a list
/// that is empty matches everything.
#[derive(Clone, Debug, PartialEq)]
pub struct CredentialGrant {
    /// `credential`: of its own namespace, or `NAMESPACE/NAME`, which that Credential must allow.
    pub credential: ObjectName,
    /// Place of `credential`.
    pub credential_at: SourceRef,
    /// `from`: in the syntax of AuthorizationPolicy's `source`.
    pub from: Vec<Source>,
    /// `to`: in the syntax of AuthorizationPolicy's `operation`; of the request as it is sent.
    pub to: Vec<Operation>,
    /// `when`: as in AuthorizationPolicy.
    pub when: Vec<Condition>,
    /// `limits.perIdentityPerMinute`: uses by one identity; 0 is any number.
    pub per_identity_per_minute: u32,
    /// `dryRun`: it is only recorded that it would have covered a request.
    pub dry_run: bool,
}
