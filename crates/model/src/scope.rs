//! What the proxies of a namespace see: everything, or what their `Sidecar` imports.
//!
//! In:    the namespace, and the `Sidecar` that holds for a workload, if any.
//! Out:   a [`Scope`]: services and virtual services, whole and for each egress listener. Every proxy
//!        of the namespace that obeys the same `Sidecar` shares it.
//! Never: shows what is not exported to the namespace.
//!
//! Start at [`Snapshot::scope`].

use std::{
    collections::{BTreeMap, HashMap},
    sync::{Arc, Mutex, PoisonError},
};

use sluis_nouns::{HostPattern, Labels, ObjectName};
use sluis_resources::{
    CaptureMode, Destination, EgressListener, GatewayRef, HostScope, HttpAction, ImportedHost,
    Protocol, Sidecar, SidecarOutboundPolicy, SidecarPort, VirtualService,
};

use crate::{MeshService, Owned, SERVICE_DOMAIN, Snapshot, is_exported};

/// What the proxies of a namespace see that obey the same `Sidecar`, or none.
#[derive(Debug)]
pub struct Scope {
    /// The namespace of the proxies.
    pub namespace: Arc<str>,
    /// The `Sidecar` that they obey.
    pub sidecar: Option<Owned<Sidecar>>,
    /// The egress listeners: those with a port first, the one for all other ports last.
    pub listeners: Vec<EgressScope>,
    /// The services of all listeners and those that their virtual services lead to, by host.
    services: BTreeMap<HostPattern, Arc<MeshService>>,
}

/// What one egress listener serves.
#[derive(Debug)]
pub struct EgressScope {
    /// Its port; `None` for the listener of all other ports.
    pub port: Option<SidecarPort>,
    /// The address or `unix://PATH` that it is bound to, where one is written.
    pub bind: Option<String>,
    /// How connections reach it.
    pub capture_mode: CaptureMode,
    /// The services, the oldest first; with the listener's port only, where it has one.
    pub services: Vec<Arc<MeshService>>,
    /// The virtual services of gateway `mesh`, the oldest first.
    pub virtual_services: Vec<Owned<VirtualService>>,
}

/// The scopes of a snapshot that were asked for. A snapshot never changes, so they never do.
#[derive(Debug, Default)]
pub(crate) struct ScopeMemo(Mutex<HashMap<ScopeKey, Arc<Scope>>>);

/// The namespace, and the `Sidecar`.
type ScopeKey = (Arc<str>, Option<ObjectName>);

impl Scope {
    /// Every service in reach, in order of host.
    pub fn services(&self) -> impl Iterator<Item = &Arc<MeshService>> {
        self.services.values()
    }

    /// The service of a host.
    #[must_use]
    pub fn service(&self, host: &HostPattern) -> Option<&Arc<MeshService>> {
        self.services.get(host)
    }

    /// What the `Sidecar` says of connections that nothing claims.
    #[must_use]
    pub fn outbound_policy(&self) -> Option<&SidecarOutboundPolicy> {
        self.sidecar.as_ref()?.spec().outbound_traffic_policy.as_ref()
    }
}

impl EgressScope {
    /// Whether the listener serves as an explicit HTTP proxy, for hosts on any port.
    #[must_use]
    pub fn is_http_proxy(&self) -> bool {
        self.port.as_ref().is_some_and(|port| port.protocol == Protocol::HttpProxy)
    }

    /// The one port to which services are cut down.
    fn wanted_port(&self) -> Option<u16> {
        let port = self.port.as_ref()?.number;
        (port != 0 && !self.is_http_proxy()).then_some(port)
    }
}

impl Snapshot {
    /// The `Sidecar` that holds for a workload: one of its namespace that selects it, else one for the
    /// whole namespace, else the one for the mesh in the root namespace. The oldest of each wins.
    #[must_use]
    pub fn sidecar(&self, namespace: &str, labels: &Labels) -> Option<&Owned<Sidecar>> {
        let of = |namespace: &str| self.index().sidecars.get(namespace).into_iter().flatten();
        let selects = |owned: &&Owned<Sidecar>| {
            let selector = owned.spec().workload_selector.as_ref();
            selector.is_some_and(|selector| labels.matches(selector))
        };
        let is_wide = |owned: &&Owned<Sidecar>| owned.spec().workload_selector.is_none();
        of(namespace)
            .find(selects)
            .or_else(|| of(namespace).find(is_wide))
            .or_else(|| of(&self.mesh().root_namespace).find(is_wide))
    }

    /// What a sidecar of a workload sees. Made once for each namespace and `Sidecar`.
    #[must_use]
    pub fn scope(&self, namespace: &Arc<str>, labels: &Labels) -> Arc<Scope> {
        let sidecar = self.sidecar(namespace, labels);
        let key = (Arc::clone(namespace), sidecar.map(|owned| owned.meta().name.clone()));
        let memo = &self.index().scopes.0;
        let known = memo.lock().unwrap_or_else(PoisonError::into_inner).get(&key).cloned();
        known.unwrap_or_else(|| {
            let scope = Arc::new(self.make_scope(namespace, sidecar));
            let mut memo = memo.lock().unwrap_or_else(PoisonError::into_inner);
            Arc::clone(memo.entry(key).or_insert(scope))
        })
    }

    fn make_scope(&self, namespace: &Arc<str>, sidecar: Option<&Owned<Sidecar>>) -> Scope {
        let written = sidecar.map(|owned| owned.spec().egress.as_slice()).unwrap_or_default();
        let mut listeners: Vec<EgressScope> = match written {
            [] => vec![self.everything(namespace)],
            written => written.iter().map(|one| self.imported(namespace, one)).collect(),
        };
        for listener in &mut listeners {
            // The sort is stable: among those of one age the order of host stays.
            listener.services.sort_by_key(|service| service.created.unwrap_or(0));
        }
        let mut services = BTreeMap::new();
        for service in listeners.iter().flat_map(|listener| &listener.services) {
            add(&mut services, service);
        }
        for listener in &listeners {
            for service in self.led_to(namespace, listener) {
                services.entry(service.host.clone()).or_insert(service);
            }
        }
        let namespace = Arc::clone(namespace);
        Scope { namespace, sidecar: sidecar.cloned(), listeners, services }
    }

    fn everything(&self, namespace: &str) -> EgressScope {
        EgressScope {
            port: None,
            bind: None,
            capture_mode: CaptureMode::Default,
            services: self.services(namespace).cloned().collect(),
            virtual_services: self.mesh_virtual_services(namespace).cloned().collect(),
        }
    }

    fn imported(&self, namespace: &str, written: &EgressListener) -> EgressScope {
        let imports = Imports { hosts: &written.hosts, home: namespace };
        let mut made = EgressScope {
            port: written.port.clone(),
            bind: written.bind.clone(),
            capture_mode: written.capture_mode,
            services: Vec::new(),
            virtual_services: Vec::new(),
        };
        let wanted = made.wanted_port();
        let default = &self.mesh().default_service_export_to;
        for of_host in self.index().services.values() {
            let mut candidates = of_host.iter().filter(|service| {
                is_exported(&service.export_to, default, service.namespace(), namespace)
                    && imports.has_service(service)
                    && wanted.is_none_or(|port| service.port(port).is_some())
            });
            let best = candidates
                .clone()
                .find(|service| service.namespace() == namespace)
                .or_else(|| candidates.next());
            let ports = wanted.as_slice();
            made.services.extend(best.and_then(|service| cut(service, ports, wanted.is_some())));
        }
        let visible = self.mesh_virtual_services(namespace);
        made.virtual_services =
            visible.filter(|owned| imports.has_virtual_service(owned)).cloned().collect();
        made
    }

    /// The virtual services of gateway `mesh` that a namespace sees, the oldest first.
    pub fn mesh_virtual_services(
        &self,
        namespace: &str,
    ) -> impl Iterator<Item = &Owned<VirtualService>> {
        self.virtual_services(namespace).filter(|owned| {
            let gateways = &owned.spec().gateways;
            gateways.is_empty() || gateways.contains(&GatewayRef::Mesh)
        })
    }

    /// The services that a listener's virtual services lead to.
    fn led_to(&self, namespace: &str, listener: &EgressScope) -> Vec<Arc<MeshService>> {
        let mut found = Vec::new();
        for owned in &listener.virtual_services {
            for (home, destination) in self.destinations(owned) {
                let host = destination.host.qualified(&home, SERVICE_DOMAIN);
                let Some(service) = self.service(&host, namespace) else { continue };
                let wanted = listener.wanted_port();
                let port = destination.port.or(wanted);
                found.extend(cut(service, port.as_slice(), wanted.is_some()));
            }
        }
        found
    }

    /// The destinations of a virtual service and of those that it delegates to, each with the
    /// namespace that completes its short names.
    fn destinations<'a>(
        &'a self,
        owned: &'a Owned<VirtualService>,
    ) -> Vec<(Arc<str>, &'a Destination)> {
        let mut all = vec![owned];
        let delegates = owned.spec().http.iter().filter_map(|route| match &route.action {
            HttpAction::Delegate(name) => {
                self.index().virtual_services.iter().find(|other| other.meta().name == *name)
            }
            _ => None,
        });
        all.extend(delegates);
        let mut found = Vec::new();
        for owned in all {
            let (home, spec) = (&owned.meta().name.namespace, owned.spec());
            let mut add =
                |destination: &'a Destination| found.push((Arc::clone(home), destination));
            for route in &spec.http {
                if let HttpAction::Route(targets) = &route.action {
                    targets.iter().for_each(|target| add(&target.destination));
                }
                route.mirrors.iter().for_each(|mirror| add(&mirror.destination));
            }
            let tls = spec.tls.iter().flat_map(|route| &route.route);
            let tcp = spec.tcp.iter().flat_map(|route| &route.route);
            tls.chain(tcp).for_each(|target| add(&target.destination));
        }
        found
    }
}

/// What an egress listener imports.
struct Imports<'a> {
    hosts: &'a [ImportedHost],
    home: &'a str,
}

impl Imports<'_> {
    fn has_service(&self, service: &MeshService) -> bool {
        let fits = |import: &ImportedHost| {
            self.is_of(import, service.namespace()) && import.host.covers(&service.host)
        };
        self.decide(fits)
    }

    /// A virtual service is imported when one of its hosts is, or is wider than what is imported.
    fn has_virtual_service(&self, owned: &Owned<VirtualService>) -> bool {
        let home = &owned.meta().name.namespace;
        owned.spec().hosts.iter().any(|host| {
            let host = host.qualified(home, SERVICE_DOMAIN);
            self.decide(|import| {
                let fits =
                    import.host.covers(&host) || (!import.exclude && host.covers(&import.host));
                self.is_of(import, home) && fits
            })
        })
    }

    fn is_of(&self, import: &ImportedHost, namespace: &str) -> bool {
        match &import.namespace {
            HostScope::Any => true,
            HostScope::Same => namespace == self.home,
            HostScope::Namespace(name) => namespace == name,
        }
    }

    fn decide(&self, fits: impl Fn(&ImportedHost) -> bool) -> bool {
        self.hosts.iter().any(|import| !import.exclude && fits(import))
            && !self.hosts.iter().any(|import| import.exclude && fits(import))
    }
}

/// A service with some of its ports only; `None` when it has none of them.
fn cut(service: &Arc<MeshService>, ports: &[u16], is_cut: bool) -> Option<Arc<MeshService>> {
    if !is_cut || service.ports.iter().all(|port| ports.contains(&port.number)) {
        return Some(Arc::clone(service));
    }
    let mut part = MeshService::clone(service);
    part.ports.retain(|port| ports.contains(&port.number));
    (!part.ports.is_empty()).then(|| Arc::new(part))
}

/// Adds a service, or its further ports where the same service is there with others.
fn add(services: &mut BTreeMap<HostPattern, Arc<MeshService>>, service: &Arc<MeshService>) {
    let Some(known) = services.get_mut(&service.host) else {
        services.insert(service.host.clone(), Arc::clone(service));
        return;
    };
    if known.object != service.object {
        return;
    }
    for port in &service.ports {
        if known.port(port.number).is_none() {
            Arc::make_mut(known).ports.push(port.clone());
        }
    }
}

#[cfg(test)]
mod tests;
