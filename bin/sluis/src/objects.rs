//! What users wrote, as the control plane has it, with what it says of each object.
//!
//! In:    the mesh and its faults; which kinds are asked for.
//! Out:   [`ObjectReport`]s, which travel as JSON; those of the Gateway API with their conditions.
//! Never: shows the content of a Secret.

mod kinds;
mod written;

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};
use sluis_model::{ApiCondition, ApiStatus, CONTROLLER, Snapshot, is_held};
use sluis_nouns::SourceRef;
use sluis_resources::{Fault, Key, Kind, ParentRef};

pub(crate) use kinds::{KindNames, UnknownKind, kinds_named};
use written::Written;

/// One object.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct ObjectReport {
    /// The kind's plural with its group, such as `gateways.networking.istio.io`.
    pub resource: String,
    /// The namespace; empty for an object that belongs to none.
    pub namespace: String,
    /// The name.
    pub name: String,
    /// `OK`, `Warning`, `Error` (the version in force has one, or is an older one), `Refused` (nothing
    /// is in force); of the Gateway API's objects `Accepted`, `Programmed`, or the reason why not.
    pub state: String,
    /// What is wrong, the first of it.
    pub message: String,
    /// Its place, `FILE:LINE`.
    pub source: String,
    /// The object as it was written, with its `status`.
    pub object: Value,
}

/// The objects of some kinds, in order of kind, namespace and name. Without `is_whole` they are shown
/// without what was written in them.
pub(crate) fn list(
    snapshot: &Snapshot,
    faults: &[Fault],
    kinds: &[Kind],
    is_whole: bool,
) -> Vec<ObjectReport> {
    let mut written = Written::default();
    let mut reports = Vec::new();
    let mut names = BTreeSet::new();
    for resource in snapshot.resources() {
        let key = resource.key();
        if is_held(&key) {
            continue;
        }
        names.insert(key.to_string());
        if kinds.contains(&key.kind) {
            let status = snapshot.api_statuses().find(|(of, _)| **of == key).map(|(_, s)| s);
            let text = is_whole.then(|| written.object(&resource.meta.at, &key)).flatten();
            reports
                .push((order(kinds, &key), report(&key, &resource.meta.at, status, faults, text)));
        }
    }
    for fault in faults.iter().filter(|fault| fault.is_error()) {
        let Some(name) = fault.resource.as_ref().filter(|name| !names.contains(*name)) else {
            continue;
        };
        let Some(key) = written.key(&fault.at, name) else { continue };
        if kinds.contains(&key.kind) {
            names.insert(name.clone());
            let text = is_whole.then(|| written.object(&fault.at, &key)).flatten();
            let mut refused = report(&key, &fault.at, None, faults, text);
            refused.state = "Refused".to_owned();
            reports.push((order(kinds, &key), refused));
        }
    }
    reports.sort_by(|a, b| a.0.cmp(&b.0));
    reports.into_iter().map(|(_, report)| report).collect()
}

fn order(kinds: &[Kind], key: &Key) -> (usize, Key) {
    (kinds.iter().position(|kind| *kind == key.kind).unwrap_or(usize::MAX), key.clone())
}

fn report(
    key: &Key,
    at: &SourceRef,
    status: Option<&ApiStatus>,
    faults: &[Fault],
    written: Option<Value>,
) -> ObjectReport {
    let name = key.to_string();
    let own: Vec<&Fault> =
        faults.iter().filter(|fault| fault.resource.as_ref() == Some(&name)).collect();
    let trouble = status.and_then(|status| status.all(at).find(|(_, one)| one.is_trouble()));
    let worst = own.iter().find(|fault| fault.is_error()).or_else(|| own.first());
    let state = match (trouble, worst, status) {
        (Some((_, condition)), _, _) => condition.reason,
        (None, Some(fault), _) if fault.is_error() => "Error",
        (None, Some(_), _) => "Warning",
        (None, None, Some(status)) => good_word(status),
        (None, None, None) => "OK",
    };
    let message = match (trouble, worst) {
        (Some((_, condition)), _) => condition.message.clone(),
        (None, Some(fault)) => said(fault),
        (None, None) => String::new(),
    };
    let names = KindNames::of(key.kind);
    let mut object = written.unwrap_or_else(|| nameless(key));
    if let Value::Object(fields) = &mut object {
        let status = status_value(key.kind, status, &own);
        fields.remove("status");
        if !status.is_empty() {
            fields.insert("status".to_owned(), Value::Object(status));
        }
    }
    ObjectReport {
        resource: names.full(),
        namespace: key.name.namespace.to_string(),
        name: key.name.name.to_string(),
        state: state.to_owned(),
        message,
        source: format!("{}:{}", at.file, at.line),
        object,
    }
}

/// An object of which only the name is shown.
fn nameless(key: &Key) -> Value {
    let mut metadata = Map::new();
    metadata.insert("name".to_owned(), json!(*key.name.name));
    if !key.kind.is_cluster_wide() {
        metadata.insert("namespace".to_owned(), json!(*key.name.namespace));
    }
    json!({
        "apiVersion": KindNames::of(key.kind).api,
        "kind": key.kind.as_str(),
        "metadata": metadata,
    })
}

/// What a fault says, with its field.
fn said(fault: &Fault) -> String {
    let help = fault.help.as_ref().map(|help| format!(" ({help})")).unwrap_or_default();
    let colon = if fault.path.is_empty() { "" } else { ": " };
    format!("{}{colon}{}{help}", fault.path, fault.message)
}

/// The word for an object with which all is well.
fn good_word(status: &ApiStatus) -> &'static str {
    let is_programmed = status.conditions.iter().any(|one| one.kind == "Programmed" && one.holds);
    if is_programmed { "Programmed" } else { "Accepted" }
}

/// `status` as Kubernetes has it: conditions for the Gateway API, Istio's `validationMessages` for
/// every kind.
fn status_value(kind: Kind, status: Option<&ApiStatus>, faults: &[&Fault]) -> Map<String, Value> {
    let mut fields = Map::new();
    if let Some(status) = status {
        if !status.conditions.is_empty() {
            fields.insert("conditions".to_owned(), conditions(&status.conditions));
        }
        if kind == Kind::KubernetesGateway {
            let listeners = status.listeners.iter().map(|listener| {
                let kinds = listener.supported_kinds.iter();
                let kinds: Vec<Value> =
                    kinds.map(|kind| json!({"group": GATEWAY_API, "kind": kind})).collect();
                json!({
                    "name": listener.name,
                    "attachedRoutes": listener.attached_routes,
                    "supportedKinds": kinds,
                    "conditions": conditions(&listener.conditions),
                })
            });
            fields.insert("listeners".to_owned(), listeners.collect());
        }
        if !status.parents.is_empty() {
            let is_policy = kind == Kind::BackendTlsPolicy;
            let (list, reference) =
                if is_policy { ("ancestors", "ancestorRef") } else { ("parents", "parentRef") };
            let parents = status.parents.iter().map(|parent| {
                json!({
                    reference: parent_value(&parent.parent),
                    "controllerName": CONTROLLER,
                    "conditions": conditions(&parent.conditions),
                })
            });
            fields.insert(list.to_owned(), parents.collect());
        }
    }
    // What conditions say already comes as a fault too.
    let others = faults.iter().filter(|fault| !fault.path.starts_with(CONDITIONS_PATH));
    let messages: Vec<Value> = others
        .map(|fault| {
            json!({
                "level": fault.level.to_string().to_uppercase(),
                "message": said(fault),
                "source": fault.at.to_string(),
            })
        })
        .collect();
    if !messages.is_empty() {
        fields.insert("validationMessages".to_owned(), Value::Array(messages));
    }
    fields
}

/// The group of the Gateway API.
const GATEWAY_API: &str = "gateway.networking.k8s.io";

fn conditions(all: &[ApiCondition]) -> Value {
    let one = |condition: &ApiCondition| {
        json!({
            "type": condition.kind,
            "status": if condition.holds { "True" } else { "False" },
            "reason": condition.reason,
            "message": condition.message,
        })
    };
    all.iter().map(one).collect()
}

fn parent_value(parent: &ParentRef) -> Value {
    let mut fields = Map::new();
    let object = &parent.object;
    let mut put = |key: &str, value: Option<Value>| {
        if let Some(value) = value {
            fields.insert(key.to_owned(), value);
        }
    };
    put("group", object.group.as_ref().map(|group| json!(group)));
    put("kind", object.kind.as_ref().map(|kind| json!(kind)));
    put("namespace", object.namespace.as_ref().map(|namespace| json!(namespace)));
    put("name", Some(json!(object.name)));
    put("sectionName", parent.section.as_ref().map(|section| json!(section)));
    put("port", parent.port.map(|port| json!(port)));
    Value::Object(fields)
}

/// The reason of a route whose Gateway is not there.
const NO_PARENT: &str = "NoMatchingParent";

/// How the path of a fault that stands for a condition begins.
const CONDITIONS_PATH: &str = "status.";

/// What the conditions of the Gateway API's objects tell of, as faults. What is not accepted for what it
/// says is an error; what only misses another object, which may still come, is a warning.
pub(crate) fn condition_faults(snapshot: &Snapshot) -> Vec<Fault> {
    let mut faults = Vec::new();
    for (key, status) in snapshot.api_statuses() {
        let Some(resource) = snapshot.get(key) else { continue };
        for (at, condition) in status.all(&resource.meta.at).filter(|(_, one)| one.is_trouble()) {
            let message = format!("{}: {}", condition.reason, condition.message);
            let fault = match condition.kind {
                "Accepted" if condition.reason != NO_PARENT => Fault::error(at.clone(), message),
                _ => Fault::warning(at.clone(), message),
            };
            let fault =
                fault.of(key.to_string()).field(format!("{CONDITIONS_PATH}{}", condition.kind));
            if !faults.contains(&fault) {
                faults.push(fault);
            }
        }
    }
    faults
}

#[cfg(test)]
mod tests;
