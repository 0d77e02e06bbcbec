//! Where configuration comes from: files and directories of YAML, read once or watched.
//!
//! In:    paths as the user gave them.
//! Out:   what is in force, as upserts and removals, with the faults of everything that is not.
//! Never: knows what a resource means, or lets a broken file take away what was in force.
//!
//! Start at [`Files`] (what is in force, without a clock or a thread) and [`Watcher`] (when to look
//! again). [`load`] reads everything once, file by file, for tools.

mod files;
mod scan;
mod watcher;

pub use files::{Files, Loaded, SourceEvent, load};
pub use watcher::Watcher;
