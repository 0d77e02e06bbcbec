//! What a gateway listens for: the servers of the Gateways that select it.
//!
//! In:    Gateways by the proxy's labels, the Services in front of it, the VirtualServices bound to them.
//! Out:   a listener for each port, with a chain for each server or server name; route tables.
//! Never: serves a host on one port twice: the first server wins, and the other is named in a fault.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
};

use sluis_model::{Owned, SERVICE_DOMAIN};
use sluis_nouns::HostPattern;
use sluis_resources::{
    Gateway, GatewayHost, GatewayRef, HostScope, Meta, Server, ServerTlsMode, VirtualService,
};

use super::{Selection, config_path, gateway_http, listeners::Listeners, names_gateway, tls};
use crate::{ChainInput, Fault, Handler, ListenerInput, RouteTable, ServerTls, Target};

/// One server of a Gateway, on one port of the proxy.
#[derive(Clone)]
pub(super) struct Serving<'a> {
    pub(super) gateway: &'a Owned<Gateway>,
    pub(super) server: &'a Server,
    pub(super) address: IpAddr,
    /// The port that is bound.
    pub(super) port: u16,
}

/// What a server does with connections.
enum Treatment {
    /// Reads HTTP in the clear.
    PlainHttp,
    /// Terminates TLS and reads HTTP.
    Https,
    /// Forwards TLS by its server name.
    Passthrough,
    /// Terminates TLS and forwards the bytes.
    TerminatedBytes,
    /// Forwards the bytes.
    PlainBytes,
}

/// The listeners and route tables of a gateway.
pub(super) fn select(selection: &mut Selection<'_>) -> (Vec<ListenerInput>, Vec<RouteTable>) {
    let snapshot = selection.snapshot;
    let gateways: Vec<&Owned<Gateway>> = snapshot.gateways(&selection.view.labels).collect();
    let mut listeners = Listeners::default();
    let mut tables: BTreeMap<String, RouteTable> = BTreeMap::new();
    let mut is_tls_on: BTreeMap<(IpAddr, u16), bool> = BTreeMap::new();
    let mut hosts_on: BTreeMap<(IpAddr, u16), BTreeSet<HostPattern>> = BTreeMap::new();
    for gateway in gateways {
        for server in &gateway.spec().servers {
            for serving in servings(selection, gateway, server) {
                let place = (serving.address, serving.port);
                let Some(treatment) = treatment(selection, &serving) else { continue };
                let is_tls = !matches!(treatment, Treatment::PlainHttp | Treatment::PlainBytes);
                if *is_tls_on.entry(place).or_insert(is_tls) != is_tls {
                    let message =
                        "another server has the port, and TLS and plain text cannot share";
                    refuse(selection, &serving, "port", message.to_owned());
                    continue;
                }
                let taken = hosts_on.entry(place).or_default();
                let hosts = server.hosts.iter().map(|host| host.host.clone());
                if is_tls && hosts.clone().any(|host| taken.contains(&host)) {
                    let message = "an older server has one of the hosts on this port, and keeps it";
                    refuse(selection, &serving, "hosts", message.to_owned());
                    continue;
                }
                taken.extend(hosts);
                listeners.know(serving.address, serving.port, serving.port);
                listeners.know(serving.address, serving.port, server.port.number);
                serve(selection, &serving, &treatment, &mut listeners, &mut tables);
            }
        }
    }
    (listeners.finish(true, None), tables.into_values().collect())
}

/// The ports at which a server is served: a Service that selects the proxy translates the port that
/// users know into the one that is bound; without one it is bound as it is.
fn servings<'a>(
    selection: &mut Selection<'_>,
    gateway: &'a Owned<Gateway>,
    server: &'a Server,
) -> Vec<Serving<'a>> {
    let view = selection.view;
    let address = match server.bind.as_deref().map(str::parse::<IpAddr>) {
        None => view.address,
        Some(Ok(address)) => address,
        Some(Err(_)) => {
            let fault =
                Fault::error(server.at.clone(), "not an IP address: the server is not served");
            selection.fault(gateway.meta(), fault.field("spec.servers.bind"));
            return Vec::new();
        }
    };
    let mapped = selection
        .snapshot
        .workload(&view.name)
        .map(|workload| workload.spec().ports.clone())
        .unwrap_or_default();
    let mut ports: BTreeSet<u16> = selection
        .snapshot
        .services_selecting(&view.name.namespace, &view.labels)
        .filter_map(|service| service.port(server.port.number)?.on(&mapped))
        .collect();
    if ports.is_empty() {
        ports.insert(server.port.number);
    }
    ports.into_iter().map(|port| Serving { gateway, server, address, port }).collect()
}

fn treatment(selection: &mut Selection<'_>, serving: &Serving<'_>) -> Option<Treatment> {
    let protocol = serving.server.port.protocol;
    let mode = serving.server.tls.as_ref().map(|tls| tls.mode);
    if protocol.is_http() {
        return Some(Treatment::PlainHttp);
    }
    match (mode, protocol.is_tls()) {
        (None, false) => Some(Treatment::PlainBytes),
        (Some(ServerTlsMode::AutoPassthrough), _) => {
            let message = "AUTO_PASSTHROUGH is not supported yet: the server is not served";
            refuse(selection, serving, "tls.mode", message.to_owned());
            None
        }
        (Some(ServerTlsMode::Passthrough) | None, _) => Some(Treatment::Passthrough),
        (Some(_), _) if protocol == sluis_resources::Protocol::Https => Some(Treatment::Https),
        (Some(_), _) => Some(Treatment::TerminatedBytes),
    }
}

fn serve(
    selection: &mut Selection<'_>,
    serving: &Serving<'_>,
    treatment: &Treatment,
    listeners: &mut Listeners,
    tables: &mut BTreeMap<String, RouteTable>,
) {
    let chains = match treatment {
        Treatment::PlainHttp => {
            let name = format!("http.{}", serving.port);
            gateway_http::add_server(selection, serving, &name, tables);
            // Servers of one port share the chain: their hosts are told apart by the route table.
            if listeners.has(serving.address, serving.port) {
                return;
            }
            vec![http_chain(serving, name, None)]
        }
        Treatment::Https => match terminated(selection, serving, true) {
            None => return,
            Some(tls) => {
                let name = gateway_http::table_name(serving);
                gateway_http::add_server(selection, serving, &name, tables);
                vec![http_chain(serving, name, Some(tls))]
            }
        },
        Treatment::TerminatedBytes => match terminated(selection, serving, false) {
            None => return,
            Some(tls) => bytes_chain(selection, serving, Some(tls)).into_iter().collect(),
        },
        Treatment::PlainBytes => bytes_chain(selection, serving, None).into_iter().collect(),
        Treatment::Passthrough => passthrough_chains(selection, serving),
    };
    for chain in chains {
        for name in listeners.add(serving.address, serving.port, chain) {
            let what = if name.is_empty() { "connections".to_owned() } else { name };
            let message = format!("{what} are claimed by an older route, which keeps them");
            refuse(selection, serving, "hosts", message);
        }
    }
}

fn terminated(
    selection: &mut Selection<'_>,
    serving: &Serving<'_>,
    is_http: bool,
) -> Option<ServerTls> {
    let written = serving.server.tls.as_ref()?;
    match tls::server(written, is_http, selection.snapshot.mesh()) {
        Ok(tls) => Some(tls),
        Err((field, message)) => {
            refuse(selection, serving, field, message);
            None
        }
    }
}

fn http_chain(serving: &Serving<'_>, routes: String, tls: Option<ServerTls>) -> ChainInput {
    let server_names = if tls.is_some() { tls::server_names(serving.server) } else { Vec::new() };
    let stat_prefix = format!("outbound_{}_{}", serving.address, serving.port);
    ChainInput {
        name: routes.clone(),
        server_names,
        subnets: Vec::new(),
        is_plain_only: false,
        tls,
        handler: Handler::Http { routes, stat_prefix, is_edge: true },
        config: Some(config_path("gateway", serving.gateway.meta())),
    }
}

/// The chain of a server that forwards bytes: the first `tcp` route for its gateway and port.
///
/// A gateway looks at nothing else of a `tcp` match, as in Istio; what is written there all the same
/// is named in a fault.
fn bytes_chain(
    selection: &mut Selection<'_>,
    serving: &Serving<'_>,
    tls: Option<ServerTls>,
) -> Option<ChainInput> {
    let bound = bound_virtual_services(selection, serving);
    for (owned, _) in &bound {
        for route in &owned.spec().tcp {
            let here =
                route.matches.iter().find(|wanted| is_here(serving, &wanted.gateways, wanted.port));
            if here.is_none() && !route.matches.is_empty() {
                continue;
            }
            if here.is_some_and(|wanted| {
                !wanted.destination_subnets.is_empty() || !wanted.source_labels.is_empty()
            }) {
                let message = "a gateway looks only at gateway and port of a tcp match";
                let fault = Fault::warning(route.at.clone(), message);
                selection.fault(owned.meta(), fault.field("spec.tcp.match"));
            }
            let port = serving.server.port.number;
            let targets = selection.l4_targets(owned.meta(), &route.route, port, &[]);
            let names = if tls.is_some() { tls::server_names(serving.server) } else { Vec::new() };
            return Some(tcp_chain(serving, owned.meta(), names, targets, tls));
        }
    }
    let message = "no VirtualService has a tcp route for this server: it is not served";
    refuse_softly(selection, serving, message);
    None
}

/// The chains of a server that forwards TLS: one for each `tls` match, by server name.
fn passthrough_chains(selection: &mut Selection<'_>, serving: &Serving<'_>) -> Vec<ChainInput> {
    let mut chains = Vec::new();
    for (owned, _) in bound_virtual_services(selection, serving) {
        for route in &owned.spec().tls {
            for wanted in &route.matches {
                if !is_here(serving, &wanted.gateways, wanted.port) {
                    continue;
                }
                let port = serving.server.port.number;
                let hosts = &wanted.sni_hosts;
                let targets = selection.l4_targets(owned.meta(), &route.route, port, hosts);
                let is_any = hosts.iter().any(HostPattern::is_any);
                let names: Vec<String> = if is_any {
                    Vec::new()
                } else {
                    hosts
                        .iter()
                        .filter(|name| tls::is_matchable(name))
                        .map(ToString::to_string)
                        .collect()
                };
                if is_any || !names.is_empty() {
                    chains.push(tcp_chain(serving, owned.meta(), names, targets, None));
                }
            }
        }
    }
    if chains.is_empty() {
        let message = "no VirtualService has a tls route for this server: it is not served";
        refuse_softly(selection, serving, message);
    }
    chains
}

fn tcp_chain(
    serving: &Serving<'_>,
    meta: &Meta,
    server_names: Vec<String>,
    targets: Vec<Target>,
    tls: Option<ServerTls>,
) -> ChainInput {
    let stat_prefix = match targets.as_slice() {
        [target] => target.cluster.clone(),
        _ => format!("{}.{}", meta.name.name, meta.name.namespace),
    };
    ChainInput {
        name: format!("{}.{}.{}", serving.server.port.name, meta.name.name, meta.name.namespace),
        server_names,
        subnets: Vec::new(),
        is_plain_only: false,
        tls,
        handler: Handler::Tcp { targets, stat_prefix },
        config: Some(config_path("virtual-service", meta)),
    }
}

fn is_here(serving: &Serving<'_>, gateways: &[GatewayRef], port: Option<u16>) -> bool {
    let gateway = GatewayRef::Gateway(serving.gateway.meta().name.clone());
    names_gateway(gateways, &gateway) && port.is_none_or(|port| port == serving.server.port.number)
}

/// The VirtualServices bound to a server, the oldest first, each with the hosts that both name.
pub(super) fn bound_virtual_services(
    selection: &Selection<'_>,
    serving: &Serving<'_>,
) -> Vec<(Owned<VirtualService>, Vec<HostPattern>)> {
    let gateway = GatewayRef::Gateway(serving.gateway.meta().name.clone());
    selection
        .snapshot
        .virtual_services(&selection.view.name.namespace)
        .filter(|owned| owned.spec().gateways.contains(&gateway))
        .filter_map(|owned| {
            let hosts = common_hosts(serving, owned);
            (!hosts.is_empty()).then(|| (owned.clone(), hosts))
        })
        .collect()
}

/// The narrower of each pair of hosts that overlap.
fn common_hosts(serving: &Serving<'_>, owned: &Owned<VirtualService>) -> Vec<HostPattern> {
    let namespace = &owned.meta().name.namespace;
    let home = &serving.gateway.meta().name.namespace;
    let may_bind = |host: &&GatewayHost| match &host.scope {
        HostScope::Any => true,
        HostScope::Same => namespace == home,
        HostScope::Namespace(name) => **namespace == **name,
    };
    let mut common = Vec::new();
    for written in &owned.spec().hosts {
        let written = written.qualified(namespace, SERVICE_DOMAIN);
        for server in serving.server.hosts.iter().filter(may_bind) {
            let narrower = if server.host.covers(&written) {
                written.clone()
            } else if written.covers(&server.host) {
                server.host.clone()
            } else {
                continue;
            };
            if !common.contains(&narrower) {
                common.push(narrower);
            }
        }
    }
    common
}

fn refuse(selection: &mut Selection<'_>, serving: &Serving<'_>, field: &str, message: String) {
    let fault = Fault::error(serving.server.at.clone(), message);
    selection.fault(serving.gateway.meta(), fault.field(format!("spec.servers.{field}")));
}

fn refuse_softly(selection: &mut Selection<'_>, serving: &Serving<'_>, message: &str) {
    let fault = Fault::warning(serving.server.at.clone(), message);
    selection.fault(serving.gateway.meta(), fault.field("spec.servers"));
}
