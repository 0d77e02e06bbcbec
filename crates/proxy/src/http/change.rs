//! A change of one header, as a service asks for it.

/// A header to be set or added.
#[derive(Debug)]
pub(super) struct Change {
    pub(super) name: String,
    pub(super) value: Vec<u8>,
    pub(super) how: How,
}

/// How it is set.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum How {
    Set,
    Add,
    AddIfAbsent,
    SetIfThere,
    /// Behind the first value of a header that is there, in one list.
    Join,
}
