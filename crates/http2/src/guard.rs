//! Counts what a peer makes us do for nothing.

use crate::{
    Reason,
    limits::{
        ANSWERS_MAX, EMPTY_FRAMES_MAX, FAULTY_STREAMS_MAX, OVERHEAD_BYTES_MAX, OVERHEAD_RATIO,
    },
};

/// The counts of one connection.
#[derive(Debug, Default)]
pub(crate) struct Guard {
    /// Bytes that came.
    came: u64,
    /// Bytes of fields and data, both ways.
    carried: u64,
    /// Empty DATA frames in a row.
    empty: u32,
    /// Answers since the peer has last taken all that there was.
    answers: u32,
    begun: u64,
    faulty: u64,
}

impl Guard {
    pub(crate) fn came(&mut self, bytes: usize) {
        self.came += bytes as u64;
    }

    pub(crate) fn carried(&mut self, bytes: usize) {
        self.carried += bytes as u64;
    }

    pub(crate) fn data(&mut self, bytes: usize, ends: bool) {
        self.carried(bytes);
        self.empty = if bytes == 0 && !ends { self.empty + 1 } else { 0 };
    }

    pub(crate) fn answer(&mut self) {
        self.answers += 1;
    }

    pub(crate) fn all_taken(&mut self) {
        self.answers = 0;
    }

    pub(crate) fn begun(&mut self) {
        self.begun += 1;
    }

    pub(crate) fn faulty(&mut self) {
        self.faulty += 1;
    }

    pub(crate) fn check(&self) -> Result<(), Reason> {
        let is_flood = self.came / OVERHEAD_RATIO > self.carried + OVERHEAD_BYTES_MAX
            || self.empty > EMPTY_FRAMES_MAX
            || self.answers > ANSWERS_MAX
            || (self.faulty > FAULTY_STREAMS_MAX && self.faulty * 2 > self.begun);
        if is_flood { Err(Reason::ENHANCE_YOUR_CALM) } else { Ok(()) }
    }
}
