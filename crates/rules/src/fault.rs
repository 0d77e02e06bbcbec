//! What is wrong with a resource that was not taken over.

use std::fmt;

use sluis_envoy::Kind;

/// One reason why one resource was rejected.
///
/// The resource keeps its last good form; when it never had one, it is absent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fault {
    /// The kind of the rejected resource.
    pub kind: Kind,
    /// Its name.
    pub name: String,
    /// The path of the field, as `filter_chains[0].filters[1]`; empty for the whole resource.
    pub field: String,
    /// What is wrong, as a lower-case fragment.
    pub message: String,
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.kind, self.name)?;
        if !self.field.is_empty() {
            write!(f, ": {}", self.field)?;
        }
        write!(f, ": {}", self.message)
    }
}
