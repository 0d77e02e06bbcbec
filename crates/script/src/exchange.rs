//! What passes between a script and the stream while the script runs.
//!
//! The script works on a copy of the headers, so that nothing of the stream is borrowed by Lua, and
//! so that a script that fails has changed nothing.

use std::ops::Range;

use crate::{Edit, Facts, Level, Response, RunError, Stream};

/// Log lines kept of one run; more are counted only.
const LINES_MAX: usize = 64;

/// Bytes kept of one log line.
const LINE_BYTES_MAX: usize = 4096;

/// Changes that one run may make: more than any head may have headers.
const EDITS_MAX: usize = 1000;

/// Bytes that the names and values of one run's changes may have: what a large head may have.
const EDIT_BYTES_MAX: usize = 256 << 10;

/// The state of one run, kept from run to run for its memory.
#[derive(Default)]
pub(crate) struct Exchange {
    /// Which run this is; objects of another run are refused.
    pub(crate) run: u64,
    /// Whether a run is under way.
    pub(crate) is_live: bool,
    pub(crate) facts: Facts,
    pub(crate) response: Option<Response>,
    bytes: Vec<u8>,
    /// The headers as the script sees them.
    headers: Vec<Entry>,
    edits: Vec<Change>,
    edit_bytes: usize,
    lines: Vec<(Level, String)>,
    lines_dropped: usize,
}

#[derive(Clone)]
struct Entry {
    name: Range<usize>,
    value: Range<usize>,
}

enum Change {
    Add(Entry),
    Replace(Entry),
    Remove(Range<usize>),
}

impl Exchange {
    /// Starts a run on a stream.
    pub(crate) fn begin(&mut self, stream: &dyn Stream) {
        self.clear();
        self.run += 1;
        self.is_live = true;
        stream.facts(&mut self.facts);
        stream.headers(&mut |name, value| {
            let entry = self.store(name, value);
            self.bytes[entry.name.clone()].make_ascii_lowercase();
            self.headers.push(entry);
        });
    }

    /// Ends a run: hands over what was logged. The changes stay until [`Exchange::apply`].
    pub(crate) fn end(&mut self, stream: &mut dyn Stream) {
        self.is_live = false;
        for (level, line) in self.lines.drain(..) {
            stream.log(level, &line);
        }
        if self.lines_dropped > 0 {
            let dropped = std::mem::take(&mut self.lines_dropped);
            stream.log(Level::Warn, &format!("{dropped} more lines were not logged"));
        }
    }

    /// Carries out the changes on the stream.
    pub(crate) fn apply(&mut self, stream: &mut dyn Stream) -> Result<(), RunError> {
        for edit in &self.edits {
            let bytes = |range: &Range<usize>| &self.bytes[range.clone()];
            stream.apply(match edit {
                Change::Add(entry) => {
                    Edit::Add { name: bytes(&entry.name), value: bytes(&entry.value) }
                }
                Change::Replace(entry) => {
                    Edit::Replace { name: bytes(&entry.name), value: bytes(&entry.value) }
                }
                Change::Remove(name) => Edit::Remove { name: bytes(name) },
            })?;
        }
        Ok(())
    }

    fn clear(&mut self) {
        self.facts.clear();
        self.response = None;
        self.bytes.clear();
        self.headers.clear();
        self.edits.clear();
        self.edit_bytes = 0;
        self.lines.clear();
        self.lines_dropped = 0;
    }

    fn store(&mut self, name: &[u8], value: &[u8]) -> Entry {
        let start = self.bytes.len();
        self.bytes.extend_from_slice(name);
        let middle = self.bytes.len();
        self.bytes.extend_from_slice(value);
        Entry { name: start..middle, value: middle..self.bytes.len() }
    }

    /// The values of a header, in order. The name is in lower case.
    pub(crate) fn values<'x>(&'x self, name: &'x [u8]) -> impl Iterator<Item = &'x [u8]> {
        self.all().filter(move |(key, _)| *key == name).map(|(_, value)| value)
    }

    /// All headers, in order.
    pub(crate) fn all(&self) -> impl Iterator<Item = (&[u8], &[u8])> {
        self.headers
            .iter()
            .map(|entry| (&self.bytes[entry.name.clone()], &self.bytes[entry.value.clone()]))
    }

    pub(crate) fn add(&mut self, name: &[u8], value: &[u8]) -> Result<(), &'static str> {
        self.room_for(name, value)?;
        let entry = self.store(name, value);
        self.headers.push(entry.clone());
        self.edits.push(Change::Add(entry));
        Ok(())
    }

    pub(crate) fn replace(&mut self, name: &[u8], value: &[u8]) -> Result<(), &'static str> {
        self.room_for(name, value)?;
        let entry = self.store(name, value);
        // A pseudo-header keeps its place before the others.
        let first = self.headers.iter().position(|old| self.bytes[old.name.clone()] == *name);
        self.drop_all(name);
        self.headers.insert(first.unwrap_or(self.headers.len()), entry.clone());
        self.edits.push(Change::Replace(entry));
        Ok(())
    }

    pub(crate) fn remove(&mut self, name: &[u8]) -> Result<(), &'static str> {
        self.room_for(name, b"")?;
        let entry = self.store(name, b"");
        self.drop_all(name);
        self.edits.push(Change::Remove(entry.name));
        Ok(())
    }

    fn drop_all(&mut self, name: &[u8]) {
        let bytes = &self.bytes;
        self.headers.retain(|old| bytes[old.name.clone()] != *name);
    }

    fn room_for(&mut self, name: &[u8], value: &[u8]) -> Result<(), &'static str> {
        self.edit_bytes += name.len() + value.len();
        if self.edits.len() >= EDITS_MAX || self.edit_bytes > EDIT_BYTES_MAX {
            return Err("too many changes of headers");
        }
        Ok(())
    }

    pub(crate) fn log(&mut self, level: Level, line: &[u8]) {
        if self.lines.len() >= LINES_MAX {
            self.lines_dropped += 1;
            return;
        }
        let line = &line[..line.len().min(LINE_BYTES_MAX)];
        self.lines.push((level, String::from_utf8_lossy(line).into_owned()));
    }
}
