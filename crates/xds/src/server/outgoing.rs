//! Writes a response piece by piece, as fast as the peer takes it.
//!
//! In:    a response whose resources are shared with other streams.
//! Out:   the bytes of one gRPC message, in pieces of bounded size.
//! Never: holds a whole message: a large one goes to thousands of proxies at once.

use std::{sync::Arc, vec};

use hyper::body::Bytes;
use prost::{Message, encoding::encode_varint, encoding::encoded_len_varint};
use sluis_envoy::Encoded;

use crate::{
    session::{Dialect, Response},
    wire,
};

/// Bytes of one piece: two of HTTP/2's usual frames.
const PIECE_BYTES: usize = 32 * 1024;

/// The tags of length-delimited fields (protobuf encoding, wire type 2).
mod tag {
    /// `DiscoveryResponse.resources`, `DeltaDiscoveryResponse.resources`.
    pub(super) const RESOURCES: u8 = 2 << 3 | 2;
    /// `Resource.version`.
    pub(super) const VERSION: u8 = 1 << 3 | 2;
    /// `Resource.resource`.
    pub(super) const RESOURCE: u8 = 2 << 3 | 2;
    /// `Resource.name`.
    pub(super) const NAME: u8 = 3 << 3 | 2;
    /// `Any.type_url`.
    pub(super) const TYPE_URL: u8 = 1 << 3 | 2;
    /// `Any.value`.
    pub(super) const VALUE: u8 = 2 << 3 | 2;
}

/// A response on its way out.
#[derive(Debug)]
pub(super) struct Outgoing {
    dialect: Dialect,
    /// gRPC's prefix and the fields before the resources, until they are written.
    head: Vec<u8>,
    resources: vec::IntoIter<Arc<Encoded>>,
    /// The resource that is being written, and how many bytes of its value are.
    current: Option<(Arc<Encoded>, usize)>,
}

impl Outgoing {
    /// A response of which nothing is written yet.
    pub(super) fn new(mut response: Response, dialect: Dialect) -> Self {
        let resources = std::mem::take(&mut response.upserts);
        let fields = match dialect {
            Dialect::Sotw => wire::sotw(response).encode_to_vec(),
            Dialect::Delta => wire::delta(response).encode_to_vec(),
        };
        let of_resources: usize =
            resources.iter().map(|resource| field_len(resource_len(resource, dialect))).sum();
        // gRPC over HTTP/2, "Length-Prefixed-Message": not compressed, then the length. Subscriptions
        // are bounded far below what four bytes can say.
        let length = u32::try_from(fields.len() + of_resources).unwrap_or(u32::MAX);
        let mut head = vec![0];
        head.extend_from_slice(&length.to_be_bytes());
        head.extend_from_slice(&fields);
        Self { dialect, head, resources: resources.into_iter(), current: None }
    }

    /// The next piece; `None` when everything is written.
    pub(super) fn next(&mut self) -> Option<Bytes> {
        let mut piece = std::mem::take(&mut self.head);
        while piece.len() < PIECE_BYTES {
            if let Some((resource, written)) = &mut self.current {
                let rest = &resource.body.value[*written..];
                let taken = rest.len().min(PIECE_BYTES - piece.len());
                piece.extend_from_slice(&rest[..taken]);
                *written += taken;
                if taken == rest.len() {
                    self.current = None;
                }
            } else if let Some(resource) = self.resources.next() {
                write_head(&mut piece, &resource, self.dialect);
                self.current = Some((resource, 0));
            } else {
                break;
            }
        }
        (!piece.is_empty()).then(|| piece.into())
    }
}

/// Bytes of a length-delimited field whose tag fits one byte.
fn field_len(content: usize) -> usize {
    1 + encoded_len_varint(content as u64) + content
}

fn any_len(resource: &Encoded) -> usize {
    field_len(resource.body.type_url.len()) + field_len(resource.body.value.len())
}

/// Bytes of one element of `resources`, without its tag and length.
fn resource_len(resource: &Encoded, dialect: Dialect) -> usize {
    match dialect {
        Dialect::Sotw => any_len(resource),
        Dialect::Delta => {
            field_len(resource.version.len())
                + field_len(resource.name.len())
                + field_len(any_len(resource))
        }
    }
}

/// Everything of a resource before its value, which is the last thing in it.
fn write_head(bytes: &mut Vec<u8>, resource: &Encoded, dialect: Dialect) {
    let begin = |bytes: &mut Vec<u8>, tag: u8, length: usize| {
        bytes.push(tag);
        encode_varint(length as u64, bytes);
    };
    begin(bytes, tag::RESOURCES, resource_len(resource, dialect));
    if dialect == Dialect::Delta {
        for (tag, text) in [(tag::VERSION, &resource.version), (tag::NAME, &resource.name)] {
            begin(bytes, tag, text.len());
            bytes.extend_from_slice(text.as_bytes());
        }
        begin(bytes, tag::RESOURCE, any_len(resource));
    }
    begin(bytes, tag::TYPE_URL, resource.body.type_url.len());
    bytes.extend_from_slice(resource.body.type_url.as_bytes());
    begin(bytes, tag::VALUE, resource.body.value.len());
}

#[cfg(test)]
mod tests {
    use envoy_types::pb::envoy::{
        config::cluster::v3::Cluster,
        service::discovery::v3::{DeltaDiscoveryResponse, DiscoveryResponse},
    };
    use sluis_envoy::Kind;

    use super::*;

    fn response(sizes: &[usize]) -> Response {
        let upserts = sizes.iter().enumerate().map(|(index, size)| {
            let message = Cluster { alt_stat_name: "x".repeat(*size), ..Cluster::default() };
            Arc::new(Encoded::new(Kind::Cluster, &format!("c{index}"), &message))
        });
        Response {
            kind: Kind::Cluster,
            nonce: "7".to_owned(),
            version: "v".to_owned(),
            upserts: upserts.collect(),
            removed: vec!["gone".to_owned()],
        }
    }

    /// The message that the pieces make up, after a check of their sizes and of gRPC's prefix.
    fn joined(response: Response, dialect: Dialect) -> Vec<u8> {
        let mut outgoing = Outgoing::new(response, dialect);
        let mut bytes = Vec::new();
        while let Some(piece) = outgoing.next() {
            assert!(piece.len() < PIECE_BYTES + 512, "{}", piece.len());
            bytes.extend_from_slice(&piece);
        }
        assert_eq!(bytes[0], 0);
        assert_eq!(bytes[1..5], u32::try_from(bytes.len() - 5).unwrap().to_be_bytes());
        bytes.split_off(5)
    }

    #[test]
    fn the_pieces_are_the_message_in_bounded_sizes() {
        let large = PIECE_BYTES * 3 + 1;
        for sizes in [&[][..], &[0], &[10, 0, 200], &[large, 5, large], &[PIECE_BYTES; 4]] {
            let delta = joined(response(sizes), Dialect::Delta);
            let delta = DeltaDiscoveryResponse::decode(delta.as_slice()).unwrap();
            let expected = response(sizes);
            assert_eq!((delta.nonce.as_str(), delta.system_version_info.as_str()), ("7", "v"));
            assert_eq!(delta.removed_resources, ["gone"]);
            assert_eq!(delta.resources.len(), sizes.len());
            for (found, expected) in delta.resources.iter().zip(&expected.upserts) {
                assert_eq!((&found.name, &found.version), (&expected.name, &expected.version));
                assert_eq!(found.resource.as_ref(), Some(&expected.body));
            }
            let sotw = joined(response(sizes), Dialect::Sotw);
            let sotw = DiscoveryResponse::decode(sotw.as_slice()).unwrap();
            assert_eq!((sotw.nonce.as_str(), sotw.version_info.as_str()), ("7", "v"));
            let bodies: Vec<_> = expected.upserts.iter().map(|one| one.body.clone()).collect();
            assert_eq!(sotw.resources, bodies);
        }
    }
}
