//! Transport sockets towards endpoints: what comes before TLS, then TLS or none.

use std::sync::Arc;

use envoy_types::pb::envoy::{
    config::core::v3::{
        ProxyProtocolConfig, TransportSocket, transport_socket::ConfigType as SocketConfig,
    },
    extensions::transport_sockets::{
        http_11_proxy::v3::Http11ProxyUpstreamTransport,
        proxy_protocol::v3::ProxyProtocolUpstreamTransport,
    },
};

use super::{
    at::{At, fields, message_of},
    messages, tls,
};
use crate::{Hop, HttpProxyHop, ProxyProtocol, UpstreamTls};

/// TLS, and what comes before it.
#[derive(Clone, Debug, Default)]
pub(super) struct Transport {
    pub(super) tls: Option<Arc<UpstreamTls>>,
    pub(super) hop: Hop,
}

pub(super) fn transport(at: &At<'_>, socket: Option<&TransportSocket>) -> Option<Transport> {
    let inner = |at: &At<'_>, socket: Option<&TransportSocket>| {
        tls::upstream(at, socket).map(|tls| Transport { tls, hop: Hop::default() })
    };
    let Some(SocketConfig::TypedConfig(any)) = socket.and_then(|s| s.config_type.as_ref()) else {
        return inner(at, socket);
    };
    match message_of(any) {
        "envoy.extensions.transport_sockets.proxy_protocol.v3.ProxyProtocolUpstreamTransport" => {
            let at = at.field("typed_config");
            let wrapper = at.unpack::<ProxyProtocolUpstreamTransport>(any)?;
            fields!(&at, &wrapper => ProxyProtocolUpstreamTransport {
                use { config, transport_socket }
                // Connections are pooled by what was told, if it was told at all.
                accept { tlv_as_pool_key, allow_unspecified_address }
                refuse {}
            });
            let config = config.clone().unwrap_or_default();
            fields!(&at.field("config"), &config => ProxyProtocolConfig {
                use { version }
                accept {}
                refuse { pass_through_tlvs, added_tlvs }
            });
            let version = match version {
                0 => ProxyProtocol::V1,
                1 => ProxyProtocol::V2,
                _ => {
                    at.field("config").field("version").unsupported();
                    return None;
                }
            };
            let mut found = inner(&at.field("transport_socket"), transport_socket.as_ref())?;
            found.hop.proxy_protocol = Some(version);
            Some(found)
        }
        "envoy.extensions.transport_sockets.http_11_proxy.v3.Http11ProxyUpstreamTransport" => {
            let at = at.field("typed_config");
            let wrapper = at.unpack::<Http11ProxyUpstreamTransport>(any)?;
            let mut found =
                inner(&at.field("transport_socket"), wrapper.transport_socket.as_ref())?;
            if found.tls.is_none() {
                // Envoy would ask the proxy itself, by requests in absolute form.
                at.field("transport_socket").fault("without TLS is not supported behind a proxy");
            }
            let place = at.field("default_proxy_address");
            let Some(address) = &wrapper.default_proxy_address else {
                // Envoy would take it from filter state, which nothing here sets.
                place.fault("is missing");
                return None;
            };
            match messages::address(&place, Some(address))? {
                crate::Address::Socket(address) => {
                    found.hop.http_proxy = Some(HttpProxyHop { address });
                    Some(found)
                }
                crate::Address::Pipe(_) | crate::Address::Internal(_) => {
                    place.field("pipe").unsupported();
                    None
                }
            }
        }
        _ => inner(at, socket),
    }
}
