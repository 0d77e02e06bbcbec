//! What a sidecar does with connections that its workload receives.
//!
//! In:    the services of which the workload is an endpoint, and the mesh's rules on mutual TLS.
//! Out:   `virtualInbound` with chains for each port and for all others; the clusters behind them.
//! Never: a chain that takes plain text where mutual TLS is demanded.
//!
//! Only a workload whose connections a packet filter redirects has this side. Nothing can be received
//! in a jail: it has no interface but loopback.

mod claims;
mod clusters;
mod ingress;

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use sluis_model::{MeshService, Mtls, MtlsMode};
use sluis_resources::{MeshConfig, Protocol};

use self::{
    claims::{Spoken, claims, is_http2, spoken},
    clusters::{PASSTHROUGH, Served},
};
use super::{Selection, outbound::owner};
use crate::{
    Capture, Fault, InboundChain, InboundHandler, InboundInputs, InboundListener, Transport,
};

/// The capturing listener, and its chains for connections that nothing else claims.
const VIRTUAL: &str = "virtualInbound";
const VIRTUAL_HTTP: &str = "virtualInbound-catchall-http";
const BLACK_HOLE_CHAIN: &str = "virtualInbound-blackhole";

/// The inbound side of a sidecar; `None` when it receives nothing.
pub(super) fn select(selection: &mut Selection<'_>) -> Option<InboundInputs> {
    let is_captured = match selection.view.capture {
        Capture::Redirect => true,
        Capture::None => false,
        Capture::Jail | Capture::ProxyProtocolPipe(_) => return None,
    };
    let (view, mesh) = (selection.view, selection.snapshot.mesh());
    let mtls = selection.snapshot.mtls(&view.name.namespace, &view.labels);
    let served = served(selection);
    let scope = selection.scope.clone();
    let sidecar = scope.as_ref().and_then(|scope| scope.sidecar.as_ref());
    let mut clusters = vec![clusters::passthrough(selection)];
    let (mut listeners, mut chains) = (Vec::new(), Vec::new());
    let mut ports: BTreeSet<u16> = served.keys().copied().collect();
    match sidecar.filter(|sidecar| !sidecar.spec().ingress.is_empty()) {
        Some(sidecar) => {
            let made = ingress::select(selection, sidecar, &mtls, &served);
            ports = sidecar.spec().ingress.iter().map(|one| one.port.number).collect();
            clusters.extend(made.clusters);
            listeners.extend(made.listeners);
            chains.extend(made.chains);
        }
        None => {
            let pool = sidecar.and_then(|owned| owned.spec().inbound_connection_pool.as_ref());
            for (number, served) in served.iter().filter(|_| is_captured) {
                chains.extend(port_chains(selection, *number, served, mtls.of_port(*number)));
                let made = clusters::of_port(selection, *number, served);
                clusters.push(pool.into_iter().fold(made, clusters::limited));
            }
        }
    }
    if !is_captured && listeners.is_empty() {
        return None;
    }
    clusters.sort_by(|a, b| a.name.cmp(&b.name));
    let mut all = passthrough_chains(mesh, &mtls, &ports);
    all.append(&mut chains);
    let chains = all;
    let listener = InboundListener {
        name: VIRTUAL.to_owned(),
        address: view.wildcard(),
        additional: view.second_wildcard().into_iter().collect(),
        port: mesh.proxy_inbound_listen_port,
        is_captured: true,
        is_transparent: selection.is_transparent(),
        detection_timeout: mesh.protocol_detection_timeout,
        chains,
        authorization: selection.authorization(),
    };
    if is_captured {
        listeners.insert(0, listener);
    }
    Some(InboundInputs { listeners, clusters })
}

/// The ports of the workload and the services that lead to them, the oldest first.
fn served(selection: &mut Selection<'_>) -> BTreeMap<u16, Served> {
    let (view, snapshot) = (selection.view, selection.snapshot);
    let mut services: Vec<&Arc<MeshService>> =
        snapshot.services_of(&view.name.namespace, &view.labels, view.address).collect();
    services.sort_by_key(|service| (service.created.unwrap_or(0), service.host.clone()));
    let mut served: BTreeMap<u16, Served> = BTreeMap::new();
    for service in services {
        for port in service.ports.iter().filter(|port| port.protocol != Protocol::Udp) {
            let Some(number) = snapshot.own_port(&view.name, service, port) else { continue };
            if number == snapshot.mesh().proxy_inbound_listen_port {
                let message = format!("port {number} is the proxy's own: it is not served");
                let fault = Fault::error(port.at.clone(), message).of(owner(service));
                selection.faults.push(fault.field(format!("spec.ports[{}]", port.name)));
                continue;
            }
            let Some(first) = served.get_mut(&number) else {
                let services = vec![Arc::clone(service)];
                served.insert(number, Served { port: port.clone(), services });
                continue;
            };
            if first.port.protocol != port.protocol && first.services[0].host != service.host {
                let (older, kept) = (owner(&first.services[0]), first.port.protocol);
                let message = format!(
                    "port {number} of the workload is {kept} already, by the older {older}: {} is \
                     not heard",
                    port.protocol
                );
                let fault = Fault::warning(port.at.clone(), message).of(owner(service));
                selection.faults.push(fault.field(format!("spec.ports[{}]", port.name)));
            }
            if !first.services.iter().any(|known| known.host == service.host) {
                first.services.push(Arc::clone(service));
            }
        }
    }
    served
}

/// The chains of ports that no service has, and the guard against loops.
fn passthrough_chains(mesh: &MeshConfig, mtls: &Mtls, served: &BTreeSet<u16>) -> Vec<InboundChain> {
    let mut chains = vec![InboundChain {
        name: BLACK_HOLE_CHAIN.to_owned(),
        port: Some(mesh.proxy_inbound_listen_port),
        transport: Transport::Any,
        alpn: Vec::new(),
        tls: None,
        handler: InboundHandler::Refuse,
        config: None,
    }];
    let alone = mtls.ports().filter(|(port, _)| !served.contains(port));
    let all = std::iter::once((None, mtls.mode()));
    for (port, mode) in all.chain(alone.map(|(port, mode)| (Some(port), mode))) {
        for claim in claims(Spoken::Auto, mode) {
            let (name, handler) = if claim.is_http {
                let handler = InboundHandler::Http {
                    cluster: PASSTHROUGH.to_owned(),
                    service_port: 0,
                    operation: ":0/*".to_owned(),
                    stat_prefix: format!("{PASSTHROUGH};"),
                    is_http2: false,
                    is_retried: true,
                };
                (VIRTUAL_HTTP, handler)
            } else {
                let cluster = PASSTHROUGH.to_owned();
                (VIRTUAL, InboundHandler::Tcp { stat_prefix: cluster.clone(), cluster })
            };
            chains.push(claim.chain(name.to_owned(), port, handler, mesh));
        }
    }
    chains
}

fn port_chains(
    selection: &Selection<'_>,
    number: u16,
    served: &Served,
    mode: MtlsMode,
) -> Vec<InboundChain> {
    let (port, service) = (&served.port, &served.services[0]);
    let name = format!("{}_{number}", selection.view.wildcard());
    let cluster = clusters::name(number);
    claims(spoken(port.protocol), mode)
        .into_iter()
        .map(|claim| {
            let handler = if claim.is_http {
                InboundHandler::Http {
                    cluster: cluster.clone(),
                    service_port: port.number,
                    operation: format!("{}:{}/*", service.host, port.number),
                    stat_prefix: format!("inbound_{name};"),
                    is_http2: is_http2(port.protocol),
                    is_retried: true,
                }
            } else {
                InboundHandler::Tcp { cluster: cluster.clone(), stat_prefix: cluster.clone() }
            };
            claim.chain(name.clone(), Some(number), handler, selection.snapshot.mesh())
        })
        .collect()
}
