//! The header block: one buffer, ranges into it, and edits written behind it.
//!
//! In:    the bytes of one head with the names httparse found; edits by name.
//! Out:   lookup by [`Known`] or by name, iteration in order, runs of lines for writing.
//! Never: moves the received bytes, or writes a name or value that could end a line.
//!
//! Every live field is one canonical line (`name: value CRLF`) somewhere in the buffer. Fields that
//! follow each other there are written by one copy.

use smallvec::SmallVec;

use crate::bytes::{end_of_text, is_token_byte};
use crate::{FIELDS_MAX, HEAD_BYTES_MAX, HeadError, Known, Names};

/// Bytes of the block with everything that edits put behind it.
const BLOCK_BYTES_MAX: usize = 4 * HEAD_BYTES_MAX;

/// Fields of the block, those of edits and removed ones included.
const FIELDS_WITH_EDITS_MAX: usize = 4 * FIELDS_MAX;

/// Marks a name that is not well known.
pub(crate) const UNKNOWN: u8 = u8::MAX;

/// Why an edit was refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FieldError {
    /// Empty, or a byte outside `token`.
    #[error("invalid field name")]
    Name,
    /// A control character, CR and LF above all.
    #[error("invalid field value")]
    Value,
    /// The head would outgrow its bounds.
    #[error("too many fields or bytes in the head")]
    Room,
}

/// One field line in the buffer.
#[derive(Clone, Copy, Debug)]
struct Field {
    line: u32,
    name_len: u32,
    value: u32,
    value_end: u32,
    line_end: u32,
    known: u8,
    is_live: bool,
}

/// The header fields of one message. Reused from message to message.
#[derive(Clone, Debug, Default)]
pub struct Fields {
    bytes: Vec<u8>,
    fields: SmallVec<[Field; 24]>,
    present: u128,
}

impl Fields {
    /// Whether a well-known field is there.
    #[inline]
    pub fn has(&self, known: Known) -> bool {
        self.present & known.bit() != 0
    }

    /// Whether one of several well-known fields is there.
    #[inline]
    pub fn has_any(&self, names: Names) -> bool {
        self.present & names.0 != 0
    }

    /// The first value of a well-known field.
    #[inline]
    pub fn get(&self, known: Known) -> Option<&[u8]> {
        if !self.has(known) {
            return None;
        }
        self.all(known).next()
    }

    /// All values of a well-known field, in order.
    pub fn all(&self, known: Known) -> impl Iterator<Item = &[u8]> {
        let index = known as u8;
        self.live().filter(move |field| field.known == index).map(|field| self.value(field))
    }

    /// The first value of a field, by name in any case.
    pub fn get_name(&self, name: &[u8]) -> Option<&[u8]> {
        match Known::of(name) {
            Some(known) => self.get(known),
            None => self.live().find(|field| self.is_named(field, name)).map(|f| self.value(f)),
        }
    }

    /// All values of a field, by name in any case.
    pub fn all_named<'a>(&'a self, name: &'a [u8]) -> impl Iterator<Item = &'a [u8]> {
        let known = Known::of(name);
        let index = known.map_or(UNKNOWN, |known| known as u8);
        self.live()
            .filter(move |field| match known {
                Some(_) => field.known == index,
                None => self.is_named(field, name),
            })
            .map(|field| self.value(field))
    }

    /// All fields: which well-known one it is, its name as received, its value.
    pub fn iter_known(&self) -> impl Iterator<Item = (Option<Known>, &[u8], &[u8])> {
        self.live().map(|field| (Known::at(field.known), self.name(field), self.value(field)))
    }

    /// All fields, names as received.
    pub fn iter(&self) -> impl Iterator<Item = (&[u8], &[u8])> {
        self.live().map(|field| (self.name(field), self.value(field)))
    }

    /// How many fields there are.
    pub fn len(&self) -> usize {
        self.live().count()
    }

    /// Whether there is no field.
    pub fn is_empty(&self) -> bool {
        self.live().next().is_none()
    }

    /// Adds a field behind the others.
    ///
    /// # Errors
    ///
    /// [`FieldError`]; nothing is changed then.
    pub fn append(&mut self, name: &[u8], value: &[u8]) -> Result<(), FieldError> {
        check_name(name)?;
        check_value(value)?;
        self.check_room(name.len() + value.len())?;
        self.push_line(name, value);
        Ok(())
    }

    /// Replaces all values of a field by one: in the place of the first, or behind the others.
    ///
    /// # Errors
    ///
    /// [`FieldError`]; nothing is changed then.
    pub fn set(&mut self, name: &[u8], value: &[u8]) -> Result<(), FieldError> {
        check_name(name)?;
        check_value(value)?;
        self.check_room(name.len() + value.len())?;
        self.set_line(name, value);
        Ok(())
    }

    /// Removes all values of a well-known field.
    #[inline]
    pub fn remove(&mut self, known: Known) {
        if self.has(known) {
            self.remove_present(known);
        }
    }

    fn remove_present(&mut self, known: Known) {
        for field in &mut self.fields {
            if field.known == known as u8 {
                field.is_live = false;
            }
        }
        self.present &= !known.bit();
    }

    /// Removes all values of a field, by name in any case.
    pub fn remove_name(&mut self, name: &[u8]) {
        if let Some(known) = Known::of(name) {
            return self.remove(known);
        }
        let Self { bytes, fields, .. } = self;
        for field in fields.iter_mut().filter(|field| field.known == UNKNOWN) {
            let start = field.line as usize;
            if bytes[start..start + field.name_len as usize].eq_ignore_ascii_case(name) {
                field.is_live = false;
            }
        }
    }

    /// Removes every field for whose name (as received) and value `drop` says so.
    pub fn remove_where(&mut self, mut drop: impl FnMut(&[u8], &[u8]) -> bool) {
        let mut present = 0;
        let Self { bytes, fields, .. } = self;
        for field in fields.iter_mut().filter(|field| field.is_live) {
            let start = field.line as usize;
            let name = &bytes[start..start + field.name_len as usize];
            field.is_live = !drop(name, &bytes[field.value as usize..field.value_end as usize]);
            if let (true, Some(known)) = (field.is_live, Known::at(field.known)) {
                present |= known.bit();
            }
        }
        self.present = present;
    }

    /// Adds a well-known field whose value is ours and cannot hold a line end.
    ///
    /// A value that could is not written at all.
    pub fn append_trusted(&mut self, known: Known, value: &[u8]) {
        if check_value(value).is_ok() && self.check_room(value.len() + 40).is_ok() {
            self.push_known(known, known.name().as_bytes(), value);
        }
    }

    /// Replaces a well-known field by one value of ours, see [`Fields::append_trusted`].
    pub fn set_trusted(&mut self, known: Known, value: &[u8]) {
        if check_value(value).is_ok() && self.check_room(value.len() + 40).is_ok() {
            self.set_known(known, known.name().as_bytes(), value);
        }
    }

    /// No fewer bytes than all lines have.
    pub(crate) fn written_max(&self) -> usize {
        self.bytes.len()
    }

    /// Appends all lines to `out`, without the empty line that ends a head.
    pub fn write_to(&self, out: &mut Vec<u8>) {
        let mut run = 0..0;
        for field in self.live() {
            let (line, end) = (field.line as usize, field.line_end as usize);
            if line != run.end {
                out.extend_from_slice(&self.bytes[run]);
                run = line..line;
            }
            run.end = end;
        }
        out.extend_from_slice(&self.bytes[run]);
    }

    /// Makes room for so many bytes of edits, so that none of them moves what is there. Where it has
    /// to be moved now, the memory that it leaves is overwritten.
    pub fn make_room(&mut self, bytes: usize) {
        if self.bytes.capacity() - self.bytes.len() < bytes {
            let mut moved = Vec::with_capacity(self.bytes.len() + bytes);
            moved.extend_from_slice(&self.bytes);
            zeroize::Zeroize::zeroize(&mut self.bytes);
            self.bytes = moved;
        }
    }

    /// Forgets the message and overwrites its memory.
    pub fn wipe(&mut self) {
        zeroize::Zeroize::zeroize(&mut self.bytes);
        self.clear();
    }

    /// Forgets the message, keeps the memory.
    pub fn clear(&mut self) {
        self.bytes.clear();
        self.fields.clear();
        self.present = 0;
    }

    /// Takes over a field of a checked head: the places of its name and value, which are all of a
    /// canonical line. The bytes follow by [`Fields::take_bytes`].
    pub(crate) fn push_read(&mut self, known: u8, name: (usize, usize), value: (usize, usize)) {
        if let Some(known) = Known::at(known) {
            self.present |= known.bit();
        }
        self.fields.push(Field {
            line: name.0 as u32,
            name_len: (name.1 - name.0) as u32,
            value: value.0 as u32,
            value_end: value.1 as u32,
            line_end: value.1 as u32 + 2,
            known,
            is_live: true,
        });
    }

    /// The bytes in which those fields lie.
    pub(crate) fn take_bytes(&mut self, block: &[u8]) {
        self.bytes.extend_from_slice(block);
    }

    /// Takes over a checked head: `names` are the places of the field names in it.
    pub(crate) fn take_block(
        &mut self,
        block: &[u8],
        names: impl Iterator<Item = (usize, usize)>,
    ) -> Result<(), HeadError> {
        self.clear();
        self.bytes.extend_from_slice(block);
        for (start, len) in names {
            self.fields.push(Field {
                line: start as u32,
                name_len: len as u32,
                value: 0,
                value_end: 0,
                line_end: block.len() as u32 - 2,
                known: UNKNOWN,
                is_live: true,
            });
        }
        for index in 0..self.fields.len() {
            if let Some(next) = self.fields.get(index + 1) {
                self.fields[index].line_end = next.line;
            }
            self.settle(index)?;
        }
        Ok(())
    }

    /// Finds the value of one received field, its id, and its canonical line.
    fn settle(&mut self, index: usize) -> Result<(), HeadError> {
        let mut field = self.fields[index];
        let name_end = (field.line + field.name_len) as usize;
        let (mut start, mut end) = (name_end + 1, field.line_end as usize - 2);
        while start < end && is_blank(self.bytes[start]) {
            start += 1;
        }
        while end > start && is_blank(self.bytes[end - 1]) {
            end -= 1;
        }
        field.value = start as u32;
        field.value_end = end as u32;
        let name = &self.bytes[field.line as usize..name_end];
        match Known::of(name) {
            Some(known) => {
                field.known = known as u8;
                self.present |= known.bit();
            }
            None if imitates_framing(name) => return Err(HeadError::FramingLookalike),
            None => {}
        }
        self.fields[index] = field;
        // A peer that does not trim would see another value than we do: write such a line anew.
        let is_canonical = end + 2 == field.line_end as usize
            && start <= name_end + 2
            && self.bytes[start - 1] != b'\t';
        if !is_canonical {
            let known = field.known;
            let line = self.copy_line(index);
            self.fields[index] = Field { known, ..line };
        }
        Ok(())
    }

    /// Writes a canonical copy of a field's line behind the block.
    fn copy_line(&mut self, index: usize) -> Field {
        let field = self.fields[index];
        let line = self.bytes.len();
        let name = field.line as usize..(field.line + field.name_len) as usize;
        self.bytes.extend_from_within(name);
        self.bytes.extend_from_slice(b": ");
        let value = self.bytes.len();
        self.bytes.extend_from_within(field.value as usize..field.value_end as usize);
        self.finish_line(line, value, field.name_len as usize)
    }

    fn write_line(&mut self, name: &[u8], value: &[u8]) -> Field {
        let line = self.bytes.len();
        self.bytes.reserve(name.len() + value.len() + 4);
        self.bytes.extend_from_slice(name);
        self.bytes.extend_from_slice(b": ");
        let start = self.bytes.len();
        self.bytes.extend_from_slice(value.trim_ascii());
        self.finish_line(line, start, name.len())
    }

    fn finish_line(&mut self, line: usize, value: usize, name_len: usize) -> Field {
        let value_end = self.bytes.len();
        self.bytes.extend_from_slice(b"\r\n");
        Field {
            line: line as u32,
            name_len: name_len as u32,
            value: value as u32,
            value_end: value_end as u32,
            line_end: self.bytes.len() as u32,
            known: UNKNOWN,
            is_live: true,
        }
    }

    /// Adds a line.
    fn push_line(&mut self, name: &[u8], value: &[u8]) {
        match Known::of(name) {
            Some(known) => self.push_known(known, name, value),
            None => {
                let field = self.write_line(name, value);
                self.fields.push(field);
            }
        }
    }

    fn push_known(&mut self, known: Known, name: &[u8], value: &[u8]) {
        let line = self.write_line(name, value);
        self.fields.push(Field { known: known as u8, ..line });
        self.present |= known.bit();
    }

    /// Puts a line in the place of the first of this name, or at the end; drops all others.
    fn set_line(&mut self, name: &[u8], value: &[u8]) {
        if let Some(known) = Known::of(name) {
            return self.set_known(known, name, value);
        }
        let first = self.fields.iter().position(|field| self.is_live_and_named(field, name));
        let Some(first) = first else { return self.push_line(name, value) };
        for index in first + 1..self.fields.len() {
            if self.is_live_and_named(&self.fields[index], name) {
                self.fields[index].is_live = false;
            }
        }
        self.fields[first] = self.write_line(name, value);
    }

    /// The same for a well-known name: most often there is none yet, which a bit tells.
    fn set_known(&mut self, known: Known, name: &[u8], value: &[u8]) {
        let is_same = |field: &Field| field.is_live && field.known == known as u8;
        let first = self.has(known).then(|| self.fields.iter().position(is_same)).flatten();
        let Some(first) = first else { return self.push_known(known, name, value) };
        for field in self.fields[first + 1..].iter_mut().filter(|field| is_same(field)) {
            field.is_live = false;
        }
        let line = self.write_line(name, value);
        self.fields[first] = Field { known: known as u8, ..line };
    }

    fn is_live_and_named(&self, field: &Field, name: &[u8]) -> bool {
        field.is_live && field.known == UNKNOWN && self.name(field).eq_ignore_ascii_case(name)
    }

    /// Appends bytes that belong to the start line and returns where they lie.
    pub(crate) fn stash(&mut self, parts: &[&[u8]]) -> Result<(u32, u32), FieldError> {
        self.check_room(parts.iter().map(|part| part.len()).sum())?;
        let start = self.bytes.len() as u32;
        for part in parts {
            self.bytes.extend_from_slice(part);
        }
        Ok((start, self.bytes.len() as u32))
    }

    pub(crate) fn slice(&self, (start, end): (u32, u32)) -> &[u8] {
        &self.bytes[start as usize..end as usize]
    }

    fn check_room(&self, bytes: usize) -> Result<(), FieldError> {
        if self.bytes.len() + bytes > BLOCK_BYTES_MAX || self.fields.len() >= FIELDS_WITH_EDITS_MAX
        {
            return Err(FieldError::Room);
        }
        Ok(())
    }

    fn live(&self) -> impl Iterator<Item = &Field> {
        self.fields.iter().filter(|field| field.is_live)
    }

    /// Whether a field has this name, which is not a well-known one.
    fn is_named(&self, field: &Field, name: &[u8]) -> bool {
        field.known == UNKNOWN && self.name(field).eq_ignore_ascii_case(name)
    }

    fn name(&self, field: &Field) -> &[u8] {
        let start = field.line as usize;
        &self.bytes[start..start + field.name_len as usize]
    }

    fn value(&self, field: &Field) -> &[u8] {
        &self.bytes[field.value as usize..field.value_end as usize]
    }
}

fn is_blank(byte: u8) -> bool {
    matches!(byte, b' ' | b'\t')
}

/// CGI and its heirs read `_` and `-` as the same, so these would be framing fields to them.
pub(crate) fn imitates_framing(name: &[u8]) -> bool {
    let imitates = |known: &[u8]| {
        name.len() == known.len()
            && name.iter().zip(known).all(|(byte, like)| {
                byte.eq_ignore_ascii_case(like) || (*byte == b'_' && *like == b'-')
            })
    };
    imitates(b"content-length") || imitates(b"transfer-encoding")
}

fn check_name(name: &[u8]) -> Result<(), FieldError> {
    if name.is_empty() || !name.iter().all(|&byte| is_token_byte(byte)) {
        return Err(FieldError::Name);
    }
    Ok(())
}

/// RFC 9110 §5.5: CR, LF and NUL are dangerous; other controls but HTAB have no business either.
fn check_value(value: &[u8]) -> Result<(), FieldError> {
    let mut at = 0;
    loop {
        at = end_of_text(value, at, b' ');
        match value.get(at) {
            None => return Ok(()),
            Some(b'\t') => at += 1,
            Some(_) => return Err(FieldError::Value),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn edits_that_room_was_made_for_move_nothing() {
        let mut fields = Fields::default();
        fields.append(b"host", b"a").unwrap();
        fields.make_room(4 + b"x-keysecret".len());
        let place = fields.get(Known::Host).unwrap().as_ptr();
        fields.make_room(4 + b"x-keysecret".len());
        fields.set(b"x-key", b"secret").unwrap();
        assert_eq!(fields.get(Known::Host).unwrap().as_ptr(), place);
        assert_eq!(fields.get_name(b"x-key"), Some(&b"secret"[..]));
        fields.wipe();
        assert!(fields.is_empty());
    }
}
