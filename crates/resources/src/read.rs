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
mod forms;
mod gateway;
mod gateway_api;
mod legacy;
mod mesh_config;
mod mesh_policy;
mod meta;
mod network_policy;
mod object;
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

use self::object::{Head, list_items, read_object};
use crate::fault::Fault;
use crate::resource::Resource;
use crate::value::{Doc, Value};
use crate::yaml::{Node, Place, documents};

/// What a text said: the resources without an error, and all faults.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Parsed {
    /// Resources to use, in the order of the text.
    pub resources: Vec<Resource>,
    /// Objects of kinds that Istio has given up, where [`crate::Options::deferring_legacy`] asked for
    /// them; else what they say today is among the resources.
    pub legacy: Vec<Legacy>,
    /// Everything that is wrong, in the order of the text within each document. A resource with an
    /// error is not among `resources`.
    pub faults: Vec<Fault>,
}

impl Parsed {
    /// Returns whether some fault is an error.
    pub fn has_errors(&self) -> bool {
        self.faults.iter().any(Fault::is_error)
    }
}

/// Reads a YAML stream of any number of documents (JSON is read too).
///
/// `origin` names the text in places and faults, usually the file's name as the user gave it. A
/// document that cannot be read costs the others nothing. A `List` counts as its items.
pub fn parse(origin: &str, text: &str) -> Parsed {
    parse_with(origin, text, &Options::default())
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

pub(crate) use describe::describe;
pub use legacy::{Legacy, Modern, modernize, renew};
pub use object::Options;

#[cfg(test)]
mod tests;
