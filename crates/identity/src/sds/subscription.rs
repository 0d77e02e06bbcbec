//! What one stream asked for, and what it has been sent of it.

use std::{collections::BTreeMap, sync::Arc};

use sluis_tls::{Secret, SecretStore, Slot, StoreError};

/// The names of one stream.
#[derive(Debug)]
pub(super) struct Subscription {
    store: SecretStore,
    names: BTreeMap<String, Name>,
}

/// One name, held so that its files stay watched.
#[derive(Debug)]
struct Name {
    slot: Arc<Slot>,
    sent: Option<String>,
}

/// A secret to send.
#[derive(Debug)]
pub(super) struct Due {
    pub(super) name: String,
    pub(super) secret: Arc<Secret>,
}

impl Subscription {
    pub(super) fn new(store: SecretStore) -> Self {
        Self { store, names: BTreeMap::new() }
    }

    pub(super) fn store(&self) -> &SecretStore {
        &self.store
    }

    /// Adds a name; one that is there already stays as it is.
    pub(super) fn subscribe(&mut self, name: &str) -> Result<(), StoreError> {
        if !self.names.contains_key(name) {
            let slot = self.store.slot(name)?;
            self.names.insert(name.to_owned(), Name { slot, sent: None });
        }
        Ok(())
    }

    pub(super) fn unsubscribe(&mut self, name: &str) {
        self.names.remove(name);
    }

    /// Keeps exactly these names.
    pub(super) fn replace(&mut self, names: &[String]) -> Result<(), StoreError> {
        self.names.retain(|name, _| names.contains(name));
        names.iter().try_for_each(|name| self.subscribe(name))
    }

    /// The client has this version from an earlier stream.
    pub(super) fn already_has(&mut self, name: &str, version: &str) {
        if let Some(known) = self.names.get_mut(name) {
            known.sent = Some(version.to_owned());
        }
    }

    /// Whatever has a value that was not sent yet. It counts as sent from now on.
    pub(super) fn take_due(&mut self) -> Vec<Due> {
        let mut due = Vec::new();
        for (name, known) in &mut self.names {
            let Some(secret) = known.slot.get() else { continue };
            if known.sent.as_deref() != Some(secret.fingerprint()) {
                known.sent = Some(secret.fingerprint().to_owned());
                due.push(Due { name: name.clone(), secret });
            }
        }
        due
    }
}
