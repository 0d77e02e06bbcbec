//! Credentials and their grants: which grant counts for which credential, and what is wrong with them.
//!
//! In:    `Credential` and `CredentialGrant` objects, the services that a namespace sees.
//! Out:   the grants of a credential; faults that one object alone does not show.
//! Never: counts a grant of another namespace that the credential does not allow.

use std::collections::{BTreeMap, BTreeSet};

use sluis_nouns::{HostPattern, ObjectName};
use sluis_resources::{
    Credential, CredentialGrant, Fault, Injection, JwtRule, Key, Kind, Oauth2Grant, SecretSource,
    Spec, TextPattern,
};

use crate::{Owned, Snapshot};

impl Snapshot {
    /// The credentials of all namespaces, the oldest first.
    pub fn credentials(&self) -> impl Iterator<Item = &Owned<Credential>> {
        self.index().credentials.iter()
    }

    /// One credential.
    #[must_use]
    pub fn credential(&self, name: &ObjectName) -> Option<&Credential> {
        match &self.get(&Key { kind: Kind::Credential, name: name.clone() })?.spec {
            Spec::Credential(credential) => Some(credential),
            _ => None,
        }
    }

    /// All grants, also those that count for nothing, the oldest first.
    pub fn credential_grants(&self) -> impl Iterator<Item = &Owned<CredentialGrant>> {
        self.index().credential_grants.iter()
    }

    /// The grants of a credential: those of its own namespace, and of those that it allows.
    pub fn grants_of<'a>(
        &'a self,
        credential: &'a Owned<Credential>,
    ) -> impl Iterator<Item = &'a Owned<CredentialGrant>> {
        let is_meant = |grant: &&Owned<CredentialGrant>| {
            grant.spec().credential == credential.meta().name && is_allowed(grant, credential)
        };
        self.credential_grants().filter(is_meant)
    }

    /// What is wrong with credentials and grants, beyond what one object alone shows.
    #[must_use]
    pub fn credential_faults(&self) -> Vec<Fault> {
        let mut faults = Vec::new();
        for grant in self.credential_grants() {
            self.check_grant(grant, &mut faults);
        }
        let all: Vec<&Owned<Credential>> = self.credentials().collect();
        for credential in &all {
            self.check_credential(credential, &mut faults);
        }
        check_shared(&all, &mut faults);
        faults
    }

    fn check_grant(&self, grant: &Owned<CredentialGrant>, faults: &mut Vec<Fault>) {
        let wanted = &grant.spec().credential;
        let mut add = |fault: Fault| faults.push(fault.of(of(grant.meta())));
        let at = || grant.spec().credential_at.clone();
        let found = self.credentials().find(|one| one.meta().name == *wanted);
        let Some(credential) = found else {
            let message = format!("there is no Credential {wanted}: this grants nothing");
            let fault = Fault::error(at(), message).field("spec.credential");
            let elsewhere = self.credentials().find(|one| one.meta().name.name == wanted.name);
            add(match elsewhere {
                Some(one) => fault.help(format!("is {} meant?", one.meta().name)),
                None => fault,
            });
            return;
        };
        if !is_allowed(grant, credential) {
            let home = &grant.meta().name.namespace;
            let message = format!(
                "Credential {wanted} takes no grants of namespace {home}: this grants nothing"
            );
            let help = format!("its owner may write allowGrantsFrom: [{home}]");
            add(Fault::error(at(), message).field("spec.credential").help(help));
            return;
        }
        for (index, operation) in grant.spec().to.iter().enumerate() {
            for host in &operation.hosts.any {
                let TextPattern::Exact(host) = host else { continue };
                let name = host.split(':').next().unwrap_or_default();
                if !credential.spec().guard.hosts.iter().any(|guard| guard.matches(name)) {
                    let message = format!(
                        "the guard of Credential {wanted} does not have {host}: this part \
                                 grants nothing"
                    );
                    let path = format!("spec.to[{index}].hosts");
                    add(Fault::warning(at(), message).field(path));
                }
            }
        }
    }

    fn check_credential(&self, credential: &Owned<Credential>, faults: &mut Vec<Fault>) {
        let (meta, spec) = (credential.meta(), credential.spec());
        let namespace = &*meta.name.namespace;
        let mut add = |fault: Fault| faults.push(fault.of(of(meta)));
        if !self.grants_of(credential).any(|grant| !grant.spec().dry_run) {
            let message = "no CredentialGrant grants it: every request to its hosts is refused";
            add(Fault::warning(meta.at.clone(), message)
                .help(format!("write a CredentialGrant with credential: {}", meta.name.name)));
        }
        let guard = &spec.guard;
        for host in &guard.hosts {
            let mut led = self.services(namespace).filter(|one| one.host.overlaps(host)).peekable();
            if led.peek().is_none() {
                let message =
                    format!("nothing that namespace {namespace} sees has the host {host}");
                add(Fault::warning(guard.at.clone(), message)
                    .field("spec.guard.hosts")
                    .help("a ServiceEntry for the host, exported to this namespace, is needed"));
            }
            for service in led {
                if !guard.hosts.iter().any(|guard| guard.covers(&service.host)) {
                    let message = format!(
                        "{} {} is wider than the guard: requests for its other hosts are refused at \
                         the gateways of namespace {namespace}",
                        service.object, service.host
                    );
                    let fault = Fault::warning(guard.at.clone(), message).field("spec.guard.hosts");
                    add(fault.help("give the guarded host a ServiceEntry of its own"));
                }
            }
        }
        if !self.has_gateway(namespace) {
            let message = format!("namespace {namespace} has no gateway: nobody would add it");
            let help = "a Credential is in the namespace of the gateway that adds it";
            add(Fault::warning(meta.at.clone(), message).help(help));
        }
        let is_wide = guard.hosts.len() > 1 || guard.hosts.iter().any(HostPattern::is_wildcard);
        if is_wide && is_sent(&spec.injection) {
            let message = "several hosts are sent the same secret: each could use it at the others";
            add(Fault::warning(guard.at.clone(), message)
                .field("spec.guard.hosts")
                .help("one Credential for each host, or a signature in place of the secret"));
        }
        if spec.injection.headers().contains(&"authorization")
            && !is_exchanged(&spec.injection)
            && self.request_rules(namespace).any(|rule| {
                rule.forward_original_token
                    && (rule.from_headers.is_empty()
                        || rule
                            .from_headers
                            .iter()
                            .any(|header| header.name.eq_ignore_ascii_case("authorization")))
            })
        {
            let message = "the client's own token is to be forwarded in Authorization, and this \
                           takes its place";
            add(Fault::warning(meta.at.clone(), message)
                .field("spec.inject")
                .help("inject another header, or grant: tokenExchange"));
        }
    }

    fn request_rules<'a>(&'a self, namespace: &'a str) -> impl Iterator<Item = &'a JwtRule> {
        let root = self.mesh().root_namespace.as_str();
        let all = &self.index().request_authentications;
        let homes = [namespace, root].into_iter().filter_map(|home| all.get(home));
        homes.flatten().flat_map(|policy| &policy.spec().rules)
    }

    fn has_gateway(&self, namespace: &str) -> bool {
        let entries = self.workloads().filter(|one| &*one.meta().name.namespace == namespace);
        let mut labels = entries.map(crate::Workload::labels).chain(
            self.index()
                .platform
                .pods
                .values()
                .filter(|pod| &*pod.meta().name.namespace == namespace)
                .map(|pod| pod.meta().labels.clone()),
        );
        labels.any(|labels| self.gateways(namespace, &labels).next().is_some())
    }
}

fn of(meta: &sluis_resources::Meta) -> String {
    format!("{} {}", meta.kind, meta.name)
}

fn is_allowed(grant: &Owned<CredentialGrant>, credential: &Owned<Credential>) -> bool {
    let home = &grant.meta().name.namespace;
    *home == credential.meta().name.namespace
        || credential.spec().allow_grants_from.iter().any(|allowed| **allowed == **home)
}

/// Whether the secret itself goes over the wire, so that whoever gets it has it.
fn is_sent(injection: &Injection) -> bool {
    matches!(
        injection,
        Injection::Header(_) | Injection::Basic(_) | Injection::Query(_) | Injection::Cookie(_)
    )
}

/// Whether the client's own token is what is exchanged.
fn is_exchanged(injection: &Injection) -> bool {
    matches!(injection, Injection::Oauth2(one) if one.grant == Oauth2Grant::TokenExchange)
}

/// Names credentials of one source that go to different hosts.
fn check_shared(all: &[&Owned<Credential>], faults: &mut Vec<Fault>) {
    let mut of_source: BTreeMap<String, Vec<&Owned<Credential>>> = BTreeMap::new();
    for credential in all.iter().filter(|one| is_sent(&one.spec().injection)) {
        let source = &credential.spec().source;
        let place = match source {
            SecretSource::SecretRef(source) => {
                format!("Secret {}/{}", credential.meta().name.namespace, source.name)
            }
            // Two that are written alike are the same.
            other => format!("{other:?}"),
        };
        of_source.entry(place).or_default().push(credential);
    }
    for sharing in of_source.values().filter(|sharing| sharing.len() > 1) {
        let hosts: BTreeSet<&HostPattern> =
            sharing.iter().flat_map(|one| &one.spec().guard.hosts).collect();
        let (first, rest) = (sharing[0], &sharing[1..]);
        for one in rest.iter().filter(|_| hosts.len() > 1) {
            let message = format!(
                "the secret of {} is sent to other hosts too, by Credential {}",
                one.meta().name,
                first.meta().name
            );
            faults.push(
                Fault::warning(one.meta().at.clone(), message)
                    .of(of(one.meta()))
                    .field("spec.source"),
            );
        }
    }
}

#[cfg(test)]
mod tests;
