//! Carries out the patches of `EnvoyFilter`s.
//!
//! In:    the rendered resources and the patches for this proxy, in order.
//! Out:   the resources as users patched them; a fault for each patch that was not carried out.
//! Never: carries out a patch by half: a value that does not fit changes nothing.

mod filters;
mod routes;

use std::sync::Arc;

use envoy_types::pb::{
    envoy::config::{cluster::v3::Cluster, listener::v3::Listener},
    google::protobuf::Any,
};
use prost::Name;
use sluis_envoy::ResourceSet;
use sluis_protojson::message_from_json;

use crate::{ApplyTo, ClusterInput, Fault, Inputs, Operation, PatchInput};

/// The number of objects that a patch changed, or why it could not be carried out.
type Outcome = Result<usize, Box<Fault>>;

/// Carries out all patches, in order.
pub(super) fn apply(inputs: &Inputs, set: &mut ResourceSet, faults: &mut Vec<Fault>) {
    for patch in &inputs.patches {
        match apply_one(patch, inputs, set) {
            Ok(0) if patch.is_selective => {
                let message = "the patch matches nothing on a proxy that the filter selects";
                faults.push(
                    Fault::warning(patch.at.clone(), message)
                        .of(owner(patch))
                        .field(format!("spec.configPatches[{}].match", patch.index)),
                );
            }
            Ok(_) => {}
            Err(fault) => faults.push(*fault),
        }
    }
}

fn apply_one(patch: &PatchInput, inputs: &Inputs, set: &mut ResourceSet) -> Outcome {
    match patch.apply_to {
        ApplyTo::Listener => listeners(patch, inputs, set),
        ApplyTo::FilterChain | ApplyTo::NetworkFilter | ApplyTo::HttpFilter => {
            filters::apply(patch, inputs, set)
        }
        ApplyTo::RouteConfiguration | ApplyTo::VirtualHost | ApplyTo::HttpRoute => {
            routes::apply(patch, inputs, set)
        }
        ApplyTo::Cluster => clusters(patch, inputs, set),
    }
}

fn clusters(patch: &PatchInput, inputs: &Inputs, set: &mut ResourceSet) -> Outcome {
    if patch.operation == Operation::Add {
        let cluster: Cluster = value(patch)?;
        set.clusters.insert(cluster.name.clone(), Arc::new(cluster));
        return Ok(1);
    }
    let wanted = inputs.clusters.iter().filter(|input| means_cluster(patch, input));
    let mut count = 0;
    for input in wanted {
        match patch.operation {
            Operation::Remove => {
                set.endpoints.remove(&input.name);
                count += usize::from(set.clusters.remove(&input.name).is_some());
            }
            Operation::Merge => {
                if let Some(cluster) = set.clusters.get_mut(&input.name) {
                    merge::<Cluster>(Arc::make_mut(cluster), patch)?;
                    count += 1;
                }
            }
            _ => return Err(unsupported(patch)),
        }
    }
    Ok(count)
}

fn means_cluster(patch: &PatchInput, input: &ClusterInput) -> bool {
    let wanted = &patch.matches;
    let is = |wanted: &Option<String>, found: &str| {
        wanted.as_deref().is_none_or(|wanted| wanted == found)
    };
    is(&wanted.cluster, &input.name)
        && is(&wanted.service, &input.host)
        && is(&wanted.subset, &input.subset)
        && wanted.cluster_port.is_none_or(|port| port == input.port)
}

fn listeners(patch: &PatchInput, inputs: &Inputs, set: &mut ResourceSet) -> Outcome {
    if patch.operation == Operation::Add {
        let listener: Listener = value(patch)?;
        set.listeners.insert(listener.name.clone(), Arc::new(listener));
        return Ok(1);
    }
    let names: Vec<String> = set.listeners.keys().cloned().collect();
    let mut count = 0;
    for name in names.iter().filter(|name| means_listener(patch, inputs, name)) {
        match patch.operation {
            Operation::Remove => drop(set.listeners.remove(name)),
            Operation::Merge => {
                if let Some(listener) = set.listeners.get_mut(name) {
                    merge::<Listener>(Arc::make_mut(listener), patch)?;
                }
            }
            _ => return Err(unsupported(patch)),
        }
        count += 1;
    }
    Ok(count)
}

/// Whether a patch means a listener, as far as its name and port go.
///
/// A port is the one that the listener is bound to, or the one that a `Gateway` declares: a Service
/// in front of the gateway may have translated it, and users write the one that they know.
fn means_listener(patch: &PatchInput, inputs: &Inputs, name: &str) -> bool {
    let wanted = &patch.matches;
    let known = inputs.listeners.iter().find(|input| input.name == name);
    wanted.listener_name.as_deref().is_none_or(|wanted| wanted == name)
        && wanted
            .port
            .is_none_or(|port| known.is_some_and(|input| input.known_ports.contains(&port)))
}

/// Puts an object into a list, takes one out, or changes one.
///
/// `named` says which object the match names; when the match names none, everything is meant by
/// MERGE and REMOVE, and the ends of the list by the INSERT operations.
fn edit_list<M: Name + Default + Clone>(
    list: &mut Vec<M>,
    patch: &PatchInput,
    names_one: bool,
    named: impl Fn(&M) -> bool,
    merge_into: impl Fn(&mut M, &PatchInput) -> Result<(), Box<Fault>>,
) -> Outcome {
    let position = list.iter().position(&named);
    match patch.operation {
        Operation::Add => list.push(value(patch)?),
        Operation::InsertFirst => list.insert(0, value(patch)?),
        Operation::InsertBefore if !names_one => list.insert(0, value(patch)?),
        Operation::InsertAfter if !names_one => list.push(value(patch)?),
        Operation::InsertBefore => match position {
            Some(index) => list.insert(index, value(patch)?),
            None => return Ok(0),
        },
        Operation::InsertAfter => match position {
            Some(index) => list.insert(index + 1, value(patch)?),
            None => return Ok(0),
        },
        Operation::Replace => match position {
            Some(index) => list[index] = value(patch)?,
            None => return Ok(0),
        },
        Operation::Remove => {
            let before = list.len();
            list.retain(|item| !named(item));
            return Ok(before - list.len());
        }
        Operation::Merge => {
            let mut count = 0;
            for item in list.iter_mut().filter(|item| named(item)) {
                merge_into(item, patch)?;
                count += 1;
            }
            return Ok(count);
        }
    }
    Ok(1)
}

/// The patch's value as a message.
fn value<M: Name + Default>(patch: &PatchInput) -> Result<M, Box<Fault>> {
    message_from_json(&patch.value).map_err(|error| {
        let fault = Fault::error(patch.value_at.clone(), error.to_string()).of(owner(patch));
        let field = format!("spec.configPatches[{}].patch.value", patch.index);
        Box::new(fault.field(field).help(format!("the value must be an {}", M::full_name())))
    })
}

/// Merges the patch's value into a message as protobuf does: fields replaced, lists appended.
fn merge<M: Name + Default>(message: &mut M, patch: &PatchInput) -> Result<(), Box<Fault>> {
    let addition: M = value(patch)?;
    message.merge(addition.encode_to_vec().as_slice()).map_err(|error| {
        Box::new(Fault::error(patch.value_at.clone(), error.to_string()).of(owner(patch)))
    })
}

/// Merges one packed message into another: field by field when they are of one type (the bytes of
/// one message after those of another decode as both merged), else by replacing it.
fn merge_packed(base: &mut Any, addition: Any) {
    if base.type_url == addition.type_url {
        base.value.extend(addition.value);
    } else {
        *base = addition;
    }
}

fn unsupported(patch: &PatchInput) -> Box<Fault> {
    let message = format!("{:?} is not carried out for {:?}", patch.operation, patch.apply_to);
    let fault = Fault::error(patch.at.clone(), message).of(owner(patch));
    Box::new(fault.field(format!("spec.configPatches[{}].patch.operation", patch.index)))
}

fn owner(patch: &PatchInput) -> String {
    format!("EnvoyFilter {}", patch.owner)
}

/// A filter's name as Envoy spells it today; old manifests have the names of their time.
fn modern_name(name: &str) -> &str {
    match name {
        "envoy.http_connection_manager" => "envoy.filters.network.http_connection_manager",
        "envoy.tcp_proxy" => "envoy.filters.network.tcp_proxy",
        "envoy.router" => "envoy.filters.http.router",
        "envoy.lua" => "envoy.filters.http.lua",
        "envoy.cors" => "envoy.filters.http.cors",
        "envoy.fault" => "envoy.filters.http.fault",
        "envoy.ext_authz" => "envoy.filters.http.ext_authz",
        name => name,
    }
}
