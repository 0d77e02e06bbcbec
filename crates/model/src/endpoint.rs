//! Endpoints: where the workloads of a service are, and what a client must know of them.
//!
//! In:    the services and workloads of a snapshot.
//! Out:   [`ServiceEndpoint`]s by service and port, computed once for each snapshot.
//! Never: chooses for one client: priorities and weights by locality are the translation's part.

use std::{
    collections::{BTreeSet, HashMap},
    net::IpAddr,
    sync::{Arc, PoisonError, RwLock},
};

use sluis_nouns::{HostPattern, Labels, ObjectName, SourceRef};
use sluis_resources::{Resolution, WorkloadAddress, WorkloadEntry};

use crate::{Locality, MeshPort, MeshService, ServiceSource, Snapshot, Workload};

/// The label by which an endpoint says that a sidecar of the mesh takes its connections.
pub(crate) const TLS_MODE_LABEL: &str = "security.istio.io/tlsMode";

/// The label of a workload's locality, where its `locality` is not written.
const LOCALITY_LABEL: &str = "istio-locality";

/// The labels that every endpoint carries beside its own, so that subsets and `failoverPriority` may
/// name them.
const NETWORK_LABEL: &str = "topology.istio.io/network";
const REGION_LABEL: &str = "topology.kubernetes.io/region";
const ZONE_LABEL: &str = "topology.kubernetes.io/zone";
const SUB_ZONE_LABEL: &str = "topology.istio.io/subzone";
const HOSTNAME_LABEL: &str = "kubernetes.io/hostname";

/// The annotation by which `sluis up` runs a proxy for a workload.
const RUN_ANNOTATION: &str = "sluis.dev/run";

/// The annotation by which that proxy runs in a network namespace, behind a packet filter.
const NETNS_ANNOTATION: &str = "sluis.dev/netns";

/// Istio's annotation that says whether a packet filter redirects connections to the sidecar.
const INTERCEPTION_ANNOTATION: &str = "sidecar.istio.io/interceptionMode";

/// One endpoint of one port.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ServiceEndpoint {
    /// Where it is.
    pub address: EndpointAddress,
    /// The port.
    pub port: u16,
    /// Its share; at least 1.
    pub weight: u32,
    /// Its labels, for subsets: its own, and those that say where it is.
    pub labels: Arc<Labels>,
    /// The namespace and service account that it runs as, for its identity.
    pub account: Option<(Arc<str>, String)>,
    /// Where it stands; empty where nothing is known.
    pub locality: Locality,
    /// The network that it is in; empty where nothing is written.
    pub network: String,
    /// The node that it runs on; empty where none is known.
    pub node: Arc<str>,
    /// The name that it has under its headless service.
    pub hostname: Option<String>,
    /// The workload's namespace and name.
    pub workload: ObjectName,
    /// Whether a sidecar of the mesh takes its connections (`tlsMode: istio`).
    pub takes_mesh_tls: bool,
    /// Whether it may get traffic.
    pub health: Health,
}

/// What the platform says of an endpoint's health.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Health {
    /// Nothing: it is taken as healthy.
    #[default]
    Unknown,
    /// It is ready.
    Healthy,
    /// It is not ready, and still listed (`publishNotReadyAddresses`).
    Unhealthy,
    /// It finishes what it has begun.
    Draining,
}

/// Where an endpoint is.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum EndpointAddress {
    /// At an address.
    Ip(IpAddr),
    /// At whatever a name resolves to.
    Dns(String),
    /// At a unix socket: an absolute path, or `@` and the name of an abstract one.
    Unix(String),
}

/// A workload that a service means and that gets no traffic.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LeftOut {
    /// Where it stands; the service's place for an endpoint that is written there.
    pub at: SourceRef,
    /// The resource, as faults name it.
    pub resource: String,
    /// Why.
    pub why: String,
}

/// The endpoints that were asked for, kept for the life of a snapshot.
#[derive(Debug, Default)]
pub(crate) struct EndpointMemo {
    known: RwLock<HashMap<MemoKey, Found>>,
}

/// The endpoints of a port, and what is left out of them.
#[derive(Clone, Debug)]
struct Found {
    endpoints: Arc<[ServiceEndpoint]>,
    left_out: Arc<[LeftOut]>,
}

/// A service (by host and object, as two of one host need not merge) and a port.
type MemoKey = (HostPattern, ObjectName, u16);

impl EndpointMemo {
    /// What is known of services of other namespaces than these.
    pub(crate) fn outside(&self, namespaces: &BTreeSet<&str>) -> Self {
        let known = self.known.read().unwrap_or_else(PoisonError::into_inner);
        let is_kept = |key: &MemoKey| !namespaces.contains(&*key.1.namespace);
        let kept = known.iter().filter(|(key, _)| is_kept(key));
        Self { known: RwLock::new(kept.map(|(key, all)| (key.clone(), all.clone())).collect()) }
    }

    fn get(&self, service: &MeshService, port: u16, make: impl FnOnce() -> Found) -> Found {
        let key = (service.host.clone(), service.object.clone(), port);
        let known = self.known.read().unwrap_or_else(PoisonError::into_inner);
        if let Some(found) = known.get(&key) {
            return found.clone();
        }
        drop(known);
        // Two may compute the same at once; the first to finish is kept, so all share one.
        let made = make();
        let mut known = self.known.write().unwrap_or_else(PoisonError::into_inner);
        known.entry(key).or_insert(made).clone()
    }
}

impl Snapshot {
    /// The endpoints of one port: written ones and selected workloads. In order of address.
    ///
    /// For [`Resolution::Dns`] without any, the host itself stands in for them. Asked again, the
    /// same snapshot gives the very same list.
    #[must_use]
    pub fn endpoints(&self, service: &MeshService, port: &MeshPort) -> Arc<[ServiceEndpoint]> {
        self.found(service, port).endpoints
    }

    /// The workloads that a service means and that [`Snapshot::endpoints`] leaves out, with the reason.
    #[must_use]
    pub fn left_out(&self, service: &MeshService, port: &MeshPort) -> Arc<[LeftOut]> {
        self.found(service, port).left_out
    }

    fn found(&self, service: &MeshService, port: &MeshPort) -> Found {
        self.index().endpoint_memo.get(service, port.number, || Found {
            endpoints: self.find_endpoints(service, port).into(),
            left_out: self.find_left_out(service, port).into(),
        })
    }

    fn find_endpoints(&self, service: &MeshService, port: &MeshPort) -> Vec<ServiceEndpoint> {
        let namespace = &service.object.namespace;
        let written = service.endpoints.iter().enumerate().map(|(index, entry)| {
            let name = format!("{}-{index}", service.object.name);
            let workload = ObjectName::new(Arc::clone(namespace), name);
            Candidate { entry, labels: entry.labels.clone(), workload, is_run_here: false }
        });
        let selected = self.selected(service).map(|workload| Candidate {
            entry: workload.spec(),
            labels: workload.labels(),
            workload: workload.meta().name.clone(),
            is_run_here: takes_nothing(workload),
        });
        let mut endpoints: Vec<ServiceEndpoint> = written
            .chain(selected)
            .filter(|candidate| trouble(service, candidate.entry, port).is_none())
            .filter_map(|candidate| candidate.endpoint(port))
            .collect();
        endpoints.extend(self.platform_endpoints(service, port));
        let is_dns = matches!(service.resolution, Resolution::Dns | Resolution::DnsRoundRobin);
        if endpoints.is_empty()
            && is_dns
            && service.source == ServiceSource::Entry
            && let Some(host) = service.host.exact()
        {
            let itself = WorkloadEntry {
                address: Some(WorkloadAddress::Dns(host.to_owned())),
                ..WorkloadEntry::default()
            };
            let workload = service.object.clone();
            let labels = Labels::new();
            let itself = Candidate { entry: &itself, labels, workload, is_run_here: false };
            endpoints.extend(itself.endpoint(port));
        }
        endpoints.sort();
        endpoints.dedup();
        endpoints
    }

    fn find_left_out(&self, service: &MeshService, port: &MeshPort) -> Vec<LeftOut> {
        let kind = match service.source {
            ServiceSource::Platform => "Service",
            ServiceSource::Entry => "ServiceEntry",
        };
        let written = service.endpoints.iter().filter_map(|entry| {
            let why = trouble(service, entry, port)?;
            let resource = format!("{kind} {}", service.object);
            Some(LeftOut { at: service.at.clone(), resource, why })
        });
        let selected = self.selected(service).filter_map(|workload| {
            let (why, meta) = (trouble(service, workload.spec(), port)?, workload.meta());
            let resource = workload.resource.key().to_string();
            Some(LeftOut { at: meta.at.clone(), resource, why })
        });
        let mut left_out: Vec<LeftOut> = written.chain(selected).collect();
        left_out.extend(self.pods_left_out(service, port));
        left_out
    }

    /// The workloads that a service selects, in order of name.
    fn selected<'a>(&'a self, service: &'a MeshService) -> impl Iterator<Item = &'a Workload> {
        let namespace = Arc::clone(&service.object.namespace);
        let first = ObjectName::new(Arc::clone(&namespace), "");
        service.selector.iter().flat_map(move |selector| {
            let namespace = Arc::clone(&namespace);
            self.index()
                .workloads
                .range(first.clone()..)
                .take_while(move |(name, _)| name.namespace == namespace)
                .map(|(_, workload)| workload)
                .filter(move |workload| workload.labels().matches(selector))
        })
    }

    /// Where a workload stands, as it is written; empty where nothing is.
    #[must_use]
    pub fn locality(&self, workload: &ObjectName) -> Locality {
        match self.workload(workload) {
            Some(workload) => locality(workload.spec(), &workload.labels()),
            None => self.pod_place(workload).map(|(locality, _)| locality).unwrap_or_default(),
        }
    }

    /// The node that a workload runs on; empty where none is known.
    #[must_use]
    pub fn node_of(&self, workload: &ObjectName) -> Arc<str> {
        self.pod_place(workload).map_or_else(|| "".into(), |(_, node)| node)
    }
}

/// Whether `sluis up` runs the workload's proxy and no packet filter sends it what is received.
fn takes_nothing(workload: &Workload) -> bool {
    let annotations = &workload.meta().annotations;
    let is_filtered = match annotations.get(INTERCEPTION_ANNOTATION) {
        Some(mode) => mode != "NONE",
        None => annotations.contains_key(NETNS_ANNOTATION),
    };
    annotations.contains_key(RUN_ANNOTATION) && !is_filtered
}

/// A workload that may become an endpoint.
struct Candidate<'a> {
    entry: &'a WorkloadEntry,
    labels: Labels,
    workload: ObjectName,
    /// Whether `sluis up` runs its proxy: such a sidecar carries what the workload sends, and takes
    /// no mesh TLS unless a label says so.
    is_run_here: bool,
}

impl Candidate<'_> {
    fn endpoint(self, port: &MeshPort) -> Option<ServiceEndpoint> {
        let address = match self.entry.address.as_ref()? {
            WorkloadAddress::Ip(ip) => EndpointAddress::Ip(*ip),
            WorkloadAddress::Dns(name) => EndpointAddress::Dns(name.clone()),
            WorkloadAddress::Unix(path) => EndpointAddress::Unix(path.clone()),
        };
        let locality = locality(self.entry, &self.labels);
        let network = self.entry.network.clone().unwrap_or_default();
        let account = self.entry.service_account.clone();
        // As Istio: a workload with an identity has a sidecar, unless its label says otherwise.
        let takes_mesh_tls = match self.labels.get(TLS_MODE_LABEL) {
            Some(mode) => mode == "istio",
            None => account.is_some() && !self.is_run_here,
        };
        Some(ServiceEndpoint {
            address,
            port: port.on(&self.entry.ports)?,
            weight: self.entry.weight.unwrap_or(1).max(1),
            labels: Arc::new(placed(self.labels, &locality, &network, "")),
            account: account.map(|account| (Arc::clone(&self.workload.namespace), account)),
            locality,
            network,
            node: "".into(),
            hostname: None,
            workload: self.workload,
            takes_mesh_tls,
            health: Health::Unknown,
        })
    }
}

/// Labels, and beside them those that say where the workload is. What is written wins.
#[must_use]
pub fn placed(mut labels: Labels, locality: &Locality, network: &str, node: &str) -> Labels {
    let places = [
        (REGION_LABEL, locality.region.as_str()),
        (ZONE_LABEL, locality.zone.as_str()),
        (SUB_ZONE_LABEL, locality.sub_zone.as_str()),
        (NETWORK_LABEL, network),
        (HOSTNAME_LABEL, node),
    ];
    for (label, value) in places {
        if !value.is_empty() && labels.get(label).is_none() {
            labels.insert(label, value);
        }
    }
    labels
}

fn locality(entry: &WorkloadEntry, labels: &Labels) -> Locality {
    match &entry.locality {
        Some(written) => Locality::of(written),
        None => label_locality(labels).unwrap_or_default(),
    }
}

/// The locality that a label says. A label's value holds no slash; Istio takes dots in their place.
pub(crate) fn label_locality(labels: &Labels) -> Option<Locality> {
    let text = labels.get(LOCALITY_LABEL)?;
    let slashed = if text.contains('/') { text.to_owned() } else { text.replace('.', "/") };
    Some(Locality::of(&slashed))
}

/// Why a workload gets no traffic of a port.
fn trouble(service: &MeshService, entry: &WorkloadEntry, port: &MeshPort) -> Option<String> {
    let (host, number) = (&service.host, port.number);
    match (&entry.address, service.resolution) {
        (None, _) => Some(format!("without an address it gets no traffic for {host}")),
        (Some(WorkloadAddress::Dns(name)), Resolution::Static) => Some(format!(
            "{name} is a name, and {host} takes addresses only (resolution STATIC): it gets no traffic"
        )),
        (Some(WorkloadAddress::Unix(_)), Resolution::Dns | Resolution::DnsRoundRobin) => {
            Some(format!("a unix socket is not found by DNS: it gets no traffic for {host}"))
        }
        _ if port.on(&entry.ports).is_none() => {
            Some(format!("it has no port of the name that {host}:{number} leads to: no traffic"))
        }
        _ => None,
    }
}
