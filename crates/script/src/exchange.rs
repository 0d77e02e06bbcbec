//! What passes between a script and the stream while the script runs.
//!
//! The script works on a copy of the headers, so that nothing of the stream is borrowed by Lua, and
//! so that a script that fails has changed nothing.

use std::{ffi::c_void, rc::Rc};

use sluis_rules::Metadata;

use crate::{
    Begin, BodyIs, Edit, Effects, Facts, Level, Response, RunError, Side, Stream,
    call::Call,
    list::{Entry, HeaderList},
};

/// Log lines kept of one run; more are counted only.
const LINES_MAX: usize = 64;

/// Bytes kept of one log line.
const LINE_BYTES_MAX: usize = 4096;

/// Changes that one run may make: more than any head may have headers.
const EDITS_MAX: usize = 1000;

/// Bytes that the names and values of one run's changes may have: what a large head may have.
const EDIT_BYTES_MAX: usize = 256 << 10;

/// What a script waits for.
#[derive(Debug)]
pub(crate) enum Wait {
    Body,
    Chunk,
    Trailers,
    Call(Box<Call>),
}

/// Bytes of a body that the script may look at and change.
#[derive(Debug, Default)]
pub(crate) struct Buffer {
    pub(crate) bytes: Vec<u8>,
    pub(crate) is_changed: bool,
    /// Which buffer of the run this is; objects of earlier ones are refused.
    pub(crate) serial: u64,
}

/// Which list of headers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Part {
    Head,
    Trailers,
}

/// The state of one run, kept from run to run for its memory.
#[derive(Default)]
pub(crate) struct Exchange {
    /// Which run this is; objects of another run are refused.
    pub(crate) run: u64,
    /// Whether the script is running now, and does not wait.
    pub(crate) is_live: bool,
    /// The coroutine of the run: only it may wait.
    pub(crate) thread: Option<*const c_void>,
    pub(crate) facts: Option<Rc<dyn Facts>>,
    pub(crate) side: Side,
    pub(crate) response: Option<Response>,
    pub(crate) wait: Option<Wait>,
    pub(crate) metadata: Metadata,
    pub(crate) effects: Effects,
    pub(crate) calls: Vec<Call>,
    /// Keys that the script has imported, in DER.
    pub(crate) keys: Vec<Vec<u8>>,
    pub(crate) head: HeaderList,
    /// Whether the head has gone on: it cannot be changed any more.
    pub(crate) is_head_sent: bool,
    pub(crate) trailers: Option<HeaderList>,
    pub(crate) buffer: Option<Buffer>,
    pub(crate) body: BodySeen,
    serials: u64,
    edits: Vec<Change>,
    edit_bytes: usize,
    lines: Vec<(Level, String)>,
    lines_dropped: usize,
}

/// How far the script has come with the body.
#[derive(Debug, Default)]
pub(crate) struct BodySeen {
    /// Whether the end of the message has come.
    pub(crate) has_ended: bool,
    /// Whether any of the body has come.
    pub(crate) has_begun: bool,
    /// Whether the script has asked for all of it at once.
    pub(crate) is_whole: bool,
    /// Whether bytes of another protocol follow instead.
    pub(crate) is_tunnel: bool,
}

enum Change {
    Add(Entry),
    Replace(Entry),
    Remove(Entry),
    Reason(Entry),
}

impl Exchange {
    /// Starts a run on a stream.
    pub(crate) fn begin(&mut self, begin: Begin, stream: &dyn Stream) {
        self.clear();
        self.run += 1;
        self.facts = Some(begin.facts);
        self.side = begin.side;
        self.body = BodySeen {
            has_ended: begin.body == BodyIs::Absent,
            is_tunnel: begin.body == BodyIs::Tunnel,
            ..BodySeen::default()
        };
        stream.headers(&mut |name, value| {
            self.head.add(name, value);
        });
    }

    /// The script goes on.
    pub(crate) fn enter(&mut self, stream: &mut dyn Stream) {
        self.is_live = true;
        std::mem::swap(&mut self.metadata, stream.metadata());
    }

    /// The script has stopped: hands over what was logged. The changes stay until
    /// [`Exchange::apply`].
    pub(crate) fn leave(&mut self, stream: &mut dyn Stream) {
        self.is_live = false;
        std::mem::swap(&mut self.metadata, stream.metadata());
        for (level, line) in self.lines.drain(..) {
            stream.log(level, &line);
        }
        if self.lines_dropped > 0 {
            let dropped = std::mem::take(&mut self.lines_dropped);
            stream.log(Level::Warn, &format!("{dropped} more lines were not logged"));
        }
    }

    /// Carries out the changes on the stream, whose head goes on then.
    pub(crate) fn apply(&mut self, stream: &mut dyn Stream) -> Result<(), RunError> {
        self.is_head_sent = true;
        self.effects.has_changed_head |= !self.edits.is_empty();
        for edit in self.edits.drain(..) {
            stream.apply(match &edit {
                Change::Add(entry) => {
                    let (name, value) = self.head.get(entry);
                    Edit::Add { name, value }
                }
                Change::Replace(entry) => {
                    let (name, value) = self.head.get(entry);
                    Edit::Replace { name, value }
                }
                Change::Remove(entry) => Edit::Remove { name: self.head.get(entry).0 },
                Change::Reason(entry) => Edit::Reason(self.head.get(entry).1),
            })?;
        }
        Ok(())
    }

    /// Forgets the run, keeping the room.
    pub(crate) fn clear(&mut self) {
        self.facts = None;
        self.thread = None;
        self.response = None;
        self.wait = None;
        self.metadata = Metadata::default();
        self.effects = Effects::default();
        self.calls.clear();
        self.keys.clear();
        self.head.clear();
        self.is_head_sent = false;
        self.trailers = None;
        self.buffer = None;
        self.edits.clear();
        self.edit_bytes = 0;
        self.lines.clear();
        self.lines_dropped = 0;
    }

    /// Bytes for the script to look at; the buffer before them is gone.
    pub(crate) fn give_buffer(&mut self, bytes: Vec<u8>) -> u64 {
        self.serials += 1;
        self.buffer = Some(Buffer { bytes, is_changed: false, serial: self.serials });
        self.serials
    }

    /// The head's headers, or the trailers.
    pub(crate) fn list(&self, part: Part) -> Option<&HeaderList> {
        match part {
            Part::Head => Some(&self.head),
            Part::Trailers => self.trailers.as_ref(),
        }
    }

    pub(crate) fn add(
        &mut self,
        part: Part,
        name: &[u8],
        value: &[u8],
    ) -> Result<(), &'static str> {
        self.room_for(part, name, value)?;
        match (part, &mut self.trailers) {
            (Part::Head, _) => {
                let entry = self.head.add(name, value);
                self.edits.push(Change::Add(entry));
            }
            (Part::Trailers, Some(trailers)) => {
                trailers.add(name, value);
            }
            (Part::Trailers, None) => return Err(OUT_OF_SCOPE),
        }
        Ok(())
    }

    pub(crate) fn replace(
        &mut self,
        part: Part,
        name: &[u8],
        value: &[u8],
    ) -> Result<(), &'static str> {
        self.room_for(part, name, value)?;
        match (part, &mut self.trailers) {
            (Part::Head, _) => {
                let entry = self.head.replace(name, value);
                self.edits.push(Change::Replace(entry));
            }
            (Part::Trailers, Some(trailers)) => {
                trailers.replace(name, value);
            }
            (Part::Trailers, None) => return Err(OUT_OF_SCOPE),
        }
        Ok(())
    }

    pub(crate) fn remove(&mut self, part: Part, name: &[u8]) -> Result<(), &'static str> {
        self.room_for(part, name, b"")?;
        match (part, &mut self.trailers) {
            (Part::Head, _) => {
                let entry = self.head.store(name, b"");
                self.head.remove(name);
                self.edits.push(Change::Remove(entry));
            }
            (Part::Trailers, Some(trailers)) => trailers.remove(name),
            (Part::Trailers, None) => return Err(OUT_OF_SCOPE),
        }
        Ok(())
    }

    pub(crate) fn set_reason(&mut self, phrase: &[u8]) -> Result<(), &'static str> {
        self.room_for(Part::Head, b"", phrase)?;
        let entry = self.head.store(b"", phrase);
        self.edits.push(Change::Reason(entry));
        Ok(())
    }

    fn room_for(&mut self, part: Part, name: &[u8], value: &[u8]) -> Result<(), &'static str> {
        if part == Part::Head && self.is_head_sent {
            return Err("header map can no longer be modified");
        }
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

/// What an object says that is used when it may not be.
pub(crate) const OUT_OF_SCOPE: &str = "object used outside of proper scope";
