//! Patches of listeners, listener filters and filter chains.

use std::sync::Arc;

use envoy_types::pb::envoy::config::{
    core::v3::{TrafficDirection, address, socket_address::PortSpecifier, transport_socket},
    listener::v3::{FilterChain, Listener},
};
use sluis_envoy::ResourceSet;
use sluis_protojson::Lists;

use super::{Patch, filters, is, is_filter};
use crate::{ApplyTo, Inputs, Operation, Side};

/// The capturing listeners: their ports are told apart by chains.
const VIRTUAL: [&str; 2] = ["virtualInbound", "virtualOutbound"];

/// Carries out the patches of listeners and of everything in them.
pub(super) fn apply(all: &[Patch<'_>], inputs: &Inputs, set: &mut ResourceSet) {
    let is_within = |apply_to: ApplyTo| {
        matches!(
            apply_to,
            ApplyTo::Listener
                | ApplyTo::ListenerFilter
                | ApplyTo::FilterChain
                | ApplyTo::NetworkFilter
                | ApplyTo::HttpFilter
        )
    };
    // The route tables of the inbound side are written inside of its listeners.
    let is_inline = |patch: &Patch<'_>| {
        let of_routes = matches!(
            patch.input.apply_to,
            ApplyTo::RouteConfiguration | ApplyTo::VirtualHost | ApplyTo::HttpRoute
        );
        of_routes && patch.is_for(Side::Inbound)
    };
    if !all.iter().any(|patch| is_within(patch.input.apply_to) || is_inline(patch)) {
        return;
    }
    let names: Vec<String> = set.listeners.keys().cloned().collect();
    for name in names {
        let Some(listener) = set.listeners.remove(&name) else { continue };
        let side = side(&listener, inputs);
        let known = inputs.listeners.iter().find(|input| input.name == name);
        let ports = known.map(|known| known.known_ports.as_slice()).unwrap_or_default();
        let here: Vec<&Patch<'_>> = all
            .iter()
            .filter(|patch| patch.is_for(side) && is_meant(patch, &listener, ports))
            .collect();
        if here.is_empty() {
            set.listeners.insert(name, listener);
        } else if let Some(patched) = patch_one(&here, Arc::unwrap_or_clone(listener), side) {
            set.listeners.insert(patched.name.clone(), Arc::new(patched));
        }
    }
    let added = |patch: &&Patch<'_>| {
        patch.input.apply_to == ApplyTo::Listener && patch.input.operation == Operation::Add
    };
    for patch in all.iter().filter(added) {
        let Some(listener) = patch.value::<Listener>() else { continue };
        set.listeners.insert(listener.name.clone(), Arc::new(listener));
        patch.counts();
    }
}

fn side(listener: &Listener, inputs: &Inputs) -> Side {
    if inputs.outbound.is_none() {
        Side::Gateway
    } else if listener.traffic_direction() == TrafficDirection::Inbound {
        Side::Inbound
    } else {
        Side::Outbound
    }
}

/// Whether a patch means a listener, as far as its name and port go.
///
/// A port is the one that the listener is bound to, or the one that a `Gateway` declares: a Service
/// in front of the gateway may have translated it, and users write the one that they know.
fn is_meant(patch: &Patch<'_>, listener: &Listener, known_ports: &[u16]) -> bool {
    let wanted = &patch.input.matches;
    let is_virtual = VIRTUAL.contains(&listener.name.as_str());
    let is_port =
        |port: u16| known_ports.contains(&port) || bound(listener) == Some(u32::from(port));
    is(wanted.listener_name.as_ref(), &listener.name)
        && ((is_virtual && patch.input.apply_to != ApplyTo::Listener)
            || wanted.port.is_none_or(is_port))
}

fn bound(listener: &Listener) -> Option<u32> {
    match listener.address.as_ref()?.address.as_ref()? {
        address::Address::SocketAddress(socket) => match socket.port_specifier.as_ref()? {
            PortSpecifier::PortValue(port) => Some(*port),
            PortSpecifier::NamedPort(_) => None,
        },
        _ => None,
    }
}

/// The listener as the patches for it want it; `None` when one removes it.
fn patch_one(patches: &[&Patch<'_>], mut listener: Listener, side: Side) -> Option<Listener> {
    let of = |apply_to| patches.iter().filter(move |patch| patch.input.apply_to == apply_to);
    for patch in of(ApplyTo::Listener) {
        if patch.input.operation == Operation::Remove {
            patch.counts();
            return None;
        }
        if let (Some(lists), Some(addition)) = (patch.lists(), patch.value::<Listener>()) {
            patch.merge(&mut listener, &addition, lists);
        }
    }
    for patch in of(ApplyTo::ListenerFilter) {
        let wanted = patch.input.matches.listener_filter.as_ref();
        let named = |name: &str| is_filter(wanted, name);
        patch.edit(&mut listener.listener_filters, wanted.is_some(), |filter| named(&filter.name));
    }
    let is_virtual = VIRTUAL.contains(&listener.name.as_str());
    let chains = std::mem::take(&mut listener.filter_chains);
    listener.filter_chains = chains
        .into_iter()
        .filter_map(|chain| patch_chain(patches, chain, is_virtual, side))
        .collect();
    listener.default_filter_chain = listener
        .default_filter_chain
        .take()
        .and_then(|chain| patch_chain(patches, chain, is_virtual, side));
    for patch in of(ApplyTo::FilterChain) {
        if patch.input.operation == Operation::Add {
            let end = listener.filter_chains.len();
            patch.put(&mut listener.filter_chains, end);
        }
    }
    Some(listener)
}

/// The chain as the patches for it want it; `None` when one removes it.
fn patch_chain(
    patches: &[&Patch<'_>],
    mut chain: FilterChain,
    is_virtual: bool,
    side: Side,
) -> Option<FilterChain> {
    let here: Vec<&Patch<'_>> =
        patches.iter().copied().filter(|patch| is_chain_meant(patch, &chain, is_virtual)).collect();
    for patch in here.iter().filter(|patch| patch.input.apply_to == ApplyTo::FilterChain) {
        if patch.input.operation == Operation::Remove {
            patch.counts();
            return None;
        }
        if let Some(lists) = patch.lists() {
            merge(&mut chain, patch, lists);
        }
    }
    filters::apply(&here, &mut chain, side);
    Some(chain)
}

/// Lays a patch over a chain; a transport socket of the same name is merged by its content.
fn merge(chain: &mut FilterChain, patch: &Patch<'_>, lists: Lists) {
    use transport_socket::ConfigType::TypedConfig;
    let Some(mut addition) = patch.value::<FilterChain>() else { return };
    if let (Some(base), Some(added)) = (&mut chain.transport_socket, &addition.transport_socket)
        && base.name == added.name
        && let (Some(TypedConfig(base)), Some(TypedConfig(added))) =
            (&mut base.config_type, &added.config_type)
    {
        patch.merge_packed(base, added);
        addition.transport_socket = None;
    }
    patch.merge(chain, &addition, lists);
}

fn is_chain_meant(patch: &Patch<'_>, chain: &FilterChain, is_virtual: bool) -> bool {
    let wanted = &patch.input.matches;
    let none = Default::default();
    let claims = chain.filter_chain_match.as_ref().unwrap_or(&none);
    let claims_port = |port: u16| {
        claims.destination_port.as_ref().is_some_and(|claimed| claimed.value == u32::from(port))
    };
    let socket = chain.transport_socket.as_ref().map_or("", |socket| socket.name.as_str());
    (!is_virtual || wanted.port.is_none_or(claims_port))
        && is(wanted.chain_name.as_ref(), &chain.name)
        && wanted.chain_sni.as_ref().is_none_or(|sni| claims.server_names.contains(sni))
        && is(wanted.chain_transport.as_ref(), &claims.transport_protocol)
        && wanted.chain_alpn.iter().all(|name| claims.application_protocols.contains(name))
        && wanted.chain_port.is_none_or(claims_port)
        && is(wanted.chain_socket.as_ref(), socket)
}
