//! Which proxies are told the same: a sidecar's view, reduced to what its outbound side can depend on.
//!
//! In:    a snapshot, once; then views.
//! Out:   a class: the view with everything taken out that nothing in the snapshot reads.
//! Never: affects what is selected: [`select_part`] is given the class in place of the view, so it
//!        cannot depend on what the class leaves out.
//!
//! Thousands of sidecars of one namespace differ in name, address, account and a label or two; they
//! reach the same services in the same way. What they receive is their own, and small.
//!
//! [`select_part`]: crate::select_part

use std::{
    collections::BTreeSet,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
};

use sluis_model::{EndpointAddress, GATEWAY_NAME_LABEL, Locality, ServiceSource, Snapshot};
use sluis_nouns::{Labels, ObjectName, WorkloadId};
use sluis_resources::{
    AuthorizationPolicy, ConditionKey, LoadBalancer, PolicyTarget, Resource, Spec,
    TrafficDistribution, TrafficPolicy,
};

use crate::{NodeFacts, ProxyView, Role, select::NEAR};

/// The name and account in a class: nothing reads them.
const ANYONE: &str = "anyone";

/// What the objects of a snapshot read of the proxies that they concern.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Readers {
    /// Keys of labels that some selector looks at.
    labels: BTreeSet<String>,
    /// Some load balancing looks at labels that it names as it likes.
    reads_all_labels: bool,
    /// Some service prefers, or takes only, endpoints of the client's own node.
    reads_nodes: bool,
    /// Keys of node metadata that some `EnvoyFilter` matches.
    metadata: BTreeSet<String>,
    /// Some `EnvoyFilter` matches Istio's version.
    reads_version: bool,
    /// Addresses at which clients of headless services ask for one endpoint: a proxy has no listener
    /// for its own.
    headless: BTreeSet<IpAddr>,
    /// Some policy on an external host looks at the client's identity.
    reads_identity: bool,
    /// Some policy on an external host looks at the client's address.
    reads_address: bool,
}

impl Readers {
    /// What the objects of a snapshot read.
    #[must_use]
    pub fn of(snapshot: &Snapshot) -> Self {
        let mut readers = Self::default();
        for resource in snapshot.resources() {
            readers.add(resource);
        }
        let of_mesh = snapshot.mesh().locality_lb_setting.as_ref();
        readers.reads_all_labels |= of_mesh.is_some_and(|set| !set.failover_priority.is_empty());
        for service in snapshot.all_services() {
            let distribution = service.traffic_distribution;
            readers.reads_nodes |=
                service.is_node_local || distribution == TrafficDistribution::SameNode;
            if distribution != TrafficDistribution::Any {
                readers.labels.extend(NEAR.map(str::to_owned));
            }
        }
        for (policy, _) in snapshot.guards() {
            readers.add_guard(policy.spec());
        }
        let headless = snapshot
            .all_services()
            .filter(|service| service.is_headless && service.source == ServiceSource::Platform);
        for service in headless {
            for port in &service.ports {
                readers.headless.extend(snapshot.endpoints(service, port).iter().filter_map(
                    |endpoint| match endpoint.address {
                        EndpointAddress::Ip(ip) => Some(ip),
                        EndpointAddress::Dns(_) | EndpointAddress::Unix(_) => None,
                    },
                ));
            }
        }
        readers
    }

    /// Whether two sidecars are told the same about what they may reach: their classes are equal then.
    #[must_use]
    pub fn class(&self, view: &ProxyView, snapshot: &Snapshot) -> ProxyView {
        let namespace = &view.name.namespace;
        let told = Locality::of(&view.node.locality);
        let locality = if told.is_empty() { snapshot.locality(&view.name) } else { told };
        let is_read = |key: &str| self.reads_all_labels || self.labels.contains(key);
        let labels: Labels = view.labels.iter().filter(|(key, _)| is_read(key)).collect();
        let metadata = &view.node.metadata;
        ProxyView {
            name: ObjectName::new(namespace.clone(), ANYONE),
            id: self.id(view),
            address: self.address(view),
            labels,
            role: view.role,
            capture: view.capture.clone(),
            dns: view.dns,
            node: NodeFacts {
                is_grpc: view.node.is_grpc,
                has_alpn_filter: view.node.has_alpn_filter,
                is_ours: view.node.is_ours,
                istio_version: if self.reads_version {
                    view.node.istio_version.clone()
                } else {
                    String::new()
                },
                cluster_id: view.node.cluster_id.clone(),
                network: view.node.network.clone(),
                locality: locality.to_string(),
                node_name: if self.reads_nodes { node_name(view, snapshot) } else { String::new() },
                instance_ips: if self.reads_address {
                    view.node.instance_ips.clone()
                } else {
                    families(view)
                },
                is_transparent: view.node.is_transparent,
                http_proxy_port: view.node.http_proxy_port,
                metadata: metadata
                    .iter()
                    .filter(|(key, _)| self.metadata.contains(*key))
                    .map(|(key, value)| (key.clone(), value.clone()))
                    .collect(),
            },
        }
    }

    /// The address as far as it matters: its family, and itself where a headless service has it.
    fn address(&self, view: &ProxyView) -> IpAddr {
        if self.reads_address || self.headless.contains(&view.address) {
            return view.address;
        }
        let mut all = view.node.instance_ips.iter().chain([&view.address]);
        if all.all(IpAddr::is_ipv6) {
            IpAddr::V6(Ipv6Addr::UNSPECIFIED)
        } else {
            IpAddr::V4(Ipv4Addr::UNSPECIFIED)
        }
    }

    /// The identity, as far as a policy looks at it.
    fn id(&self, view: &ProxyView) -> WorkloadId {
        if self.reads_identity {
            return view.id.clone();
        }
        WorkloadId::new(view.id.trust_domain().clone(), &view.name.namespace, ANYONE)
            .unwrap_or_else(|_| view.id.clone())
    }

    fn add_guard(&mut self, policy: &AuthorizationPolicy) {
        for rule in &policy.rules {
            for source in &rule.from {
                self.reads_identity |= !(source.principals.is_empty()
                    && source.service_accounts.is_empty()
                    && source.namespaces.is_empty()
                    && source.trust_domains.is_empty());
                self.reads_address |=
                    !(source.ip_blocks.is_empty() && source.remote_ip_blocks.is_empty());
            }
            for condition in &rule.when {
                match condition.key {
                    ConditionKey::SourcePrincipal
                    | ConditionKey::SourceServiceAccount
                    | ConditionKey::SourceNamespace
                    | ConditionKey::SourceTrustDomain => self.reads_identity = true,
                    ConditionKey::SourceIp | ConditionKey::RemoteIp => self.reads_address = true,
                    _ => {}
                }
            }
        }
    }

    fn add(&mut self, resource: &Resource) {
        match &resource.spec {
            Spec::DestinationRule(rule) => {
                self.add_labels(rule.workload_selector.as_ref());
                let of_subsets = rule.subsets.iter().filter_map(|one| one.traffic_policy.as_ref());
                let mut policies = rule.traffic_policy.iter().chain(of_subsets);
                self.reads_all_labels |= policies.any(reads_labels);
            }
            Spec::Telemetry(telemetry) => match &telemetry.target {
                PolicyTarget::Labels(labels) => self.add_labels(Some(labels)),
                PolicyTarget::Objects(_) => drop(self.labels.insert(GATEWAY_NAME_LABEL.to_owned())),
                PolicyTarget::Namespace => {}
            },
            Spec::Sidecar(sidecar) => self.add_labels(sidecar.workload_selector.as_ref()),
            Spec::EnvoyFilter(filter) => {
                self.add_labels(filter.workload_selector.as_ref());
                for proxy in filter.patches.iter().filter_map(|patch| patch.proxy.as_ref()) {
                    self.reads_version |= proxy.proxy_version.is_some();
                    self.metadata.extend(proxy.metadata.keys().cloned());
                }
            }
            Spec::VirtualService(service) => {
                let http = service.http.iter().flat_map(|route| &route.matches);
                let tls = service.tls.iter().flat_map(|route| &route.matches);
                let tcp = service.tcp.iter().flat_map(|route| &route.matches);
                let all = http.map(|wanted| &wanted.source_labels);
                let all = all.chain(tls.map(|wanted| &wanted.source_labels));
                for labels in all.chain(tcp.map(|wanted| &wanted.source_labels)) {
                    self.add_labels(Some(labels));
                }
            }
            _ => {}
        }
    }

    fn add_labels(&mut self, selector: Option<&Labels>) {
        self.labels.extend(selector.into_iter().flatten().map(|(key, _)| key.clone()));
    }
}

/// Whether a view is of a proxy that is told in parts: what it may reach by its class, and what it
/// receives by itself. Patches look at the whole.
#[must_use]
pub fn is_told_in_parts(view: &ProxyView, snapshot: &Snapshot) -> bool {
    view.role == Role::Sidecar
        && !view.node.is_grpc
        && snapshot.envoy_filters(&view.name.namespace, &view.labels).next().is_none()
}

/// The node that a proxy runs on.
fn node_name(view: &ProxyView, snapshot: &Snapshot) -> String {
    match view.node.node_name.as_str() {
        "" => snapshot.node_of(&view.name).to_string(),
        told => told.to_owned(),
    }
}

/// The families of a proxy's addresses, where it has both.
fn families(view: &ProxyView) -> Vec<IpAddr> {
    let all = || view.node.instance_ips.iter().chain([&view.address]);
    if all().any(IpAddr::is_ipv4) && all().any(IpAddr::is_ipv6) {
        vec![IpAddr::V4(Ipv4Addr::UNSPECIFIED), IpAddr::V6(Ipv6Addr::UNSPECIFIED)]
    } else {
        Vec::new()
    }
}

fn reads_labels(policy: &TrafficPolicy) -> bool {
    let of_ports = policy.port_level.iter().filter_map(|port| port.load_balancer.as_ref());
    let mut all = policy.load_balancer.iter().chain(of_ports);
    all.any(|lb: &LoadBalancer| {
        lb.locality.as_ref().is_some_and(|setting| !setting.failover_priority.is_empty())
    })
}

#[cfg(test)]
mod tests;
