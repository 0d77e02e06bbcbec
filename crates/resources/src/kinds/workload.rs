//! Where the workloads of a cluster are: EndpointSlice, Pod and Node of Kubernetes, as far as they bear
//! on traffic.

use std::net::IpAddr;

use super::core::WorkloadAddress;

/// `discovery.k8s.io/v1` EndpointSlice: some endpoints of one Service.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct EndpointSlice {
    /// Label `kubernetes.io/service-name`: the Service, in the same namespace. `None` for a slice
    /// that belongs to none, which bears on nothing.
    pub service: Option<String>,
    /// `endpoints`, in the order written.
    pub endpoints: Vec<SliceEndpoint>,
    /// `ports` of all the endpoints.
    pub ports: Vec<SlicePort>,
}

/// One of `endpoints`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SliceEndpoint {
    /// `addresses`, of the slice's address type. At least one; they are one endpoint.
    pub addresses: Vec<WorkloadAddress>,
    /// `conditions.ready`; true where nothing is written.
    pub ready: bool,
    /// `conditions.serving`; as `ready` where nothing is written.
    pub serving: bool,
    /// `conditions.terminating`; false where nothing is written.
    pub terminating: bool,
    /// `hostname`.
    pub hostname: Option<String>,
    /// `targetRef.name`, when its kind is Pod: a pod of the slice's namespace.
    pub pod: Option<String>,
    /// `nodeName`.
    pub node: Option<String>,
    /// `zone`.
    pub zone: Option<String>,
}

/// One of `ports` of an EndpointSlice.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SlicePort {
    /// `name` of the Service's port; empty for a lone port.
    pub name: String,
    /// `port` of the endpoints; `None` means all ports.
    pub port: Option<u16>,
    /// Whether `protocol` is TCP (the default).
    pub is_tcp: bool,
    /// `appProtocol`.
    pub app_protocol: Option<String>,
}

/// Kubernetes Pod; its labels are in the resource's meta.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Pod {
    /// `status.podIPs`, or `status.podIP`; empty before the pod runs.
    pub ips: Vec<IpAddr>,
    /// `spec.serviceAccountName`; `default` where nothing is written.
    pub service_account: String,
    /// `spec.nodeName`.
    pub node: Option<String>,
    /// `spec.hostname`.
    pub hostname: Option<String>,
    /// `spec.subdomain`: the headless Service that gives the pod a name.
    pub subdomain: Option<String>,
    /// `spec.hostNetwork`.
    pub host_network: bool,
    /// `ports` of all containers (and of init containers that restart), in order.
    pub ports: Vec<ContainerPort>,
    /// Whether condition `Ready` of `status.conditions` is `True`.
    pub ready: bool,
    /// Whether `status.phase` is `Succeeded` or `Failed`: its address may belong to another pod.
    pub finished: bool,
}

/// A port of a container.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ContainerPort {
    /// `name`; empty where nothing is written.
    pub name: String,
    /// `containerPort`.
    pub port: u16,
    /// Whether `protocol` is TCP (the default).
    pub is_tcp: bool,
}

/// Kubernetes Node. Region and zone are labels in the resource's meta: see [`Node::REGION`].
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Node {
    /// `status.addresses` of type `InternalIP`.
    pub internal_ips: Vec<IpAddr>,
    /// `status.addresses` of type `ExternalIP`.
    pub external_ips: Vec<IpAddr>,
}

impl Node {
    /// The labels that name a node's region, the newest first.
    pub const REGION: [&str; 2] =
        ["topology.kubernetes.io/region", "failure-domain.beta.kubernetes.io/region"];
    /// The labels that name a node's zone, the newest first.
    pub const ZONE: [&str; 2] =
        ["topology.kubernetes.io/zone", "failure-domain.beta.kubernetes.io/zone"];
    /// The label that names a node's sub-zone.
    pub const SUB_ZONE: &str = "topology.istio.io/subzone";
}
