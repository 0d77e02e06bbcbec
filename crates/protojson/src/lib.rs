//! Envoy's messages as JSON, and back: the text form of what travels over xDS.
//!
//! In:    an `Any` or a message, or JSON in protobuf's JSON mapping (YAML reads into the same).
//! Out:   JSON with the field names of Envoy's .proto files; or an `Any`; or what is wrong, by field.
//! Never: linked into the data plane: the descriptors are large and parsing text is not its work.
//!
//! Start at [`to_json`] and [`from_json`].

mod merge;

use std::sync::LazyLock;

use envoy_types::pb::google::protobuf::Any;
use prost::{Message, Name};
use prost_reflect::{
    DescriptorPool, DeserializeOptions, DynamicMessage, MessageDescriptor, SerializeOptions,
};
use serde_json::Value;

pub use merge::{Lists, merge, merge_packed};

static DESCRIPTORS: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/envoy.descriptors"));

static POOL: LazyLock<DescriptorPool> = LazyLock::new(|| {
    DescriptorPool::decode(DESCRIPTORS).expect("the build script wrote a descriptor set")
});

const TYPE_URL_PREFIX: &str = "type.googleapis.com/";

/// Why a message has no JSON form, or JSON no message.
#[derive(Debug, thiserror::Error)]
pub enum ConvertError {
    /// Envoy 1.40's API has no message of this type.
    #[error("unknown message type {0:?}")]
    UnknownType(String),
    /// The JSON does not fit the message; the text names the field.
    #[error("{0}")]
    Json(String),
    /// Messages of different types cannot be merged.
    #[error("{addition:?} cannot be merged into {base:?}")]
    Types {
        /// The type that is there.
        base: String,
        /// The type that is laid over it.
        addition: String,
    },
    /// The bytes are not a message of the type that they claim.
    #[error("{type_name} cannot be decoded: {source}")]
    Bytes {
        /// The full name of the type.
        type_name: String,
        /// What the decoder met.
        #[source]
        source: prost::DecodeError,
    },
}

/// The descriptors of every message that has a text form here: a serialised `FileDescriptorSet`.
#[must_use]
pub fn descriptors() -> &'static [u8] {
    DESCRIPTORS
}

/// Turns a packed message into JSON, with nested `Any`s unpacked and an `@type` beside the fields.
///
/// Field names are those of the .proto file (`connect_timeout`); unset fields are left out.
///
/// # Errors
///
/// When the type, or one packed inside, is unknown or its bytes do not decode.
pub fn to_json(any: &Any) -> Result<Value, ConvertError> {
    let message = dynamic("google.protobuf.Any", &any.encode_to_vec())?;
    serialize(&message)
}

/// Turns a message into JSON, as [`to_json`] does but without the `@type`.
///
/// # Errors
///
/// As [`to_json`].
pub fn message_to_json<M: Name>(message: &M) -> Result<Value, ConvertError> {
    serialize(&dynamic(&M::full_name(), &message.encode_to_vec())?)
}

/// Makes a packed message of type `type_url` from JSON.
///
/// Accepts protobuf's JSON mapping: `snake_case` and `camelCase` names, durations as `"5s"`, nested
/// `Any`s by `@type`. An `@type` at the top must agree with `type_url`.
///
/// # Errors
///
/// [`ConvertError::UnknownType`], or [`ConvertError::Json`] naming the first field that does not fit.
pub fn from_json(type_url: &str, value: &Value) -> Result<Any, ConvertError> {
    let name = type_url.strip_prefix(TYPE_URL_PREFIX).unwrap_or(type_url);
    let mut value = value.clone();
    if let Some(object) = value.as_object_mut()
        && let Some(found) = object.remove("@type")
        && found != Value::String(type_url.to_owned())
    {
        return Err(ConvertError::Json(format!("@type is {found}, expected {type_url:?}")));
    }
    let message = deserialize(descriptor(name)?, value)?;
    Ok(Any { type_url: format!("{TYPE_URL_PREFIX}{name}"), value: merge::encoded(&message) })
}

/// Makes a message of a known type from JSON, as [`from_json`] does.
///
/// # Errors
///
/// As [`from_json`].
pub fn message_from_json<M: Name + Default>(value: &Value) -> Result<M, ConvertError> {
    let type_name = M::full_name();
    let message = deserialize(descriptor(&type_name)?, value.clone())?;
    M::decode(merge::encoded(&message).as_slice())
        .map_err(|source| ConvertError::Bytes { type_name, source })
}

/// Whether Envoy's API has a message of this type URL.
#[must_use]
pub fn is_known(type_url: &str) -> bool {
    descriptor(type_url.strip_prefix(TYPE_URL_PREFIX).unwrap_or(type_url)).is_ok()
}

fn descriptor(name: &str) -> Result<MessageDescriptor, ConvertError> {
    POOL.get_message_by_name(name).ok_or_else(|| ConvertError::UnknownType(name.to_owned()))
}

fn dynamic(type_name: &str, bytes: &[u8]) -> Result<DynamicMessage, ConvertError> {
    DynamicMessage::decode(descriptor(type_name)?, bytes)
        .map_err(|source| ConvertError::Bytes { type_name: type_name.to_owned(), source })
}

fn serialize(message: &DynamicMessage) -> Result<Value, ConvertError> {
    let options =
        SerializeOptions::new().use_proto_field_name(true).stringify_64_bit_integers(false);
    message
        .serialize_with_options(serde_json::value::Serializer, &options)
        .map_err(|error| ConvertError::Json(error.to_string()))
}

fn deserialize(
    descriptor: MessageDescriptor,
    value: Value,
) -> Result<DynamicMessage, ConvertError> {
    DynamicMessage::deserialize_with_options(
        descriptor,
        value,
        &DeserializeOptions::new().deny_unknown_fields(true),
    )
    .map_err(|error| ConvertError::Json(error.to_string()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use envoy_types::pb::envoy::config::cluster::v3::Cluster;
    use serde_json::json;

    const CLUSTER: &str = "type.googleapis.com/envoy.config.cluster.v3.Cluster";

    #[test]
    fn a_message_survives_its_way_through_json() {
        let written = json!({
            "name": "api",
            "connect_timeout": "10s",
            "transport_socket": {
                "name": "tls",
                "typed_config": {
                    "@type": "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.UpstreamTlsContext",
                    "sni": "api.data.local",
                },
            },
        });
        let cluster: Cluster = message_from_json(&written).unwrap();
        assert_eq!(cluster.name, "api");
        assert_eq!(message_to_json(&cluster).unwrap(), written);
    }

    #[test]
    fn camel_case_is_read_as_snake_case() {
        let any = from_json(CLUSTER, &json!({"name": "a", "connectTimeout": "1.5s"})).unwrap();
        let shown = to_json(&any).unwrap();
        assert_eq!(shown, json!({"@type": CLUSTER, "name": "a", "connect_timeout": "1.500s"}));
    }

    #[test]
    fn an_unknown_field_is_refused_by_name() {
        let error = from_json(CLUSTER, &json!({"nmae": "a"})).unwrap_err().to_string();
        assert!(error.contains("nmae"), "{error}");
    }

    #[test]
    fn an_unknown_type_is_refused_by_name() {
        let error = from_json("type.googleapis.com/envoy.Nothing", &json!({})).unwrap_err();
        assert!(error.to_string().contains("envoy.Nothing"));
    }
}
