//! Carries out the patches of `EnvoyFilter`s.
//!
//! In:    the rendered resources and the patches for this proxy, in order.
//! Out:   the resources as users patched them; a fault for each patch that was not carried out.
//! Never: carries out a patch by half: a value that does not fit changes nothing.
//!
//! As in Istio the order is by kind first: a listener, its listener filters, its chains, their network
//! filters, the HTTP filters in them; within a kind it is that of the patches, except that what merges
//! comes after what adds and removes, and that whole listeners, clusters and chains that are added are
//! added last and not patched themselves.

mod clusters;
mod filters;
mod listeners;
mod routes;

use std::{
    cell::{Cell, RefCell},
    collections::BTreeSet,
    fmt::Display,
    sync::Arc,
};

use envoy_types::pb::{
    envoy::{
        config::{
            cluster::v3::Cluster,
            core::v3::TypedExtensionConfig,
            listener::v3::{Filter, FilterChain, Listener, ListenerFilter},
            route::v3::{Route, RouteConfiguration, VirtualHost},
        },
        extensions::filters::network::http_connection_manager::v3::HttpFilter,
    },
    google::protobuf::Any,
};
use prost::Name;
use sluis_envoy::ResourceSet;
use sluis_protojson::{ConvertError, Lists, merge, merge_packed, message_from_json};

use crate::{ApplyTo, Fault, Inputs, Operation, PatchInput, Side};

/// Carries out all patches, in order.
pub(super) fn apply(inputs: &Inputs, set: &mut ResourceSet, faults: &mut Vec<Fault>) {
    if inputs.patches.is_empty() {
        return;
    }
    let mut patches = Vec::new();
    for input in &inputs.patches {
        match Patch::prepare(input) {
            Ok(patch) => patches.push(patch),
            Err(fault) => faults.push(*fault),
        }
    }
    clusters::apply(&patches, inputs, set);
    listeners::apply(&patches, inputs, set);
    routes::apply(&patches, inputs, set);
    for patch in patches.iter().filter(|patch| patch.input.apply_to == ApplyTo::ExtensionConfig) {
        let Some(config) = patch.value::<TypedExtensionConfig>() else { continue };
        set.extensions.insert(config.name.clone(), Arc::new(config));
        patch.counts();
    }
    faults.extend(patches.into_iter().flat_map(Patch::faults));
}

/// A patch whose value has been read, and what became of it.
struct Patch<'a> {
    input: &'a PatchInput,
    /// The value, encoded.
    bytes: Vec<u8>,
    /// The number of objects that it changed.
    count: Cell<usize>,
    /// Why it could not be carried out on some object.
    refusals: RefCell<BTreeSet<String>>,
    /// Fields of its value that said nothing.
    unsaid: RefCell<BTreeSet<String>>,
}

impl<'a> Patch<'a> {
    fn prepare(input: &'a PatchInput) -> Result<Self, Box<Fault>> {
        let bytes = if input.operation == Operation::Remove {
            Vec::new()
        } else {
            match input.apply_to {
                ApplyTo::Listener => encoded::<Listener>(input),
                ApplyTo::ListenerFilter => encoded::<ListenerFilter>(input),
                ApplyTo::FilterChain => encoded::<FilterChain>(input),
                ApplyTo::NetworkFilter => encoded::<Filter>(input),
                ApplyTo::HttpFilter => encoded::<HttpFilter>(input),
                ApplyTo::RouteConfiguration => encoded::<RouteConfiguration>(input),
                ApplyTo::VirtualHost => encoded::<VirtualHost>(input),
                ApplyTo::HttpRoute => encoded::<Route>(input),
                ApplyTo::Cluster => encoded::<Cluster>(input),
                ApplyTo::ExtensionConfig => encoded::<TypedExtensionConfig>(input),
            }?
        };
        Ok(Self {
            input,
            bytes,
            count: Cell::new(0),
            refusals: RefCell::default(),
            unsaid: RefCell::default(),
        })
    }

    /// The value; `None` never for the type that the patch applies to.
    fn value<M: Name + Default>(&self) -> Option<M> {
        M::decode(self.bytes.as_slice()).ok()
    }

    /// Whether the patch means a side of the proxy.
    fn is_for(&self, side: Side) -> bool {
        self.input.side == Side::Any || self.input.side == side
    }

    fn counts(&self) {
        self.count.set(self.count.get() + 1);
    }

    fn refuse(&self, error: impl Display) {
        self.refusals.borrow_mut().insert(error.to_string());
    }

    /// How the patch merges lists; `None` when it does not merge.
    fn lists(&self) -> Option<Lists> {
        match self.input.operation {
            Operation::Merge => Some(Lists::Append),
            Operation::MergeReplacingLists => Some(Lists::Replace),
            _ => None,
        }
    }

    /// Lays the value, or a part of it, over an object.
    fn merge<M: Name + Default>(&self, base: &mut M, addition: &M, lists: Lists) {
        let outcome = merge(base, addition, lists);
        self.merged(outcome);
    }

    /// Lays a packed message over another.
    fn merge_packed(&self, base: &mut Any, addition: &Any) {
        let outcome = merge_packed(base, addition);
        self.merged(outcome);
    }

    fn merged(&self, outcome: Result<Vec<String>, ConvertError>) {
        match outcome {
            Ok(unsaid) => {
                self.unsaid.borrow_mut().extend(unsaid);
                self.counts();
            }
            Err(error) => self.refuse(error),
        }
    }

    /// Puts the value into a list, or takes objects out of it. `names_one` says whether the match
    /// names one of them; without a name, the ends of the list are meant.
    fn edit<M: Name + Default>(
        &self,
        list: &mut Vec<M>,
        names_one: bool,
        named: impl Fn(&M) -> bool,
    ) {
        let found = list.iter().position(&named);
        let place = match (self.input.operation, found) {
            (Operation::Remove, _) => {
                let before = list.len();
                list.retain(|item| !named(item));
                if list.len() < before {
                    self.counts();
                }
                return;
            }
            (Operation::Replace, Some(place)) => {
                if let Some(value) = self.value() {
                    list[place] = value;
                    self.counts();
                }
                return;
            }
            (Operation::InsertFirst, _) => 0,
            (Operation::Add, _) => list.len(),
            (Operation::InsertBefore, _) if !names_one => 0,
            (Operation::InsertAfter, _) if !names_one => list.len(),
            (Operation::InsertBefore, Some(place)) => place,
            (Operation::InsertAfter, Some(place)) => place + 1,
            _ => return,
        };
        self.put(list, place);
    }

    fn put<M: Name + Default>(&self, list: &mut Vec<M>, place: usize) {
        if let Some(value) = self.value() {
            list.insert(place.min(list.len()), value);
            self.counts();
        }
    }

    /// What users should know of the patch.
    fn faults(self) -> Vec<Fault> {
        let input = self.input;
        let path = |field: &str| format!("spec.configPatches[{}].{field}", input.index);
        let mut faults = Vec::new();
        for refusal in self.refusals.into_inner() {
            let fault = Fault::error(input.value_at.clone(), refusal).of(owner(input));
            faults.push(fault.field(path("patch.value")));
        }
        for field in self.unsaid.into_inner() {
            let message =
                format!("{field}: a zero, false or empty value changes nothing in a merge");
            let fault = Fault::warning(input.value_at.clone(), message).of(owner(input));
            faults.push(fault.field(path("patch.value")));
        }
        if faults.is_empty() && self.count.get() == 0 && input.is_selective {
            let message = "the patch matches nothing on a proxy that the filter selects";
            let fault = Fault::warning(input.at.clone(), message).of(owner(input));
            faults.push(fault.field(path("match")));
        }
        faults
    }
}

/// The patch's value as a message, encoded.
fn encoded<M: Name + Default>(input: &PatchInput) -> Result<Vec<u8>, Box<Fault>> {
    match message_from_json::<M>(&input.value) {
        Ok(message) => Ok(message.encode_to_vec()),
        Err(error) => {
            let fault = Fault::error(input.value_at.clone(), error.to_string()).of(owner(input));
            let field = format!("spec.configPatches[{}].patch.value", input.index);
            Err(Box::new(
                fault.field(field).help(format!("the value must be an {}", M::full_name())),
            ))
        }
    }
}

fn owner(input: &PatchInput) -> String {
    format!("EnvoyFilter {}", input.owner)
}

/// Whether a match that may be absent names this.
fn is(wanted: Option<&String>, found: &str) -> bool {
    wanted.is_none_or(|wanted| wanted == found)
}

/// Whether a match that may be absent names this filter, by its name of today or an old one.
fn is_filter(wanted: Option<&String>, found: &str) -> bool {
    wanted.is_none_or(|wanted| modern_name(wanted) == modern_name(found))
}

/// A filter's name as Envoy spells it today; old manifests have the names of their time.
fn modern_name(name: &str) -> &str {
    let known = OLD_NAMES.iter().find(|(old, _)| *old == name);
    known.map_or(name, |(_, new)| new)
}

/// Names of filters until Envoy 1.16, and today's.
const OLD_NAMES: [(&str, &str); 27] = [
    ("envoy.buffer", "envoy.filters.http.buffer"),
    ("envoy.cors", "envoy.filters.http.cors"),
    ("envoy.csrf", "envoy.filters.http.csrf"),
    ("envoy.ext_authz", "envoy.filters.http.ext_authz"),
    ("envoy.fault", "envoy.filters.http.fault"),
    ("envoy.grpc_http1_bridge", "envoy.filters.http.grpc_http1_bridge"),
    ("envoy.grpc_json_transcoder", "envoy.filters.http.grpc_json_transcoder"),
    ("envoy.grpc_web", "envoy.filters.http.grpc_web"),
    ("envoy.gzip", "envoy.filters.http.gzip"),
    ("envoy.health_check", "envoy.filters.http.health_check"),
    ("envoy.http_dynamo_filter", "envoy.filters.http.dynamo"),
    ("envoy.ip_tagging", "envoy.filters.http.ip_tagging"),
    ("envoy.lua", "envoy.filters.http.lua"),
    ("envoy.rate_limit", "envoy.filters.http.ratelimit"),
    ("envoy.router", "envoy.filters.http.router"),
    ("envoy.squash", "envoy.filters.http.squash"),
    ("envoy.client_ssl_auth", "envoy.filters.network.client_ssl_auth"),
    ("envoy.echo", "envoy.filters.network.echo"),
    ("envoy.http_connection_manager", "envoy.filters.network.http_connection_manager"),
    ("envoy.mongo_proxy", "envoy.filters.network.mongo_proxy"),
    ("envoy.ratelimit", "envoy.filters.network.ratelimit"),
    ("envoy.redis_proxy", "envoy.filters.network.redis_proxy"),
    ("envoy.tcp_proxy", "envoy.filters.network.tcp_proxy"),
    ("envoy.listener.http_inspector", "envoy.filters.listener.http_inspector"),
    ("envoy.listener.original_dst", "envoy.filters.listener.original_dst"),
    ("envoy.listener.proxy_protocol", "envoy.filters.listener.proxy_protocol"),
    ("envoy.listener.tls_inspector", "envoy.filters.listener.tls_inspector"),
];
