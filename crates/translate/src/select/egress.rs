//! The listeners of a sidecar: one for each HTTP port, one for each address and port of the others.
//!
//! In:    the egress listeners of the proxy's scope, with their services and virtual services.
//! Out:   listeners with chains, and the route tables of those that read HTTP.
//! Never: gives connections to a younger service that an older one has claimed: the fault names both.
//!
//! A port that does not say its protocol gets two chains, for HTTP and for bytes, told apart by what
//! the client sends first. So do HTTP and bytes that have to share a port of all addresses. Only where
//! the server speaks first there is nothing to tell them by, and the one that is there stays.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::{IpAddr, Ipv4Addr},
    sync::Arc,
};

use sluis_model::{EgressScope, EndpointAddress, MeshPort, MeshService, ServiceSource};
use sluis_resources::{CaptureMode, Protocol};

use super::{
    Selection,
    listeners::Listeners,
    outbound::{self, owner},
    outbound_http::{self, PLAIN_HTTP},
    speakers::Speakers,
};
use crate::{Capture, ChainInput, Fault, Handler, ListenerInput, OutboundPolicy, RouteTable};

/// What the HTTP inspector names.
pub(super) const PLAIN_HTTP_NAMES: [&str; 2] = ["http/1.1", "h2c"];

/// Where connections come in.
type Place = (IpAddr, u16);

/// The services that share one HTTP listener, each with its port.
type Shared = BTreeMap<Place, Vec<(Arc<MeshService>, MeshPort)>>;

/// The listeners and route tables of a sidecar.
pub(super) fn select(
    selection: &mut Selection<'_>,
    policy: &OutboundPolicy,
) -> (Vec<ListenerInput>, Vec<RouteTable>) {
    let Some(scope) = selection.scope.clone() else { return (Vec::new(), Vec::new()) };
    let mut made = Making { policy, ..Making::new(policy) };
    let mut sockets = Vec::new();
    for egress in &scope.listeners {
        if let Some(path) = unix_path(egress) {
            sockets.extend(on_socket(selection, egress, path, &mut made));
        } else {
            on_ports(selection, egress, &mut made);
        }
    }
    let mut listeners = made.listeners.finish(false, Some(policy));
    selection.widen(&mut listeners);
    listeners.extend(sockets);
    listeners.sort_by(|a, b| a.name.cmp(&b.name));
    (listeners, made.tables.into_values().collect())
}

/// What is made of all egress listeners together.
struct Making<'a> {
    policy: &'a OutboundPolicy,
    listeners: Listeners,
    tables: BTreeMap<String, RouteTable>,
    /// The places of egress listeners with a port of their own: what comes after stays away.
    locked: BTreeSet<Place>,
}

impl<'a> Making<'a> {
    fn new(policy: &'a OutboundPolicy) -> Self {
        Self {
            policy,
            listeners: Listeners::default(),
            tables: BTreeMap::new(),
            locked: BTreeSet::new(),
        }
    }
}

fn on_ports(selection: &mut Selection<'_>, egress: &EgressScope, made: &mut Making<'_>) {
    let speakers = Speakers::new(&egress.virtual_services);
    let mut shared = Shared::new();
    let everywhere = bind(selection, egress);
    let lone_port = egress.port.as_ref().map_or(PLAIN_HTTP, |port| port.number);
    let is_http = egress.port.as_ref().is_none_or(|port| port.protocol.is_http());
    if lone_port == PLAIN_HTTP && is_http && outbound_http::has_lone_host(selection, &speakers) {
        shared.entry((everywhere, PLAIN_HTTP)).or_default();
    }
    if egress.is_http_proxy() {
        shared.entry((everywhere, lone_port)).or_default();
    }
    let mut taken_here = BTreeSet::new();
    for service in &egress.services {
        for port in service.ports.iter().filter(|port| port.protocol != Protocol::Udp) {
            let (listened, protocol) = match &egress.port {
                Some(own) => (own.number, own.protocol),
                None => (port.number, port.protocol),
            };
            if protocol.is_http() {
                let place = (everywhere, listened);
                shared.entry(place).or_default().push((Arc::clone(service), port.clone()));
                continue;
            }
            let port = MeshPort { protocol, ..port.clone() };
            for address in addresses(selection, egress, service, &port) {
                let place = (address, listened);
                if made.locked.contains(&place) {
                    continue;
                }
                taken_here.insert(place);
                bytes(selection, &speakers, (service, &port), place, made);
                if protocol == Protocol::Unknown {
                    if address == everywhere {
                        let of_place = shared.entry(place).or_default();
                        of_place.push((Arc::clone(service), port.clone()));
                    } else {
                        alone(selection, &speakers, (service, &port), place, made);
                    }
                }
            }
        }
    }
    for (place, services) in shared {
        if !made.locked.contains(&place) {
            taken_here.insert(place);
            requests(selection, &speakers, egress, place, &services, made);
        }
    }
    for place in taken_here {
        if is_bound(selection, egress) {
            made.listeners.bind(place.0, place.1);
        }
        if egress.port.is_some() {
            made.locked.insert(place);
        }
    }
}

/// Adds the chains for bytes of a service's port.
fn bytes(
    selection: &mut Selection<'_>,
    speakers: &Speakers<'_>,
    (service, port): (&Arc<MeshService>, &MeshPort),
    (address, listened): Place,
    made: &mut Making<'_>,
) {
    for chain in outbound::chains(selection, speakers, service, port) {
        made.listeners.know(address, listened, listened);
        let is_silent = !speaks_first(port.protocol);
        let refused = made.listeners.add(address, listened, &owner(service), is_silent, chain);
        report_conflict(selection, service, port, &refused);
    }
}

/// Adds the HTTP chain of a port that does not say its protocol and has an address to itself.
fn alone(
    selection: &mut Selection<'_>,
    speakers: &Speakers<'_>,
    (service, port): (&Arc<MeshService>, &MeshPort),
    (address, listened): Place,
    made: &mut Making<'_>,
) {
    let name = format!("{}:{}", service.host, port.number);
    if !made.tables.contains_key(&name) {
        let services = [(Arc::clone(service), port.clone())];
        let mut table =
            outbound_http::table(selection, speakers, port.number, &services, made.policy);
        table.hosts.retain(|host| host.name == name);
        if let [only] = table.hosts.as_mut_slice() {
            // Whoever connects to this address means this service, whatever the Host header says.
            only.domains = vec!["*".to_owned()];
        }
        table.fallback = None;
        table.name.clone_from(&name);
        made.tables.insert(name.clone(), table);
    }
    let chain = http_chain(name, (address, listened), true);
    let refused = made.listeners.add(address, listened, &owner(service), true, chain);
    report_conflict(selection, service, port, &refused);
}

/// Adds the HTTP chain that services share, and its route table.
fn requests(
    selection: &mut Selection<'_>,
    speakers: &Speakers<'_>,
    egress: &EgressScope,
    (address, listened): Place,
    services: &[(Arc<MeshService>, MeshPort)],
    made: &mut Making<'_>,
) {
    let name = listened.to_string();
    made.listeners.know(address, listened, listened);
    let is_told_apart = made.listeners.has_rest(address, listened);
    if is_told_apart && !made.listeners.is_silent(address, listened) {
        let holder = made.listeners.holder(address, listened);
        for (service, port) in services {
            let message = format!(
                "port {listened} belongs to {holder}, whose server speaks first: HTTP cannot be told \
                 from it, and is not served"
            );
            let fault = Fault::warning(port.at.clone(), message).of(owner(service));
            selection.faults.push(fault);
        }
        return;
    }
    if !made.tables.contains_key(&name) {
        let table = if egress.is_http_proxy() {
            proxy_table(selection, speakers, listened, services, made.policy)
        } else {
            outbound_http::table(selection, speakers, listened, services, made.policy)
        };
        made.tables.insert(name.clone(), table);
    }
    let chain = http_chain(name, (address, listened), is_told_apart);
    let first = services.first().map(|(service, _)| owner(service)).unwrap_or_default();
    let refused = made.listeners.add(address, listened, &first, true, chain);
    for (service, port) in services.iter().filter(|_| !refused.is_empty()) {
        report_conflict(selection, service, port, &refused);
    }
}

/// The route table of an explicit HTTP proxy: every host with its port, on any port.
fn proxy_table(
    selection: &mut Selection<'_>,
    speakers: &Speakers<'_>,
    listened: u16,
    services: &[(Arc<MeshService>, MeshPort)],
    policy: &OutboundPolicy,
) -> RouteTable {
    let mut by_port: BTreeMap<u16, Vec<(Arc<MeshService>, MeshPort)>> = BTreeMap::new();
    for (service, port) in services {
        if port.protocol.is_http() || port.protocol == Protocol::Unknown {
            let of_port = by_port.entry(port.number).or_default();
            of_port.push((Arc::clone(service), port.clone()));
        }
    }
    let mut hosts = Vec::new();
    for (port, services) in by_port {
        let table = outbound_http::table(selection, speakers, port, &services, policy);
        hosts.extend(table.hosts.into_iter().map(|mut host| {
            let bare = if port == PLAIN_HTTP { host.domains.clone() } else { Vec::new() };
            let with_port = host.domains.iter().map(|domain| format!("{domain}:{port}"));
            host.domains = with_port.chain(bare).collect();
            host
        }));
    }
    hosts.sort_by(|a, b| a.name.cmp(&b.name));
    RouteTable {
        name: listened.to_string(),
        known_ports: vec![listened],
        gateway: None,
        hosts,
        is_port_matched: true,
        fallback: Some(policy.clone()),
    }
}

fn http_chain(routes: String, (address, listened): Place, is_told_apart: bool) -> ChainInput {
    let stat_prefix = format!("outbound_{address}_{listened};");
    let handler = Handler::Http { routes: routes.clone(), stat_prefix, is_edge: false };
    let mut chain = outbound::chain(format!("http:{routes}"), handler);
    if is_told_apart {
        chain.alpn = PLAIN_HTTP_NAMES.iter().map(|name| (*name).to_owned()).collect();
        chain.is_plain_only = true;
    }
    chain
}

/// The listener of an egress listener that is bound to a unix socket.
fn on_socket(
    selection: &mut Selection<'_>,
    egress: &EgressScope,
    path: &str,
    made: &mut Making<'_>,
) -> Option<ListenerInput> {
    let speakers = Speakers::new(&egress.virtual_services);
    let is_http = egress.port.as_ref().is_some_and(|port| port.protocol.is_http());
    let mut services = Vec::new();
    for service in &egress.services {
        for port in service.ports.iter().filter(|port| port.protocol.is_http() == is_http) {
            services.push((Arc::clone(service), port.clone()));
        }
    }
    let chains = if is_http {
        let mut table = proxy_table(selection, &speakers, 0, &services, made.policy);
        path.clone_into(&mut table.name);
        made.tables.insert(path.to_owned(), table);
        let stat_prefix = format!("outbound_{path};");
        let handler = Handler::Http { routes: path.to_owned(), stat_prefix, is_edge: false };
        vec![outbound::chain(format!("http:{path}"), handler)]
    } else {
        let (service, port) = services.first()?;
        outbound::chains(selection, &speakers, service, port)
    };
    Some(ListenerInput {
        name: path.to_owned(),
        address: selection.view.wildcard(),
        additional: Vec::new(),
        port: 0,
        pipe: Some(path.to_owned()),
        is_internal: false,
        is_bound: selection.view.capture != Capture::Jail,
        known_ports: Vec::new(),
        chains,
        fallback: None,
    })
}

fn unix_path(egress: &EgressScope) -> Option<&str> {
    egress.bind.as_deref()?.strip_prefix("unix://")
}

/// The address of listeners that no service has to itself.
fn bind(selection: &Selection<'_>, egress: &EgressScope) -> IpAddr {
    let written = egress.bind.as_deref().and_then(|bind| bind.parse().ok());
    written.unwrap_or_else(|| {
        if is_bound(selection, egress) {
            IpAddr::V4(Ipv4Addr::LOCALHOST)
        } else {
            selection.view.wildcard()
        }
    })
}

/// Whether clients name the listener's own address. In a jail nothing is bound: what is sent to any
/// address there comes to the sidecar anyway.
fn is_bound(selection: &Selection<'_>, egress: &EgressScope) -> bool {
    egress.capture_mode == CaptureMode::None && selection.view.capture != Capture::Jail
}

/// The addresses at which a service that is not HTTP is claimed: those that the egress listener is
/// bound to; else the service's own, the automatic one, or those of its endpoints where clients get
/// them; else all.
fn addresses(
    selection: &Selection<'_>,
    egress: &EgressScope,
    service: &Arc<MeshService>,
    port: &MeshPort,
) -> Vec<IpAddr> {
    let everywhere = bind(selection, egress);
    if egress.bind.is_some() || egress.port.is_some() || is_bound(selection, egress) {
        return vec![everywhere];
    }
    let own = service.addresses.iter().filter(|range| range.is_host()).map(|range| range.addr());
    let mut found: Vec<IpAddr> = own.collect();
    let has_ranges = service.addresses.iter().any(|range| !range.is_host());
    if found.is_empty() && !has_ranges && selection.view.dns {
        found = selection.auto_addresses(service);
    }
    if found.is_empty() && service.is_headless && service.source == ServiceSource::Platform {
        found.extend(selection.snapshot.endpoints(service, port).iter().filter_map(|endpoint| {
            match endpoint.address {
                EndpointAddress::Ip(ip) if ip != selection.view.address => Some(ip),
                _ => None,
            }
        }));
        found.sort_unstable();
        found.dedup();
    }
    if found.is_empty() || has_ranges {
        found.push(everywhere);
    }
    found
}

/// Whether a server of this protocol sends the first bytes.
fn speaks_first(protocol: Protocol) -> bool {
    matches!(protocol, Protocol::Mysql | Protocol::Mongo)
}

fn report_conflict(
    selection: &mut Selection<'_>,
    service: &MeshService,
    port: &MeshPort,
    refused: &[(String, String)],
) {
    for (name, holder) in refused {
        let what = if name.is_empty() { "connections" } else { name };
        let message = format!(
            "port {}: {what} cannot be told from those of {holder}, which keeps them",
            port.number
        );
        selection.faults.push(Fault::warning(port.at.clone(), message).of(owner(service)));
    }
}
