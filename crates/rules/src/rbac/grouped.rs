//! Makes one lookup of many comparisons with one subject, where one of them must hold.

use std::collections::BTreeMap;

use super::{
    condition::Condition,
    lookup::{AddressOf, Lookup, Ranges, Subject},
};
use crate::{Cidr, StringMatcher, route::HeaderTest};

/// From so many comparisons on a lookup is worth its memory.
const GROUP_MIN: usize = 4;

/// The same condition, with many comparisons of one subject made one lookup.
pub(super) fn grouped(condition: Condition) -> Condition {
    match condition {
        Condition::All(all) => Condition::All(all.into_iter().map(grouped).collect()),
        Condition::Any(any) => {
            let mut flat = Vec::with_capacity(any.len());
            for each in any {
                match grouped(each) {
                    Condition::Any(inner) => flat.extend(inner),
                    other => flat.push(other),
                }
            }
            Condition::Any(group(flat))
        }
        Condition::Not(inner) => Condition::Not(Box::new(grouped(*inner))),
        other => other,
    }
}

/// Makes lookups of those conditions, of which one must hold, that look at one subject.
fn group(conditions: Vec<Condition>) -> Vec<Condition> {
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
