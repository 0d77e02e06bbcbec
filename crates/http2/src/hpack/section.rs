//! The fields of one section, flat: their bytes in one piece, and where each begins and ends.

/// A list of fields in the order in which they came. It keeps its memory when it is cleared.
#[derive(Clone, Default)]
pub struct Section {
    bytes: Vec<u8>,
    entries: Vec<Entry>,
}

/// A field's name is `bytes[name..value]`, its value `bytes[value..end]`.
#[derive(Clone, Copy)]
struct Entry {
    name: u32,
    value: u32,
    end: u32,
    known: u8,
    never_indexed: bool,
}

/// One field of a [`Section`].
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Field<'a> {
    /// The name as it came, not checked.
    pub name: &'a [u8],
    /// The value as it came, not checked.
    pub value: &'a [u8],
    /// The sender forbids every hop to put it into a table (RFC 7541 §6.2.3).
    pub never_indexed: bool,
    /// The first entry of the static table with this name when the name came by reference, else 0;
    /// a known name may also be spelled out, so that 0 says nothing about it.
    pub known: u8,
}

impl Section {
    /// An empty section, which holds no memory yet.
    #[must_use]
    pub const fn new() -> Self {
        Self { bytes: Vec::new(), entries: Vec::new() }
    }

    /// Drops the fields and keeps the memory.
    pub fn clear(&mut self) {
        self.bytes.clear();
        self.entries.clear();
    }

    /// Gives back the memory beyond these sizes, for a section that has once been large.
    pub fn shrink(&mut self, bytes_max: usize, fields_max: usize) {
        self.bytes.shrink_to(bytes_max);
        self.entries.shrink_to(fields_max);
    }

    /// The number of fields.
    #[must_use]
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Whether there is no field.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// The names and values one after the other, without anything between them.
    #[must_use]
    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// The field at a place in the list.
    #[must_use]
    pub fn get(&self, at: usize) -> Option<Field<'_>> {
        self.entries.get(at).map(|entry| self.field(entry))
    }

    /// Name, value, and whether it is never to be put into a table.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = (&[u8], &[u8], bool)> {
        self.fields().map(|field| (field.name, field.value, field.never_indexed))
    }

    /// The fields with all that is known of them.
    pub fn fields(&self) -> impl ExactSizeIterator<Item = Field<'_>> {
        self.entries.iter().map(|entry| self.field(entry))
    }

    /// Appends a field.
    pub fn push(&mut self, name: &[u8], value: &[u8], never_indexed: bool) {
        let start = self.bytes.len();
        self.bytes.extend_from_slice(name);
        self.bytes.extend_from_slice(value);
        self.close(start, name.len(), never_indexed, 0);
    }

    #[inline]
    fn field(&self, entry: &Entry) -> Field<'_> {
        let (name, value) = self.bytes[entry.name as usize..entry.end as usize]
            .split_at((entry.value - entry.name) as usize);
        Field { name, value, never_indexed: entry.never_indexed, known: entry.known }
    }

    /// Where the decoder writes a name and a value before it calls `close`.
    pub(super) fn bytes_mut(&mut self) -> &mut Vec<u8> {
        &mut self.bytes
    }

    /// Makes a field of what lies behind `start`.
    #[inline]
    pub(super) fn close(&mut self, start: usize, name: usize, never_indexed: bool, known: u8) {
        self.entries.push(Entry {
            name: place(start),
            value: place(start + name),
            end: place(self.bytes.len()),
            known,
            never_indexed,
        });
    }
}

/// A place in a section: field blocks and lists are bounded far below 4 GiB.
#[inline]
fn place(at: usize) -> u32 {
    u32::try_from(at).expect("a section is smaller than 4 GiB")
}

/// Fields may hold secrets: their number only.
impl std::fmt::Debug for Section {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Section").field("fields", &self.len()).finish_non_exhaustive()
    }
}
