//! Finds the virtual host of a host name: by hash, never by scanning.

use std::collections::{BTreeMap, HashMap};

use smallvec::SmallVec;

/// Host names and wildcards with the place of their virtual host.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct HostTable {
    exact: HashMap<Box<str>, usize>,
    /// `*.example.com` as `.example.com`, by length, longest first.
    suffixes: Vec<(usize, HashMap<Box<str>, usize>)>,
    /// `example.*` as `example.`, by length, longest first.
    prefixes: Vec<(usize, HashMap<Box<str>, usize>)>,
    any: Option<usize>,
}

/// Two virtual hosts have the same domain.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct DuplicateDomain(pub(crate) String);

type ByLength = BTreeMap<usize, HashMap<Box<str>, usize>>;

impl HostTable {
    /// Builds the table of the domains of each virtual host.
    pub(crate) fn build<'d>(
        domains: impl Iterator<Item = (usize, &'d str)>,
    ) -> Result<Self, DuplicateDomain> {
        let mut table = Self::default();
        let (mut suffixes, mut prefixes) = (ByLength::new(), ByLength::new());
        for (at, written) in domains {
            let domain = written.to_ascii_lowercase();
            let before = if domain == "*" {
                table.any.replace(at)
            } else if let Some(suffix) = domain.strip_prefix('*') {
                suffixes.entry(suffix.len()).or_default().insert(suffix.into(), at)
            } else if let Some(prefix) = domain.strip_suffix('*') {
                prefixes.entry(prefix.len()).or_default().insert(prefix.into(), at)
            } else {
                table.exact.insert(domain.into(), at)
            };
            if before.is_some() {
                return Err(DuplicateDomain(written.to_owned()));
            }
        }
        table.suffixes = suffixes.into_iter().rev().collect();
        table.prefixes = prefixes.into_iter().rev().collect();
        Ok(table)
    }

    /// The place of the virtual host of a host name.
    pub(crate) fn find(&self, host: &str) -> Option<usize> {
        if !host.bytes().any(|byte| byte.is_ascii_uppercase()) {
            return self.find_lower(host);
        }
        let mut lower: SmallVec<[u8; 64]> = SmallVec::from_slice(host.as_bytes());
        lower.make_ascii_lowercase();
        self.find_lower(std::str::from_utf8(&lower).expect("lower case keeps UTF-8 valid"))
    }

    fn find_lower(&self, host: &str) -> Option<usize> {
        if let Some(at) = self.exact.get(host) {
            return Some(*at);
        }
        // A wildcard stands for at least one character.
        for (length, table) in &self.suffixes {
            if *length < host.len()
                && let Some(at) =
                    host.get(host.len() - length..).and_then(|suffix| table.get(suffix))
            {
                return Some(*at);
            }
        }
        for (length, table) in &self.prefixes {
            if *length < host.len()
                && let Some(at) = host.get(..*length).and_then(|prefix| table.get(prefix))
            {
                return Some(*at);
            }
        }
        self.any
    }
}
