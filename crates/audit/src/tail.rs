//! What the end of a log says to who goes on writing it.

use crate::{
    chain::{NOTHING_BEFORE, hash},
    record::{Entry, Line, Occasion},
};

/// The end of a log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tail {
    /// The number of its last whole line; 0 for none.
    pub seq: u64,
    /// The hash of its last line, whole or not.
    pub last: String,
    /// Lines since its last checkpoint, as far as is seen.
    pub since_checkpoint: u64,
    /// Bytes of a last line without a line end: its writer was killed.
    pub torn_bytes: u64,
    /// Whether it ended with the checkpoint of an orderly end.
    pub is_closed: bool,
}

impl Tail {
    /// Reads the last part of a file; its first line may be cut off. `None` for an empty one.
    #[must_use]
    pub fn of(text: &[u8]) -> Option<Self> {
        if text.is_empty() {
            return None;
        }
        let whole = text.iter().rposition(|byte| *byte == b'\n').map_or(0, |end| end + 1);
        let torn = &text[whole..];
        let mut tail = Self {
            seq: 0,
            last: NOTHING_BEFORE.to_owned(),
            since_checkpoint: 0,
            torn_bytes: torn.len() as u64,
            is_closed: false,
        };
        for line in text[..whole].split(|byte| *byte == b'\n').filter(|line| !line.is_empty()) {
            tail.last = hash(line);
            tail.since_checkpoint += 1;
            tail.is_closed = false;
            let Ok(line) = serde_json::from_slice::<Line>(line) else { continue };
            tail.seq = line.seq;
            if let Entry::Checkpoint(checkpoint) = line.entry {
                tail.since_checkpoint = 0;
                tail.is_closed = checkpoint.occasion == Occasion::Close;
            }
        }
        if !torn.is_empty() {
            tail.last = hash(torn);
            tail.since_checkpoint += 1;
            tail.is_closed = false;
        }
        Some(tail)
    }
}
