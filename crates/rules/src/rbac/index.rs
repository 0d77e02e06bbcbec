//! Finds the policies that may match without looking at the others.
//!
//! In:    the policies, each with what it needs.
//! Out:   for a request the policies that may match, in order.
//! Never: leaves out a policy that matches.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use smallvec::SmallVec;

use super::{
    Policy,
    facts::RbacFacts,
    keys::{Key, Needs, Part, Place, needs},
};

/// Places in a list of policies, in order.
type Places = Vec<u32>;

/// Which policies to try.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Index {
    tables: BTreeMap<Place, Table>,
    /// Those that no key tells from the others.
    rest: Places,
}

/// The policies that need one of the keys in one place.
#[derive(Clone, Debug, Default, PartialEq)]
struct Table {
    whole: HashMap<Box<str>, Places>,
    /// By length.
    starts: BTreeMap<usize, HashMap<Box<str>, Places>>,
    ends: BTreeMap<usize, HashMap<Box<str>, Places>>,
    namespaces: HashMap<Box<str>, Places>,
}

impl Index {
    pub(super) fn build(policies: &[Policy]) -> Self {
        let all: Vec<Needs> = policies.iter().map(|policy| needs(&policy.when)).collect();
        let mut shared: HashMap<(&Place, &Key), u32> = HashMap::new();
        for (place, keys) in all.iter().flatten() {
            for key in keys {
                *shared.entry((place, key)).or_default() += 1;
            }
        }
        let mut index = Self::default();
        for (at, needed) in all.iter().enumerate() {
            let at = u32::try_from(at).expect("a message holds fewer policies than 2^32");
            // The place whose keys tell the policy from most others.
            let worst = |(place, keys): &(&Place, &BTreeSet<Key>)| {
                keys.iter().map(|key| shared[&(*place, key)]).max()
            };
            match needed.iter().min_by_key(worst) {
                None => index.rest.push(at),
                Some((place, keys)) => {
                    let table = index.tables.entry(place.clone()).or_default();
                    keys.iter().for_each(|key| table.add(key, at));
                }
            }
        }
        index
    }

    /// The first policy that may match and does, as the caller finds.
    pub(super) fn candidates(
        &self,
        facts: &RbacFacts<'_>,
        mut matches: impl FnMut(usize) -> bool,
    ) -> Option<usize> {
        let mut found: SmallVec<[u32; 16]> = SmallVec::new();
        for (place, table) in &self.tables {
            match place {
                Place::Of(subject) => {
                    subject.each(facts, |value| table.find(value, &mut found));
                }
                Place::Port => {
                    if let Some(local) = facts.peer.local {
                        table.find(local.port().to_string().as_bytes(), &mut found);
                    }
                }
            }
        }
        found.sort_unstable();
        found.dedup();
        let mut rest = self.rest.iter().copied().peekable();
        let mut found = found.into_iter().peekable();
        loop {
            let next = match (rest.peek(), found.peek()) {
                (Some(a), Some(b)) if a < b => rest.next(),
                (Some(_), None) => rest.next(),
                _ => found.next(),
            }?;
            if matches(next as usize) {
                return Some(next as usize);
            }
        }
    }
}

impl Table {
    fn add(&mut self, (part, text): &Key, at: u32) {
        let map = match part {
            Part::Whole => &mut self.whole,
            Part::Start => self.starts.entry(text.len()).or_default(),
            Part::End => self.ends.entry(text.len()).or_default(),
            Part::Namespace => &mut self.namespaces,
        };
        map.entry(text.clone()).or_default().push(at);
    }

    fn find(&self, value: &[u8], found: &mut SmallVec<[u32; 16]>) {
        let lower: SmallVec<[u8; 128]> = value.iter().map(u8::to_ascii_lowercase).collect();
        // Keys are text: a value that is none has the keys of its text before and behind.
        let mut take = |map: &HashMap<Box<str>, Places>, part: &[u8]| {
            let Ok(part) = std::str::from_utf8(part) else { return };
            found.extend(map.get(part).into_iter().flatten().copied());
        };
        take(&self.whole, &lower);
        for (len, map) in &self.starts {
            let Some(start) = lower.get(..*len) else { break };
            take(map, start);
        }
        for (len, map) in &self.ends {
            let Some(at) = lower.len().checked_sub(*len) else { break };
            take(map, &lower[at..]);
        }
        if !self.namespaces.is_empty() {
            let mut from = 0;
            while let Some(at) = memchr::memmem::find(&lower[from..], b"/ns/") {
                let start = from + at + 4;
                let Some(len) = memchr::memchr(b'/', &lower[start..]) else { break };
                take(&self.namespaces, &lower[start..start + len]);
                // The slash that ends a name, or begins one, may begin the next `/ns/`.
                from = start - 1;
            }
        }
    }
}
