//! What is wrong with what a user wrote, and where.

use std::fmt;

use sluis_nouns::SourceRef;

/// How bad a fault is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Level {
    /// Worth telling; the resource is used.
    Warning,
    /// The resource is not used. The last good one stays, where there is one.
    Error,
}

impl fmt::Display for Level {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Warning => "warning",
            Self::Error => "error",
        })
    }
}

/// One thing that is wrong in a file. Prints as one line, with the help in brackets.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Fault {
    /// Whether the resource can be used all the same.
    pub level: Level,
    /// The place of the key or value at fault.
    pub at: SourceRef,
    /// The resource, such as `Gateway egress/istio-egressgateway`; `None` for a fault of the file.
    pub resource: Option<String>,
    /// The field, such as `spec.servers[0].port.number`; empty for the whole resource.
    pub path: String,
    /// What is wrong, a lower-case fragment.
    pub message: String,
    /// What to do about it.
    pub help: Option<String>,
}

impl Fault {
    /// Makes an error at a place; resource, path and help are added by the other methods.
    pub fn error(at: SourceRef, message: impl Into<String>) -> Self {
        let (resource, path, help) = (None, String::new(), None);
        Self { level: Level::Error, at, resource, path, message: message.into(), help }
    }

    /// Makes a warning at a place.
    pub fn warning(at: SourceRef, message: impl Into<String>) -> Self {
        Self { level: Level::Warning, ..Self::error(at, message) }
    }

    /// Names the resource.
    #[must_use]
    pub fn of(mut self, resource: impl Into<String>) -> Self {
        self.resource = Some(resource.into());
        self
    }

    /// Names the field.
    #[must_use]
    pub fn field(mut self, path: impl Into<String>) -> Self {
        self.path = path.into();
        self
    }

    /// Adds what to do about it.
    #[must_use]
    pub fn help(mut self, help: impl Into<String>) -> Self {
        self.help = Some(help.into());
        self
    }

    /// Returns whether the resource must not be used.
    pub fn is_error(&self) -> bool {
        self.level == Level::Error
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}: ", self.at, self.level)?;
        if let Some(resource) = &self.resource {
            write!(f, "{resource}: ")?;
        }
        if !self.path.is_empty() {
            write!(f, "{}: ", self.path)?;
        }
        f.write_str(&self.message)?;
        match &self.help {
            Some(help) => write!(f, " ({help})"),
            None => Ok(()),
        }
    }
}
