//! Reads objects: tells the kind, reads the metadata, and hands the rest to the kind's reader.
//!
//! In:    the text of a YAML stream.
//! Out:   a [`Parsed`]. An object with an error is left out; its faults are all there.
//! Never: takes a kind it does not know for one that does not matter.
//!
//! Start at [`parse`].

mod core;
mod destination_rule;
mod envoy_filter;
mod gateway;
mod mesh_config;
mod meta;
mod service_entry;
mod shared;
mod tls;
mod virtual_service;

use std::collections::HashSet;
use std::sync::Arc;

use crate::fault::Fault;
use crate::kinds::core::Namespace;
use crate::resource::{Kind, Meta, Parsed, Resource, Spec};
use crate::value::{Doc, Fields, Read, Value};
use crate::yaml::{Node, NodeKind, Place, documents};

/// Reads a YAML stream of any number of documents (JSON is read too).
///
/// `origin` names the text in places and faults, usually the file's name as the user gave it. A
/// document that cannot be read costs the others nothing. A `List` counts as its items.
pub fn parse(origin: &str, text: &str) -> Parsed {
    let file: Arc<str> = origin.into();
    let mut parsed = Parsed::default();
    for document in documents(&file, text, Place::WHOLE) {
        let broken = document.faults.iter().any(Fault::is_error);
        let mut faults = document.faults;
        if let Some(root) = &document.root {
            object(&file, root, broken, &mut faults, &mut parsed.resources);
        }
        faults.sort_by_key(|fault| (fault.at.line, fault.at.column));
        // Checks read again what readers have read, and find the same.
        let mut seen = HashSet::new();
        faults.retain(|fault| seen.insert(fault.clone()));
        bound(&mut faults);
        parsed.faults.append(&mut faults);
    }
    parsed
}

/// Most faults that one document tells: more than anybody reads, and little enough to be kept.
const FAULTS_MAX: usize = 500;

/// Cuts a list of faults, and says so in the last one.
fn bound(faults: &mut Vec<Fault>) {
    if faults.len() <= FAULTS_MAX {
        return;
    }
    let cut = faults.split_off(FAULTS_MAX);
    let worst = cut.iter().max_by_key(|fault| fault.level);
    if let Some(fault) = worst {
        let message = format!("there are {} more faults in this document", cut.len());
        faults.push(Fault { message, path: String::new(), help: None, ..fault.clone() });
    }
}

/// Reads one object, or the items of a list of objects.
fn object(
    file: &Arc<str>,
    root: &Node,
    broken: bool,
    faults: &mut Vec<Fault>,
    resources: &mut Vec<Resource>,
) {
    if let Some(items) = list_items(root) {
        for item in items {
            object(file, item, broken, faults, resources);
        }
        return;
    }
    let mut doc = Doc::new(file.clone());
    let head = Head::of(root);
    doc.resource = head.describe();
    doc.namespace = head.namespace.unwrap_or("default").to_owned();
    let value = Value::root(root, &doc);
    if value.is_null() {
        return;
    }
    // The syntax faults of the document were found before its name.
    for fault in faults.iter_mut().filter(|fault| fault.resource.is_none()) {
        fault.resource.clone_from(&doc.resource);
    }
    let resource = read_object(&value, &head);
    if doc.errors() == 0
        && !broken
        && let Some(resource) = resource
    {
        resources.push(resource);
    }
    faults.append(&mut doc.faults.into_inner());
}

/// Returns the items of an object such as kubectl's `kind: List`.
fn list_items(root: &Node) -> Option<&[Node]> {
    let kind = text_of(root, "kind")?;
    match find(root, "items").map(|items| &items.kind) {
        Some(NodeKind::List(items)) if kind.ends_with("List") => Some(items),
        _ => None,
    }
}

/// What must be known of an object before it is read, as far as it is written.
struct Head<'n> {
    api: Option<&'n str>,
    kind: Option<&'n str>,
    namespace: Option<&'n str>,
    name: Option<&'n str>,
}

impl<'n> Head<'n> {
    fn of(root: &'n Node) -> Self {
        let metadata = find(root, "metadata");
        let meta = |key| metadata.and_then(|metadata| text_of(metadata, key));
        Self {
            api: text_of(root, "apiVersion"),
            kind: text_of(root, "kind"),
            namespace: meta("namespace"),
            name: meta("name"),
        }
    }

    /// Names the object as faults do: `Kind namespace/name`.
    fn describe(&self) -> Option<String> {
        let kind = self.kind?;
        let name = self.name.unwrap_or("(no name)");
        if kind == "Namespace" {
            return Some(format!("{kind} {name}"));
        }
        Some(format!("{kind} {}/{name}", self.namespace.unwrap_or("default")))
    }
}

fn find<'n>(node: &'n Node, key: &str) -> Option<&'n Node> {
    let NodeKind::Map(entries) = &node.kind else { return None };
    entries.iter().find(|entry| entry.key == key).map(|entry| &entry.value)
}

fn text_of<'n>(node: &'n Node, key: &str) -> Option<&'n str> {
    match &find(node, key)?.kind {
        NodeKind::Plain(text) | NodeKind::Quoted(text) => Some(text),
        _ => None,
    }
}

fn read_object(value: &Value<'_>, head: &Head<'_>) -> Option<Resource> {
    if head.api.is_none() || head.kind.is_none() {
        return value.fields(|fields| {
            // An unknown kind's fields are unknown too; only what is missing is told.
            fields.req::<String>("apiVersion");
            fields.req::<String>("kind");
            fields.ignore_rest();
            None
        });
    }
    let (api, kind_name) = (head.api.unwrap_or_default(), head.kind.unwrap_or_default());
    let (group, version) = api.split_once('/').unwrap_or(("", api));
    let kind = match known_kind(group, version, kind_name) {
        Ok(kind) => kind,
        Err(refusal) => return refuse(value, &refusal),
    };
    value.fields(|fields| {
        fields.ignore(&["apiVersion", "kind", "status"]);
        let meta = fields.req::<meta::Metadata>("metadata").or_else(|| {
            // The rest is read all the same, for its faults.
            let _ = read_spec(kind, fields, None);
            None
        })?;
        let meta = meta.into_meta(kind, fields.at());
        meta::check_annotations(kind, fields);
        let spec = read_spec(kind, fields, Some(&meta))?;
        Some(Resource { meta, spec })
    })
}

fn read_spec(kind: Kind, fields: &mut Fields<'_, '_>, meta: Option<&Meta>) -> Option<Spec> {
    Some(match kind {
        Kind::Gateway => Spec::Gateway(fields.req("spec")?),
        Kind::VirtualService => Spec::VirtualService(fields.req("spec")?),
        Kind::DestinationRule => Spec::DestinationRule(fields.req("spec")?),
        Kind::ServiceEntry => Spec::ServiceEntry(fields.req("spec")?),
        Kind::WorkloadEntry => Spec::WorkloadEntry(fields.req("spec")?),
        Kind::EnvoyFilter => Spec::EnvoyFilter(fields.req("spec")?),
        Kind::Service => Spec::Service(fields.req("spec")?),
        Kind::Namespace => {
            fields.ignore(&["spec"]);
            Spec::Namespace(Namespace)
        }
        Kind::Secret => Spec::Secret(core::secret(fields)?),
        Kind::ConfigMap => Spec::ConfigMap(core::config_map(fields, meta)?),
    })
}

/// Why a kind is not read.
enum Refusal {
    /// The group is known and has the kind, but not in this version.
    Version(&'static str),
    /// The kind is Istio's or steers traffic, and is not supported.
    Unsupported,
    /// The kind has nothing to do with the mesh's traffic.
    Unrelated,
    /// The kind is unknown; perhaps another group was meant.
    Unknown(Option<&'static str>),
}

const NETWORKING: &str = "networking.istio.io";

/// Kinds that say nothing about how traffic flows, so that leaving them out changes nothing.
const UNRELATED: [&str; 22] = [
    "Deployment",
    "Pod",
    "ReplicaSet",
    "StatefulSet",
    "DaemonSet",
    "Job",
    "CronJob",
    "ServiceAccount",
    "CustomResourceDefinition",
    "Role",
    "RoleBinding",
    "ClusterRole",
    "ClusterRoleBinding",
    "PersistentVolume",
    "PersistentVolumeClaim",
    "StorageClass",
    "HorizontalPodAutoscaler",
    "PodDisruptionBudget",
    "ResourceQuota",
    "LimitRange",
    "Kustomization",
    "Certificate",
];

fn known_kind(group: &str, version: &str, kind: &str) -> Result<Kind, Refusal> {
    let found = Kind::ALL.into_iter().find(|known| known.as_str() == kind);
    let Some(kind) = found else {
        return Err(other_kind(group, kind));
    };
    let (wanted, versions): (&str, &'static str) = match kind {
        Kind::Service | Kind::Namespace | Kind::Secret | Kind::ConfigMap => ("", "v1"),
        Kind::EnvoyFilter => (NETWORKING, "v1alpha3"),
        _ => (NETWORKING, "v1, v1beta1 or v1alpha3"),
    };
    if group != wanted {
        let istio = wanted == NETWORKING;
        let gateway_api = group == "gateway.networking.k8s.io";
        return Err(match (istio, gateway_api) {
            (_, true) => Refusal::Unsupported,
            (true, _) => Refusal::Unknown(Some("networking.istio.io/v1")),
            (false, _) => Refusal::Unknown(Some("v1")),
        });
    }
    let listed = versions.split([',', ' ']).any(|known| known == version);
    if listed { Ok(kind) } else { Err(Refusal::Version(versions)) }
}

fn other_kind(group: &str, kind: &str) -> Refusal {
    if group == "istio.io" || group.ends_with(".istio.io") {
        return Refusal::Unsupported;
    }
    if UNRELATED.contains(&kind) {
        return Refusal::Unrelated;
    }
    if group.is_empty() || group.ends_with(".k8s.io") || !group.contains('.') {
        return Refusal::Unsupported;
    }
    Refusal::Unknown(None)
}

fn refuse(value: &Value<'_>, refusal: &Refusal) -> Option<Resource> {
    value.fields(|fields| {
        let kind = fields.get("kind")?;
        let api = fields.get("apiVersion")?;
        match refusal {
            Refusal::Version(known) => {
                api.fault_help::<()>("there is no such version of this kind", known);
            }
            Refusal::Unsupported => {
                kind.fault::<()>("this kind is not supported");
            }
            Refusal::Unrelated => {
                kind.warn("this kind says nothing about traffic and is left out");
            }
            Refusal::Unknown(Some(meant)) => {
                let help = format!("did you mean apiVersion {meant}?");
                api.fault_help::<()>("this group has no such kind", &help);
            }
            Refusal::Unknown(None) => {
                kind.fault::<()>("this kind is unknown");
            }
        }
        fields.ignore_rest();
        None
    })
}

/// Implements [`Read`] for types whose readers are functions of their fields.
macro_rules! read_fields {
    ($($type:ty => $reader:path),+ $(,)?) => {
        $(impl $crate::value::Read for $type {
            fn read(value: &$crate::value::Value<'_>) -> Option<Self> {
                value.fields($reader)
            }
        })+
    };
}

/// Implements [`Read`] for an enum by the names of its variants.
macro_rules! read_names {
    ($($type:ty { $($name:literal => $variant:expr),+ $(,)? })+) => {
        $(impl $crate::value::Read for $type {
            fn read(value: &$crate::value::Value<'_>) -> Option<Self> {
                $crate::value::one_of(value, &[$(($name, $variant)),+])
            }
        })+
    };
}

pub(crate) use {read_fields, read_names};

/// Reads a text and turns it into a value, or notes why that is not possible.
fn checked<T>(value: &Value<'_>, check: impl FnOnce(&str) -> Result<T, String>) -> Option<T> {
    let text: String = Read::read(value)?;
    check(&text).map_or_else(|message| value.fault(message), Some)
}

#[cfg(test)]
mod tests;
