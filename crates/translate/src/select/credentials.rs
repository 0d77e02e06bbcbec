//! Credentials that a gateway adds to what it sends: which clusters they belong to, and which of their
//! grants bear on each.
//!
//! In:    the `Credential` objects of the proxy's namespace, its clusters, and what leads to these.
//! Out:   the same clusters, each with its credentials.
//! Never: lets a request for a guarded host leave without its credential, or a credential towards an
//!        endpoint whose certificate is not verified for the host: such a cluster refuses everything.

mod envoy;

use std::{collections::BTreeSet, sync::Arc};

use sluis_model::{Age, Owned};
use sluis_nouns::HostPattern;
use sluis_resources::{
    ApplyTo, AuthorizationRule, ConditionKey, ConditionValue, Credential, CredentialGrant,
    Injection,
};

use super::{
    Selection,
    destination::CLIENT_TLS,
    secret_names::{Form, form_name, secret_name},
};
use crate::{
    Attribute, Clause, ClientTls, ClusterInput, CredentialInput, CredentialsInput, Discovery,
    Fault, GrantInput, Handler, ListenerInput, NameMatch, Role, RouteAction, RouteTable, RuleMatch,
    Wanted,
};

/// What stands before the names of clusters of services.
const OUTBOUND: &str = "outbound|";

/// Gives clusters of a gateway their credentials.
pub(super) fn apply(
    selection: &mut Selection<'_>,
    listeners: &mut [ListenerInput],
    tables: &mut [RouteTable],
    clusters: &mut [ClusterInput],
) {
    if selection.view.role != Role::Gateway {
        return;
    }
    let namespace = &selection.view.name.namespace;
    let all: Vec<Owned<Credential>> = selection
        .snapshot
        .credentials()
        .filter(|one| one.meta().name.namespace == *namespace)
        .cloned()
        .collect();
    if all.is_empty() {
        return;
    }
    let led = Led::of(selection, listeners, tables);
    let verified: BTreeSet<String> = clusters
        .iter()
        .filter(|one| !one.is_tls_by_endpoint && one.tls.as_ref().is_some_and(is_verified))
        .map(|one| one.name.clone())
        .collect();
    let is_envoy = envoy::is_envoy(selection);
    for cluster in clusters {
        let guarded: Vec<&Owned<Credential>> =
            all.iter().filter(|one| is_guarded(&one.spec().guard.hosts, cluster)).collect();
        if guarded.is_empty() {
            continue;
        }
        if !led.has_requests(&cluster.name) {
            // Nothing leads there, so that its secrets are not for this gateway.
            refuse(cluster);
            if !led.bytes.contains(&cluster.name) {
                continue;
            }
        }
        let wanted = Wanting { led: &led, verified: &verified, cluster: &*cluster };
        let made = wanted.credentials(selection, &guarded).and_then(|made| {
            if is_envoy {
                envoy::one(made, &guarded, cluster, tables, listeners)
            } else {
                Ok(CredentialsInput::Own(made))
            }
        });
        match made {
            Ok(made) => {
                let list = match &made {
                    CredentialsInput::Own(list) => list.as_slice(),
                    CredentialsInput::Envoy(one) => std::slice::from_ref(&one.credential),
                };
                if let Some(one) = list.iter().find(|one| is_certificate(&one.injection))
                    && let Some(tls) = &mut cluster.tls
                {
                    tls.certificate = Some(one.secret.clone());
                }
                let names =
                    list.iter().flat_map(|one| [Some(&one.secret), one.previous_secret.as_ref()]);
                selection.credential_secrets.extend(names.flatten().cloned());
                cluster.credentials = Some(Arc::new(made));
            }
            Err((credential, fault)) => {
                let message = format!("{}: it refuses all traffic", fault.message);
                let fault = Fault { message, ..*fault };
                selection.fault(credential.meta(), fault);
                refuse(cluster);
            }
        }
    }
}

/// Why a cluster gets none, and by which credential's fault.
type Refused = (Owned<Credential>, Box<Fault>);

/// Has a cluster refuse everything.
fn refuse(cluster: &mut ClusterInput) {
    cluster.discovery = Discovery::BlackHole;
    (cluster.tls, cluster.is_tls_by_endpoint) = (None, false);
}

fn is_certificate(injection: &Injection) -> bool {
    matches!(injection, Injection::ClientCertificate(_))
}

/// Whether a cluster leads to one of some hosts, its TLS being its own.
fn is_guarded(hosts: &[HostPattern], cluster: &ClusterInput) -> bool {
    cluster.name.starts_with(OUTBOUND)
        && !cluster.name.ends_with(CLIENT_TLS)
        && cluster.host.parse().is_ok_and(|host| hosts.iter().any(|own| own.overlaps(&host)))
}

/// Whether the names in a certificate are verified at all.
fn is_verified(tls: &ClientTls) -> bool {
    tls.roots.is_some() && (tls.is_name_check_auto || !tls.names.is_empty())
}

/// What leads to which cluster.
struct Led {
    requests: BTreeSet<String>,
    bytes: BTreeSet<String>,
    /// Patches may lead anywhere.
    is_patched: bool,
}

impl Led {
    fn of(selection: &Selection<'_>, listeners: &[ListenerInput], tables: &[RouteTable]) -> Self {
        let mut led = Self { requests: BTreeSet::new(), bytes: BTreeSet::new(), is_patched: false };
        for route in tables.iter().flat_map(|table| &table.hosts).flat_map(|host| &host.routes) {
            let RouteAction::Forward(forward) = &route.action else { continue };
            led.requests.extend(forward.targets.iter().map(|target| target.cluster.clone()));
            led.requests.extend(forward.mirrors.iter().map(|mirror| mirror.cluster.clone()));
        }
        for chain in listeners.iter().flat_map(|listener| &listener.chains) {
            if let Handler::Tcp { targets, .. } = &chain.handler {
                led.bytes.extend(targets.iter().map(|target| target.cluster.clone()));
            }
        }
        let view = selection.view;
        led.is_patched = selection
            .snapshot
            .envoy_filters(&view.name.namespace, &view.labels)
            .flat_map(|filter| &filter.spec().patches)
            .any(|patch| !matches!(patch.apply_to, ApplyTo::HttpFilter | ApplyTo::Cluster));
        led
    }

    fn has_requests(&self, cluster: &str) -> bool {
        self.is_patched || self.requests.contains(cluster)
    }
}

/// One cluster that wants its credentials.
struct Wanting<'a> {
    led: &'a Led,
    verified: &'a BTreeSet<String>,
    cluster: &'a ClusterInput,
}

impl Wanting<'_> {
    fn credentials(
        &self,
        selection: &Selection<'_>,
        guarded: &[&Owned<Credential>],
    ) -> Result<Vec<CredentialInput>, Refused> {
        let first = guarded[0];
        let name = &self.cluster.name;
        let fault = |credential: &Owned<Credential>, message: String| {
            let at = credential.spec().guard.at.clone();
            let fault = Fault::error(at, message).field("spec.guard.hosts");
            (credential.clone(), Box::new(fault))
        };
        if self.led.bytes.contains(name) {
            let message = format!("bytes are led to {name}, where no credential can be added");
            return Err(fault(first, message));
        }
        for credential in guarded {
            if let Err(reason) = self.check_tls(&credential.spec().guard.hosts) {
                let (owner, found) = fault(credential, format!("{name} {reason}"));
                let help = format!(
                    "a DestinationRule for {} with tls mode SIMPLE, and its name verified",
                    self.cluster.host
                );
                return Err((owner, Box::new(found.help(help))));
            }
        }
        if guarded.len() > 1
            && let Some(one) = guarded.iter().find(|one| is_certificate(&one.spec().injection))
        {
            let message = format!(
                "a client certificate is of the whole of {name}, which has other credentials"
            );
            return Err(fault(one, message));
        }
        guarded.iter().map(|credential| self.input(selection, credential)).collect()
    }

    /// Whether the certificate is verified for the hosts that are guarded.
    fn check_tls(&self, hosts: &[HostPattern]) -> Result<(), &'static str> {
        let Some(tls) = self.cluster.tls.as_ref().filter(|_| !self.cluster.is_tls_by_endpoint)
        else {
            return Err("has no TLS of its own");
        };
        if !self.verified.contains(&self.cluster.name) {
            return Err("does not verify the name in the certificate");
        }
        let is_guarded = |name: &NameMatch| match name {
            NameMatch::Exact(name) => hosts.iter().any(|host| host.matches(name)),
            NameMatch::UriPrefix(_) => false,
        };
        match tls.is_name_check_auto || tls.names.iter().all(is_guarded) {
            true => Ok(()),
            false => Err("verifies the certificate for names that are not guarded"),
        }
    }

    fn input(
        &self,
        selection: &Selection<'_>,
        credential: &Owned<Credential>,
    ) -> Result<CredentialInput, Refused> {
        let spec = credential.spec();
        let token_cluster = match &spec.injection {
            Injection::Oauth2(oauth2) => {
                Some(self.token_cluster(&oauth2.token_url).map_err(|message| {
                    let fault = Fault::error(credential.meta().at.clone(), message);
                    (credential.clone(), Box::new(fault.field("spec.inject.oauth2.tokenUrl")))
                })?)
            }
            _ => None,
        };
        let (guard, name) = (&spec.guard, &credential.meta().name);
        Ok(CredentialInput {
            name: name.clone(),
            injection: spec.injection.clone(),
            token_cluster,
            secret: match &spec.injection {
                Injection::ClientCertificate(one) => {
                    let entries = (one.certificate_key.clone(), one.private_key_key.clone());
                    form_name(name, &Form::Pair(entries.0, entries.1))
                }
                _ => form_name(name, &Form::All),
            },
            previous_secret: (!spec.rotation.grace.is_zero() && !is_certificate(&spec.injection))
                .then(|| secret_name(name, Age::Previous)),
            hosts: guard.hosts.iter().map(ToString::to_string).collect(),
            strip_request: guard.strip_request.clone(),
            strip_response: guard.strip_response.clone(),
            scan_response_bytes: guard.scan_response_bytes,
            allow_without: guard.allow_without,
            grants: selection
                .snapshot
                .grants_of(credential)
                .filter_map(|grant| selection.grant(grant, self.cluster.port))
                .collect(),
        })
    }

    /// The cluster of an authorization server, whose certificate must be verified too.
    fn token_cluster(&self, url: &str) -> Result<String, String> {
        let authority = url.strip_prefix("https://").unwrap_or(url);
        let authority = authority.split(['/', '?']).next().unwrap_or_default();
        let (host, port) = match authority.rsplit_once(':') {
            Some((host, port)) => (host, port),
            None => (authority, "443"),
        };
        let name = format!("{OUTBOUND}{port}||{host}");
        if self.verified.contains(&name) {
            return Ok(name);
        }
        Err(format!(
            "tokens cannot be fetched from {host}: {port} of it needs a ServiceEntry, and a \
             DestinationRule with tls mode SIMPLE"
        ))
    }
}

impl Selection<'_> {
    /// What a grant says of requests to one port; `None` where it covers nothing there.
    fn grant(&self, grant: &Owned<CredentialGrant>, port: u16) -> Option<Arc<GrantInput>> {
        let spec = grant.spec();
        let rule = AuthorizationRule {
            at: spec.credential_at.clone(),
            from: spec.from.clone(),
            to: spec.to.clone(),
            when: spec.when.clone(),
        };
        let RuleMatch { from, to } = self.rule_match(&rule);
        let to: Vec<Vec<Clause>> =
            to.into_iter().filter_map(|clauses| of_port(clauses, port)).collect();
        (!to.is_empty()).then(|| {
            Arc::new(GrantInput {
                name: grant.meta().name.clone(),
                matches: RuleMatch { from, to },
                per_identity_per_minute: spec.per_identity_per_minute,
                dry_run: spec.dry_run,
            })
        })
    }
}

/// What is left of clauses where the port of the destination is known. Its address is not: what asks
/// for one matches nothing.
fn of_port(clauses: Vec<Clause>, port: u16) -> Option<Vec<Clause>> {
    let mut open = Vec::new();
    for clause in clauses {
        match &clause.attribute {
            Attribute::Key(ConditionKey::DestinationPort) => {
                let own = Wanted::Value(ConditionValue::Port(port));
                let is_wanted = clause.any.is_empty() || clause.any.contains(&own);
                if !is_wanted || clause.none.contains(&own) {
                    return None;
                }
            }
            Attribute::Key(ConditionKey::DestinationIp) => return None,
            _ => open.push(clause),
        }
    }
    Some(open)
}
