//! What a sidecar's resolver answers: the visible services and their addresses.

use std::{collections::BTreeSet, net::IpAddr};

use sluis_model::{EndpointAddress, MeshService, ServiceSource};

use sluis_nouns::HostPattern;

use super::Selection;
use crate::NameInput;

/// Every name, in order. A service without an address is left out: its name is asked for elsewhere.
pub(super) fn select(selection: &Selection<'_>) -> Vec<NameInput> {
    // Services that only a route leads to are reached, and not named, as in Istio.
    let listeners = selection.scope.iter().flat_map(|scope| &scope.listeners);
    let imported: BTreeSet<&HostPattern> =
        listeners.flat_map(|listener| &listener.services).map(|service| &service.host).collect();
    let mut names: Vec<NameInput> = selection
        .services
        .iter()
        .filter(|service| selection.scope.is_none() || imported.contains(&service.host))
        .map(|service| NameInput {
            host: service.host.to_string(),
            addresses: addresses(selection, service),
            service: (service.source == ServiceSource::Platform)
                .then(|| (service.object.name.to_string(), service.object.namespace.to_string())),
        })
        .filter(|name| !name.addresses.is_empty())
        .collect();
    names.sort();
    names
}

/// The service's own addresses, else the automatic one, else those of a headless service's endpoints.
fn addresses(selection: &Selection<'_>, service: &MeshService) -> Vec<IpAddr> {
    let own = service.addresses.iter().filter(|range| range.is_host()).map(|range| range.addr());
    let mut found: Vec<IpAddr> = own.collect();
    if found.is_empty() {
        found.extend(service.auto_address.map(IpAddr::V4));
    }
    if found.is_empty() && service.is_headless {
        let endpoints =
            service.ports.first().map(|port| selection.snapshot.endpoints(service, port));
        found.extend(endpoints.iter().flat_map(|list| list.iter()).filter_map(|endpoint| {
            match endpoint.address {
                EndpointAddress::Ip(ip) => Some(ip),
                EndpointAddress::Dns(_) | EndpointAddress::Unix(_) => None,
            }
        }));
    }
    found.sort();
    found.dedup();
    found
}
