//! What proxies are told, each part made once for all proxies that are told the same.
//!
//! In:    views and snapshots; for a proxy that was told something before, what has changed since.
//! Out:   [`Config`]s, made of shared parts: a sidecar's is what its class may reach, and what it
//!        receives itself.
//! Never: keeps anything alive that no proxy holds.
//!
//! Start at [`Configs::build`]; [`Configs::renew`] is the shorter way after a change.

mod told;

use std::{
    collections::HashMap,
    num::NonZero,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError, Weak,
        atomic::{AtomicUsize, Ordering},
    },
    thread,
};

use envoy_types::pb::envoy::extensions::transport_sockets::tls::v3::{
    Secret, secret::Type as SecretKind,
};
use sluis_envoy::{EncodedSet, Kind, ResourceSet, unpack};
use sluis_model::{Changes, Snapshot};
use sluis_resources::Fault;
use sluis_translate::{Part, ProxyView, Readers, is_told_in_parts};
use sluis_xds::Peer;

pub(crate) use told::{Shelf, Told, is_endpoint};

/// What one view of the mesh comes to.
#[derive(Debug)]
pub struct Config {
    /// The resources as they travel.
    pub encoded: Arc<EncodedSet>,
    /// As `encoded`, without private keys: for peers that proved nothing.
    pub public: Arc<EncodedSet>,
    parts: Vec<Arc<Told>>,
}

impl Config {
    fn new(parts: Vec<Arc<Told>>) -> Self {
        let mut all = parts.iter().map(|told| &told.set);
        let first = all.next().cloned().unwrap_or_default();
        let encoded = Arc::new(all.fold(first, |base, own| own.over(&base)));
        Self { public: without_keys(&encoded), encoded, parts }
    }

    /// What travels to a peer: private keys only to one that proved who it is.
    #[must_use]
    pub fn encoded_for(&self, peer: &Peer) -> &Arc<EncodedSet> {
        match peer {
            Peer::Verified(_) => &self.encoded,
            Peer::Local => &self.public,
        }
    }

    /// What users asked for and did not get, each with its place. A fault may be there twice.
    pub fn faults(&self) -> impl Iterator<Item = &Fault> {
        self.parts.iter().flat_map(|told| &told.faults)
    }

    /// The resources as messages.
    #[must_use]
    pub fn decoded(&self) -> ResourceSet {
        let mut set = ResourceSet::default();
        for kind in Kind::ALL {
            for resource in self.encoded.of(kind) {
                // What was encoded here decodes here.
                let _ = set.insert(kind, &resource.body);
            }
        }
        set
    }
}

/// Remembers what proxies are told.
///
/// Bounded by the proxies: it keeps nothing alive itself, but for what the objects of the latest
/// snapshot read.
#[derive(Debug, Default)]
pub(crate) struct Configs {
    shelf: Shelf,
    memory: Mutex<Memory>,
}

#[derive(Debug, Default)]
struct Memory {
    /// The snapshot asked about last, and its number.
    latest: Option<(Snapshot, u64)>,
    /// What the objects of a snapshot read, by its number.
    readers: Option<(u64, Arc<Readers>)>,
    /// What a view was told last, and of which snapshot that is known to be true.
    told: HashMap<Asked, (Weak<Told>, u64)>,
    /// Whole configurations by the addresses of their parts.
    configs: HashMap<Vec<usize>, Weak<Config>>,
}

impl Memory {
    /// The number of a snapshot: another one for each that differs from the one asked about before.
    fn number(&mut self, snapshot: &Snapshot) -> u64 {
        let next = match &self.latest {
            Some((latest, number)) if latest.is_same(snapshot) => return *number,
            Some((_, number)) => number + 1,
            None => 0,
        };
        self.latest = Some((snapshot.clone(), next));
        next
    }
}

/// Who asks for which part.
type Asked = (Arc<ProxyView>, Part);

/// A change on its way to the proxies.
pub(crate) struct Passage<'a> {
    pub(crate) changes: &'a Changes,
    pub(crate) snapshot: &'a Snapshot,
    /// What became of each part that some proxy was told, by its address.
    renewed: Mutex<HashMap<usize, Arc<Told>>>,
}

impl<'a> Passage<'a> {
    pub(crate) fn new(changes: &'a Changes, snapshot: &'a Snapshot) -> Self {
        Self { changes, snapshot, renewed: Mutex::default() }
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<usize, Arc<Told>>> {
        self.renewed.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Configs {
    /// The configuration of a view.
    pub(crate) fn build(&self, view: &ProxyView, snapshot: &Snapshot) -> Arc<Config> {
        let mut parts = Vec::new();
        if is_told_in_parts(view, snapshot) {
            let class = self.readers(snapshot).class(view, snapshot);
            parts.push(self.told(Arc::new(class), Part::Outbound, snapshot));
            parts.push(self.told(Arc::new(view.clone()), Part::Inbound, snapshot));
        } else {
            parts.push(self.told(Arc::new(view.clone()), Part::Whole, snapshot));
        }
        self.join(parts)
    }

    /// Makes all parts of these configurations anew, on all cores.
    pub(crate) fn renew_all<'c>(
        &self,
        configs: impl Iterator<Item = &'c Arc<Config>>,
        passage: &Passage<'_>,
    ) {
        let all: HashMap<usize, &Arc<Told>> = configs
            .flat_map(|config| &config.parts)
            .map(|told| (Arc::as_ptr(told) as usize, told))
            .collect();
        let all: Vec<&Arc<Told>> = all.into_values().collect();
        let cores = thread::available_parallelism().map_or(1, NonZero::get);
        let next = AtomicUsize::new(0);
        let work = || {
            while let Some(told) = all.get(next.fetch_add(1, Ordering::Relaxed)) {
                self.renew_part(told, passage);
            }
        };
        thread::scope(|scope| {
            for _ in 1..cores.min(all.len()) {
                scope.spawn(work);
            }
            work();
        });
    }

    /// The configuration after a change, for a proxy whose view and class are what they were.
    pub(crate) fn renew(&self, config: &Arc<Config>, passage: &Passage<'_>) -> Arc<Config> {
        let parts: Vec<Arc<Told>> =
            config.parts.iter().map(|told| self.renew_part(told, passage)).collect();
        let is_same = parts.iter().zip(&config.parts).all(|(new, old)| Arc::ptr_eq(new, old));
        if is_same { Arc::clone(config) } else { self.join(parts) }
    }

    fn renew_part(&self, told: &Arc<Told>, passage: &Passage<'_>) -> Arc<Told> {
        let address = Arc::as_ptr(told) as usize;
        if let Some(known) = passage.lock().get(&address) {
            return Arc::clone(known);
        }
        let next = match told.after(passage.changes, passage.snapshot, &self.shelf) {
            Some(next) => {
                let asked = (Arc::clone(&told.view), told.part);
                let mut memory = self.lock();
                let number = memory.number(passage.snapshot);
                memory.told.insert(asked, (Arc::downgrade(&next), number));
                next
            }
            None => self.told(Arc::clone(&told.view), told.part, passage.snapshot),
        };
        passage.lock().insert(address, Arc::clone(&next));
        next
    }

    /// Whether what the objects read of proxies is the same in two snapshots, so that every proxy
    /// stays in its class.
    pub(crate) fn keeps_classes(&self, before: &Snapshot, after: &Snapshot) -> bool {
        self.readers(before) == self.readers(after)
    }

    fn readers(&self, snapshot: &Snapshot) -> Arc<Readers> {
        let number = {
            let mut memory = self.lock();
            let number = memory.number(snapshot);
            match &memory.readers {
                Some((of, readers)) if *of == number => return Arc::clone(readers),
                _ => number,
            }
        };
        let readers = Arc::new(Readers::of(snapshot));
        self.lock().readers = Some((number, Arc::clone(&readers)));
        readers
    }

    /// What a view is told: what it was told before, where that is still true.
    fn told(&self, view: Arc<ProxyView>, part: Part, snapshot: &Snapshot) -> Arc<Told> {
        let asked = (view, part);
        let (number, before) = {
            let mut memory = self.lock();
            let number = memory.number(snapshot);
            let before = memory.told.get(&asked).and_then(|(told, of)| {
                let told = told.upgrade()?;
                Some((told, *of == number))
            });
            (number, before)
        };
        if let Some((told, true)) = &before {
            return Arc::clone(told);
        }
        let before = before.map(|(told, _)| told);
        let told = Told::new(&asked.0, part, snapshot, &self.shelf, before.as_ref());
        let mut memory = self.lock();
        if memory.told.len() == memory.told.capacity() {
            memory.told.retain(|_, (told, _)| told.strong_count() > 0);
        }
        memory.told.insert(asked, (Arc::downgrade(&told), number));
        told
    }

    /// The configuration of these parts: the one in use, or a new one.
    fn join(&self, parts: Vec<Arc<Told>>) -> Arc<Config> {
        let key: Vec<usize> = parts.iter().map(|told| Arc::as_ptr(told) as usize).collect();
        if let Some(config) = self.lock().configs.get(&key).and_then(Weak::upgrade) {
            return config;
        }
        let config = Arc::new(Config::new(parts));
        let mut memory = self.lock();
        if memory.configs.len() == memory.configs.capacity() {
            memory.configs.retain(|_, config| config.strong_count() > 0);
        }
        memory.configs.insert(key, Arc::downgrade(&config));
        config
    }

    fn lock(&self) -> MutexGuard<'_, Memory> {
        self.memory.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The set without the secrets that hold more than roots; the very same one where there are none.
fn without_keys(encoded: &Arc<EncodedSet>) -> Arc<EncodedSet> {
    let is_public =
        |secret: Secret| matches!(secret.r#type, Some(SecretKind::ValidationContext(_)));
    let all = encoded.of(Kind::Secret);
    let keys = all.filter(|resource| !unpack(&resource.body).is_ok_and(is_public));
    let names: Vec<&str> = keys.map(|resource| resource.name.as_str()).collect();
    if names.is_empty() {
        return Arc::clone(encoded);
    }
    let mut public = (**encoded).clone();
    for name in names {
        public.remove(Kind::Secret, name);
    }
    Arc::new(public)
}
