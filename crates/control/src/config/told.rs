//! One part of what proxies are told, and what becomes of it after a change.
//!
//! In:    a view or a class of views; a snapshot; what has changed in it.
//! Out:   encoded resources and faults.
//! Never: takes a shortcut of which it is not certain: then [`Told::after`] says nothing, and the part
//!        is made anew.

use std::{
    collections::{BTreeSet, HashMap},
    sync::{Arc, Mutex, PoisonError},
};

use sluis_envoy::{Encoded, EncodedSet, Kind, WeakKindSet};
use sluis_model::{Changes, MeshService, Snapshot, is_held};
use sluis_resources::{AuthorizationAction, Fault, Key, Kind as ResourceKind, Resolution};
use sluis_translate::{
    CLIENT_TLS, Known, Marks, Part, ProxyView, render_encoded, select_clusters, select_part,
};

/// What is made once for all: encoded resources, and sets of them.
#[derive(Debug, Default)]
pub(crate) struct Shelf {
    known: Known,
    /// Sets by the sum of what is in them.
    sets: Mutex<HashMap<(Kind, u64), WeakKindSet>>,
}

impl Shelf {
    /// The set with equal ones put in place of its own wherever somebody has them.
    fn share(&self, set: EncodedSet) -> EncodedSet {
        let mut sets = self.sets.lock().unwrap_or_else(PoisonError::into_inner);
        if sets.len() == sets.capacity() {
            sets.retain(|_, set| set.upgrade().is_some());
        }
        set.shared(|kind, own| {
            let key = (kind, own.sum());
            let known = sets.get(&key).and_then(WeakKindSet::upgrade);
            known.filter(|known| known == own).unwrap_or_else(|| {
                sets.insert(key, own.downgrade());
                own.clone()
            })
        })
    }
}

/// Whether objects of a kind are endpoints, or parts of them, and nothing else to other workloads.
pub(crate) fn is_endpoint(kind: ResourceKind) -> bool {
    matches!(kind, ResourceKind::EndpointSlice | ResourceKind::Pod | ResourceKind::WorkloadEntry)
}

/// One part of what proxies are told.
#[derive(Debug)]
pub(crate) struct Told {
    /// Who is told: a proxy, or a class of them.
    pub(crate) view: Arc<ProxyView>,
    /// Which part it is.
    pub(crate) part: Part,
    /// The resources.
    pub(crate) set: EncodedSet,
    /// What users asked for and did not get.
    pub(crate) faults: Vec<Fault>,
    mark: Mark,
}

/// The hash of what a part was made of.
#[derive(Debug, PartialEq, Eq)]
enum Mark {
    Whole(u128),
    /// Endpoints were replaced since: it is like nothing else.
    Patched,
}

impl Told {
    /// What a view is told; the very same as before where it is made of the same.
    pub(crate) fn new(
        view: &Arc<ProxyView>,
        part: Part,
        snapshot: &Snapshot,
        shelf: &Shelf,
        before: Option<&Arc<Self>>,
    ) -> Arc<Self> {
        let inputs = select_part(view, snapshot, part);
        let marks = Marks::of(&inputs);
        let mark = Mark::Whole(marks.whole());
        if let Some(before) = before.filter(|before| before.mark == mark) {
            return Arc::clone(before);
        }
        let (set, faults) = render_encoded(&inputs, &marks, &shelf.known);
        let set = shelf.share(set);
        Arc::new(Self { view: Arc::clone(view), part, set, faults, mark })
    }

    /// What becomes of it, where that is certain without making it anew.
    pub(crate) fn after(
        self: &Arc<Self>,
        changes: &Changes,
        snapshot: &Snapshot,
        shelf: &Shelf,
    ) -> Option<Arc<Self>> {
        match self.part {
            // Values of credentials are for gateways alone, which are told as a whole.
            Part::Inbound | Part::Outbound if changes.keys().all(is_held) => Some(Arc::clone(self)),
            Part::Inbound if !self.concerns_inbound(changes, snapshot) => Some(Arc::clone(self)),
            Part::Outbound if changes.keys().all(|key| is_endpoint(key.kind)) => {
                self.with_endpoints(changes, snapshot, shelf)
            }
            _ => None,
        }
    }

    /// Whether a change may bear on what the workload receives: not what other workloads are or where
    /// clients are led, nor services of other namespaces.
    fn concerns_inbound(&self, changes: &Changes, snapshot: &Snapshot) -> bool {
        let own = &self.view.name;
        // Another server that decides may be of any namespace.
        let asks = snapshot
            .authorization_policies(&own.namespace, &self.view.labels)
            .any(|policy| matches!(policy.spec().action, AuthorizationAction::Custom(_)));
        // So may a server of keys.
        let mut tokens = snapshot.request_authentications(&own.namespace, &self.view.labels);
        let asks = asks || tokens.next().is_some();
        let concerns = |key: &Key| match key.kind {
            ResourceKind::VirtualService | ResourceKind::Gateway => false,
            ResourceKind::WorkloadEntry | ResourceKind::Pod => key.name == *own,
            ResourceKind::EndpointSlice | ResourceKind::Service | ResourceKind::ServiceEntry => {
                asks || key.name.namespace == own.namespace
            }
            _ => true,
        };
        changes.keys().any(concerns)
    }

    /// Only endpoints have changed: replaces those of the services whose endpoints they may be.
    fn with_endpoints(
        self: &Arc<Self>,
        changes: &Changes,
        snapshot: &Snapshot,
        shelf: &Shelf,
    ) -> Option<Arc<Self>> {
        let namespaces: BTreeSet<&str> = changes.keys().map(|key| &*key.name.namespace).collect();
        let is_meant = |service: &MeshService| namespaces.contains(service.namespace());
        // Elsewhere than in clusters endpoints are read for headless services, and names make no
        // cluster where there are none.
        let is_plain = |service: &MeshService| {
            service.resolution == Resolution::Static && !service.is_headless
                || service.selector.is_none()
        };
        if snapshot.all_services().any(|service| is_meant(service) && !is_plain(service)) {
            return None;
        }
        let inputs = select_clusters(&self.view, snapshot, is_meant);
        if !inputs.faults.is_empty() || !self.faults.is_empty() {
            return None;
        }
        let (some, _) = render_encoded(&inputs, &Marks::of(&inputs), &shelf.known);
        let is_other = |kind: Kind, resource: &&Arc<Encoded>| {
            let before = self.set.get(kind, &resource.name);
            before.is_none_or(|before| before.version != resource.version)
        };
        let mut set = self.set.clone();
        let mut is_changed = false;
        for kind in [Kind::Cluster, Kind::Endpoints] {
            let changed: Vec<Arc<Encoded>> =
                some.of(kind).filter(|resource| is_other(kind, resource)).cloned().collect();
            let has_variant = |resource: &Arc<Encoded>| {
                let variant = format!("{}{CLIENT_TLS}", resource.name);
                self.set.get(Kind::Cluster, &variant).is_some()
            };
            if changed.iter().any(has_variant) {
                return None;
            }
            if !changed.is_empty() {
                is_changed = true;
                set = set.with(kind, changed);
            }
        }
        if !is_changed {
            return Some(Arc::clone(self));
        }
        let (set, mark) = (shelf.share(set), Mark::Patched);
        let (view, part) = (Arc::clone(&self.view), self.part);
        Some(Arc::new(Self { view, part, set, faults: Vec::new(), mark }))
    }
}
