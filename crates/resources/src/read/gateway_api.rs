//! Reads the kinds of the Kubernetes Gateway API.

mod gateway;
mod policy;
mod route;

pub(super) use route::{grpc, http, tcp, tls};

use super::forms::read_fields;
use crate::kinds::gateway_api::ObjectReference;
use crate::value::Fields;

read_fields!(ObjectReference => reference);

fn reference(fields: &mut Fields<'_, '_>) -> Option<ObjectReference> {
    let name: Option<String> = fields.req("name");
    Some(ObjectReference {
        at: fields.at(),
        group: text(fields, "group"),
        kind: text(fields, "kind"),
        name: name?,
        namespace: text(fields, "namespace"),
    })
}

/// A text that may be missing. Unlike elsewhere an empty one is not: it names the core group.
fn text(fields: &mut Fields<'_, '_>, name: &'static str) -> Option<String> {
    fields.opt(name)
}
