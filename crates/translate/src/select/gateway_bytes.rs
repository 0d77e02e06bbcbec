//! The chains of a gateway's servers that forward bytes: plain, after TLS, or by server name.
//!
//! In:    one server, and the `tcp` and `tls` routes of the VirtualServices bound to it.
//! Out:   chains with their targets.
//! Never: forwards for a match what its `destinationSubnets` do not hold.
//!
//! Istio looks only at gateway and port of such a match. Here `destinationSubnets` hold too; labels of
//! the client are not known at a gateway, so they are named in a warning.

use sluis_model::Owned;
use sluis_nouns::{Cidr, HostPattern, Labels, SourceRef};
use sluis_resources::{GatewayRef, L4Destination, Meta, VirtualService};

use super::{
    Selection, config_path, names_gateway,
    serving::{Serving, bound_virtual_services, refuse_softly},
    sni_dnat, tls,
};
use crate::{ChainInput, Fault, Handler, HeaderChanges, ServerTls, Target};

/// The application protocols by which clients of the mesh say that they speak its mutual TLS.
pub(super) const MESH_ALPN: [&str; 5] =
    ["istio", "istio-peer-exchange", "istio-http/1.0", "istio-http/1.1", "istio-h2"];

/// The chains of a server that forwards bytes: `tcp` routes for its gateway and port, up to the first
/// that claims every destination.
pub(super) fn plain(
    selection: &mut Selection<'_>,
    serving: &Serving<'_>,
    tls: Option<&ServerTls>,
) -> Vec<ChainInput> {
    let names = if tls.is_some() { tls::server_names(serving.server) } else { Vec::new() };
    let mut chains = Vec::new();
    'all: for (owned, _) in bound_virtual_services(selection, serving) {
        for route in &owned.spec().tcp {
            let mut claims: Vec<Vec<Cidr>> = Vec::new();
            for wanted in &route.matches {
                if is_here(serving, &wanted.gateways, wanted.port) {
                    let of_client = (wanted.gateways.as_slice(), &wanted.source_labels);
                    report_labels(selection, &owned, &wanted.at, of_client, "tcp");
                    claims.push(wanted.destination_subnets.clone());
                }
            }
            if route.matches.is_empty() {
                claims.push(Vec::new());
            }
            for subnets in claims {
                let is_last = subnets.is_empty();
                let names = names.clone();
                let mut chain = tcp_chain(selection, serving, owned.meta(), &route.route, names);
                chain.subnets = subnets;
                chain.tls = tls.cloned();
                chains.push(chain);
                if is_last {
                    break 'all;
                }
            }
        }
    }
    if chains.is_empty() {
        let message = "no VirtualService has a tcp route for this server: it is not served";
        refuse_softly(selection, serving, message);
    }
    chains
}

/// The chains of a server that forwards TLS: one for each `tls` match, by server name.
pub(super) fn passthrough(selection: &mut Selection<'_>, serving: &Serving<'_>) -> Vec<ChainInput> {
    let mut chains = Vec::new();
    for (owned, _) in bound_virtual_services(selection, serving) {
        for route in &owned.spec().tls {
            for wanted in &route.matches {
                if !is_here(serving, &wanted.gateways, wanted.port) {
                    continue;
                }
                let of_client = (wanted.gateways.as_slice(), &wanted.source_labels);
                report_labels(selection, &owned, &wanted.at, of_client, "tls");
                let hosts = &wanted.sni_hosts;
                let is_any = hosts.iter().any(HostPattern::is_any);
                let matchable = hosts.iter().filter(|name| tls::is_matchable(name));
                let names: Vec<String> = matchable.map(ToString::to_string).collect();
                if names.is_empty() {
                    continue;
                }
                let port = serving.server.port.number;
                let targets = selection.l4_targets(owned.meta(), &route.route, port, hosts);
                let names = if is_any { Vec::new() } else { names };
                let mut chain = tcp_chain(selection, serving, owned.meta(), &route.route, names);
                put_targets(&mut chain, targets, owned.meta());
                chain.subnets.clone_from(&wanted.destination_subnets);
                chains.push(chain);
            }
        }
    }
    if chains.is_empty() {
        let message = "no VirtualService has a tls route for this server: it is not served";
        refuse_softly(selection, serving, message);
    }
    chains
}

/// The chains of a server with `AUTO_PASSTHROUGH`: one for each port and subset of the services under
/// its hosts, by the server name that sidecars send for it.
///
/// Only what says that it is the mesh's mutual TLS is claimed; it goes on as it came, to a cluster of
/// the server name.
pub(super) fn automatic(selection: &mut Selection<'_>, serving: &Serving<'_>) -> Vec<ChainInput> {
    let mut chains = Vec::new();
    for (name, key) in sni_dnat::names(selection, serving.server) {
        let handler = Handler::Tcp {
            targets: vec![target(name.clone())],
            stat_prefix: name.clone(),
            options: selection.tcp_options(&key),
        };
        chains.push(ChainInput {
            name: name.clone(),
            server_names: vec![name],
            subnets: Vec::new(),
            is_plain_only: false,
            alpn: MESH_ALPN.map(ToOwned::to_owned).to_vec(),
            tls: None,
            handler,
            config: Some(config_path("gateway", serving.gateway.meta())),
            authorization: Vec::new(),
            has_guards: false,
        });
    }
    chains
}

fn tcp_chain(
    selection: &mut Selection<'_>,
    serving: &Serving<'_>,
    meta: &Meta,
    route: &[L4Destination],
    server_names: Vec<String>,
) -> ChainInput {
    let port = serving.server.port.number;
    let targets = selection.l4_targets(meta, route, port, &[]);
    let options = selection.l4_options(meta, route, port);
    let handler = Handler::Tcp { targets: Vec::new(), stat_prefix: String::new(), options };
    let mut chain = ChainInput {
        name: format!("{}.{}.{}", serving.server.port.name, meta.name.name, meta.name.namespace),
        server_names,
        subnets: Vec::new(),
        is_plain_only: false,
        alpn: Vec::new(),
        tls: None,
        handler,
        config: Some(config_path("virtual-service", meta)),
        authorization: Vec::new(),
        has_guards: false,
    };
    put_targets(&mut chain, targets, meta);
    chain
}

fn put_targets(chain: &mut ChainInput, found: Vec<Target>, meta: &Meta) {
    if let Handler::Tcp { targets, stat_prefix, .. } = &mut chain.handler {
        *stat_prefix = match found.as_slice() {
            [target] => target.cluster.clone(),
            _ => format!("{}.{}", meta.name.name, meta.name.namespace),
        };
        *targets = found;
    }
}

pub(super) fn target(cluster: String) -> Target {
    Target { cluster, weight: 1, headers: HeaderChanges::default(), host_rewrite: None }
}

fn is_here(serving: &Serving<'_>, gateways: &[GatewayRef], port: Option<u16>) -> bool {
    let gateway = GatewayRef::Gateway(serving.gateway.meta().name.clone());
    names_gateway(gateways, &gateway) && port.is_none_or(|port| port == serving.server.port.number)
}

fn report_labels(
    selection: &mut Selection<'_>,
    owned: &Owned<VirtualService>,
    at: &SourceRef,
    (gateways, labels): (&[GatewayRef], &Labels),
    part: &str,
) {
    // Where only gateways are meant, the reader of the file has said so.
    let meant = if gateways.is_empty() { owned.spec().gateways.as_slice() } else { gateways };
    if labels.is_empty() || !meant.contains(&GatewayRef::Mesh) {
        return;
    }
    let message = "a gateway does not know its clients' labels: the match holds for all clients";
    let fault = Fault::warning(at.clone(), message)
        .field(format!("spec.{part}.match.sourceLabels"))
        .help("an AuthorizationPolicy on the gateway can tell clients by their identity");
    selection.fault(owned.meta(), fault);
}
