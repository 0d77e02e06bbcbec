//! Who asks: one proxy, as far as its configuration depends on it.

use std::{
    collections::BTreeMap,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
};

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
    /// What the proxy says of itself: Istio's node metadata.
    pub node: NodeFacts,
}

/// What a proxy says of itself beyond its name: Istio's node metadata, as far as it changes the
/// output. Everything is empty for a proxy that has said nothing.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct NodeFacts {
    /// `GENERATOR: grpc`: the proxy is a gRPC library, which takes API listeners by name.
    pub is_grpc: bool,
    /// Whether it has Istio's ALPN filter, as its node's `extensions` say; a stock Envoy has not.
    pub has_alpn_filter: bool,
    /// Whether it is `sluis-proxy`: it has the filter for credentials, as its node's `extensions` say,
    /// and takes the identity that outer TLS has proven into an inner listener.
    pub is_ours: bool,
    /// `ISTIO_VERSION`; `EnvoyFilter` may match it.
    pub istio_version: String,
    /// `CLUSTER_ID`.
    pub cluster_id: String,
    /// `NETWORK`.
    pub network: String,
    /// `node.locality`, as `region/zone/sub-zone`; trailing parts may be missing.
    pub locality: String,
    /// The Kubernetes node that it runs on; empty leaves it to what is known of its pod.
    pub node_name: String,
    /// `INSTANCE_IPS`: every address of the workload, the one of the node's id first.
    pub instance_ips: Vec<IpAddr>,
    /// Whether the client's address is kept towards the workload (TPROXY); `None` as the mesh says.
    pub is_transparent: Option<bool>,
    /// `HTTP_PROXY_PORT`: where the sidecar serves as an explicit HTTP proxy; 0 for the mesh's own.
    pub http_proxy_port: u16,
    /// All metadata that `EnvoyFilter` may match (`match.proxy.metadata`): text as it is, anything
    /// else as JSON. `PROXY_CONFIG` is among it.
    pub metadata: BTreeMap<String, String>,
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
    /// The address for "any address": of IPv4, unless the workload has IPv6 alone.
    #[must_use]
    pub fn wildcard(&self) -> IpAddr {
        if self.addresses().any(|ip| ip.is_ipv4()) {
            IpAddr::V4(Ipv4Addr::UNSPECIFIED)
        } else {
            IpAddr::V6(Ipv6Addr::UNSPECIFIED)
        }
    }

    /// "Any address" of IPv6, for a workload that has addresses of both families (Istio's dual stack).
    #[must_use]
    pub fn second_wildcard(&self) -> Option<IpAddr> {
        let is_dual =
            self.addresses().any(|ip| ip.is_ipv4()) && self.addresses().any(|ip| ip.is_ipv6());
        is_dual.then_some(IpAddr::V6(Ipv6Addr::UNSPECIFIED))
    }

    /// The workload's addresses, as far as they are known.
    fn addresses(&self) -> impl Iterator<Item = &IpAddr> {
        self.node.instance_ips.iter().chain([&self.address])
    }
}
