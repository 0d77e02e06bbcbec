//! What NetworkPolicies let each workload do, by address. Pure.
//!
//! In:    the resources: NetworkPolicies, Namespaces, Pods, WorkloadEntries, Gateways.
//! Out:   an [`Isolation`]: for each workload with an address, whom it may call and who may call it.
//! Never: reads a rule as wider than it is: what cannot be resolved is a fault, and allows nothing.
//!
//! The semantics are those of Kubernetes: a workload that a policy of a direction selects may do in
//! that direction what one of its policies allows, and nothing else; others may do everything.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
};

use sluis_nouns::{Cidr, Labels, ObjectName};
use sluis_resources::{
    Fault, Meta, NetworkPeer, NetworkPolicy, NetworkPort, NetworkPortName, NetworkProtocol,
    NetworkRule, Resource, Spec, WorkloadAddress,
};

/// The label that Kubernetes gives each namespace: its name.
const NAMESPACE_NAME: &str = "kubernetes.io/metadata.name";

/// The annotation of a workload whose proxy `sluis up` runs.
const RUN: &str = "sluis.dev/run";

/// All workloads, and what is wrong.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Isolation {
    /// By namespace and name.
    pub workloads: Vec<Isolated>,
    /// What cannot be resolved.
    pub faults: Vec<Fault>,
}

/// One workload.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Isolated {
    /// Its name.
    pub name: ObjectName,
    /// Its addresses.
    pub addresses: Vec<IpAddr>,
    /// Whether it is a gateway of the mesh.
    pub is_gateway: bool,
    /// Whom it may call; `None` means that no policy says.
    pub egress: Option<Vec<Allowed>>,
    /// Who may call it; `None` means that no policy says.
    pub ingress: Option<Vec<Allowed>>,
}

/// One thing that is allowed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Allowed {
    /// The policy that says so, as `namespace/name`.
    pub policy: ObjectName,
    /// The other side; `None` means anybody.
    pub ranges: Option<Vec<Range>>,
    /// The ports; `None` means all, of every protocol.
    pub ports: Option<Vec<PortRange>>,
}

/// Some addresses.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Range {
    /// The addresses.
    pub range: Cidr,
    /// Those of them that are not meant.
    pub except: Vec<Cidr>,
}

/// Some ports of a protocol.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PortRange {
    /// The protocol.
    pub protocol: NetworkProtocol,
    /// The first and the last port.
    pub ports: (u16, u16),
}

/// A workload with what selectors look at.
struct Known<'a> {
    meta: &'a Meta,
    labels: Labels,
    addresses: Vec<IpAddr>,
    ports: BTreeMap<&'a str, u16>,
}

/// What the policies among the resources say of the workloads among them.
#[must_use]
pub fn isolate<'a>(resources: impl IntoIterator<Item = &'a Resource>) -> Isolation {
    let mut world = World::default();
    for resource in resources {
        world.add(resource);
    }
    world.known.sort_by(|a, b| a.meta.name.cmp(&b.meta.name));
    let mut faults = Vec::new();
    let workloads = world.known.iter().map(|one| world.isolated(one, &mut faults)).collect();
    faults.sort_by(|a: &Fault, b: &Fault| a.at.cmp(&b.at));
    faults.dedup();
    Isolation { workloads, faults }
}

/// All that policies speak of.
#[derive(Default)]
struct World<'a> {
    namespaces: BTreeMap<String, Labels>,
    known: Vec<Known<'a>>,
    policies: Vec<(&'a Meta, &'a NetworkPolicy)>,
    gateways: Vec<&'a Labels>,
}

impl<'a> World<'a> {
    fn add(&mut self, resource: &'a Resource) {
        let meta = &resource.meta;
        match &resource.spec {
            Spec::Namespace(_) => {
                self.namespaces.insert(meta.name.name.to_string(), meta.labels.clone());
            }
            Spec::NetworkPolicy(policy) => self.policies.push((meta, policy)),
            Spec::Gateway(gateway) => self.gateways.push(&gateway.selector),
            Spec::WorkloadEntry(entry) => {
                let Some(WorkloadAddress::Ip(address)) = &entry.address else { return };
                let mut labels = meta.labels.clone();
                for (key, value) in entry.labels.iter() {
                    labels.insert(key.clone(), value.clone());
                }
                let ports = entry.ports.iter().map(|(name, port)| (name.as_str(), *port)).collect();
                self.known.push(Known { meta, labels, addresses: vec![*address], ports });
            }
            // A pod on its node's network has no address of its own, and policies do not select it.
            Spec::Pod(pod) if !pod.finished && !pod.host_network && !pod.ips.is_empty() => {
                let named = pod.ports.iter().filter(|port| !port.name.is_empty());
                self.known.push(Known {
                    meta,
                    labels: meta.labels.clone(),
                    addresses: pod.ips.clone(),
                    ports: named.map(|port| (port.name.as_str(), port.port)).collect(),
                });
            }
            _ => {}
        }
    }

    fn namespace_labels(&self, name: &str) -> Labels {
        let mut labels = self.namespaces.get(name).cloned().unwrap_or_default();
        labels.insert(NAMESPACE_NAME, name);
        labels
    }

    fn isolated(&self, one: &Known<'a>, faults: &mut Vec<Fault>) -> Isolated {
        let selecting: Vec<_> = self
            .policies
            .iter()
            .filter(|(meta, policy)| {
                meta.name.namespace == one.meta.name.namespace && policy.pods.matches(&one.labels)
            })
            .collect();
        let mut direction = |rules: fn(&NetworkPolicy) -> Option<&Vec<NetworkRule>>, own| {
            let mut all = None;
            for (meta, policy) in &selecting {
                if let Some(rules) = rules(policy) {
                    let allowed =
                        rules.iter().flat_map(|rule| self.allowed(meta, rule, own, faults));
                    all.get_or_insert_with(Vec::new).extend(allowed);
                }
            }
            all
        };
        let egress = direction(|policy| policy.egress.as_ref(), None);
        let ingress = direction(|policy| policy.ingress.as_ref(), Some(one));
        let is_selected = |labels: &&Labels| !labels.is_empty() && one.labels.matches(labels);
        let run = one.meta.annotations.get(RUN).map(String::as_str);
        Isolated {
            name: one.meta.name.clone(),
            addresses: one.addresses.clone(),
            is_gateway: run == Some("gateway")
                || (run.is_none() && self.gateways.iter().any(is_selected)),
            egress,
            ingress,
        }
    }

    /// What one rule allows. A named port of egress is one of the workload that is called, so that
    /// each may have another number; one of ingress is the selected workload's own.
    fn allowed(
        &self,
        meta: &Meta,
        rule: &NetworkRule,
        own: Option<&Known<'a>>,
        faults: &mut Vec<Fault>,
    ) -> Vec<Allowed> {
        let policy = meta.name.clone();
        let has_names = rule.ports.iter().any(is_named);
        if has_names && own.is_none() {
            return self.by_called_port(meta, rule, faults);
        }
        // A workload without a port of a name: the rule says nothing of it.
        let ports: Vec<PortRange> =
            rule.ports.iter().filter_map(|port| number_of(port, own)).collect();
        if !rule.ports.is_empty() && ports.is_empty() {
            return Vec::new();
        }
        let ports = (!rule.ports.is_empty()).then_some(ports);
        if rule.peers.is_empty() {
            return vec![Allowed { policy, ranges: None, ports }];
        }
        let ranges = rule.peers.iter().flat_map(|peer| self.ranges(meta, peer)).collect();
        vec![Allowed { policy, ranges: Some(ranges), ports }]
    }

    fn by_called_port(
        &self,
        meta: &Meta,
        rule: &NetworkRule,
        faults: &mut Vec<Fault>,
    ) -> Vec<Allowed> {
        let is_open = rule.peers.is_empty();
        if is_open || rule.peers.iter().any(|peer| matches!(peer, NetworkPeer::Block { .. })) {
            let message = "a named port is one of a workload, and addresses alone have no names";
            let fault = Fault::error(rule.at.clone(), message);
            faults.push(fault.of(format!("{} {}", meta.kind, meta.name)).field("ports"));
        }
        let mut all = Vec::new();
        for peer in &rule.peers {
            for called in self.selected(meta, peer) {
                let ports: Vec<PortRange> =
                    rule.ports.iter().filter_map(|port| number_of(port, Some(called))).collect();
                if !ports.is_empty() {
                    let ranges = Some(called.addresses.iter().copied().map(lone).collect());
                    all.push(Allowed { policy: meta.name.clone(), ranges, ports: Some(ports) });
                }
            }
        }
        all
    }

    fn ranges(&self, meta: &Meta, peer: &NetworkPeer) -> Vec<Range> {
        if let NetworkPeer::Block { range, except } = peer {
            return vec![Range { range: *range, except: except.clone() }];
        }
        let selected = self.selected(meta, peer);
        let addresses: BTreeSet<IpAddr> =
            selected.flat_map(|one| one.addresses.iter().copied()).collect();
        addresses.into_iter().map(lone).collect()
    }

    /// The workloads that a peer selects; none for an ipBlock.
    fn selected(&self, meta: &Meta, peer: &NetworkPeer) -> impl Iterator<Item = &Known<'a>> {
        let (namespaces, pods, is_block) = match peer {
            NetworkPeer::Pods { namespaces, pods } => (namespaces.clone(), pods.clone(), false),
            NetworkPeer::Block { .. } => (None, None, true),
        };
        let own = meta.name.namespace.clone();
        self.known.iter().filter(move |one| {
            let home = &one.meta.name.namespace;
            let is_near = match &namespaces {
                Some(selector) => selector.matches(&self.namespace_labels(home)),
                None => *home == own,
            };
            !is_block && is_near && pods.as_ref().is_none_or(|pods| pods.matches(&one.labels))
        })
    }
}

fn lone(address: IpAddr) -> Range {
    Range { range: Cidr::host(address), except: Vec::new() }
}

fn is_named(port: &NetworkPort) -> bool {
    matches!(port.port, Some(NetworkPortName::Name(_)))
}

/// The numbers of a port; `None` when the workload has no port of the name.
fn number_of(port: &NetworkPort, of: Option<&Known<'_>>) -> Option<PortRange> {
    let ports = match &port.port {
        None => (0, u16::MAX),
        Some(NetworkPortName::Number(first)) => (*first, port.end.unwrap_or(*first)),
        Some(NetworkPortName::Name(name)) => {
            let number = *of?.ports.get(name.as_str())?;
            (number, number)
        }
    };
    Some(PortRange { protocol: port.protocol, ports })
}

#[cfg(test)]
mod tests;
