//! The issue log: one JSON line for each certificate, appended before the certificate is given out.
//!
//! In:    entries; at the start, what the file holds.
//! Out:   lines, each with the hash of the one before it; which certificates are still in use.
//! Never: rewrites a line. Who changes or removes one breaks the chain from there on ([`audit`]).

use std::{
    collections::HashMap,
    fs::File,
    io::{self, BufRead as _, BufReader, Read as _, Seek as _, SeekFrom, Write as _},
    path::Path,
    sync::{Mutex, MutexGuard, PoisonError},
    time::SystemTime,
};

use serde::{Deserialize, Serialize};
use sluis_audit::chain::{NOTHING_BEFORE, hash};
use time::{OffsetDateTime, format_description::well_known::Rfc3339};

use crate::{FileError, files};

/// How the caller showed who it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Proof {
    /// A join token.
    Token,
    /// A service-account token that its issuer vouched for.
    Review,
    /// The certificate that is being renewed.
    Certificate,
    /// None: the authority's own server.
    Own,
}

/// What a certificate is issued for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Grounds {
    /// How the caller showed who it is.
    pub proof: Proof,
    /// The serial number of the certificate that is no longer needed then.
    pub replaces: Option<String>,
}

impl From<Proof> for Grounds {
    fn from(proof: Proof) -> Self {
        Self { proof, replaces: None }
    }
}

/// One line of the log. It holds no secret.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Entry {
    /// When, RFC 3339 in UTC.
    pub time: String,
    /// The certificate's serial number, lower-case hexadecimal.
    pub serial: String,
    /// Whose it is: an SPIFFE identity, or `dns:NAME` for the authority's own server.
    pub identity: String,
    /// Until when it is valid, RFC 3339 in UTC.
    pub not_after: String,
    /// How the caller showed who it is.
    pub proof: Proof,
    /// The kind of its key.
    #[serde(default)]
    pub key: String,
    /// The serial number of the certificate that signed it.
    #[serde(default)]
    pub issuer: String,
    /// The phase of the trust bundle with which it was given out.
    #[serde(default)]
    pub epoch: u64,
    /// The serial number of the certificate that it takes the place of.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub replaces: Option<String>,
    /// SHA-256 of the line before this one, hexadecimal; zeros for the first.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub previous: String,
}

/// A certificate that may be in use.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Live {
    pub(crate) identity: String,
    pub(crate) not_after: SystemTime,
    pub(crate) epoch: u64,
}

/// How far back the log is read at the start: some two hundred thousand certificates, more than live
/// at once.
const READ_BACK_BYTES_MAX: u64 = 64 << 20;
/// A line of the log is some 500 bytes.
const LINE_BYTES_MAX: u64 = 64 << 10;

#[derive(Debug)]
pub(crate) struct IssueLog {
    tail: Mutex<Tail>,
    known: Mutex<Known>,
}

/// Where the next line goes.
#[derive(Debug)]
struct Tail {
    file: File,
    /// The hash of the last line.
    last: String,
}

/// What the lines come to. As large as the certificates that have not ended.
#[derive(Debug, Default)]
struct Known {
    /// By identity, until when its newest certificate is valid.
    ends: HashMap<String, SystemTime>,
    /// By serial number, those that nothing has taken the place of.
    live: HashMap<String, Live>,
    /// Above so many, those that have ended are looked for.
    sweep_at: usize,
}

impl IssueLog {
    pub(crate) fn open(path: &Path) -> Result<Self, FileError> {
        let fault = |source| FileError::Io { path: path.to_owned(), source };
        let mut file = files::append(path)?;
        let (known, last, is_torn) = read_back(path).map_err(fault)?;
        if is_torn {
            // A line that a crash cut off stays as it is; the next begins after it.
            file.write_all(b"\n").map_err(fault)?;
        }
        Ok(Self { tail: Mutex::new(Tail { file, last }), known: Mutex::new(known) })
    }

    pub(crate) fn latest_end(&self, identity: &str) -> Option<SystemTime> {
        self.known().ends.get(identity).copied()
    }

    /// The workloads' certificates that may be in use at this time and were given out before an epoch.
    pub(crate) fn before(&self, epoch: u64, now: SystemTime) -> Vec<(String, Live)> {
        let known = self.known();
        let older = known.live.iter().filter(|(_, live)| {
            live.epoch < epoch && live.not_after > now && !live.identity.starts_with("dns:")
        });
        let mut found: Vec<_> =
            older.map(|(serial, live)| (serial.clone(), live.clone())).collect();
        found.sort_by(|a, b| (&a.1.identity, &a.0).cmp(&(&b.1.identity, &b.0)));
        found
    }

    /// One write for one line, so that lines of two processes do not mix.
    pub(crate) fn append(&self, mut entry: Entry, now: SystemTime) -> io::Result<()> {
        let mut tail = self.tail.lock().unwrap_or_else(PoisonError::into_inner);
        entry.previous.clone_from(&tail.last);
        let mut line = serde_json::to_vec(&entry)?;
        let last = hash(&line);
        line.push(b'\n');
        tail.file.write_all(&line)?;
        tail.last = last;
        drop(tail);
        self.known().take(entry, Some(now));
        Ok(())
    }

    fn known(&self) -> MutexGuard<'_, Known> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Known {
    fn take(&mut self, entry: Entry, now: Option<SystemTime>) {
        let Some(not_after) = parse_time(&entry.not_after) else { return };
        if let Some(old) = &entry.replaces {
            self.live.remove(old);
        }
        self.ends.insert(entry.identity.clone(), not_after);
        let live = Live { identity: entry.identity, not_after, epoch: entry.epoch };
        self.live.insert(entry.serial, live);
        if let Some(now) = now
            && self.live.len() > self.sweep_at
        {
            self.live.retain(|_, live| live.not_after > now);
            self.sweep_at = (self.live.len() * 2).max(1024);
        }
    }
}

/// What an audit of the log finds.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Audit {
    /// The lines that could be read, in order.
    pub entries: Vec<Entry>,
    /// What is wrong, each with its line.
    pub breaks: Vec<String>,
}

/// Reads a whole log and follows its chain of hashes.
///
/// The end of the file cannot vouch for itself: that its last lines are missing shows only against a
/// copy or against certificates in use.
///
/// # Errors
///
/// When the file cannot be read.
pub fn audit(path: &Path) -> io::Result<Audit> {
    let mut audit = Audit::default();
    let mut reader = BufReader::new(File::open(path)?);
    let mut last = NOTHING_BEFORE.to_owned();
    for number in 1.. {
        let mut line = Vec::new();
        if reader.by_ref().take(LINE_BYTES_MAX).read_until(b'\n', &mut line)? == 0 {
            break;
        }
        if line.last() == Some(&b'\n') {
            line.pop();
        }
        match serde_json::from_slice::<Entry>(&line) {
            Ok(entry) => {
                if entry.previous != last {
                    audit.breaks.push(format!(
                        "line {number}: it does not follow the line before it: a line was changed, \
                         removed or put in"
                    ));
                }
                audit.entries.push(entry);
            }
            Err(error) => audit.breaks.push(format!("line {number}: cannot be read: {error}")),
        }
        last = hash(&line);
    }
    Ok(audit)
}

/// What the last part of the log comes to; the hash of its last line; whether that was cut off.
fn read_back(path: &Path) -> io::Result<(Known, String, bool)> {
    let mut file = File::open(path)?;
    let length = file.metadata()?.len();
    file.seek(SeekFrom::Start(length.saturating_sub(READ_BACK_BYTES_MAX)))?;
    let mut text = Vec::new();
    file.take(READ_BACK_BYTES_MAX).read_to_end(&mut text)?;
    let is_torn = text.last().is_some_and(|byte| *byte != b'\n');
    let body = text.strip_suffix(b"\n").unwrap_or(&text);
    let mut known = Known::default();
    // The first line may be cut off; it does not parse then.
    for line in body.split(|byte| *byte == b'\n') {
        if let Ok(entry) = serde_json::from_slice::<Entry>(line) {
            known.take(entry, None);
        }
    }
    let last = match body.rsplit(|byte| *byte == b'\n').next() {
        Some(line) if !line.is_empty() => hash(line),
        _ => NOTHING_BEFORE.to_owned(),
    };
    Ok((known, last, is_torn))
}

fn parse_time(text: &str) -> Option<SystemTime> {
    OffsetDateTime::parse(text, &Rfc3339).ok().map(SystemTime::from)
}
