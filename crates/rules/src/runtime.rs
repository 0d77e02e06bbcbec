//! Everything that one proxy does, as one immutable value.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::{IpAddr, SocketAddr},
    sync::Arc,
};

use sluis_envoy::ResourceSet;

use crate::{
    Address, Cluster, HttpFilterKind, HttpManager, JwtKeys, Listener, Names, RemoteKeys,
    RouteTable, Routes,
};

/// The compiled configuration of a proxy. Parts are shared with the runtime before it: what did
/// not change is the same `Arc`.
#[derive(Clone, Debug, Default)]
pub struct Runtime {
    /// Listeners by name.
    pub listeners: BTreeMap<Arc<str>, Arc<Listener>>,
    /// Clusters by name, with their endpoints.
    pub clusters: BTreeMap<Arc<str>, Arc<Cluster>>,
    /// Route tables by name.
    pub routes: BTreeMap<Arc<str>, Arc<RouteTable>>,
    /// The names that the resolver answers.
    pub names: Arc<Names>,
    /// Listeners by the address that they take over connections of.
    pub(crate) by_address: std::collections::HashMap<SocketAddr, Arc<Listener>>,
    /// What the parts were compiled from; holds only what was accepted.
    pub(crate) sources: ResourceSet,
}

impl Runtime {
    /// The listener that serves a connection which `accepted` took in for `destination`.
    ///
    /// With `use_original_dst` that is the listener of exactly this address and port, else the one
    /// of the port on the wildcard address, else `accepted` itself.
    #[must_use]
    pub fn listener_for<'r>(
        &'r self,
        accepted: &'r Arc<Listener>,
        destination: SocketAddr,
    ) -> &'r Arc<Listener> {
        if !accepted.use_original_dst {
            return accepted;
        }
        let any = match destination.ip() {
            IpAddr::V4(_) => IpAddr::from([0u8; 4]),
            IpAddr::V6(_) => IpAddr::from([0u8; 16]),
        };
        self.by_address
            .get(&destination)
            .or_else(|| self.by_address.get(&SocketAddr::new(any, destination.port())))
            .unwrap_or(accepted)
    }

    /// The route table of an HTTP manager; `None` when it has not arrived.
    #[must_use]
    pub fn routes_of<'r>(&'r self, manager: &'r HttpManager) -> Option<&'r Arc<RouteTable>> {
        match &manager.routes {
            Routes::Inline(table) => Some(table),
            Routes::Named(name) => self.routes.get(name),
        }
    }

    /// A cluster by name.
    #[must_use]
    pub fn cluster(&self, name: &str) -> Option<&Arc<Cluster>> {
        self.clusters.get(name)
    }

    /// The names of the route tables that listeners refer to: what to subscribe to by RDS.
    #[must_use]
    pub fn route_names(&self) -> Vec<Arc<str>> {
        let mut names: Vec<Arc<str>> = self
            .listeners
            .values()
            .flat_map(|listener| listener.chains.iter().chain(&listener.default_chain))
            .filter_map(|chain| match &chain.network {
                crate::Network::Http(manager) => match &manager.routes {
                    Routes::Named(name) => Some(Arc::clone(name)),
                    Routes::Inline(_) => None,
                },
                crate::Network::Tcp(_) => None,
            })
            .collect();
        names.sort_unstable();
        names.dedup();
        names
    }

    /// The names of the endpoint assignments that clusters refer to: what to subscribe to by EDS.
    #[must_use]
    pub fn assignment_names(&self) -> Vec<Arc<str>> {
        let mut names: Vec<Arc<str>> = self
            .clusters
            .values()
            .filter_map(|cluster| match &cluster.discovery {
                crate::Discovery::Eds { service } => Some(Arc::clone(service)),
                _ => None,
            })
            .collect();
        names.sort_unstable();
        names.dedup();
        names
    }

    /// The key sets on servers that filters use.
    #[must_use]
    pub fn remote_keys(&self) -> BTreeSet<Arc<RemoteKeys>> {
        let chains =
            self.listeners.values().flat_map(|all| all.chains.iter().chain(&all.default_chain));
        let managers = chains.filter_map(|chain| match &chain.network {
            crate::Network::Http(manager) => Some(manager),
            crate::Network::Tcp(_) => None,
        });
        let filters = managers.flat_map(|manager| &manager.filters);
        let providers = filters.flat_map(|filter| match &filter.kind {
            HttpFilterKind::Jwt(filter) => filter.providers.values().collect(),
            _ => Vec::new(),
        });
        let keys = providers.filter_map(|provider| match &provider.keys {
            JwtKeys::Remote(remote) => Some(Arc::clone(remote)),
            JwtKeys::Local(_) => None,
        });
        keys.collect()
    }

    /// Makes the table of addresses anew, from the listeners.
    pub(crate) fn index_addresses(&mut self) {
        let all = self.listeners.values().flat_map(|listener| {
            let addresses = listener.additional.iter().chain([&listener.address]);
            addresses.map(move |address| (address, listener))
        });
        self.by_address = all
            .filter_map(|(address, listener)| match address {
                Address::Socket(address) => Some((*address, Arc::clone(listener))),
                Address::Pipe(_) | Address::Internal(_) => None,
            })
            .collect();
    }
}
