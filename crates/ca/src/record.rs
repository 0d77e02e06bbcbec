//! What is remembered over restarts: which authorities there are, which one signs, how far a change
//! of the root has come.

use std::path::Path;

use serde::{Deserialize, Serialize};

use crate::{
    FileError, OpenError,
    files::{self, Access},
};

const FILE: &str = "rotation.json";

/// How far a change of the root has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Phase {
    /// There is one authority.
    Stable,
    /// The next root is trusted and given out beside the one whose authority signs.
    Begun,
    /// The next authority signs; the old root is still trusted.
    Switched,
}

/// Where an authority comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Source {
    /// Made here.
    Own,
    /// The operator's.
    Plugin,
}

/// One authority.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Generation {
    pub(crate) number: u32,
    pub(crate) source: Source,
}

/// The file.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Record {
    /// All whose roots are trusted, the oldest first.
    pub(crate) generations: Vec<Generation>,
    /// The one that signs.
    pub(crate) issuer: u32,
    pub(crate) phase: Phase,
    /// When this phase began, RFC 3339.
    pub(crate) since: String,
    /// Grows with each phase: certificates remember under which one they were given out.
    pub(crate) epoch: u64,
}

impl Record {
    pub(crate) fn first(source: Source, since: String) -> Self {
        let generations = vec![Generation { number: 1, source }];
        Self { generations, issuer: 1, phase: Phase::Stable, since, epoch: 1 }
    }

    pub(crate) fn read(dir: &Path) -> Result<Option<Self>, OpenError> {
        let path = dir.join(FILE);
        let Some(text) = files::read(&path, Access::Private)? else { return Ok(None) };
        let record: Self = serde_json::from_str(&text)
            .map_err(|error| OpenError::Record { path: path.clone(), what: error.to_string() })?;
        if record.generations.iter().any(|one| one.number == record.issuer) {
            return Ok(Some(record));
        }
        Err(OpenError::Record { path, what: "its issuer is not among its generations".to_owned() })
    }

    pub(crate) fn write(&self, dir: &Path) -> Result<(), FileError> {
        let text = serde_json::to_string_pretty(self).unwrap_or_default();
        files::write(&dir.join(FILE), &text, Access::Private)
    }

    pub(crate) fn source_of(&self, number: u32) -> Source {
        let found = self.generations.iter().find(|one| one.number == number);
        found.map_or(Source::Own, |one| one.source)
    }

    /// The number after the highest.
    pub(crate) fn next_number(&self) -> u32 {
        self.generations.iter().map(|one| one.number).max().unwrap_or(0) + 1
    }

    /// The same, one phase on.
    pub(crate) fn on(&self, phase: Phase, since: String) -> Self {
        Self { phase, since, epoch: self.epoch + 1, ..self.clone() }
    }
}
