//! Patches of route tables, virtual hosts and routes.

use std::sync::Arc;

use envoy_types::pb::envoy::config::route::v3::{
    Route, RouteConfiguration, VirtualHost, route::Action,
};
use sluis_envoy::ResourceSet;

use super::{Patch, is};
use crate::{ApplyTo, Inputs, Operation, RouteKind, Side};

/// Whether a patch is one of route tables or of something in them.
pub(super) fn is_of_routes(patch: &Patch<'_>) -> bool {
    matches!(
        patch.input.apply_to,
        ApplyTo::RouteConfiguration | ApplyTo::VirtualHost | ApplyTo::HttpRoute
    )
}

/// Carries out the patches of the route tables that travel by themselves.
pub(super) fn apply(all: &[Patch<'_>], inputs: &Inputs, set: &mut ResourceSet) {
    let side = if inputs.outbound.is_some() { Side::Outbound } else { Side::Gateway };
    let patches: Vec<&Patch<'_>> =
        all.iter().filter(|patch| is_of_routes(patch) && patch.is_for(side)).collect();
    if patches.is_empty() {
        return;
    }
    for (name, table) in &mut set.routes {
        let known = inputs.routes.iter().find(|input| input.name == *name);
        let gateway = known.and_then(|known| known.gateway.as_ref());
        let ports = known.map(|known| known.known_ports.as_slice()).unwrap_or_default();
        let here: Vec<&Patch<'_>> = patches
            .iter()
            .copied()
            .filter(|patch| {
                let wanted = &patch.input.matches;
                let of_gateway =
                    wanted.gateway.as_ref().is_none_or(|wanted| Some(wanted) == gateway);
                of_gateway && is(wanted.port_name.as_ref(), port_name(name))
            })
            .collect();
        if !here.is_empty() {
            in_table(&here, Arc::make_mut(table), ports);
        }
    }
}

/// The name of the port in the name of a gateway's table: `https.443.NAME.gateway.namespace`.
fn port_name(table: &str) -> &str {
    match table.split('.').collect::<Vec<_>>().as_slice() {
        ["https", _, name, ..] => name,
        _ => "",
    }
}

/// Carries out patches in one table.
pub(super) fn in_table(patches: &[&Patch<'_>], table: &mut RouteConfiguration, ports: &[u16]) {
    let here: Vec<&Patch<'_>> = patches
        .iter()
        .copied()
        .filter(|patch| {
            let wanted = &patch.input.matches;
            is(wanted.route_config.as_ref(), &table.name)
                && wanted.port.is_none_or(|port| ports.contains(&port))
        })
        .collect();
    let of = |apply_to| here.iter().filter(move |patch| patch.input.apply_to == apply_to);
    for patch in of(ApplyTo::RouteConfiguration) {
        if let (Some(lists), Some(addition)) = (patch.lists(), patch.value()) {
            patch.merge(table, &addition, lists);
        }
    }
    let hosts = std::mem::take(&mut table.virtual_hosts);
    table.virtual_hosts = hosts.into_iter().filter_map(|host| in_host(&here, host)).collect();
    for patch in of(ApplyTo::VirtualHost) {
        if patch.input.operation == Operation::Add {
            let end = table.virtual_hosts.len();
            patch.put(&mut table.virtual_hosts, end);
        }
    }
}

/// The virtual host as the patches for it want it; `None` when one removes it.
fn in_host(patches: &[&Patch<'_>], mut host: VirtualHost) -> Option<VirtualHost> {
    for patch in patches.iter().filter(|patch| patch.input.apply_to == ApplyTo::VirtualHost) {
        if !is_host(patch, &host) {
            continue;
        }
        match (patch.input.operation, patch.lists()) {
            (Operation::Remove, _) => {
                patch.counts();
                return None;
            }
            (Operation::Replace, _) => {
                host = patch.value().unwrap_or(host);
                patch.counts();
            }
            (_, Some(lists)) => {
                if let Some(addition) = patch.value() {
                    patch.merge(&mut host, &addition, lists);
                }
            }
            _ => {}
        }
    }
    let here: Vec<&&Patch<'_>> = patches
        .iter()
        .filter(|patch| patch.input.apply_to == ApplyTo::HttpRoute && is_host(patch, &host))
        .collect();
    let routes = std::mem::take(&mut host.routes);
    host.routes = routes.into_iter().filter_map(|route| in_route(&here, route)).collect();
    for patch in here {
        if patch.lists().is_none() && patch.input.operation != Operation::Remove {
            let named = |route: &Route| is_route(patch, route);
            // The first of all and the one before the named are the same to Istio.
            let names_route = patch.input.matches.names_route;
            if patch.input.operation == Operation::InsertFirst && names_route {
                if let Some(place) = host.routes.iter().position(named) {
                    patch.put(&mut host.routes, place);
                }
            } else {
                patch.edit(&mut host.routes, names_route, named);
            }
        }
    }
    Some(host)
}

fn in_route(patches: &[&&Patch<'_>], mut route: Route) -> Option<Route> {
    for patch in patches {
        if !is_route(patch, &route) {
            continue;
        }
        if patch.input.operation == Operation::Remove {
            patch.counts();
            return None;
        }
        if let (Some(lists), Some(addition)) = (patch.lists(), patch.value()) {
            patch.merge(&mut route, &addition, lists);
        }
    }
    Some(route)
}

fn is_host(patch: &Patch<'_>, host: &VirtualHost) -> bool {
    let wanted = &patch.input.matches;
    is(wanted.virtual_host.as_ref(), &host.name)
        && wanted.domain.as_ref().is_none_or(|domain| host.domains.contains(domain))
}

fn is_route(patch: &Patch<'_>, route: &Route) -> bool {
    let wanted = &patch.input.matches;
    let kind = match &route.action {
        Some(Action::Route(_)) => Some(RouteKind::Forward),
        Some(Action::Redirect(_)) => Some(RouteKind::Redirect),
        Some(Action::DirectResponse(_)) => Some(RouteKind::Respond),
        _ => None,
    };
    is(wanted.route.as_ref(), &route.name)
        && wanted.route_kind.is_none_or(|wanted| Some(wanted) == kind)
}
