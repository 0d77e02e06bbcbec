//! The route tables of a gateway's HTTP servers.
//!
//! Unlike in the mesh, the routes of all VirtualServices for a host are put together, the oldest
//! first, and those that claim every request come last.

use std::collections::BTreeMap;

use sluis_nouns::HostPattern;
use sluis_resources::GatewayRef;

use super::{
    Selection,
    http::{self, Entrance},
    serving::{Serving, bound_virtual_services},
};
use crate::{RouteTable, VirtualHostInput};

/// Istio's name for the route table of a server that terminates TLS.
pub(super) fn table_name(serving: &Serving<'_>) -> String {
    let name = &serving.gateway.meta().name;
    let (port, port_name) = (serving.port, &serving.server.port.name);
    format!("https.{port}.{port_name}.{}.{}", name.name, name.namespace)
}

/// Adds the hosts and routes of a server to its route table, and makes the table if need be.
pub(super) fn add_server(
    selection: &mut Selection<'_>,
    serving: &Serving<'_>,
    name: &str,
    tables: &mut BTreeMap<String, RouteTable>,
) {
    let gateway = serving.gateway.meta().name.clone();
    let declared = serving.server.port.number;
    let table = tables.entry(name.to_owned()).or_insert_with(|| RouteTable {
        name: name.to_owned(),
        known_ports: vec![serving.port],
        gateway: Some(gateway.to_string()),
        hosts: Vec::new(),
        is_port_matched: false,
        fallback: None,
    });
    if !table.known_ports.contains(&declared) {
        table.known_ports.push(declared);
    }
    let is_tls_required = !serving.server.port.protocol.is_tls()
        && serving.server.tls.as_ref().is_some_and(|tls| tls.https_redirect);
    let reference = GatewayRef::Gateway(gateway);
    // As in Istio: TLS settings make it TLS, those of a redirect too.
    let is_tls = serving.server.tls.is_some();
    let entrance = Entrance { gateway: &reference, port: declared, is_tls };
    for (owned, hosts) in bound_virtual_services(selection, serving) {
        let Some(routes) = http::routes(selection, &owned, entrance) else { continue };
        for host in hosts {
            let virtual_host = virtual_host(table, &host, declared);
            virtual_host.is_tls_required |= is_tls_required;
            virtual_host.routes.extend(routes.iter().cloned());
            // The sort is stable: order is kept among the others.
            virtual_host.routes.sort_by_key(http::is_catch_all);
        }
    }
    if is_tls_required {
        // A server that only redirects needs no VirtualService.
        for host in &serving.server.hosts {
            virtual_host(table, &host.host, declared).is_tls_required = true;
        }
    }
}

fn virtual_host<'a>(
    table: &'a mut RouteTable,
    host: &HostPattern,
    port: u16,
) -> &'a mut VirtualHostInput {
    let name = format!("{host}:{port}");
    let index = match table.hosts.iter().position(|other| other.domains == [host.as_str()]) {
        Some(index) => index,
        None => {
            table.hosts.push(VirtualHostInput {
                name,
                domains: vec![host.to_string()],
                is_tls_required: false,
                routes: Vec::new(),
            });
            table.hosts.len() - 1
        }
    };
    &mut table.hosts[index]
}

/// Puts the hosts of a table in order, and hosts with the same routes together under the first name.
///
/// A table without any gets Istio's empty host, which answers 404.
pub(super) fn finish(mut table: RouteTable) -> RouteTable {
    table.hosts.sort_by(|a, b| a.name.cmp(&b.name));
    let mut hosts: Vec<VirtualHostInput> = Vec::new();
    for host in std::mem::take(&mut table.hosts) {
        let same = |other: &&mut VirtualHostInput| {
            other.is_tls_required == host.is_tls_required && other.routes == host.routes
        };
        match hosts.iter_mut().find(same) {
            Some(other) => other.domains.extend(host.domains),
            None => hosts.push(host),
        }
    }
    if hosts.is_empty() {
        // The port as users know it comes behind the bound one, where they differ.
        let port = table.known_ports.get(1).or(table.known_ports.first()).copied();
        hosts.push(VirtualHostInput {
            name: format!("blackhole:{}", port.unwrap_or_default()),
            domains: vec!["*".to_owned()],
            is_tls_required: false,
            routes: Vec::new(),
        });
    }
    table.hosts = hosts;
    table
}
