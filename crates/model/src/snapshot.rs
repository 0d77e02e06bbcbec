//! The mesh at one moment, and how it changes.
//!
//! In:    a snapshot and a batch of resources that came, changed or went.
//! Out:   the next snapshot, and what is different in it.
//! Never: changes a snapshot that exists: whoever holds one keeps what it saw.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
    sync::Arc,
};

use sluis_nouns::{HostPattern, Labels, ObjectName};
use sluis_resources::{
    EnvoyFilter, ExportTo, Gateway, Key, MeshConfig, Resource, VirtualService, WorkloadAddress,
};

use crate::{
    ApiStatus, MeshService, Owned, Rule, ServiceSource, Workload, gateway_api, index::Index,
    is_exported, is_gateway_api,
};

/// The mesh at one moment. Cheap to clone.
#[derive(Clone, Debug, Default)]
pub struct Snapshot {
    resources: Arc<BTreeMap<Key, Arc<Resource>>>,
    index: Arc<Index>,
}

/// Resources that came, changed or went.
#[derive(Clone, Debug, Default)]
pub struct Batch {
    /// Those that are there now; they replace the ones of the same key.
    pub upserts: Vec<Resource>,
    /// Those that are gone.
    pub removals: Vec<Key>,
}

/// What is different in the next snapshot. Resources that were sent again unchanged are not listed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Changes {
    /// New ones.
    pub added: BTreeSet<Key>,
    /// Those that say something else now; also what is made of objects of the Gateway API, when that
    /// comes, goes or changes.
    pub changed: BTreeSet<Key>,
    /// Those that are gone.
    pub removed: BTreeSet<Key>,
}

impl Changes {
    /// Whether nothing is different.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.added.is_empty() && self.changed.is_empty() && self.removed.is_empty()
    }

    /// Whether an object is different.
    #[must_use]
    pub fn contains(&self, key: &Key) -> bool {
        self.added.contains(key) || self.changed.contains(key) || self.removed.contains(key)
    }

    /// Every key that is different.
    pub fn keys(&self) -> impl Iterator<Item = &Key> {
        self.added.iter().chain(&self.changed).chain(&self.removed)
    }
}

/// Makes the next snapshot.
///
/// When nothing is different the very same snapshot is returned.
#[must_use]
pub fn apply(snapshot: &Snapshot, batch: Batch) -> (Snapshot, Changes) {
    let mut resources = (*snapshot.resources).clone();
    let mut changes = Changes::default();
    for key in batch.removals {
        if resources.remove(&key).is_some() {
            changes.removed.insert(key);
        }
    }
    for resource in batch.upserts {
        let key = resource.key();
        if resources.get(&key).is_some_and(|old| **old == resource) {
            continue;
        }
        let is_back = changes.removed.remove(&key);
        match resources.insert(key.clone(), Arc::new(resource)) {
            None if !is_back => changes.added.insert(key),
            _ => changes.changed.insert(key),
        };
    }
    if changes.is_empty() {
        return (snapshot.clone(), changes);
    }
    let index = Arc::new(Index::build(&resources, &snapshot.index, &changes));
    changes.changed.extend(index.converted_otherwise(&snapshot.index));
    (Snapshot { resources: Arc::new(resources), index }, changes)
}

impl Snapshot {
    /// The mesh configuration; Istio's defaults where none is written.
    #[must_use]
    pub fn mesh(&self) -> &MeshConfig {
        &self.index.mesh
    }

    /// Whether both are the very same. They may be equal when they are not.
    #[must_use]
    pub fn is_same(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.index, &other.index)
    }

    /// One resource.
    #[must_use]
    pub fn get(&self, key: &Key) -> Option<&Arc<Resource>> {
        self.resources.get(key)
    }

    /// All resources, by kind and name.
    pub fn resources(&self) -> impl Iterator<Item = &Arc<Resource>> {
        self.resources.values()
    }

    /// The workloads (`WorkloadEntry`), by name.
    pub fn workloads(&self) -> impl Iterator<Item = &Workload> {
        self.index.workloads.values()
    }

    /// One workload.
    #[must_use]
    pub fn workload(&self, name: &ObjectName) -> Option<&Workload> {
        self.index.workloads.get(name)
    }

    /// The labels of a namespace, when it is written down.
    #[must_use]
    pub fn namespace(&self, name: &str) -> Option<&Labels> {
        self.index.namespaces.get(name)
    }

    /// The services that a namespace sees, one for each host, in order of host.
    ///
    /// Where several namespaces have the host: the viewer's own wins, then a platform service, then
    /// the oldest.
    pub fn services(&self, viewer: &str) -> impl Iterator<Item = &Arc<MeshService>> {
        self.index.services.values().filter_map(move |of_host| self.best(of_host, viewer))
    }

    /// Every service, seen by whom it may be, in order of host.
    pub fn all_services(&self) -> impl Iterator<Item = &Arc<MeshService>> {
        self.index.services.values().flatten()
    }

    /// The service of a host that a namespace sees.
    #[must_use]
    pub fn service(&self, host: &HostPattern, viewer: &str) -> Option<&Arc<MeshService>> {
        self.best(self.index.services.get(host)?, viewer)
    }

    fn best<'a>(
        &self,
        of_host: &'a [Arc<MeshService>],
        viewer: &str,
    ) -> Option<&'a Arc<MeshService>> {
        let default = &self.index.mesh.default_service_export_to;
        let mut visible = of_host.iter().filter(|service| {
            is_exported(&service.export_to, default, service.namespace(), viewer)
        });
        let own = of_host.iter().find(|service| {
            service.namespace() == viewer
                && is_exported(&service.export_to, default, viewer, viewer)
        });
        own.or_else(|| visible.next())
    }

    /// The platform services that select a workload, in order of host.
    pub fn services_selecting(
        &self,
        namespace: &str,
        labels: &Labels,
    ) -> impl Iterator<Item = &Arc<MeshService>> {
        self.index.services.values().flatten().filter(move |service| {
            service.source == ServiceSource::Platform
                && service.namespace() == namespace
                && service.selector.as_ref().is_some_and(|selector| labels.matches(selector))
        })
    }

    /// The services of which a workload is an endpoint: those of its namespace that select it or name
    /// its address. In order of host.
    pub fn services_of(
        &self,
        namespace: &str,
        labels: &Labels,
        address: IpAddr,
    ) -> impl Iterator<Item = &Arc<MeshService>> {
        let is_written = move |service: &MeshService| {
            let here = Some(WorkloadAddress::Ip(address));
            service.endpoints.iter().any(|endpoint| endpoint.address == here)
        };
        self.index.services.values().flatten().filter(move |service| {
            service.namespace() == namespace
                && (service.selector.as_ref().is_some_and(|selector| labels.matches(selector))
                    || is_written(service))
        })
    }

    /// The gateways that select a proxy by its labels, the oldest first. Those of the Gateway API
    /// select only proxies of their own namespace.
    pub fn gateways(
        &self,
        namespace: &str,
        labels: &Labels,
    ) -> impl Iterator<Item = &Owned<Gateway>> {
        self.index.gateways.iter().filter(move |gateway| {
            labels.matches(&gateway.spec().selector)
                && (!is_gateway_api(gateway.meta()) || *gateway.meta().name.namespace == *namespace)
        })
    }

    /// The status of every resource of the Gateway API that is ours.
    pub fn api_statuses(&self) -> impl Iterator<Item = (&Key, &ApiStatus)> {
        self.index.api_statuses().iter()
    }

    /// Whether a `ReferenceGrant` lets the Gateways of a namespace use a Secret or ConfigMap of
    /// another one.
    #[must_use]
    pub fn is_granted_to_gateways(&self, namespace: &str, target: &Key) -> bool {
        gateway_api::is_granted(&self.resources, namespace, target)
    }

    /// The virtual services that a namespace sees, in Istio's order of precedence: its own that only
    /// it sees, those that others export to it by name, then what everybody sees; the oldest first
    /// among each.
    pub fn virtual_services(&self, viewer: &str) -> impl Iterator<Item = &Owned<VirtualService>> {
        let default = &self.index.mesh.default_virtual_service_export_to;
        let mut visible: Vec<_> = self
            .index
            .virtual_services
            .iter()
            .filter_map(|owned| {
                let home = &*owned.meta().name.namespace;
                let export_to = &owned.spec().export_to;
                let is_seen = is_exported(export_to, default, home, viewer);
                let effective = if export_to.is_empty() { default } else { export_to };
                let is_public = effective.is_empty() || effective.contains(&ExportTo::All);
                is_seen.then_some(((is_public, home != viewer && !is_public), owned))
            })
            .collect();
        // The sort is stable: the oldest stays first.
        visible.sort_by_key(|(rank, _)| *rank);
        visible.into_iter().map(|(_, owned)| owned)
    }

    /// The `EnvoyFilter`s for a proxy, in order of application: by priority, those of the root
    /// namespace first, then by age.
    pub fn envoy_filters(
        &self,
        namespace: &str,
        labels: &Labels,
    ) -> impl Iterator<Item = &Owned<EnvoyFilter>> {
        let root = &self.index.mesh.root_namespace;
        self.index.envoy_filters.iter().filter(move |filter| {
            let home = &*filter.meta().name.namespace;
            (home == namespace || home == root)
                && filter
                    .spec()
                    .workload_selector
                    .as_ref()
                    .is_none_or(|selector| labels.matches(selector))
        })
    }

    /// The rule that holds for a client and a service.
    ///
    /// Looked for in the client's namespace, then the service's, then the root one; the first that
    /// has a rule for the host decides, and within it an exact host before the longest wildcard, and
    /// a rule that selects the client before one that selects all. In the client's namespace
    /// everything counts, unless it is the root one, where only rules that are private to it do;
    /// elsewhere only what is exported to the client.
    #[must_use]
    pub fn rule(
        &self,
        client: &str,
        client_labels: &Labels,
        service: &MeshService,
    ) -> Option<&Arc<Rule>> {
        let root = self.index.mesh.root_namespace.as_str();
        let own = self.index.rules.get(client);
        let own = own.and_then(|own| own.for_own(&service.host, client_labels, client == root));
        if let Some(found) = own {
            return found;
        }
        let exported = |home: &str| self.index.rules.get(home)?.for_other(&service.host, client);
        exported(service.namespace()).or_else(|| exported(root))
    }

    pub(crate) fn index(&self) -> &Index {
        &self.index
    }
}

#[cfg(test)]
mod tests;
