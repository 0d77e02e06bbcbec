//! Renders resources and encodes them, each at most once for all proxies that are told the same.
//!
//! In:    [`Inputs`] without patches.
//! Out:   the encoded resources, equal to those that `render` and `encode` give.
//! Never: keeps a resource alive that no proxy holds, or one with a key in it.

use std::{
    collections::HashMap,
    hash::{Hash, Hasher},
    sync::{Arc, Mutex, MutexGuard, PoisonError, Weak},
};

use prost::Name;
use sluis_envoy::{Encoded, EncodedSet, Kind, NAME_TABLE};
use xxhash_rust::xxh3::Xxh3;

use super::{cluster, inbound, listener, name_table, render, route, secret};
use crate::{Fault, Inputs};

/// Encoded resources by what they were made of.
#[derive(Debug, Default)]
pub struct Known(Mutex<HashMap<(Kind, u128), Weak<Encoded>>>);

/// The number of entries at which those that nobody holds any more are first dropped.
const SWEEP_AT: usize = 1024;

impl Known {
    /// The resource that was made of `input`, or a new one.
    fn get<I: Hash, M: Name>(
        &self,
        kind: Kind,
        name: &str,
        input: &I,
        make: impl FnOnce() -> M,
    ) -> Arc<Encoded> {
        let key = (kind, fingerprint(input));
        if let Some(known) = self.lock().get(&key).and_then(Weak::upgrade) {
            return known;
        }
        let made = Arc::new(Encoded::new(kind, name, &make()));
        let mut known = self.lock();
        if known.len() >= SWEEP_AT && known.len() == known.capacity() {
            known.retain(|_, resource| resource.strong_count() > 0);
        }
        known.insert(key, Arc::downgrade(&made));
        made
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<(Kind, u128), Weak<Encoded>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The hash of what something is made of, wide enough to stand for it.
pub fn fingerprint(input: &impl Hash) -> u128 {
    let mut hasher = Wide(Xxh3::new());
    input.hash(&mut hasher);
    hasher.0.digest128()
}

struct Wide(Xxh3);

impl Hasher for Wide {
    fn write(&mut self, bytes: &[u8]) {
        self.0.update(bytes);
    }

    fn finish(&self) -> u64 {
        self.0.digest()
    }
}

/// What the inputs come to, encoded, and what could not be carried out.
#[must_use]
pub fn render_encoded(inputs: &Inputs, known: &Known) -> (EncodedSet, Vec<Fault>) {
    if !inputs.patches.is_empty() || inputs.is_grpc {
        let rendered = render(inputs);
        return (rendered.set.encode(), rendered.faults);
    }
    let mesh = &inputs.mesh;
    let of_mesh = fingerprint(mesh);
    let mut set = EncodedSet::default();
    let mut put = |kind: Kind, all: Vec<Arc<Encoded>>| {
        if !all.is_empty() {
            set.set(kind, all);
        }
    };
    let inbound = inputs.inbound.iter();

    let clusters = inputs.clusters.iter().map(|input| {
        known.get(Kind::Cluster, &input.name, &(of_mesh, input), || cluster::cluster(input, mesh))
    });
    let received = inbound.clone().flat_map(|inbound| &inbound.clusters).map(|input| {
        known.get(Kind::Cluster, &input.name, &("inbound", input), || inbound::cluster(input))
    });
    put(Kind::Cluster, clusters.chain(received).collect());

    let endpoints = inputs.clusters.iter().filter_map(|input| {
        let made = cluster::endpoints(input)?;
        Some(known.get(Kind::Endpoints, &input.name, input, || made))
    });
    put(Kind::Endpoints, endpoints.collect());

    let listeners = inputs.listeners.iter().map(|input| {
        known
            .get(Kind::Listener, &input.name, &(of_mesh, input), || listener::listener(input, mesh))
    });
    let captured = inputs.outbound.iter().map(|outbound| {
        let made = listener::virtual_outbound(outbound, mesh);
        let name = made.name.clone();
        known.get(Kind::Listener, &name, &(of_mesh, "outbound", outbound), || made)
    });
    let received = inbound.flat_map(|inbound| &inbound.listeners).map(|input| {
        known.get(Kind::Listener, &input.name, &(of_mesh, "inbound", input), || {
            inbound::listener(input, mesh)
        })
    });
    put(Kind::Listener, listeners.chain(captured).chain(received).collect());

    let routes = inputs
        .routes
        .iter()
        .map(|input| known.get(Kind::Route, &input.name, input, || route::table(input)));
    put(Kind::Route, routes.collect());

    let secrets = inputs
        .secrets
        .iter()
        .map(|input| Arc::new(Encoded::new(Kind::Secret, &input.name, &secret::secret(input))));
    put(Kind::Secret, secrets.collect());
    if let Some(names) = &inputs.names {
        let table = known.get(Kind::NameTable, NAME_TABLE, names, || name_table(names));
        put(Kind::NameTable, vec![table]);
    }
    (set, inputs.faults.clone())
}
