//! Objects of kinds that Istio has given up, said in the kinds that took their place.
//!
//! In:    [`Legacy`] objects, and the Services and mesh configuration that their names mean.
//! Out:   [`Modern`]: the objects they become, as resources and as manifests, and every fault, at the
//!        place in the old object.
//! Never: drops a part that it cannot say in the new kinds: that is an error, and nothing is in force.
//!
//! `authentication.istio.io` Policy and MeshPolicy become PeerAuthentication and RequestAuthentication,
//! `rbac.istio.io` ServiceRole, ServiceRoleBinding and ClusterRbacConfig AuthorizationPolicy. They name
//! Services where the new kinds select labels, and bindings name roles: so all that is there must be
//! known first.

mod authn;
mod rbac;
mod tree;

use std::collections::BTreeMap;
use std::sync::Arc;

use serde_json::Value as Json;
use sluis_nouns::{Labels, ObjectName};

use super::{
    dispatch,
    object::{Head, Options, list_items, read_object},
};
use crate::fault::Fault;
use crate::kinds::core::Service;
use crate::resource::{Resource, Spec};
use crate::value::{Doc, Value};
use crate::yaml::{Node, Place, documents};

/// Istio's default for the namespace whose policies hold for the whole mesh.
const ROOT_NAMESPACE: &str = "istio-system";

/// The kinds that are converted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Old {
    Policy,
    MeshPolicy,
    ServiceRole,
    ServiceRoleBinding,
    RbacConfig,
}

/// One object of a kind that Istio has given up, until the Services that it names are known.
#[derive(Clone, Debug, PartialEq)]
pub struct Legacy {
    file: Arc<str>,
    root: Node,
    old: Old,
}

/// What old objects say today.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Modern {
    /// The resources; one with an error is not among them.
    pub resources: Vec<Resource>,
    /// The same as manifests, and each object of an old `apiVersion` with the new one.
    pub manifests: Vec<Json>,
    /// What is wrong, or cannot be said in the new kinds.
    pub faults: Vec<Fault>,
}

impl Legacy {
    /// Takes an object if it is of an old kind.
    pub(super) fn of(file: &Arc<str>, root: &Node, head: &Head<'_>) -> Option<Self> {
        let old = match (head.api?, head.kind?) {
            ("authentication.istio.io/v1alpha1", "Policy") => Old::Policy,
            ("authentication.istio.io/v1alpha1", "MeshPolicy") => Old::MeshPolicy,
            ("rbac.istio.io/v1alpha1", "ServiceRole") => Old::ServiceRole,
            ("rbac.istio.io/v1alpha1", "ServiceRoleBinding") => Old::ServiceRoleBinding,
            ("rbac.istio.io/v1alpha1", "ClusterRbacConfig" | "RbacConfig") => Old::RbacConfig,
            _ => return None,
        };
        Some(Self { file: file.clone(), root: root.clone(), old })
    }
}

/// The mesh as far as old objects name it.
struct World<'r> {
    root_namespace: &'r str,
    services: BTreeMap<&'r ObjectName, &'r Service>,
}

impl<'r> World<'r> {
    fn of(resources: impl Iterator<Item = &'r Resource>) -> Self {
        let mut world = Self { root_namespace: ROOT_NAMESPACE, services: BTreeMap::new() };
        for resource in resources {
            match &resource.spec {
                Spec::Service(service) => {
                    world.services.insert(&resource.meta.name, service);
                }
                Spec::ConfigMap(map) => {
                    if let Some(mesh) = &map.mesh {
                        world.root_namespace = &mesh.root_namespace;
                    }
                }
                _ => {}
            }
        }
        world
    }

    /// The Service of a name that the value has, in its own namespace, and the labels that it selects.
    fn service(
        &self,
        value: &Value<'_>,
        namespace: &str,
        name: &str,
    ) -> Option<(&'r Service, &'r Labels)> {
        let named = ObjectName::new(namespace, name);
        let Some(service) = self.services.get(&named) else {
            return value.fault_help(
                format!("there is no Service {named}, whose workloads are meant"),
                "write the Service down too, or the new kind with a selector",
            );
        };
        match service.selector.is_empty() {
            true => value.fault(format!("Service {named} selects nothing")),
            false => Some((service, &service.selector)),
        }
    }
}

/// An object while it is made.
struct Made {
    file: Arc<str>,
    /// The old object, as faults name it.
    from: Option<String>,
    node: Node,
}

/// Says old objects in the kinds that took their place.
///
/// `resources` are all others: the Services that are named, and the mesh configuration.
pub fn modernize<'a>(
    legacy: impl Iterator<Item = &'a Legacy>,
    resources: impl Iterator<Item = &'a Resource>,
    options: &Options,
) -> Modern {
    let legacy: Vec<&Legacy> = legacy.collect();
    if legacy.is_empty() {
        return Modern::default();
    }
    let world = World::of(resources);
    let (mut made, mut modern) = (Vec::new(), Modern::default());
    let mut rbac = rbac::Rbac::default();
    let docs: Vec<Doc> = legacy.iter().map(|one| one.doc(options)).collect();
    for (one, doc) in legacy.iter().zip(&docs) {
        let value = Value::root(&one.root, doc);
        match one.old {
            Old::Policy => made.extend(authn::policy(&value, &world, false)),
            Old::MeshPolicy => made.extend(authn::policy(&value, &world, true)),
            Old::ServiceRole => rbac.role(&value),
            Old::ServiceRoleBinding => rbac.binding(&value),
            Old::RbacConfig => rbac.config(&value),
        }
    }
    made.extend(rbac.policies(&world));
    for doc in docs {
        modern.faults.append(&mut doc.faults.into_inner());
    }
    for one in made {
        let head = Head::of(&one.node);
        let mut doc = Doc::new(one.file.clone());
        doc.resource = one.from.clone();
        doc.namespace = head.namespace.unwrap_or("default").to_owned();
        let value = Value::root(&one.node, &doc);
        modern.manifests.extend(value.read::<Json>());
        let resource = read_object(&value, &head, options);
        if doc.errors() == 0 {
            modern.resources.extend(resource);
        }
        modern.faults.append(&mut doc.faults.into_inner());
    }
    modern
}

impl Legacy {
    fn doc(&self, options: &Options) -> Doc {
        let head = Head::of(&self.root);
        let mut doc = Doc::new(self.file.clone());
        doc.resource = head.describe();
        doc.namespace = head.namespace.unwrap_or("default").to_owned();
        doc.lenient = options.lenient;
        doc
    }
}

/// Objects with an older `apiVersion` than the newest, as manifests with that one.
///
/// They say the same; only the label differs. Old kinds are not among them: [`modernize`] has those.
pub fn renew(origin: &str, text: &str) -> Vec<Json> {
    let file: Arc<str> = origin.into();
    let mut found = Vec::new();
    for root in documents(&file, text, Place::WHOLE).into_iter().filter_map(|one| one.root) {
        renew_object(&file, &root, &mut found);
    }
    found
}

fn renew_object(file: &Arc<str>, root: &Node, found: &mut Vec<Json>) {
    if let Some(items) = list_items(root) {
        for item in items {
            renew_object(file, item, found);
        }
        return;
    }
    let head = Head::of(root);
    let (Some(api), Some(kind)) = (head.api, head.kind) else { return };
    let (group, version) = api.split_once('/').unwrap_or(("", api));
    let Ok(reader) = dispatch::find(group, version, kind) else { return };
    let newest = reader.api();
    let doc = Doc::new(file.clone());
    if newest != api
        && let Some(Json::Object(mut object)) = Value::root(root, &doc).read::<Json>()
    {
        object.insert("apiVersion".to_owned(), Json::String(newest));
        found.push(Json::Object(object));
    }
}

#[cfg(test)]
mod tests;
