//! Which VirtualServices speak for a host.
//!
//! In:    the VirtualServices that a sidecar sees, in order of precedence.
//! Out:   those for one host, by name or by wildcard.
//! Never: looks at what their routes say.

use std::collections::BTreeMap;

use sluis_model::{Owned, SERVICE_DOMAIN};
use sluis_nouns::HostPattern;
use sluis_resources::VirtualService;

/// VirtualServices by the hosts that they speak for.
pub(super) struct Speakers<'a> {
    /// In order of precedence.
    pub(super) all: &'a [Owned<VirtualService>],
    /// The hosts of each, in full.
    pub(super) hosts: Vec<Vec<HostPattern>>,
    exact: BTreeMap<HostPattern, Vec<usize>>,
    wildcards: BTreeMap<HostPattern, Vec<usize>>,
}

impl<'a> Speakers<'a> {
    pub(super) fn new(all: &'a [Owned<VirtualService>]) -> Self {
        let in_full = |owned: &Owned<VirtualService>| -> Vec<HostPattern> {
            let namespace = &owned.meta().name.namespace;
            let hosts = owned.spec().hosts.iter();
            hosts.map(|host| host.qualified(namespace, SERVICE_DOMAIN)).collect()
        };
        let hosts: Vec<Vec<HostPattern>> = all.iter().map(in_full).collect();
        let (mut exact, mut wildcards) = (BTreeMap::new(), BTreeMap::new());
        for (index, host) in
            hosts.iter().enumerate().flat_map(|(i, all)| all.iter().map(move |h| (i, h)))
        {
            let map: &mut BTreeMap<HostPattern, Vec<usize>> =
                if host.is_wildcard() { &mut wildcards } else { &mut exact };
            map.entry(host.clone()).or_default().push(index);
        }
        Self { all, hosts, exact, wildcards }
    }

    /// The candidates for the HTTP routes of a service, the first that has routes wins: those that
    /// name the host, else the oldest of the most specific wildcard.
    pub(super) fn for_routes(&self, host: &HostPattern) -> Vec<usize> {
        if let Some(named) = self.exact.get(host) {
            return named.clone();
        }
        let mut covering: Vec<_> =
            self.wildcards.iter().filter(|(pattern, _)| pattern.covers(host)).collect();
        covering.sort_by(|(a, _), (b, _)| a.by_specificity(b));
        covering.first().and_then(|(_, all)| all.first()).copied().into_iter().collect()
    }

    /// Those with routes for the connections of a service, in order of precedence: every one of which
    /// a host and the service's overlap.
    pub(super) fn for_chains(&self, host: &HostPattern) -> Vec<usize> {
        let wild = self.wildcards.iter().filter(|(pattern, _)| pattern.overlaps(host));
        let named = self.exact.iter().filter(|(name, _)| host.covers(name));
        let mut found: Vec<usize> = if host.is_wildcard() {
            named.chain(wild).flat_map(|(_, all)| all).copied().collect()
        } else {
            let named = self.exact.get(host).into_iter().flatten();
            named.chain(wild.flat_map(|(_, all)| all)).copied().collect()
        };
        found.sort_unstable();
        found.dedup();
        found
    }
}
