//! Routes: which parents take them, and the VirtualServices that they mean.
//!
//! In:    every route, and the listeners of all Gateways.
//! Out:   one VirtualService for each parent and host, of all routes there; the status of each route;
//!        the number of routes of each listener.
//! Never: attaches a route where the listener, its namespace or its host does not allow it.

use std::collections::{BTreeMap, BTreeSet};

use sluis_nouns::{HostPattern, ObjectName};
use sluis_resources::{
    ApiRoute, ExportTo, GatewayRef, HostScope, HttpMatch, HttpRoute, Key, Kind, Meta, ParentRef,
    Resource, Spec, TcpMatch, TcpRoute, TlsMatch, TlsRoute, VirtualService,
};

use super::{
    Converted,
    gateways::{Parent, made_meta},
    rules::{self, Route, Rules, parent_hosts},
    status::{ApiCondition, ApiStatus, ParentStatus, Why, unless},
    world::World,
};

/// One parent of a route, as far as it is there.
struct Attached<'a> {
    written: &'a ParentRef,
    /// The listener; `None` for a service of the mesh.
    listener: Option<&'a Parent>,
    denied: Option<Why>,
    /// Hosts of other listeners of the same port, which keep theirs.
    others: Vec<HostPattern>,
    /// Of a service: its hosts, and whether it is of the route's own namespace.
    hosts: Vec<HostPattern>,
    is_producer: bool,
}

/// A VirtualService as it grows out of all routes of one parent and host.
struct Growing {
    meta: Meta,
    spec: VirtualService,
}

pub(super) fn convert(world: &World<'_>, parents: &[Parent], converted: &mut Converted) {
    let mut routes: Vec<(&Resource, &ApiRoute)> = Vec::new();
    for resource in world.resources.values() {
        if let Spec::HttpRoute(route)
        | Spec::GrpcRoute(route)
        | Spec::TlsRoute(route)
        | Spec::TcpRoute(route) = &resource.spec
        {
            routes.push((&**resource, route));
        }
    }
    // The oldest first, then by name: the Gateway API's order among equal matches.
    routes.sort_by_key(|(resource, _)| {
        let name = &resource.meta.name;
        (resource.meta.created.unwrap_or(0), name.namespace.clone(), name.name.clone())
    });
    let mut grown: BTreeMap<String, Growing> = BTreeMap::new();
    let mut counted: BTreeSet<(Key, ObjectName, String)> = BTreeSet::new();
    for (resource, route) in routes {
        let attached = attached(world, parents, resource, route);
        for one in attached.iter().filter(|one| one.denied.is_none()) {
            if let Some(listener) = one.listener {
                let section = listener.section.clone();
                counted.insert((resource.key(), listener.gateway.clone(), section));
            }
        }
        let status = one_route(world, resource, route, &attached, &mut grown);
        converted.statuses.insert(resource.key(), status);
    }
    for (_, gateway, section) in counted {
        let key = Key { kind: Kind::KubernetesGateway, name: gateway };
        let listeners = converted.statuses.get_mut(&key).map(|status| &mut status.listeners);
        for listener in listeners.into_iter().flatten().filter(|one| one.name == section) {
            listener.attached_routes += 1;
        }
    }
    for growing in grown.into_values() {
        let Growing { meta, mut spec } = growing;
        rules::sort(&mut spec.http);
        converted.resources.push(Resource { meta, spec: Spec::VirtualService(spec) }.into());
    }
}

fn attached<'a>(
    world: &World<'_>,
    parents: &'a [Parent],
    resource: &'a Resource,
    route: &'a ApiRoute,
) -> Vec<Attached<'a>> {
    let own = &resource.meta.name.namespace;
    let mut all = Vec::new();
    for written in &route.parents {
        let object = &written.object;
        let namespace = object.namespace.as_deref().unwrap_or(own);
        let group = object.group.as_deref().unwrap_or("gateway.networking.k8s.io");
        match (group, object.kind.as_deref().unwrap_or("Gateway")) {
            ("gateway.networking.k8s.io", "Gateway") => {
                let gateway = ObjectName::new(namespace, object.name.as_str());
                let listeners: Vec<&Parent> =
                    parents.iter().filter(|parent| parent.gateway == gateway).collect();
                for listener in &listeners {
                    all.push(Attached {
                        written,
                        listener: Some(listener),
                        denied: denied(resource, route, written, listener),
                        others: others(&listeners, listener),
                        hosts: Vec::new(),
                        is_producer: true,
                    });
                }
            }
            ("", "Service") => all.push(of_mesh(world, resource, written, namespace, false)),
            ("networking.istio.io", "ServiceEntry") => {
                all.push(of_mesh(world, resource, written, namespace, true));
            }
            // Of another controller.
            _ => {}
        }
    }
    all
}

fn of_mesh<'a>(
    world: &World<'_>,
    resource: &Resource,
    written: &'a ParentRef,
    namespace: &str,
    is_entry: bool,
) -> Attached<'a> {
    let name = &written.object.name;
    let exists = match is_entry {
        true => world.entry(namespace, name).is_some(),
        false => world.service(namespace, name).is_some(),
    };
    let what = if is_entry { "ServiceEntry" } else { "Service" };
    let message = format!("there is no {what} {namespace}/{name}");
    Attached {
        written,
        listener: None,
        denied: (!exists).then(|| Why::new("NoMatchingParent", message)),
        others: Vec::new(),
        hosts: parent_hosts(world, is_entry, namespace, name),
        is_producer: *resource.meta.name.namespace == *namespace,
    }
}

/// Hosts of other listeners of the same port and protocol.
fn others(listeners: &[&Parent], own: &Parent) -> Vec<HostPattern> {
    let is_rival = |other: &&&Parent| {
        other.section != own.section && other.port == own.port && other.protocol == own.protocol
    };
    let hosts = listeners.iter().filter(is_rival).filter_map(|other| other.hostname.clone());
    hosts.filter(|host| Some(host) != own.hostname.as_ref()).collect()
}

/// Why a listener does not take a route.
fn denied(
    resource: &Resource,
    route: &ApiRoute,
    written: &ParentRef,
    listener: &Parent,
) -> Option<Why> {
    if let Some(port) = written.port.filter(|port| *port != listener.port) {
        return Some(Why::new("NoMatchingParent", format!("port {port} not found")));
    }
    if let Some(section) = written.section.as_ref().filter(|name| **name != listener.section) {
        return Some(Why::new("NoMatchingParent", format!("sectionName {section:?} not found")));
    }
    let own = &*resource.meta.name.namespace;
    let any = [HostPattern::any()];
    let hosts = if route.hostnames.is_empty() { &any[..] } else { &route.hostnames };
    let (mut is_host, mut is_allowed) = (false, false);
    for taken in &listener.hosts {
        if hosts.iter().any(|host| host.overlaps(&taken.host)) {
            is_host = true;
            is_allowed |= match &taken.scope {
                HostScope::Any => true,
                HostScope::Same => false,
                HostScope::Namespace(name) => name == own,
            };
        }
    }
    if !is_host {
        let message = "no hostname of the route is one of the listener's";
        return Some(Why::new("NoMatchingListenerHostname", message));
    }
    if !is_allowed {
        let message = format!("the listener does not allow routes of namespace {own}");
        return Some(Why::new("NotAllowedByListeners", message));
    }
    let kind = resource.meta.kind.as_str();
    let message = format!("the listener does not allow routes of kind {kind}");
    let is_allowed = listener.kinds.contains(&kind);
    (!is_allowed).then(|| Why::new("NotAllowedByListeners", message))
}

/// Whether a host of a route is the listener's, and no other listener has a narrower claim to it.
fn is_own_host(one: &Attached<'_>, host: &HostPattern) -> bool {
    let own = one.listener.and_then(|listener| listener.hostname.as_ref());
    if own.is_some_and(|own| !own.is_wildcard()) {
        return true;
    }
    if own.is_some_and(|own| !own.overlaps(host)) {
        return false;
    }
    let length = own.map_or(0, |own| own.as_str().len());
    !one.others.iter().any(|other| length <= other.as_str().len() && other.covers(host))
}

/// What the rules of a route become.
enum Made {
    Http(Rules<HttpRoute>),
    Bytes(Rules<Vec<sluis_resources::L4Destination>>),
}

impl Made {
    fn why(&self) -> Option<&Why> {
        match self {
            Self::Http(rules) => rules.why.as_ref(),
            Self::Bytes(rules) => rules.why.as_ref(),
        }
    }
}

fn one_route(
    world: &World<'_>,
    resource: &Resource,
    spec: &ApiRoute,
    attached: &[Attached<'_>],
    grown: &mut BTreeMap<String, Growing>,
) -> ApiStatus {
    let kind = resource.meta.kind;
    let made = |is_mesh: bool| {
        let route = Route { meta: &resource.meta, spec, kind: kind.as_str(), is_mesh };
        match kind {
            Kind::HttpRoute | Kind::GrpcRoute => Made::Http(rules::http(world, &route)),
            _ => Made::Bytes(rules::bytes(world, &route)),
        }
    };
    let needs = |is_mesh: bool| attached.iter().any(|one| one.listener.is_none() == is_mesh);
    let of_mesh = needs(true).then(|| made(true));
    let of_gateways = needs(false).then(|| made(false));
    let of = |one: &Attached<'_>| match one.listener {
        None => of_mesh.as_ref(),
        Some(_) => of_gateways.as_ref(),
    };
    for one in attached.iter().filter(|one| one.denied.is_none()) {
        match of(one) {
            Some(Made::Http(rules)) => http(resource, spec, one, &rules.routes, grown),
            Some(Made::Bytes(rules)) => bytes(resource, spec, one, &rules.routes, grown),
            None => {}
        }
    }
    let mut parents: Vec<ParentStatus> = Vec::new();
    for one in attached {
        if parents.iter().any(|known| is_same(&known.parent, one.written)) {
            continue;
        }
        let all = attached.iter().filter(|other| is_same(other.written, one.written));
        let denied = worst(all.map(|other| other.denied.as_ref()));
        let why = of(one).and_then(Made::why);
        let conditions: Vec<ApiCondition> = vec![
            unless("Accepted", "the route is valid", denied),
            unless("ResolvedRefs", "all references are resolved", why),
        ];
        parents.push(ParentStatus { parent: one.written.clone(), conditions });
    }
    ApiStatus { parents, ..ApiStatus::default() }
}

fn is_same(one: &ParentRef, other: &ParentRef) -> bool {
    let object = |of: &ParentRef| {
        let object = &of.object;
        (object.group.clone(), object.kind.clone(), object.namespace.clone(), object.name.clone())
    };
    object(one) == object(other) && one.section == other.section && one.port == other.port
}

/// What is told of a parent with several listeners: nothing is wrong when one takes the route, and
/// else what comes nearest to it.
fn worst<'w>(all: impl Iterator<Item = Option<&'w Why>>) -> Option<&'w Why> {
    let rank = |why: &Option<&Why>| match why.map(|why| why.reason) {
        None => 0,
        Some("NotAllowedByListeners") => 1,
        Some("NoMatchingListenerHostname") => 2,
        Some(_) => 3,
    };
    all.min_by_key(rank).flatten()
}

/// The VirtualService of a parent and host, which is begun by its oldest route.
fn grow<'g>(
    grown: &'g mut BTreeMap<String, Growing>,
    key: &str,
    resource: &Resource,
    one: &Attached<'_>,
    host: &HostPattern,
) -> &'g mut VirtualService {
    let name = key.replace('/', "~");
    let growing = grown.entry(key.to_owned()).or_insert_with(|| {
        let name = ObjectName::new(resource.meta.name.namespace.clone(), name);
        let gateway = match one.listener {
            Some(listener) => GatewayRef::Gateway(listener.made.clone()),
            None => GatewayRef::Mesh,
        };
        // A consumer's route is for its own namespace alone.
        let export_to = if one.is_producer { Vec::new() } else { vec![ExportTo::Same] };
        Growing {
            meta: made_meta(&resource.meta, Kind::VirtualService, &name),
            spec: VirtualService {
                hosts: vec![host.clone()],
                gateways: vec![gateway],
                export_to,
                http: Vec::new(),
                tls: Vec::new(),
                tcp: Vec::new(),
            },
        }
    });
    &mut growing.spec
}

/// What routes of one parent are put together by, as Istio has it.
fn parent_key(resource: &Resource, one: &Attached<'_>) -> String {
    let namespace = &resource.meta.name.namespace;
    match (one.listener, one.written.port) {
        // VirtualServices of several namespaces for one host are put together.
        (Some(listener), _) => format!("{}/{}", listener.made.namespace, listener.made.name),
        (None, Some(port)) => format!("{namespace}/{port}"),
        (None, None) => namespace.to_string(),
    }
}

fn http(
    resource: &Resource,
    spec: &ApiRoute,
    one: &Attached<'_>,
    routes: &[HttpRoute],
    grown: &mut BTreeMap<String, Growing>,
) {
    if routes.is_empty() {
        return;
    }
    let any = [HostPattern::any()];
    let hosts = match one.listener {
        None => &one.hosts[..],
        Some(_) if spec.hostnames.is_empty() => &any[..],
        Some(_) => &spec.hostnames,
    };
    let port = one.written.port.filter(|_| one.listener.is_none());
    for host in hosts.iter().filter(|host| is_own_host(one, host)) {
        let key = format!("{}/{host}", parent_key(resource, one));
        let made = grow(grown, &key, resource, one, host);
        made.http.extend(routes.iter().map(|route| with_port(route.clone(), port)));
    }
}

fn with_port(mut route: HttpRoute, port: Option<u16>) -> HttpRoute {
    if port.is_some() {
        if route.matches.is_empty() {
            route.matches.push(HttpMatch { at: route.at.clone(), ..HttpMatch::default() });
        }
        for wanted in &mut route.matches {
            wanted.port = port;
        }
    }
    route
}

fn bytes(
    resource: &Resource,
    spec: &ApiRoute,
    one: &Attached<'_>,
    routes: &[Vec<sluis_resources::L4Destination>],
    grown: &mut BTreeMap<String, Growing>,
) {
    let is_tls = resource.meta.kind == Kind::TlsRoute;
    let any = vec![HostPattern::any()];
    let written = if spec.hostnames.is_empty() { &any } else { &spec.hostnames };
    let port = one.written.port.filter(|_| one.listener.is_none());
    let own = one.listener.and_then(|listener| listener.hostname.as_ref());
    let hosts: Vec<HostPattern> = match (one.listener, own) {
        (None, _) => one.hosts.clone(),
        (Some(_), Some(own)) if is_tls => {
            written.iter().filter_map(|host| narrower(host, own)).collect()
        }
        (Some(_), _) if is_tls => written.clone(),
        (Some(_), _) => any.clone(),
    };
    let name = &resource.meta.name;
    for (index, host) in hosts.iter().enumerate() {
        let kind = if is_tls { "tls" } else { "tcp" };
        let key = format!(
            "{}/{kind}/{}/{}/{index}",
            parent_key(resource, one),
            name.namespace,
            name.name
        );
        let sni: Vec<HostPattern> = match one.listener {
            // For the mesh the names are those of the service where the route has none.
            None if spec.hostnames.is_empty() => vec![host.clone()],
            None => written.iter().filter(|name| name.overlaps(host)).cloned().collect(),
            Some(_) => vec![host.clone()],
        };
        let made = grow(grown, &key, resource, one, host);
        for (route, rule) in routes.iter().zip(&spec.rules) {
            let at = rule.at.clone();
            if is_tls {
                let wanted = tls_match(&at, sni.clone(), port);
                let route = route.clone();
                made.tls.push(TlsRoute { at, matches: vec![wanted], route });
            } else {
                let matches = port.map(|port| tcp_match(&at, port)).into_iter().collect();
                made.tcp.push(TcpRoute { at, matches, route: route.clone() });
            }
        }
    }
}

fn narrower(one: &HostPattern, other: &HostPattern) -> Option<HostPattern> {
    if other.covers(one) {
        return Some(one.clone());
    }
    one.covers(other).then(|| other.clone())
}

fn tls_match(
    at: &sluis_nouns::SourceRef,
    sni_hosts: Vec<HostPattern>,
    port: Option<u16>,
) -> TlsMatch {
    TlsMatch {
        at: at.clone(),
        sni_hosts,
        destination_subnets: Vec::new(),
        port,
        gateways: Vec::new(),
        source_labels: sluis_nouns::Labels::new(),
        source_namespace: None,
    }
}

fn tcp_match(at: &sluis_nouns::SourceRef, port: u16) -> TcpMatch {
    TcpMatch {
        at: at.clone(),
        destination_subnets: Vec::new(),
        port: Some(port),
        gateways: Vec::new(),
        source_labels: sluis_nouns::Labels::new(),
        source_namespace: None,
    }
}
