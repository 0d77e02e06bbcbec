//! Merging messages as Istio's EnvoyFilters do, and encoding them so that equal ones are equal bytes.
//!
//! In:    a message and another of the same type that is laid over it.
//! Out:   the merged message: single fields replaced, messages merged, lists appended (or replaced),
//!        maps merged by key. Durations are replaced as a whole.
//! Never: half a merge: when something does not decode, the message stays as it was.

use envoy_types::pb::google::protobuf::Any;
use prost::{Message, Name, encoding};
use prost_reflect::{DynamicMessage, FieldDescriptor, ReflectMessage, Value as Reflected};

use crate::{ConvertError, TYPE_URL_PREFIX, dynamic};

/// What happens to a list that both messages have.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Lists {
    /// The new items come behind the old ones.
    #[default]
    Append,
    /// The new items take the place of the old ones.
    Replace,
}

/// Lays a message over another.
///
/// Returns the fields that were written and changed nothing: `false`, `0` and the empty text, wrapped
/// or not, say nothing in a merge of protobuf messages.
///
/// # Errors
///
/// When Envoy's API does not know the type.
pub fn merge<M: Name + Default>(
    base: &mut M,
    addition: &M,
    lists: Lists,
) -> Result<Vec<String>, ConvertError> {
    let type_name = M::full_name();
    let mut merged = dynamic(&type_name, &base.encode_to_vec())?;
    let addition = dynamic(&type_name, &addition.encode_to_vec())?;
    let mut unsaid = Vec::new();
    merge_into(&mut merged, &addition, lists, "", &mut unsaid);
    *base = M::decode(encoded(&merged).as_slice())
        .map_err(|source| ConvertError::Bytes { type_name, source })?;
    Ok(unsaid)
}

/// Lays a packed message over another of the same type.
///
/// Returns what [`merge`] returns.
///
/// # Errors
///
/// [`ConvertError::Types`] when they are of different types; when Envoy's API does not know the type;
/// when one does not decode.
pub fn merge_packed(base: &mut Any, addition: &Any) -> Result<Vec<String>, ConvertError> {
    if base.type_url != addition.type_url {
        return Err(ConvertError::Types {
            base: base.type_url.clone(),
            addition: addition.type_url.clone(),
        });
    }
    let name = base.type_url.strip_prefix(TYPE_URL_PREFIX).unwrap_or(&base.type_url);
    let mut merged = dynamic(name, &base.value)?;
    let over = dynamic(name, &addition.value)?;
    let mut unsaid = Vec::new();
    merge_into(&mut merged, &over, Lists::Append, "", &mut unsaid);
    base.value = encoded(&merged);
    Ok(unsaid)
}

fn merge_into(
    base: &mut DynamicMessage,
    addition: &DynamicMessage,
    lists: Lists,
    path: &str,
    unsaid: &mut Vec<String>,
) {
    for (field, value) in addition.fields() {
        match value {
            Reflected::List(more) if lists == Lists::Append => {
                if let Some(list) = base.get_field_mut(&field).as_list_mut() {
                    list.extend(more.iter().cloned());
                }
            }
            Reflected::Map(more) => {
                if let Some(map) = base.get_field_mut(&field).as_map_mut() {
                    map.extend(more.iter().map(|(key, value)| (key.clone(), value.clone())));
                }
            }
            Reflected::Message(inner) if base.has_field(&field) && !is_whole(inner) => {
                let path = format!("{path}{}", field.name());
                let Some(known) = base.get_field_mut(&field).as_message_mut() else { continue };
                if is_empty(inner) && !is_empty(known) && is_wrapper(inner) {
                    unsaid.push(path);
                } else {
                    merge_into(known, inner, lists, &format!("{path}."), unsaid);
                }
            }
            value => base.set_field(&field, value.clone()),
        }
    }
}

/// Whether a message is replaced and never merged: `1s` laid over `1.5s` is `1s`.
fn is_whole(message: &DynamicMessage) -> bool {
    message.descriptor().full_name() == "google.protobuf.Duration"
}

fn is_wrapper(message: &DynamicMessage) -> bool {
    let descriptor = message.descriptor();
    descriptor.package_name() == "google.protobuf" && descriptor.name().ends_with("Value")
}

fn is_empty(message: &DynamicMessage) -> bool {
    message.fields().next().is_none()
}

/// The bytes of a message with the entries of its maps in order, also inside of packed messages.
pub(crate) fn encoded(message: &DynamicMessage) -> Vec<u8> {
    let mut bytes = Vec::new();
    if message.descriptor().full_name() == "google.protobuf.Any"
        && let Some(sorted) = sorted_any(message)
    {
        return sorted.encode_to_vec();
    }
    for (field, value) in message.fields() {
        encode_field(message, &field, value, &mut bytes);
    }
    bytes
}

/// A packed message with its content encoded anew; `None` for a type that is not known.
fn sorted_any(message: &DynamicMessage) -> Option<Any> {
    let any: Any = message.transcode_to().ok()?;
    let name = any.type_url.strip_prefix(TYPE_URL_PREFIX).unwrap_or(&any.type_url);
    let inner = dynamic(name, &any.value).ok()?;
    Some(Any { value: encoded(&inner), type_url: any.type_url })
}

fn encode_field(
    message: &DynamicMessage,
    field: &FieldDescriptor,
    value: &Reflected,
    bytes: &mut Vec<u8>,
) {
    let mut put = |inner: &DynamicMessage| put_message(field.number(), &encoded(inner), bytes);
    match value {
        Reflected::Message(inner) => put(inner),
        Reflected::List(items) if items.first().is_some_and(|item| item.as_message().is_some()) => {
            items.iter().filter_map(Reflected::as_message).for_each(put);
        }
        Reflected::Map(entries) => {
            let prost_reflect::Kind::Message(entry) = field.kind() else { return };
            let mut sorted: Vec<_> = entries.iter().collect();
            sorted.sort_by_key(|(key, _)| *key);
            for (key, value) in sorted {
                let mut one = DynamicMessage::new(entry.clone());
                let (key_field, value_field) =
                    (entry.map_entry_key_field(), entry.map_entry_value_field());
                one.set_field(&key_field, key.clone().into());
                one.set_field(&value_field, value.clone());
                put(&one);
            }
        }
        value => {
            let mut alone = DynamicMessage::new(message.descriptor());
            alone.set_field(field, value.clone());
            bytes.extend(alone.encode_to_vec());
        }
    }
}

fn put_message(number: u32, inner: &[u8], bytes: &mut Vec<u8>) {
    encoding::encode_key(number, encoding::WireType::LengthDelimited, bytes);
    encoding::encode_varint(inner.len() as u64, bytes);
    bytes.extend_from_slice(inner);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{from_json, message_from_json, message_to_json, to_json};
    use envoy_types::pb::envoy::config::cluster::v3::Cluster;
    use serde_json::{Value, json};

    #[track_caller]
    fn check(base: &Value, addition: &Value, lists: Lists, expected: &Value, unsaid: &[&str]) {
        let mut cluster: Cluster = message_from_json(base).unwrap();
        let addition: Cluster = message_from_json(addition).unwrap();
        let found = merge(&mut cluster, &addition, lists).unwrap();
        assert_eq!(&message_to_json(&cluster).unwrap(), expected);
        assert_eq!(found, unsaid);
    }

    #[test]
    fn fields_are_replaced_lists_appended_and_durations_never_added_up() {
        let limits = json!({"circuit_breakers": {"thresholds": [{"max_retries": 1}]}});
        let more = json!({"circuit_breakers": {"thresholds": [{"max_retries": 2}]}});
        check(
            &limits,
            &more,
            Lists::Append,
            &json!({"circuit_breakers": {"thresholds": [{"max_retries": 1}, {"max_retries": 2}]}}),
            &[],
        );
        check(&limits, &more, Lists::Replace, &more, &[]);
        check(
            &json!({"name": "a", "connect_timeout": "1.5s"}),
            &json!({"connect_timeout": "2s"}),
            Lists::Append,
            &json!({"name": "a", "connect_timeout": "2s"}),
            &[],
        );
    }

    #[test]
    fn a_wrapped_zero_says_nothing_and_is_told() {
        check(
            &json!({"per_connection_buffer_limit_bytes": 5}),
            &json!({"per_connection_buffer_limit_bytes": 0}),
            Lists::Append,
            &json!({"per_connection_buffer_limit_bytes": 5}),
            &["per_connection_buffer_limit_bytes"],
        );
    }

    #[test]
    fn one_choice_takes_the_place_of_another() {
        check(
            &json!({"type": "STATIC"}),
            &json!({"cluster_type": {"name": "x"}}),
            Lists::Append,
            &json!({"cluster_type": {"name": "x"}}),
            &[],
        );
    }

    #[test]
    fn packed_messages_of_one_type_are_merged_and_others_refused() {
        const RBAC: &str = "type.googleapis.com/envoy.extensions.filters.http.rbac.v3.RBAC";
        let mut base = from_json(RBAC, &json!({"rules_stat_prefix": "a"})).unwrap();
        let addition = from_json(RBAC, &json!({"shadow_rules_stat_prefix": "b"})).unwrap();
        merge_packed(&mut base, &addition).unwrap();
        let expected =
            json!({"@type": RBAC, "rules_stat_prefix": "a", "shadow_rules_stat_prefix": "b"});
        assert_eq!(to_json(&base).unwrap(), expected);
        let other = Any { type_url: "type.googleapis.com/x.Y".into(), ..Any::default() };
        assert!(matches!(merge_packed(&mut base, &other), Err(ConvertError::Types { .. })));
        assert_eq!(to_json(&base).unwrap(), expected);
    }

    #[test]
    fn equal_messages_are_equal_bytes_whatever_their_maps() {
        const LUA: &str = "type.googleapis.com/envoy.extensions.filters.http.lua.v3.Lua";
        let scripts: serde_json::Map<String, Value> =
            (0..20).map(|number| (format!("s{number}"), json!({"inline_string": "x"}))).collect();
        let value = json!({"source_codes": scripts});
        let first = from_json(LUA, &value).unwrap();
        assert!((0..10).all(|_| from_json(LUA, &value).unwrap() == first));
        assert_eq!(to_json(&first).unwrap()["source_codes"], Value::Object(scripts));
    }
}
