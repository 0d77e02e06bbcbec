//! The clusters of gateways with `AUTO_PASSTHROUGH`: those of the mesh's services once more, under the
//! server names that sidecars send for them.
//!
//! In:    the services that the proxy sees, and the clusters that it has for them.
//! Out:   for each port and subset under a server's hosts, the server name, and a cluster of that name.
//! Never: leads to an endpoint that does not take the mesh's own TLS, or adds TLS to what has its own.

use std::collections::BTreeMap;

use sluis_resources::{Location, Protocol, Server, ServerTlsMode};

use super::{Selection, destination::ClusterKey};
use crate::{ClusterInput, Discovery, LocalityInput};

/// The server name of a service's port and subset, as sidecars send it.
fn sni(key: &ClusterKey) -> String {
    format!("outbound_.{}_.{}_.{}", key.port, key.subset, key.host)
}

/// The server names that a server serves, and what they mean: every port and subset of the mesh's own
/// services under its hosts.
pub(super) fn names(selection: &Selection<'_>, server: &Server) -> Vec<(String, ClusterKey)> {
    let mut found = Vec::new();
    for service in &selection.services {
        let is_served = server.hosts.iter().any(|host| host.host.covers(&service.host));
        if !is_served || service.location == Location::MeshExternal {
            continue;
        }
        let rule = selection.rule(service);
        let subsets = rule.iter().flat_map(|rule| &rule.subsets).map(|one| one.name.clone());
        let subsets: Vec<String> = std::iter::once(String::new()).chain(subsets).collect();
        for port in service.ports.iter().filter(|port| port.protocol != Protocol::Udp) {
            found.extend(subsets.iter().map(|subset| {
                let host = service.host.clone();
                let key = ClusterKey { host, subset: subset.clone(), port: port.number };
                (sni(&key), key)
            }));
        }
    }
    found
}

/// The clusters of the gateways that select the proxy, in order of name.
pub(super) fn clusters(selection: &Selection<'_>, plain: &[ClusterInput]) -> Vec<ClusterInput> {
    let gateways =
        selection.snapshot.gateways(&selection.view.name.namespace, &selection.view.labels);
    let servers = gateways.flat_map(|gateway| &gateway.spec().servers).filter(|server| {
        server.tls.as_ref().is_some_and(|tls| tls.mode == ServerTlsMode::AutoPassthrough)
    });
    let wanted: BTreeMap<String, ClusterKey> =
        servers.flat_map(|server| names(selection, server)).collect();
    let by_name: BTreeMap<&str, &ClusterInput> = if wanted.is_empty() {
        BTreeMap::new()
    } else {
        plain.iter().map(|cluster| (cluster.name.as_str(), cluster)).collect()
    };
    let made = wanted.into_iter().filter_map(|(name, key)| {
        let cluster = *by_name.get(key.name().as_str())?;
        Some(ClusterInput {
            stat_name: format!("{name};"),
            name,
            tls: None,
            is_tls_by_endpoint: false,
            discovery: discovery(&cluster.discovery),
            ..cluster.clone()
        })
    });
    made.collect()
}

/// The endpoints that take the mesh's own TLS. Bytes that nobody can open are sent nowhere else.
fn discovery(plain: &Discovery) -> Discovery {
    let meshed = |groups: &[LocalityInput]| {
        let group = |group: &LocalityInput| LocalityInput {
            endpoints: group.endpoints.iter().filter(|one| one.takes_mesh_tls).cloned().collect(),
            ..group.clone()
        };
        let groups: Vec<LocalityInput> =
            groups.iter().map(group).filter(|group| !group.endpoints.is_empty()).collect();
        groups.into()
    };
    match plain {
        Discovery::Eds(groups) => Discovery::Eds(meshed(groups)),
        Discovery::Dns(groups) => Discovery::Dns(meshed(groups)),
        Discovery::LogicalDns(groups) => Discovery::LogicalDns(meshed(groups)),
        Discovery::OriginalDestination(_)
        | Discovery::DynamicDns(_)
        | Discovery::Internal(_)
        | Discovery::BlackHole => Discovery::BlackHole,
    }
}
