//! Puts the entries of metadata maps in order, so that equal resources have equal bytes.
//!
//! In:    the encoded bytes of a resource, and which of its fields lead to maps.
//! Out:   the same message with the entries of those maps sorted by key.
//! Never: changes what a message means: entries of a map have no order, and nothing else is moved.
//!
//! The generated messages hold maps in hash maps, whose order changes from run to run. A resource
//! whose bytes change is sent again, and a listener that is sent again is drained. So the maps that
//! may hold more than one entry are sorted here, on the wire form (protobuf encoding §"maps": each
//! entry is a length-delimited field with the key as field 1).

/// A field that holds a message with maps somewhere in it.
#[derive(Debug)]
pub(crate) struct Field {
    number: u64,
    kind: Shape,
}

/// What a field holds.
#[derive(Clone, Copy, Debug)]
enum Shape {
    /// A message, repeated or not, with fields of interest.
    Message(&'static [Field]),
    /// A map from text to messages; the fields of interest are those of an entry (key 1, value 2).
    Map(&'static [Field]),
}

const fn message(number: u64, fields: &'static [Field]) -> Field {
    Field { number, kind: Shape::Message(fields) }
}

const fn map(number: u64, entry: &'static [Field]) -> Field {
    Field { number, kind: Shape::Map(entry) }
}

/// `google.protobuf.Struct`: a map to values, which may be structs and lists again.
static STRUCT: [Field; 1] = [map(1, &STRUCT_ENTRY)];
static STRUCT_ENTRY: [Field; 1] = [message(2, &VALUE)];
static VALUE: [Field; 2] = [message(5, &STRUCT), message(6, &LIST)];
static LIST: [Field; 1] = [message(1, &VALUE)];

/// `envoy.config.core.v3.Metadata`: `filter_metadata` and `typed_filter_metadata`.
static METADATA: [Field; 2] = [map(1, &METADATA_ENTRY), map(2, &[])];
static METADATA_ENTRY: [Field; 1] = [message(2, &STRUCT)];

static ENDPOINT: [Field; 1] = [message(3, &METADATA)];
static LOCALITY: [Field; 2] = [message(2, &ENDPOINT), message(9, &METADATA)];
static SOCKET_MATCH: [Field; 1] = [message(2, &STRUCT)];
static WEIGHTED: [Field; 2] = [message(3, &METADATA), map(10, &[])];
static WEIGHTS: [Field; 1] = [message(1, &WEIGHTED)];
static ROUTE_ACTION: [Field; 2] = [message(3, &WEIGHTS), message(4, &METADATA)];
static ROUTE: [Field; 3] = [message(2, &ROUTE_ACTION), message(4, &METADATA), map(13, &[])];
static VIRTUAL_HOST: [Field; 3] = [message(3, &ROUTE), map(15, &[]), message(24, &METADATA)];
static FILTER_CHAIN: [Field; 1] = [message(5, &METADATA)];

/// The maps of a `ClusterLoadAssignment`.
pub(crate) static ENDPOINTS: [Field; 1] = [message(2, &LOCALITY)];

/// The maps of a `Cluster`.
pub(crate) static CLUSTER: [Field; 4] =
    [message(25, &METADATA), message(33, &ENDPOINTS), map(36, &[]), message(43, &SOCKET_MATCH)];

/// The maps of a `RouteConfiguration`.
pub(crate) static ROUTES: [Field; 3] =
    [message(2, &VIRTUAL_HOST), map(16, &[]), message(17, &METADATA)];

/// The maps of a `Listener`.
pub(crate) static LISTENER: [Field; 3] =
    [message(3, &FILTER_CHAIN), message(5, &METADATA), message(25, &FILTER_CHAIN)];

static RBAC: [Field; 1] = [map(2, &[])];
static RBAC_FILTER: [Field; 2] = [message(1, &RBAC), message(2, &RBAC)];
static RBAC_ROUTE: [Field; 1] = [message(2, &RBAC_FILTER)];

/// Providers and named requirements.
static TOKENS: [Field; 2] = [map(1, &[]), map(5, &[])];

/// The maps of a filter's configuration, by the full name of its message.
pub(crate) fn of_filter(message: &str) -> &'static [Field] {
    match message {
        "envoy.extensions.filters.http.rbac.v3.RBAC"
        | "envoy.extensions.filters.network.rbac.v3.RBAC" => &RBAC_FILTER,
        "envoy.extensions.filters.http.rbac.v3.RBACPerRoute" => &RBAC_ROUTE,
        "envoy.extensions.filters.http.jwt_authn.v3.JwtAuthentication" => &TOKENS,
        _ => &[],
    }
}

/// Sorts the maps of an encoded message. What is not a well-formed message is left as it is.
pub(crate) fn sorted(bytes: Vec<u8>, fields: &'static [Field]) -> Vec<u8> {
    match rewritten(&bytes, fields) {
        Some(Some(sorted)) => sorted,
        _ => bytes,
    }
}

/// `None` for bytes that are no message, `Some(None)` when there is nothing to sort.
#[expect(clippy::option_option, reason = "three answers, of which two keep the bytes")]
fn rewritten(bytes: &[u8], fields: &'static [Field]) -> Option<Option<Vec<u8>>> {
    let mut parts: Vec<Part> = Vec::new();
    let (mut rest, mut is_touched) = (bytes, false);
    while !rest.is_empty() {
        let before = rest;
        let tag = varint(&mut rest)?;
        let payload = match tag & 7 {
            0 => varint(&mut rest).map(|_| None)?,
            1 => take(&mut rest, 8).map(|_| None)?,
            2 => {
                let length = usize::try_from(varint(&mut rest)?).ok()?;
                Some(take(&mut rest, length)?)
            }
            5 => take(&mut rest, 4).map(|_| None)?,
            _ => return None,
        };
        let raw = &before[..before.len() - rest.len()];
        let wanted = fields.iter().find(|field| field.number == tag >> 3);
        let mut part = Part { raw: raw.to_vec(), map: None };
        if let (Some(field), Some(payload)) = (wanted, payload) {
            let inner = match field.kind {
                Shape::Message(inner) | Shape::Map(inner) => inner,
            };
            if let Some(sorted) = rewritten(payload, inner)? {
                part.raw = length_delimited(tag, &sorted);
                is_touched = true;
            }
            if matches!(field.kind, Shape::Map(_)) {
                part.map = Some((field.number, key(payload).to_vec()));
            }
        }
        parts.push(part);
    }
    is_touched |= sort_runs(&mut parts);
    Some(is_touched.then(|| parts.into_iter().flat_map(|part| part.raw).collect()))
}

/// One field of a message: its bytes, and for an entry of a map the field's number and the key.
struct Part {
    raw: Vec<u8>,
    map: Option<(u64, Vec<u8>)>,
}

/// Sorts each run of entries of one map; tells whether anything moved.
fn sort_runs(parts: &mut [Part]) -> bool {
    let is_sorted = parts.windows(2).all(|two| match (&two[0].map, &two[1].map) {
        (Some((a, left)), Some((b, right))) => a != b || left <= right,
        _ => true,
    });
    if is_sorted {
        return false;
    }
    let number = |part: &Part| part.map.as_ref().map(|(number, _)| *number);
    for run in parts.chunk_by_mut(|a, b| number(a).is_some() && number(a) == number(b)) {
        run.sort_by(|a, b| a.map.cmp(&b.map));
    }
    true
}

/// The key of a map's entry; empty where none is written, as protobuf reads it.
fn key(entry: &[u8]) -> &[u8] {
    let mut rest = entry;
    match (varint(&mut rest), varint(&mut rest).map(usize::try_from)) {
        // Field 1, length-delimited.
        (Some(0x0A), Some(Ok(length))) => take(&mut rest, length).unwrap_or_default(),
        _ => &[],
    }
}

fn length_delimited(tag: u64, payload: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(payload.len() + 8);
    prost::encoding::encode_varint(tag, &mut out);
    prost::encoding::encode_varint(payload.len() as u64, &mut out);
    out.extend_from_slice(payload);
    out
}

fn varint(rest: &mut &[u8]) -> Option<u64> {
    prost::encoding::decode_varint(rest).ok()
}

fn take<'a>(rest: &mut &'a [u8], length: usize) -> Option<&'a [u8]> {
    let (taken, left) = rest.split_at_checked(length)?;
    *rest = left;
    Some(taken)
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use envoy_types::pb::{
        envoy::config::{cluster::v3::Cluster, core::v3::Metadata},
        google::protobuf::{Struct, Value, value::Kind},
    };
    use prost::Message;

    use super::*;

    fn text(text: &str) -> Value {
        Value { kind: Some(Kind::StringValue(text.to_owned())) }
    }

    /// A cluster whose metadata has maps in maps; each call hashes anew.
    fn cluster() -> Cluster {
        let fields: HashMap<String, Value> =
            (0..20).map(|index| (format!("key-{index}"), text(&index.to_string()))).collect();
        let inner = Value { kind: Some(Kind::StructValue(Struct { fields: fields.clone() })) };
        let mut outer = fields;
        outer.insert("inner".to_owned(), inner);
        let filters = ["istio", "envoy.lb", "other"];
        let filter_metadata = filters
            .iter()
            .map(|name| ((*name).to_owned(), Struct { fields: outer.clone() }))
            .collect();
        Cluster {
            name: "a".to_owned(),
            alt_stat_name: "b".to_owned(),
            metadata: Some(Metadata { filter_metadata, ..Metadata::default() }),
            ..Cluster::default()
        }
    }

    #[test]
    fn equal_clusters_have_equal_bytes_whatever_their_maps_order() {
        let sorted = |cluster: &Cluster| sorted(cluster.encode_to_vec(), &CLUSTER);
        let (one, other) = (sorted(&cluster()), sorted(&cluster()));
        assert_eq!(one, other);
        assert_eq!(Cluster::decode(one.as_slice()).unwrap(), cluster());
    }

    #[test]
    fn bytes_that_are_no_message_stay_as_they_are() {
        for bytes in [vec![0xCA, 0x01, 0xFF], vec![0x07], vec![0xCA, 0x01, 0x02, 0x0A, 0x7F]] {
            assert_eq!(sorted(bytes.clone(), &CLUSTER), bytes);
        }
    }
}
