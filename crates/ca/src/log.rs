//! The issue log: one JSON line for each certificate, appended before the certificate is given out.

use std::{
    collections::HashMap,
    fs::File,
    io::{self, Read as _, Seek as _, SeekFrom, Write as _},
    path::Path,
    sync::{Mutex, PoisonError},
    time::SystemTime,
};

use serde::{Deserialize, Serialize};
use time::{OffsetDateTime, format_description::well_known::Rfc3339};

use crate::{FileError, files};

/// How the caller showed who it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Proof {
    /// A join token.
    Token,
    /// The certificate that is being renewed.
    Certificate,
    /// None: the authority's own server.
    Own,
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
}

/// How far back the log is read at the start: some ten thousand certificates.
const READ_BACK_BYTES_MAX: u64 = 4 << 20;

#[derive(Debug)]
pub(crate) struct IssueLog {
    file: Mutex<File>,
    /// By identity, until when its newest certificate is valid. As many as there are workloads.
    ends: Mutex<HashMap<String, SystemTime>>,
}

impl IssueLog {
    pub(crate) fn open(path: &Path) -> Result<Self, FileError> {
        let file = files::append(path)?;
        // What cannot be read back is only missing from status displays.
        let ends = read_back(path).unwrap_or_default();
        Ok(Self { file: Mutex::new(file), ends: Mutex::new(ends) })
    }

    pub(crate) fn latest_end(&self, identity: &str) -> Option<SystemTime> {
        self.ends.lock().unwrap_or_else(PoisonError::into_inner).get(identity).copied()
    }

    /// One write for one line, so that lines of two processes do not mix.
    pub(crate) fn append(&self, entry: &Entry) -> io::Result<()> {
        let mut line = serde_json::to_vec(entry)?;
        line.push(b'\n');
        self.file.lock().unwrap_or_else(PoisonError::into_inner).write_all(&line)?;
        if let Some(end) = parse_time(&entry.not_after) {
            let mut ends = self.ends.lock().unwrap_or_else(PoisonError::into_inner);
            ends.insert(entry.identity.clone(), end);
        }
        Ok(())
    }
}

/// The newest end of each identity in the last part of the log.
fn read_back(path: &Path) -> io::Result<HashMap<String, SystemTime>> {
    let mut file = File::open(path)?;
    let length = file.metadata()?.len();
    file.seek(SeekFrom::Start(length.saturating_sub(READ_BACK_BYTES_MAX)))?;
    let mut text = Vec::new();
    file.take(READ_BACK_BYTES_MAX).read_to_end(&mut text)?;
    // The first line may be cut off; it does not parse then.
    let entries = text
        .split(|byte| *byte == b'\n')
        .filter_map(|line| serde_json::from_slice::<Entry>(line).ok());
    Ok(entries.filter_map(|entry| Some((entry.identity, parse_time(&entry.not_after)?))).collect())
}

fn parse_time(text: &str) -> Option<SystemTime> {
    OffsetDateTime::parse(text, &Rfc3339).ok().map(SystemTime::from)
}
