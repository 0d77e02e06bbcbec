//! Finds the first route that matches, without trying each.

use std::{
    collections::{BTreeSet, HashMap},
    sync::Arc,
};

use regex::bytes::{RegexSet, RegexSetBuilder};
use smallvec::SmallVec;

use super::{PathMatch, RequestFacts, Route, predicate::path_of};
use crate::Case;

/// Up to this many routes are simply tried in order: cheaper than two hash look-ups.
const LINEAR_MAX: usize = 6;

/// Most memory of all expressions of a virtual host in one set; beyond it they are tried one by one.
const REGEX_SET_SIZE_MAX: usize = 16 << 20;

/// The routes of a virtual host by path.
///
/// Each table maps to the routes' places; the first place in order whose other conditions hold
/// wins, so that the tables give what trying each in order would give.
#[derive(Clone, Debug, Default)]
pub(crate) struct RouteIndex {
    tables: Option<Box<Tables>>,
}

#[derive(Clone, Debug)]
struct Tables {
    exact: HashMap<Box<str>, SmallVec<[u32; 2]>>,
    prefix: HashMap<Box<str>, SmallVec<[u32; 2]>>,
    /// The lengths of the prefixes, shortest first.
    lengths: Vec<usize>,
    regex: Option<(RegexSet, Vec<u32>)>,
    /// Routes that no table holds: case is ignored, or the method is CONNECT.
    others: Vec<u32>,
}

/// The index follows from the routes, which are compared already.
impl PartialEq for RouteIndex {
    fn eq(&self, other: &Self) -> bool {
        self.tables.is_some() == other.tables.is_some()
    }
}

impl RouteIndex {
    pub(crate) fn build(routes: &[Arc<Route>]) -> Self {
        Self { tables: (routes.len() > LINEAR_MAX).then(|| Box::new(Tables::build(routes))) }
    }

    /// The first route that matches.
    pub(crate) fn first_match<'t>(
        &self,
        routes: &'t [Arc<Route>],
        request: &impl RequestFacts,
    ) -> Option<&'t Arc<Route>> {
        let path = path_of(request.path());
        let fits = |route: &&Arc<Route>| {
            route.matches.path.matches(request, path) && route.matches.conditions_hold(request)
        };
        match &self.tables {
            None => routes.iter().find(fits),
            Some(tables) => {
                let mut candidates = tables.candidates(path);
                candidates.sort_unstable();
                candidates.iter().map(|at| &routes[*at as usize]).find(fits)
            }
        }
    }
}

impl Tables {
    fn build(routes: &[Arc<Route>]) -> Self {
        let mut tables = Self {
            exact: HashMap::new(),
            prefix: HashMap::new(),
            lengths: Vec::new(),
            regex: None,
            others: Vec::new(),
        };
        let mut lengths = BTreeSet::new();
        let (mut sources, mut places) = (Vec::new(), Vec::new());
        for (place, route) in (0u32..).zip(routes) {
            match &route.matches.path {
                PathMatch::Exact(text) if text.case() == Case::Sensitive => {
                    tables.exact.entry(text.as_str().into()).or_default().push(place);
                }
                PathMatch::Prefix(text) | PathMatch::SeparatedPrefix(text)
                    if text.case() == Case::Sensitive =>
                {
                    lengths.insert(text.as_str().len());
                    tables.prefix.entry(text.as_str().into()).or_default().push(place);
                }
                PathMatch::Regex(pattern) => {
                    sources.push(format!(r"\A(?:{})\z", pattern.source()));
                    places.push(place);
                }
                _ => tables.others.push(place),
            }
        }
        tables.lengths = lengths.into_iter().collect();
        if !sources.is_empty() {
            match RegexSetBuilder::new(&sources).size_limit(REGEX_SET_SIZE_MAX).build() {
                Ok(set) => tables.regex = Some((set, places)),
                Err(_) => tables.others.extend(places),
            }
        }
        tables
    }

    /// The places of all routes whose path may match.
    fn candidates(&self, path: &str) -> SmallVec<[u32; 16]> {
        let mut found: SmallVec<[u32; 16]> = SmallVec::from_slice(&self.others);
        found.extend(self.exact.get(path).into_iter().flatten().copied());
        for length in self.lengths.iter().take_while(|length| **length <= path.len()) {
            if let Some(places) = path.get(..*length).and_then(|prefix| self.prefix.get(prefix)) {
                found.extend(places.iter().copied());
            }
        }
        if let Some((set, places)) = &self.regex {
            found.extend(set.matches(path.as_bytes()).iter().map(|at| places[at]));
        }
        found
    }
}
