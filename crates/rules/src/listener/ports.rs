//! Which destination ports a listener filter is switched off for.

/// A condition on the destination port.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PortPredicate {
    /// Every port.
    Any,
    /// From the first (included) to the second (excluded).
    Range(i32, i32),
    /// Not this.
    Not(Box<Self>),
    /// All of these.
    All(Vec<Self>),
    /// One of these.
    OneOf(Vec<Self>),
}

impl PortPredicate {
    /// Whether the condition holds for a port.
    #[must_use]
    pub fn holds(&self, port: u16) -> bool {
        match self {
            Self::Any => true,
            Self::Range(start, end) => (*start..*end).contains(&i32::from(port)),
            Self::Not(inner) => !inner.holds(port),
            Self::All(parts) => parts.iter().all(|part| part.holds(port)),
            Self::OneOf(parts) => parts.iter().any(|part| part.holds(port)),
        }
    }
}
