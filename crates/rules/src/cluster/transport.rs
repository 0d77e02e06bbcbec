//! What is said to an endpoint, or to a proxy before it, ahead of TLS and of the protocol itself.

use std::net::SocketAddr;

/// What comes before TLS.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Hop {
    /// A header that tells the client's address.
    pub proxy_protocol: Option<ProxyProtocol>,
    /// An HTTP proxy that is asked to connect (`CONNECT`).
    pub http_proxy: Option<HttpProxyHop>,
}

/// A PROXY protocol header.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ProxyProtocol {
    /// Text.
    V1,
    /// Binary.
    V2,
}

/// An HTTP/1.1 proxy between us and the endpoint.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct HttpProxyHop {
    /// Where it is.
    pub address: SocketAddr,
}
