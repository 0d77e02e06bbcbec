//! The indexes of a snapshot, built from its resources.
//!
//! In:    every resource, by key; the index before, and which kinds have changed since.
//! Out:   services by host, rules by namespace, and the other kinds in order of precedence.
//! Never: depends on how the resources came to be: equal resources give equal indexes. What is kept
//!        from the index before was made of kinds that have not changed.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use sluis_nouns::{HostPattern, Labels, ObjectName};
use sluis_resources::{
    AuthorizationPolicy, Credential, CredentialGrant, EndpointSlice, EnvoyFilter, ExportTo,
    Gateway, Key, Kind, MeshConfig, Meta, PeerAuthentication, Pod, RequestAuthentication, Resource,
    ServiceEntryVisibility, Sidecar, Spec, Telemetry, VirtualService, Visibility, WorkloadEntry,
    WorkloadProxyConfig,
};

use crate::{
    ApiStatus, Changes, MeshService, Rule, ServiceSource, address::Allocator,
    endpoint::EndpointMemo, gateway_api, gateway_api::Converted, platform::Platform,
    rules::NamespaceRules, scope::ScopeMemo,
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

/// Everything that lookups need. Each part follows from a few kinds alone, and is shared with the
/// snapshots before and after that have the same resources of those.
#[derive(Debug, Default)]
pub(crate) struct Index {
    pub(crate) mesh: Arc<MeshConfig>,
    /// By host; within a host the best comes first: platform services, then the oldest.
    pub(crate) services: Arc<BTreeMap<HostPattern, Vec<Arc<MeshService>>>>,
    pub(crate) workloads: Arc<BTreeMap<ObjectName, Workload>>,
    pub(crate) gateways: Arc<Vec<Owned<Gateway>>>,
    pub(crate) virtual_services: Arc<Vec<Owned<VirtualService>>>,
    pub(crate) envoy_filters: Arc<Vec<Owned<EnvoyFilter>>>,
    /// By namespace.
    pub(crate) rules: Arc<BTreeMap<Arc<str>, NamespaceRules>>,
    pub(crate) endpoint_memo: Arc<EndpointMemo>,
    pub(crate) platform: Arc<Platform>,
    pub(crate) namespaces: Arc<BTreeMap<Arc<str>, Labels>>,
    /// By namespace, the oldest first.
    pub(crate) sidecars: ByNamespace<Sidecar>,
    /// By namespace, the oldest first.
    pub(crate) peer_authentications: ByNamespace<PeerAuthentication>,
    /// By namespace, the oldest first.
    pub(crate) authorization_policies: ByNamespace<AuthorizationPolicy>,
    /// The oldest first.
    pub(crate) credentials: Arc<Vec<Owned<Credential>>>,
    /// The oldest first.
    pub(crate) credential_grants: Arc<Vec<Owned<CredentialGrant>>>,
    /// By namespace, the oldest first.
    pub(crate) telemetries: ByNamespace<Telemetry>,
    /// By namespace, the oldest first.
    pub(crate) proxy_configs: ByNamespace<WorkloadProxyConfig>,
    /// By namespace, the oldest first.
    pub(crate) request_authentications: ByNamespace<RequestAuthentication>,
    pub(crate) scopes: Arc<ScopeMemo>,
    /// What the resources of the Gateway API mean.
    converted: Arc<Converted>,
}

/// Objects of one kind by namespace, the oldest first.
pub(crate) type ByNamespace<T> = Arc<BTreeMap<Arc<str>, Vec<Owned<T>>>>;

/// Every resource.
type Resources = BTreeMap<Key, Arc<Resource>>;

/// The index before, and what has changed since.
struct Before<'a> {
    index: &'a Index,
    kinds: BTreeSet<Kind>,
    changes: &'a Changes,
}

impl<'a> Before<'a> {
    /// A part of the index before, if nothing has changed of the kinds that it was made of.
    fn keep<T: 'a>(
        &self,
        kinds: &[Kind],
        part: impl FnOnce(&'a Index) -> &'a Arc<T>,
    ) -> Option<Arc<T>> {
        let is_kept = !kinds.iter().any(|kind| self.kinds.contains(kind));
        is_kept.then(|| Arc::clone(part(self.index)))
    }
}

/// The kinds that are endpoints, or parts of them.
const ENDPOINT_KINDS: [Kind; 3] = [Kind::EndpointSlice, Kind::Pod, Kind::WorkloadEntry];

impl Index {
    /// The index of these resources, which differ by `changes` from those of `before`.
    pub(crate) fn build(resources: &Resources, before: &Self, changes: &Changes) -> Self {
        let mut kinds: BTreeSet<Kind> = changes.keys().map(|key| key.kind).collect();
        let converted = converted(resources, before);
        if !Arc::ptr_eq(&converted, &before.converted) {
            kinds.extend(CONVERTED_KINDS);
        }
        // What is seen at all follows from the mesh configuration and the namespaces.
        let turns_all = kinds.contains(&Kind::ConfigMap) || kinds.contains(&Kind::Namespace);
        let before = (!turns_all).then_some(Before { index: before, kinds, changes });
        let (mesh, namespaces) = match &before {
            Some(before) => (Arc::clone(&before.index.mesh), Arc::clone(&before.index.namespaces)),
            None => (
                Arc::new(mesh_config(&of_kind(resources, Kind::ConfigMap))),
                Arc::new(namespaces(&of_kind(resources, Kind::Namespace))),
            ),
        };
        let all = |kind: Kind| {
            let mut found = with_converted(resources, &converted, kind);
            found.retain(|resource| is_discovered(&mesh, &namespaces, &resource.meta));
            found
        };
        let before = before.as_ref();
        let mut index = Self {
            services: kept(before, &[Kind::Service, Kind::ServiceEntry], |index| &index.services)
                .unwrap_or_else(|| Arc::new(services(&mesh, &namespaces, &all))),
            workloads: kept(before, &[Kind::WorkloadEntry], |index| &index.workloads)
                .unwrap_or_else(|| Arc::new(by_name(all(Kind::WorkloadEntry), workload))),
            gateways: kept(before, &[Kind::Gateway], |index| &index.gateways)
                .unwrap_or_else(|| Arc::new(in_order(all(Kind::Gateway), gateway))),
            virtual_services: kept(before, &[Kind::VirtualService], |i| &i.virtual_services)
                .unwrap_or_else(|| Arc::new(in_order(all(Kind::VirtualService), virtual_service))),
            envoy_filters: kept(before, &[Kind::EnvoyFilter], |index| &index.envoy_filters)
                .unwrap_or_else(|| Arc::new(envoy_filters(&mesh, all(Kind::EnvoyFilter)))),
            rules: kept(before, &[Kind::DestinationRule], |index| &index.rules)
                .unwrap_or_else(|| Arc::new(rules(&mesh, &all(Kind::DestinationRule)))),
            platform: kept(before, &PLATFORM_KINDS, |index| &index.platform)
                .unwrap_or_else(|| Arc::new(platform(&all))),
            sidecars: kept(before, &[Kind::Sidecar], |index| &index.sidecars)
                .unwrap_or_else(|| Arc::new(by_namespace(all(Kind::Sidecar), sidecar))),
            peer_authentications: kept(before, &[Kind::PeerAuthentication], |index| {
                &index.peer_authentications
            })
            .unwrap_or_else(|| {
                Arc::new(by_namespace(all(Kind::PeerAuthentication), peer_authentication))
            }),
            request_authentications: kept(before, &[Kind::RequestAuthentication], |index| {
                &index.request_authentications
            })
            .unwrap_or_else(|| {
                Arc::new(by_namespace(all(Kind::RequestAuthentication), request_authentication))
            }),
            authorization_policies: kept(before, &[Kind::AuthorizationPolicy], |index| {
                &index.authorization_policies
            })
            .unwrap_or_else(|| {
                Arc::new(by_namespace(all(Kind::AuthorizationPolicy), authorization_policy))
            }),
            credentials: credentials(before, &all),
            credential_grants: credential_grants(before, &all),
            telemetries: kept(before, &[Kind::Telemetry], |index| &index.telemetries)
                .unwrap_or_else(|| Arc::new(by_namespace(all(Kind::Telemetry), telemetry))),
            proxy_configs: kept(before, &[Kind::ProxyConfig], |index| &index.proxy_configs)
                .unwrap_or_else(|| Arc::new(by_namespace(all(Kind::ProxyConfig), proxy_config))),
            scopes: kept(before, &SCOPE_KINDS, |index| &index.scopes).unwrap_or_default(),
            endpoint_memo: Arc::default(),
            converted: Arc::clone(&converted),
            mesh,
            namespaces,
        };
        index.endpoint_memo = before.map(known_endpoints).unwrap_or_default();
        index
    }

    /// The objects that were made from the Gateway API and are not the same in both.
    pub(crate) fn converted_otherwise(&self, before: &Self) -> BTreeSet<Key> {
        let (new, old) = (&self.converted.resources, &before.converted.resources);
        let gone = old.iter().filter(|resource| !new.contains(resource));
        let came = new.iter().filter(|resource| !old.contains(resource));
        gone.chain(came).map(|resource| resource.key()).collect()
    }

    /// The status of every resource of the Gateway API that is ours.
    pub(crate) fn api_statuses(&self) -> &BTreeMap<Key, ApiStatus> {
        &self.converted.statuses
    }
}

/// The kinds that resources of the Gateway API are made into.
const CONVERTED_KINDS: [Kind; 3] = [Kind::DestinationRule, Kind::Gateway, Kind::VirtualService];

/// What the resources of the Gateway API mean; as before where that is the same.
fn converted(resources: &Resources, before: &Index) -> Arc<Converted> {
    let converted = gateway_api::convert(resources);
    if converted == *before.converted {
        return Arc::clone(&before.converted);
    }
    Arc::new(converted)
}

/// The kinds that the workloads of a cluster are made of.
const PLATFORM_KINDS: [Kind; 3] = [Kind::EndpointSlice, Kind::Node, Kind::Pod];

/// The kinds that scopes are made of.
const SCOPE_KINDS: [Kind; 4] =
    [Kind::Service, Kind::ServiceEntry, Kind::Sidecar, Kind::VirtualService];

fn credentials<'r>(
    before: Option<&Before<'_>>,
    all: &impl Fn(Kind) -> Vec<&'r Arc<Resource>>,
) -> Arc<Vec<Owned<Credential>>> {
    kept(before, &[Kind::Credential], |index| &index.credentials)
        .unwrap_or_else(|| Arc::new(in_order(all(Kind::Credential), credential)))
}

fn credential_grants<'r>(
    before: Option<&Before<'_>>,
    all: &impl Fn(Kind) -> Vec<&'r Arc<Resource>>,
) -> Arc<Vec<Owned<CredentialGrant>>> {
    kept(before, &[Kind::CredentialGrant], |index| &index.credential_grants)
        .unwrap_or_else(|| Arc::new(in_order(all(Kind::CredentialGrant), credential_grant)))
}

fn kept<'a, T: 'a>(
    before: Option<&Before<'a>>,
    kinds: &[Kind],
    part: impl FnOnce(&'a Index) -> &'a Arc<T>,
) -> Option<Arc<T>> {
    before?.keep(kinds, part)
}

/// The endpoints that are known and still true: a workload is an endpoint in its own namespace only.
fn known_endpoints(before: &Before<'_>) -> Arc<EndpointMemo> {
    let others = [Kind::Node, Kind::Service, Kind::ServiceEntry];
    if others.iter().any(|kind| before.kinds.contains(kind)) {
        return Arc::default();
    }
    let keys = before.changes.keys().filter(|key| ENDPOINT_KINDS.contains(&key.kind));
    let namespaces: BTreeSet<&str> = keys.map(|key| &*key.name.namespace).collect();
    if namespaces.is_empty() {
        return Arc::clone(&before.index.endpoint_memo);
    }
    Arc::new(before.index.endpoint_memo.outside(&namespaces))
}

/// The resources of one kind in the order of precedence.
fn of_kind(resources: &Resources, kind: Kind) -> Vec<&Arc<Resource>> {
    let first = Key { kind, name: ObjectName::new("", "") };
    let mut found: Vec<&Arc<Resource>> = resources
        .range(first..)
        .take_while(|(key, _)| key.kind == kind)
        .map(|(_, resource)| resource)
        .collect();
    found.sort_by_cached_key(|resource| age(&resource.meta));
    found
}

/// The same, with those that were made from the Gateway API.
fn with_converted<'r>(
    resources: &'r Resources,
    converted: &'r Converted,
    kind: Kind,
) -> Vec<&'r Arc<Resource>> {
    let mut found = of_kind(resources, kind);
    if CONVERTED_KINDS.contains(&kind) {
        found.extend(converted.resources.iter().filter(|resource| resource.meta.kind == kind));
        found.sort_by_cached_key(|resource| age(&resource.meta));
    }
    found
}

fn in_order<T>(all: Vec<&Arc<Resource>>, pick: fn(&Spec) -> Option<&T>) -> Vec<Owned<T>> {
    all.into_iter().map(|resource| owned(resource, pick)).collect()
}

fn by_name<T>(
    all: Vec<&Arc<Resource>>,
    pick: fn(&Spec) -> Option<&T>,
) -> BTreeMap<ObjectName, Owned<T>> {
    all.into_iter().map(|one| (one.meta.name.clone(), owned(one, pick))).collect()
}

fn by_namespace<T>(
    all: Vec<&Arc<Resource>>,
    pick: fn(&Spec) -> Option<&T>,
) -> BTreeMap<Arc<str>, Vec<Owned<T>>> {
    let mut found: BTreeMap<Arc<str>, Vec<Owned<T>>> = BTreeMap::new();
    for resource in all {
        let namespace = Arc::clone(&resource.meta.name.namespace);
        found.entry(namespace).or_default().push(owned(resource, pick));
    }
    found
}

/// By priority, those of the root namespace first, then by age.
fn envoy_filters(mesh: &MeshConfig, all: Vec<&Arc<Resource>>) -> Vec<Owned<EnvoyFilter>> {
    let mut found = in_order(all, envoy_filter);
    found.sort_by_key(|filter| {
        let is_elsewhere = *filter.meta().name.namespace != *mesh.root_namespace;
        (filter.spec().priority, is_elsewhere)
    });
    found
}

fn rules(mesh: &MeshConfig, all: &[&Arc<Resource>]) -> BTreeMap<Arc<str>, NamespaceRules> {
    let made = all.iter().filter_map(|resource| match &resource.spec {
        Spec::DestinationRule(rule) => Some(Rule::new(&resource.meta, rule)),
        _ => None,
    });
    let mut made: Vec<Rule> = made.collect();
    // The sort is stable: among each the oldest stays first.
    made.sort_by_key(|rule| rule.workload_selector.is_none());
    let mut rules: BTreeMap<Arc<str>, NamespaceRules> = BTreeMap::new();
    for rule in made {
        let of_namespace = rules.entry(Arc::clone(&rule.object.namespace)).or_default();
        of_namespace.add(&rule, &mesh.default_destination_rule_export_to);
    }
    rules
}

fn platform<'a>(all: &impl Fn(Kind) -> Vec<&'a Arc<Resource>>) -> Platform {
    let mut platform = Platform { pods: by_name(all(Kind::Pod), pod), ..Platform::default() };
    for resource in all(Kind::EndpointSlice) {
        let slice = owned(resource, endpoint_slice);
        if let Some(service) = &slice.spec().service {
            let namespace = Arc::clone(&resource.meta.name.namespace);
            let service = ObjectName::new(namespace, service.as_str());
            platform.slices.entry(service).or_default().push(slice);
        }
    }
    let nodes = all(Kind::Node).into_iter().map(|resource| &resource.meta);
    platform.nodes = nodes.map(|meta| (Arc::clone(&meta.name.name), meta.labels.clone())).collect();
    platform
}

fn services<'a>(
    mesh: &MeshConfig,
    namespaces: &BTreeMap<Arc<str>, Labels>,
    all: &impl Fn(Kind) -> Vec<&'a Arc<Resource>>,
) -> BTreeMap<HostPattern, Vec<Arc<MeshService>>> {
    let mut found = all(Kind::Service);
    found.extend(all(Kind::ServiceEntry));
    found.sort_by_cached_key(|resource| age(&resource.meta));
    let mut services = Vec::new();
    for resource in found {
        match &resource.spec {
            Spec::ServiceEntry(entry) => {
                services.extend(MeshService::of_entry(&resource.meta, entry));
            }
            Spec::Service(service) => {
                services.extend(MeshService::of_service(&resource.meta, service));
            }
            _ => {}
        }
    }
    if let Some(visibility) = &mesh.service_entry_visibility {
        for service in &mut services {
            restrict(service, visibility, namespaces);
        }
    }
    services_by_host(services)
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

fn request_authentication(spec: &Spec) -> Option<&RequestAuthentication> {
    match spec {
        Spec::RequestAuthentication(policy) => Some(policy),
        _ => None,
    }
}

fn authorization_policy(spec: &Spec) -> Option<&AuthorizationPolicy> {
    if let Spec::AuthorizationPolicy(value) = spec { Some(value) } else { None }
}

fn credential(spec: &Spec) -> Option<&Credential> {
    if let Spec::Credential(value) = spec { Some(value) } else { None }
}

fn credential_grant(spec: &Spec) -> Option<&CredentialGrant> {
    if let Spec::CredentialGrant(value) = spec { Some(value) } else { None }
}

fn telemetry(spec: &Spec) -> Option<&Telemetry> {
    if let Spec::Telemetry(value) = spec { Some(value) } else { None }
}

fn proxy_config(spec: &Spec) -> Option<&WorkloadProxyConfig> {
    if let Spec::ProxyConfig(value) = spec { Some(value) } else { None }
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
