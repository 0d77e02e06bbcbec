//! Renders resources and encodes them, each at most once for all proxies that are told the same.
//!
//! In:    [`Inputs`] without patches.
//! Out:   the encoded resources, equal to those that `render` and `encode` give.
//! Never: keeps a resource alive that no proxy holds, or one with a key in it.

use std::{
    cell::Cell,
    collections::HashMap,
    hash::{Hash, Hasher},
    sync::{Arc, Mutex, MutexGuard, PoisonError, Weak},
};

use envoy_types::pb::envoy::config::route::v3::{RouteConfiguration, VirtualHost};
use prost::Name;
use sluis_envoy::{Encoded, EncodedSet, Kind, NAME_TABLE};
use xxhash_rust::xxh3::{xxh3_64, xxh3_128};

use super::{cluster, inbound, listener, name_table, render, route, secret};
use crate::{Fault, Inputs, RouteTable};

/// Encoded resources by what they were made of, and encoded virtual hosts.
///
/// Resources live as long as somebody holds them; virtual hosts, of which thousands of tables are put
/// together, until there are too many.
#[derive(Debug, Default)]
pub struct Known {
    resources: Mutex<HashMap<(Kind, u128), Weak<Encoded>>>,
    hosts: Mutex<HashMap<u128, Arc<[u8]>>>,
}

/// The number of entries at which those that nobody holds any more are first dropped.
const SWEEP_AT: usize = 1024;

/// Virtual hosts that are kept: some for each of tens of thousands of services, about 20 MB.
const HOSTS_MAX: usize = 32_768;

impl Known {
    /// The resource that was made of what has this mark, or a new one.
    fn get<M: Name>(
        &self,
        kind: Kind,
        name: &str,
        mark: u128,
        make: impl FnOnce() -> M,
    ) -> Arc<Encoded> {
        self.get_encoded(kind, mark, || Encoded::new(kind, name, &make()))
    }

    fn get_encoded(&self, kind: Kind, mark: u128, make: impl FnOnce() -> Encoded) -> Arc<Encoded> {
        let key = (kind, mark);
        if let Some(known) = lock(&self.resources).get(&key).and_then(Weak::upgrade) {
            return known;
        }
        let made = Arc::new(make());
        let mut known = lock(&self.resources);
        if known.len() >= SWEEP_AT && known.len() == known.capacity() {
            known.retain(|_, resource| resource.strong_count() > 0);
        }
        known.insert(key, Arc::downgrade(&made));
        made
    }

    /// The encoded virtual host that was made of what has this mark, or a new one.
    fn host(&self, mark: u128, make: impl FnOnce() -> VirtualHost) -> Arc<[u8]> {
        if let Some(known) = lock(&self.hosts).get(&mark) {
            return Arc::clone(known);
        }
        let made = encoded_host(make());
        let mut known = lock(&self.hosts);
        if known.len() >= HOSTS_MAX {
            known.clear();
        }
        known.insert(mark, Arc::clone(&made));
        made
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn encoded_host(host: VirtualHost) -> Arc<[u8]> {
    let virtual_hosts = vec![host];
    Encoded::part(Kind::Route, &RouteConfiguration { virtual_hosts, ..Default::default() })
}

/// The hash of what something is made of, wide enough to stand for it.
fn fingerprint(input: &impl Hash) -> u128 {
    let mut bytes = Bytes(SCRATCH.take());
    input.hash(&mut bytes);
    let hash = xxh3_128(&bytes.0);
    bytes.0.clear();
    SCRATCH.set(bytes.0);
    hash
}

thread_local! {
    /// Inputs write themselves in many small steps, which are hashed at once.
    static SCRATCH: Cell<Vec<u8>> = const { Cell::new(Vec::new()) };
}

/// What a value writes of itself to be hashed.
struct Bytes(Vec<u8>);

impl Hasher for Bytes {
    fn write(&mut self, bytes: &[u8]) {
        self.0.extend_from_slice(bytes);
    }

    fn finish(&self) -> u64 {
        xxh3_64(&self.0)
    }
}

/// The hashes of all that [`Inputs`] hold, each taken once.
#[derive(Debug)]
pub struct Marks {
    mesh: u128,
    clusters: Vec<u128>,
    listeners: Vec<u128>,
    /// Of the hosts of each table, and of the table without them.
    tables: Vec<(Vec<u128>, u128)>,
    /// Of everything else.
    rest: u128,
}

impl Marks {
    /// The hashes of all that the inputs hold.
    #[must_use]
    pub fn of(inputs: &Inputs) -> Self {
        // All fields by name: one that is added must not be forgotten here.
        let Inputs {
            mesh,
            is_grpc,
            outbound,
            inbound,
            listeners,
            routes,
            clusters,
            secrets,
            names,
            patches,
            faults,
        } = inputs;
        let table = |table: &RouteTable| {
            let RouteTable { name, known_ports, gateway, hosts, is_port_matched, fallback } = table;
            let frame = fingerprint(&(name, known_ports, gateway, is_port_matched, fallback));
            (hosts.iter().map(fingerprint).collect(), frame)
        };
        Self {
            mesh: fingerprint(mesh),
            clusters: clusters.iter().map(fingerprint).collect(),
            listeners: listeners.iter().map(fingerprint).collect(),
            tables: routes.iter().map(table).collect(),
            rest: fingerprint(&(is_grpc, outbound, inbound, secrets, names, patches, faults)),
        }
    }

    /// The hash of everything: inputs with equal ones come to the same resources and faults.
    #[must_use]
    pub fn whole(&self) -> u128 {
        let Self { mesh, clusters, listeners, tables, rest } = self;
        fingerprint(&(mesh, clusters, listeners, tables, rest))
    }
}

/// What the inputs come to, encoded, and what could not be carried out.
#[must_use]
pub fn render_encoded(inputs: &Inputs, marks: &Marks, known: &Known) -> (EncodedSet, Vec<Fault>) {
    if !inputs.patches.is_empty() || inputs.is_grpc {
        let rendered = render(inputs);
        return (rendered.set.encode(), rendered.faults);
    }
    let mut set = EncodedSet::default();
    let mut put = |kind: Kind, all: Vec<Arc<Encoded>>| {
        if !all.is_empty() {
            set.set(kind, all);
        }
    };
    put(Kind::Cluster, clusters(inputs, marks, known));
    let marked = inputs.clusters.iter().zip(&marks.clusters);
    let endpoints = marked.filter_map(|(input, mark)| {
        let made = cluster::endpoints(input)?;
        Some(known.get(Kind::Endpoints, &input.name, *mark, || made))
    });
    put(Kind::Endpoints, endpoints.collect());
    put(Kind::Listener, listeners(inputs, marks, known));
    let tables = inputs.routes.iter().zip(&marks.tables);
    put(Kind::Route, tables.map(|(input, marks)| table(input, marks, known)).collect());
    let secrets = inputs
        .secrets
        .iter()
        .map(|input| Arc::new(Encoded::new(Kind::Secret, &input.name, &secret::secret(input))));
    put(Kind::Secret, secrets.collect());
    if let Some(names) = &inputs.names {
        let mark = fingerprint(names);
        let table = known.get(Kind::NameTable, NAME_TABLE, mark, || name_table(names));
        put(Kind::NameTable, vec![table]);
    }
    (set, inputs.faults.clone())
}

fn clusters(inputs: &Inputs, marks: &Marks, known: &Known) -> Vec<Arc<Encoded>> {
    let mesh = &inputs.mesh;
    let reached = inputs.clusters.iter().zip(&marks.clusters).map(|(input, mark)| {
        let mark = fingerprint(&(marks.mesh, mark));
        known.get(Kind::Cluster, &input.name, mark, || {
            let mut made = cluster::cluster(input, mesh);
            cluster::modernize(&mut made);
            made
        })
    });
    let received = inputs.inbound.iter().flat_map(|inbound| &inbound.clusters).map(|input| {
        let mark = fingerprint(&("inbound", input));
        known.get(Kind::Cluster, &input.name, mark, || inbound::cluster(input))
    });
    reached.chain(received).collect()
}

fn listeners(inputs: &Inputs, marks: &Marks, known: &Known) -> Vec<Arc<Encoded>> {
    let mesh = &inputs.mesh;
    let reached = inputs.listeners.iter().zip(&marks.listeners).map(|(input, mark)| {
        let mark = fingerprint(&(marks.mesh, mark));
        known.get(Kind::Listener, &input.name, mark, || listener::listener(input, mesh))
    });
    let captured = inputs.outbound.iter().map(|outbound| {
        let made = listener::virtual_outbound(outbound, mesh);
        let name = made.name.clone();
        let mark = fingerprint(&(marks.mesh, "outbound", outbound));
        known.get(Kind::Listener, &name, mark, || made)
    });
    let received = inputs.inbound.iter().flat_map(|inbound| &inbound.listeners).map(|input| {
        let mark = fingerprint(&(marks.mesh, "inbound", input));
        known.get(Kind::Listener, &input.name, mark, || inbound::listener(input, mesh))
    });
    reached.chain(captured).chain(received).collect()
}

/// A route table, put together of its virtual hosts: most are the same in every namespace.
fn table(input: &RouteTable, marks: &(Vec<u128>, u128), known: &Known) -> Arc<Encoded> {
    known.get_encoded(Kind::Route, fingerprint(marks), || {
        let name = RouteConfiguration { name: input.name.clone(), ..Default::default() };
        let mut parts = vec![Encoded::part(Kind::Route, &name)];
        let hosts = input.hosts.iter().zip(&marks.0);
        parts.extend(hosts.map(|(host, mark)| known.host(*mark, || route::virtual_host(host))));
        parts.extend(input.fallback.as_ref().map(|policy| encoded_host(route::catch_all(policy))));
        parts.push(Encoded::part(Kind::Route, &route::frame(input)));
        Encoded::of_parts::<RouteConfiguration>(&input.name, &parts)
    })
}
