//! Asks the sources.
//!
//! In:    an [`Origin`].
//! Out:   what it gives now, or why it gives nothing; within a bounded time.
//! Never: waits for ever, follows a redirect, starts a shell, or takes more than its bounds.

mod exec;
mod file;
mod vault;

use std::{collections::BTreeMap, fmt, path::Path, sync::Arc, time::Duration, time::SystemTime};

use time::{OffsetDateTime, format_description::well_known::Rfc3339};
use tokio::{task, time::timeout};

use self::vault::Vault;
use crate::{Entries, FetchError, Fetched, Label, Origin, Value, sealed};

/// Longest that any source may take, all its questions together.
const FETCH_MAX: Duration = Duration::from_secs(60);

/// Reads a variable.
pub(crate) type Variables = Arc<dyn Fn(&str) -> Option<Value> + Send + Sync>;

/// Asks the sources. Cheap to clone; clones share what they are logged in to.
#[derive(Clone)]
pub struct Fetcher {
    vault: Arc<Vault>,
    variables: Variables,
}

impl fmt::Debug for Fetcher {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Fetcher")
    }
}

impl Fetcher {
    /// `variables` reads the environment of the program.
    pub fn new(variables: impl Fn(&str) -> Option<Value> + Send + Sync + 'static) -> Self {
        let variables: Variables = Arc::new(variables);
        Self { vault: Arc::new(Vault::new(Arc::clone(&variables))), variables }
    }

    /// Asks once.
    ///
    /// # Errors
    ///
    /// [`FetchError`] says why nothing can be used.
    pub async fn fetch(&self, origin: &Origin) -> Result<Fetched, FetchError> {
        let asked = timeout(FETCH_MAX, self.ask(origin)).await;
        asked.unwrap_or(Err(FetchError::Timeout(FETCH_MAX)))
    }

    async fn ask(&self, origin: &Origin) -> Result<Fetched, FetchError> {
        match origin {
            Origin::Object { what, entries, label, not_after, keys } => {
                let entries = entries.clone().ok_or_else(|| FetchError::NoObject(what.clone()))?;
                let label = label.clone().map_or(Label::None, Label::Told);
                let end = not_after.as_deref().map(time_of).transpose()?;
                Fetched::new(entries, keys, label, end)
            }
            Origin::Env(names) => self.environment(names),
            Origin::File { files, readable_by_others } => {
                let (files, is_open) = (files.clone(), *readable_by_others);
                blocking(move || file::read(&files, is_open)).await
            }
            Origin::Sealed { texts, identities } => {
                let (texts, path) = (texts.clone(), identities.clone());
                blocking(move || unseal(&texts, &path)).await
            }
            Origin::Exec(origin) => exec::run(origin).await,
            Origin::Vault(origin) => self.vault.fetch(origin).await,
        }
    }

    fn environment(&self, names: &BTreeMap<String, String>) -> Result<Fetched, FetchError> {
        let read = |(ours, name): (&String, &String)| {
            let value = (self.variables)(name);
            Ok((ours.clone(), value.ok_or_else(|| FetchError::NoVariable(name.clone()))?))
        };
        let entries: Result<Entries, FetchError> = names.iter().map(read).collect();
        Fetched::new(entries?, &BTreeMap::new(), Label::None, None)
    }
}

fn unseal(texts: &BTreeMap<String, String>, keys: &Path) -> Result<Fetched, FetchError> {
    let keys = sealed::identities(keys)?;
    let open = |(entry, text): (&String, &String)| {
        let plain = sealed::open(text, &keys)
            .map_err(|error| FetchError::Sealed { entry: entry.clone(), error })?;
        Ok((entry.clone(), Value::new(plain.to_vec()).without_newline()))
    };
    let entries: Result<Entries, FetchError> = texts.iter().map(open).collect();
    Fetched::new(entries?, &BTreeMap::new(), Label::None, None)
}

/// Runs what reads files away from the threads of the runtime.
async fn blocking(
    read: impl FnOnce() -> Result<Fetched, FetchError> + Send + 'static,
) -> Result<Fetched, FetchError> {
    let ended = task::spawn_blocking(read).await;
    ended.unwrap_or_else(|_| Err(FetchError::Malformed("the reader panicked".to_owned())))
}

/// What serde said, without what it was about: it quotes values.
fn malformed(error: &serde_json::Error) -> FetchError {
    let place = format!("line {} column {}", error.line(), error.column());
    FetchError::Malformed(match error.classify() {
        serde_json::error::Category::Data => {
            format!("a member has another type than is expected, at {place}")
        }
        _ => format!("it is no JSON, at {place}"),
    })
}

/// A time as RFC 3339 has it.
fn time_of(text: &str) -> Result<SystemTime, FetchError> {
    OffsetDateTime::parse(text, &Rfc3339)
        .map(SystemTime::from)
        .map_err(|_| FetchError::Malformed("a time is not in the form of RFC 3339".to_owned()))
}

#[cfg(test)]
mod tests;
