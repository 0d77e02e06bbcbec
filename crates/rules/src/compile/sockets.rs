//! Transport sockets: the cluster's own, and those for endpoints whose metadata match.

use std::sync::Arc;

use envoy_types::pb::{
    envoy::config::{cluster::v3::cluster::TransportSocketMatch, core::v3::TransportSocket},
    google::protobuf::{Struct, value::Kind as ValueKind},
};

use super::{
    at::At,
    hop::{self, Transport},
};
use crate::UpstreamProtocol;

/// The transport by endpoint: the first match that fits, else the cluster's own.
pub(super) struct Sockets {
    matches: Vec<SocketMatch>,
    pub(super) default: Transport,
}

/// The metadata that an endpoint must have, and the transport towards such endpoints.
struct SocketMatch {
    wanted: Vec<(String, String)>,
    transport: Transport,
}

impl Sockets {
    /// Offers the protocols of the HTTP versions to be spoken where the context names none, as
    /// Envoy does. HTTP/1.1 alone needs no name.
    pub(super) fn offer(&mut self, version: UpstreamProtocol) {
        let names: &[&str] = match version {
            UpstreamProtocol::Http1 | UpstreamProtocol::Downstream => return,
            UpstreamProtocol::Http2 => &["h2"],
            UpstreamProtocol::Auto => &["h2", "http/1.1"],
        };
        let matches = self.matches.iter_mut().map(|entry| &mut entry.transport);
        for tls in matches.chain([&mut self.default]).filter_map(|each| each.tls.as_mut()) {
            if tls.alpn.is_empty() {
                Arc::make_mut(tls).alpn = names.iter().map(|name| Arc::from(*name)).collect();
            }
        }
    }

    /// The transport for an endpoint with this metadata.
    pub(super) fn of(&self, metadata: Option<&Struct>) -> Transport {
        let has = |key: &String, value: &String| {
            let found = metadata.and_then(|all| all.fields.get(key)).and_then(|v| v.kind.as_ref());
            matches!(found, Some(ValueKind::StringValue(text)) if text == value)
        };
        self.matches
            .iter()
            .find(|entry| entry.wanted.iter().all(|(key, value)| has(key, value)))
            .map_or_else(|| self.default.clone(), |entry| entry.transport.clone())
    }
}

/// Compiles a cluster's transports.
pub(super) fn sockets(
    at: &At<'_>,
    matches: &[TransportSocketMatch],
    default: Option<&TransportSocket>,
) -> Option<Sockets> {
    let default = hop::transport(&at.field("transport_socket"), default);
    let field = at.field("transport_socket_matches");
    let mut compiled = Vec::new();
    for (index, entry) in matches.iter().enumerate() {
        let at = field.nth(index);
        let wanted = entry.r#match.iter().flat_map(|wanted| &wanted.fields);
        let wanted = wanted.filter_map(|(key, value)| match &value.kind {
            Some(ValueKind::StringValue(text)) => Some((key.clone(), text.clone())),
            _ => {
                at.field("match").key(key).fault("is not a string");
                None
            }
        });
        let wanted: Vec<_> = wanted.collect();
        let socket = entry.transport_socket.as_ref();
        if let Some(transport) = hop::transport(&at.field("transport_socket"), socket) {
            compiled.push(SocketMatch { wanted, transport });
        }
    }
    Some(Sockets { matches: compiled, default: default? })
}
