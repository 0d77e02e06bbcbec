//! The names that the relay answers for, from a file.

use std::collections::HashMap;
use std::net::IpAddr;
use std::path::PathBuf;
use std::sync::{Mutex, PoisonError};
use std::time::SystemTime;

use crate::dns::{Found, Lookup, Unknown};

type Table = HashMap<String, Vec<IpAddr>>;

/// A JSON file of names; read again when its time stamp changes.
#[derive(Debug)]
pub struct NamesFile {
    path: PathBuf,
    cached: Mutex<Option<(SystemTime, Table)>>,
}

impl NamesFile {
    /// Reads the file at the first question.
    #[must_use]
    pub fn new(path: PathBuf) -> Self {
        Self { path, cached: Mutex::new(None) }
    }

    /// Reads the file if it is newer than what is known; keeps the last good table otherwise.
    fn refresh(&self, cached: &mut Option<(SystemTime, Table)>) {
        let modified = match std::fs::metadata(&self.path).and_then(|meta| meta.modified()) {
            Ok(modified) => modified,
            Err(error) => {
                tracing::warn!(%error, path = %self.path.display(), "names not readable");
                return;
            }
        };
        if cached.as_ref().is_some_and(|(known, _)| *known == modified) {
            return;
        }
        let read = std::fs::read(&self.path).map_err(serde_json::Error::io);
        match read.and_then(|text| serde_json::from_slice(&text)) {
            Ok(table) => *cached = Some((modified, table)),
            Err(error) => tracing::warn!(%error, path = %self.path.display(), "names not usable"),
        }
    }
}

impl Lookup for NamesFile {
    fn lookup(&self, name: &str) -> Found {
        let mut cached = self.cached.lock().unwrap_or_else(PoisonError::into_inner);
        self.refresh(&mut cached);
        let Some((_, table)) = &*cached else { return Found::Unknown(Unknown::ServFail) };
        match find(table, name) {
            Some(addresses) => Found::Addresses(addresses.clone()),
            None => Found::Unknown(Unknown::NxDomain),
        }
    }
}

/// The name itself, else the longest wildcard above it.
fn find<'a>(table: &'a Table, name: &str) -> Option<&'a Vec<IpAddr>> {
    if let Some(found) = table.get(name) {
        return Some(found);
    }
    let mut rest = name;
    while let Some((_, suffix)) = rest.split_once('.') {
        if let Some(found) = table.get(&format!("*.{suffix}")) {
            return Some(found);
        }
        rest = suffix;
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(text: &str) -> NamesFile {
        let path = tempfile::tempdir().unwrap().keep().join("names.json");
        std::fs::write(&path, text).unwrap();
        NamesFile::new(path)
    }

    fn addresses(found: Found) -> usize {
        match found {
            Found::Addresses(addresses) => addresses.len(),
            Found::Unknown(_) => 0,
        }
    }

    #[test]
    fn names_and_wildcards_are_found() {
        let names =
            file(r#"{"api.data.local": ["240.240.0.1"], "*.wild.local": ["::1", "240.240.0.2"]}"#);
        assert_eq!(addresses(names.lookup("api.data.local")), 1);
        assert_eq!(addresses(names.lookup("a.b.wild.local")), 2);
        assert_eq!(names.lookup("wild.local"), Found::Unknown(Unknown::NxDomain));
    }

    #[test]
    fn without_a_usable_file_the_client_may_ask_again() {
        assert_eq!(file("{").lookup("a"), Found::Unknown(Unknown::ServFail));
    }
}
