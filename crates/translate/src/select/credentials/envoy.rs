//! Credentials at a gateway that is a real Envoy: what its own filters can say, and nothing else.
//!
//! In:    the credentials of one cluster, and the routes that lead there.
//! Out:   the one that Envoy's `credential_injector` adds; the routes, which hold to its grants.
//! Never: leaves out a part of a credential: what Envoy cannot do is refused with the whole cluster.

use std::sync::Arc;

use sluis_model::Owned;
use sluis_resources::{Credential, Injection};

use super::{
    super::secret_names::{Form, form_name},
    Refused, Selection,
};
use crate::{
    Attribute, AuthorizationInput, ClusterInput, CredentialInput, CredentialsInput,
    EnvoyCredential, Fault, Forward, GrantInput, Handler, ListenerInput, PolicySet, RouteAction,
    RouteTable, RuleInput,
};

/// The annotation, and the key of node metadata, by which a proxy is a real Envoy.
const PROXY: &str = "sluis.dev/proxy";
const ENVOY: &str = "envoy";

/// Whether the proxy is a real Envoy.
pub(super) fn is_envoy(selection: &Selection<'_>) -> bool {
    let view = selection.view;
    let of_workload = selection.snapshot.workload(&view.name);
    let written = of_workload.and_then(|workload| workload.meta().annotations.get(PROXY));
    let written = written.or_else(|| view.node.metadata.get(PROXY));
    !view.node.is_ours && written.is_some_and(|kind| kind == ENVOY)
}

/// The one credential of a cluster, as far as Envoy can be trusted with it. Routes to the cluster let
/// through what its grants cover.
pub(super) fn one(
    mut made: Vec<CredentialInput>,
    guarded: &[&Owned<Credential>],
    cluster: &ClusterInput,
    tables: &mut [RouteTable],
    listeners: &mut [ListenerInput],
) -> Result<CredentialsInput, Refused> {
    let owner = guarded[0];
    let refused = |field: &str, message: &str| -> Refused {
        let message = format!("a real Envoy {message}");
        let fault = Fault::error(owner.meta().at.clone(), message).field(field);
        (owner.clone(), Box::new(fault.help("sluis-proxy does it")))
    };
    if made.len() != 1 {
        return Err(refused("spec.guard.hosts", "cannot choose among the credentials of a host"));
    }
    let mut credential = made.remove(0);
    check(&credential, owner.spec(), cluster).map_err(|(field, why)| refused(field, why))?;
    let routes = || tables.iter().flat_map(|table| &table.hosts).flat_map(|host| &host.routes);
    for route in routes() {
        let Some(forward) = leads(&route.action, &cluster.name) else { continue };
        check_route(&credential, forward, &cluster.name)
            .map_err(|why| refused("spec.guard.hosts", why))?;
        if route.guard.as_ref().is_some_and(|guard| guard.allow.enforced.is_some()) {
            let why = "has one list of what is allowed on a route, which a policy has taken";
            return Err(refused("spec.guard.hosts", why));
        }
    }
    let (form, header, prefix) = match &credential.injection {
        Injection::Header(one) => {
            (Form::Value(one.key.clone()), one.name.clone(), one.prefix.clone())
        }
        Injection::Basic(one) => {
            let form = Form::Basic(one.username_key.clone(), one.password_key.clone());
            (form, one.header.clone(), "Basic ".to_owned())
        }
        _ => return Err(refused("spec.inject", "cannot add this kind of credential")),
    };
    credential.secret = form_name(&credential.name, &form);
    credential.previous_secret = None;
    let allow = allowed(&credential);
    let mut guarded_tables = Vec::new();
    for table in tables {
        for route in table.hosts.iter_mut().flat_map(|host| &mut host.routes) {
            if leads(&route.action, &cluster.name).is_some() {
                let guard = route.guard.as_deref().cloned().unwrap_or_default();
                route.guard = Some(Arc::new(AuthorizationInput { allow: allow.clone(), ..guard }));
                guarded_tables.push(table.name.clone());
            }
        }
    }
    for chain in listeners.iter_mut().flat_map(|listener| &mut listener.chains) {
        if let Handler::Http { routes, .. } = &chain.handler {
            chain.has_guards |= guarded_tables.contains(routes);
        }
    }
    Ok(CredentialsInput::Envoy(Box::new(EnvoyCredential { credential, header, prefix })))
}

/// The grants as an ALLOW policy.
fn allowed(credential: &CredentialInput) -> PolicySet {
    let rules = |dry_run: bool| -> Vec<RuleInput> {
        let grants = credential.grants.iter().filter(|grant| grant.dry_run == dry_run);
        let rule = |grant: &Arc<GrantInput>| RuleInput {
            id: format!("ns[{}]-grant[{}]", grant.name.namespace, grant.name.name),
            matches: Some(grant.matches.clone()),
        };
        grants.map(rule).collect()
    };
    PolicySet {
        enforced: Some(rules(false)),
        dry_run: Some(rules(true)).filter(|all| !all.is_empty()),
    }
}

/// What Envoy cannot do of a credential: the field, and why.
fn check(
    credential: &CredentialInput,
    written: &Credential,
    cluster: &ClusterInput,
) -> Result<(), (&'static str, &'static str)> {
    if credential.scan_response_bytes > 0 {
        return Err(("spec.guard.scanResponse", "cannot search answers"));
    }
    if credential.grants.iter().any(|grant| grant.per_identity_per_minute > 0) {
        return Err(("spec.guard", "cannot count uses by identity, as a grant asks"));
    }
    let is_exact = cluster
        .host
        .parse()
        .is_ok_and(|host| written.guard.hosts.iter().any(|guard| guard.covers(&host)));
    if !is_exact {
        return Err(("spec.guard.hosts", "cannot guard some of the hosts of a wildcard"));
    }
    Ok(())
}

/// The forwarding that leads to a cluster, copies among it.
fn leads<'r>(action: &'r RouteAction, cluster: &str) -> Option<&'r Forward> {
    let RouteAction::Forward(forward) = action else { return None };
    let is_meant = |name: &str| name == cluster;
    let is_led = forward.targets.iter().any(|target| is_meant(&target.cluster))
        || forward.mirrors.iter().any(|mirror| is_meant(&mirror.cluster));
    is_led.then_some(forward)
}

/// Why a route cannot lead there: grants are of the request as it is sent, and Envoy asks before.
fn check_route(
    credential: &CredentialInput,
    forward: &Forward,
    cluster: &str,
) -> Result<(), &'static str> {
    if forward.mirrors.iter().any(|mirror| mirror.cluster == cluster) {
        return Err("would add it to copies of requests");
    }
    let reads = |wanted: &[Attribute]| {
        let grants = credential.grants.iter().flat_map(|grant| &grant.matches.to);
        grants.flatten().any(|clause| wanted.contains(&clause.attribute))
    };
    let changes_host = forward.host_rewrite.is_some()
        || forward.targets.iter().any(|target| target.host_rewrite.is_some());
    if changes_host && reads(&[Attribute::Host]) {
        return Err("asks grants before a route rewrites the host");
    }
    let changes_path = forward.path_rewrite.is_some() || forward.regex_rewrite.is_some();
    if changes_path && reads(&[Attribute::Path]) {
        return Err("asks grants before a route rewrites the path");
    }
    Ok(())
}
