//! Who asks: one proxy, as far as its configuration depends on it.

use std::net::{IpAddr, Ipv4Addr};

use sluis_nouns::{Labels, ObjectName, WorkloadId};

/// One proxy, as far as its configuration depends on it.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct ProxyView {
    /// The `WorkloadEntry` (or pod) that the proxy serves.
    pub name: ObjectName,
    /// The identity that the proxy proved.
    pub id: WorkloadId,
    /// The workload's own address. A gateway listens there.
    pub address: IpAddr,
    /// The workload's labels: `Gateway` and `EnvoyFilter` selectors read them.
    pub labels: Labels,
    /// What the proxy is.
    pub role: Role,
    /// How a sidecar gets the connections of its workload.
    pub capture: Capture,
    /// Whether the proxy answers its workload's DNS questions. Hosts without an address then get one
    /// out of 240.240.0.0/16.
    pub dns: bool,
}

/// What a proxy is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Role {
    /// Stands beside one workload and carries what it sends.
    Sidecar,
    /// Stands at a border and serves `Gateway` resources.
    Gateway,
}

/// How a sidecar gets the connections of its workload.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Capture {
    /// Listening sockets are handed over from inside a jail; nothing is bound here.
    Jail,
    /// Connections come through a unix socket at this path, each behind a PROXY protocol header that
    /// names its original destination. For a real Envoy beside a workload of a plain machine.
    ProxyProtocolPipe(String),
    /// A packet filter redirects to port 15001 of all addresses.
    Redirect,
    /// Nothing is captured: a gateway, or a sidecar that is only looked at.
    None,
}

impl ProxyView {
    /// The address for "any address" of the same family as the workload's own.
    #[must_use]
    pub fn wildcard(&self) -> IpAddr {
        IpAddr::V4(Ipv4Addr::UNSPECIFIED)
    }
}
