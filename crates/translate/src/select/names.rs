//! What a sidecar's resolver answers: the visible services and their addresses.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
    sync::Arc,
};

use sluis_model::{EndpointAddress, MeshService, ServiceEndpoint, ServiceSource};

use sluis_nouns::HostPattern;

use super::Selection;
use crate::NameInput;

/// Every name, in order. A service without an address is left out: its name is asked for elsewhere.
pub(super) fn select(selection: &Selection<'_>) -> Vec<NameInput> {
    // Services that only a route leads to are reached, and not named, as in Istio.
    let listeners = selection.scope.iter().flat_map(|scope| &scope.listeners);
    let imported: BTreeSet<&HostPattern> =
        listeners.flat_map(|listener| &listener.services).map(|service| &service.host).collect();
    let mut names: Vec<NameInput> = Vec::new();
    let is_named = |host: &HostPattern| selection.scope.is_none() || imported.contains(host);
    for service in selection.services.iter().filter(|service| is_named(&service.host)) {
        let is_platform = service.source == ServiceSource::Platform;
        let of_service = is_platform
            .then(|| (service.object.name.to_string(), service.object.namespace.to_string()));
        let mut add = |host: String, addresses: Vec<IpAddr>| {
            if !addresses.is_empty() {
                names.push(NameInput { host, addresses, service: of_service.clone() });
            }
        };
        add(service.host.to_string(), addresses(selection, service));
        for (hostname, addresses) in pods(selection, service) {
            add(format!("{hostname}.{}", service.host), addresses);
        }
    }
    names.sort();
    names
}

/// The service's own addresses, else the automatic ones, else those of a headless service's endpoints.
fn addresses(selection: &Selection<'_>, service: &MeshService) -> Vec<IpAddr> {
    let own = service.addresses.iter().filter(|range| range.is_host()).map(|range| range.addr());
    let mut found: Vec<IpAddr> = own.collect();
    if found.is_empty() {
        found = selection.auto_addresses(service);
    }
    if found.is_empty() {
        found = selection.headless_addresses(service);
    }
    found.sort();
    found.dedup();
    found
}

/// The pods of a headless service that have a name of their own under it.
fn pods(selection: &Selection<'_>, service: &MeshService) -> BTreeMap<String, Vec<IpAddr>> {
    let mut found: BTreeMap<String, Vec<IpAddr>> = BTreeMap::new();
    let Some(endpoints) = headless(selection, service) else { return found };
    for endpoint in endpoints.iter() {
        if let (Some(hostname), EndpointAddress::Ip(ip)) = (&endpoint.hostname, &endpoint.address) {
            found.entry(hostname.clone()).or_default().push(*ip);
        }
    }
    found
}

fn headless(selection: &Selection<'_>, service: &MeshService) -> Option<Arc<[ServiceEndpoint]>> {
    let port = service.ports.first().filter(|_| service.is_headless)?;
    Some(selection.snapshot.endpoints(service, port))
}

impl Selection<'_> {
    /// The automatic addresses of a service, of the families that the proxy has.
    pub(super) fn auto_addresses(&self, service: &MeshService) -> Vec<IpAddr> {
        let own = std::iter::once(&self.view.address).chain(&self.view.node.instance_ips);
        let (mut has_v4, mut has_v6) = (false, false);
        for address in own {
            has_v4 |= address.is_ipv4();
            has_v6 |= address.is_ipv6();
        }
        let v4 = service.auto_address.map(IpAddr::V4).filter(|_| has_v4);
        let v6 = service.auto_address_v6.map(IpAddr::V6).filter(|_| has_v6);
        v4.into_iter().chain(v6).collect()
    }

    /// The addresses of a headless service's endpoints, in order; clients go straight to them.
    pub(super) fn headless_addresses(&self, service: &MeshService) -> Vec<IpAddr> {
        let endpoints = headless(self, service);
        let all = endpoints.iter().flat_map(|list| list.iter());
        let mut found: Vec<IpAddr> = all
            .filter_map(|endpoint| match endpoint.address {
                EndpointAddress::Ip(ip) => Some(ip),
                EndpointAddress::Dns(_) | EndpointAddress::Unix(_) => None,
            })
            .collect();
        found.sort();
        found.dedup();
        found
    }
}
