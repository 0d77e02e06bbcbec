//! Where the workloads of a Kubernetes cluster are: EndpointSlices, Pods and Nodes.
//!
//! In:    the slices of a Service, or the Pods that it selects where there is no slice.
//! Out:   [`ServiceEndpoint`]s with the locality, identity and health that the cluster knows.
//! Never: takes an endpoint that is about to go, or one that is not ready unless the Service asks for
//!        such.

use std::{
    collections::{BTreeMap, HashMap},
    net::IpAddr,
    sync::Arc,
};

use sluis_nouns::{Labels, ObjectName};
use sluis_resources::{EndpointSlice, Node, Pod, SliceEndpoint, WorkloadAddress};

use crate::{
    EndpointAddress, Health, LeftOut, Locality, MeshPort, MeshService, Owned, PortTarget,
    ServiceEndpoint, ServiceSource, Snapshot,
    endpoint::{TLS_MODE_LABEL, label_locality, placed},
};

/// The label of the network that a pod is in.
const NETWORK_LABEL: &str = "topology.istio.io/network";

/// The label by which a deployment's pods know their generation; it is a part of their name.
const TEMPLATE_HASH_LABEL: &str = "pod-template-hash";

/// The workloads of a cluster.
#[derive(Clone, Debug, Default)]
pub(crate) struct Platform {
    /// By namespace and name of the Service.
    pub(crate) slices: BTreeMap<ObjectName, Vec<Owned<EndpointSlice>>>,
    pub(crate) pods: BTreeMap<ObjectName, Owned<Pod>>,
    /// The labels of the nodes, by name.
    pub(crate) nodes: HashMap<Arc<str>, Labels>,
}

impl Platform {
    /// Whether any pod of a namespace is known.
    fn knows_pods(&self, namespace: &Arc<str>) -> bool {
        let first = ObjectName::new(Arc::clone(namespace), "");
        self.pods.range(first..).next().is_some_and(|(name, _)| name.namespace == *namespace)
    }
}

impl Snapshot {
    /// The endpoints that the cluster knows of a service's port.
    pub(crate) fn platform_endpoints(
        &self,
        service: &MeshService,
        port: &MeshPort,
    ) -> Vec<ServiceEndpoint> {
        let platform = &self.index().platform;
        let slices = platform.slices.get(&service.object);
        match slices.filter(|_| service.source == ServiceSource::Platform) {
            Some(slices) => {
                slices.iter().flat_map(|slice| self.of_slice(service, port, slice)).collect()
            }
            None => self
                .selected_pods(service)
                .filter(|pod| pod.spec().ready || service.publishes_not_ready)
                .flat_map(|pod| {
                    let number = port_of(service, port, pod.spec());
                    let place = self.place(pod);
                    let health = if pod.spec().ready { Health::Healthy } else { Health::Unhealthy };
                    number.into_iter().flat_map(move |number| {
                        let place = place.clone();
                        // One endpoint for each pod: a second address is another way to the same.
                        let address = pod.spec().ips.first().copied().map(EndpointAddress::Ip);
                        address.map(|address| place.endpoint(address, number, health))
                    })
                })
                .collect(),
        }
    }

    /// The pods that a service selects and that lack the port by its name.
    pub(crate) fn pods_left_out(&self, service: &MeshService, port: &MeshPort) -> Vec<LeftOut> {
        if self.index().platform.slices.contains_key(&service.object) {
            return Vec::new();
        }
        self.selected_pods(service)
            .filter(|pod| port_of(service, port, pod.spec()).is_none())
            .map(|pod| LeftOut {
                at: pod.meta().at.clone(),
                resource: pod.resource.key().to_string(),
                why: format!(
                    "it has no port of the name that {}:{} leads to: no traffic",
                    service.host, port.number
                ),
            })
            .collect()
    }

    /// The pods that a service selects, in order of name.
    fn selected_pods<'a>(
        &'a self,
        service: &'a MeshService,
    ) -> impl Iterator<Item = &'a Owned<Pod>> {
        let namespace = Arc::clone(&service.object.namespace);
        let first = ObjectName::new(Arc::clone(&namespace), "");
        service.selector.iter().flat_map(move |selector| {
            let namespace = Arc::clone(&namespace);
            self.index()
                .platform
                .pods
                .range(first.clone()..)
                .take_while(move |(name, _)| name.namespace == namespace)
                .map(|(_, pod)| pod)
                .filter(move |pod| !pod.spec().finished && pod.meta().labels.matches(selector))
        })
    }

    fn of_slice(
        &self,
        service: &MeshService,
        port: &MeshPort,
        slice: &Owned<EndpointSlice>,
    ) -> Vec<ServiceEndpoint> {
        let ports = slice.spec().ports.iter();
        let numbers: Vec<u16> = ports
            .filter(|own| own.is_tcp && own.name == port.name)
            .map(|own| own.port.unwrap_or(port.number))
            .collect();
        let platform = &self.index().platform;
        let knows_pods = platform.knows_pods(&slice.meta().name.namespace);
        let mut found = Vec::new();
        for endpoint in &slice.spec().endpoints {
            let Some(health) = health(service, endpoint) else { continue };
            let pod = endpoint.pod.as_ref().and_then(|name| {
                let namespace = Arc::clone(&slice.meta().name.namespace);
                platform.pods.get(&ObjectName::new(namespace, name.as_str()))
            });
            // The pod of an endpoint tells its identity. Where a namespace's pods are known at all, one
            // that is not known yet will be: until then nothing is sent to it, as in Istio.
            if pod.is_none() && endpoint.pod.is_some() && knows_pods {
                continue;
            }
            let place = match pod {
                Some(pod) => self.place(pod),
                None => self.place_of(slice, endpoint),
            };
            for address in &endpoint.addresses {
                let WorkloadAddress::Ip(ip) = address else { continue };
                for number in &numbers {
                    let address = EndpointAddress::Ip(*ip);
                    found.push(place.clone().endpoint(address, *number, health));
                }
            }
        }
        found
    }

    fn place(&self, pod: &Owned<Pod>) -> Place {
        let (meta, spec) = (pod.meta(), pod.spec());
        let node = spec.node.clone().unwrap_or_default();
        let locality = label_locality(&meta.labels).unwrap_or_else(|| self.of_node(&node));
        let network = meta.labels.get(NETWORK_LABEL).unwrap_or_default().to_owned();
        let hostname = spec
            .subdomain
            .as_ref()
            .map(|_| spec.hostname.clone().unwrap_or_else(|| meta.name.name.to_string()));
        Place {
            labels: Arc::new(placed(meta.labels.clone(), &locality, &network, &node)),
            account: Some((Arc::clone(&meta.name.namespace), spec.service_account.clone())),
            takes_mesh_tls: meta.labels.get(TLS_MODE_LABEL) == Some("istio"),
            workload: ObjectName::new(
                Arc::clone(&meta.name.namespace),
                workload_name(&meta.name.name, &meta.labels),
            ),
            locality,
            network,
            node: node.into(),
            hostname,
        }
    }

    /// What is known of an endpoint that is no pod.
    fn place_of(&self, slice: &Owned<EndpointSlice>, endpoint: &SliceEndpoint) -> Place {
        let node = endpoint.node.clone().unwrap_or_default();
        let mut locality = self.of_node(&node);
        if let Some(zone) = endpoint.zone.as_ref().filter(|_| locality.zone.is_empty()) {
            locality.zone.clone_from(zone);
        }
        let name = endpoint.pod.as_deref().unwrap_or(&slice.meta().name.name);
        Place {
            labels: Arc::new(placed(Labels::new(), &locality, "", &node)),
            account: None,
            takes_mesh_tls: false,
            workload: ObjectName::new(Arc::clone(&slice.meta().name.namespace), name),
            locality,
            network: String::new(),
            node: node.into(),
            hostname: endpoint.hostname.clone(),
        }
    }

    fn of_node(&self, node: &str) -> Locality {
        let Some(labels) = self.index().platform.nodes.get(node) else {
            return Locality::default();
        };
        let first = |keys: &[&str]| {
            keys.iter().find_map(|key| labels.get(key)).unwrap_or_default().to_owned()
        };
        Locality {
            region: first(&Node::REGION),
            zone: first(&Node::ZONE),
            sub_zone: first(&[Node::SUB_ZONE]),
        }
    }

    /// Where a pod stands, and the node that it runs on.
    pub(crate) fn pod_place(&self, name: &ObjectName) -> Option<(Locality, Arc<str>)> {
        let place = self.place(self.index().platform.pods.get(name)?);
        Some((place.locality, place.node))
    }

    /// A pod, by name.
    #[must_use]
    pub fn pod(&self, name: &ObjectName) -> Option<&Owned<Pod>> {
        self.index().platform.pods.get(name)
    }

    /// The port of one workload (a pod or a `WorkloadEntry`) behind a service's port; `None` when it
    /// lacks the name that the service leads to.
    #[must_use]
    pub fn own_port(
        &self,
        workload: &ObjectName,
        service: &MeshService,
        port: &MeshPort,
    ) -> Option<u16> {
        match (self.pod(workload), self.workload(workload)) {
            (Some(pod), _) => port_of(service, port, pod.spec()),
            (None, Some(entry)) => port.on(&entry.spec().ports),
            (None, None) => port.on(&BTreeMap::new()),
        }
    }

    /// The pods, by name.
    pub fn pods(&self) -> impl Iterator<Item = &Owned<Pod>> {
        self.index().platform.pods.values()
    }

    /// The pod that has an address of its own; one that shares its node's is not found by it.
    #[must_use]
    pub fn pod_at(&self, address: IpAddr) -> Option<&Owned<Pod>> {
        self.pods().find(|pod| {
            let spec = pod.spec();
            !spec.finished && !spec.host_network && spec.ips.contains(&address)
        })
    }
}

/// What all endpoints of one workload have in common.
#[derive(Clone)]
struct Place {
    labels: Arc<Labels>,
    account: Option<(Arc<str>, String)>,
    locality: Locality,
    network: String,
    node: Arc<str>,
    workload: ObjectName,
    takes_mesh_tls: bool,
    hostname: Option<String>,
}

impl Place {
    fn endpoint(self, address: EndpointAddress, port: u16, health: Health) -> ServiceEndpoint {
        ServiceEndpoint {
            address,
            port,
            weight: 1,
            labels: self.labels,
            account: self.account,
            locality: self.locality,
            network: self.network,
            node: self.node,
            hostname: self.hostname,
            workload: self.workload,
            takes_mesh_tls: self.takes_mesh_tls,
            health,
        }
    }
}

/// Whether an endpoint of a slice gets traffic, and as what.
fn health(service: &MeshService, endpoint: &SliceEndpoint) -> Option<Health> {
    if endpoint.ready {
        return Some(Health::Healthy);
    }
    if endpoint.terminating {
        let drains = service.keeps_sessions && endpoint.serving;
        return drains.then_some(Health::Draining);
    }
    service.publishes_not_ready.then_some(Health::Unhealthy)
}

/// The port of a pod behind a service's port.
fn port_of(service: &MeshService, port: &MeshPort, pod: &Pod) -> Option<u16> {
    let named = |name: &str| {
        pod.ports.iter().find(|own| own.is_tcp && own.name == name).map(|own| own.port)
    };
    // A ServiceEntry maps by the name of its own port first; a Service by its target alone.
    let own = (service.source == ServiceSource::Entry).then(|| named(&port.name)).flatten();
    own.or_else(|| match &port.target {
        PortTarget::Number(number) => Some(*number),
        PortTarget::Name(name) => named(name),
    })
}

/// The name of the deployment that a pod belongs to, as far as its own name tells.
fn workload_name(pod: &str, labels: &Labels) -> String {
    let deployment = labels.get(TEMPLATE_HASH_LABEL).and_then(|hash| {
        let (rest, _) = pod.rsplit_once('-')?;
        rest.strip_suffix(hash)?.strip_suffix('-')
    });
    deployment.unwrap_or(pod).to_owned()
}
