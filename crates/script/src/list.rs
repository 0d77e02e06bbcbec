//! A list of headers in one piece of memory, kept from run to run.

use std::ops::Range;

/// Names in lower case and values, in order.
#[derive(Debug, Default)]
pub(crate) struct HeaderList {
    bytes: Vec<u8>,
    entries: Vec<Entry>,
}

/// One header: places in the list's memory, which stay what they are until the list is cleared.
#[derive(Clone, Debug)]
pub(crate) struct Entry {
    name: Range<usize>,
    value: Range<usize>,
}

impl HeaderList {
    pub(crate) fn clear(&mut self) {
        self.bytes.clear();
        self.entries.clear();
    }

    /// The values of a header, in order. The name is in lower case.
    pub(crate) fn values<'x>(&'x self, name: &'x [u8]) -> impl Iterator<Item = &'x [u8]> {
        self.all().filter(move |(key, _)| *key == name).map(|(_, value)| value)
    }

    /// All headers, in order.
    pub(crate) fn all(&self) -> impl Iterator<Item = (&[u8], &[u8])> {
        self.entries.iter().map(|entry| self.get(entry))
    }

    /// The name and the value of an entry, whether it is still in the list or not.
    pub(crate) fn get(&self, entry: &Entry) -> (&[u8], &[u8]) {
        (&self.bytes[entry.name.clone()], &self.bytes[entry.value.clone()])
    }

    /// Stores a name, in lower case, and a value, without listing them.
    pub(crate) fn store(&mut self, name: &[u8], value: &[u8]) -> Entry {
        let start = self.bytes.len();
        self.bytes.extend_from_slice(name);
        let middle = self.bytes.len();
        self.bytes[start..middle].make_ascii_lowercase();
        self.bytes.extend_from_slice(value);
        Entry { name: start..middle, value: middle..self.bytes.len() }
    }

    /// Adds a header behind the others.
    pub(crate) fn add(&mut self, name: &[u8], value: &[u8]) -> Entry {
        let entry = self.store(name, value);
        self.entries.push(entry.clone());
        entry
    }

    /// Puts a header in the place of the first of its name; the others of its name go.
    pub(crate) fn replace(&mut self, name: &[u8], value: &[u8]) -> Entry {
        let entry = self.store(name, value);
        // A pseudo-header keeps its place before the others.
        let first = self.entries.iter().position(|old| self.bytes[old.name.clone()] == *name);
        self.remove(name);
        self.entries.insert(first.unwrap_or(self.entries.len()), entry.clone());
        entry
    }

    /// Removes all headers of the name, which is in lower case.
    pub(crate) fn remove(&mut self, name: &[u8]) {
        let bytes = &self.bytes;
        self.entries.retain(|old| bytes[old.name.clone()] != *name);
    }
}
