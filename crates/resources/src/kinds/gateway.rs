//! Gateway: which ports and hosts the edge proxies serve.

use sluis_nouns::{HostPattern, Labels, SourceRef};

use super::shared::Protocol;
use super::tls::ServerTls;

/// `networking.istio.io` Gateway.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Gateway {
    /// Labels of the proxies that serve this gateway; empty selects all gateways.
    pub selector: Labels,
    /// The servers, in the order written. At least one.
    pub servers: Vec<Server>,
}

/// One port with its hosts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Server {
    /// Place of the list item.
    pub at: SourceRef,
    /// `name`, for metrics.
    pub name: Option<String>,
    /// `port`.
    pub port: ServerPort,
    /// `bind`: the address to listen on; none means all.
    pub bind: Option<String>,
    /// `hosts`. At least one.
    pub hosts: Vec<GatewayHost>,
    /// `tls`. Present when the protocol is HTTPS or TLS.
    pub tls: Option<ServerTls>,
    /// `defaultEndpoint`, of no effect on gateways.
    pub default_endpoint: Option<String>,
}

/// A port of a server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServerPort {
    /// Place of `number`.
    pub at: SourceRef,
    /// `number`: the port of the Service in front of the gateway, 1 to 65535.
    pub number: u16,
    /// `protocol`; never [`Protocol::Unknown`].
    pub protocol: Protocol,
    /// `name`, unique in the gateway.
    pub name: String,
    /// `targetPort`, of no effect in Istio.
    pub target_port: Option<u16>,
}

/// One of a server's hosts: `host`, `./host`, `*/host` or `namespace/host`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GatewayHost {
    /// Whose VirtualServices may bind to the host.
    pub scope: HostScope,
    /// The host.
    pub host: HostPattern,
    /// Place of the list item.
    pub at: SourceRef,
}

/// Whose VirtualServices may bind to a host of a Gateway.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum HostScope {
    /// Those of any namespace; also where no namespace is written.
    Any,
    /// `.`: those of the Gateway's namespace.
    Same,
    /// Those of one namespace.
    Namespace(String),
}
