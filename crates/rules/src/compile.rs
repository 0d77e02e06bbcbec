//! Compiles Envoy's messages into a [`Runtime`].
//!
//! In:    the resources that the proxy should hold, and the runtime before.
//! Out:   the new runtime, and every reason why a resource was rejected.
//! Never: skips what it does not understand: the resource is rejected, its last good form stays.

mod access_log;
mod at;
mod balance;
mod checks;
mod cluster;
mod credentials;
mod dns;
mod endpoints;
mod ext_authz;
mod filters;
mod hop;
mod http;
mod jwt;
mod listener;
mod messages;
mod metadata;
mod rbac;
mod routes;
mod sockets;
mod tcp;
mod tls;
mod values;

use std::{
    collections::{BTreeMap, HashSet},
    net::IpAddr,
    sync::Arc,
};

use envoy_types::pb::envoy::config::{
    cluster::v3::Cluster as PbCluster, endpoint::v3::ClusterLoadAssignment,
    listener::v3::Listener as PbListener, route::v3::RouteConfiguration,
};
use sluis_envoy::{Kind, NameTable, ResourceSet};

use self::{at::Report, cluster::Shape};
use crate::{Cluster, Discovery, Fault, FilterChain, Listener, Names, Runtime};

/// A compiled configuration.
#[derive(Clone, Debug)]
pub struct Compiled {
    /// What the proxy should do now.
    pub runtime: Arc<Runtime>,
    /// Why resources were rejected; empty when all were taken over.
    pub faults: Vec<Fault>,
}

/// Compiles a set of resources.
///
/// Parts whose resources did not change are shared with `previous`. A rejected resource keeps the
/// form that `previous` has of it; without one it is absent. A resource that is no longer in the
/// set is gone. Every call reports every fault in the set, old ones too.
#[must_use]
pub fn compile(set: &ResourceSet, previous: Option<&Runtime>) -> Compiled {
    let empty = Runtime::default();
    let mut build = Build {
        set,
        previous: previous.unwrap_or(&empty),
        runtime: Runtime::default(),
        faults: Vec::new(),
        bad_assignments: HashSet::new(),
    };
    for (name, message) in &set.clusters {
        build.cluster(name, message);
    }
    for (name, message) in &set.routes {
        build.routes(name, message);
    }
    for (name, message) in &set.listeners {
        build.listener(name, message);
    }
    build.names();
    build.runtime.index_addresses();
    Compiled { runtime: Arc::new(build.runtime), faults: build.faults }
}

struct Build<'s> {
    set: &'s ResourceSet,
    previous: &'s Runtime,
    runtime: Runtime,
    faults: Vec<Fault>,
    /// Assignments that were reported, so that two clusters of one do not report it twice.
    bad_assignments: HashSet<Arc<str>>,
}

impl Build<'_> {
    fn cluster(&mut self, name: &str, message: &Arc<PbCluster>) {
        if self.keep_unchanged_cluster(name, message) {
            return;
        }
        let report = Report::new(Kind::Cluster, name);
        let compiled = cluster::cluster(&report.root(), message);
        match compiled.filter(|_| report.is_clean()) {
            Some(shape) => {
                let compiled = self.with_endpoints(shape);
                let previous = self.previous.clusters.get(name);
                let compiled = shared(compiled, previous);
                self.runtime.clusters.insert(name.into(), compiled);
                self.runtime.sources.clusters.insert(name.to_owned(), Arc::clone(message));
            }
            None => {
                self.faults.extend(report.into_faults());
                if let (Some(compiled), Some(source)) =
                    (self.previous.clusters.get(name), self.previous.sources.clusters.get(name))
                {
                    // Its endpoints may still have changed for the better.
                    let (compiled, source) = (Arc::clone(compiled), Arc::clone(source));
                    self.keep_cluster(name, compiled, source);
                }
            }
        }
    }

    /// Keeps a cluster whose message and endpoints are those of the previous runtime.
    fn keep_unchanged_cluster(&mut self, name: &str, message: &Arc<PbCluster>) -> bool {
        let (Some(compiled), Some(source)) =
            (self.previous.clusters.get(name), self.previous.sources.clusters.get(name))
        else {
            return false;
        };
        if !same(message, source) {
            return false;
        }
        if let Discovery::Eds { service } = &compiled.discovery {
            let now = self.set.endpoints.get(&**service);
            let before = self.previous.sources.endpoints.get(&**service);
            match (now, before) {
                (None, None) => {}
                (Some(now), Some(before)) if same(now, before) => {
                    self.runtime.sources.endpoints.insert(service.to_string(), Arc::clone(before));
                }
                _ => return false,
            }
        }
        self.runtime.clusters.insert(name.into(), Arc::clone(compiled));
        self.runtime.sources.clusters.insert(name.to_owned(), Arc::clone(source));
        true
    }

    /// Keeps a cluster in its last good form, with the endpoints of now.
    fn keep_cluster(&mut self, name: &str, compiled: Arc<Cluster>, source: Arc<PbCluster>) {
        let report = Report::new(Kind::Cluster, name);
        let compiled = match cluster::cluster(&report.root(), &source) {
            Some(shape) => shared(self.with_endpoints(shape), Some(&compiled)),
            None => compiled,
        };
        self.runtime.clusters.insert(name.into(), compiled);
        self.runtime.sources.clusters.insert(name.to_owned(), source);
    }

    /// Gives a cluster the endpoints that come by EDS; the last good ones if those are rejected.
    fn with_endpoints(&mut self, shape: Shape) -> Cluster {
        let Shape { mut cluster, sockets } = shape;
        let Discovery::Eds { service } = cluster.discovery.clone() else { return cluster };
        let Some(message) = self.set.endpoints.get(&*service) else { return cluster };
        let compile = |report: &Report, message: &ClusterLoadAssignment| {
            let list = endpoints::endpoints(&report.root(), message, &sockets);
            // A name would have to be resolved, which EDS does not do.
            for (index, endpoint) in list.list.iter().enumerate() {
                if let crate::EndpointAddress::Name { host, .. } = &endpoint.address {
                    let message = format!("{host:?} is not an IP address");
                    report.root().field("endpoints").nth(index).fault(message);
                }
            }
            list
        };
        let report = Report::new(Kind::Endpoints, &service);
        let list = compile(&report, message);
        if report.is_clean() {
            cluster.endpoints = Arc::new(list);
            self.runtime.sources.endpoints.insert(service.to_string(), Arc::clone(message));
            return cluster;
        }
        if self.bad_assignments.insert(Arc::clone(&service)) {
            self.faults.extend(report.into_faults());
        }
        if let Some(before) = self.previous.sources.endpoints.get(&*service) {
            let report = Report::new(Kind::Endpoints, &service);
            cluster.endpoints = Arc::new(compile(&report, before));
            self.runtime.sources.endpoints.insert(service.to_string(), Arc::clone(before));
        }
        cluster
    }

    fn routes(&mut self, name: &str, message: &Arc<RouteConfiguration>) {
        let before = self.previous.routes.get(name);
        let source = self.previous.sources.routes.get(name);
        let step = step(Kind::Route, name, message, before, source, |report| {
            routes::table(&report.root(), message).map(|table| shared(table, before))
        });
        let faults = place(name, step, &mut self.runtime.routes, &mut self.runtime.sources.routes);
        self.faults.extend(faults);
    }

    fn listener(&mut self, name: &str, message: &Arc<PbListener>) {
        let before = self.previous.listeners.get(name);
        let source = self.previous.sources.listeners.get(name);
        let step = step(Kind::Listener, name, message, before, source, |report| {
            listener::listener(&report.root(), message)
                .map(|listener| shared(share_chains(listener, before), before))
        });
        let faults =
            place(name, step, &mut self.runtime.listeners, &mut self.runtime.sources.listeners);
        self.faults.extend(faults);
    }

    fn names(&mut self) {
        let Some(message) = &self.set.names else { return };
        match &self.previous.sources.names {
            Some(before) if same(message, before) => {
                self.runtime.names = Arc::clone(&self.previous.names);
                self.runtime.sources.names = Some(Arc::clone(before));
            }
            before => match names(message) {
                Ok(names) => {
                    self.runtime.names = Arc::new(names);
                    self.runtime.sources.names = Some(Arc::clone(message));
                }
                Err(faults) => {
                    self.faults.extend(faults);
                    self.runtime.names = Arc::clone(&self.previous.names);
                    self.runtime.sources.names.clone_from(before);
                }
            },
        }
    }
}

/// What became of one resource: its form and source, if it has any, and the faults.
struct Step<T, M> {
    kept: Option<(Arc<T>, Arc<M>)>,
    faults: Vec<Fault>,
}

fn step<T, M: PartialEq>(
    kind: Kind,
    name: &str,
    message: &Arc<M>,
    before: Option<&Arc<T>>,
    source: Option<&Arc<M>>,
    compile: impl FnOnce(&Report) -> Option<Arc<T>>,
) -> Step<T, M> {
    let last_good = before.zip(source).map(|(form, source)| (Arc::clone(form), Arc::clone(source)));
    if last_good.as_ref().is_some_and(|(_, source)| same(message, source)) {
        return Step { kept: last_good, faults: Vec::new() };
    }
    let report = Report::new(kind, name);
    match compile(&report).filter(|_| report.is_clean()) {
        Some(form) => Step { kept: Some((form, Arc::clone(message))), faults: Vec::new() },
        None => Step { kept: last_good, faults: report.into_faults() },
    }
}

fn place<T, M>(
    name: &str,
    step: Step<T, M>,
    forms: &mut BTreeMap<Arc<str>, Arc<T>>,
    sources: &mut BTreeMap<String, Arc<M>>,
) -> Vec<Fault> {
    if let Some((form, source)) = step.kept {
        forms.insert(name.into(), form);
        sources.insert(name.to_owned(), source);
    }
    step.faults
}

/// The value before, if it is equal: who holds it then sees that nothing changed.
fn shared<T: PartialEq>(now: T, before: Option<&Arc<T>>) -> Arc<T> {
    match before {
        Some(before) if **before == now => Arc::clone(before),
        _ => Arc::new(now),
    }
}

/// Takes over the filter chains that did not change, so that their connections need not drain.
fn share_chains(mut listener: Listener, before: Option<&Arc<Listener>>) -> Listener {
    let Some(before) = before else { return listener };
    let old: Vec<&Arc<FilterChain>> = before.chains.iter().chain(&before.default_chain).collect();
    for chain in listener.chains.iter_mut().chain(&mut listener.default_chain) {
        if let Some(same) = old.iter().find(|old| ***old == *chain) {
            *chain = Arc::clone(same);
        }
    }
    listener
}

fn same<M: PartialEq>(a: &Arc<M>, b: &Arc<M>) -> bool {
    Arc::ptr_eq(a, b) || a == b
}

fn names(message: &NameTable) -> Result<Names, Vec<Fault>> {
    let report = Report::new(Kind::NameTable, "name-table");
    let root = report.root();
    let entries = message.table.iter().map(|(name, info)| {
        let at = root.field("table");
        let at = at.key(name);
        let addresses = info.ips.iter().enumerate().filter_map(|(index, ip)| {
            let address: Result<IpAddr, _> = ip.parse();
            if address.is_err() {
                at.field("ips").nth(index).fault(format!("{ip:?} is not an IP address"));
            }
            address.ok()
        });
        (name.as_str(), addresses.collect())
    });
    let names = Names::new(entries);
    if report.is_clean() { Ok(names) } else { Err(report.into_faults()) }
}
