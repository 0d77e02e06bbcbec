//! Credentials that are added to the requests of a cluster.

use std::sync::Arc;

use sluis_nouns::ObjectName;
use sluis_resources::Injection;

use super::RuleMatch;

/// What a cluster does about credentials.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum CredentialsInput {
    /// Our own filter chooses among these, in order.
    Own(Vec<CredentialInput>),
    /// A real Envoy adds this one, to what its routes have let through.
    Envoy(Box<EnvoyCredential>),
}

/// A credential that Envoy can add: a field.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct EnvoyCredential {
    /// The credential; its grants are on the routes.
    pub credential: CredentialInput,
    /// The field.
    pub header: String,
    /// What stands before the value.
    pub prefix: String,
}

/// One credential, for one cluster.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct CredentialInput {
    /// The `Credential`.
    pub name: ObjectName,
    /// How it is added.
    pub injection: Injection,
    /// The cluster that tokens are fetched from, where they are fetched.
    pub token_cluster: Option<String>,
    /// The SDS name of what is added.
    pub secret: String,
    /// The SDS name of the version before, where it is used for a while.
    pub previous_secret: Option<String>,
    /// Where it may go at all.
    pub hosts: Vec<String>,
    /// Removed from requests.
    pub strip_request: Vec<String>,
    /// Removed from responses.
    pub strip_response: Vec<String>,
    /// So many bytes of responses are searched for it.
    pub scan_response_bytes: u64,
    /// Whether requests go without it when it cannot be had.
    pub allow_without: bool,
    /// Who may have it, for what.
    pub grants: Vec<Arc<GrantInput>>,
}

/// One grant, as far as it bears on a cluster.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct GrantInput {
    /// The `CredentialGrant`.
    pub name: ObjectName,
    /// Whom and what it covers.
    pub matches: RuleMatch,
    /// Uses by one identity; 0 is any number.
    pub per_identity_per_minute: u32,
    /// Whether it covers nothing, and is only told.
    pub dry_run: bool,
}
