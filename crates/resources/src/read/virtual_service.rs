//! Reads VirtualService: the whole, and its routes for TLS and TCP. HTTP routes are in [`http`].

pub(super) mod checks;
mod http;

use sluis_nouns::{DisjointHosts, HostPattern, ObjectName, is_dns_label, is_dns_name};

use super::forms::{checked, read_fields};
use super::shared::{Exporter, check_labels, export_to, service_host, some_of};
use crate::kinds::virtual_service::{
    Destination, GatewayRef, HttpAction, HttpRoute, L4Destination, TcpMatch, TcpRoute, TlsMatch,
    TlsRoute, VirtualService,
};
use crate::value::{Fields, Read, Value};

read_fields! {
    VirtualService => virtual_service,
    TlsRoute => tls_route,
    TlsMatch => tls_match,
    TcpRoute => tcp_route,
    TcpMatch => tcp_match,
    L4Destination => l4_destination,
    Destination => destination,
    Port => port,
}

fn virtual_service(fields: &mut Fields<'_, '_>) -> Option<VirtualService> {
    let mut gateways: Vec<GatewayRef> = fields.or_default("gateways");
    let delegate = !fields.has("hosts");
    if delegate {
        check_delegate(fields);
    }
    if gateways.is_empty() {
        gateways.push(GatewayRef::Mesh);
    }
    let service = VirtualService {
        hosts: fields.or_default("hosts"),
        gateways,
        export_to: export_to(fields, Exporter::Rule),
        http: fields.or_default("http"),
        tls: fields.or_default("tls"),
        tcp: fields.or_default("tcp"),
    };
    let written = ["http", "tls", "tcp"].map(|name| fields.get(name).is_some_and(|v| v.is_set()));
    if !written.contains(&true) {
        fields.fault_at("http", "one of http, tls and tcp is required");
    }
    if delegate {
        check_no_delegate(fields);
    } else {
        check_hosts(fields, &service);
        check_sni_hosts(fields, &service);
    }
    check_reachable(fields, &service);
    check_sources(fields, &service);
    Some(service)
}

/// A VirtualService without hosts is the target of a delegate: it has HTTP routes and no more.
fn check_delegate(fields: &mut Fields<'_, '_>) {
    for name in ["gateways", "tls", "tcp"] {
        if let Some(value) = fields.get(name) {
            value.fault::<()>("without hosts (the target of a delegate) this cannot be set");
        }
    }
}

fn check_hosts(fields: &mut Fields<'_, '_>, service: &VirtualService) {
    let Some(list) = fields.get("hosts") else { return };
    let items = list.items().unwrap_or_default();
    if items.is_empty() {
        list.fault::<()>("this list must not be empty");
    }
    let in_mesh = service.gateways.contains(&GatewayRef::Mesh);
    let only_mesh = service.gateways.iter().all(|gateway| *gateway == GatewayRef::Mesh);
    let mut disjoint = DisjointHosts::default();
    for (host, item) in service.hosts.iter().zip(items) {
        if host.is_any() && only_mesh {
            item.fault::<()>("the host '*' is not possible for the sidecars (gateway mesh)");
        } else if host.is_any() && in_mesh {
            item.warn("the host '*' has no effect for the sidecars (gateway mesh)");
        }
        // Istio refuses overlapping ones too.
        if let Some(other) = disjoint.add(host) {
            let message = match *host == other {
                true => format!("the host {host} is there twice"),
                false => format!("the host {host} overlaps with {other}"),
            };
            item.fault::<()>(message);
        }
    }
}

/// A delegate's routes lead no further.
fn check_no_delegate(fields: &mut Fields<'_, '_>) {
    for route in fields.get("http").and_then(|value| value.items()).unwrap_or_default() {
        if let Some(value) = entry(&route, "delegate") {
            value.fault::<()>("the target of a delegate cannot delegate");
        }
    }
}

/// Istio: each SNI host must be one of the hosts, or fall under one of them.
fn check_sni_hosts(fields: &mut Fields<'_, '_>, service: &VirtualService) {
    let routes = fields.get("tls").and_then(|value| value.items()).unwrap_or_default();
    for (route, value) in service.tls.iter().zip(routes) {
        for (index, matched) in route.matches.iter().enumerate() {
            for sni in &matched.sni_hosts {
                if sni.ip().is_some() {
                    value.warn(format!("{sni} is an address, which few clients send as SNI"));
                    continue;
                }
                if !service.hosts.iter().any(|host| host.covers(sni)) {
                    value.fault::<()>(format!(
                        "the SNI host {sni} of match[{index}] is under none of the hosts"
                    ));
                }
            }
        }
    }
}

/// A route behind one that matches all is never used.
fn check_reachable(fields: &mut Fields<'_, '_>, service: &VirtualService) {
    let routes = fields.get("http").and_then(|value| value.items()).unwrap_or_default();
    let all = |route: &HttpRoute| {
        route.matches.is_empty() && !matches!(route.action, HttpAction::Delegate(_))
    };
    let Some(last) = service.http.iter().position(all) else { return };
    for value in routes.iter().skip(last + 1) {
        value.warn(format!("this route is never used: http[{last}] matches everything"));
    }
}

/// What a match says of the client holds for sidecars: a gateway has many clients and sees none of
/// their labels. Istio says nothing of it either, so here it is said.
///
/// In `http`, Istio compares with the labels and the namespace of the gateway itself, unless the match
/// names gateways.
fn check_sources(fields: &mut Fields<'_, '_>, service: &VirtualService) {
    for part in ["http", "tls", "tcp"] {
        let routes = fields.get(part).and_then(|value| value.items()).unwrap_or_default();
        let matches = routes.iter().filter_map(|route| entry(route, "match")?.items()).flatten();
        for wanted in matches {
            let own: Option<Vec<GatewayRef>> = entry(&wanted, "gateways").and_then(|v| v.read());
            if own.as_ref().unwrap_or(&service.gateways).contains(&GatewayRef::Mesh) {
                continue;
            }
            let message = if part == "http" && own.is_none() {
                "at a gateway this is compared with what the gateway itself has, as in Istio"
            } else {
                "this has no effect: a gateway does not look at it"
            };
            for name in ["sourceLabels", "sourceNamespace"] {
                if let Some(value) = entry(&wanted, name) {
                    value.warn(message);
                }
            }
        }
    }
}

/// Returns a field of a map that has been read already.
pub(super) fn entry<'n>(value: &Value<'n>, name: &str) -> Option<Value<'n>> {
    let entries = value.entries()?.into_iter().find(|(key, _)| *key == name);
    entries.map(|(_, value)| value).filter(|value| !value.is_null())
}

impl Read for GatewayRef {
    /// Reads `mesh`, `name`, `namespace/name`, or the old `name.namespace.svc…` of Istio 1.0.
    fn read(value: &Value<'_>) -> Option<Self> {
        checked(value, |text| {
            let own = value.doc.namespace.as_str();
            let (namespace, name) = match text.split_once('/') {
                _ if text == "mesh" => return Ok(Self::Mesh),
                Some((".", name)) => (own, name),
                Some((namespace, name)) => (namespace, name),
                None => match text.split_once('.') {
                    Some((name, rest)) => (rest.split('.').next().unwrap_or(own), name),
                    None => (own, text),
                },
            };
            if !(is_dns_label(namespace) && is_dns_name(name)) {
                return Err(format!("{text:?} is neither mesh, NAME nor NAMESPACE/NAME"));
            }
            Ok(Self::Gateway(ObjectName::new(namespace, name)))
        })
    }
}

fn tls_route(fields: &mut Fields<'_, '_>) -> Option<TlsRoute> {
    let matches = some_of(fields, "match");
    let route = some_of(fields, "route");
    let route = weighed(fields, route, |to: &mut L4Destination| &mut to.weight);
    Some(TlsRoute { at: fields.at(), matches: matches?, route: route? })
}

fn tls_match(fields: &mut Fields<'_, '_>) -> Option<TlsMatch> {
    if let Some(value) = fields.get("sourceLabels") {
        check_labels(&value);
    }
    let sni_hosts: Option<Vec<HostPattern>> = some_of(fields, "sniHosts");
    let partial = TlsMatch {
        at: fields.at(),
        sni_hosts: Vec::new(),
        destination_subnets: fields.or_default("destinationSubnets"),
        port: fields.opt("port"),
        gateways: fields.or_default("gateways"),
        source_labels: fields.or_default("sourceLabels"),
        source_namespace: fields.opt("sourceNamespace"),
    };
    Some(TlsMatch { sni_hosts: sni_hosts?, ..partial })
}

fn tcp_route(fields: &mut Fields<'_, '_>) -> Option<TcpRoute> {
    let matches = fields.or_default("match");
    let route = some_of(fields, "route");
    let route = weighed(fields, route, |to: &mut L4Destination| &mut to.weight);
    Some(TcpRoute { at: fields.at(), matches, route: route? })
}

fn tcp_match(fields: &mut Fields<'_, '_>) -> Option<TcpMatch> {
    fields.never_used(&["sourceSubnet"], "Istio does not look at it either");
    if let Some(value) = fields.get("sourceLabels") {
        check_labels(&value);
    }
    Some(TcpMatch {
        at: fields.at(),
        destination_subnets: fields.or_default("destinationSubnets"),
        port: fields.opt("port"),
        gateways: fields.or_default("gateways"),
        source_labels: fields.or_default("sourceLabels"),
        source_namespace: fields.opt("sourceNamespace"),
    })
}

fn l4_destination(fields: &mut Fields<'_, '_>) -> Option<L4Destination> {
    let destination = fields.req("destination");
    let weight = weight(fields);
    Some(L4Destination { destination: destination?, weight })
}

fn destination(fields: &mut Fields<'_, '_>) -> Option<Destination> {
    let host = service_host(fields, "host");
    let subset = fields.opt("subset");
    if let Some(value) = fields.get("subset")
        && value.read::<String>().is_some_and(|text| !text.is_empty() && !is_dns_label(&text))
    {
        value.fault::<()>("this is not a subset's name: it must be a DNS label");
    }
    let port = fields.opt("port").map(|Port(number)| number);
    Some(Destination { at: fields.at(), host: host?, subset, port })
}

/// `port: {number: …}`.
pub(super) struct Port(pub(super) u16);

fn port(fields: &mut Fields<'_, '_>) -> Option<Port> {
    Some(Port(fields.req("number")?))
}

/// Reads a `weight`; nothing written is 0, as in Istio, until [`weighed`] has seen the list.
fn weight(fields: &mut Fields<'_, '_>) -> u32 {
    fields.or_default("weight")
}

/// Checks the weights of `route`: with several destinations some must be above 0, and a lone
/// destination gets everything.
fn weighed<T>(
    fields: &mut Fields<'_, '_>,
    route: Option<Vec<T>>,
    weight: impl Fn(&mut T) -> &mut u32,
) -> Option<Vec<T>> {
    let mut route = route?;
    if let [only] = route.as_mut_slice() {
        let weight = weight(only);
        *weight = (*weight).max(1);
    }
    let sum: u64 = route.iter_mut().map(|to| u64::from(*weight(to))).sum();
    let written = fields.get("route")?;
    if sum == 0 {
        return written.fault("the weights of the destinations add up to 0");
    }
    if sum > u64::from(u32::MAX) {
        return written.fault("the weights of the destinations add up to more than 2^32-1");
    }
    Some(route)
}
