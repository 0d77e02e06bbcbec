//! Conditions of policies: permissions and principals in one form.
//!
//! In:    a condition and the facts.
//! Out:   yes, no, or that it cannot be said ([`Holds`]), by the logic of three values.
//! Never: takes "cannot be said" for an answer.

use std::str;

use super::{
    facts::RbacFacts,
    lookup::{AddressOf, Lookup, Ranges, Subject},
};
use crate::{
    Cidr, HeaderMatch, HeaderValues, MetadataMatch, Pattern, StringMatcher, route::HeaderTest,
};

/// What must be so.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Condition {
    Always,
    All(Vec<Self>),
    Any(Vec<Self>),
    Not(Box<Self>),
    Header(HeaderMatch),
    /// The path without query and fragment.
    Path(StringMatcher),
    Template(Pattern),
    ServerName(StringMatcher),
    /// Our own address.
    Destination(Cidr),
    /// Our own port, from the first (included) to the second (excluded).
    Port(u32, u32),
    /// Any of the client's names; `None`: that TLS was terminated.
    Authenticated(Option<StringMatcher>),
    Source(Cidr),
    DirectRemote(Cidr),
    Remote(Cidr),
    Metadata(MetadataMatch),
    /// Many comparisons with one subject, of which one must hold.
    Lookup(Subject, Lookup),
    /// The same of addresses.
    Ranges(AddressOf, Ranges),
}

/// Whether a condition holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Holds {
    Yes,
    No,
    /// It cannot be said.
    Unknown,
}

impl From<bool> for Holds {
    fn from(holds: bool) -> Self {
        if holds { Self::Yes } else { Self::No }
    }
}

impl Condition {
    /// Whether the condition holds.
    pub(super) fn holds(&self, facts: &RbacFacts<'_>) -> Holds {
        let ip = |range: &Cidr, of: AddressOf| of.of(facts).is_some_and(|ip| range.contains(ip));
        match self {
            Self::Always => Holds::Yes,
            Self::All(all) => all_of(all, facts),
            Self::Any(any) => any_of(any, facts),
            Self::Not(inner) => match inner.holds(facts) {
                Holds::Yes => Holds::No,
                Holds::No => Holds::Yes,
                Holds::Unknown => Holds::Unknown,
            },
            Self::Header(header) => of_header(header, facts),
            Self::Path(matcher) => {
                facts.path().map_or(Holds::No, |path| of_text(matcher, path.as_bytes()))
            }
            Self::Template(pattern) => {
                facts.path().is_some_and(|path| pattern.matches(path.as_bytes())).into()
            }
            Self::ServerName(matcher) => of_text(matcher, facts.peer.server_name.as_bytes()),
            Self::Port(start, end) => {
                let port = facts.peer.local.map(|local| u32::from(local.port()));
                port.is_some_and(|port| (*start..*end).contains(&port)).into()
            }
            Self::Authenticated(None) => facts.peer.is_tls.into(),
            Self::Authenticated(Some(matcher)) => {
                any(facts.peer.names().map(|name| of_name(matcher, name)))
            }
            Self::Destination(range) => ip(range, AddressOf::Destination).into(),
            Self::Source(range) => ip(range, AddressOf::Source).into(),
            Self::DirectRemote(range) => ip(range, AddressOf::DirectRemote).into(),
            Self::Remote(range) => ip(range, AddressOf::Remote).into(),
            Self::Metadata(matcher) => matcher.matches(Some(facts.metadata)).into(),
            Self::Lookup(subject, lookup) => {
                let mut found = false;
                subject.each(facts, |value| found = found || lookup.has(value));
                found.into()
            }
            Self::Ranges(of, ranges) => of.of(facts).is_some_and(|ip| ranges.contain(ip)).into(),
        }
    }

    pub(super) fn asks_for_headers(&self) -> bool {
        match self {
            Self::Header(_) | Self::Lookup(Subject::Header(_), _) => true,
            Self::All(all) | Self::Any(all) => all.iter().any(Self::asks_for_headers),
            Self::Not(inner) => inner.asks_for_headers(),
            _ => false,
        }
    }
}

fn all_of(all: &[Condition], facts: &RbacFacts<'_>) -> Holds {
    let mut result = Holds::Yes;
    for each in all {
        match each.holds(facts) {
            Holds::No => return Holds::No,
            Holds::Unknown => result = Holds::Unknown,
            Holds::Yes => {}
        }
    }
    result
}

fn any_of(all: &[Condition], facts: &RbacFacts<'_>) -> Holds {
    any(all.iter().map(|each| each.holds(facts)))
}

fn any(all: impl Iterator<Item = Holds>) -> Holds {
    let mut result = Holds::No;
    for holds in all {
        match holds {
            Holds::Yes => return Holds::Yes,
            Holds::Unknown => result = Holds::Unknown,
            Holds::No => {}
        }
    }
    result
}

/// An expression over bytes that are no text has no answer (CVE-2026-73552).
fn of_text(matcher: &StringMatcher, value: &[u8]) -> Holds {
    match matcher {
        StringMatcher::Regex(_) if str::from_utf8(value).is_err() => Holds::Unknown,
        matcher => matcher.matches(value).into(),
    }
}

/// A name with a line break in it is nobody's: what expressions make of it differs.
fn of_name(matcher: &StringMatcher, name: &str) -> Holds {
    match matcher {
        StringMatcher::Regex(_) | StringMatcher::Contains(_) if name.contains('\n') => {
            Holds::Unknown
        }
        matcher => matcher.matches(name.as_bytes()).into(),
    }
}

fn of_header(header: &HeaderMatch, facts: &RbacFacts<'_>) -> Holds {
    let mut values = HeaderValues::new();
    if let Some(request) = facts.request {
        request.any_header(&header.name, &mut values);
    }
    if let HeaderTest::String(StringMatcher::Regex(_)) = &header.test
        && values.iter().any(|value| str::from_utf8(value).is_err())
    {
        return Holds::Unknown;
    }
    header.matches_values(&values).into()
}
