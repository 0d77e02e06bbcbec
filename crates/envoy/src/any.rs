//! Packs messages into `google.protobuf.Any` and takes them out again.

use envoy_types::pb::google::protobuf::Any;
use prost::Name;

use crate::canonical;

/// Why a message could not be taken out of an `Any`.
#[derive(Debug, thiserror::Error)]
pub enum UnpackError {
    /// The `Any` holds a message of another type.
    #[error("expected {expected}, found {found}")]
    Type {
        /// The type URL that the caller asked for.
        expected: String,
        /// The type URL in the `Any`.
        found: String,
    },
    /// The bytes are not a message of that type.
    #[error("{type_url} cannot be decoded: {source}")]
    Bytes {
        /// The type URL in the `Any`.
        type_url: String,
        /// What the decoder met.
        #[source]
        source: prost::DecodeError,
    },
}

/// The type URL of a message type: `type.googleapis.com/` and its full name.
#[must_use]
pub fn type_url<M: Name>() -> String {
    format!("type.googleapis.com/{}", M::full_name())
}

/// Packs a message under its own type URL.
#[must_use]
pub fn pack<M: Name>(message: &M) -> Any {
    let bytes = message.encode_to_vec();
    let value = match canonical::of_filter(&M::full_name()) {
        [] => bytes,
        maps => canonical::sorted(bytes, maps),
    };
    Any { type_url: type_url::<M>(), value }
}

/// Takes a message out, when the `Any` says that it holds one of this type.
///
/// # Errors
///
/// [`UnpackError::Type`] for another type URL, [`UnpackError::Bytes`] for bytes that do not decode.
pub fn unpack<M: Name + Default>(any: &Any) -> Result<M, UnpackError> {
    let expected = type_url::<M>();
    if any.type_url != expected {
        return Err(UnpackError::Type { expected, found: any.type_url.clone() });
    }
    M::decode(any.value.as_slice())
        .map_err(|source| UnpackError::Bytes { type_url: any.type_url.clone(), source })
}
