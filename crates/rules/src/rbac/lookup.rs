//! Many comparisons with one value, made at once; and of what the values are.

use std::{
    collections::{BTreeMap, HashSet},
    net::IpAddr,
    sync::Arc,
};

use super::facts::RbacFacts;
use crate::{Case, Cidr, HeaderValues, StringMatcher, Text, address::masked};

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

    pub(super) fn add(&mut self, matcher: &StringMatcher) {
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

    pub(super) fn add(&mut self, range: Cidr) {
        let lengths = if range.network().is_ipv4() { &mut self.v4 } else { &mut self.v6 };
        lengths.entry(range.bits()).or_default().insert(range.network());
    }
}

/// What a lookup looks at.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) enum Subject {
    Principal,
    Path,
    ServerName,
    Header(Arc<str>),
}

/// Whose address.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) enum AddressOf {
    Destination,
    Source,
    DirectRemote,
    Remote,
}

impl Subject {
    /// Calls for each value that the subject has.
    pub(super) fn each<'f>(&self, facts: &RbacFacts<'f>, mut call: impl FnMut(&'f [u8])) {
        match self {
            Self::Principal => facts.peer.names().for_each(|name| call(name.as_bytes())),
            Self::Path => facts.path().into_iter().for_each(|path| call(path.as_bytes())),
            Self::ServerName => call(facts.peer.server_name.as_bytes()),
            Self::Header(name) => {
                let mut values = HeaderValues::new();
                if let Some(request) = facts.request {
                    request.any_header(name, &mut values);
                }
                values.into_iter().for_each(call);
            }
        }
    }
}

impl AddressOf {
    pub(super) fn of(self, facts: &RbacFacts<'_>) -> Option<IpAddr> {
        match self {
            Self::Destination => facts.peer.local.map(|local| local.ip()),
            Self::Source => facts.peer.source,
            Self::DirectRemote => facts.peer.direct_remote,
            Self::Remote => facts.peer.remote,
        }
    }
}
