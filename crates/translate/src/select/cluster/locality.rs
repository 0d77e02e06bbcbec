//! Endpoints by locality, with the priorities and weights that one client sees.
//!
//! In:    the endpoints of a cluster, the client's locality and labels, Istio's `localityLbSetting`.
//! Out:   [`LocalityInput`]s in order of locality.
//! Never: sends traffic past a locality that is healthy: priorities have no gaps.

use std::collections::BTreeMap;

use sluis_model::{EndpointAddress, Health, Locality, ServiceEndpoint};
use sluis_resources::{LocalityFailover, LocalitySetting};

use super::client::Client;
use crate::{EndpointHealth, EndpointInput, LocalityInput};

/// Distances with a meaning: the same sub-zone to another region (0 to 3), and a region that
/// `failover` does not name (4).
const DISTANCES: u32 = 5;

impl Client<'_> {
    /// The endpoints by locality. Failover needs outlier detection: without it no endpoint is ever
    /// seen to fail, so that all share the first priority (as in Istio).
    pub(super) fn localities(
        &self,
        endpoints: &[&ServiceEndpoint],
        setting: Option<&LocalitySetting>,
        fails_over: bool,
        takes_mesh_tls: impl Fn(&ServiceEndpoint) -> bool,
    ) -> Vec<LocalityInput> {
        let mut groups: BTreeMap<&Locality, Vec<&ServiceEndpoint>> = BTreeMap::new();
        for endpoint in endpoints {
            groups.entry(&endpoint.locality).or_default().push(endpoint);
        }
        let mut groups: Vec<Group<'_>> = groups
            .into_iter()
            .map(|(locality, endpoints)| Group::new(locality, endpoints))
            .collect();
        match setting {
            Some(setting) if !setting.distribute.is_empty() => {
                self.distribute(&mut groups, setting);
            }
            Some(setting) if fails_over => {
                if setting.failover_priority.is_empty() {
                    self.fail_over(&mut groups, &setting.failover);
                } else {
                    groups = self.by_labels(groups, &setting.failover_priority);
                    if !setting.failover.is_empty() {
                        self.fail_over(&mut groups, &setting.failover);
                    }
                }
                close_gaps(&mut groups);
            }
            _ => {}
        }
        groups.into_iter().map(|group| group.input(&takes_mesh_tls)).collect()
    }

    /// Shares by locality: those of the first entry that means the client. Localities that it does not
    /// name get nothing.
    fn distribute(&self, groups: &mut Vec<Group<'_>>, setting: &LocalitySetting) {
        let entry = setting.distribute.iter().find(|entry| self.locality.is_meant_by(&entry.from));
        let Some(entry) = entry else { return };
        let mut patterns: Vec<(&String, &u32)> = entry.to.iter().collect();
        // A locality counts for the narrowest pattern that means it.
        patterns.sort_by_key(|(pattern, _)| {
            let parts = pattern.split('/').filter(|part| *part != "*").count();
            (std::cmp::Reverse(parts), (*pattern).clone())
        });
        let mut is_named = vec![false; groups.len()];
        for (pattern, percent) in patterns {
            let meant: Vec<usize> = (0..groups.len())
                .filter(|index| !is_named[*index] && groups[*index].locality.is_meant_by(pattern))
                .collect();
            let total: u64 = meant.iter().map(|index| u64::from(groups[*index].weight)).sum();
            for index in meant {
                is_named[index] = true;
                let share = u64::from(groups[index].weight) * u64::from(*percent);
                let share = share.div_ceil(total.max(1));
                groups[index].weight = u32::try_from(share).unwrap_or(u32::MAX);
            }
        }
        let mut is_named = is_named.into_iter();
        groups.retain(|group| is_named.next() == Some(true) && group.weight > 0);
    }

    /// Priorities by distance from the client; `failover` says to which region a region's traffic goes
    /// before all others.
    fn fail_over(&self, groups: &mut [Group<'_>], failover: &[LocalityFailover]) {
        for group in groups {
            let mut distance = self.locality.distance(group.locality);
            let named = failover.iter().find(|entry| entry.from == self.locality.region);
            if distance == 3 && named.is_some_and(|entry| entry.to != group.locality.region) {
                distance = 4;
            }
            group.priority = group.priority * DISTANCES + distance;
        }
    }

    /// Priorities by labels: the more of the first labels an endpoint shares with the client, the
    /// sooner it is tried. An entry `label=value` stands for a client with that value.
    fn by_labels<'a>(&self, groups: Vec<Group<'a>>, labels: &[String]) -> Vec<Group<'a>> {
        let wanted: Vec<(&str, Option<&str>)> = labels
            .iter()
            .map(|entry| match entry.split_once('=') {
                Some((label, value)) => (label, Some(value)),
                None => (entry.as_str(), self.labels.get(entry)),
            })
            .collect();
        let priority = |endpoint: &ServiceEndpoint| {
            let differs = |(label, value): &(&str, Option<&str>)| {
                value.unwrap_or_default() != endpoint.labels.get(label).unwrap_or_default()
            };
            let shared = wanted.iter().position(differs).unwrap_or(wanted.len());
            u32::try_from(wanted.len() - shared).unwrap_or(u32::MAX)
        };
        let mut split = Vec::new();
        for group in groups {
            let mut parts: BTreeMap<u32, Vec<&ServiceEndpoint>> = BTreeMap::new();
            for endpoint in group.endpoints {
                parts.entry(priority(endpoint)).or_default().push(endpoint);
            }
            split.extend(parts.into_iter().map(|(priority, endpoints)| Group {
                priority,
                ..Group::new(group.locality, endpoints)
            }));
        }
        split
    }
}

/// The endpoints of one locality, as they are looked at.
struct Group<'a> {
    locality: &'a Locality,
    endpoints: Vec<&'a ServiceEndpoint>,
    weight: u32,
    priority: u32,
}

impl<'a> Group<'a> {
    fn new(locality: &'a Locality, endpoints: Vec<&'a ServiceEndpoint>) -> Self {
        let weight = endpoints.iter().fold(0, |sum: u32, one| sum.saturating_add(one.weight));
        Self { locality, endpoints, weight, priority: 0 }
    }

    fn input(self, takes_mesh_tls: &impl Fn(&ServiceEndpoint) -> bool) -> LocalityInput {
        let Locality { region, zone, sub_zone } = self.locality.clone();
        LocalityInput {
            place: [region, zone, sub_zone],
            weight: self.weight,
            priority: self.priority,
            endpoints: self
                .endpoints
                .into_iter()
                .map(|one| endpoint(one, takes_mesh_tls(one)))
                .collect(),
        }
    }
}

/// Envoy wants priorities without gaps, from 0.
fn close_gaps(groups: &mut [Group<'_>]) {
    let mut known: Vec<u32> = groups.iter().map(|group| group.priority).collect();
    known.sort_unstable();
    known.dedup();
    for group in groups {
        let place = known.binary_search(&group.priority).unwrap_or_default();
        group.priority = u32::try_from(place).unwrap_or(u32::MAX);
    }
}

fn endpoint(one: &ServiceEndpoint, takes_mesh_tls: bool) -> EndpointInput {
    let (address, port) = match &one.address {
        EndpointAddress::Ip(ip) => (ip.to_string(), Some(one.port)),
        EndpointAddress::Dns(name) => (name.clone(), Some(one.port)),
        EndpointAddress::Unix(path) => (path.clone(), None),
    };
    let health = match one.health {
        Health::Unknown => EndpointHealth::Unknown,
        Health::Healthy => EndpointHealth::Healthy,
        Health::Unhealthy => EndpointHealth::Unhealthy,
        Health::Draining => EndpointHealth::Draining,
    };
    EndpointInput {
        address,
        port,
        weight: one.weight,
        health,
        takes_mesh_tls,
        workload: workload(one),
    }
}

/// Istio's short form of who an endpoint is: name, namespace, canonical service, its revision, and the
/// cluster.
fn workload(one: &ServiceEndpoint) -> String {
    let label = |keys: &[&str]| keys.iter().find_map(|key| one.labels.get(key));
    let name = &one.workload.name;
    let service = ["service.istio.io/canonical-name", "app.kubernetes.io/name", "app"];
    let revision = ["service.istio.io/canonical-revision", "app.kubernetes.io/version", "version"];
    let service = label(&service).unwrap_or(name);
    let revision = label(&revision).filter(|revision| *revision != "latest").unwrap_or_default();
    format!("{name};{};{service};{revision};", one.workload.namespace)
}
