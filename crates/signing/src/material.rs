//! The entries of a secret, as they were delivered.
//!
//! In:    names and bytes.
//! Out:   the bytes to those who sign.
//! Never: shows a value; leaves it in memory when it is dropped.

use std::{collections::BTreeMap, fmt};

use zeroize::Zeroizing;

/// A value that must not be shown. Overwritten when dropped.
#[derive(Clone)]
pub struct Secret(Zeroizing<Vec<u8>>);

impl Secret {
    /// Takes the bytes; they are not copied.
    #[must_use]
    pub fn new(bytes: Vec<u8>) -> Self {
        Self(Zeroizing::new(bytes))
    }

    /// The bytes. Whoever calls this answers for where they go.
    #[must_use]
    pub fn expose(&self) -> &[u8] {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret")
    }
}

/// The entries of one version of a secret.
#[derive(Clone, Debug, Default)]
pub struct Material(BTreeMap<String, Secret>);

impl Material {
    /// An entry, or that there is none of this name.
    ///
    /// # Errors
    ///
    /// [`MaterialError::Missing`], also of an entry that is empty.
    pub fn bytes(&self, entry: &str) -> Result<&[u8], MaterialError> {
        match self.0.get(entry) {
            Some(value) if !value.0.is_empty() => Ok(value.expose()),
            _ => Err(MaterialError::Missing { entry: entry.to_owned() }),
        }
    }

    /// An entry that is to stand in a field: text without control characters.
    ///
    /// # Errors
    ///
    /// [`MaterialError::Missing`], [`MaterialError::Text`].
    pub fn text(&self, entry: &str) -> Result<&str, MaterialError> {
        let bytes = self.bytes(entry)?;
        match std::str::from_utf8(bytes) {
            Ok(text) if !text.chars().any(char::is_control) => Ok(text),
            _ => Err(MaterialError::Text { entry: entry.to_owned() }),
        }
    }

    /// The names of the entries.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.0.keys().map(String::as_str)
    }
}

impl<N: Into<String>> FromIterator<(N, Secret)> for Material {
    fn from_iter<I: IntoIterator<Item = (N, Secret)>>(entries: I) -> Self {
        Self(entries.into_iter().map(|(name, value)| (name.into(), value)).collect())
    }
}

/// Why a secret does not fit its scheme.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum MaterialError {
    /// No such entry, or an empty one.
    #[error("the secret has no entry {entry}")]
    Missing {
        /// Its name.
        entry: String,
    },

    /// It is to stand in a request, and cannot.
    #[error("entry {entry} holds control characters or is no text: does it end with a newline?")]
    Text {
        /// Its name.
        entry: String,
    },

    /// It is to stand in a cookie or before a colon, and cannot.
    #[error("entry {entry} holds a character that may not stand there: {place}")]
    Character {
        /// Its name.
        entry: String,
        /// Where it was to stand.
        place: &'static str,
    },

    /// It is no key.
    #[error("entry {entry} is no {wanted}")]
    Key {
        /// Its name.
        entry: String,
        /// What it should be.
        wanted: &'static str,
    },

    /// Its encoding is not the one that was said.
    #[error("entry {entry} is not {wanted}")]
    Encoding {
        /// Its name.
        entry: String,
        /// The encoding.
        wanted: &'static str,
    },
}
