//! What a configuration says to filters in values of its own: metadata, contexts of scripts.

use std::sync::Arc;

use envoy_types::pb::{
    envoy::config::core::v3::Metadata as PbMetadata,
    google::protobuf::{Struct, Value, value::Kind as ValueKind},
};

use crate::{MetaFields, MetaValue, Metadata};

/// How deep a value may be; what is deeper is left out. Protobuf's own readers stop near 100.
const DEPTH_MAX: usize = 64;

/// What a route or a virtual host says to filters. What Istio says of the user's resource is for
/// others.
pub(super) fn of_place(metadata: Option<&PbMetadata>) -> Option<Arc<Metadata>> {
    let mut all = Metadata::default();
    for (name, said) in &metadata?.filter_metadata {
        if name != "istio" {
            for (key, value) in fields(said) {
                all.set(name, &key, value);
            }
        }
    }
    (!all.is_empty()).then(|| Arc::new(all))
}

/// The fields of a structure.
pub(super) fn fields(said: &Struct) -> MetaFields {
    fields_within(said, 0)
}

fn fields_within(said: &Struct, depth: usize) -> MetaFields {
    let pairs = said.fields.iter();
    pairs.map(|(name, value)| (name.as_str().into(), value_of(value, depth + 1))).collect()
}

fn value_of(value: &Value, depth: usize) -> MetaValue {
    match &value.kind {
        None => MetaValue::Null,
        Some(_) if depth > DEPTH_MAX => MetaValue::Null,
        Some(ValueKind::NullValue(_)) => MetaValue::Null,
        Some(ValueKind::BoolValue(flag)) => MetaValue::Bool(*flag),
        Some(ValueKind::NumberValue(number)) => MetaValue::Number(*number),
        Some(ValueKind::StringValue(text)) => MetaValue::text(text),
        Some(ValueKind::ListValue(list)) => {
            MetaValue::List(list.values.iter().map(|one| value_of(one, depth + 1)).collect())
        }
        Some(ValueKind::StructValue(said)) => MetaValue::fields(fields_within(said, depth)),
    }
}
