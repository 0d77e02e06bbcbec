//! Finds what a user wrote of an object, in its file.
//!
//! In:    a place in a file; an object's kind and name.
//! Out:   the object as a value, or nothing where the file no longer says it.
//! Never: gives the content of a Secret, or the wrong object.

use std::collections::HashMap;

use serde_json::Value;
use sluis_nouns::{ObjectName, SourceRef};
use sluis_resources::{Key, Kind, TEXT_BYTES_MAX};

use super::KindNames;

/// Files, each read once.
#[derive(Debug, Default)]
pub(super) struct Written {
    files: HashMap<String, Option<String>>,
}

impl Written {
    /// The object at a place, as it stands in the file.
    pub(super) fn object(&mut self, at: &SourceRef, key: &Key) -> Option<Value> {
        let found = self.document(at)?;
        let mut object = one(found, |object| is_of(object, key))?;
        if key.kind == Kind::Secret
            && let Value::Object(fields) = &mut object
        {
            fields.remove("data");
            fields.remove("stringData");
        }
        Some(object)
    }

    /// Which object `Kind namespace/name` means, at whose place a fault was found: two kinds are called
    /// Gateway.
    pub(super) fn key(&mut self, at: &SourceRef, described: &str) -> Option<Key> {
        let (word, name) = described.split_once(' ')?;
        let name = match name.split_once('/') {
            Some((namespace, name)) => ObjectName::new(namespace, name),
            None => ObjectName::new("", name),
        };
        let mut keys = Kind::ALL
            .into_iter()
            .filter(|kind| kind.as_str() == word)
            .map(|kind| Key { kind, name: name.clone() });
        let first = keys.next()?;
        let Some(second) = keys.next() else { return Some(first) };
        let is_second = self.object(at, &second).is_some();
        Some(if is_second { second } else { first })
    }

    fn document(&mut self, at: &SourceRef) -> Option<Value> {
        let text = self.files.entry(at.file.to_string()).or_insert_with_key(|file| read(file));
        serde_saphyr::from_str(document_at(text.as_ref()?, at.line)?).ok()
    }
}

fn read(file: &str) -> Option<String> {
    let is_small = std::fs::metadata(file).is_ok_and(|meta| meta.len() <= TEXT_BYTES_MAX as u64);
    if is_small { std::fs::read_to_string(file).ok() } else { None }
}

/// The document that a line, counted from 1, belongs to.
fn document_at(text: &str, line: u32) -> Option<&str> {
    let index = usize::try_from(line).ok()?.checked_sub(1)?;
    let mut starts = vec![0];
    let mut at = 0;
    for (number, one) in text.split_inclusive('\n').enumerate() {
        let begins = one.starts_with("---");
        if begins && number > index {
            return Some(&text[*starts.last()?..at]);
        }
        at += one.len();
        if begins {
            // What follows the marker on its line is a comment, as a rule; a value there is found too.
            starts.push(at - one.len() + "---".len());
        }
    }
    text.get(*starts.last()?..)
}

/// The object itself, or the one in a `List`.
fn one(value: Value, is_it: impl Fn(&Value) -> bool) -> Option<Value> {
    if is_it(&value) {
        return Some(value);
    }
    let Value::Object(mut fields) = value else { return None };
    let Value::Array(items) = fields.remove("items")? else { return None };
    items.into_iter().find(is_it)
}

fn is_of(object: &Value, key: &Key) -> bool {
    let text = |pointer: &str| object.pointer(pointer).and_then(Value::as_str);
    let group =
        |api: &str| api.split_once('/').map_or(String::new(), |(group, _)| group.to_owned());
    let is_cluster_wide = key.kind.is_cluster_wide();
    text("/kind") == Some(key.kind.as_str())
        && text("/apiVersion").map(group) == Some(group(KindNames::of(key.kind).api))
        && text("/metadata/name") == Some(&*key.name.name)
        && (is_cluster_wide
            || text("/metadata/namespace").unwrap_or("default") == &*key.name.namespace)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_document_is_found_by_any_of_its_lines() {
        let text = "# first\na: 1\n---\nb: 2\nc: 3\n--- # third\nd: 4\n";
        for (line, expected) in [
            (1, "# first\na: 1\n"),
            (2, "# first\na: 1\n"),
            (4, "\nb: 2\nc: 3\n"),
            (5, "\nb: 2\nc: 3\n"),
            (7, " # third\nd: 4\n"),
        ] {
            assert_eq!(document_at(text, line), Some(expected), "{line}");
        }
        assert_eq!(document_at(text, 0), None);
    }
}
