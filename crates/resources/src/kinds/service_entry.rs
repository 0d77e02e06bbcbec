//! ServiceEntry and WorkloadEntry: services and workloads that no cluster knows of.

use std::collections::BTreeMap;

use sluis_nouns::{Cidr, HostPattern, Labels, SourceRef};

use super::core::WorkloadAddress;
use super::shared::{ExportTo, Protocol};

/// `networking.istio.io` ServiceEntry.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServiceEntry {
    /// `hosts`. At least one; never `*`.
    pub hosts: Vec<HostPattern>,
    /// `addresses`: the service's virtual addresses.
    pub addresses: Vec<Cidr>,
    /// `ports`, numbers and names unique.
    pub ports: Vec<ServiceEntryPort>,
    /// `location`.
    pub location: Location,
    /// `resolution`.
    pub resolution: Resolution,
    /// `endpoints`.
    pub endpoints: Vec<Endpoint>,
    /// `workloadSelector.labels`: endpoints are the WorkloadEntries (and pods) with these labels.
    pub workload_selector: Option<Labels>,
    /// `exportTo`; empty means the mesh-wide default.
    pub export_to: Vec<ExportTo>,
    /// `subjectAltNames` one of which the server's certificate must carry.
    pub subject_alt_names: Vec<String>,
}

/// One of a ServiceEntry's ports.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServiceEntryPort {
    /// Place of the list item.
    pub at: SourceRef,
    /// `number`, 1 to 65535.
    pub number: u16,
    /// `name`.
    pub name: String,
    /// `protocol`; [`Protocol::Unknown`] where nothing is written.
    pub protocol: Protocol,
    /// `targetPort` of the endpoints; `None` means `number`.
    pub target_port: Option<u16>,
}

/// Whether the service is part of the mesh.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Location {
    /// Outside: no mesh certificates. The default.
    #[default]
    MeshExternal,
    /// Inside.
    MeshInternal,
}

/// How the endpoints of a service are found.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Resolution {
    /// The address that the client connected to. The default.
    #[default]
    None,
    /// The addresses of `endpoints` or of the selected workloads.
    Static,
    /// DNS, all addresses of the answer.
    Dns,
    /// DNS, the first address of the answer for each new connection.
    DnsRoundRobin,
    /// DNS of the name in the request.
    DynamicDns,
}

/// One of a ServiceEntry's endpoints; the fields are those of a [`WorkloadEntry`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Endpoint {
    /// Place of the list item.
    pub at: SourceRef,
    /// What it says.
    pub workload: WorkloadEntry,
}

/// `networking.istio.io` WorkloadEntry: one workload outside of a cluster.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct WorkloadEntry {
    /// `address`; `None` only when `network` is given.
    pub address: Option<WorkloadAddress>,
    /// `ports`: by name of the service's port, the port of the workload.
    pub ports: BTreeMap<String, u16>,
    /// `labels`.
    pub labels: Labels,
    /// `network`.
    pub network: Option<String>,
    /// `locality`, as `region/zone/sub-zone`.
    pub locality: Option<String>,
    /// `weight`; `None` means 1.
    pub weight: Option<u32>,
    /// `serviceAccount`.
    pub service_account: Option<String>,
}
