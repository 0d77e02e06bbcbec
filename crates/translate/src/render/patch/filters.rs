//! Patches of filter chains, network filters and HTTP filters.

use std::sync::Arc;

use envoy_types::pb::envoy::{
    config::listener::v3::{Filter, FilterChain, Listener, filter},
    extensions::filters::network::http_connection_manager::v3::{
        HttpConnectionManager, HttpFilter, http_filter,
    },
};
use sluis_envoy::{ResourceSet, pack, type_url, unpack};

use super::{Outcome, edit_list, means_listener, merge, merge_packed, modern_name, value};
use crate::{ApplyTo, Fault, Inputs, Operation, PatchInput};

/// The HTTP filter that ends a chain; nothing after it would run.
const ROUTER: &str = "envoy.filters.http.router";

/// Carries out a patch of filter chains, network filters or HTTP filters.
pub(super) fn apply(patch: &PatchInput, inputs: &Inputs, set: &mut ResourceSet) -> Outcome {
    let mut count = 0;
    for (name, listener) in &mut set.listeners {
        if means_listener(patch, inputs, name) {
            count += in_listener(patch, Arc::make_mut(listener))?;
        }
    }
    Ok(count)
}

fn in_listener(patch: &PatchInput, listener: &mut Listener) -> Outcome {
    if patch.apply_to == ApplyTo::FilterChain {
        let names_one = patch.matches.chain_name.is_some() || patch.matches.chain_sni.is_some();
        return edit_list(
            &mut listener.filter_chains,
            patch,
            names_one,
            |chain| means_chain(patch, chain),
            merge::<FilterChain>,
        );
    }
    let chains = listener.filter_chains.iter_mut().chain(&mut listener.default_filter_chain);
    let mut count = 0;
    for chain in chains {
        if !means_chain(patch, chain) {
            continue;
        }
        count += match patch.apply_to {
            ApplyTo::NetworkFilter => edit_list(
                &mut chain.filters,
                patch,
                patch.matches.network_filter.is_some(),
                |filter| is_named(patch.matches.network_filter.as_deref(), &filter.name),
                merge_filter,
            )?,
            _ => in_connection_managers(patch, chain)?,
        };
    }
    Ok(count)
}

fn in_connection_managers(patch: &PatchInput, chain: &mut FilterChain) -> Outcome {
    let mut count = 0;
    for filter in &mut chain.filters {
        if !is_named(patch.matches.network_filter.as_deref(), &filter.name) {
            continue;
        }
        let Some(filter::ConfigType::TypedConfig(config)) = &mut filter.config_type else {
            continue;
        };
        if config.type_url != type_url::<HttpConnectionManager>() {
            continue;
        }
        let Ok(mut manager) = unpack::<HttpConnectionManager>(config) else { continue };
        count += in_http_filters(patch, &mut manager.http_filters)?;
        *config = pack(&manager);
    }
    Ok(count)
}

fn in_http_filters(patch: &PatchInput, filters: &mut Vec<HttpFilter>) -> Outcome {
    let wanted = patch.matches.http_filter.as_deref();
    let goes_last = patch.operation == Operation::Add
        || (patch.operation == Operation::InsertAfter && wanted.is_none());
    if goes_last {
        // Envoy refuses a filter behind the router, so "last" is in front of it.
        let end = filters.iter().position(|filter| filter.name == ROUTER).unwrap_or(filters.len());
        filters.insert(end, value(patch)?);
        return Ok(1);
    }
    let named = |filter: &HttpFilter| is_named(wanted, &filter.name);
    edit_list(filters, patch, wanted.is_some(), named, merge_http_filter)
}

fn merge_filter(filter: &mut Filter, patch: &PatchInput) -> Result<(), Box<Fault>> {
    let addition: Filter = value(patch)?;
    match (&mut filter.config_type, addition.config_type) {
        (
            Some(filter::ConfigType::TypedConfig(base)),
            Some(filter::ConfigType::TypedConfig(added)),
        ) => merge_packed(base, added),
        (base, Some(added)) => *base = Some(added),
        (_, None) => {}
    }
    Ok(())
}

fn merge_http_filter(filter: &mut HttpFilter, patch: &PatchInput) -> Result<(), Box<Fault>> {
    let addition: HttpFilter = value(patch)?;
    match (&mut filter.config_type, addition.config_type) {
        (
            Some(http_filter::ConfigType::TypedConfig(base)),
            Some(http_filter::ConfigType::TypedConfig(added)),
        ) => merge_packed(base, added),
        (base, Some(added)) => *base = Some(added),
        (_, None) => {}
    }
    Ok(())
}

fn means_chain(patch: &PatchInput, chain: &FilterChain) -> bool {
    let wanted = &patch.matches;
    let claims = chain.filter_chain_match.as_ref();
    wanted.chain_name.as_deref().is_none_or(|name| name == chain.name)
        && wanted
            .chain_sni
            .as_ref()
            .is_none_or(|sni| claims.is_some_and(|claims| claims.server_names.contains(sni)))
        && wanted.chain_transport.as_deref().is_none_or(|protocol| {
            claims.is_some_and(|claims| claims.transport_protocol == protocol)
        })
}

fn is_named(wanted: Option<&str>, name: &str) -> bool {
    wanted.is_none_or(|wanted| modern_name(wanted) == modern_name(name))
}
