//! The audit log's format: lines that are chained by hashes, with signed checkpoints.
//!
//! In:    what was done with a credential; the lines of a log; times, signatures and keys as values.
//! Out:   lines to append; what is wrong with a log, and where.
//! Never: opens a file, reads a clock, holds a key or a secret.
//!
//! Start at [`Line`]: the writer makes them with a [`Chain`], the reader judges them with a
//! [`Verifier`].

pub mod chain;
pub mod ocsf;
mod record;
mod tail;
mod text;
mod verify;

pub use chain::Chain;
pub use record::{
    Checkpoint, Credential, Destination, Entry, Gap, Line, Occasion, Outcome, Reopening, Use, User,
    Verdict, What, Who, Writer,
};
pub use tail::Tail;
pub use text::{bounded, target_without_values, timestamp};
pub use verify::{Break, Report, Signer, Verifier};
