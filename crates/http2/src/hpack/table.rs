//! The dynamic table (RFC 7541 §2.3.2, §4): a ring of entries, their bytes in one piece.
//!
//! In:    fields to remember.
//! Out:   the entries that have not been pushed out, by age.
//! Never: counts more than its maximum size, or holds more bytes than twice that.

use std::collections::VecDeque;

use super::FIELD_OVERHEAD;

/// Entries by age. It holds no memory until the first is put in.
pub(super) struct Table {
    entries: VecDeque<Entry>,
    /// Names and values; what lies before the oldest entry is dead until `make_room` drops it.
    bytes: Vec<u8>,
    size: usize,
    size_max: usize,
    /// How many entries have been put in since the beginning, modulo 2^32.
    inserted: u32,
}

/// The name is `bytes[at..][..name]`, the value follows it up to `len`.
#[derive(Clone, Copy)]
struct Entry {
    at: u32,
    name: u32,
    len: u32,
    known: u8,
}

/// An entry, seen from outside.
pub(super) struct View<'a> {
    /// The name and the value, one after the other.
    pub(super) bytes: &'a [u8],
    /// The name's length.
    pub(super) name: usize,
    /// As in [`super::Field`].
    pub(super) known: u8,
}

impl View<'_> {
    pub(super) fn is(&self, name: &[u8], value: &[u8]) -> bool {
        let (own_name, own_value) = self.bytes.split_at(self.name);
        own_value == value && own_name == name
    }

    pub(super) fn name(&self) -> &[u8] {
        &self.bytes[..self.name]
    }
}

impl Table {
    pub(super) fn new(size_max: usize) -> Self {
        Self { entries: VecDeque::new(), bytes: Vec::new(), size: 0, size_max, inserted: 0 }
    }

    pub(super) fn size_max(&self) -> usize {
        self.size_max
    }

    #[cfg(test)]
    pub(super) fn size(&self) -> usize {
        self.size
    }

    #[cfg(test)]
    pub(super) fn bytes_held(&self) -> usize {
        self.bytes.len()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// The number of the newest entry, by which `age` finds it again.
    pub(super) fn newest(&self) -> u32 {
        self.inserted
    }

    /// How many entries are newer than the one of this number, if it is still there.
    #[inline]
    pub(super) fn age(&self, number: u32) -> Option<usize> {
        let age = self.inserted.wrapping_sub(number) as usize;
        (age < self.entries.len()).then_some(age)
    }

    /// The entry of an age; 0 is the newest.
    #[inline]
    pub(super) fn get(&self, age: usize) -> Option<View<'_>> {
        let at = self.entries.len().checked_sub(age + 1)?;
        let entry = self.entries.get(at)?;
        Some(View {
            bytes: &self.bytes[entry.at as usize..(entry.at + entry.len) as usize],
            name: entry.name as usize,
            known: entry.known,
        })
    }

    /// Changes the size and drops the entries that it has no room for (RFC 7541 §4.3).
    pub(super) fn resize(&mut self, size_max: usize) {
        self.size_max = size_max;
        self.evict(size_max);
    }

    /// Puts a field in, whose name has `name` of the octets. One larger than the table only empties
    /// it (RFC 7541 §4.4).
    pub(super) fn insert(&mut self, field: &[&[u8]], name: usize, known: u8) {
        let len: usize = field.iter().map(|piece| piece.len()).sum();
        let Some(left) = self.size_max.checked_sub(len + FIELD_OVERHEAD) else {
            self.evict(0);
            return;
        };
        self.evict(left);
        self.make_room(len);
        self.entries.push_back(Entry {
            at: small(self.bytes.len()),
            name: small(name),
            len: small(len),
            known,
        });
        for piece in field {
            self.bytes.extend_from_slice(piece);
        }
        self.size += len + FIELD_OVERHEAD;
        self.inserted = self.inserted.wrapping_add(1);
    }

    #[inline]
    fn evict(&mut self, size_max: usize) {
        while self.size > size_max {
            let entry = self.entries.pop_front().expect("a size without entries is zero");
            self.size -= entry.len as usize + FIELD_OVERHEAD;
        }
    }

    /// Drops the dead bytes once they outweigh all that the table may hold: each byte is moved at
    /// most once for each that has died.
    #[inline]
    fn make_room(&mut self, len: usize) {
        if self.entries.is_empty() {
            self.bytes.clear();
        } else if self.bytes.len() + len > 2 * self.size_max {
            let dead = self.entries[0].at;
            self.bytes.drain(..dead as usize);
            for entry in &mut self.entries {
                entry.at -= dead;
            }
        }
    }
}

/// A table's bytes are bounded by twice its size, which has 32 bits and is configured far below.
#[inline]
fn small(number: usize) -> u32 {
    u32::try_from(number).expect("a table is smaller than 2 GiB")
}
