//! Values of credentials, by name of their entry, and the versions that they make.
//!
//! In:    bytes from a source.
//! Out:   [`Version`]s, shared by pointer.
//! Never: prints a value; leaves one in memory that was given up.

use std::{collections::BTreeMap, fmt, time::SystemTime};

use serde::{Deserialize, Deserializer, de};
use zeroize::Zeroizing;

use crate::FetchError;

/// Entries of one credential; one has a handful.
const ENTRIES_MAX: usize = 32;
/// Bytes of all values of one credential: keys of any kind fit in a fraction.
pub(crate) const BYTES_MAX: usize = 128 * 1024;

/// One value. Overwritten when dropped.
#[derive(Clone, PartialEq, Eq)]
pub struct Value(Zeroizing<Vec<u8>>);

/// Values by the name of their entry.
pub type Entries = BTreeMap<String, Value>;

impl Value {
    /// Wraps the bytes.
    pub fn new(bytes: impl Into<Vec<u8>>) -> Self {
        Self(Zeroizing::new(bytes.into()))
    }

    /// The bytes, for the one who needs them.
    #[must_use]
    pub fn expose(&self) -> &[u8] {
        &self.0
    }

    /// Without one newline at its end, which editors and `echo` leave behind.
    #[must_use]
    pub(crate) fn without_newline(mut self) -> Self {
        if self.0.last() == Some(&b'\n') {
            self.0.pop();
            if self.0.last() == Some(&b'\r') {
                self.0.pop();
            }
        }
        self
    }
}

impl fmt::Debug for Value {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("(secret)")
    }
}

/// Texts, numbers and booleans are values; what has parts is none.
impl<'de> Deserialize<'de> for Value {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Scalar;
        impl de::Visitor<'_> for Scalar {
            type Value = Value;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a text, a number or a boolean")
            }
            fn visit_str<E: de::Error>(self, text: &str) -> Result<Value, E> {
                Ok(Value::new(text))
            }
            fn visit_string<E: de::Error>(self, text: String) -> Result<Value, E> {
                Ok(Value::new(text))
            }
            fn visit_bool<E: de::Error>(self, value: bool) -> Result<Value, E> {
                Ok(Value::new(value.to_string()))
            }
            fn visit_i64<E: de::Error>(self, value: i64) -> Result<Value, E> {
                Ok(Value::new(value.to_string()))
            }
            fn visit_u64<E: de::Error>(self, value: u64) -> Result<Value, E> {
                Ok(Value::new(value.to_string()))
            }
        }
        deserializer.deserialize_any(Scalar)
    }
}

/// What a version is called.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Label {
    /// The source's own word.
    Told(String),
    /// When its file was changed: says nothing where the values are the same.
    Changed(SystemTime),
    /// The source has no word.
    None,
}

/// What a source gave.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fetched {
    /// The values, within bounds.
    pub entries: Entries,
    /// What the source calls the version.
    pub label: Label,
    /// From when the values are void.
    pub not_after: Option<SystemTime>,
}

impl Fetched {
    /// Takes the entries that are wanted: for each of ours the source's. No names take all.
    ///
    /// # Errors
    ///
    /// [`FetchError::MissingEntry`], [`FetchError::NoEntries`], [`FetchError::TooLarge`].
    pub(crate) fn new(
        mut all: Entries,
        wanted: &BTreeMap<String, String>,
        label: Label,
        not_after: Option<SystemTime>,
    ) -> Result<Self, FetchError> {
        let entries = if wanted.is_empty() {
            all
        } else {
            let pick = |(ours, theirs): (&String, &String)| match all.get(theirs) {
                Some(value) => Ok((ours.clone(), value.clone())),
                None => Err(FetchError::MissingEntry(theirs.clone())),
            };
            let picked: Result<Entries, FetchError> = wanted.iter().map(pick).collect();
            let picked = picked?;
            all.clear();
            picked
        };
        if entries.is_empty() {
            return Err(FetchError::NoEntries);
        }
        let bytes: usize = entries.values().map(|value| value.expose().len()).sum();
        if entries.len() > ENTRIES_MAX || bytes > BYTES_MAX {
            return Err(FetchError::TooLarge);
        }
        if let Some((key, _)) = entries.iter().find(|(_, value)| value.expose().is_empty()) {
            return Err(FetchError::EmptyEntry(key.clone()));
        }
        Ok(Self { entries, label, not_after })
    }
}

/// One version of a credential.
#[derive(Debug, PartialEq, Eq)]
pub struct Version {
    /// The values.
    pub entries: Entries,
    /// What it is called; never derived from the values.
    pub label: String,
    /// From when the values are void.
    pub not_after: Option<SystemTime>,
}

impl Version {
    /// Whether the values are void.
    #[must_use]
    pub fn is_expired(&self, now: SystemTime) -> bool {
        self.not_after.is_some_and(|end| end <= now)
    }
}
