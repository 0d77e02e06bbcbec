//! What conversions look up: objects by name, namespaces by labels, grants, workloads.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use sluis_nouns::{HostPattern, Labels, ObjectName};
use sluis_resources::{
    Key, Kind, Meta, ObjectSelector, Resource, SecretValue, Service, ServiceEntry, Spec,
};

use super::{CONTROLLER, ISTIO_CONTROLLER, REMOTE_CONTROLLER};
use crate::SERVICE_DOMAIN;

/// The label that Kubernetes gives to every namespace.
const NAMESPACE_LABEL: &str = "kubernetes.io/metadata.name";

/// Every resource of a mesh.
#[derive(Clone, Copy)]
pub(super) struct World<'a> {
    pub(super) resources: &'a BTreeMap<Key, Arc<Resource>>,
}

/// Who programs a Gateway.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Controller {
    /// We.
    Own,
    /// Another cluster.
    Remote,
}

/// The controller of that name, as far as its Gateways concern us.
pub(super) fn controller(name: &str) -> Option<Controller> {
    match name {
        CONTROLLER | ISTIO_CONTROLLER => Some(Controller::Own),
        REMOTE_CONTROLLER => Some(Controller::Remote),
        _ => None,
    }
}

impl<'a> World<'a> {
    pub(super) fn get(&self, kind: Kind, namespace: &str, name: &str) -> Option<&'a Resource> {
        let key = Key { kind, name: ObjectName::new(namespace, name) };
        self.resources.get(&key).map(|found| &**found)
    }

    /// Who serves a class: as its object says, and without one by the well-known names.
    pub(super) fn class(&self, name: &str) -> Option<Controller> {
        match self.get(Kind::GatewayClass, "", name).map(|class| &class.spec) {
            Some(Spec::GatewayClass(class)) => controller(&class.controller),
            _ => match name {
                "istio" | "sluis" => Some(Controller::Own),
                "istio-remote" => Some(Controller::Remote),
                _ => None,
            },
        }
    }

    pub(super) fn service(&self, namespace: &str, name: &str) -> Option<(&'a Meta, &'a Service)> {
        match self.get(Kind::Service, namespace, name) {
            Some(Resource { meta, spec: Spec::Service(service) }) => Some((meta, service)),
            _ => None,
        }
    }

    pub(super) fn entry(&self, namespace: &str, name: &str) -> Option<&'a ServiceEntry> {
        match &self.get(Kind::ServiceEntry, namespace, name)?.spec {
            Spec::ServiceEntry(entry) => Some(entry),
            _ => None,
        }
    }

    /// The labels of the workloads behind a host of a namespace, and the ports of the host.
    pub(super) fn host(&self, host: &str, namespace: &str) -> Option<(Option<Labels>, Vec<u16>)> {
        let suffix = format!(".{namespace}.svc.{SERVICE_DOMAIN}");
        if let Some(name) = host.strip_suffix(&suffix)
            && let Some((_, service)) = self.service(namespace, name)
        {
            let selector = (!service.selector.is_empty()).then(|| service.selector.clone());
            return Some((selector, service.ports.iter().map(|port| port.port).collect()));
        }
        self.resources.values().find_map(|resource| match &resource.spec {
            Spec::ServiceEntry(entry)
                if *resource.meta.name.namespace == *namespace
                    && entry.hosts.iter().any(|own| own.as_str() == host) =>
            {
                let ports = entry.ports.iter().map(|port| port.number).collect();
                Some((entry.workload_selector.clone(), ports))
            }
            _ => None,
        })
    }

    /// Whether a namespace has a workload with these labels.
    pub(super) fn has_workload(&self, namespace: &str, selector: &Labels) -> bool {
        self.resources.values().any(|resource| {
            let meta = &resource.meta;
            let labels = match &resource.spec {
                Spec::Pod(_) => meta.labels.clone(),
                Spec::WorkloadEntry(entry) => {
                    let pairs = meta.labels.iter().chain(entry.labels.iter());
                    pairs.map(|(key, value)| (key.clone(), value.clone())).collect()
                }
                _ => return false,
            };
            *meta.name.namespace == *namespace && labels.matches(selector)
        })
    }

    /// The namespaces that a selector matches, of all that have an object.
    pub(super) fn namespaces(&self, selector: &ObjectSelector) -> BTreeSet<Arc<str>> {
        let mut known: BTreeMap<Arc<str>, Labels> = BTreeMap::new();
        for resource in self.resources.values() {
            let name = &resource.meta.name;
            if let Spec::Namespace(_) = &resource.spec {
                known.insert(Arc::clone(&name.name), resource.meta.labels.clone());
            } else if !name.namespace.is_empty() {
                known.entry(Arc::clone(&name.namespace)).or_default();
            }
        }
        let matching = known.into_iter().filter_map(|(name, mut labels)| {
            labels.insert(NAMESPACE_LABEL, &*name);
            selector.matches(&labels).then_some(name)
        });
        matching.collect()
    }

    /// Whether a ReferenceGrant lets kind and namespace refer to group, kind, namespace and name.
    pub(super) fn is_granted(
        &self,
        (from_kind, from_namespace): (&str, &str),
        (group, kind, namespace, name): (&str, &str, &str, &str),
    ) -> bool {
        self.resources.values().any(|resource| {
            let Spec::ReferenceGrant(grant) = &resource.spec else { return false };
            *resource.meta.name.namespace == *namespace
                && grant.from.iter().any(|from| {
                    from.group == "gateway.networking.k8s.io"
                        && from.kind == from_kind
                        && from.namespace == from_namespace
                })
                && grant.to.iter().any(|to| {
                    to.group == group
                        && to.kind == kind
                        && to.name.as_deref().is_none_or(|own| own == name)
                })
        })
    }

    /// The entry of that name of a Secret or ConfigMap, if it holds some; the first of the names.
    pub(super) fn data(
        &self,
        kind: Kind,
        namespace: &str,
        name: &str,
        entries: &[&str],
    ) -> Option<SecretValue> {
        let found = match &self.get(kind, namespace, name)?.spec {
            Spec::Secret(secret) => {
                entries.iter().find_map(|entry| secret.data.get(*entry)).cloned()
            }
            Spec::ConfigMap(map) => entries
                .iter()
                .find_map(|entry| map.data.get(*entry))
                .map(|text| SecretValue::new(text.clone())),
            _ => None,
        };
        found.filter(|value| !value.expose().is_empty())
    }
}

/// The host of a Service.
pub(super) fn service_host(namespace: &str, name: &str) -> Option<HostPattern> {
    format!("{name}.{namespace}.svc.{SERVICE_DOMAIN}").parse().ok()
}

/// Whether a value holds PEM of that label.
pub(super) fn holds_pem(value: &SecretValue, label: &str) -> bool {
    String::from_utf8_lossy(value.expose())
        .lines()
        .any(|line| line.starts_with("-----BEGIN ") && line.ends_with(&format!("{label}-----")))
}
