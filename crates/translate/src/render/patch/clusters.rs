//! Patches of clusters.

use std::sync::Arc;

use envoy_types::pb::envoy::config::{
    cluster::v3::Cluster, core::v3::transport_socket::ConfigType,
};
use sluis_envoy::ResourceSet;
use sluis_protojson::Lists;

use super::{Patch, is};
use crate::{ApplyTo, Inputs, Operation, PatchMatch, Side};

/// Carries out the patches of clusters: removals, then merges, then additions.
pub(super) fn apply(all: &[Patch<'_>], inputs: &Inputs, set: &mut ResourceSet) {
    let patches: Vec<&Patch<'_>> =
        all.iter().filter(|patch| patch.input.apply_to == ApplyTo::Cluster).collect();
    if patches.is_empty() {
        return;
    }
    let names: Vec<String> = set.clusters.keys().cloned().collect();
    for name in names {
        let known = Known::of(&name, inputs);
        let meant = |patch: &&&Patch<'_>| {
            patch.is_for(known.side) && known.is_meant(&patch.input.matches, &name)
        };
        let mut is_removed = false;
        for patch in patches.iter().filter(meant) {
            if patch.input.operation == Operation::Remove {
                patch.counts();
                is_removed = true;
            }
        }
        if is_removed {
            set.clusters.remove(&name);
            set.endpoints.remove(&name);
            continue;
        }
        let merges = patches.iter().filter(meant).filter_map(|patch| Some((patch, patch.lists()?)));
        for (patch, lists) in merges {
            if let Some(cluster) = set.clusters.get_mut(&name) {
                merge(Arc::make_mut(cluster), patch, lists);
            }
        }
    }
    for patch in patches.iter().filter(|patch| patch.input.operation == Operation::Add) {
        let Some(cluster) = patch.value::<Cluster>() else { continue };
        set.clusters.insert(cluster.name.clone(), Arc::new(cluster));
        patch.counts();
    }
}

/// What a cluster's name says, and who serves it.
struct Known {
    side: Side,
    hosts: Vec<String>,
    subset: String,
    port: u16,
}

impl Known {
    fn of(name: &str, inputs: &Inputs) -> Self {
        let parts: Vec<&str> = name.split('|').collect();
        let inbound = inputs.inbound.iter().flat_map(|inbound| &inbound.clusters);
        let inbound = inbound.clone().find(|cluster| cluster.name == name);
        let side = match inbound {
            _ if inputs.outbound.is_none() => Side::Gateway,
            Some(_) => Side::Inbound,
            None => Side::Outbound,
        };
        let (port, subset, host) = match parts.as_slice() {
            [_, port, subset, host] => (port.parse().unwrap_or(0), *subset, *host),
            _ => (0, "", ""),
        };
        let hosts = match inbound {
            Some(cluster) => cluster.services.iter().map(|service| service.host.clone()).collect(),
            None => vec![host.split('~').next().unwrap_or_default().to_owned()],
        };
        Self { side, hosts, subset: subset.to_owned(), port }
    }

    /// A match by name looks at nothing else, as in Istio.
    fn is_meant(&self, wanted: &PatchMatch, name: &str) -> bool {
        if let Some(wanted) = &wanted.cluster {
            return wanted == name;
        }
        is(wanted.subset.as_ref(), &self.subset)
            && wanted.service.as_ref().is_none_or(|service| self.hosts.contains(service))
            && wanted.cluster_port.is_none_or(|port| port == self.port)
    }
}

/// Lays a patch over a cluster. A transport socket is merged into the one of its name, which may be
/// among those for some endpoints only; where there is none such it is left out, because a cluster may
/// not have both kinds.
fn merge(cluster: &mut Cluster, patch: &Patch<'_>, lists: Lists) {
    let Some(mut addition) = patch.value::<Cluster>() else { return };
    if let Some(written) = addition.transport_socket.take() {
        let is_for_all = cluster.transport_socket_matches.is_empty();
        let of_some = cluster
            .transport_socket_matches
            .iter_mut()
            .filter_map(|of_some| of_some.transport_socket.as_mut());
        let same =
            of_some.chain(&mut cluster.transport_socket).find(|socket| socket.name == written.name);
        match same.map(|socket| (&mut socket.config_type, &written.config_type)) {
            Some((Some(ConfigType::TypedConfig(base)), Some(ConfigType::TypedConfig(added)))) => {
                patch.merge_packed(base, added);
            }
            _ if is_for_all => {
                addition.transport_socket = Some(written);
            }
            _ => {}
        }
    }
    patch.merge(cluster, &addition, lists);
}
