//! Host names and the wildcard patterns that stand for many of them.

use std::cmp::Ordering;
use std::collections::BTreeMap;
use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;
use std::sync::Arc;

use crate::name::is_dns_name;

/// A host as configuration writes it: an exact name or address, `*.suffix`, or `*`.
///
/// Kept in lower case. Cheap to clone. The order is that of the text; for Istio's "most specific
/// first" use [`HostPattern::by_specificity`].
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct HostPattern(Arc<str>);

impl HostPattern {
    /// Returns the pattern `*`.
    pub fn any() -> Self {
        Self("*".into())
    }

    /// Returns the pattern as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Returns whether the pattern is `*`.
    pub fn is_any(&self) -> bool {
        &*self.0 == "*"
    }

    /// Returns whether the pattern starts with `*`.
    pub fn is_wildcard(&self) -> bool {
        self.0.starts_with('*')
    }

    /// Returns the name, when the pattern is exact.
    pub fn exact(&self) -> Option<&str> {
        (!self.is_wildcard()).then_some(&*self.0)
    }

    /// Returns what follows the `*` of a wildcard: `.example.com` for `*.example.com`, nothing for
    /// `*`. `None` when the pattern is exact.
    pub fn suffix(&self) -> Option<&str> {
        self.0.strip_prefix('*')
    }

    /// Returns the address, when the pattern is a literal one.
    pub fn ip(&self) -> Option<IpAddr> {
        self.0.parse().ok()
    }

    /// Returns whether a host's name (without port) falls under the pattern, in any letter case.
    ///
    /// As in Envoy, `*.example.com` stands for `a.example.com` and `a.b.example.com` and not for
    /// `example.com`: the star stands for at least one character.
    pub fn matches(&self, host: &str) -> bool {
        match self.suffix() {
            None => self.0.eq_ignore_ascii_case(host),
            Some("") => true,
            Some(suffix) => {
                let Some(cut) = host.len().checked_sub(suffix.len()) else { return false };
                cut > 0 && host.as_bytes()[cut..].eq_ignore_ascii_case(suffix.as_bytes())
            }
        }
    }

    /// Returns whether each host under `other` falls under this pattern too.
    pub fn covers(&self, other: &Self) -> bool {
        match (self.suffix(), other.suffix()) {
            (Some(mine), Some(theirs)) => theirs.ends_with(mine),
            (None, Some(_)) => false,
            (_, None) => self.matches(&other.0),
        }
    }

    /// Returns whether some host falls under both patterns.
    pub fn overlaps(&self, other: &Self) -> bool {
        self.covers(other) || other.covers(self)
    }

    /// Orders patterns with the most specific first, as Istio does: exact before wildcard, a longer
    /// wildcard before a shorter one, `*` last; then by text.
    pub fn by_specificity(&self, other: &Self) -> Ordering {
        let rank = |pattern: &Self| (pattern.is_wildcard(), std::cmp::Reverse(pattern.0.len()));
        match (self.is_wildcard(), other.is_wildcard()) {
            (false, false) => self.0.cmp(&other.0),
            _ => rank(self).cmp(&rank(other)).then_with(|| self.0.cmp(&other.0)),
        }
    }

    /// Completes a short service name: `reviews` in namespace `prod` becomes
    /// `reviews.prod.svc.<domain>`. Names with a dot, addresses and wildcards stay as they are.
    pub fn qualified(&self, namespace: &str, domain: &str) -> Self {
        if self.0.contains(['.', '*', ':']) {
            return self.clone();
        }
        Self(format!("{}.{namespace}.svc.{domain}", self.0).to_ascii_lowercase().into())
    }
}

/// Host patterns among which none may overlap with another. Asking takes no longer for many of them.
#[derive(Clone, Debug, Default)]
pub struct DisjointHosts {
    /// Each pattern by its text without the star, read backwards, so that what falls under a wildcard
    /// follows it. `b` and `*b` have one key and do not overlap.
    backwards: BTreeMap<Vec<u8>, Vec<HostPattern>>,
}

impl DisjointHosts {
    /// Adds a pattern, and returns one of the earlier ones that it overlaps with, if there is one; then
    /// the pattern is not added.
    pub fn add(&mut self, host: &HostPattern) -> Option<HostPattern> {
        let text = host.suffix().unwrap_or(host.as_str());
        let key: Vec<u8> = text.bytes().rev().collect();
        let wider = (0..=key.len()).filter_map(|end| self.backwards.get(&key[..end]));
        let narrower = self.backwards.range(key.clone()..).take(2).map(|(_, others)| others);
        let found = wider.chain(narrower).flatten().find(|other| other.overlaps(host)).cloned();
        if found.is_none() {
            self.backwards.entry(key).or_default().push(host.clone());
        }
        found
    }
}

impl FromStr for HostPattern {
    type Err = HostPatternError;

    /// Reads an exact name, an IP address, `*`, `*.suffix`, or `*` glued to a name (`*-a.b`), which
    /// Istio takes too. A final dot is refused.
    fn from_str(text: &str) -> Result<Self, HostPatternError> {
        let refused = |reason| Err(HostPatternError { text: text.to_owned(), reason });
        if text.is_empty() {
            return refused("it is empty");
        }
        let Some(suffix) = text.strip_prefix('*') else {
            if text.contains('*') {
                return refused("a '*' is allowed only at the start");
            }
            if text.parse::<IpAddr>().is_err() && !(is_name(text) || is_mesh_sni(text)) {
                return refused(
                    "labels of letters, digits and inner '-' with dots between them are allowed",
                );
            }
            return Ok(Self(text.to_ascii_lowercase().into()));
        };
        if suffix.contains('*') {
            return refused("a '*' is allowed only at the start");
        }
        let rest = suffix.strip_prefix(['.', '-']).unwrap_or(suffix);
        if !(suffix.is_empty() || is_dns_name(rest)) {
            return refused("what follows the '*' is not a DNS name");
        }
        Ok(Self(text.to_ascii_lowercase().into()))
    }
}

/// Returns whether `text` is a name and not an unfinished address: the last label is not a number.
fn is_name(text: &str) -> bool {
    let last = text.rsplit('.').next().unwrap_or_default();
    is_dns_name(text) && !last.bytes().all(|b| b.is_ascii_digit())
}

/// Returns whether `text` is the server name that proxies of one mesh use among themselves:
/// `outbound_.80_.subset_.host`.
fn is_mesh_sni(text: &str) -> bool {
    let parts: Vec<&str> = text.splitn(4, '_').collect();
    let ["outbound", port, subset, host] = parts.as_slice() else { return false };
    let port = port.strip_prefix('.').unwrap_or_default();
    let subset = subset.strip_prefix('.').unwrap_or("?");
    !port.is_empty()
        && port.bytes().all(|b| b.is_ascii_digit())
        && (subset.is_empty() || is_dns_name(subset))
        && host.strip_prefix('.').is_some_and(is_name)
}

impl fmt::Display for HostPattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for HostPattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "HostPattern({})", self.0)
    }
}

/// Why some text is not a host pattern.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{text:?} is not a host: {reason}")]
pub struct HostPatternError {
    text: String,
    reason: &'static str,
}

#[cfg(test)]
mod tests {
    use super::{DisjointHosts, HostPattern};

    fn host(text: &str) -> HostPattern {
        text.parse().unwrap()
    }

    #[test]
    fn a_pattern_matches_the_hosts_under_it() {
        for (pattern, name, expected) in [
            ("a.com", "a.com", true),
            ("a.com", "A.COM", true),
            ("A.com", "a.com", true),
            ("a.com", "b.a.com", false),
            ("*.a.com", "b.a.com", true),
            ("*.a.com", "c.b.A.com", true),
            ("*.a.com", "a.com", false),
            ("*.a.com", ".a.com", false),
            ("*.a.com", "evila.com", false),
            ("*", "anything", true),
            ("*-x.com", "b-x.com", true),
        ] {
            assert_eq!(host(pattern).matches(name), expected, "{pattern} {name}");
        }
    }

    #[test]
    fn a_wider_pattern_covers_a_narrower_one() {
        for (wide, narrow, expected) in [
            ("*", "*.a.com", true),
            ("*", "a.com", true),
            ("*.com", "*.a.com", true),
            ("*.a.com", "*.com", false),
            ("*.a.com", "b.a.com", true),
            ("b.a.com", "*.a.com", false),
            ("a.com", "a.com", true),
        ] {
            assert_eq!(host(wide).covers(&host(narrow)), expected, "{wide} {narrow}");
        }
    }

    #[test]
    fn the_most_specific_pattern_comes_first() {
        let mut hosts: Vec<_> =
            ["*", "*.com", "b.com", "*.a.com", "a.com"].into_iter().map(host).collect();
        hosts.sort_by(HostPattern::by_specificity);
        let texts: Vec<_> = hosts.iter().map(HostPattern::as_str).collect();
        assert_eq!(texts, ["a.com", "b.com", "*.a.com", "*.com", "*"]);
    }

    #[test]
    fn short_names_are_completed_with_namespace_and_domain() {
        for (short, expected) in [
            ("reviews", "reviews.prod.svc.cluster.local"),
            ("reviews.test", "reviews.test"),
            ("*", "*"),
            ("10.0.0.1", "10.0.0.1"),
            ("::1", "::1"),
        ] {
            assert_eq!(host(short).qualified("prod", "cluster.local"), host(expected));
        }
    }

    #[test]
    fn what_is_not_a_host_is_refused() {
        for text in ["", "a b", "a.*", "*.*", "**", "http://a", "a..b", "a.", "a:80", "*."] {
            assert!(text.parse::<HostPattern>().is_err(), "{text}");
        }
    }

    #[test]
    fn overlapping_hosts_are_found_among_many() {
        let hosts = |texts: &[&str]| -> Vec<HostPattern> {
            texts.iter().map(|text| text.parse().unwrap()).collect()
        };
        let all = hosts(&[
            "a", "a.b", "*.b", "x.a.b", "*", "*.c", "*-d.c", "q.c", "b", "xb", "*b", "c", "*.a.b",
            "1.2.3.4", "*.4",
        ]);
        for left in &all {
            for right in &all {
                let mut disjoint = DisjointHosts::default();
                assert_eq!(disjoint.add(left), None);
                let expected = left.overlaps(right).then(|| left.clone());
                assert_eq!(disjoint.add(right), expected, "{left} {right}");
            }
        }
        // The nearest neighbour is not the one that overlaps.
        let mut disjoint = DisjointHosts::default();
        let [wide, near, host] = &hosts(&["*.b", "a.c", "z.a.b"])[..] else { panic!() };
        assert_eq!((disjoint.add(wide), disjoint.add(near)), (None, None));
        assert_eq!(disjoint.add(host), Some(wide.clone()));
        // Two patterns with one text.
        let mut disjoint = DisjointHosts::default();
        let [exact, wild, under] = &hosts(&["b", "*b", "ab"])[..] else { panic!() };
        assert_eq!((disjoint.add(exact), disjoint.add(wild)), (None, None));
        assert_eq!(disjoint.add(exact), Some(exact.clone()));
        assert_eq!(disjoint.add(under), Some(wild.clone()));
        let mut disjoint = DisjointHosts::default();
        assert_eq!((disjoint.add(exact), disjoint.add(under)), (None, None));
        assert_eq!(disjoint.add(wild), Some(under.clone()));
    }
}
