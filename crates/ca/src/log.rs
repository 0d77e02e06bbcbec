//! The issue log: one JSON line for each certificate, appended before the certificate is given out.

use std::{
    fs::File,
    io::{self, Write as _},
    path::Path,
    sync::{Mutex, PoisonError},
};

use serde::Serialize;

use crate::{FileError, files};

/// How the caller showed who it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
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
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
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

#[derive(Debug)]
pub(crate) struct IssueLog(Mutex<File>);

impl IssueLog {
    pub(crate) fn open(path: &Path) -> Result<Self, FileError> {
        Ok(Self(Mutex::new(files::append(path)?)))
    }

    /// One write for one line, so that lines of two processes do not mix.
    pub(crate) fn append(&self, entry: &Entry) -> io::Result<()> {
        let mut line = serde_json::to_vec(entry)?;
        line.push(b'\n');
        self.0.lock().unwrap_or_else(PoisonError::into_inner).write_all(&line)
    }
}
