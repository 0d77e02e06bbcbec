//! Turns the inputs of one proxy into Envoy's messages.
//!
//! In:    [`Inputs`], and nothing else.
//! Out:   a [`ResourceSet`], patched as users asked, and what could not be carried out.
//! Never: chooses: which services, routes and policies there are was decided by `select`.

mod access_log;
mod alpn;
mod authorization;
mod cluster;
mod credentials;
mod dynamic;
mod encoded;
mod filter;
mod grpc;
mod inbound;
mod listener;
mod matcher;
mod patch;
mod route;
mod route_policy;
mod secret;
mod server_tls;
mod tls;
mod tokens;
mod wrap;

pub use encoded::{Known, Marks, render_encoded};

use std::{collections::BTreeMap, sync::Arc};

use sluis_envoy::{NameInfo, NameTable, ResourceSet};

use crate::{Fault, Inputs, NameInput};

/// What one proxy should hold, and what could not be carried out.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Rendered {
    /// The resources.
    pub set: ResourceSet,
    /// What users asked for and did not get, each with its place.
    pub faults: Vec<Fault>,
}

/// Turns the inputs of one proxy into Envoy's messages.
#[must_use]
pub fn render(inputs: &Inputs) -> Rendered {
    let mut set = ResourceSet {
        clusters: named(
            inputs
                .clusters
                .iter()
                .map(|input| (&input.name, cluster::cluster(input, &inputs.mesh))),
        ),
        endpoints: named(
            inputs
                .clusters
                .iter()
                .filter_map(|input| Some((&input.name, cluster::endpoints(input)?))),
        ),
        listeners: named(
            inputs
                .listeners
                .iter()
                .map(|input| (&input.name, listener::listener(input, &inputs.mesh))),
        ),
        secrets: named(inputs.secrets.iter().map(|input| (&input.name, secret::secret(input)))),
        routes: named(inputs.routes.iter().map(|input| (&input.name, route::table(input)))),
        names: inputs.names.as_deref().map(|names| Arc::new(name_table(names))),
        ..ResourceSet::default()
    };
    if let Some(outbound) = &inputs.outbound {
        let listener = listener::virtual_outbound(outbound, &inputs.mesh);
        set.listeners.insert(listener.name.clone(), Arc::new(listener));
    }
    for input in inputs.inbound.iter().flat_map(|inbound| &inbound.listeners) {
        let listener = inbound::listener(input, &inputs.mesh);
        set.listeners.insert(input.name.clone(), Arc::new(listener));
    }
    for input in inputs.inbound.iter().flat_map(|inbound| &inbound.clusters) {
        set.clusters.insert(input.name.clone(), Arc::new(inbound::cluster(input)));
    }
    let mut faults = inputs.faults.clone();
    patch::apply(inputs, &mut set, &mut faults);
    if inputs.is_grpc {
        set = grpc::adapt(&set, &mut faults);
    } else {
        // After the patches, which speak of the older fields.
        set.clusters.values_mut().for_each(|one| cluster::modernize(Arc::make_mut(one)));
    }
    Rendered { set, faults }
}

fn named<'a, M>(all: impl Iterator<Item = (&'a String, M)>) -> BTreeMap<String, Arc<M>> {
    all.map(|(name, value)| (name.clone(), Arc::new(value))).collect()
}

fn name_table(names: &[NameInput]) -> NameTable {
    let info = |input: &NameInput| {
        let (shortname, namespace) = input.service.clone().unwrap_or_default();
        NameInfo {
            ips: input.addresses.iter().map(ToString::to_string).collect(),
            registry: if input.service.is_some() { "Kubernetes" } else { "External" }.to_owned(),
            shortname,
            namespace,
        }
    };
    let table: BTreeMap<String, NameInfo> =
        names.iter().map(|input| (input.host.clone(), info(input))).collect();
    NameTable { table }
}
