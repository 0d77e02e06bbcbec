//! Rows of `sluis credentials list|describe|test`: each credential with its grants, and what a request
//! would get.
//!
//! In:    a snapshot of the mesh, its faults; for a test, a request that somebody could send.
//! Out:   [`CredentialRow`]s and [`Verdict`]s, as the interface carries them.
//! Never: a value of a secret: it is written as its entry's name.

mod verdict;

use serde::{Deserialize, Serialize};
use sluis_model::{Owned, Snapshot};
use sluis_nouns::ObjectName;
use sluis_resources::{
    Condition, ConditionKey, ConditionValue, Credential, CredentialGrant, Fault, Operation,
    PathPattern, SecretSource, Source, TextPattern, Values,
};

pub(crate) use verdict::{Asked, Verdict, test};

/// One credential.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct CredentialRow {
    /// Its namespace.
    pub namespace: String,
    /// Its name.
    pub name: String,
    /// How it is added, as `inject` calls it.
    pub kind: String,
    /// Where its value comes from, as `source` calls it; never the value.
    pub source: String,
    /// The entries of the secret that are needed.
    pub entries: Vec<String>,
    /// The fields of requests that it sets.
    pub headers: Vec<String>,
    /// Where it may go.
    pub hosts: Vec<String>,
    /// `deny` or `allowWithout`.
    pub on_failure: String,
    /// Where it is written.
    pub at: String,
    /// Who may have it for what.
    pub grants: Vec<GrantRow>,
    /// What is wrong with it or its grants.
    pub faults: Vec<String>,
    /// The version in use, where the mesh runs.
    #[serde(default)]
    pub version: Option<String>,
    /// When that ends.
    #[serde(default)]
    pub expires: Option<String>,
    /// The gateways that have it.
    #[serde(default)]
    pub used_by: Vec<String>,
}

/// One grant. Lists hold alternatives; an empty one holds for everything.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct GrantRow {
    /// Namespace and name.
    pub name: String,
    /// Where it is written.
    pub at: String,
    /// Who.
    pub from: Vec<String>,
    /// What.
    pub to: Vec<String>,
    /// Conditions; all must hold.
    pub when: Vec<String>,
    /// Uses in a minute by one identity; 0 is any number.
    pub per_identity_per_minute: u32,
    /// Whether it is only told.
    pub dry_run: bool,
}

/// Every credential, by namespace and name.
pub(crate) fn rows(snapshot: &Snapshot, faults: &[Fault]) -> Vec<CredentialRow> {
    let mut rows: Vec<CredentialRow> =
        snapshot.credentials().map(|one| row(snapshot, one, faults)).collect();
    rows.sort_by(|a, b| (&a.namespace, &a.name).cmp(&(&b.namespace, &b.name)));
    rows
}

fn row(snapshot: &Snapshot, credential: &Owned<Credential>, faults: &[Fault]) -> CredentialRow {
    let (meta, spec) = (credential.meta(), credential.spec());
    let grants: Vec<&Owned<CredentialGrant>> = snapshot.grants_of(credential).collect();
    let mut owners = vec![format!("Credential {}", meta.name)];
    // Those that count for nothing too, for that is what is wrong with them.
    let naming = snapshot.credential_grants().filter(|one| one.spec().credential == meta.name);
    owners.extend(naming.map(|grant| format!("CredentialGrant {}", grant.meta().name)));
    let is_about =
        |fault: &&Fault| fault.resource.as_ref().is_some_and(|resource| owners.contains(resource));
    CredentialRow {
        namespace: meta.name.namespace.to_string(),
        name: meta.name.name.to_string(),
        kind: spec.injection.name().to_owned(),
        source: source(&spec.source),
        entries: spec.injection.entries().into_iter().map(str::to_owned).collect(),
        headers: spec.injection.headers().into_iter().map(str::to_owned).collect(),
        hosts: spec.guard.hosts.iter().map(ToString::to_string).collect(),
        on_failure: if spec.guard.allow_without { "allowWithout" } else { "deny" }.to_owned(),
        at: meta.at.to_string(),
        grants: grants.into_iter().map(grant).collect(),
        faults: faults.iter().filter(is_about).map(ToString::to_string).collect(),
        version: None,
        expires: None,
        used_by: Vec::new(),
    }
}

fn source(source: &SecretSource) -> String {
    match source {
        SecretSource::SecretRef(secret) => format!("Secret {}", secret.name),
        SecretSource::Vault(vault) => format!("vault {}", vault.address),
        other => other.name().to_owned(),
    }
}

fn grant(grant: &Owned<CredentialGrant>) -> GrantRow {
    let spec = grant.spec();
    GrantRow {
        name: grant.meta().name.to_string(),
        at: grant.meta().at.to_string(),
        from: spec.from.iter().map(shown_source).collect(),
        to: spec.to.iter().map(shown_operation).collect(),
        when: spec.when.iter().map(shown_condition).collect(),
        per_identity_per_minute: spec.per_identity_per_minute,
        dry_run: spec.dry_run,
    }
}

/// A pattern as it was written.
fn text(pattern: &TextPattern) -> String {
    match pattern {
        TextPattern::Exact(text) => text.clone(),
        TextPattern::Prefix(text) => format!("{text}*"),
        TextPattern::Suffix(text) => format!("*{text}"),
        TextPattern::Present => "*".to_owned(),
    }
}

fn add<T>(parts: &mut Vec<String>, name: &str, values: &Values<T>, show: impl Fn(&T) -> String) {
    for (list, word) in [(&values.any, ""), (&values.none, "not ")] {
        if !list.is_empty() {
            let list: Vec<String> = list.iter().map(&show).collect();
            parts.push(format!("{word}{name} {}", list.join("|")));
        }
    }
}

fn shown_source(source: &Source) -> String {
    let mut parts = Vec::new();
    add(&mut parts, "principal", &source.principals, text);
    add(&mut parts, "namespace", &source.namespaces, text);
    add(&mut parts, "serviceAccount", &source.service_accounts, |one| {
        format!("{}/{}", one.namespace, one.account)
    });
    add(&mut parts, "trustDomain", &source.trust_domains, text);
    add(&mut parts, "requestPrincipal", &source.request_principals, text);
    add(&mut parts, "ip", &source.ip_blocks, ToString::to_string);
    add(&mut parts, "remoteIp", &source.remote_ip_blocks, ToString::to_string);
    parts.join(", ")
}

fn shown_operation(operation: &Operation) -> String {
    let mut parts = Vec::new();
    add(&mut parts, "method", &operation.methods, text);
    add(&mut parts, "host", &operation.hosts, text);
    add(&mut parts, "port", &operation.ports, ToString::to_string);
    add(&mut parts, "path", &operation.paths, |path| match path {
        PathPattern::Text(pattern) => text(pattern),
        PathPattern::Template(template) => template.clone(),
    });
    parts.join(", ")
}

fn shown_condition(condition: &Condition) -> String {
    let mut parts = Vec::new();
    add(&mut parts, &shown_key(&condition.key), &condition.values, |value| match value {
        ConditionValue::Ip(range) => range.to_string(),
        ConditionValue::Port(port) => port.to_string(),
        ConditionValue::ServiceAccount(one) => format!("{}/{}", one.namespace, one.account),
        ConditionValue::Text(pattern) => text(pattern),
    });
    parts.join(", ")
}

/// A key as it was written.
fn shown_key(key: &ConditionKey) -> String {
    match key {
        ConditionKey::RequestHeader(name) => format!("request.headers[{name}]"),
        ConditionKey::RequestClaim(path) => format!("request.auth.claims[{}]", path.join("][")),
        ConditionKey::SourceIp => "source.ip".to_owned(),
        ConditionKey::RemoteIp => "remote.ip".to_owned(),
        ConditionKey::SourceNamespace => "source.namespace".to_owned(),
        ConditionKey::SourceServiceAccount => "source.serviceAccount".to_owned(),
        ConditionKey::SourcePrincipal => "source.principal".to_owned(),
        ConditionKey::SourceTrustDomain => "source.trustDomain".to_owned(),
        ConditionKey::RequestPrincipal => "request.auth.principal".to_owned(),
        ConditionKey::RequestAudiences => "request.auth.audiences".to_owned(),
        ConditionKey::RequestPresenter => "request.auth.presenter".to_owned(),
        ConditionKey::DestinationIp => "destination.ip".to_owned(),
        ConditionKey::DestinationPort => "destination.port".to_owned(),
        ConditionKey::ConnectionSni => "connection.sni".to_owned(),
    }
}

/// The credential of a name.
fn named<'s>(snapshot: &'s Snapshot, name: &ObjectName) -> Option<&'s Owned<Credential>> {
    snapshot.credentials().find(|one| one.meta().name == *name)
}

#[cfg(test)]
mod tests;
