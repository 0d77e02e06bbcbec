//! The chain: each line holds the hash of the one before it.
//!
//! In:    entries, in order.
//! Out:   lines to append.
//! Never: forgets a line that it made: the caller appends each, whole, before the next matters.

use std::time::SystemTime;

use aws_lc_rs::digest::{SHA256, digest};
use base64::{Engine as _, engine::general_purpose::STANDARD};

use crate::{
    Tail,
    record::{Checkpoint, Entry, Line},
    text::timestamp,
};

/// What the first line has in the place of a hash.
pub const NOTHING_BEFORE: &str = "0000000000000000000000000000000000000000000000000000000000000000";

/// The hash of a line without its line end: SHA-256, lower-case hexadecimal.
#[must_use]
pub fn hash(line: &[u8]) -> String {
    digest(&SHA256, line).as_ref().iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Where the signature begins in a checkpoint's line.
pub(crate) const SIGNATURE_FIELD: &[u8] = b",\"signature\":\"";

/// Comes before what is signed, so that the signature means nothing elsewhere: the key is also
/// that of TLS.
const PURPOSE: &[u8] = b"sluis audit checkpoint v1\n";

/// The bytes that a checkpoint's signature is over: its line without the signature.
pub(crate) fn statement(unsigned: &[u8]) -> Vec<u8> {
    [PURPOSE, unsigned].concat()
}

/// Where the next line goes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Chain {
    next: u64,
    last: String,
    since_checkpoint: u64,
}

impl Default for Chain {
    fn default() -> Self {
        Self { next: 1, last: NOTHING_BEFORE.to_owned(), since_checkpoint: 0 }
    }
}

impl Chain {
    /// Goes on after what a file holds.
    #[must_use]
    pub fn after(tail: &Tail) -> Self {
        Self {
            next: tail.seq + 1,
            last: tail.last.clone(),
            since_checkpoint: tail.since_checkpoint,
        }
    }

    /// The number of the last line; 0 before the first.
    #[must_use]
    pub fn seq(&self) -> u64 {
        self.next - 1
    }

    /// The hash of the last line.
    #[must_use]
    pub fn last(&self) -> &str {
        &self.last
    }

    /// Lines since the last checkpoint.
    #[must_use]
    pub fn since_checkpoint(&self) -> u64 {
        self.since_checkpoint
    }

    /// Appends a line, with its line end.
    pub fn append(&mut self, at: SystemTime, entry: Entry, out: &mut Vec<u8>) {
        let line = self.line(at, entry);
        self.take(&line, out);
        self.since_checkpoint += 1;
    }

    /// Appends a checkpoint that `sign` has signed. An error appends nothing.
    ///
    /// # Errors
    ///
    /// What `sign` says.
    pub fn checkpoint<E>(
        &mut self,
        at: SystemTime,
        mut checkpoint: Checkpoint,
        sign: impl FnOnce(&[u8]) -> Result<Vec<u8>, E>,
        out: &mut Vec<u8>,
    ) -> Result<(), E> {
        checkpoint.lines = self.since_checkpoint;
        let mut line = self.line(at, Entry::Checkpoint(checkpoint));
        let signature = STANDARD.encode(sign(&statement(&line))?);
        line.pop();
        line.extend_from_slice(SIGNATURE_FIELD);
        line.extend_from_slice(signature.as_bytes());
        line.extend_from_slice(b"\"}");
        self.take(&line, out);
        self.since_checkpoint = 0;
        Ok(())
    }

    fn line(&self, at: SystemTime, entry: Entry) -> Vec<u8> {
        let (time, prev) = (timestamp(at), self.last.clone());
        let line = Line { seq: self.next, time, entry, prev, signature: None };
        serde_json::to_vec(&line).expect("a line is text and numbers with text for keys")
    }

    fn take(&mut self, line: &[u8], out: &mut Vec<u8>) {
        self.last = hash(line);
        self.next += 1;
        out.extend_from_slice(line);
        out.push(b'\n');
    }
}
