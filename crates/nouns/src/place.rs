//! A place in a file that a user wrote.

use std::fmt;
use std::sync::Arc;

/// A file, line and column; lines and columns count from 1. Prints as `file:line:column`.
///
/// Cheap to clone: the file's name is shared.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct SourceRef {
    /// The file's name as the user gave it, or another name for where the text came from.
    pub file: Arc<str>,
    /// Line, from 1. 0 when only the file is known.
    pub line: u32,
    /// Column in characters, from 1. 0 when only the line is known.
    pub column: u32,
}

impl SourceRef {
    /// Makes a place from its three parts.
    pub fn new(file: impl Into<Arc<str>>, line: u32, column: u32) -> Self {
        Self { file: file.into(), line, column }
    }
}

impl Default for SourceRef {
    /// The place of something nobody wrote, such as a built-in default.
    fn default() -> Self {
        Self::new("(built in)", 0, 0)
    }
}

impl fmt::Display for SourceRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.line, self.column) {
            (0, _) => f.write_str(&self.file),
            (line, 0) => write!(f, "{}:{line}", self.file),
            (line, column) => write!(f, "{}:{line}:{column}", self.file),
        }
    }
}
