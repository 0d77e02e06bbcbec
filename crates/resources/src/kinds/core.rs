//! The kinds of Kubernetes that the mesh reads: Service, Namespace, Secret, ConfigMap.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::net::IpAddr;

use sluis_nouns::{Labels, SourceRef};
use zeroize::Zeroize as _;

use super::mesh_config::MeshConfig;
use super::shared::Protocol;

/// Kubernetes Service.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Service {
    /// `ports`.
    pub ports: Vec<ServicePort>,
    /// `selector`: the labels of its workloads; empty selects none.
    pub selector: Labels,
    /// `clusterIPs`, or `clusterIP`; empty when headless or not assigned.
    pub cluster_ips: Vec<IpAddr>,
    /// Whether `clusterIP` is `None`.
    pub headless: bool,
    /// `type`.
    pub kind: ServiceType,
    /// `externalName`.
    pub external_name: Option<String>,
    /// `publishNotReadyAddresses`: endpoints get traffic before they are ready.
    pub publishes_not_ready: bool,
    /// Whether `internalTrafficPolicy` is `Local`: clients take endpoints of their own node only.
    pub is_node_local: bool,
    /// `trafficDistribution`.
    pub traffic_distribution: TrafficDistribution,
}

/// `trafficDistribution` of a Service: which endpoints are preferred.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum TrafficDistribution {
    /// None.
    #[default]
    Any,
    /// Those of the client's zone: `PreferSameZone`, and the older `PreferClose`.
    SameZone,
    /// Those of the client's node: `PreferSameNode`.
    SameNode,
}

/// One of a Service's ports.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServicePort {
    /// Place of the list item.
    pub at: SourceRef,
    /// `name`; empty only for a lone port.
    pub name: String,
    /// `port`.
    pub port: u16,
    /// `targetPort`; `port` where nothing is written.
    pub target_port: TargetPort,
    /// What it speaks: by `protocol`, `appProtocol` and the name.
    pub protocol: Protocol,
    /// `appProtocol`, as written.
    pub app_protocol: Option<String>,
}

/// The port of a workload behind a Service.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum TargetPort {
    /// By number.
    Number(u16),
    /// By the name that the workload gives it.
    Name(String),
}

/// `type` of a Service.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum ServiceType {
    /// Reached inside the cluster. The default.
    #[default]
    ClusterIp,
    /// Also on a port of each node.
    NodePort,
    /// Also through a load balancer.
    LoadBalancer,
    /// An alias of another name.
    ExternalName,
}

/// Kubernetes Namespace; its labels are in the resource's meta.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Namespace;

/// Kubernetes Secret. `Debug` prints only the names of its entries.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Secret {
    /// `type`, such as `kubernetes.io/tls`; `Opaque` where nothing is written.
    pub kind: String,
    /// `data` (decoded) and `stringData`.
    pub data: BTreeMap<String, SecretValue>,
}

/// A secret's bytes. Neither `Debug` nor `Display` shows them; they are overwritten when dropped.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct SecretValue(Vec<u8>);

impl SecretValue {
    /// Wraps the bytes.
    pub fn new(bytes: impl Into<Vec<u8>>) -> Self {
        Self(bytes.into())
    }

    /// Returns the bytes, for the one who needs them.
    pub fn expose(&self) -> &[u8] {
        &self.0
    }
}

impl Drop for SecretValue {
    fn drop(&mut self) {
        self.0.zeroize();
    }
}

impl fmt::Debug for SecretValue {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("(secret)")
    }
}

/// Kubernetes ConfigMap.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct ConfigMap {
    /// `data`.
    pub data: BTreeMap<String, String>,
    /// The names under `binaryData`, whose values are not kept.
    pub binary_keys: BTreeSet<String>,
    /// The mesh configuration, when this is the ConfigMap `istio` with the key `mesh`.
    pub mesh: Option<Box<MeshConfig>>,
}

/// Where a workload is reached.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum WorkloadAddress {
    /// An IP address.
    Ip(IpAddr),
    /// A name to be resolved, in lower case.
    Dns(String),
    /// A unix socket: an absolute path, or `@name` for an abstract one.
    Unix(String),
}

impl fmt::Display for WorkloadAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Ip(ip) => write!(f, "{ip}"),
            Self::Dns(name) => f.write_str(name),
            Self::Unix(path) => write!(f, "unix://{path}"),
        }
    }
}
