//! Many comparisons with one value, made at once.

use std::{
    collections::{BTreeMap, HashSet},
    net::IpAddr,
};

use super::condition::{AddressOf, Condition, Subject};
use crate::{Case, Cidr, StringMatcher, Text, address::masked, route::HeaderTest};

/// From so many comparisons on a lookup is worth its memory.
const GROUP_MIN: usize = 4;

/// Texts of which a value must be one, or must start or end with one.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Lookup {
    sensitive: Texts,
    /// In lower case.
    folded: Texts,
}

#[derive(Clone, Debug, Default, PartialEq)]
struct Texts {
    exact: HashSet<Box<[u8]>>,
    /// By their length.
    prefixes: BTreeMap<usize, HashSet<Box<[u8]>>>,
    suffixes: BTreeMap<usize, HashSet<Box<[u8]>>>,
}

impl Lookup {
    /// Whether a value is among them.
    pub(super) fn has(&self, value: &[u8]) -> bool {
        self.sensitive.has(value)
            || (!self.folded.is_empty() && self.folded.has(&value.to_ascii_lowercase()))
    }

    fn add(&mut self, matcher: &StringMatcher) {
        let texts = |text: &Text| match text.case() {
            Case::Sensitive => false,
            Case::Ignored => true,
        };
        match matcher {
            StringMatcher::Exact(text) => {
                self.of(texts(text)).exact.insert(text.as_str().as_bytes().into());
            }
            StringMatcher::Prefix(text) => {
                let bytes = text.as_str().as_bytes();
                let prefixes = &mut self.of(texts(text)).prefixes;
                prefixes.entry(bytes.len()).or_default().insert(bytes.into());
            }
            StringMatcher::Suffix(text) => {
                let bytes = text.as_str().as_bytes();
                let suffixes = &mut self.of(texts(text)).suffixes;
                suffixes.entry(bytes.len()).or_default().insert(bytes.into());
            }
            StringMatcher::Contains(_) | StringMatcher::Regex(_) => {}
        }
    }

    fn of(&mut self, is_folded: bool) -> &mut Texts {
        if is_folded { &mut self.folded } else { &mut self.sensitive }
    }
}

impl Texts {
    fn is_empty(&self) -> bool {
        self.exact.is_empty() && self.prefixes.is_empty() && self.suffixes.is_empty()
    }

    fn has(&self, value: &[u8]) -> bool {
        let starts = |(len, set): (&usize, &HashSet<Box<[u8]>>)| {
            value.get(..*len).is_some_and(|start| set.contains(start))
        };
        let ends = |(len, set): (&usize, &HashSet<Box<[u8]>>)| {
            value.len().checked_sub(*len).is_some_and(|at| set.contains(&value[at..]))
        };
        self.exact.contains(value)
            || self.prefixes.iter().any(starts)
            || self.suffixes.iter().any(ends)
    }
}

/// Ranges of addresses, by how many bits are fixed.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Ranges {
    v4: BTreeMap<u8, HashSet<IpAddr>>,
    v6: BTreeMap<u8, HashSet<IpAddr>>,
}

impl Ranges {
    /// Whether an address is in one of them.
    pub(super) fn contain(&self, ip: IpAddr) -> bool {
        let lengths = if ip.is_ipv4() { &self.v4 } else { &self.v6 };
        lengths.iter().any(|(bits, networks)| networks.contains(&masked(ip, *bits)))
    }

    fn add(&mut self, range: Cidr) {
        let lengths = if range.network().is_ipv4() { &mut self.v4 } else { &mut self.v6 };
        lengths.entry(range.bits()).or_default().insert(range.network());
    }
}

/// Makes lookups of those conditions, of which one must hold, that look at one subject.
pub(super) fn group(conditions: Vec<Condition>) -> Vec<Condition> {
    let mut texts: BTreeMap<Subject, Vec<Condition>> = BTreeMap::new();
    let mut ranges: BTreeMap<AddressOf, Vec<Condition>> = BTreeMap::new();
    let mut rest = Vec::new();
    for condition in conditions {
        if let Some((subject, _)) = compared(&condition) {
            texts.entry(subject).or_default().push(condition);
        } else if let Some((of, _)) = ranged(&condition) {
            ranges.entry(of).or_default().push(condition);
        } else {
            rest.push(condition);
        }
    }
    let mut grouped = Vec::new();
    for (subject, conditions) in texts {
        if conditions.len() < GROUP_MIN {
            grouped.extend(conditions);
            continue;
        }
        let mut lookup = Lookup::default();
        conditions.iter().filter_map(compared).for_each(|(_, matcher)| lookup.add(matcher));
        grouped.push(Condition::Lookup(subject, lookup));
    }
    for (of, conditions) in ranges {
        if conditions.len() < GROUP_MIN {
            grouped.extend(conditions);
            continue;
        }
        let mut all = Ranges::default();
        conditions.iter().filter_map(ranged).for_each(|(_, range)| all.add(range));
        grouped.push(Condition::Ranges(of, all));
    }
    grouped.extend(rest);
    grouped
}

/// What a condition compares with a text of its own, where that can be looked up.
pub(super) fn compared(condition: &Condition) -> Option<(Subject, &StringMatcher)> {
    let (subject, matcher) = match condition {
        Condition::Authenticated(Some(matcher)) => (Subject::Principal, matcher),
        Condition::Path(matcher) => (Subject::Path, matcher),
        Condition::ServerName(matcher) => (Subject::ServerName, matcher),
        Condition::Header(header) if !header.invert && !header.missing_is_empty => {
            let HeaderTest::String(matcher) = &header.test else { return None };
            (Subject::Header(header.name.clone()), matcher)
        }
        _ => return None,
    };
    let is_simple = matches!(
        matcher,
        StringMatcher::Exact(_) | StringMatcher::Prefix(_) | StringMatcher::Suffix(_)
    );
    is_simple.then_some((subject, matcher))
}

fn ranged(condition: &Condition) -> Option<(AddressOf, Cidr)> {
    Some(match condition {
        Condition::Destination(range) => (AddressOf::Destination, *range),
        Condition::Source(range) => (AddressOf::Source, *range),
        Condition::DirectRemote(range) => (AddressOf::DirectRemote, *range),
        Condition::Remote(range) => (AddressOf::Remote, *range),
        _ => return None,
    })
}
