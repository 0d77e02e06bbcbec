//! Resources as they travel, shared among the proxies that hold the same.
//!
//! In:    resources with their bytes.
//! Out:   an [`EncodedSet`]: for each kind the resources by name, in layers that sets share; what is
//!        different between two of them.
//! Never: copies bytes: a set that differs in one resource from another shares all others with it.
//!
//! A layer is sorted by name, and no name is in two layers of one kind. Layers are compared by their
//! address first: thousands of proxies hold the very same layer, and what is different between it and
//! its successor is found once for all of them.

use std::{
    cmp::Ordering,
    collections::{BTreeMap, BTreeSet},
    fmt,
    sync::{Arc, OnceLock, Weak},
};

use envoy_types::pb::google::protobuf::Any;
use prost::Name;
use xxhash_rust::xxh3::{Xxh3, xxh3_64};

use crate::{Kind, canonical, pack, type_url};

/// One resource as it travels: its name, the hash of its content, and its bytes.
#[derive(Clone, PartialEq)]
pub struct Encoded {
    /// The name by which the resource is subscribed to.
    pub name: String,
    /// The hash of the bytes, as 16 hexadecimal digits. Equal content has an equal version.
    pub version: String,
    /// The resource itself.
    pub body: Any,
}

/// Without the bytes: those of a secret hold keys.
impl fmt::Debug for Encoded {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Encoded")
            .field("name", &self.name)
            .field("version", &self.version)
            .field("type_url", &self.body.type_url)
            .finish_non_exhaustive()
    }
}

impl Encoded {
    /// A resource of that kind and name. Equal messages give equal bytes.
    #[must_use]
    pub fn new<M: Name>(kind: Kind, name: &str, value: &M) -> Self {
        let mut body = pack(value);
        if let Some(maps) = maps(kind) {
            body.value = canonical::sorted(body.value, maps);
        }
        Self::of_body(name, body)
    }

    /// A resource put together of parts, each encoded by [`Encoded::part`]. Protobuf merges what
    /// stands behind each other; in the order of the fields the bytes are those of the whole.
    #[must_use]
    pub fn of_parts<M: Name>(name: &str, parts: &[Arc<[u8]>]) -> Self {
        Self::of_body(name, Any { type_url: type_url::<M>(), value: parts.concat() })
    }

    /// The bytes of a part of a resource of that kind: of a message with some of its fields.
    #[must_use]
    pub fn part<M: Name>(kind: Kind, value: &M) -> Arc<[u8]> {
        let bytes = value.encode_to_vec();
        match maps(kind) {
            Some(maps) => canonical::sorted(bytes, maps).into(),
            None => bytes.into(),
        }
    }

    fn of_body(name: &str, body: Any) -> Self {
        let version = format!("{:016x}", xxh3_64(&body.value));
        Self { name: name.to_owned(), version, body }
    }
}

/// Where resources of a kind hold maps, whose entries are sorted.
fn maps(kind: Kind) -> Option<&'static [canonical::Field]> {
    match kind {
        Kind::Cluster => Some(&canonical::CLUSTER),
        Kind::Endpoints => Some(&canonical::ENDPOINTS),
        Kind::Listener => Some(&canonical::LISTENER),
        Kind::Route => Some(&canonical::ROUTES),
        Kind::Secret | Kind::Extension | Kind::NameTable => None,
    }
}

/// What a proxy should hold, ready to be sent: for each kind, the resources by name.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct EncodedSet {
    kinds: BTreeMap<Kind, KindSet>,
}

/// The resources of one kind.
#[derive(Clone, Debug, Default)]
pub struct KindSet {
    layers: Vec<Arc<Layer>>,
}

/// A [`KindSet`] that is kept alive by others.
#[derive(Clone, Debug)]
pub struct WeakKindSet {
    layers: Vec<Weak<Layer>>,
}

impl WeakKindSet {
    /// The set, while somebody has it.
    #[must_use]
    pub fn upgrade(&self) -> Option<KindSet> {
        let layers: Option<Vec<_>> = self.layers.iter().map(Weak::upgrade).collect();
        Some(KindSet { layers: layers? })
    }
}

/// Resources of one kind, sorted by name.
#[derive(Debug, Default)]
struct Layer {
    all: Vec<Arc<Encoded>>,
    /// The sum of the marks of all; see [`mark`].
    sum: u64,
    /// What is different to one predecessor: the one that was asked about first.
    since: OnceLock<(Weak<Self>, Arc<Difference>)>,
}

/// What is different between two sets of one kind.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Difference {
    /// Resources that came, went or changed; of the newer set where it has them.
    pub resources: Vec<Arc<Encoded>>,
    /// Whether some name came or went.
    pub has_other_names: bool,
}

impl EncodedSet {
    /// The resources of one kind.
    #[must_use]
    pub fn kind(&self, kind: Kind) -> KindSet {
        self.kinds.get(&kind).cloned().unwrap_or_default()
    }

    /// The resources of one kind, in order of name within each layer.
    pub fn of(&self, kind: Kind) -> impl Iterator<Item = &Arc<Encoded>> {
        self.kinds.get(&kind).into_iter().flat_map(KindSet::iter)
    }

    /// One resource.
    #[must_use]
    pub fn get(&self, kind: Kind, name: &str) -> Option<&Arc<Encoded>> {
        self.kinds.get(&kind)?.get(name)
    }

    /// How many resources there are of one kind.
    #[must_use]
    pub fn count(&self, kind: Kind) -> usize {
        self.kinds.get(&kind).map_or(0, KindSet::len)
    }

    /// Replaces the resources of one kind. Of two of one name the last one stays.
    pub fn set(&mut self, kind: Kind, all: Vec<Arc<Encoded>>) {
        self.kinds.insert(kind, KindSet::new(all));
    }

    /// Takes a resource out. A name that is not there is no fault.
    pub fn remove(&mut self, kind: Kind, name: &str) {
        if self.get(kind, name).is_some() {
            let rest = self.of(kind).filter(|resource| resource.name != name).cloned().collect();
            self.set(kind, rest);
        }
    }

    /// This set with some resources of one kind put in place of those of the same names.
    #[must_use]
    pub fn with(&self, kind: Kind, some: Vec<Arc<Encoded>>) -> Self {
        let names: BTreeSet<&str> = some.iter().map(|resource| resource.name.as_str()).collect();
        let others = self.of(kind).filter(|resource| !names.contains(resource.name.as_str()));
        let all = others.cloned().chain(some.iter().cloned()).collect();
        let mut set = self.clone();
        set.set(kind, all);
        set
    }

    /// Both sets as one that shares their layers. Where both have a name, `self` has it.
    #[must_use]
    pub fn over(&self, base: &Self) -> Self {
        let mut both = base.clone();
        for (kind, own) in &self.kinds {
            let below = both.kinds.entry(*kind).or_default();
            if own.iter().any(|resource| below.get(&resource.name).is_some()) {
                let all = below.iter().chain(own.iter()).cloned().collect();
                *below = KindSet::new(all);
            } else {
                below.layers.extend(own.layers.iter().cloned());
            }
        }
        both
    }

    /// This set with each kind replaced by what `share` gives for it, which is equal to it.
    #[must_use]
    pub fn shared(mut self, mut share: impl FnMut(Kind, &KindSet) -> KindSet) -> Self {
        for (kind, own) in &mut self.kinds {
            let same = share(*kind, own);
            debug_assert!(same == *own, "what is shared is equal");
            *own = same;
        }
        self
    }
}

impl KindSet {
    /// A set of one layer. Of two resources of one name the last one stays.
    #[must_use]
    pub fn new(mut all: Vec<Arc<Encoded>>) -> Self {
        all.reverse();
        // The sort is stable: the last one of a name is now its first.
        all.sort_by(|a, b| a.name.cmp(&b.name));
        all.dedup_by(|later, first| later.name == first.name);
        if all.is_empty() {
            return Self::default();
        }
        let marks = all.iter().map(|resource| mark(&resource.name, &resource.version));
        let sum = marks.fold(0, u64::wrapping_add);
        Self { layers: vec![Arc::new(Layer { all, sum, since: OnceLock::new() })] }
    }

    /// The resources, in order of name within each layer.
    pub fn iter(&self) -> impl Iterator<Item = &Arc<Encoded>> {
        self.layers.iter().flat_map(|layer| &layer.all)
    }

    /// One resource.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<&Arc<Encoded>> {
        self.layers.iter().find_map(|layer| {
            let found = layer.all.binary_search_by(|resource| resource.name.as_str().cmp(name));
            found.ok().map(|index| &layer.all[index])
        })
    }

    /// Whether both hold the very same resources in the same order, as sets that were made of one
    /// another do: this takes no search.
    fn has_the_very_same(&self, other: &Self) -> bool {
        self.iter().zip(other.iter()).all(|(a, b)| Arc::ptr_eq(a, b))
    }

    fn has(&self, resource: &Arc<Encoded>) -> bool {
        let found = self.get(&resource.name);
        found.is_some_and(|found| Arc::ptr_eq(found, resource) || found == resource)
    }

    /// How many there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.layers.iter().map(|layer| layer.all.len()).sum()
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.layers.is_empty()
    }

    /// The sum of the marks of all resources; see [`mark`].
    #[must_use]
    pub fn sum(&self) -> u64 {
        self.layers.iter().fold(0, |sum, layer| sum.wrapping_add(layer.sum))
    }

    /// The set, without keeping it alive.
    #[must_use]
    pub fn downgrade(&self) -> WeakKindSet {
        WeakKindSet { layers: self.layers.iter().map(Arc::downgrade).collect() }
    }

    /// Whether both are made of the very same layers. They may be equal when they are not.
    #[must_use]
    pub fn is_same(&self, other: &Self) -> bool {
        self.layers.len() == other.layers.len()
            && self.layers.iter().zip(&other.layers).all(|(a, b)| Arc::ptr_eq(a, b))
    }

    /// What is different here to an older set. A resource that only changed its layer is listed too.
    #[must_use]
    pub fn since(&self, older: &Self) -> Vec<Arc<Difference>> {
        let none = || Arc::new(Layer::default());
        let count = self.layers.len().max(older.layers.len());
        let at = |set: &Self, index: usize| set.layers.get(index).map_or_else(none, Arc::clone);
        (0..count)
            .map(|index| (at(self, index), at(older, index)))
            .filter(|(new, old)| !Arc::ptr_eq(new, old))
            .map(|(new, old)| new.since(&old))
            .collect()
    }
}

impl PartialEq for KindSet {
    fn eq(&self, other: &Self) -> bool {
        self.is_same(other)
            || (self.len() == other.len()
                && self.sum() == other.sum()
                && (self.has_the_very_same(other)
                    || self.iter().all(|resource| other.has(resource))))
    }
}

impl Layer {
    fn since(self: &Arc<Self>, older: &Arc<Self>) -> Arc<Difference> {
        let (known, difference) = self
            .since
            .get_or_init(|| (Arc::downgrade(older), Arc::new(difference(&older.all, &self.all))));
        if Weak::as_ptr(known) == Arc::as_ptr(older) {
            return Arc::clone(difference);
        }
        Arc::new(difference_of(older, self))
    }
}

fn difference_of(older: &Layer, newer: &Layer) -> Difference {
    difference(&older.all, &newer.all)
}

/// What came, went or changed between two sorted lists.
fn difference(older: &[Arc<Encoded>], newer: &[Arc<Encoded>]) -> Difference {
    let mut found = Difference::default();
    let (mut old, mut new) = (older.iter().peekable(), newer.iter().peekable());
    loop {
        let order = match (old.peek(), new.peek()) {
            (None, None) => return found,
            (Some(_), None) => Ordering::Less,
            (None, Some(_)) => Ordering::Greater,
            (Some(a), Some(b)) => a.name.cmp(&b.name),
        };
        let gone = if order.is_le() { old.next() } else { None };
        let came = if order.is_ge() { new.next() } else { None };
        match (gone, came) {
            (Some(a), Some(b)) if Arc::ptr_eq(a, b) || a.version == b.version => {}
            (Some(_), Some(b)) => found.resources.push(Arc::clone(b)),
            (only, other) => {
                found.has_other_names = true;
                found.resources.extend(only.or(other).cloned());
            }
        }
    }
}

/// A hash of name and version. The sum of those of all resources that a proxy holds, in whatever
/// order, is the version of what it holds.
#[must_use]
pub fn mark(name: &str, version: &str) -> u64 {
    let mut hash = Xxh3::new();
    for part in [name, version] {
        hash.update(&(part.len() as u64).to_le_bytes());
        hash.update(part.as_bytes());
    }
    hash.digest()
}

#[cfg(test)]
mod tests {
    use envoy_types::pb::envoy::config::cluster::v3::Cluster;

    use super::*;

    fn resource(text: &str) -> Arc<Encoded> {
        let (name, content) = text.split_once('=').unwrap();
        let message = Cluster { alt_stat_name: content.to_owned(), ..Cluster::default() };
        Arc::new(Encoded::new(Kind::Cluster, name, &message))
    }

    fn set(text: &str) -> EncodedSet {
        let mut set = EncodedSet::default();
        set.set(Kind::Cluster, text.split_whitespace().map(resource).collect());
        set
    }

    fn names(set: &EncodedSet) -> Vec<&str> {
        set.of(Kind::Cluster).map(|resource| resource.name.as_str()).collect()
    }

    #[track_caller]
    fn check_difference(older: &EncodedSet, newer: &EncodedSet, expected: &str, other_names: bool) {
        let all = newer.kind(Kind::Cluster).since(&older.kind(Kind::Cluster));
        let found: Vec<&str> = all
            .iter()
            .flat_map(|difference| &difference.resources)
            .map(|resource| resource.name.as_str())
            .collect();
        assert_eq!(found.join(" "), expected);
        assert_eq!(all.iter().any(|difference| difference.has_other_names), other_names);
    }

    #[test]
    fn what_came_went_or_changed_is_found() {
        check_difference(&set("a=1 b=1 c=1"), &set("a=1 b=2 c=1"), "b", false);
        check_difference(&set("a=1 c=1"), &set("b=1 c=1"), "a b", true);
        check_difference(&set(""), &set("a=1"), "a", true);
        check_difference(&set("a=1"), &set(""), "a", true);
        let (one, two, three) = (set("a=1"), set("a=2"), set("a=1"));
        check_difference(&one, &two, "a", false);
        check_difference(&two, &three, "a", false);
        check_difference(&one, &three, "", false);
        check_difference(&set("z=1").over(&one), &set("z=2").over(&one), "z", false);
        check_difference(&one, &set("z=1").over(&one), "z", true);
    }

    #[test]
    fn layers_are_shared_and_names_stay_unique() {
        let (base, top) = (set("a=1 b=1"), set("c=1"));
        let both = top.over(&base);
        assert_eq!(names(&both), ["a", "b", "c"]);
        assert!(Arc::ptr_eq(
            both.get(Kind::Cluster, "a").unwrap(),
            base.get(Kind::Cluster, "a").unwrap()
        ));
        let both = set("a=2").over(&base);
        assert_eq!(names(&both), ["a", "b"]);
        assert_eq!(both.get(Kind::Cluster, "a"), Some(&resource("a=2")));
        assert_eq!(names(&base.with(Kind::Cluster, vec![resource("b=3")])), ["a", "b"]);
        let known = base.kind(Kind::Cluster).downgrade().upgrade().unwrap();
        let equal = set("a=1 b=1").shared(|_, _| known.clone());
        assert!(equal.kind(Kind::Cluster).is_same(&base.kind(Kind::Cluster)));
    }

    #[test]
    fn sets_are_equal_by_content_whatever_their_layers() {
        assert_eq!(set("b=1").over(&set("a=1")), set("a=1 b=1"));
        assert_ne!(set("b=2").over(&set("a=1")), set("a=1 b=1"));
        assert_eq!(
            set("b=1").over(&set("a=1")).kind(Kind::Cluster).sum(),
            set("a=1 b=1").kind(Kind::Cluster).sum()
        );
    }
}
