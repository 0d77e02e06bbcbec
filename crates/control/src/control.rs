//! The control plane: the mesh as it is, and what each proxy holds of it.
//!
//! In:    batches of resources.
//! Out:   for each connected proxy its set, whenever it changes; for people, status and faults.
//! Never: builds while it holds the lock: a proxy that connects waits for its own build only.

use std::{
    collections::{BTreeMap, HashSet},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use sluis_envoy::{EncodedSet, Kind};
use sluis_model::{Batch, Changes, Snapshot, apply};
use sluis_nouns::{ObjectName, TrustDomain};
use sluis_resources::{Fault, Key, Kind as ResourceKind};
use sluis_translate::ProxyView;
use sluis_xds::{Peer, ProxyKey, Refusal};
use tokio::{
    sync::{mpsc, watch},
    time::Instant,
};
use tracing::{info, warn};

use crate::{
    ProxyNode, ProxyStatus, ViewError,
    config::{Config, Configs, Passage, is_endpoint},
    debounce,
    metrics::Metrics,
    proxy_view,
    status::{KindStatus, Progress},
    view::wants_proxy,
};

/// The control plane. Cheap to clone; all clones are the same one.
///
/// Feed it with [`Control::run`] or [`Control::apply`]; serve it with `sluis_xds::Server`, for
/// which it is the directory.
#[derive(Clone, Debug)]
pub struct Control(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    domain: TrustDomain,
    configs: Configs,
    metrics: Metrics,
    state: Mutex<State>,
    /// Counts what people would like to see: connections, answers, changes of the mesh.
    events: watch::Sender<u64>,
}

/// What the lock guards.
#[derive(Debug, Default)]
pub(crate) struct State {
    pub(crate) snapshot: Snapshot,
    /// How many batches have been applied; 0 before the mesh is known.
    pub(crate) generation: u64,
    pub(crate) streams: BTreeMap<ProxyKey, Stream>,
    pub(crate) keys: u64,
}

/// One connected proxy.
#[derive(Debug)]
pub(crate) struct Stream {
    pub(crate) peer: Peer,
    pub(crate) node: Arc<ProxyNode>,
    pub(crate) view: ProxyView,
    pub(crate) config: Arc<Config>,
    /// The generation of the snapshot that `config` was built from.
    pub(crate) generation: u64,
    pub(crate) sets: watch::Sender<Arc<EncodedSet>>,
    pub(crate) progress: Progress,
}

/// A snapshot on its way to the proxies.
struct Generation<'a> {
    number: u64,
    /// When the change that it follows from was taken up.
    began: Instant,
    passage: Passage<'a>,
    /// Proxies stay who they are, but for those whose own workload has changed.
    is_ordinary: bool,
}

/// A connected proxy as it was before a change.
struct Held {
    key: ProxyKey,
    peer: Peer,
    node: Arc<ProxyNode>,
    name: ObjectName,
    config: Arc<Config>,
}

/// A connected proxy, in detail.
#[derive(Clone, Debug)]
pub struct Client {
    /// What tells this stream from all others, also earlier ones of the same proxy.
    pub key: ProxyKey,
    /// Who it is.
    pub peer: Peer,
    /// What it says of itself.
    pub node: ProxyNode,
    /// How it is seen.
    pub view: ProxyView,
    /// What it should hold.
    pub config: Arc<Config>,
    /// How long it has been connected.
    pub connected: Duration,
    /// How far each kind has come. All kinds are there.
    pub kinds: BTreeMap<Kind, KindStatus>,
}

/// What one workload's proxy holds, or would hold.
#[derive(Clone, Debug)]
pub struct ProxyConfig {
    /// The view it was built for.
    pub view: ProxyView,
    /// The resources, encoded and not, with their faults.
    pub config: Arc<Config>,
}

impl Control {
    /// A control plane of an empty mesh.
    #[must_use]
    pub fn new(domain: TrustDomain) -> Self {
        Self(Arc::new(Shared {
            domain,
            configs: Configs::default(),
            metrics: Metrics::default(),
            state: Mutex::default(),
            events: watch::Sender::new(0),
        }))
    }

    /// Applies batches as they come to rest, until the sender is gone or `shutdown` is done.
    pub async fn run(self, mut batches: mpsc::Receiver<Batch>, shutdown: impl Future<Output = ()>) {
        let applying = async {
            while let Some(batch) = debounce::next(&mut batches).await {
                self.apply(batch);
            }
        };
        tokio::select! {
            () = shutdown => {}
            () = applying => {}
        }
    }

    /// Applies one batch at once and gives each connected proxy what follows for it.
    ///
    /// Until the first batch, proxies are told to come back. Calls must not overlap: there is one
    /// source.
    pub fn apply(&self, batch: Batch) -> Changes {
        let began = Instant::now();
        let before = self.lock().snapshot.clone();
        let (snapshot, changes) = apply(&before, batch);
        self.metrics().applied(began.elapsed());
        let (number, streams) = {
            let mut state = self.lock();
            state.snapshot = snapshot.clone();
            state.generation += 1;
            let streams = state.streams.iter().map(|(key, stream)| Held::of(*key, stream));
            (state.generation, streams.collect::<Vec<_>>())
        };
        let passage = Passage::new(&changes, &snapshot);
        let is_ordinary = self.is_ordinary(&before, &passage);
        let next = Generation { number, began, passage, is_ordinary };
        if is_ordinary {
            self.0.configs.renew_all(streams.iter().map(|held| &held.config), &next.passage);
        }
        let mut pushed = 0;
        for held in streams {
            pushed += usize::from(self.refresh(&held, &next));
        }
        info!(
            added = changes.added.len(),
            changed = changes.changed.len(),
            removed = changes.removed.len(),
            pushed,
            took = ?began.elapsed(),
            "mesh changed"
        );
        self.tell();
        changes
    }

    /// The mesh as it is.
    #[must_use]
    pub fn snapshot(&self) -> Snapshot {
        self.lock().snapshot.clone()
    }

    /// Whether the mesh is known, so that proxies are served.
    #[must_use]
    pub fn is_ready(&self) -> bool {
        self.lock().generation > 0
    }

    /// The trust domain of the mesh's identities.
    #[must_use]
    pub fn trust_domain(&self) -> &TrustDomain {
        &self.0.domain
    }

    /// Changes whenever something happens that [`Control::proxies`] or [`Control::faults`] show.
    #[must_use]
    pub fn events(&self) -> watch::Receiver<u64> {
        self.0.events.subscribe()
    }

    /// Every connected proxy, and every workload that asks for a proxy and has none connected; by
    /// name of the workload.
    #[must_use]
    pub fn proxies(&self) -> Vec<ProxyStatus> {
        let now = Instant::now();
        let state = self.lock();
        let connected = state.streams.values().map(|stream| ProxyStatus {
            workload: stream.view.name.clone(),
            id: stream.view.id.clone(),
            address: stream.view.address,
            role: stream.view.role,
            node: Some(stream.node.id.clone()),
            connected: Some(stream.progress.age(now)),
            peer: Some(stream.peer.clone()),
            kinds: stream.progress.show(now),
        });
        let mut proxies: Vec<ProxyStatus> = connected.collect();
        let expected = state.snapshot.workloads().filter(|workload| wants_proxy(workload));
        for view in expected.filter_map(|workload| proxy_view(workload, None, &self.0.domain).ok())
        {
            if !proxies.iter().any(|proxy| proxy.workload == view.name) {
                let kinds = Progress::new(now).show(now);
                let (workload, id, address, role) = (view.name, view.id, view.address, view.role);
                proxies.push(ProxyStatus {
                    workload,
                    id,
                    address,
                    role,
                    node: None,
                    connected: None,
                    peer: None,
                    kinds,
                });
            }
        }
        proxies.sort_by(|a, b| a.workload.cmp(&b.workload));
        proxies
    }

    /// Every connected proxy in detail, in the order in which they came.
    #[must_use]
    pub fn clients(&self) -> Vec<Client> {
        let now = Instant::now();
        let state = self.lock();
        let show = |(key, stream): (&ProxyKey, &Stream)| Client {
            key: *key,
            peer: stream.peer.clone(),
            node: (*stream.node).clone(),
            view: stream.view.clone(),
            config: Arc::clone(&stream.config),
            connected: stream.progress.age(now),
            kinds: stream.progress.show(now),
        };
        state.streams.iter().map(show).collect()
    }

    /// What the proxy of a workload holds, or would hold if it connected. `None` when there is no
    /// such workload.
    ///
    /// # Errors
    ///
    /// A [`ViewError`] when the workload can have no proxy.
    pub fn config_of(&self, name: &ObjectName) -> Option<Result<ProxyConfig, ViewError>> {
        let (snapshot, connected) = {
            let state = self.lock();
            let stream = state.streams.values().rev().find(|stream| stream.view.name == *name);
            let connected = stream.map(|stream| ProxyConfig {
                view: stream.view.clone(),
                config: Arc::clone(&stream.config),
            });
            (state.snapshot.clone(), connected)
        };
        if let Some(connected) = connected {
            return Some(Ok(connected));
        }
        let view = proxy_view(snapshot.workload(name)?, None, &self.0.domain);
        Some(view.map(|view| {
            let config = self.0.configs.build(&view, &snapshot);
            ProxyConfig { view, config }
        }))
    }

    /// What is wrong with the mesh as proxies see it, each fault once, in order of place: what
    /// translation met for connected proxies and for workloads that ask for one.
    #[must_use]
    pub fn faults(&self) -> Vec<Fault> {
        let mut faults = HashSet::new();
        let (snapshot, in_use) = {
            let state = self.lock();
            let in_use: Vec<_> =
                state.streams.values().map(|stream| Arc::clone(&stream.config)).collect();
            (state.snapshot.clone(), in_use)
        };
        faults.extend(in_use.iter().flat_map(|config| config.faults().cloned()));
        faults.extend(snapshot.credential_faults());
        for workload in snapshot.workloads().filter(|workload| wants_proxy(workload)) {
            match proxy_view(workload, None, &self.0.domain) {
                Err(error) => drop(faults.insert(error.fault(workload))),
                Ok(view) => {
                    let config = self.0.configs.build(&view, &snapshot);
                    faults.extend(config.faults().cloned());
                }
            }
        }
        let mut faults: Vec<Fault> = faults.into_iter().collect();
        faults.sort_by_cached_key(|fault| {
            (fault.at.file.clone(), fault.at.line, fault.at.column, fault.to_string())
        });
        faults
    }

    pub(crate) fn lock(&self) -> MutexGuard<'_, State> {
        // No code that panics runs under the lock; if it did, the state would still be whole.
        self.0.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn metrics(&self) -> &Metrics {
        &self.0.metrics
    }

    pub(crate) fn tell(&self) {
        self.0.events.send_modify(|count| *count += 1);
    }

    /// What a view of the mesh comes to.
    pub(crate) fn config(&self, view: &ProxyView, snapshot: &Snapshot) -> Arc<Config> {
        self.0.configs.build(view, snapshot)
    }

    /// Whether proxies stay who they are by a change, but for those whose own workload it is.
    fn is_ordinary(&self, before: &Snapshot, passage: &Passage<'_>) -> bool {
        let kinds = || passage.changes.keys().map(|key| key.kind);
        // Patches make a proxy whole; the mesh configuration and nodes are of all proxies.
        let turns_all = |kind: ResourceKind| {
            matches!(
                kind,
                ResourceKind::ConfigMap
                    | ResourceKind::EnvoyFilter
                    | ResourceKind::Namespace
                    | ResourceKind::Node
            )
        };
        !kinds().any(turns_all)
            && (kinds().all(is_endpoint) || self.0.configs.keeps_classes(before, passage.snapshot))
    }

    /// The view and configuration of a connected proxy after a change.
    fn rebuild(
        &self,
        held: &Held,
        next: &Generation<'_>,
    ) -> Result<(Option<ProxyView>, Arc<Config>), Refusal> {
        let is_own = |kind: ResourceKind| {
            next.passage.changes.contains(&Key { kind, name: held.name.clone() })
        };
        if next.is_ordinary && !is_own(ResourceKind::WorkloadEntry) && !is_own(ResourceKind::Pod) {
            return Ok((None, self.0.configs.renew(&held.config, &next.passage)));
        }
        let view = self.admit(&held.peer, &held.node, next.passage.snapshot)?;
        let config = self.config(&view, next.passage.snapshot);
        Ok((Some(view), config))
    }

    /// Rebuilds one proxy's configuration; returns whether something was pushed.
    ///
    /// A proxy whose workload is gone, or now has another identity, is dropped: its stream ends.
    fn refresh(&self, held: &Held, next: &Generation<'_>) -> bool {
        let built = self.rebuild(held, next);
        let mut state = self.lock();
        let Some(stream) = state.streams.get_mut(&held.key) else { return false };
        match built {
            Ok((view, config)) => {
                if next.number <= stream.generation {
                    return false;
                }
                if let Some(view) = view {
                    stream.view = view;
                }
                stream.generation = next.number;
                if Arc::ptr_eq(&config, &stream.config) {
                    return false;
                }
                let encoded = Arc::clone(config.encoded_for(&held.peer));
                stream.config = config;
                let progress = &mut stream.progress;
                stream.sets.send_if_modified(|set| {
                    let is_new = *set != encoded;
                    if is_new {
                        progress.change(next.began);
                    }
                    *set = encoded;
                    is_new
                })
            }
            Err(Refusal::Malformed(reason)) => {
                // The last good configuration stays; the fault is shown by `faults`.
                warn!(node = %held.node.id, reason, "configuration not built");
                false
            }
            Err(refusal) => {
                info!(node = %held.node.id, reason = %refusal, "proxy is no longer served");
                state.streams.remove(&held.key);
                false
            }
        }
    }
}

impl Held {
    fn of(key: ProxyKey, stream: &Stream) -> Self {
        Self {
            key,
            peer: stream.peer.clone(),
            node: Arc::clone(&stream.node),
            name: stream.view.name.clone(),
            config: Arc::clone(&stream.config),
        }
    }
}

#[cfg(test)]
mod held;
#[cfg(test)]
mod tests;
#[cfg(test)]
mod theft;
#[cfg(test)]
mod walk;
