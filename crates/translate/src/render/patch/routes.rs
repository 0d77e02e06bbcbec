//! Patches of route tables, virtual hosts and routes.

use std::sync::Arc;

use envoy_types::pb::envoy::config::route::v3::{Route, RouteConfiguration, VirtualHost};
use sluis_envoy::ResourceSet;

use super::{Outcome, edit_list, merge, unsupported};
use crate::{ApplyTo, Inputs, Operation, PatchInput};

/// Carries out a patch of route tables, virtual hosts or routes.
pub(super) fn apply(patch: &PatchInput, inputs: &Inputs, set: &mut ResourceSet) -> Outcome {
    let mut count = 0;
    for (name, table) in &mut set.routes {
        if means_table(patch, inputs, name) {
            count += in_table(patch, Arc::make_mut(table))?;
        }
    }
    Ok(count)
}

fn in_table(patch: &PatchInput, table: &mut RouteConfiguration) -> Outcome {
    let hosts = &mut table.virtual_hosts;
    let wanted = &patch.matches;
    match patch.apply_to {
        ApplyTo::RouteConfiguration if patch.operation == Operation::Merge => {
            merge(table, patch)?;
            Ok(1)
        }
        ApplyTo::RouteConfiguration => Err(unsupported(patch)),
        ApplyTo::VirtualHost => edit_list(
            hosts,
            patch,
            wanted.virtual_host.is_some() || wanted.domain.is_some(),
            |host| means_host(patch, host),
            merge::<VirtualHost>,
        ),
        _ => {
            let mut count = 0;
            for host in hosts.iter_mut().filter(|host| means_host(patch, host)) {
                let is_meant =
                    |route: &Route| wanted.route.as_ref().is_none_or(|name| *name == route.name);
                let names_one = wanted.route.is_some();
                count += edit_list(&mut host.routes, patch, names_one, is_meant, merge::<Route>)?;
            }
            Ok(count)
        }
    }
}

fn means_host(patch: &PatchInput, host: &VirtualHost) -> bool {
    let wanted = &patch.matches;
    wanted.virtual_host.as_ref().is_none_or(|name| *name == host.name)
        && wanted.domain.as_ref().is_none_or(|domain| host.domains.contains(domain))
}

fn means_table(patch: &PatchInput, inputs: &Inputs, name: &str) -> bool {
    let wanted = &patch.matches;
    let Some(input) = inputs.routes.iter().find(|input| input.name == name) else { return false };
    wanted.route_config.as_deref().is_none_or(|wanted| wanted == name)
        && wanted.port.is_none_or(|port| input.known_ports.contains(&port))
        && wanted.gateway.as_ref().is_none_or(|gateway| Some(gateway) == input.gateway.as_ref())
}
