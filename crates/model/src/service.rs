//! Services as the mesh sees them, whether a `Service` or a `ServiceEntry` says so.
//!
//! In:    `Service` and `ServiceEntry` objects.
//! Out:   [`MeshService`]s: entries of the same host and namespace merged, host names in full.
//! Never: decides who sees a service; that is the snapshot's part.

use std::{
    collections::BTreeMap,
    net::{Ipv4Addr, Ipv6Addr},
};

use sluis_nouns::{Cidr, HostPattern, Labels, ObjectName, SourceRef};
use sluis_resources::{
    ExportTo, Location, Meta, Protocol, Resolution, Service, ServiceEntry, ServiceType, TargetPort,
    TrafficDistribution, WorkloadAddress, WorkloadEntry,
};

use crate::SERVICE_DOMAIN;

/// The label that turns automatic addresses off.
const AUTO_ADDRESS_LABEL: &str = "networking.istio.io/enable-autoallocate-ip";

/// The label that names the cookie or header of a service's sessions.
const SESSION_LABEL: &str = "istio.io/persistent-session";

/// A service as the mesh sees it.
#[derive(Clone, Debug, PartialEq)]
pub struct MeshService {
    /// The full host name; may be a wildcard for a `ServiceEntry`.
    pub host: HostPattern,
    /// The object that the service comes from; the oldest when several were merged.
    pub object: ObjectName,
    /// Where that object stands.
    pub at: SourceRef,
    /// What kind of object it is.
    pub source: ServiceSource,
    /// The ports, by number.
    pub ports: Vec<MeshPort>,
    /// The addresses that users gave it.
    pub addresses: Vec<Cidr>,
    /// The address out of 240.240.0.0/16 that it gets where names are answered by the proxy.
    pub auto_address: Option<Ipv4Addr>,
    /// The same out of 2001:2::/48, for workloads with IPv6 addresses.
    pub auto_address_v6: Option<Ipv6Addr>,
    /// How endpoints are found.
    pub resolution: Resolution,
    /// Whether it is part of the mesh.
    pub location: Location,
    /// The endpoints that are written down.
    pub endpoints: Vec<WorkloadEntry>,
    /// The labels of its workloads, in its own namespace.
    pub selector: Option<Labels>,
    /// Whether clients get the endpoints' own addresses (`clusterIP: None`).
    pub is_headless: bool,
    /// Whether endpoints get traffic before they are ready.
    pub publishes_not_ready: bool,
    /// Whether endpoints that finish still get the requests of sessions that they have begun (label
    /// `istio.io/persistent-session`).
    pub keeps_sessions: bool,
    /// Whether clients take endpoints of their own node only.
    pub is_node_local: bool,
    /// Which endpoints are preferred.
    pub traffic_distribution: TrafficDistribution,
    /// Who sees it; empty for the mesh-wide default.
    pub export_to: Vec<ExportTo>,
    /// Names one of which the server's certificate must carry.
    pub subject_alt_names: Vec<String>,
    /// Whether it may get an automatic address (label `networking.istio.io/enable-autoallocate-ip`).
    pub wants_auto_address: bool,
    /// When the (oldest) object was made, in seconds since 1970.
    pub created: Option<i64>,
}

/// What kind of object a service comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum ServiceSource {
    /// A `Service` of the platform.
    Platform,
    /// A `ServiceEntry`.
    Entry,
}

/// One port of a service.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MeshPort {
    /// Where it stands.
    pub at: SourceRef,
    /// The number that clients use.
    pub number: u16,
    /// The name, by which endpoints may map it.
    pub name: String,
    /// What it speaks.
    pub protocol: Protocol,
    /// The port of the endpoints, where they do not map it themselves.
    pub target: PortTarget,
}

/// The port of the endpoints behind a service's port.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum PortTarget {
    /// By number.
    Number(u16),
    /// By the name that each workload gives it.
    Name(String),
}

impl MeshService {
    /// The port of that number.
    #[must_use]
    pub fn port(&self, number: u16) -> Option<&MeshPort> {
        self.ports.iter().find(|port| port.number == number)
    }

    /// The namespace of the object.
    #[must_use]
    pub fn namespace(&self) -> &str {
        &self.object.namespace
    }

    /// The service that a platform `Service` stands for.
    pub(crate) fn of_service(meta: &Meta, service: &Service) -> Option<Self> {
        let host = format!("{}.{}.svc.{SERVICE_DOMAIN}", meta.name.name, meta.name.namespace);
        let mut made = Self::empty(meta, host.parse().ok()?, ServiceSource::Platform);
        made.ports = service.ports.iter().map(platform_port).collect();
        made.addresses = service.cluster_ips.iter().copied().map(Cidr::host).collect();
        made.is_headless = service.headless;
        made.publishes_not_ready = service.publishes_not_ready;
        made.is_node_local = service.is_node_local;
        if service.traffic_distribution != TrafficDistribution::Any {
            made.traffic_distribution = service.traffic_distribution;
        }
        made.location = Location::MeshInternal;
        made.export_to = annotated_export(meta);
        match (&service.external_name, service.kind) {
            (Some(name), ServiceType::ExternalName) => {
                made.resolution = Resolution::Dns;
                made.location = Location::MeshExternal;
                made.endpoints = vec![WorkloadEntry {
                    address: Some(WorkloadAddress::Dns(name.clone())),
                    ..WorkloadEntry::default()
                }];
            }
            // Clients take an endpoint's own address, and it must stay.
            _ if service.headless => made.resolution = Resolution::None,
            _ => made.resolution = Resolution::Static,
        }
        made.selector = (!service.selector.is_empty()).then(|| service.selector.clone());
        Some(made)
    }

    /// The services that a `ServiceEntry` stands for, one for each host.
    pub(crate) fn of_entry<'a>(
        meta: &'a Meta,
        entry: &'a ServiceEntry,
    ) -> impl Iterator<Item = Self> + 'a {
        entry.hosts.iter().map(move |host| {
            let mut made = Self::empty(meta, host.clone(), ServiceSource::Entry);
            made.ports = entry
                .ports
                .iter()
                .map(|port| MeshPort {
                    at: port.at.clone(),
                    number: port.number,
                    name: port.name.clone(),
                    protocol: port.protocol,
                    target: PortTarget::Number(port.target_port.unwrap_or(port.number)),
                })
                .collect();
            made.addresses.clone_from(&entry.addresses);
            made.resolution = entry.resolution;
            made.location = entry.location;
            made.endpoints =
                entry.endpoints.iter().map(|endpoint| endpoint.workload.clone()).collect();
            made.selector.clone_from(&entry.workload_selector);
            made.export_to.clone_from(&entry.export_to);
            made.subject_alt_names.clone_from(&entry.subject_alt_names);
            made
        })
    }

    /// Whether another entry of the same host and namespace adds to this one: both `ServiceEntry`s of
    /// one resolution, location and visibility.
    pub(crate) fn can_merge(&self, other: &Self) -> bool {
        self.source == ServiceSource::Entry
            && other.source == ServiceSource::Entry
            && self.resolution == other.resolution
            && self.location == other.location
            && self.export_to == other.export_to
    }

    /// Adds another entry's ports, addresses and endpoints. What is already there wins.
    pub(crate) fn merge(&mut self, other: Self) {
        for port in other.ports {
            if self.port(port.number).is_none() {
                self.ports.push(port);
            }
        }
        extend_new(&mut self.addresses, other.addresses);
        extend_new(&mut self.endpoints, other.endpoints);
        extend_new(&mut self.subject_alt_names, other.subject_alt_names);
        if self.selector.is_none() {
            self.selector = other.selector;
        }
    }

    /// Whether the service gets an address when it has none: never a headless one, nor where the
    /// original address must stay. A wildcard gets one only where names are resolved on demand: all
    /// its names then share it.
    pub(crate) fn wants_address(&self) -> bool {
        self.addresses.is_empty()
            && self.wants_auto_address
            && !self.is_headless
            && self.resolution != Resolution::None
            && (!self.host.is_wildcard() || self.resolution == Resolution::DynamicDns)
    }

    fn empty(meta: &Meta, host: HostPattern, source: ServiceSource) -> Self {
        Self {
            host,
            object: meta.name.clone(),
            at: meta.at.clone(),
            source,
            ports: Vec::new(),
            addresses: Vec::new(),
            auto_address: None,
            auto_address_v6: None,
            wants_auto_address: meta.labels.get(AUTO_ADDRESS_LABEL) != Some("false"),
            resolution: Resolution::None,
            location: Location::MeshExternal,
            endpoints: Vec::new(),
            selector: None,
            is_headless: false,
            publishes_not_ready: false,
            keeps_sessions: meta.labels.get(SESSION_LABEL).is_some_and(|name| !name.is_empty()),
            is_node_local: false,
            traffic_distribution: annotated_distribution(meta),
            export_to: Vec::new(),
            subject_alt_names: Vec::new(),
            created: meta.created,
        }
    }
}

impl MeshPort {
    /// The port of one workload behind this one: its own mapping by name first, then the target.
    /// `None` when the target is a name that the workload does not map.
    #[must_use]
    pub fn on(&self, mapped: &BTreeMap<String, u16>) -> Option<u16> {
        if let Some(port) = mapped.get(&self.name) {
            return Some(*port);
        }
        match &self.target {
            PortTarget::Number(port) => Some(*port),
            PortTarget::Name(name) => mapped.get(name).copied(),
        }
    }
}

fn platform_port(port: &sluis_resources::ServicePort) -> MeshPort {
    let target = match &port.target_port {
        TargetPort::Number(number) => PortTarget::Number(*number),
        TargetPort::Name(name) => PortTarget::Name(name.clone()),
    };
    MeshPort {
        at: port.at.clone(),
        number: port.port,
        name: port.name.clone(),
        protocol: port.protocol,
        target,
    }
}

/// `networking.istio.io/traffic-distribution`, for kinds without the field.
fn annotated_distribution(meta: &Meta) -> TrafficDistribution {
    match meta.annotations.get("networking.istio.io/traffic-distribution").map(String::as_str) {
        Some("PreferClose" | "PreferSameZone") => TrafficDistribution::SameZone,
        Some("PreferSameNode") => TrafficDistribution::SameNode,
        _ => TrafficDistribution::Any,
    }
}

/// `networking.istio.io/exportTo` of a platform `Service`.
fn annotated_export(meta: &Meta) -> Vec<ExportTo> {
    let Some(text) = meta.annotations.get("networking.istio.io/exportTo") else {
        return Vec::new();
    };
    text.split(',')
        .map(|entry| match entry.trim() {
            "*" => ExportTo::All,
            "." => ExportTo::Same,
            "~" => ExportTo::None,
            name => ExportTo::Namespace(name.to_owned()),
        })
        .collect()
}

fn extend_new<T: PartialEq>(list: &mut Vec<T>, more: Vec<T>) {
    for item in more {
        if !list.contains(&item) {
            list.push(item);
        }
    }
}
