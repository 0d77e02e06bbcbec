//! The route tables of a sidecar: for each HTTP port, which hosts there are and where they lead.
//!
//! In:    the services that have the port, and the VirtualServices of gateway `mesh`.
//! Out:   a [`RouteTable`] with a virtual host for each service, and for each host that only a
//!        VirtualService knows.
//! Never: gives one name to two virtual hosts: the first keeps it.
//!
//! Istio's rules: a host that is no service of this port is served where its VirtualService speaks for
//! some service of the port too, and always on port 80.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
    sync::Arc,
};

use sluis_model::{MeshPort, MeshService, ServiceSource};
use sluis_nouns::HostPattern;
use sluis_resources::GatewayRef;

use super::{
    Selection,
    destination::ClusterKey,
    http::{self, Entrance},
    speakers::Speakers,
};
use crate::{OutboundPolicy, RouteInput, RouteTable, VirtualHostInput};

/// The port on which Istio serves hosts that only a VirtualService knows.
pub(super) const PLAIN_HTTP: u16 = 80;

/// Whether a VirtualService routes HTTP for a host that no service has.
pub(super) fn has_lone_host(selection: &Selection<'_>, speakers: &Speakers<'_>) -> bool {
    speakers.all.iter().zip(&speakers.hosts).any(|(owned, hosts)| {
        !owned.spec().http.is_empty() && hosts.iter().any(|host| selection.service(host).is_none())
    })
}

pub(super) fn table(
    selection: &mut Selection<'_>,
    speakers: &Speakers<'_>,
    port: u16,
    services: &[(Arc<MeshService>, MeshPort)],
    policy: &OutboundPolicy,
) -> RouteTable {
    let mut made = Making {
        port,
        routes: BTreeMap::new(),
        taken: BTreeSet::new(),
        known: services.iter().map(|(service, _)| service.host.to_string()).collect(),
        hosts: Vec::new(),
    };
    let speaker: Vec<Option<usize>> = services
        .iter()
        .map(|(service, _)| {
            let candidates = speakers.for_routes(&service.host);
            candidates.into_iter().find(|index| made.routes(selection, speakers, *index).is_some())
        })
        .collect();
    for (index, hosts) in speakers.hosts.iter().enumerate() {
        let spoken_for: Vec<&Arc<MeshService>> = services
            .iter()
            .zip(&speaker)
            .filter(|(_, speaker)| **speaker == Some(index))
            .map(|((service, _), _)| service)
            .collect();
        if spoken_for.is_empty() && port != PLAIN_HTTP {
            continue;
        }
        let Some(routes) = made.routes(selection, speakers, index) else { continue };
        for host in hosts.iter().filter(|host| is_lone(selection, host, port)) {
            made.add(host, vec![host.to_string()], &routes);
        }
        for service in spoken_for {
            made.add(&service.host, made.domains(selection, service), &routes);
        }
    }
    for ((service, _), _) in services.iter().zip(&speaker).filter(|(_, by)| by.is_none()) {
        let key = ClusterKey { host: service.host.clone(), subset: String::new(), port };
        let routes = [http::default_route(selection, &key)];
        made.add(&service.host, made.domains(selection, service), &routes);
    }
    let mut hosts = made.hosts;
    hosts.sort_by(|a, b| a.name.cmp(&b.name));
    RouteTable {
        name: port.to_string(),
        known_ports: vec![port],
        gateway: None,
        hosts,
        is_port_matched: false,
        fallback: Some(policy.clone()),
    }
}

/// Whether no service of a port has a host, or any host under it.
fn is_lone(selection: &Selection<'_>, host: &HostPattern, port: u16) -> bool {
    if host.is_wildcard() {
        let has =
            |service: &Arc<MeshService>| host.covers(&service.host) && service.port(port).is_some();
        return !selection.services.iter().any(has);
    }
    selection.service(host).is_none_or(|service| service.port(port).is_none())
}

/// A route table as it is made.
struct Making {
    port: u16,
    /// By VirtualService, once asked for: they are the same for all of its hosts.
    routes: BTreeMap<usize, Option<Arc<[RouteInput]>>>,
    taken: BTreeSet<String>,
    known: BTreeSet<String>,
    hosts: Vec<VirtualHostInput>,
}

impl Making {
    fn routes(
        &mut self,
        selection: &mut Selection<'_>,
        speakers: &Speakers<'_>,
        index: usize,
    ) -> Option<Arc<[RouteInput]>> {
        let entrance = Entrance { gateway: &GatewayRef::Mesh, port: self.port, is_tls: false };
        let make = || http::routes(selection, &speakers.all[index], entrance).map(Arc::from);
        self.routes.entry(index).or_insert_with(make).clone()
    }

    fn add(&mut self, host: &HostPattern, mut domains: Vec<String>, routes: &[RouteInput]) {
        domains.retain(|domain| domain != "*" && self.taken.insert(domain.clone()));
        if domains.is_empty() {
            return;
        }
        self.hosts.push(VirtualHostInput {
            name: format!("{host}:{}", self.port),
            domains,
            is_tls_required: false,
            routes: routes.to_vec(),
        });
    }

    /// The Host headers that mean a service: its host, its short forms, its addresses.
    ///
    /// A short form that is another service's host in full is left to that one.
    fn domains(&self, selection: &Selection<'_>, service: &MeshService) -> Vec<String> {
        let host = service.host.to_string();
        let mut domains = vec![host.clone()];
        let mut short = Vec::new();
        if service.host.ip().is_none() {
            // The same name, said to be absolute.
            short.push(format!("{host}."));
        }
        if service.source == ServiceSource::Platform {
            let (name, namespace) = (&service.object.name, &service.object.namespace);
            if *namespace == selection.view.name.namespace {
                short.push(name.to_string());
            }
            short.push(format!("{name}.{namespace}"));
            short.push(format!("{name}.{namespace}.svc"));
        }
        domains.extend(short.into_iter().filter(|domain| !self.known.contains(domain)));
        if service.is_headless && service.source == ServiceSource::Platform {
            // The names of single pods.
            let below: Vec<String> = domains.iter().map(|domain| format!("*.{domain}")).collect();
            domains.extend(below);
        }
        let own = service.addresses.iter().filter(|range| range.is_host());
        let mut addresses: Vec<IpAddr> = own.map(|range| range.addr()).collect();
        if addresses.is_empty() && selection.view.dns {
            addresses = selection.auto_addresses(service);
        }
        domains.extend(addresses.into_iter().map(|address| match address {
            IpAddr::V4(address) => address.to_string(),
            IpAddr::V6(address) => format!("[{address}]"),
        }));
        domains
    }
}
