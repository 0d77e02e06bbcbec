//! Field blocks read (RFC 7541 §3, §6).
//!
//! In:    a whole field block.
//! Out:   its fields; the dynamic table as the sender has it.
//! Never: copies a field beyond the list's limit, though the table still follows the block.

use super::huffman::{self, HuffmanError};
use super::integer::{self, IntegerError};
use super::section::Section;
use super::table::Table;
use super::{FIELD_OVERHEAD, TABLE_BYTES_DEFAULT, statics};

/// How far a list may go beyond its limit and still only lose its stream. A block of references
/// to one large entry counts much and costs its sender nothing: behind this it is an attack.
pub const LIST_BYTES_BEYOND_MAX: usize = 1 << 20;

/// Why a field block gives no section.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DecodeError {
    /// The list is over its limit. The whole block was read and the table is in step: the request
    /// can be refused and the connection goes on.
    #[error("field section exceeds the limit")]
    ListTooLarge,
    /// The list is over its limit by more than [`LIST_BYTES_BEYOND_MAX`].
    #[error("field section exceeds the limit without measure")]
    ListWithoutMeasure,
    /// The block ends within a field.
    #[error("field block ends within a field")]
    Truncated,
    /// More than 32 bits, or than five octets behind the prefix.
    #[error("integer too large")]
    Integer,
    /// A code that is none, EOS, or wrong padding.
    #[error("invalid Huffman code")]
    Huffman,
    /// Index zero, or of an entry that is not there.
    #[error("index of no entry")]
    Index,
    /// The table's size is changed behind the first field (RFC 7541 §4.2).
    #[error("table size update behind a field")]
    LateSizeUpdate,
    /// The table's size is set to more than was offered.
    #[error("table size update beyond the limit")]
    SizeUpdate,
}

impl DecodeError {
    /// Whether the dynamic table has lost its step, so that the connection must end with
    /// COMPRESSION_ERROR (RFC 9113 §4.3), or ENHANCE_YOUR_CALM for a list without measure.
    #[must_use]
    pub fn ends_connection(self) -> bool {
        self != Self::ListTooLarge
    }
}

impl From<IntegerError> for DecodeError {
    fn from(error: IntegerError) -> Self {
        match error {
            IntegerError::Truncated => Self::Truncated,
            IntegerError::TooLarge => Self::Integer,
        }
    }
}

impl From<HuffmanError> for DecodeError {
    fn from(HuffmanError: HuffmanError) -> Self {
        Self::Huffman
    }
}

/// One direction of a connection, at its receiving end.
pub struct Decoder {
    table: Table,
    table_bytes_max: usize,
}

/// What a field's place in the table is to be (RFC 7541 §6.2).
#[derive(Clone, Copy, PartialEq, Eq)]
enum Literal {
    Indexed,
    Plain,
    Never,
}

/// The fields of a block as they are counted.
struct List {
    bytes: usize,
    bytes_max: usize,
}

impl List {
    /// Counts a field; true when it is still within the limit.
    #[inline]
    fn count(&mut self, field: usize) -> Result<bool, DecodeError> {
        self.bytes += field + FIELD_OVERHEAD;
        if self.bytes <= self.bytes_max {
            return Ok(true);
        }
        if self.bytes - self.bytes_max > LIST_BYTES_BEYOND_MAX {
            return Err(DecodeError::ListWithoutMeasure);
        }
        Ok(false)
    }
}

impl Decoder {
    /// A decoder whose peer may use `table_bytes_max`: what we send as SETTINGS_HEADER_TABLE_SIZE.
    /// Less than [`TABLE_BYTES_DEFAULT`] is taken as that, which a peer uses before it has our
    /// settings.
    #[must_use]
    pub fn new(table_bytes_max: usize) -> Self {
        let default = TABLE_BYTES_DEFAULT as usize;
        Self { table: Table::new(default), table_bytes_max: table_bytes_max.max(default) }
    }

    /// Reads a field block into `section`, whose former fields are dropped.
    ///
    /// `list_bytes_max` counts names, values and 32 for each field (RFC 9113 §6.5.2).
    ///
    /// # Errors
    ///
    /// With [`DecodeError::ListTooLarge`] the section holds the fields up to the limit and the
    /// connection can go on; after all others the decoder is of no more use.
    pub fn decode(
        &mut self,
        block: &[u8],
        list_bytes_max: usize,
        section: &mut Section,
    ) -> Result<(), DecodeError> {
        section.clear();
        let mut list = List { bytes: 0, bytes_max: list_bytes_max };
        let mut at = self.size_updates(block)?;
        while let Some(&first) = block.get(at) {
            if first & 0x80 != 0 {
                let index = integer::decode(block, &mut at, 7)?;
                self.indexed(index as usize, &mut list, section)?;
                continue;
            }
            let (prefix, literal) = match first >> 4 {
                4..=7 => (6, Literal::Indexed),
                0 => (4, Literal::Plain),
                1 => (4, Literal::Never),
                _ => return Err(DecodeError::LateSizeUpdate),
            };
            let name = integer::decode(block, &mut at, prefix)?;
            self.literal((block, &mut at), name as usize, literal, &mut list, section)?;
        }
        if list.bytes > list.bytes_max { Err(DecodeError::ListTooLarge) } else { Ok(()) }
    }

    /// The changes of the table's size with which a block may begin (RFC 7541 §6.3).
    #[inline]
    fn size_updates(&mut self, block: &[u8]) -> Result<usize, DecodeError> {
        let mut at = 0;
        while block.get(at).is_some_and(|first| first >> 5 == 1) {
            let size = integer::decode(block, &mut at, 5)? as usize;
            if size > self.table_bytes_max {
                return Err(DecodeError::SizeUpdate);
            }
            self.table.resize(size);
        }
        Ok(at)
    }

    #[inline]
    fn indexed(
        &self,
        index: usize,
        list: &mut List,
        section: &mut Section,
    ) -> Result<(), DecodeError> {
        if let Some((name, value, known)) = statics::entry(index) {
            if list.count(name.len() + value.len())? {
                let start = section.bytes().len();
                section.bytes_mut().extend_from_slice(name);
                section.bytes_mut().extend_from_slice(value);
                section.close(start, name.len(), false, known);
            }
            return Ok(());
        }
        let age = index.checked_sub(statics::COUNT + 1).ok_or(DecodeError::Index)?;
        let view = self.table.get(age).ok_or(DecodeError::Index)?;
        if list.count(view.bytes.len())? {
            let start = section.bytes().len();
            section.bytes_mut().extend_from_slice(view.bytes);
            section.close(start, view.name, false, view.known);
        }
        Ok(())
    }

    /// A field that is spelled out. It is written to the section first, from where it goes to the
    /// table; beyond the limit it is taken back.
    fn literal(
        &mut self,
        (block, at): (&[u8], &mut usize),
        name: usize,
        literal: Literal,
        list: &mut List,
        section: &mut Section,
    ) -> Result<(), DecodeError> {
        let start = section.bytes().len();
        let known = self.name(block, at, name, section.bytes_mut())?;
        let name_len = section.bytes().len() - start;
        string(block, at, section.bytes_mut())?;
        let field = &section.bytes()[start..];
        let within = list.count(field.len())?;
        if literal == Literal::Indexed {
            self.table.insert(&[field], name_len, known);
        }
        if within {
            section.close(start, name_len, literal == Literal::Never, known);
        } else {
            section.bytes_mut().truncate(start);
        }
        Ok(())
    }

    /// Appends a literal's name, by its index or as it is spelled.
    #[inline]
    fn name(
        &self,
        block: &[u8],
        at: &mut usize,
        index: usize,
        out: &mut Vec<u8>,
    ) -> Result<u8, DecodeError> {
        if index == 0 {
            string(block, at, out)?;
            return Ok(0);
        }
        if let Some((name, _, known)) = statics::entry(index) {
            out.extend_from_slice(name);
            return Ok(known);
        }
        let view = self.table.get(index - statics::COUNT - 1).ok_or(DecodeError::Index)?;
        out.extend_from_slice(view.name());
        Ok(view.known)
    }
}

#[cfg(test)]
impl Decoder {
    pub(super) fn table_size(&self) -> usize {
        self.table.size()
    }

    pub(super) fn table_bytes_held(&self) -> usize {
        self.table.bytes_held()
    }
}

/// Appends the string at `at` (RFC 7541 §5.2).
#[inline]
fn string(block: &[u8], at: &mut usize, out: &mut Vec<u8>) -> Result<(), DecodeError> {
    let huffman = block.get(*at).is_some_and(|first| first & 0x80 != 0);
    let len = integer::decode(block, at, 7)? as usize;
    let octets = block[*at..].get(..len).ok_or(DecodeError::Truncated)?;
    *at += len;
    if huffman {
        huffman::decode(octets, out)?;
    } else {
        out.extend_from_slice(octets);
    }
    Ok(())
}
