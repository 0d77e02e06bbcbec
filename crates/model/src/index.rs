//! The indexes of a snapshot, built from its resources.
//!
//! In:    every resource, by key.
//! Out:   services by host, rules by namespace, and the other kinds in order of precedence.
//! Never: keeps anything between builds: equal resources give equal indexes.

use std::{collections::BTreeMap, sync::Arc};

use sluis_nouns::{HostPattern, Labels, ObjectName};
use sluis_resources::{
    EndpointSlice, EnvoyFilter, ExportTo, Gateway, Key, MeshConfig, Meta, PeerAuthentication, Pod,
    Resource, ServiceEntryVisibility, Sidecar, Spec, VirtualService, Visibility, WorkloadEntry,
};

use crate::{
    ApiStatus, MeshService, Rule, ServiceSource, address::Allocator, endpoint::EndpointMemo,
    gateway_api, platform::Platform, rules::NamespaceRules, scope::ScopeMemo,
};

/// A resource whose spec is known to be of one kind.
#[derive(Debug)]
pub struct Owned<T> {
    /// The resource.
    pub resource: Arc<Resource>,
    pick: fn(&Spec) -> Option<&T>,
}

impl<T> Clone for Owned<T> {
    fn clone(&self) -> Self {
        Self { resource: Arc::clone(&self.resource), pick: self.pick }
    }
}

impl<T> Owned<T> {
    /// Name, labels, annotations and place.
    #[must_use]
    pub fn meta(&self) -> &Meta {
        &self.resource.meta
    }

    /// What it says.
    #[must_use]
    pub fn spec(&self) -> &T {
        (self.pick)(&self.resource.spec).expect("the index holds resources of this kind only")
    }
}

/// One workload.
pub type Workload = Owned<WorkloadEntry>;

impl Workload {
    /// The workload's labels: those of the object, and those of the entry, which win.
    #[must_use]
    pub fn labels(&self) -> Labels {
        let pairs = self.meta().labels.iter().chain(self.spec().labels.iter());
        pairs.map(|(key, value)| (key.clone(), value.clone())).collect()
    }
}

/// Everything that lookups need.
#[derive(Debug, Default)]
pub(crate) struct Index {
    pub(crate) mesh: Arc<MeshConfig>,
    /// By host; within a host the best comes first: platform services, then the oldest.
    pub(crate) services: BTreeMap<HostPattern, Vec<Arc<MeshService>>>,
    pub(crate) workloads: BTreeMap<ObjectName, Workload>,
    pub(crate) gateways: Vec<Owned<Gateway>>,
    pub(crate) virtual_services: Vec<Owned<VirtualService>>,
    pub(crate) envoy_filters: Vec<Owned<EnvoyFilter>>,
    /// By namespace.
    pub(crate) rules: BTreeMap<Arc<str>, NamespaceRules>,
    pub(crate) endpoint_memo: EndpointMemo,
    pub(crate) platform: Platform,
    pub(crate) namespaces: BTreeMap<Arc<str>, Labels>,
    /// By namespace, the oldest first.
    pub(crate) sidecars: BTreeMap<Arc<str>, Vec<Owned<Sidecar>>>,
    /// By namespace, the oldest first.
    pub(crate) peer_authentications: BTreeMap<Arc<str>, Vec<Owned<PeerAuthentication>>>,
    pub(crate) scopes: ScopeMemo,
    pub(crate) api_statuses: BTreeMap<Key, ApiStatus>,
}

impl Index {
    pub(crate) fn build(resources: &BTreeMap<Key, Arc<Resource>>) -> Self {
        let converted = gateway_api::convert(resources);
        let mut all: Vec<&Arc<Resource>> = resources.values().chain(&converted.resources).collect();
        all.sort_by_key(|resource| age(&resource.meta));
        let mesh = mesh_config(&all);
        let namespaces = namespaces(&all);
        all.retain(|resource| is_discovered(&mesh, &namespaces, &resource.meta));
        let mut index = Self { mesh: Arc::new(mesh), namespaces, ..Self::default() };
        let mut services = Vec::new();
        let mut rules: Vec<Rule> = Vec::new();
        for resource in all {
            index.file(resource, &mut services, &mut rules);
        }
        index.api_statuses = converted.statuses;
        let root = index.mesh.root_namespace.clone();
        index.envoy_filters.sort_by_key(|filter| {
            let is_elsewhere = *filter.meta().name.namespace != *root;
            (filter.spec().priority, is_elsewhere)
        });
        if let Some(visibility) = &index.mesh.service_entry_visibility {
            for service in &mut services {
                restrict(service, visibility, &index.namespaces);
            }
        }
        index.services = services_by_host(services);
        // The sort is stable: among each the oldest stays first.
        rules.sort_by_key(|rule| rule.workload_selector.is_none());
        for rule in rules {
            let default = &index.mesh.default_destination_rule_export_to;
            let of_namespace = index.rules.entry(Arc::clone(&rule.object.namespace)).or_default();
            of_namespace.add(&rule, default);
        }
        index
    }

    fn file(
        &mut self,
        resource: &Arc<Resource>,
        services: &mut Vec<MeshService>,
        rules: &mut Vec<Rule>,
    ) {
        let meta = &resource.meta;
        match &resource.spec {
            Spec::Gateway(_) => self.gateways.push(owned(resource, gateway)),
            Spec::VirtualService(_) => self.virtual_services.push(owned(resource, virtual_service)),
            Spec::EnvoyFilter(_) => self.envoy_filters.push(owned(resource, envoy_filter)),
            Spec::WorkloadEntry(_) => {
                self.workloads.insert(meta.name.clone(), owned(resource, workload));
            }
            Spec::DestinationRule(rule) => rules.push(Rule::new(meta, rule)),
            Spec::ServiceEntry(entry) => services.extend(MeshService::of_entry(meta, entry)),
            Spec::Service(service) => services.extend(MeshService::of_service(meta, service)),
            Spec::Sidecar(_) => {
                let of_namespace =
                    self.sidecars.entry(Arc::clone(&meta.name.namespace)).or_default();
                of_namespace.push(owned(resource, sidecar));
            }
            Spec::PeerAuthentication(_) => {
                let of_namespace =
                    self.peer_authentications.entry(Arc::clone(&meta.name.namespace)).or_default();
                of_namespace.push(owned(resource, peer_authentication));
            }
            Spec::Secret(_)
            | Spec::ConfigMap(_)
            | Spec::RequestAuthentication(_)
            | Spec::AuthorizationPolicy(_)
            | Spec::Telemetry(_)
            | Spec::WasmPlugin(_)
            | Spec::WorkloadGroup(_)
            | Spec::Namespace(_)
            | Spec::ProxyConfig(_)
            // What they mean was made into resources of the kinds above.
            | Spec::GatewayClass(_)
            | Spec::KubernetesGateway(_)
            | Spec::HttpRoute(_)
            | Spec::GrpcRoute(_)
            | Spec::TlsRoute(_)
            | Spec::TcpRoute(_)
            | Spec::ReferenceGrant(_)
            | Spec::BackendTlsPolicy(_) => {}
            Spec::EndpointSlice(slice) => {
                if let Some(service) = &slice.service {
                    let namespace = Arc::clone(&meta.name.namespace);
                    let service = ObjectName::new(namespace, service.as_str());
                    let of_service = self.platform.slices.entry(service).or_default();
                    of_service.push(owned(resource, endpoint_slice));
                }
            }
            Spec::Pod(_) => {
                self.platform.pods.insert(meta.name.clone(), owned(resource, pod));
            }
            Spec::Node(_) => {
                self.platform.nodes.insert(Arc::clone(&meta.name.name), meta.labels.clone());
            }
        }
    }
}

/// The order of precedence among equals: the oldest first, then by name and namespace.
fn age(meta: &Meta) -> (i64, Arc<str>, Arc<str>) {
    (meta.created.unwrap_or(0), Arc::clone(&meta.name.name), Arc::clone(&meta.name.namespace))
}

/// The mesh configuration: the one in the root namespace that it names itself, else the oldest.
fn mesh_config(all: &[&Arc<Resource>]) -> MeshConfig {
    let found = all.iter().filter_map(|resource| match &resource.spec {
        Spec::ConfigMap(map) => map.mesh.as_deref().map(|mesh| (&resource.meta, mesh)),
        _ => None,
    });
    let mut found: Vec<_> = found.collect();
    found.sort_by_key(|(meta, mesh)| *meta.name.namespace != *mesh.root_namespace);
    found.first().map(|(_, mesh)| (*mesh).clone()).unwrap_or_default()
}

/// The labels of the namespaces that are written down.
fn namespaces(all: &[&Arc<Resource>]) -> BTreeMap<Arc<str>, Labels> {
    all.iter()
        .filter(|resource| matches!(resource.spec, Spec::Namespace(_)))
        .map(|resource| (Arc::clone(&resource.meta.name.name), resource.meta.labels.clone()))
        .collect()
}

/// Whether a resource is seen at all: it belongs to no namespace, to the root one, or to one that
/// `discoverySelectors` mean.
fn is_discovered(mesh: &MeshConfig, namespaces: &BTreeMap<Arc<str>, Labels>, meta: &Meta) -> bool {
    let (selectors, namespace) = (&mesh.discovery_selectors, &meta.name.namespace);
    let labels = || namespaces.get(namespace).cloned().unwrap_or_default();
    selectors.is_empty() || namespace.is_empty() || **namespace == *mesh.root_namespace || {
        let labels = labels();
        selectors.iter().any(|selector| selector.matches(&labels))
    }
}

/// Shows a `ServiceEntry` no further than the mesh configuration lets its namespace.
fn restrict(
    service: &mut MeshService,
    visibility: &ServiceEntryVisibility,
    namespaces: &BTreeMap<Arc<str>, Labels>,
) {
    if !visibility.apply_to_sidecars || service.source != ServiceSource::Entry {
        return;
    }
    let labels = namespaces.get(service.namespace()).cloned().unwrap_or_default();
    let policy = visibility
        .policies
        .iter()
        .find(|policy| policy.namespaces.iter().all(|selector| selector.matches(&labels)));
    match policy.map_or(visibility.default, |policy| policy.visibility) {
        Visibility::Public => {}
        Visibility::Namespace if service.export_to.contains(&ExportTo::None) => {}
        Visibility::Namespace => service.export_to = vec![ExportTo::Same],
        Visibility::None => service.export_to = vec![ExportTo::None],
    }
}

/// Groups services by host, merges entries of one namespace, and gives addresses to those without.
fn services_by_host(all: Vec<MeshService>) -> BTreeMap<HostPattern, Vec<Arc<MeshService>>> {
    let mut grouped: BTreeMap<HostPattern, Vec<MeshService>> = BTreeMap::new();
    for service in all {
        let of_host = grouped.entry(service.host.clone()).or_default();
        let same = |older: &&mut MeshService| {
            older.namespace() == service.namespace() && older.can_merge(&service)
        };
        match of_host.iter_mut().find(same) {
            Some(older) => older.merge(service),
            None => of_host.push(service),
        }
    }
    let mut addresses = Allocator::default();
    let mut services = BTreeMap::new();
    for (host, mut of_host) in grouped {
        // The sort is stable: the oldest stays first within each source.
        of_host.sort_by_key(|service| service.source != ServiceSource::Platform);
        for service in &mut of_host {
            service.ports.sort_by_key(|port| port.number);
            if service.wants_address() {
                let found = addresses.allocate(service.namespace(), host.as_str());
                service.auto_address = found.map(|(v4, _)| v4);
                service.auto_address_v6 = found.map(|(_, v6)| v6);
            }
        }
        services.insert(host, of_host.into_iter().map(Arc::new).collect());
    }
    services
}

fn owned<T>(resource: &Arc<Resource>, pick: fn(&Spec) -> Option<&T>) -> Owned<T> {
    Owned { resource: Arc::clone(resource), pick }
}

fn gateway(spec: &Spec) -> Option<&Gateway> {
    if let Spec::Gateway(value) = spec { Some(value) } else { None }
}

fn virtual_service(spec: &Spec) -> Option<&VirtualService> {
    if let Spec::VirtualService(value) = spec { Some(value) } else { None }
}

fn envoy_filter(spec: &Spec) -> Option<&EnvoyFilter> {
    if let Spec::EnvoyFilter(value) = spec { Some(value) } else { None }
}

fn sidecar(spec: &Spec) -> Option<&Sidecar> {
    if let Spec::Sidecar(value) = spec { Some(value) } else { None }
}

fn peer_authentication(spec: &Spec) -> Option<&PeerAuthentication> {
    if let Spec::PeerAuthentication(value) = spec { Some(value) } else { None }
}

fn workload(spec: &Spec) -> Option<&WorkloadEntry> {
    if let Spec::WorkloadEntry(value) = spec { Some(value) } else { None }
}

fn endpoint_slice(spec: &Spec) -> Option<&EndpointSlice> {
    if let Spec::EndpointSlice(value) = spec { Some(value) } else { None }
}

fn pod(spec: &Spec) -> Option<&Pod> {
    if let Spec::Pod(value) = spec { Some(value) } else { None }
}
