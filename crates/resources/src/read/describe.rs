//! Lets all readers tell what they know.

use sluis_nouns::{Labels, ObjectName, SourceRef};

use super::{dispatch, meta};
use crate::resource::Meta;
use crate::value::{Doc, Schema, Value};
use crate::yaml::ANYTHING;

/// A kind on the page.
pub(crate) struct KindInfo {
    /// `kind`.
    pub(crate) name: String,
    /// The values of `apiVersion`, with code marks between them.
    pub(crate) api: String,
    /// Whether nothing carries it out yet, so that an object is an error.
    pub(crate) is_pending: bool,
}

/// Returns what the readers of all kinds know.
pub(crate) fn describe() -> (Schema, Vec<KindInfo>) {
    let doc = Doc::describing();
    let value = Value::root(&ANYTHING, &doc);
    let start =
        |kind: &str| doc.schema.as_ref().map_or(0, |schema| schema.borrow_mut().start(kind));
    let mut kinds = Vec::new();
    for row in dispatch::READERS {
        let meta = Meta {
            kind: row.kind,
            name: ObjectName::new("default", "anything"),
            labels: Labels::new(),
            annotations: std::iter::once((meta::DRY_RUN.to_owned(), "true".to_owned())).collect(),
            created: None,
            at: SourceRef::default(),
        };
        value.described(start(row.name), |fields| {
            fields.opt::<meta::Metadata>("metadata");
            (row.read)(fields, Some(&meta)).map(|_| ())
        });
        kinds.push(KindInfo {
            name: row.name.to_owned(),
            api: row.apis(),
            is_pending: dispatch::NOT_CARRIED_OUT.contains(&row.kind),
        });
    }
    value.described(start("MeshConfig"), super::mesh_config::mesh_config);
    let schema = doc.schema.map(std::cell::RefCell::into_inner).unwrap_or_default();
    (schema, kinds)
}
