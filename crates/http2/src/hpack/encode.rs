//! Fields written as field blocks (RFC 7541 §6).
//!
//! In:    fields, one after the other, and whether they may be remembered.
//! Out:   the bytes of field blocks.
//! Never: puts a value into its table, or a trace of it, that its owner calls a secret.
//!
//! What enters the table: a field that is sent for the second time while the first is not long ago.
//! What changes with every message (`:path` of a resource, `x-request-id`, `traceparent`,
//! `content-length` of a page) thus never pushes out what stays the same, with no list of names;
//! what holds for a while (`date` within a second, a gRPC method's `:path`) still becomes one octet;
//! a connection of one request never allocates a table. The price is that a constant field is spelled
//! out twice.
//!
//! Huffman's code is used for what enters the table, which is paid once and sent often. What is sent
//! once goes as it is: coding takes some ten instructions an octet, and decoding as many at the peer,
//! to save a fifth of bytes that fit into the same packet.

use std::hash::{BuildHasher, Hasher};

use foldhash::fast::FixedState;

use super::table::Table;
use super::{FIELD_OVERHEAD, TABLE_BYTES_DEFAULT, huffman, integer, statics};

/// Places in the index of fields; a table of 4,096 octets holds at most 128 entries, in practice a
/// third of that.
const FIELDS: usize = 128;
/// Places in the index of names.
const NAMES: usize = 64;
/// How many fields are remembered as sent once.
const SEEN: usize = 64;
/// The part of the table that one entry may take.
const ENTRY_SHARE: usize = 4;
/// Seeds the hash. A peer that aims at one place of the index only loses compression: a place
/// holds one entry and is overwritten.
const SEED: u64 = 0x5eed_0f5e_c710_0001;

/// Whether a field may enter tables.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Indexing {
    /// It may, when it comes again.
    Usual,
    /// It is a secret: it is sent so that no hop puts it into a table (RFC 7541 §6.2.3, §7.1.3).
    Never,
}

/// One direction of a connection, at its sending end.
pub struct Encoder {
    table: Table,
    /// Changes of the table's size that the peer has not been told.
    update: Option<Update>,
    index: Option<Box<Index>>,
}

/// The least size since the last block, and the present one (RFC 7541 §4.2).
#[derive(Clone, Copy)]
struct Update {
    least: u32,
    last: u32,
}

/// Where fields and names lie in the table: the numbers of entries by hash, one to a place. A number
/// may be out of date; what it leads to is compared.
struct Index {
    fields: [u32; FIELDS],
    names: [u32; NAMES],
    /// Parts of the hashes of fields that were sent and did not enter the table.
    seen: [u32; SEEN],
}

/// A name's hash, and that of the whole field.
#[derive(Clone, Copy)]
struct Hashes {
    name: u64,
    field: u64,
}

impl Hashes {
    #[inline]
    fn of(known: u8, name: &[u8], value: &[u8]) -> Self {
        let name_hash = if known == 0 { hash(SEED, name) } else { u64::from(known) };
        Self { name: name_hash, field: hash(name_hash, value) }
    }

    #[inline]
    fn name_place(self) -> usize {
        (self.name % NAMES as u64) as usize
    }

    #[inline]
    fn field_place(self) -> usize {
        (self.field % FIELDS as u64) as usize
    }

    #[inline]
    fn seen_place(self) -> usize {
        (self.field % SEEN as u64) as usize
    }

    /// Other bits than those of the places; never what an empty place holds.
    #[inline]
    fn seen_mark(self) -> u32 {
        (self.field >> 32) as u32 | 1
    }
}

#[inline]
fn hash(seed: u64, bytes: &[u8]) -> u64 {
    let mut hasher = FixedState::with_seed(seed).build_hasher();
    hasher.write(bytes);
    hasher.finish()
}

impl Default for Encoder {
    fn default() -> Self {
        Self::new()
    }
}

impl Encoder {
    /// An encoder that uses a table of [`TABLE_BYTES_DEFAULT`] until its peer allows less.
    #[must_use]
    pub fn new() -> Self {
        Self { table: Table::new(TABLE_BYTES_DEFAULT as usize), update: None, index: None }
    }

    /// Takes the peer's SETTINGS_HEADER_TABLE_SIZE; not between the fields of one block. More than
    /// [`TABLE_BYTES_DEFAULT`] is not made use of.
    pub fn set_table_bytes_max(&mut self, allowed: u32) {
        let size = allowed.min(TABLE_BYTES_DEFAULT);
        if self.update.is_none() && self.table.size_max() == size as usize {
            return;
        }
        let least = self.update.map_or(size, |update| update.least.min(size));
        self.update = Some(Update { least, last: size });
        self.table.resize(size as usize);
    }

    /// Appends a field to the block in `out`.
    #[inline]
    pub fn encode(&mut self, name: &[u8], value: &[u8], indexing: Indexing, out: &mut Vec<u8>) {
        if let Some(update) = self.update.take() {
            write_update(update, out);
        }
        let known = statics::find(name);
        if indexing == Indexing::Never {
            return self.never(known, name, value, out);
        }
        if known != 0
            && let Some(index) = statics::with_value(known, value)
        {
            return integer::encode(index, 7, 0x80, out);
        }
        self.usual(known, name, value, out);
    }

    fn usual(&mut self, known: u8, name: &[u8], value: &[u8], out: &mut Vec<u8>) {
        if (name.len() + value.len() + FIELD_OVERHEAD) * ENTRY_SHARE > self.table.size_max() {
            return plain(usize::from(known), name, value, 0x00, out);
        }
        let hashes = Hashes::of(known, name, value);
        let index = self.index.get_or_insert_default();
        if let Some(age) = index.field(&self.table, hashes, name, value) {
            return integer::encode(statics::COUNT + 1 + age, 7, 0x80, out);
        }
        let name_index =
            if known == 0 { index.name(&self.table, hashes, name) } else { usize::from(known) };
        if index.first_time(hashes) {
            return plain(name_index, name, value, 0x00, out);
        }
        integer::encode(name_index, 6, 0x40, out);
        if name_index == 0 {
            shortest(name, out);
        }
        shortest(value, out);
        self.table.insert(&[name, value], name.len(), known);
        index.remember(hashes, self.table.newest());
    }

    /// A secret: nothing of its value is looked up or kept.
    fn never(&self, known: u8, name: &[u8], value: &[u8], out: &mut Vec<u8>) {
        let name_index = match &self.index {
            Some(index) if known == 0 => {
                index.name(&self.table, Hashes::of(known, name, b""), name)
            }
            _ => usize::from(known),
        };
        plain(name_index, name, value, 0x10, out);
    }
}

#[cfg(test)]
impl Encoder {
    pub(super) fn table_is_empty(&self) -> bool {
        self.table.is_empty()
    }

    pub(super) fn table_size(&self) -> usize {
        self.table.size()
    }
}

impl Default for Index {
    fn default() -> Self {
        Self { fields: [0; FIELDS], names: [0; NAMES], seen: [0; SEEN] }
    }
}

impl Index {
    /// The age of the entry that is this field.
    #[inline]
    fn field(&self, table: &Table, hashes: Hashes, name: &[u8], value: &[u8]) -> Option<usize> {
        let age = table.age(self.fields[hashes.field_place()])?;
        table.get(age).filter(|entry| entry.is(name, value)).map(|_| age)
    }

    /// The index of an entry with this name that is not in the static table, or 0.
    fn name(&self, table: &Table, hashes: Hashes, name: &[u8]) -> usize {
        if table.is_empty() {
            return 0;
        }
        table
            .age(self.names[hashes.name_place()])
            .filter(|&age| table.get(age).is_some_and(|entry| entry.name() == name))
            .map_or(0, |age| statics::COUNT + 1 + age)
    }

    /// Whether the field was not sent lately; from now on it was.
    #[inline]
    fn first_time(&mut self, hashes: Hashes) -> bool {
        let place = &mut self.seen[hashes.seen_place()];
        let first = *place != hashes.seen_mark();
        *place = hashes.seen_mark();
        first
    }

    fn remember(&mut self, hashes: Hashes, number: u32) {
        self.fields[hashes.field_place()] = number;
        self.names[hashes.name_place()] = number;
    }
}

#[cold]
fn write_update(update: Update, out: &mut Vec<u8>) {
    if update.least < update.last {
        integer::encode(update.least as usize, 5, 0x20, out);
    }
    integer::encode(update.last as usize, 5, 0x20, out);
}

/// A literal that enters no table, as it is; `kind` says whether it never may.
fn plain(name_index: usize, name: &[u8], value: &[u8], kind: u8, out: &mut Vec<u8>) {
    integer::encode(name_index, 4, kind, out);
    if name_index == 0 {
        raw(name, out);
    }
    raw(value, out);
}

#[inline]
fn raw(octets: &[u8], out: &mut Vec<u8>) {
    integer::encode(octets.len(), 7, 0x00, out);
    out.extend_from_slice(octets);
}

/// In Huffman's code where that is shorter.
fn shortest(octets: &[u8], out: &mut Vec<u8>) {
    let len = huffman::encoded_len(octets);
    if len >= octets.len() {
        return raw(octets, out);
    }
    integer::encode(len, 7, 0x80, out);
    huffman::encode(octets, out);
}
