//! Key-value labels, and the equality selectors made of them.

use std::collections::{BTreeMap, btree_map};
use std::fmt;

/// A set of labels, in the order of their keys. Also used as a selector: see [`Labels::matches`].
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Labels(BTreeMap<String, String>);

impl Labels {
    /// Makes an empty set.
    pub const fn new() -> Self {
        Self(BTreeMap::new())
    }

    /// Returns whether each label of `selector` is among these labels with an equal value.
    ///
    /// An empty selector matches everything.
    pub fn matches(&self, selector: &Self) -> bool {
        selector.0.iter().all(|(key, value)| self.0.get(key) == Some(value))
    }

    /// Returns the value of a label.
    pub fn get(&self, key: &str) -> Option<&str> {
        self.0.get(key).map(String::as_str)
    }

    /// Sets a label and returns the value it had.
    pub fn insert(&mut self, key: impl Into<String>, value: impl Into<String>) -> Option<String> {
        self.0.insert(key.into(), value.into())
    }

    /// Iterates over the labels in the order of their keys.
    pub fn iter(&self) -> btree_map::Iter<'_, String, String> {
        self.0.iter()
    }

    /// Returns whether there is no label.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Returns how many labels there are.
    pub fn len(&self) -> usize {
        self.0.len()
    }
}

impl<'a> IntoIterator for &'a Labels {
    type Item = (&'a String, &'a String);
    type IntoIter = btree_map::Iter<'a, String, String>;

    fn into_iter(self) -> Self::IntoIter {
        self.0.iter()
    }
}

impl<K: Into<String>, V: Into<String>> FromIterator<(K, V)> for Labels {
    fn from_iter<I: IntoIterator<Item = (K, V)>>(labels: I) -> Self {
        Self(labels.into_iter().map(|(key, value)| (key.into(), value.into())).collect())
    }
}

impl fmt::Display for Labels {
    /// Writes `a=1,b=2`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, (key, value)) in self.0.iter().enumerate() {
            let comma = if index == 0 { "" } else { "," };
            write!(f, "{comma}{key}={value}")?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::Labels;

    #[test]
    fn a_selector_matches_when_each_of_its_labels_is_present() {
        let labels: Labels = [("app", "a"), ("version", "v1")].into_iter().collect();
        let check = |selector: &[(&str, &str)], expected: bool| {
            let selector: Labels = selector.iter().copied().collect();
            assert_eq!(labels.matches(&selector), expected, "{selector}");
        };
        check(&[], true);
        check(&[("app", "a")], true);
        check(&[("app", "a"), ("version", "v1")], true);
        check(&[("app", "b")], false);
        check(&[("app", "a"), ("zone", "1")], false);
    }
}
