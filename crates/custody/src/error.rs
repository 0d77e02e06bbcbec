//! Why a source gave no value.

use std::{io, path::PathBuf, time::Duration};

use crate::SealError;

/// Why a source gave no value. No message holds one.
#[derive(Debug, thiserror::Error)]
pub enum FetchError {
    /// A file cannot be read.
    #[error("{} cannot be read: {error}", path.display())]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// What the system said.
        error: io::Error,
    },
    /// Others may read the file, or write it.
    #[error(
        "{} may be read or changed by others (mode {mode:o}); run `chmod 600`, or set the annotation \
         sluis.dev/readable-by-others: \"true\"",
        path.display()
    )]
    Exposed {
        /// The file.
        path: PathBuf,
        /// Its permissions.
        mode: u32,
    },
    /// A variable is not set.
    #[error("the variable {0} is not set in the control plane's environment")]
    NoVariable(String),
    /// The object that holds the values is not there.
    #[error("{0} does not exist")]
    NoObject(String),
    /// The source has no entry of this name.
    #[error("the source has no entry {0:?}")]
    MissingEntry(String),
    /// The entry has no bytes.
    #[error("the entry {0:?} is empty")]
    EmptyEntry(String),
    /// The source has nothing.
    #[error("the source has no entry at all")]
    NoEntries,
    /// More than a credential needs.
    #[error("the source gave more than 32 entries or 128 KiB")]
    TooLarge,
    /// The answer is not in the form that is agreed. The text says where, not what.
    #[error("the answer is not understood: {0}")]
    Malformed(String),
    /// The program cannot be started.
    #[error("{program} cannot be started: {error}")]
    Start {
        /// The program.
        program: String,
        /// What the system said.
        error: io::Error,
    },
    /// The program failed. What it wrote to standard error is not shown: it may hold a value.
    #[error("{program} ended with {status} and {said} bytes on standard error")]
    Failed {
        /// The program.
        program: String,
        /// How it ended.
        status: String,
        /// How much it wrote to standard error.
        said: usize,
    },
    /// No answer in time.
    #[error("no answer within {0:?}")]
    Timeout(Duration),
    /// Nobody answers at the address.
    #[error("{address} cannot be reached: {error}")]
    Unreachable {
        /// Host and port.
        address: String,
        /// What the system said.
        error: String,
    },
    /// The server refuses us.
    #[error("{what} was refused with status {status}")]
    Denied {
        /// What was asked.
        what: String,
        /// The status.
        status: u16,
    },
    /// The server has no such thing, or has it no more.
    #[error("{0} does not exist or was deleted")]
    Gone(String),
    /// The server cannot answer now.
    #[error("{what} failed with status {status}")]
    Unavailable {
        /// What was asked.
        what: String,
        /// The status.
        status: u16,
    },
    /// The address is not one to send a token to.
    #[error("{0}")]
    Address(String),
    /// The sealed text cannot be opened.
    #[error("the entry {entry:?} cannot be opened: {error}")]
    Sealed {
        /// The entry.
        entry: String,
        /// Why.
        error: SealError,
    },
    /// What the source gives has expired already.
    #[error("what the source gives has expired")]
    Expired,
}

/// The kinds of failure, as metrics and the status call them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Reason {
    /// Nothing answers, or not in time.
    Unreachable,
    /// It answers, and refuses.
    Denied,
    /// What is wanted is not there.
    Missing,
    /// What came cannot be used.
    Malformed,
    /// Others may read it.
    Exposed,
    /// It cannot be opened with our key.
    Sealed,
    /// It has expired.
    Expired,
    /// The program failed.
    Failed,
}

impl Reason {
    /// All of them.
    pub const ALL: [Self; 8] = [
        Self::Unreachable,
        Self::Denied,
        Self::Missing,
        Self::Malformed,
        Self::Exposed,
        Self::Sealed,
        Self::Expired,
        Self::Failed,
    ];

    /// The word.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Unreachable => "unreachable",
            Self::Denied => "denied",
            Self::Missing => "missing",
            Self::Malformed => "malformed",
            Self::Exposed => "exposed",
            Self::Sealed => "sealed",
            Self::Expired => "expired",
            Self::Failed => "failed",
        }
    }
}

impl FetchError {
    /// Which kind of failure it is.
    #[must_use]
    pub fn reason(&self) -> Reason {
        match self {
            Self::Timeout(_) | Self::Unreachable { .. } | Self::Unavailable { .. } => {
                Reason::Unreachable
            }
            Self::Denied { .. } | Self::Address(_) => Reason::Denied,
            Self::Unreadable { .. }
            | Self::NoVariable(_)
            | Self::NoObject(_)
            | Self::MissingEntry(_)
            | Self::Gone(_) => Reason::Missing,
            Self::EmptyEntry(_) | Self::NoEntries | Self::TooLarge | Self::Malformed(_) => {
                Reason::Malformed
            }
            Self::Exposed { .. } => Reason::Exposed,
            Self::Sealed { .. } => Reason::Sealed,
            Self::Expired => Reason::Expired,
            Self::Start { .. } | Self::Failed { .. } => Reason::Failed,
        }
    }
}
