//! What the proxy wants of one kind, and what it has.
//!
//! In:    names that it subscribes to; sets of which it was sent everything that it wants.
//! Out:   whether it wants a name; what it has of it; the version of all that it has.
//! Never: copies a set: thousands of proxies hold the very same one, and each knows no more than that.

use std::collections::{BTreeMap, BTreeSet};

use std::sync::Arc;

use sluis_envoy::{Encoded, KindSet, mark};

/// The name that stands for every resource of a kind.
pub(super) const WILDCARD: &str = "*";

/// The names that are subscribed.
#[derive(Debug, Default)]
pub(super) struct Wanted {
    /// Everything of the kind.
    pub(super) wildcard: bool,
    /// The wildcard came from an empty list, the form before `*` existed.
    pub(super) wildcard_by_silence: bool,
    names: NameSet,
}

/// Names, of which most proxies want all that there are.
#[derive(Debug)]
enum NameSet {
    /// Exactly the names of a set.
    Of(KindSet),
    /// These.
    Own(BTreeSet<String>),
}

impl Default for NameSet {
    fn default() -> Self {
        Self::Own(BTreeSet::new())
    }
}

impl Wanted {
    /// Whether a resource of that name is wanted.
    pub(super) fn covers(&self, name: &str) -> bool {
        self.wildcard || self.names(name)
    }

    /// Whether the name itself is wanted, not by the wildcard.
    pub(super) fn names(&self, name: &str) -> bool {
        match &self.names {
            NameSet::Of(set) => set.get(name).is_some(),
            NameSet::Own(names) => names.contains(name),
        }
    }

    /// How many names there are.
    pub(super) fn count(&self) -> usize {
        match &self.names {
            NameSet::Of(set) => set.len(),
            NameSet::Own(names) => names.len(),
        }
    }

    /// Whether the names are exactly these.
    pub(super) fn is_exactly(&self, names: &BTreeSet<String>) -> bool {
        self.count() == names.len() && names.iter().all(|name| self.names(name))
    }

    /// Adds a name.
    pub(super) fn insert(&mut self, name: String) {
        self.own().insert(name);
    }

    /// Takes a name away.
    pub(super) fn remove(&mut self, name: &str) {
        if self.names(name) {
            self.own().remove(name);
        }
    }

    /// Replaces all names.
    pub(super) fn replace(&mut self, names: BTreeSet<String>) {
        self.names = NameSet::Own(names);
    }

    /// The names that are written down one by one: those that a set lacks are among them.
    pub(super) fn own_names(&self) -> Option<&BTreeSet<String>> {
        match &self.names {
            NameSet::Of(_) => None,
            NameSet::Own(names) => Some(names),
        }
    }

    /// Shares the names of a set, where they are the same.
    pub(super) fn share(&mut self, set: &KindSet) {
        let is_equal = match &self.names {
            NameSet::Of(known) if known.is_same(set) => return,
            NameSet::Of(known) => {
                !set.since(known).iter().any(|difference| difference.has_other_names)
            }
            NameSet::Own(names) => {
                !names.is_empty()
                    && names.len() == set.len()
                    && names.iter().all(|name| set.get(name).is_some())
            }
        };
        if is_equal {
            self.names = NameSet::Of(set.clone());
        } else {
            self.own();
        }
    }

    fn own(&mut self) -> &mut BTreeSet<String> {
        if let NameSet::Of(set) = &self.names {
            let names = set.iter().map(|resource| resource.name.clone()).collect();
            self.names = NameSet::Own(names);
        }
        match &mut self.names {
            NameSet::Own(names) => names,
            NameSet::Of(_) => unreachable!("made its own above"),
        }
    }
}

/// What the proxy has: everything that it wants of a set, but for some names.
#[derive(Clone, Debug, Default)]
pub(super) struct Held {
    pub(super) base: KindSet,
    pub(super) except: BTreeMap<String, Holding>,
}

/// What the proxy has of one name.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Holding {
    /// Nothing.
    Nothing,
    /// The knowledge that there is no such resource.
    Absence,
    /// This version, from an earlier stream.
    Version(String),
    /// This.
    Resource(Arc<Encoded>),
}

impl Holding {
    /// The version of what it is, if it is something.
    pub(super) fn version(&self) -> Option<&str> {
        match self {
            Self::Nothing | Self::Absence => None,
            Self::Version(version) => Some(version),
            Self::Resource(resource) => Some(&resource.version),
        }
    }
}

impl Held {
    /// What the proxy has of a name.
    pub(super) fn of(&self, name: &str, wanted: &Wanted) -> Holding {
        match self.except.get(name) {
            Some(holding) => holding.clone(),
            None if wanted.covers(name) => {
                self.base.get(name).map_or(Holding::Nothing, |r| Holding::Resource(Arc::clone(r)))
            }
            None => Holding::Nothing,
        }
    }

    /// The proxy has nothing of a name.
    pub(super) fn forget(&mut self, name: &str) {
        if self.base.get(name).is_some() {
            self.except.insert(name.to_owned(), Holding::Nothing);
        } else {
            self.except.remove(name);
        }
    }

    /// Writes down what is had of a base set, name by name, for what is wanted changes as a whole.
    pub(super) fn spell_out(&mut self, wanted: &Wanted) {
        for resource in std::mem::take(&mut self.base).iter() {
            if wanted.covers(&resource.name) && !self.except.contains_key(&resource.name) {
                let holding = Holding::Resource(Arc::clone(resource));
                self.except.insert(resource.name.clone(), holding);
            }
        }
    }

    /// The hash of what the proxy has, as 16 hexadecimal digits.
    pub(super) fn version(&self, wanted: &Wanted) -> String {
        let mut sum = match (&wanted.names, wanted.wildcard) {
            (_, true) => self.base.sum(),
            (NameSet::Of(set), false) if set.is_same(&self.base) => self.base.sum(),
            (NameSet::Of(_) | NameSet::Own(_), false) => {
                let held = self.base.iter().filter(|resource| wanted.names(&resource.name));
                held.map(|r| mark(&r.name, &r.version)).fold(0, u64::wrapping_add)
            }
        };
        for (name, holding) in &self.except {
            if let Some(resource) = self.base.get(name).filter(|_| wanted.covers(name)) {
                sum = sum.wrapping_sub(mark(name, &resource.version));
            }
            if let Some(version) = holding.version() {
                sum = sum.wrapping_add(mark(name, version));
            }
        }
        format!("{sum:016x}")
    }
}
