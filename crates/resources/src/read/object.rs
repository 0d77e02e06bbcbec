//! Reads one object: its kind, its metadata, and by the kind's reader the rest.

use super::{dispatch, meta};
use crate::resource::Resource;
use crate::value::Value;
use crate::yaml::{Node, NodeKind};

/// How strictly a text is read.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Options {
    /// Takes a field that does not exist as a warning, and leaves it out, where it is an error
    /// otherwise (as with `kubectl --validate=strict`).
    pub lenient: bool,
    /// Hands on objects of kinds that nothing carries out yet, for tests of their readers.
    pub(crate) pending: bool,
    /// Leaves objects of old kinds in [`crate::Parsed::legacy`]: what they name is in other texts.
    pub(crate) defers_legacy: bool,
}

impl Options {
    /// Fields that do not exist are warnings.
    pub const LENIENT: Self = Self { lenient: true, pending: false, defers_legacy: false };

    /// The same, but objects of old kinds are left for [`crate::modernize`]: for who reads several texts.
    #[must_use]
    pub fn deferring_legacy(self) -> Self {
        Self { defers_legacy: true, ..self }
    }
}

/// Returns the items of an object such as kubectl's `kind: List`.
pub(super) fn list_items(root: &Node) -> Option<&[Node]> {
    let kind = text_of(root, "kind")?;
    match find(root, "items").map(|items| &items.kind) {
        Some(NodeKind::List(items)) if kind.ends_with("List") => Some(items),
        _ => None,
    }
}

/// What must be known of an object before it is read, as far as it is written.
pub(super) struct Head<'n> {
    pub(super) api: Option<&'n str>,
    pub(super) kind: Option<&'n str>,
    pub(super) namespace: Option<&'n str>,
    pub(super) name: Option<&'n str>,
}

impl<'n> Head<'n> {
    pub(super) fn of(root: &'n Node) -> Self {
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
    pub(super) fn describe(&self) -> Option<String> {
        let kind = self.kind?;
        let name = self.name.unwrap_or("(no name)");
        if matches!(kind, "Namespace" | "Node" | "GatewayClass") {
            return Some(format!("{kind} {name}"));
        }
        Some(format!("{kind} {}/{name}", self.namespace.unwrap_or("default")))
    }
}

pub(super) fn find<'n>(node: &'n Node, key: &str) -> Option<&'n Node> {
    let NodeKind::Map(entries) = &node.kind else { return None };
    entries.iter().find(|entry| entry.key == key).map(|entry| &entry.value)
}

fn text_of<'n>(node: &'n Node, key: &str) -> Option<&'n str> {
    match &find(node, key)?.kind {
        NodeKind::Plain(text) | NodeKind::Quoted(text) => Some(text),
        _ => None,
    }
}

pub(super) fn read_object(
    value: &Value<'_>,
    head: &Head<'_>,
    options: &Options,
) -> Option<Resource> {
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
