//! Sidecar: what the proxies of a namespace, or some of them, receive and may reach.

use std::net::IpAddr;

use sluis_nouns::{HostPattern, Labels, SourceRef};

use super::destination_rule::ConnectionPool;
use super::gateway::HostScope;
use super::mesh_config::OutboundTrafficPolicy;
use super::shared::Protocol;
use super::tls::ServerTls;
use super::virtual_service::Destination;

/// `networking.istio.io` Sidecar. Something of it is written.
#[derive(Clone, Debug, PartialEq)]
pub struct Sidecar {
    /// `workloadSelector.labels`; `None` (also for an empty selector) means all in the namespace.
    pub workload_selector: Option<Labels>,
    /// `ingress`, ports unique; empty means the ports of the workload's services.
    pub ingress: Vec<IngressListener>,
    /// `egress`, ports unique; the one without a port comes last. Empty means as if there were no
    /// Sidecar (the mesh's default).
    pub egress: Vec<EgressListener>,
    /// `outboundTrafficPolicy`; `None` means the mesh's.
    pub outbound_traffic_policy: Option<SidecarOutboundPolicy>,
    /// `inboundConnectionPool`, for all that is received.
    pub inbound_connection_pool: Option<ConnectionPool>,
}

/// One of `ingress`: a port on which the workload receives.
#[derive(Clone, Debug, PartialEq)]
pub struct IngressListener {
    /// Place of the list item.
    pub at: SourceRef,
    /// `port`; its number is 1 to 65535.
    pub port: SidecarPort,
    /// `bind`: the address to listen on; `None` means that of the capture.
    pub bind: Option<IpAddr>,
    /// `captureMode`.
    pub capture_mode: CaptureMode,
    /// `defaultEndpoint`; `None` means the same port and address as received.
    pub default_endpoint: Option<DefaultEndpoint>,
    /// `tls`: terminated by the proxy, on a port with protocol HTTPS or TLS.
    pub tls: Option<ServerTls>,
    /// `connectionPool`, in place of `inboundConnectionPool`.
    pub connection_pool: Option<ConnectionPool>,
}

/// One of `egress`: what may be reached, and on which port.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EgressListener {
    /// Place of the list item.
    pub at: SourceRef,
    /// `port`; `None` means all ports of the imported services.
    pub port: Option<SidecarPort>,
    /// `bind`: an IP address, or `unix://PATH` where the port's number is 0.
    pub bind: Option<String>,
    /// `captureMode`.
    pub capture_mode: CaptureMode,
    /// `hosts`. At least one.
    pub hosts: Vec<ImportedHost>,
}

/// `port` of an ingress or egress listener.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SidecarPort {
    /// Place of the section.
    pub at: SourceRef,
    /// `number`; 0 only on an egress listener that is bound to a unix socket.
    pub number: u16,
    /// `protocol`; [`Protocol::Unknown`] where nothing is written.
    pub protocol: Protocol,
    /// `name`; empty where nothing is written.
    pub name: String,
}

/// One of `egress[].hosts`: `namespace/host`, where `~` before the namespace takes out instead.
///
/// What is imported is all that an entry without `exclude` names and none with it does. `~/*` alone
/// imports nothing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ImportedHost {
    /// Place of the list item.
    pub at: SourceRef,
    /// Whether this takes out of what the others bring in.
    pub exclude: bool,
    /// Whose services: of any namespace (`*`, and `~` alone), of the Sidecar's (`.`), or of one.
    pub namespace: HostScope,
    /// Which hosts: a full name, `*.suffix` or `*`.
    pub host: HostPattern,
}

/// Where received connections are forwarded to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum DefaultEndpoint {
    /// An address of the workload's own: 127.0.0.1 or ::1 (where no host is written: 127.0.0.1),
    /// or 0.0.0.0 or :: for the address that was asked for.
    Address {
        /// The address.
        ip: IpAddr,
        /// The port.
        port: u16,
    },
    /// A unix socket.
    Unix(String),
}

/// How connections reach a listener.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum CaptureMode {
    /// As the proxy's interception mode says. The default.
    #[default]
    Default,
    /// By redirection.
    Iptables,
    /// Not at all: clients name the listener's own address.
    None,
}

/// `outboundTrafficPolicy` of a Sidecar.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SidecarOutboundPolicy {
    /// `mode`; REGISTRY_ONLY where the section is written without one.
    pub mode: OutboundTrafficPolicy,
    /// `egressProxy`: where connections go that no service claims. Only with ALLOW_ANY.
    pub egress_proxy: Option<Destination>,
}
