//! The chains of a sidecar for ports that are not HTTP.
//!
//! In:    a service and its port, and the VirtualServices that speak for it.
//! Out:   chains by server name, by original destination, or for all connections.
//! Never: sends a connection elsewhere than its route or its service says.

use std::sync::Arc;

use sluis_model::{MeshPort, MeshService, Owned, ServiceSource};
use sluis_nouns::{Cidr, HostPattern};
use sluis_resources::{GatewayRef, TcpMatch, TlsMatch, VirtualService};

use super::{
    Selection, config_path, destination::ClusterKey, names_gateway, speakers::Speakers, tls,
};
use crate::{ChainInput, Fault, Handler, HeaderChanges, Target, TcpOptions};

/// The chains of a port that is not HTTP.
///
/// As in Istio: `tls` routes are for ports that say TLS, `tcp` routes for the others. A service keeps
/// its own chain for what no `tcp` route claims; on a TLS port only when no `tls` route is meant.
pub(super) fn chains(
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
            let options =
                selection.named_options(meta, &route.route, port.number, &wanted.sni_hosts);
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

pub(super) fn chain(name: String, handler: Handler) -> ChainInput {
    ChainInput {
        name,
        server_names: Vec::new(),
        subnets: Vec::new(),
        is_plain_only: false,
        alpn: Vec::new(),
        tls: None,
        handler,
        config: None,
        authorization: Vec::new(),
        has_guards: false,
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

/// The object that a service comes from, as faults name it.
pub(super) fn owner(service: &MeshService) -> String {
    let kind = match service.source {
        ServiceSource::Platform => "Service",
        ServiceSource::Entry => "ServiceEntry",
    };
    format!("{kind} {}", service.object)
}
