//! Patches of network filters and HTTP filters.

use envoy_types::pb::envoy::{
    config::listener::v3::{Filter, FilterChain, filter},
    extensions::filters::network::http_connection_manager::v3::{
        HttpConnectionManager, HttpFilter, http_connection_manager::RouteSpecifier, http_filter,
    },
};
use envoy_types::pb::google::protobuf::Any;
use sluis_envoy::{pack, type_url, unpack};

use super::{Patch, is_filter, modern_name, routes};
use crate::{ApplyTo, FilterPlace, Operation, Side};

/// The HTTP filter that ends a chain; nothing after it would run.
const ROUTER: &str = "envoy.filters.http.router";

/// Filters that find out who the client is, decide what it may do, and count.
const AUTHENTICATION: [&str; 2] = ["envoy.filters.http.jwt_authn", "istio_authn"];
const AUTHORIZATION: [&str; 2] = ["envoy.filters.http.rbac", "envoy.filters.http.ext_authz"];
const STATISTICS: [&str; 1] = ["istio.stats"];

/// Carries out the patches of a chain's filters, and of the route table inside of one.
pub(super) fn apply(patches: &[&Patch<'_>], chain: &mut FilterChain, side: Side) {
    let of_network = |patch: &&&Patch<'_>| patch.input.apply_to == ApplyTo::NetworkFilter;
    for patch in patches.iter().filter(of_network) {
        let wanted = patch.input.matches.network_filter.as_ref();
        let named = |filter: &Filter| is_filter(wanted, &filter.name);
        patch.edit(&mut chain.filters, wanted.is_some(), named);
    }
    for filter in &mut chain.filters {
        let merges = patches.iter().filter(of_network).filter(|patch| patch.lists().is_some());
        for patch in merges {
            let wanted = patch.input.matches.network_filter.as_ref();
            let Some(addition) = patch.value::<Filter>() else { continue };
            let Some(filter::ConfigType::TypedConfig(config)) = &mut filter.config_type else {
                continue;
            };
            if is_filter(wanted, &filter.name) {
                let added = match &addition.config_type {
                    Some(filter::ConfigType::TypedConfig(added)) => Some(added),
                    _ => None,
                };
                let name = Some(&addition.name);
                merge(patch, &mut filter.name, config, name, added, wanted.is_some());
            }
        }
        in_connection_manager(patches, filter, side);
    }
}

/// Lays a patch over a filter. Where the patch names no filter it means those of its own type.
fn merge(
    patch: &Patch<'_>,
    name: &mut String,
    base: &mut Any,
    new_name: Option<&String>,
    added: Option<&Any>,
    is_named: bool,
) {
    if added.is_some_and(|added| added.type_url != base.type_url) && !is_named {
        return;
    }
    match added {
        Some(added) => patch.merge_packed(base, added),
        None => patch.counts(),
    }
    // A name of another time means the same filter.
    if let Some(new) = new_name.filter(|new| !new.is_empty())
        && modern_name(new) != modern_name(name)
    {
        name.clone_from(new);
    }
}

fn in_connection_manager(patches: &[&Patch<'_>], filter: &mut Filter, side: Side) {
    let here: Vec<&Patch<'_>> = patches
        .iter()
        .copied()
        .filter(|patch| patch.input.apply_to == ApplyTo::HttpFilter)
        .filter(|patch| is_filter(patch.input.matches.network_filter.as_ref(), &filter.name))
        .collect();
    let of_routes: Vec<&Patch<'_>> = patches
        .iter()
        .copied()
        .filter(|patch| side == Side::Inbound && routes::is_of_routes(patch))
        .collect();
    let Some(filter::ConfigType::TypedConfig(config)) = &mut filter.config_type else { return };
    if (here.is_empty() && of_routes.is_empty())
        || config.type_url != type_url::<HttpConnectionManager>()
    {
        return;
    }
    let Ok(mut manager) = unpack::<HttpConnectionManager>(config) else { return };
    for patch in &here {
        edit(patch, &mut manager.http_filters);
    }
    for filter in &mut manager.http_filters {
        let merges = here.iter().filter(|patch| patch.lists().is_some());
        for patch in merges {
            let wanted = patch.input.matches.http_filter.as_ref();
            let Some(addition) = patch.value::<HttpFilter>() else { continue };
            let Some(http_filter::ConfigType::TypedConfig(config)) = &mut filter.config_type else {
                continue;
            };
            if is_filter(wanted, &filter.name) {
                let added = match &addition.config_type {
                    Some(http_filter::ConfigType::TypedConfig(added)) => Some(added),
                    _ => None,
                };
                let name = Some(&addition.name);
                merge(patch, &mut filter.name, config, name, added, wanted.is_some());
            }
        }
    }
    if let Some(RouteSpecifier::RouteConfig(table)) = &mut manager.route_specifier {
        let port = table.name.split('|').nth(1).and_then(|port| port.parse().ok());
        routes::in_table(&of_routes, table, port.as_slice());
    }
    *config = pack(&manager);
}

fn edit(patch: &Patch<'_>, filters: &mut Vec<HttpFilter>) {
    let wanted = patch.input.matches.http_filter.as_ref();
    let goes_last = patch.input.operation == Operation::Add
        || (patch.input.operation == Operation::InsertAfter && wanted.is_none());
    if goes_last {
        let place = place(patch.input.class, filters);
        patch.put(filters, place);
    } else {
        patch.edit(filters, wanted.is_some(), |filter| is_filter(wanted, &filter.name));
    }
}

/// Where a filter goes that is added. Envoy refuses one behind the router, so "last" is in front of it.
fn place(class: FilterPlace, filters: &[HttpFilter]) -> usize {
    let first = |names: &[&str]| filters.iter().position(|one| names.contains(&one.name.as_str()));
    let behind = |names: &[&str]| {
        let last = filters.iter().rposition(|one| names.contains(&one.name.as_str()));
        last.map(|place| place + 1)
    };
    let end = first(&[ROUTER]).unwrap_or(filters.len());
    let authenticated = behind(&AUTHENTICATION);
    match class {
        FilterPlace::AsWritten => end,
        FilterPlace::Authentication => authenticated.unwrap_or(0),
        FilterPlace::Authorization => behind(&AUTHORIZATION).or(authenticated).unwrap_or(0),
        FilterPlace::Statistics => first(&STATISTICS).unwrap_or(end),
    }
}
