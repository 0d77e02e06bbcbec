//! What is to be changed in a request.
//!
//! In:    fields, and a new target.
//! Out:   the same, checked: nothing in it can end a line.
//! Never: shows a value; leaves it in memory when it is dropped.

use std::fmt;

use crate::{Secret, SignError};

/// What is to be changed: first remove, then set, then the target.
#[derive(Clone, Default)]
pub struct Edits {
    remove: Vec<String>,
    set: Vec<(String, Secret)>,
    path_and_query: Option<Secret>,
}

impl Edits {
    /// The fields, in lower case, all of whose lines go. They were the client's.
    #[must_use]
    pub fn removed(&self) -> &[String] {
        &self.remove
    }

    /// The fields that come, in order, each in place of all of its name.
    pub fn set(&self) -> impl ExactSizeIterator<Item = (&str, &[u8])> {
        self.set.iter().map(|(name, value)| (name.as_str(), value.expose()))
    }

    /// What takes the target's place.
    #[must_use]
    pub fn path_and_query(&self) -> Option<&str> {
        let bytes = self.path_and_query.as_ref()?.expose();
        Some(std::str::from_utf8(bytes).expect("only text is put in"))
    }

    pub(crate) fn remove_field(&mut self, name: &str) {
        if !self.remove.iter().any(|known| known == name) {
            self.remove.push(name.to_owned());
        }
    }

    pub(crate) fn set_field(&mut self, name: &str, value: Vec<u8>) -> Result<(), SignError> {
        let value = Secret::new(value);
        let is_bad = |byte: &u8| (*byte < 0x20 && *byte != b'\t') || *byte == 0x7f;
        if value.expose().iter().any(is_bad) {
            return Err(SignError::Character { part: name.to_owned() });
        }
        self.set.push((name.to_owned(), value));
        Ok(())
    }

    pub(crate) fn set_target(&mut self, target: String) -> Result<(), SignError> {
        let value = Secret::new(target.into_bytes());
        if value.expose().iter().any(|byte| *byte <= 0x20 || *byte == 0x7f || *byte == b'#') {
            return Err(SignError::Character { part: "the target".to_owned() });
        }
        self.path_and_query = Some(value);
        Ok(())
    }
}

impl fmt::Debug for Edits {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let set: Vec<_> = self.set.iter().map(|(name, _)| name).collect();
        f.debug_struct("Edits")
            .field("remove", &self.remove)
            .field("set", &set)
            .field("changes_target", &self.path_and_query.is_some())
            .finish()
    }
}
