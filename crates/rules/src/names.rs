//! The names that a sidecar's resolver answers.

use std::{collections::HashMap, net::IpAddr, sync::Arc};

/// From host names to addresses (NDS).
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Names {
    exact: HashMap<Box<str>, Arc<[IpAddr]>>,
    /// `*.example.com` as `.example.com`.
    wildcards: HashMap<Box<str>, Arc<[IpAddr]>>,
}

impl Names {
    /// Builds the table from names (`*.suffix` is a wildcard) and their addresses.
    #[must_use]
    pub fn new<'n>(entries: impl Iterator<Item = (&'n str, Vec<IpAddr>)>) -> Self {
        let mut names = Self::default();
        for (name, addresses) in entries {
            let name = name.strip_suffix('.').unwrap_or(name).to_ascii_lowercase();
            match name.strip_prefix('*') {
                Some(suffix) => names.wildcards.insert(suffix.into(), addresses.into()),
                None => names.exact.insert(name.into(), addresses.into()),
            };
        }
        names
    }

    /// The addresses of a name; `None` when the mesh does not know it.
    ///
    /// Case and a trailing dot do not matter. An exact name comes before wildcards, a longer
    /// wildcard before a shorter one; a wildcard covers one or more labels.
    #[must_use]
    pub fn lookup(&self, name: &str) -> Option<&Arc<[IpAddr]>> {
        let name = name.strip_suffix('.').unwrap_or(name).to_ascii_lowercase();
        self.exact.get(name.as_str()).or_else(|| {
            name.char_indices()
                .filter(|(at, c)| *c == '.' && *at > 0)
                .find_map(|(dot, _)| self.wildcards.get(&name[dot..]))
        })
    }

    /// How many names and wildcards there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.exact.len() + self.wildcards.len()
    }

    /// Whether there are no names.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names() -> Names {
        let entry = |name, ip: &str| (name, vec![ip.parse().unwrap()]);
        Names::new(
            [
                entry("api.data.local", "240.0.0.1"),
                entry("*.data.local", "240.0.0.2"),
                entry("*.Deep.data.local.", "240.0.0.3"),
            ]
            .into_iter(),
        )
    }

    #[track_caller]
    fn check(name: &str, expected: Option<&str>) {
        let names = names();
        let found = names.lookup(name).map(|ips| ips[0].to_string());
        assert_eq!(found.as_deref(), expected, "{name}");
    }

    #[test]
    fn the_most_specific_name_answers() {
        check("api.data.local", Some("240.0.0.1"));
        check("API.data.local.", Some("240.0.0.1"));
        check("x.data.local", Some("240.0.0.2"));
        check("x.y.data.local", Some("240.0.0.2"));
        check("x.deep.data.local", Some("240.0.0.3"));
        check("deep.data.local", Some("240.0.0.2"));
        check("data.local", None);
        check(".data.local", None);
        check("other.local", None);
        check("", None);
    }
}
