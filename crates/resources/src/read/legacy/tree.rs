//! Makes the trees of new objects out of parts of old ones, each part with its place.

use super::Made;
use crate::read::object::find;
use crate::value::Value;
use crate::yaml::{Entry, Node, NodeKind, Pos};

/// A text.
pub(super) fn text(at: Pos, text: impl Into<String>) -> Node {
    Node { at, kind: NodeKind::Quoted(text.into()) }
}

/// A list.
pub(super) fn list(at: Pos, items: Vec<Node>) -> Node {
    Node { at, kind: NodeKind::List(items) }
}

/// A map.
pub(super) fn map<'k>(at: Pos, entries: impl IntoIterator<Item = (&'k str, Node)>) -> Node {
    let entry = |(key, value): (&str, Node)| Entry { key: key.to_owned(), key_at: value.at, value };
    Node { at, kind: NodeKind::Map(entries.into_iter().map(entry).collect()) }
}

/// A new object, with the labels and the time of creation of the old one.
pub(super) fn object(
    old: &Value<'_>,
    (api, kind): (&str, &str),
    (namespace, name): (&str, &str),
    spec: Node,
) -> Made {
    let at = old.node.at;
    let mut meta = vec![("name", text(at, name)), ("namespace", text(at, namespace))];
    for key in ["labels", "creationTimestamp"] {
        let written = find(old.node, "metadata").and_then(|metadata| find(metadata, key));
        if let Some(node) = written {
            meta.push((key, node.clone()));
        }
    }
    let node = map(
        at,
        [
            ("apiVersion", text(at, api)),
            ("kind", text(at, kind)),
            ("metadata", map(at, meta)),
            ("spec", spec),
        ],
    );
    Made { file: old.doc.file.clone(), from: old.doc.resource.clone(), node }
}
