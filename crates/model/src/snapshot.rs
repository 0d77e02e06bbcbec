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
    EnvoyFilter, Gateway, Key, MeshConfig, Resolution, Resource, VirtualService, WorkloadAddress,
    WorkloadEntry,
};

use crate::{
    EndpointAddress, LeftOut, MeshPort, MeshService, Owned, Rule, ServiceEndpoint, ServiceSource,
    Workload, index::Index, is_exported,
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
    /// Those that say something else now.
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
    let index = Arc::new(Index::build(&resources));
    (Snapshot { resources: Arc::new(resources), index }, changes)
}

impl Snapshot {
    /// The mesh configuration; Istio's defaults where none is written.
    #[must_use]
    pub fn mesh(&self) -> &MeshConfig {
        &self.index.mesh
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

    /// The endpoints of one port: written ones and selected workloads. In order of address.
    ///
    /// For [`Resolution::Dns`] without any, the host itself stands in for them.
    #[must_use]
    pub fn endpoints(&self, service: &MeshService, port: &MeshPort) -> Vec<ServiceEndpoint> {
        let namespace = &service.object.namespace;
        let written = service.endpoints.iter().map(|entry| (entry, entry.labels.clone()));
        let selected = self.selected(service).map(|workload| (workload.spec(), workload.labels()));
        let mut endpoints: Vec<ServiceEndpoint> = written
            .chain(selected)
            .filter(|(entry, _)| trouble(service, entry, port).is_none())
            .filter_map(|(entry, labels)| endpoint(namespace, entry, labels, port))
            .collect();
        let is_dns = matches!(service.resolution, Resolution::Dns | Resolution::DnsRoundRobin);
        if endpoints.is_empty()
            && is_dns
            && service.source == ServiceSource::Entry
            && let Some(host) = service.host.exact()
        {
            let itself = WorkloadEntry {
                address: Some(WorkloadAddress::Dns(host.to_owned())),
                ..WorkloadEntry::default()
            };
            endpoints.extend(endpoint(namespace, &itself, Labels::new(), port));
        }
        endpoints.sort();
        endpoints.dedup();
        endpoints
    }

    /// The workloads that a service means and that [`Snapshot::endpoints`] leaves out, with the reason.
    #[must_use]
    pub fn left_out(&self, service: &MeshService, port: &MeshPort) -> Vec<LeftOut> {
        let kind = match service.source {
            ServiceSource::Platform => "Service",
            ServiceSource::Entry => "ServiceEntry",
        };
        let written = service.endpoints.iter().filter_map(|entry| {
            let why = trouble(service, entry, port)?;
            let resource = format!("{kind} {}", service.object);
            Some(LeftOut { at: service.at.clone(), resource, why })
        });
        let selected = self.selected(service).filter_map(|workload| {
            let (why, meta) = (trouble(service, workload.spec(), port)?, workload.meta());
            let resource = workload.resource.key().to_string();
            Some(LeftOut { at: meta.at.clone(), resource, why })
        });
        written.chain(selected).collect()
    }

    /// The workloads that a service selects, in order of name.
    fn selected<'a>(&'a self, service: &'a MeshService) -> impl Iterator<Item = &'a Workload> {
        self.index.workloads.values().filter(|workload| {
            workload.meta().name.namespace == service.object.namespace
                && service
                    .selector
                    .as_ref()
                    .is_some_and(|selector| workload.labels().matches(selector))
        })
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

    /// The gateways that select a proxy by its labels, the oldest first.
    pub fn gateways(&self, labels: &Labels) -> impl Iterator<Item = &Owned<Gateway>> {
        self.index.gateways.iter().filter(move |gateway| labels.matches(&gateway.spec().selector))
    }

    /// The virtual services that a namespace sees, the oldest first.
    pub fn virtual_services(&self, viewer: &str) -> impl Iterator<Item = &Owned<VirtualService>> {
        let default = &self.index.mesh.default_virtual_service_export_to;
        self.index.virtual_services.iter().filter(move |owned| {
            is_exported(&owned.spec().export_to, default, &owned.meta().name.namespace, viewer)
        })
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
        let default = &self.index.mesh.default_destination_rule_export_to;
        let at_home =
            |rule: &Rule| client != root || rule.export_to == [sluis_resources::ExportTo::Same];
        let exported = |rule: &Rule| {
            rule.workload_selector.is_none()
                && is_exported(&rule.export_to, default, &rule.object.namespace, client)
        };
        self.rule_in(client, client_labels, &service.host, &at_home)
            .or_else(|| self.rule_in(service.namespace(), client_labels, &service.host, &exported))
            .or_else(|| self.rule_in(root, client_labels, &service.host, &exported))
    }

    fn rule_in(
        &self,
        namespace: &str,
        client_labels: &Labels,
        host: &HostPattern,
        counts: &dyn Fn(&Rule) -> bool,
    ) -> Option<&Arc<Rule>> {
        let rules = self.index.rules.get(namespace)?;
        let selects = |rule: &Rule| {
            rule.workload_selector.as_ref().is_none_or(|labels| client_labels.matches(labels))
        };
        rules.iter().filter(|rule| rule.host.covers(host) && counts(rule) && selects(rule)).min_by(
            |a, b| {
                let general = |rule: &Rule| rule.workload_selector.is_none();
                (general(a).cmp(&general(b))).then_with(|| a.host.by_specificity(&b.host))
            },
        )
    }
}

/// Why a workload gets no traffic of a port.
fn trouble(service: &MeshService, entry: &WorkloadEntry, port: &MeshPort) -> Option<String> {
    let (host, number) = (&service.host, port.number);
    match (&entry.address, service.resolution) {
        (None, _) => Some(format!("without an address it gets no traffic for {host}")),
        (Some(WorkloadAddress::Dns(name)), Resolution::Static) => Some(format!(
            "{name} is a name, and {host} takes addresses only (resolution STATIC): it gets no traffic"
        )),
        (Some(WorkloadAddress::Unix(_)), Resolution::Dns | Resolution::DnsRoundRobin) => {
            Some(format!("a unix socket is not found by DNS: it gets no traffic for {host}"))
        }
        _ if port.on(&entry.ports).is_none() => {
            Some(format!("it has no port of the name that {host}:{number} leads to: no traffic"))
        }
        _ => None,
    }
}

fn endpoint(
    namespace: &Arc<str>,
    entry: &WorkloadEntry,
    labels: Labels,
    port: &MeshPort,
) -> Option<ServiceEndpoint> {
    let address = match entry.address.as_ref()? {
        WorkloadAddress::Ip(ip) => EndpointAddress::Ip(*ip),
        WorkloadAddress::Dns(name) => EndpointAddress::Dns(name.clone()),
        WorkloadAddress::Unix(path) => EndpointAddress::Unix(path.clone()),
    };
    Some(ServiceEndpoint {
        address,
        port: port.on(&entry.ports)?,
        weight: entry.weight.unwrap_or(1).max(1),
        labels,
        account: entry.service_account.clone().map(|account| (Arc::clone(namespace), account)),
    })
}

#[cfg(test)]
mod tests;
