//! Judges a log: is each line as it was written, in its place, and signed for?
//!
//! In:    the lines of all files, oldest first; a judge of signatures.
//! Out:   a [`Report`]: what is wrong and where, and how far signatures reach.
//! Never: trusts a line for what it says of itself. What comes after the last checkpoint is
//!        chained, but vouched for by nobody yet.

#[cfg(test)]
mod tests;

use std::{collections::BTreeMap, sync::Arc};

use base64::{Engine as _, engine::general_purpose::STANDARD};

use crate::{
    chain::{NOTHING_BEFORE, SIGNATURE_FIELD, hash, statement},
    record::{Checkpoint, Entry, Line, Occasion},
};

/// Who signed a checkpoint, by the judge's word.
pub type Signer = String;

/// Something that is wrong.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Break {
    /// The file.
    pub file: Arc<str>,
    /// The line in it, from 1.
    pub line: u64,
    /// What.
    pub what: String,
}

/// What was found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Report {
    /// What is wrong, in order. Empty: nothing.
    pub breaks: Vec<Break>,
    /// Breaks beyond the bound, counted only.
    pub breaks_untold: u64,
    /// What is worth knowing, and no fault: restarts after a kill, gaps.
    pub notes: Vec<String>,
    /// Lines that could be read.
    pub lines: u64,
    /// Of these, uses and refusals.
    pub uses: u64,
    /// Checkpoints with a good signature.
    pub checkpoints: u64,
    /// Lines after the last of them.
    pub unsigned: u64,
    /// Records that the writer says it lost.
    pub lost: u64,
    /// Who signed, with how many checkpoints.
    pub signers: BTreeMap<Signer, u64>,
    /// The number and hash of the last line.
    pub head: Option<(u64, String)>,
    /// Whether the last line is the checkpoint of an orderly end.
    pub is_closed: bool,
    /// The time of the first line, and of the last.
    pub span: Option<(String, String)>,
}

/// Breaks that are told of: one change seldom makes more than three.
const BREAKS_MAX: usize = 1000;

/// Follows a log line by line.
pub struct Verifier<J> {
    judge: J,
    report: Report,
    file: Arc<str>,
    number: u64,
    expected: u64,
    last: String,
    since_checkpoint: u64,
    /// A line that cannot be read, in the hope of a restart that says that it was cut off.
    torn: Option<(Break, u64)>,
    is_first: bool,
}

impl<J> Verifier<J>
where
    J: FnMut(&Line, &Checkpoint, &[u8], &[u8]) -> Result<Signer, String>,
{
    /// Begins. The judge is given a checkpoint with its line, the bytes that are signed and the
    /// signature, and says who signed.
    pub fn new(judge: J) -> Self {
        Self {
            judge,
            report: Report::default(),
            file: "".into(),
            number: 0,
            expected: 1,
            last: NOTHING_BEFORE.to_owned(),
            since_checkpoint: 0,
            torn: None,
            is_first: true,
        }
    }

    /// The lines that follow are of this file.
    pub fn file(&mut self, name: &str) {
        self.file = name.into();
        self.number = 0;
    }

    /// Says that the rest of the file cannot be read.
    pub fn unreadable(&mut self, what: &str) {
        self.number += 1;
        self.fault(format!("cannot be read: {what}"));
    }

    /// Takes the next line, without its line end; and whether it had one. Gives what it says.
    pub fn line(&mut self, text: &[u8], has_end: bool) -> Option<Line> {
        self.number += 1;
        let parsed = serde_json::from_slice::<Line>(text);
        let line = match parsed {
            Ok(line) if has_end => line,
            Ok(_) => {
                self.settle_torn(None);
                self.fault("the last line has no line end".to_owned());
                self.pass(text);
                return None;
            }
            Err(error) => {
                self.settle_torn(None);
                let what = match (text.is_empty(), has_end) {
                    (true, _) => "an empty line was put in".to_owned(),
                    (false, true) => format!("cannot be read: {error}"),
                    (false, false) => {
                        "the last line is cut off: its writer was killed, or it was changed"
                            .to_owned()
                    }
                };
                let found = Break { file: self.file.clone(), line: self.number, what };
                self.torn = Some((found, text.len() as u64));
                self.pass(text);
                return None;
            }
        };
        self.settle_torn(Some(&line));
        self.place(&line);
        self.account(&line, text);
        self.is_first = false;
        self.pass(text);
        self.expected = line.seq.saturating_add(1);
        self.report.head = Some((line.seq, self.last.clone()));
        Some(line)
    }

    /// Ends. A log whose last line is no closing checkpoint is still written, or its writer was
    /// killed, or its end was removed: `is_closed` says so, the caller knows whether somebody writes.
    pub fn finish(mut self) -> Report {
        self.settle_torn(None);
        self.report.unsigned = self.since_checkpoint;
        self.report
    }

    /// A line that cannot be read is no fault when the next one says that it was cut off.
    fn settle_torn(&mut self, next: Option<&Line>) {
        let Some((found, bytes)) = self.torn.take() else { return };
        let excused = next.is_some_and(|line| {
            matches!(&line.entry, Entry::Restart(reopening) if reopening.torn_bytes == bytes)
                && line.prev == self.last
        });
        if excused {
            let at = format!("{}:{}", found.file, found.line);
            self.report.notes.push(format!("{at}: a kill cut this line off; one record is lost"));
        } else {
            self.push(found);
        }
    }

    /// Is it where it belongs?
    fn place(&mut self, line: &Line) {
        let (seq, expected) = (line.seq, self.expected);
        if self.is_first && (seq != 1 || line.prev != NOTHING_BEFORE) {
            self.fault(format!("the log begins with record {seq}: what was before is missing"));
            return;
        }
        if seq > expected {
            let missing = match seq - expected {
                1 => format!("record {expected} is missing"),
                _ => format!("records {expected} to {} are missing", seq - 1),
            };
            self.fault(missing);
        } else if seq < expected {
            self.fault(format!("record {seq} stands where record {expected} belongs"));
        }
        if line.prev != self.last {
            self.fault(format!(
                "record {seq} does not follow the line before it: a line was changed, removed, \
                 moved or put in"
            ));
        }
        if self.is_first && !matches!(line.entry, Entry::Start(_)) {
            self.fault("the log does not begin with its start".to_owned());
        }
    }

    fn account(&mut self, line: &Line, text: &[u8]) {
        let report = &mut self.report;
        report.lines += 1;
        report.is_closed = false;
        match &mut report.span {
            Some((_, last)) => last.clone_from(&line.time),
            None => report.span = Some((line.time.clone(), line.time.clone())),
        }
        let at = format!("{}:{}", self.file, self.number);
        match &line.entry {
            Entry::Use(_) => report.uses += 1,
            Entry::Gap(gap) => {
                report.lost += gap.lost;
                report.notes.push(format!("{at}: {} records could not be kept", gap.lost));
            }
            Entry::Restart(reopening) if !reopening.closed => {
                report.notes.push(format!(
                    "{at}: the writer before record {} did not end in order",
                    line.seq
                ));
            }
            Entry::Restart(_) | Entry::Continue(_) => {}
            Entry::Start(_) if self.is_first => {}
            Entry::Start(_) => self.fault("the log begins a second time".to_owned()),
            Entry::Checkpoint(checkpoint) => self.checkpoint(line, checkpoint, text),
        }
        if line.signature.is_some() && !matches!(line.entry, Entry::Checkpoint(_)) {
            self.fault("only checkpoints are signed".to_owned());
        }
    }

    fn checkpoint(&mut self, line: &Line, checkpoint: &Checkpoint, text: &[u8]) {
        if checkpoint.lines != self.since_checkpoint {
            self.fault(format!(
                "the checkpoint is of {} lines, and {} are here",
                checkpoint.lines, self.since_checkpoint
            ));
        }
        let Some((unsigned, signature)) = split(text) else {
            self.fault("the checkpoint has no signature".to_owned());
            return;
        };
        match (self.judge)(line, checkpoint, &statement(&unsigned), &signature) {
            Ok(signer) => {
                let report = &mut self.report;
                report.checkpoints += 1;
                *report.signers.entry(signer).or_default() += 1;
                report.is_closed = checkpoint.occasion == Occasion::Close;
                // The line itself is counted when it is passed.
                self.since_checkpoint = u64::MAX;
            }
            Err(what) => self.fault(format!("the signature is not good: {what}")),
        }
    }

    fn pass(&mut self, text: &[u8]) {
        self.last = hash(text);
        self.since_checkpoint = self.since_checkpoint.wrapping_add(1);
    }

    fn fault(&mut self, what: String) {
        self.push(Break { file: self.file.clone(), line: self.number, what });
    }

    fn push(&mut self, found: Break) {
        if self.report.breaks.len() < BREAKS_MAX {
            self.report.breaks.push(found);
        } else {
            self.report.breaks_untold += 1;
        }
    }
}

/// A checkpoint's line as it was before it was signed, and the signature.
fn split(text: &[u8]) -> Option<(Vec<u8>, Vec<u8>)> {
    let body = text.strip_suffix(b"\"}")?;
    let start = body.windows(SIGNATURE_FIELD.len()).rposition(|part| part == SIGNATURE_FIELD)?;
    let signature = STANDARD.decode(&body[start + SIGNATURE_FIELD.len()..]).ok()?;
    Some(([&body[..start], b"}"].concat(), signature))
}
