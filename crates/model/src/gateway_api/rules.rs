//! Rules of routes, in the terms of VirtualService.
//!
//! In:    one route, and whether it is for gateways or for the mesh.
//! Out:   routes in the order of the Gateway API's precedence; what is wrong with their backends.
//! Never: leaves out the share of a backend that cannot be used: its requests are answered 500.

use std::cmp::Reverse;

use sluis_nouns::HostPattern;
use sluis_resources::{
    ApiRoute, ApiRule, BackendRef, Destination, DirectResponse, HttpAction, HttpMatch, HttpRoute,
    L4Destination, Meta, Mirror, StringMatch, WeightedDestination,
};

use super::{
    NO_BACKEND,
    status::{Why, joined, named},
    world::{World, service_host},
};

/// What is answered where no backend can be used, by the Gateway API.
const NO_BACKEND_STATUS: u16 = 500;

/// A route on its way into the terms of VirtualService.
pub(super) struct Route<'a> {
    pub(super) meta: &'a Meta,
    pub(super) spec: &'a ApiRoute,
    /// The kind as it is written.
    pub(super) kind: &'static str,
    /// Whether it is for sidecars. There references need no grant, as in Istio.
    pub(super) is_mesh: bool,
}

/// Rules, and what is wrong with them. Nothing is made of rules that cannot be carried out at all.
pub(super) struct Rules<T> {
    pub(super) routes: Vec<T>,
    pub(super) why: Option<Why>,
}

/// The rules of an HTTPRoute or GRPCRoute, one route for each match.
pub(super) fn http(world: &World<'_>, route: &Route<'_>) -> Rules<HttpRoute> {
    let mut rules = Rules { routes: Vec::new(), why: None };
    for (index, rule) in route.spec.rules.iter().enumerate() {
        match http_rule(world, route, rule, index) {
            Ok((made, why)) => {
                let matches: Vec<Vec<HttpMatch>> = match rule.matches.as_slice() {
                    [] => vec![Vec::new()],
                    some => some.iter().map(|one| vec![one.clone()]).collect(),
                };
                let made = matches.into_iter().map(|matches| HttpRoute { matches, ..made.clone() });
                rules.routes.extend(made);
                rules.why = why.or(rules.why);
            }
            Err(why) => return Rules { routes: Vec::new(), why: Some(why) },
        }
    }
    sort(&mut rules.routes);
    rules
}

/// Puts routes in the Gateway API's order: exact path, then the longest prefix, then an expression; a
/// method; more headers; more parameters. The sort is stable: among equals the order stays.
pub(super) fn sort(routes: &mut [HttpRoute]) {
    routes.sort_by_key(|route| {
        let rank = route.matches.first().map(|wanted| {
            let (rank, length) = match &wanted.uri {
                Some(StringMatch::Exact(path)) => (3, path.len()),
                Some(StringMatch::Prefix(path)) => (2, path.len()),
                Some(StringMatch::Regex(path)) => (1, path.len()),
                None => (0, 0),
            };
            let has_method = wanted.method.is_some();
            (rank, length, has_method, wanted.headers.len(), wanted.query_params.len())
        });
        // What matches everything comes last.
        Reverse(rank)
    });
}

type Made<T> = Result<(T, Option<Why>), Why>;

fn http_rule(
    world: &World<'_>,
    route: &Route<'_>,
    rule: &ApiRule,
    index: usize,
) -> Made<HttpRoute> {
    let meta = route.meta;
    let mut why_mirror = None;
    let mut mirrors = Vec::new();
    for mirror in &rule.mirrors {
        match destination(world, route, &mirror.backend)? {
            (destination, None) => {
                mirrors.push(Mirror { destination, percentage: mirror.share });
            }
            (_, why) => why_mirror = why,
        }
    }
    let mut made = HttpRoute {
        at: rule.at.clone(),
        name: Some(
            rule.name
                .clone()
                .unwrap_or_else(|| format!("{}.{}.{index}", meta.name.namespace, meta.name.name)),
        ),
        matches: Vec::new(),
        action: HttpAction::DirectResponse(DirectResponse {
            status: NO_BACKEND_STATUS,
            body: None,
        }),
        rewrite: rule.rewrite.clone(),
        timeout: rule.timeout.filter(|timeout| !timeout.is_zero()),
        retries: rule.retries.clone(),
        fault: None,
        mirrors,
        cors: rule.cors.clone(),
        headers: rule.headers.clone(),
    };
    if let Some(timeout) = rule.backend_timeout.filter(|timeout| !timeout.is_zero()) {
        match &mut made.retries {
            Some(retries) => retries.per_try_timeout = Some(timeout),
            None => made.timeout = Some(timeout),
        }
    }
    if let Some(redirect) = &rule.redirect {
        made.action = HttpAction::Redirect(redirect.clone());
        return Ok((made, why_mirror));
    }
    let mut why = None;
    let mut targets = Vec::new();
    for backend in rule.backends.iter().filter(|backend| backend.weight > 0) {
        let (destination, one) = destination(world, route, backend)?;
        why = one.or(why);
        targets.push(WeightedDestination {
            destination,
            weight: backend.weight,
            headers: backend.headers.clone(),
        });
    }
    if !targets.is_empty() {
        made.action = HttpAction::Route(targets);
    }
    Ok((made, joined(why, why_mirror)))
}

/// The destinations of each rule of a TLSRoute or TCPRoute.
pub(super) fn bytes(world: &World<'_>, route: &Route<'_>) -> Rules<Vec<L4Destination>> {
    let mut rules = Rules { routes: Vec::new(), why: None };
    for rule in &route.spec.rules {
        let mut targets = Vec::new();
        for backend in rule.backends.iter().filter(|backend| backend.weight > 0) {
            match destination(world, route, backend) {
                Ok((destination, why)) => {
                    rules.why = why.or(rules.why);
                    targets.push(L4Destination { destination, weight: backend.weight });
                }
                Err(why) => return Rules { routes: Vec::new(), why: Some(why) },
            }
        }
        if targets.is_empty() {
            // Connections to a cluster that is not there are closed.
            if let Some(destination) = nowhere(rule) {
                targets.push(L4Destination { destination, weight: 1 });
            }
        }
        rules.routes.push(targets);
    }
    rules
}

fn nowhere(rule: &ApiRule) -> Option<Destination> {
    let host = NO_BACKEND.parse().ok()?;
    Some(Destination { at: rule.at.clone(), host, subset: None, port: None })
}

/// Where a backend is, and why it cannot be used. An error is one that spoils the whole route.
fn destination(
    world: &World<'_>,
    route: &Route<'_>,
    backend: &BackendRef,
) -> Result<(Destination, Option<Why>), Why> {
    let reference = &backend.object;
    let own = &*route.meta.name.namespace;
    let namespace = reference.namespace.as_deref().unwrap_or(own);
    let (group, kind) =
        (reference.group.as_deref().unwrap_or(""), reference.kind.as_deref().unwrap_or("Service"));
    let invalid = |message: String| Why::new("InvalidDestination", message);
    let to = |host: HostPattern, why: Option<Why>| {
        let at = reference.at.clone();
        (Destination { at, host, subset: None, port: backend.port }, why)
    };
    let refuse = |reason: &'static str, message: &str| {
        let host = NO_BACKEND.parse().map_err(|error| invalid(format!("{error}")))?;
        let why = Why::new(reason, format!("backendRef {}: {message}", named(reference)));
        Ok(to(host, Some(why)))
    };
    if !route.is_mesh
        && namespace != own
        && !world.is_granted((route.kind, own), (group, kind, namespace, &reference.name))
    {
        return refuse("RefNotPermitted", "no ReferenceGrant lets this route use it");
    }
    let (host, exists) = match (group, kind) {
        ("", "Service") | ("multicluster.x-k8s.io", "ServiceImport") => {
            if reference.name.contains('.') {
                return Err(invalid(format!("{:?}: the Service's name is meant", reference.name)));
            }
            let exists = world.service(namespace, &reference.name).is_some();
            (service_host(namespace, &reference.name), exists)
        }
        ("networking.istio.io", "Hostname") => {
            if reference.namespace.is_some() {
                return Err(invalid("a Hostname takes no namespace".to_owned()));
            }
            let exists = world.host(&reference.name, namespace).is_some();
            (reference.name.parse().ok(), exists)
        }
        ("networking.istio.io", "ServiceEntry") => {
            let entry = world.entry(namespace, &reference.name);
            let host = entry.and_then(|entry| entry.hosts.first()).cloned();
            let exists = host.is_some();
            (host.or_else(|| NO_BACKEND.parse().ok()), exists)
        }
        _ => return refuse("InvalidKind", "this kind is not supported as a backend"),
    };
    let host = host.ok_or_else(|| invalid(format!("{:?} is not a host", reference.name)))?;
    if backend.port.is_none() {
        return Err(invalid("a backendRef needs a port".to_owned()));
    }
    let message = format!("backend {host} does not exist");
    let why = (!exists).then(|| Why::new("BackendNotFound", message));
    Ok(to(host, why))
}

/// The hosts of a service of the mesh that is a parent.
pub(super) fn parent_hosts(
    world: &World<'_>,
    is_entry: bool,
    namespace: &str,
    name: &str,
) -> Vec<HostPattern> {
    if is_entry {
        return world.entry(namespace, name).map(|entry| entry.hosts.clone()).unwrap_or_default();
    }
    service_host(namespace, name).into_iter().collect()
}
