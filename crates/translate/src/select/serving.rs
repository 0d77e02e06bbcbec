//! One server of a Gateway where it is served: its address, its name, its VirtualServices, its faults.

use std::net::IpAddr;

use sluis_model::{Owned, SERVICE_DOMAIN};
use sluis_nouns::HostPattern;
use sluis_resources::{
    Gateway, GatewayHost, GatewayRef, HostScope, Key, Kind, Server, VirtualService,
};

use super::Selection;
use crate::Fault;

/// One server of a Gateway, on one port of the proxy.
#[derive(Clone)]
pub(super) struct Serving<'a> {
    pub(super) gateway: &'a Owned<Gateway>,
    pub(super) server: &'a Server,
    pub(super) address: IpAddr,
    /// The port that is bound.
    pub(super) port: u16,
}

/// Says that a workload has a network namespace of its own.
const NETNS: &str = "sluis.dev/netns";

/// Where servers without a `bind` listen: everywhere, as in Istio; on one machine with others, a
/// workload keeps to its own address.
pub(super) fn own_address(selection: &Selection<'_>) -> IpAddr {
    let view = selection.view;
    let key = Key { kind: Kind::WorkloadEntry, name: view.name.clone() };
    match selection.snapshot.get(&key) {
        Some(entry) if !entry.meta.annotations.contains_key(NETNS) => view.address,
        _ => view.wildcard(),
    }
}

/// Istio's name for the listener of servers without a `bind`, whatever address stands for "all" here.
pub(super) fn wildcard_name(selection: &Selection<'_>, port: u16) -> String {
    format!("{}_{port}", selection.view.wildcard())
}

/// The name of the listener that serves a server.
pub(super) fn listener_name(selection: &Selection<'_>, serving: &Serving<'_>) -> String {
    if serving.address == own_address(selection) {
        wildcard_name(selection, serving.port)
    } else {
        format!("{}_{}", serving.address, serving.port)
    }
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

pub(super) fn refuse(
    selection: &mut Selection<'_>,
    serving: &Serving<'_>,
    field: &str,
    message: String,
) {
    let fault = Fault::error(serving.server.at.clone(), message);
    selection.fault(serving.gateway.meta(), fault.field(format!("spec.servers.{field}")));
}

pub(super) fn refuse_softly(selection: &mut Selection<'_>, serving: &Serving<'_>, message: &str) {
    let fault = Fault::warning(serving.server.at.clone(), message);
    selection.fault(serving.gateway.meta(), fault.field("spec.servers"));
}
