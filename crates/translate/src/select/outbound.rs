//! What a sidecar does with its workload's connections: listeners by port, routes by host.
//!
//! In:    the services that the workload sees, and the VirtualServices of gateway `mesh`.
//! Out:   a listener for each HTTP port (shared) and each address and port of the others; route tables
//!        for the HTTP ports.
//! Never: lets a connection that nothing claims go anywhere but where the outbound policy says.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
    sync::Arc,
};

use sluis_model::{MeshPort, MeshService, Owned, SERVICE_DOMAIN, ServiceSource};
use sluis_nouns::{Cidr, HostPattern};
use sluis_resources::{GatewayRef, Protocol, TcpMatch, TlsMatch, VirtualService};

use super::{
    Selection, config_path,
    destination::ClusterKey,
    http::{self, Entrance},
    listeners::Listeners,
    names_gateway, tls,
};
use crate::{
    ChainInput, Fault, Handler, HeaderChanges, ListenerInput, OutboundPolicy, RouteTable, Target,
    VirtualHostInput,
};

/// The port on which Istio serves hosts that only a VirtualService knows.
const PLAIN_HTTP: u16 = 80;

/// The listeners and route tables of a sidecar.
pub(super) fn select(
    selection: &mut Selection<'_>,
    policy: OutboundPolicy,
) -> (Vec<ListenerInput>, Vec<RouteTable>) {
    let virtual_services = mesh_virtual_services(selection);
    let mut listeners = Listeners::default();
    let mut http_ports: BTreeMap<u16, Vec<(Arc<MeshService>, MeshPort)>> = BTreeMap::new();
    if virtual_services.iter().any(|owned| has_lone_host(selection, owned)) {
        http_ports.entry(PLAIN_HTTP).or_default();
    }
    for service in selection.services.clone() {
        for port in service.ports.iter().filter(|port| port.protocol != Protocol::Udp) {
            if port.protocol.is_http() {
                let of_port = http_ports.entry(port.number).or_default();
                of_port.push((Arc::clone(&service), port.clone()));
            } else {
                report_unknown(selection, &service, port);
                for chain in chains(selection, &virtual_services, &service, port) {
                    for address in addresses(selection, &service) {
                        listeners.know(address, port.number, port.number);
                        let taken = listeners.add(address, port.number, chain.clone());
                        report_conflict(selection, &service, port, &taken);
                    }
                }
            }
        }
    }
    let mut tables = Vec::new();
    for (port, services) in http_ports {
        let table = route_table(selection, &virtual_services, port, &services, policy);
        let address = selection.view.wildcard();
        let routes = table.name.clone();
        let stat_prefix = format!("outbound_{address}_{port};");
        let handler = Handler::Http { routes, stat_prefix, is_edge: false };
        listeners.know(address, port, port);
        let taken = listeners.add(address, port, chain(format!("http:{port}"), handler));
        for (service, port) in services.iter().filter(|_| !taken.is_empty()) {
            report_conflict(selection, service, port, &taken);
        }
        tables.push(table);
    }
    tables.sort_by(|a, b| a.name.cmp(&b.name));
    (listeners.finish(false, Some(policy)), tables)
}

/// The VirtualServices of gateway `mesh` that this namespace sees, the oldest first.
fn mesh_virtual_services(selection: &Selection<'_>) -> Vec<Owned<VirtualService>> {
    let mut found: Vec<Owned<VirtualService>> = Vec::new();
    for listener in selection.scope.iter().flat_map(|scope| &scope.listeners) {
        let is_new = |owned: &&Owned<VirtualService>| {
            found.iter().all(|known| known.meta().name != owned.meta().name)
        };
        let more: Vec<_> = listener.virtual_services.iter().filter(is_new).cloned().collect();
        found.extend(more);
    }
    found
}

/// Whether a VirtualService routes HTTP for a host that no service has.
fn has_lone_host(selection: &Selection<'_>, owned: &Owned<VirtualService>) -> bool {
    let namespace = &owned.meta().name.namespace;
    let is_lone = |host: &HostPattern| {
        selection.service(&host.qualified(namespace, SERVICE_DOMAIN)).is_none()
    };
    !owned.spec().http.is_empty() && owned.spec().hosts.iter().any(is_lone)
}

/// Whether a VirtualService speaks for a host, and by which of its own.
fn covering_host(owned: &Owned<VirtualService>, host: &HostPattern) -> Option<HostPattern> {
    let namespace = &owned.meta().name.namespace;
    let mut hosts: Vec<HostPattern> = owned
        .spec()
        .hosts
        .iter()
        .map(|host| host.qualified(namespace, SERVICE_DOMAIN))
        .filter(|pattern| pattern.covers(host))
        .collect();
    hosts.sort_by(HostPattern::by_specificity);
    hosts.into_iter().next()
}

/// The addresses at which a service that is not HTTP is claimed: its own, else the automatic one,
/// else all.
fn addresses(selection: &Selection<'_>, service: &MeshService) -> Vec<IpAddr> {
    let own = service.addresses.iter().filter(|range| range.is_host()).map(|range| range.addr());
    let mut found: Vec<IpAddr> = own.collect();
    let has_ranges = service.addresses.iter().any(|range| !range.is_host());
    if found.is_empty() && !has_ranges && selection.view.dns {
        found.extend(service.auto_address.map(IpAddr::V4));
    }
    if found.is_empty() || has_ranges {
        found.push(selection.view.wildcard());
    }
    found
}

/// The chains of a port that is not HTTP.
fn chains(
    selection: &mut Selection<'_>,
    virtual_services: &[Owned<VirtualService>],
    service: &Arc<MeshService>,
    port: &MeshPort,
) -> Vec<ChainInput> {
    let speaking: Vec<&Owned<VirtualService>> = virtual_services
        .iter()
        .filter(|owned| covering_host(owned, &service.host).is_some())
        .collect();
    let mut chains = Vec::new();
    if port.protocol.is_tls() {
        for owned in &speaking {
            tls_chains(selection, owned, service, port, &mut chains);
        }
    }
    if chains.is_empty() {
        for owned in &speaking {
            tcp_chains(selection, owned, service, port, &mut chains);
        }
    }
    if chains.is_empty() {
        chains.push(straight_chain(selection, service, port));
    }
    chains
}

fn tls_chains(
    selection: &mut Selection<'_>,
    owned: &Owned<VirtualService>,
    service: &MeshService,
    port: &MeshPort,
    chains: &mut Vec<ChainInput>,
) {
    let meta = owned.meta();
    for route in &owned.spec().tls {
        let matches: Vec<&TlsMatch> = route
            .matches
            .iter()
            .filter(|wanted| {
                wanted.port.is_none_or(|number| number == port.number)
                    && names_gateway(&wanted.gateways, &GatewayRef::Mesh)
                    && selection
                        .is_source(&wanted.source_labels, wanted.source_namespace.as_deref())
            })
            .collect();
        for wanted in matches {
            let targets = selection.l4_targets(meta, &route.route, port.number, &wanted.sni_hosts);
            let subnets = claimed(&wanted.destination_subnets, service);
            let mut chain = tcp_chain(service, port, targets, subnets);
            chain.server_names = matchable(selection, owned, &wanted.sni_hosts);
            chain.config = Some(config_path("virtual-service", meta));
            if !chain.server_names.is_empty() || wanted.sni_hosts.iter().any(HostPattern::is_any) {
                chains.push(chain);
            }
        }
    }
}

fn tcp_chains(
    selection: &mut Selection<'_>,
    owned: &Owned<VirtualService>,
    service: &MeshService,
    port: &MeshPort,
    chains: &mut Vec<ChainInput>,
) {
    let meta = owned.meta();
    for route in &owned.spec().tcp {
        let holds = |wanted: &&TcpMatch| {
            wanted.port.is_none_or(|number| number == port.number)
                && names_gateway(&wanted.gateways, &GatewayRef::Mesh)
                && selection.is_source(&wanted.source_labels, wanted.source_namespace.as_deref())
        };
        let mut claims: Vec<Vec<Cidr>> = route
            .matches
            .iter()
            .filter(holds)
            .map(|wanted| claimed(&wanted.destination_subnets, service))
            .collect();
        if route.matches.is_empty() {
            claims.push(claimed(&[], service));
        }
        for subnets in claims {
            let targets = selection.l4_targets(meta, &route.route, port.number, &[]);
            let claims_all = subnets.is_empty();
            let mut chain = tcp_chain(service, port, targets, subnets);
            chain.config = Some(config_path("virtual-service", meta));
            chains.push(chain);
            if claims_all {
                return;
            }
        }
    }
}

/// The chain of a service that no VirtualService speaks for.
///
/// TLS is claimed by its server name. Istio leaves the name unread where a service has an address of
/// its own; here it is read for every `ServiceEntry`, so that a client cannot ask one allowed address
/// for another name (domain fronting).
fn straight_chain(
    selection: &mut Selection<'_>,
    service: &Arc<MeshService>,
    port: &MeshPort,
) -> ChainInput {
    let key = ClusterKey { host: service.host.clone(), subset: String::new(), port: port.number };
    let is_platform = service.source == ServiceSource::Platform;
    let has_address =
        !service.addresses.is_empty() || (selection.view.dns && service.auto_address.is_some());
    let reads_name = port.protocol.is_tls() && !(is_platform && has_address);
    let names: Vec<HostPattern> = if reads_name { vec![service.host.clone()] } else { Vec::new() };
    let cluster = selection.cluster_for_client_tls(key, &names);
    let headers = HeaderChanges::default();
    let targets = vec![Target { cluster, weight: 1, headers, host_rewrite: None }];
    let mut chain = tcp_chain(service, port, targets, claimed(&[], service));
    chain.server_names = names.iter().map(ToString::to_string).collect();
    chain
}

/// The ranges that a chain claims: those of the match, else those of the service.
fn claimed(of_match: &[Cidr], service: &MeshService) -> Vec<Cidr> {
    if !of_match.is_empty() {
        return of_match.to_vec();
    }
    service.addresses.iter().filter(|range| !range.is_host()).copied().collect()
}

fn tcp_chain(
    service: &MeshService,
    port: &MeshPort,
    targets: Vec<Target>,
    subnets: Vec<Cidr>,
) -> ChainInput {
    let stat_prefix = match targets.as_slice() {
        [target] => target.cluster.clone(),
        _ => format!("{}.{}", service.object.name, service.object.namespace),
    };
    let handler = Handler::Tcp { targets, stat_prefix };
    ChainInput { subnets, ..chain(format!("{}:{}", service.host, port.number), handler) }
}

fn chain(name: String, handler: Handler) -> ChainInput {
    ChainInput {
        name,
        server_names: Vec::new(),
        subnets: Vec::new(),
        is_plain_only: false,
        tls: None,
        handler,
        config: None,
    }
}

/// The server names that Envoy can match; a fault for each other.
fn matchable(
    selection: &mut Selection<'_>,
    owned: &Owned<VirtualService>,
    names: &[HostPattern],
) -> Vec<String> {
    let mut found = Vec::new();
    for name in names {
        if !tls::is_matchable(name) {
            let message = format!("{name} cannot be matched: a wildcard is followed by a dot");
            let fault = Fault::error(owned.meta().at.clone(), message);
            selection.fault(owned.meta(), fault.field("spec.tls.match.sniHosts"));
        } else if !name.is_any() {
            found.push(name.to_string());
        }
    }
    found
}

fn route_table(
    selection: &mut Selection<'_>,
    virtual_services: &[Owned<VirtualService>],
    port: u16,
    services: &[(Arc<MeshService>, MeshPort)],
    policy: OutboundPolicy,
) -> RouteTable {
    let mut hosts = Vec::new();
    let mut taken = BTreeSet::new();
    for (service, _) in services {
        let mut speaking: Vec<(HostPattern, &Owned<VirtualService>)> = virtual_services
            .iter()
            .filter(|owned| !owned.spec().http.is_empty())
            .filter_map(|owned| Some((covering_host(owned, &service.host)?, owned)))
            .collect();
        // The sort is stable: the oldest stays first among those of one host.
        speaking.sort_by(|(a, _), (b, _)| a.by_specificity(b));
        let entrance = Entrance { gateway: &GatewayRef::Mesh, port };
        let routes =
            speaking.first().and_then(|(_, owned)| http::routes(selection, owned, entrance));
        let key = ClusterKey { host: service.host.clone(), subset: String::new(), port };
        let routes = routes.unwrap_or_else(|| vec![http::default_route(selection, key.name())]);
        let domains = domains(selection, service);
        hosts.extend(virtual_host(&service.host, port, domains, routes, &mut taken));
    }
    if port == PLAIN_HTTP {
        lone_hosts(selection, virtual_services, &mut hosts, &mut taken);
    }
    hosts.sort_by(|a, b| a.name.cmp(&b.name));
    RouteTable {
        name: port.to_string(),
        known_ports: vec![port],
        gateway: None,
        hosts,
        fallback: Some(policy),
    }
}

/// Hosts that only a VirtualService knows: served on port 80, as in Istio.
fn lone_hosts(
    selection: &mut Selection<'_>,
    virtual_services: &[Owned<VirtualService>],
    hosts: &mut Vec<VirtualHostInput>,
    taken: &mut BTreeSet<String>,
) {
    for owned in virtual_services {
        let namespace = &owned.meta().name.namespace;
        for host in &owned.spec().hosts {
            let host = host.qualified(namespace, SERVICE_DOMAIN);
            if selection.service(&host).is_some() || taken.contains(host.as_str()) {
                continue;
            }
            let entrance = Entrance { gateway: &GatewayRef::Mesh, port: PLAIN_HTTP };
            let Some(routes) = http::routes(selection, owned, entrance) else { continue };
            let domains = vec![host.to_string()];
            hosts.extend(virtual_host(&host, PLAIN_HTTP, domains, routes, taken));
        }
    }
}

fn virtual_host(
    host: &HostPattern,
    port: u16,
    mut domains: Vec<String>,
    mut routes: Vec<crate::RouteInput>,
    taken: &mut BTreeSet<String>,
) -> Option<VirtualHostInput> {
    domains.retain(|domain| domain != "*" && taken.insert(domain.clone()));
    if let Some(last) = routes.iter().position(http::is_catch_all) {
        routes.truncate(last + 1);
    }
    let name = format!("{host}:{port}");
    (!domains.is_empty() && !routes.is_empty()).then_some(VirtualHostInput {
        name,
        domains,
        is_tls_required: false,
        routes,
    })
}

/// The Host headers that mean a service: its host, its short forms, its addresses.
fn domains(selection: &Selection<'_>, service: &MeshService) -> Vec<String> {
    let mut domains = vec![service.host.to_string()];
    if service.source == ServiceSource::Platform {
        let (name, namespace) = (&service.object.name, &service.object.namespace);
        if *namespace == selection.view.name.namespace {
            domains.push(name.to_string());
        }
        domains.push(format!("{name}.{namespace}"));
        domains.push(format!("{name}.{namespace}.svc"));
    }
    let own = service.addresses.iter().filter(|range| range.is_host()).map(|range| range.addr());
    let mut addresses: Vec<IpAddr> = own.collect();
    if addresses.is_empty() && selection.view.dns {
        addresses.extend(service.auto_address.map(IpAddr::V4));
    }
    domains.extend(addresses.into_iter().map(|address| match address {
        IpAddr::V4(address) => address.to_string(),
        IpAddr::V6(address) => format!("[{address}]"),
    }));
    domains
}

fn report_unknown(selection: &mut Selection<'_>, service: &MeshService, port: &MeshPort) {
    if port.protocol == Protocol::Unknown {
        let message = "the protocol is not written, and telling it from the first bytes is not \
                       supported yet: the bytes are forwarded unread";
        selection.faults.push(
            Fault::warning(port.at.clone(), message)
                .of(owner(service))
                .field(format!("spec.ports[{}]", port.name))
                .help("begin the port's name with the protocol (http-…, https-…, tcp-…)"),
        );
    }
}

fn report_conflict(
    selection: &mut Selection<'_>,
    service: &MeshService,
    port: &MeshPort,
    taken: &[String],
) {
    for name in taken {
        let what = if name.is_empty() { "connections" } else { name };
        let message = format!(
            "port {}: {what} cannot be told from those of an older service, which keeps them",
            port.number
        );
        selection.faults.push(Fault::warning(port.at.clone(), message).of(owner(service)));
    }
}

/// The object that a service comes from, as faults name it.
pub(super) fn owner(service: &MeshService) -> String {
    let kind = match service.source {
        ServiceSource::Platform => "Service",
        ServiceSource::Entry => "ServiceEntry",
    };
    format!("{kind} {}", service.object)
}
