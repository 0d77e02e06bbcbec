//! What a sidecar does with its workload's connections: listeners by port, routes by host.
//!
//! In:    the services that the workload sees, and the VirtualServices of gateway `mesh`.
//! Out:   a listener for each HTTP port (shared) and each address and port of the others; route tables
//!        for the HTTP ports.
//! Never: lets a connection that nothing claims go anywhere but where the outbound policy says.

use std::{collections::BTreeMap, net::IpAddr, sync::Arc};

use sluis_model::{MeshPort, MeshService, Owned, ServiceSource};
use sluis_nouns::{Cidr, HostPattern};
use sluis_resources::{GatewayRef, Protocol, TcpMatch, TlsMatch, VirtualService};

use super::{
    Selection, config_path,
    destination::ClusterKey,
    listeners::Listeners,
    names_gateway,
    outbound_http::{self, PLAIN_HTTP},
    speakers::Speakers,
    tls,
};
use crate::{
    ChainInput, Fault, Handler, HeaderChanges, ListenerInput, OutboundPolicy, RouteTable, Target,
    TcpOptions,
};

/// The listeners and route tables of a sidecar.
pub(super) fn select(
    selection: &mut Selection<'_>,
    policy: OutboundPolicy,
) -> (Vec<ListenerInput>, Vec<RouteTable>) {
    let virtual_services = mesh_virtual_services(selection);
    let speakers = Speakers::new(&virtual_services);
    let mut listeners = Listeners::default();
    let mut http_ports: BTreeMap<u16, Vec<(Arc<MeshService>, MeshPort)>> = BTreeMap::new();
    if outbound_http::has_lone_host(selection, &speakers) {
        http_ports.entry(PLAIN_HTTP).or_default();
    }
    for service in selection.services.clone() {
        for port in service.ports.iter().filter(|port| port.protocol != Protocol::Udp) {
            if port.protocol.is_http() {
                let of_port = http_ports.entry(port.number).or_default();
                of_port.push((Arc::clone(&service), port.clone()));
            } else {
                report_unknown(selection, &service, port);
                for chain in chains(selection, &speakers, &service, port) {
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
        let table = outbound_http::table(selection, &speakers, port, &services, policy);
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
///
/// As in Istio: `tls` routes are for ports that say TLS, `tcp` routes for the others. A service keeps
/// its own chain for what no `tcp` route claims; on a TLS port only when no `tls` route is meant.
fn chains(
    selection: &mut Selection<'_>,
    speakers: &Speakers<'_>,
    service: &Arc<MeshService>,
    port: &MeshPort,
) -> Vec<ChainInput> {
    let mut chains = Vec::new();
    let mut is_complete = false;
    for owned in speakers.for_chains(&service.host).into_iter().map(|index| &speakers.all[index]) {
        if port.protocol.is_tls() {
            tls_chains(selection, owned, service, port, &mut chains);
            is_complete |= !chains.is_empty();
        } else {
            is_complete = tcp_chains(selection, owned, service, port, &mut chains);
            if is_complete {
                break;
            }
        }
    }
    let straight = |selection: &mut Selection<'_>| straight_chain(selection, service, port);
    if !is_complete {
        let chain = straight(selection);
        let is_claimed = |other: &ChainInput| {
            other.subnets == chain.subnets && other.server_names == chain.server_names
        };
        if !chains.iter().any(is_claimed) {
            chains.push(chain);
        }
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
            let options = selection.l4_options(meta, &route.route, port.number);
            let mut chain = tcp_chain(service, port, targets, options, subnets);
            chain.server_names = matchable(selection, owned, &wanted.sni_hosts);
            chain.config = Some(config_path("virtual-service", meta));
            if !chain.server_names.is_empty() || wanted.sni_hosts.iter().any(HostPattern::is_any) {
                chains.push(chain);
            }
        }
    }
}

/// Adds the chains of `tcp` routes; returns whether one of them claims all that is left.
fn tcp_chains(
    selection: &mut Selection<'_>,
    owned: &Owned<VirtualService>,
    service: &MeshService,
    port: &MeshPort,
    chains: &mut Vec<ChainInput>,
) -> bool {
    let meta = owned.meta();
    for route in &owned.spec().tcp {
        let holds = |wanted: &&TcpMatch| {
            wanted.port.is_none_or(|number| number == port.number)
                && names_gateway(&wanted.gateways, &GatewayRef::Mesh)
                && selection.is_source(&wanted.source_labels, wanted.source_namespace.as_deref())
        };
        let mut claims: Vec<&[Cidr]> = route
            .matches
            .iter()
            .filter(holds)
            .map(|wanted| wanted.destination_subnets.as_slice())
            .collect();
        if route.matches.is_empty() {
            claims.push(&[]);
        }
        for subnets in claims {
            let targets = selection.l4_targets(meta, &route.route, port.number, &[]);
            let options = selection.l4_options(meta, &route.route, port.number);
            let claims_all = subnets.is_empty();
            let subnets = claimed(subnets, service);
            let mut chain = tcp_chain(service, port, targets, options, subnets);
            chain.config = Some(config_path("virtual-service", meta));
            chains.push(chain);
            if claims_all {
                return true;
            }
        }
    }
    false
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
    let options = selection.tcp_options(&key);
    let cluster = selection.cluster_for_client_tls(key, &names);
    let headers = HeaderChanges::default();
    let targets = vec![Target { cluster, weight: 1, headers, host_rewrite: None }];
    let mut chain = tcp_chain(service, port, targets, options, claimed(&[], service));
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
    options: TcpOptions,
    subnets: Vec<Cidr>,
) -> ChainInput {
    let stat_prefix = match targets.as_slice() {
        [target] => target.cluster.clone(),
        _ => format!("{}.{}", service.object.name, service.object.namespace),
    };
    let handler = Handler::Tcp { targets, stat_prefix, options };
    ChainInput { subnets, ..chain(format!("{}:{}", service.host, port.number), handler) }
}

fn chain(name: String, handler: Handler) -> ChainInput {
    ChainInput {
        name,
        server_names: Vec::new(),
        subnets: Vec::new(),
        is_plain_only: false,
        alpn: Vec::new(),
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
