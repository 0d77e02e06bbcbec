//! Reads objects: tells the kind, reads the metadata, and hands the rest to the kind's reader.
//!
//! In:    the text of a YAML stream.
//! Out:   a [`Parsed`]. An object with an error is left out; its faults are all there.
//! Never: takes a kind it does not know for one that does not matter.
//!
//! Start at [`parse`].

mod authorization;
mod core;
mod credential;
mod credential_grant;
mod describe;
mod destination_rule;
mod dispatch;
mod envoy_filter;
mod gateway;
mod gateway_api;
mod legacy;
mod mesh_config;
mod mesh_policy;
mod meta;
mod network_policy;
mod peer_authentication;
mod provider;
mod request_authentication;
mod service_entry;
mod shared;
mod sidecar;
mod target;
mod telemetry;
mod tls;
mod virtual_service;
mod wasm_plugin;
mod workload;
mod workload_group;

use std::collections::HashSet;
use std::sync::Arc;

use crate::fault::Fault;
use crate::resource::{Parsed, Resource};
use crate::value::{Doc, Read, Value};
use crate::yaml::{Node, NodeKind, Place, documents};

/// Reads a YAML stream of any number of documents (JSON is read too).
///
/// `origin` names the text in places and faults, usually the file's name as the user gave it. A
/// document that cannot be read costs the others nothing. A `List` counts as its items.
pub fn parse(origin: &str, text: &str) -> Parsed {
    parse_with(origin, text, &Options::default())
}

/// How strictly a text is read.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Options {
    /// Takes a field that does not exist as a warning, and leaves it out, where it is an error
    /// otherwise (as with `kubectl --validate=strict`).
    pub lenient: bool,
    /// Hands on objects of kinds that nothing carries out yet, for tests of their readers.
    pub(crate) pending: bool,
    /// Leaves objects of old kinds in [`Parsed::legacy`]: what they name is in other texts.
    pub(crate) defers_legacy: bool,
}

impl Options {
    /// Fields that do not exist are warnings.
    pub const LENIENT: Self = Self { lenient: true, pending: false, defers_legacy: false };

    /// The same, but objects of old kinds are left for [`modernize`]: for who reads several texts.
    #[must_use]
    pub fn deferring_legacy(self) -> Self {
        Self { defers_legacy: true, ..self }
    }
}

/// Reads as [`parse`] does, as strictly as the options say.
pub fn parse_with(origin: &str, text: &str, options: &Options) -> Parsed {
    let file: Arc<str> = origin.into();
    let mut parsed = Parsed::default();
    for document in documents(&file, text, Place::WHOLE) {
        let broken = document.faults.iter().any(Fault::is_error);
        let mut faults = document.faults;
        if let Some(root) = &document.root {
            let mut reading = Reading { file: &file, options, broken, faults, parsed: &mut parsed };
            reading.object(root);
            faults = reading.faults;
        }
        faults.sort_by_key(|fault| (fault.at.line, fault.at.column));
        // Checks read again what readers have read, and find the same.
        let mut seen = HashSet::new();
        faults.retain(|fault| seen.insert(fault.clone()));
        bound(&mut faults);
        parsed.faults.append(&mut faults);
    }
    if !options.defers_legacy {
        let modern = modernize(parsed.legacy.iter(), parsed.resources.iter(), options);
        parsed.legacy.clear();
        parsed.resources.extend(modern.resources);
        parsed.faults.extend(modern.faults);
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

/// One document while it is being read.
struct Reading<'r> {
    file: &'r Arc<str>,
    options: &'r Options,
    /// Whether the syntax is at fault, so that nothing of it can be used.
    broken: bool,
    faults: Vec<Fault>,
    parsed: &'r mut Parsed,
}

impl Reading<'_> {
    /// Reads one object, or the items of a list of objects.
    fn object(&mut self, root: &Node) {
        if let Some(items) = list_items(root) {
            for item in items {
                self.object(item);
            }
            return;
        }
        let mut doc = Doc::new(self.file.clone());
        let head = Head::of(root);
        doc.resource = head.describe();
        doc.namespace = head.namespace.unwrap_or("default").to_owned();
        doc.lenient = self.options.lenient;
        let value = Value::root(root, &doc);
        if value.is_null() {
            return;
        }
        if let Some(old) = Legacy::of(self.file, root, &head).filter(|_| !self.broken) {
            self.parsed.legacy.push(old);
            return;
        }
        // The syntax faults of the document were found before its name.
        for fault in self.faults.iter_mut().filter(|fault| fault.resource.is_none()) {
            fault.resource.clone_from(&doc.resource);
        }
        let resource = read_object(&value, &head, self.options);
        if doc.errors() == 0
            && !self.broken
            && let Some(resource) = resource
        {
            self.parsed.resources.push(resource);
        }
        self.faults.append(&mut doc.faults.into_inner());
    }
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
        if matches!(kind, "Namespace" | "Node" | "GatewayClass") {
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

fn read_object(value: &Value<'_>, head: &Head<'_>, options: &Options) -> Option<Resource> {
    let (Some(api), Some(kind_name)) = (head.api, head.kind) else {
        return value.fields(|fields| {
            // An unknown kind's fields are unknown too; only what is missing is told.
            fields.req::<String>("apiVersion");
            fields.req::<String>("kind");
            fields.ignore_rest();
            None
        });
    };
    let (group, version) = api.split_once('/').unwrap_or(("", api));
    let reader = match dispatch::find(group, version, kind_name) {
        Ok(reader) => reader,
        Err(refusal) => return refuse(value, &refusal),
    };
    value.fields(|fields| {
        fields.ignore(&["apiVersion", "kind", "status"]);
        if !options.pending {
            dispatch::tell_pending(reader.kind, fields);
        }
        let meta = fields.req::<meta::Metadata>("metadata").or_else(|| {
            // The rest is read all the same, for its faults.
            let _ = (reader.read)(fields, None);
            None
        })?;
        let meta = meta.into_meta(reader.kind, fields.at());
        meta::check_annotations(reader.kind, fields);
        meta::check_name(reader.kind, fields);
        let spec = (reader.read)(fields, Some(&meta))?;
        Some(Resource { meta, spec })
    })
}

fn refuse(value: &Value<'_>, refusal: &dispatch::Refusal) -> Option<Resource> {
    use dispatch::Refusal;
    value.fields(|fields| {
        let kind = fields.get("kind")?;
        let api = fields.get("apiVersion")?;
        match refusal {
            Refusal::Version(known) => {
                api.fault_help::<()>("there is no such version of this kind", known);
            }
            Refusal::Gone(help) => {
                kind.fault_help::<()>("Istio has given this kind up", help);
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
                value.section($reader)
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

pub(crate) use describe::describe;
pub use legacy::{Legacy, Modern, modernize, renew};

#[cfg(test)]
mod tests;
