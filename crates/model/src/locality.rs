//! Localities: region, zone and sub-zone of a workload, and how two of them compare.

use std::fmt;

/// A region, a zone in it and a sub-zone in that; parts that are not known are empty.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Locality {
    /// The region.
    pub region: String,
    /// The zone.
    pub zone: String,
    /// The sub-zone.
    pub sub_zone: String,
}

impl Locality {
    /// Reads `region/zone/sub-zone`; trailing parts may be missing, more than three are dropped.
    #[must_use]
    pub fn of(text: &str) -> Self {
        let mut parts = text.split('/').map(str::to_owned);
        let mut next = || parts.next().unwrap_or_default();
        Self { region: next(), zone: next(), sub_zone: next() }
    }

    /// Whether nothing is known.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.region.is_empty() && self.zone.is_empty() && self.sub_zone.is_empty()
    }

    /// How far another locality is: 0 for the same, 1 for another sub-zone, 2 for another zone, 3 for
    /// another region.
    #[must_use]
    pub fn distance(&self, other: &Self) -> u32 {
        if self.region != other.region {
            3
        } else if self.zone != other.zone {
            2
        } else {
            u32::from(self.sub_zone != other.sub_zone)
        }
    }

    /// Whether a pattern means this locality: `*` for any region, zone or sub-zone, and the same for
    /// parts that the pattern leaves out (Istio's `distribute`).
    #[must_use]
    pub fn is_meant_by(&self, pattern: &str) -> bool {
        let pattern = Self::of(pattern);
        let zone = |wanted: &str, part: &str| wanted == "*" || wanted.is_empty() || wanted == part;
        (pattern.region == "*" || pattern.region == self.region)
            && zone(&pattern.zone, &self.zone)
            && zone(&pattern.sub_zone, &self.sub_zone)
    }
}

impl fmt::Display for Locality {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let parts = [&self.region, &self.zone, &self.sub_zone];
        let known = parts.iter().rposition(|part| !part.is_empty()).map_or(0, |last| last + 1);
        let parts: Vec<&str> = parts[..known].iter().map(|part| part.as_str()).collect();
        f.write_str(&parts.join("/"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn localities_compare_from_region_to_sub_zone() {
        let check = |a: &str, b: &str, distance: u32| {
            assert_eq!(Locality::of(a).distance(&Locality::of(b)), distance, "{a} {b}");
        };
        check("r/z/s", "r/z/s", 0);
        check("r/z/s", "r/z/t", 1);
        check("r/z/s", "r/y/s", 2);
        check("r/z/s", "q/z/s", 3);
        check("", "", 0);
        check("", "r", 3);
    }

    #[test]
    fn a_pattern_may_leave_parts_open() {
        let check = |pattern: &str, locality: &str, expected: bool| {
            assert_eq!(
                Locality::of(locality).is_meant_by(pattern),
                expected,
                "{pattern} {locality}"
            );
        };
        check("*", "r/z/s", true);
        check("r", "r/z/s", true);
        check("r/*", "r/z/s", true);
        check("r/z", "r/z/s", true);
        check("r/z/t", "r/z/s", false);
        check("q", "r/z/s", false);
        check("*/z", "r/z", true);
    }

    #[test]
    fn a_locality_prints_as_it_is_read() {
        for text in ["r/z/s", "r/z", "r", ""] {
            assert_eq!(Locality::of(text).to_string(), text);
        }
    }
}
