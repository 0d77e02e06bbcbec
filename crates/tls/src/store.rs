//! Resolves secret names to their current values.
//!
//! In:    names as xDS writes them; values from identity, from watched files, from SDS.
//! Out:   a [`Slot`] for each name: what it stands for now, read at each handshake.
//! Never: touches a file on a data thread, or replaces a good value with a broken one.
//!
//! Start at [`SecretStore::slot`]. Configurations hold slots, so a rotation needs no reload.

mod files;
#[cfg(test)]
mod tests;

use std::{
    collections::HashMap,
    fmt,
    path::PathBuf,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use arc_swap::ArcSwapOption;
use envoy_types::pb::envoy::extensions::transport_sockets::tls::v3::Secret as EnvoySecret;
use tokio::sync::watch;

use self::files::{Files, Watched};
use crate::{Clock, Crls, GenericSecret, KeyPair, Roots, Secret, SecretError};

/// The workload's own certificate and key.
pub const WORKLOAD_CERTIFICATE: &str = "default";
/// The mesh's roots.
pub const MESH_ROOTS: &str = "ROOTCA";

/// How often watched files are looked at: a changed file is in use within this time.
const POLL_INTERVAL: Duration = Duration::from_secs(1);
/// Names at once. A proxy has a few per gateway server; more is a runaway peer or configuration.
const SLOTS_MAX: usize = 4096;

/// The live values of all secrets. Cheap to clone; clones share.
#[derive(Clone, Debug)]
pub struct SecretStore {
    inner: Arc<Inner>,
}

struct Inner {
    slots: Mutex<HashMap<Arc<str>, Arc<Slot>>>,
    clock: Clock,
    system_roots: Option<PathBuf>,
    changes: watch::Sender<u64>,
}

/// One secret by name. Its value may change between two handshakes.
pub struct Slot {
    name: Arc<str>,
    value: ArcSwapOption<Secret>,
    files: Option<Mutex<Watched>>,
}

/// Why a name cannot have a value, or not that one.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// The name has a known prefix and then a form that is not understood.
    #[error("secret name {0:?}: expected file-cert:CERT~KEY, file-root:CA or file-crl:PATH")]
    Name(String),
    /// The bound on names is reached.
    #[error("secret {0:?} is one more than the {SLOTS_MAX} that are kept")]
    TooMany(String),
    /// The name belongs to the workload's identity or to files.
    #[error("secret {0:?} cannot be set from outside")]
    Reserved(String),
    /// The value cannot be used.
    #[error(transparent)]
    Secret(#[from] SecretError),
}

impl SecretStore {
    /// An empty store.
    ///
    /// `system_roots` is what `file-root:system` reads; without it the usual places of operating
    /// systems are tried.
    #[must_use]
    pub fn new(clock: Clock, system_roots: Option<PathBuf>) -> Self {
        let changes = watch::Sender::new(0);
        let slots = Mutex::default();
        Self { inner: Arc::new(Inner { slots, clock, system_roots, changes }) }
    }

    /// The clock by which certificates are judged.
    #[must_use]
    pub fn clock(&self) -> &Clock {
        &self.inner.clock
    }

    /// The slot of a name, made at first use; a file is then read at once and watched while
    /// anybody holds the slot. That the value is absent is no error: it may come later.
    ///
    /// Reads files: not for data threads.
    ///
    /// # Errors
    ///
    /// [`StoreError::Name`] and [`StoreError::TooMany`].
    pub fn slot(&self, name: &str) -> Result<Arc<Slot>, StoreError> {
        let files = Files::of(name, self.inner.system_roots.as_deref())
            .map_err(|()| StoreError::Name(name.to_owned()))?;
        let slot = {
            let mut slots = self.slots();
            if let Some(slot) = slots.get(name) {
                return Ok(slot.clone());
            }
            if slots.len() >= SLOTS_MAX {
                return Err(StoreError::TooMany(name.to_owned()));
            }
            let slot = Arc::new(Slot {
                name: name.into(),
                value: ArcSwapOption::empty(),
                files: files.map(|files| Mutex::new(Watched::new(files))),
            });
            slots.insert(slot.name.clone(), slot.clone());
            slot
        };
        if slot.refresh() {
            self.announce();
        }
        Ok(slot)
    }

    /// Sets the workload's certificate and the mesh's roots.
    pub fn set_identity(&self, certificate: KeyPair, roots: Roots) {
        self.set_reserved(MESH_ROOTS, Secret::Roots(Arc::new(roots)));
        self.set_reserved(WORKLOAD_CERTIFICATE, Secret::KeyPair(Arc::new(certificate)));
        self.announce();
    }

    /// Sets the mesh's roots alone: they change more seldom than certificates, and before them.
    pub fn set_mesh_roots(&self, roots: Roots) {
        self.set_reserved(MESH_ROOTS, Secret::Roots(Arc::new(roots)));
        self.announce();
    }

    /// Takes in a secret that SDS sent, under its own name.
    ///
    /// # Errors
    ///
    /// [`StoreError::Reserved`] for names of the identity or of files; the value then stays as it
    /// was, as it does for a secret that cannot be used.
    pub fn put(&self, secret: &EnvoySecret) -> Result<(), StoreError> {
        let slot = self.pushed(&secret.name)?;
        slot.value.store(Some(Arc::new(Secret::from_envoy(secret)?)));
        self.announce();
        Ok(())
    }

    /// Forgets a secret that SDS removed. Handshakes that need it fail from now on.
    ///
    /// # Errors
    ///
    /// [`StoreError::Reserved`] for names of the identity or of files.
    pub fn remove(&self, name: &str) -> Result<(), StoreError> {
        self.pushed(name)?.value.store(None);
        self.announce();
        Ok(())
    }

    /// Sees each change of any value; the number only grows.
    #[must_use]
    pub fn changes(&self) -> watch::Receiver<u64> {
        self.inner.changes.subscribe()
    }

    /// The names that are held, sorted, with the value of each.
    #[must_use]
    pub fn list(&self) -> Vec<(Arc<str>, Option<Arc<Secret>>)> {
        let mut all: Vec<_> =
            self.slots().values().map(|slot| (slot.name.clone(), slot.get())).collect();
        all.sort_by(|a, b| a.0.cmp(&b.0));
        all
    }

    /// Looks once at all watched files, takes in what changed, and forgets what nobody uses.
    pub fn poll(&self) {
        self.slots().retain(|_, slot| {
            let lasting = slot.files.is_none() && slot.value.load().is_some();
            lasting || Arc::strong_count(slot) > 1
        });
        let watched: Vec<_> =
            self.slots().values().filter(|slot| slot.files.is_some()).cloned().collect();
        let changed = watched.iter().filter(|slot| slot.refresh()).count();
        if changed > 0 {
            self.announce();
        }
    }

    /// Watches the files until `shutdown`. Runs on the control thread.
    pub async fn run(self, shutdown: impl Future<Output = ()>) {
        let mut ticks = tokio::time::interval(POLL_INTERVAL);
        ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        tokio::pin!(shutdown);
        loop {
            tokio::select! {
                () = &mut shutdown => return,
                _ = ticks.tick() => self.poll(),
            }
        }
    }

    fn set_reserved(&self, name: &str, secret: Secret) {
        let mut slots = self.slots();
        let slot = slots.entry(name.into()).or_insert_with(|| {
            let value = ArcSwapOption::empty();
            Arc::new(Slot { name: name.into(), value, files: None })
        });
        slot.value.store(Some(Arc::new(secret)));
    }

    fn pushed(&self, name: &str) -> Result<Arc<Slot>, StoreError> {
        let slot = self.slot(name)?;
        if slot.files.is_some() || name == WORKLOAD_CERTIFICATE || name == MESH_ROOTS {
            return Err(StoreError::Reserved(name.to_owned()));
        }
        Ok(slot)
    }

    fn announce(&self) {
        self.inner.changes.send_modify(|generation| *generation += 1);
    }

    /// A panic under this lock cannot leave the map half changed.
    fn slots(&self) -> MutexGuard<'_, HashMap<Arc<str>, Arc<Slot>>> {
        self.inner.slots.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Slot {
    /// The name as xDS writes it.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// What the name stands for now.
    #[must_use]
    pub fn get(&self) -> Option<Arc<Secret>> {
        self.value.load_full()
    }

    /// The certificate, when the name stands for one.
    #[must_use]
    pub fn key_pair(&self) -> Option<Arc<KeyPair>> {
        match self.value.load().as_deref() {
            Some(Secret::KeyPair(pair)) => Some(pair.clone()),
            _ => None,
        }
    }

    /// The roots, when the name stands for some.
    #[must_use]
    pub fn roots(&self) -> Option<Arc<Roots>> {
        match self.value.load().as_deref() {
            Some(Secret::Roots(roots)) => Some(roots.clone()),
            _ => None,
        }
    }

    /// The lists of revoked certificates, when the name stands for some.
    #[must_use]
    pub fn crls(&self) -> Option<Arc<Crls>> {
        match self.value.load().as_deref() {
            Some(Secret::Crls(crls)) => Some(crls.clone()),
            _ => None,
        }
    }

    /// The values for filters, when the name stands for some. Those that have expired are given too:
    /// see [`GenericSecret::not_after`].
    #[must_use]
    pub fn generic(&self) -> Option<Arc<GenericSecret>> {
        match self.value.load().as_deref() {
            Some(Secret::Generic(secret)) => Some(secret.clone()),
            _ => None,
        }
    }

    /// Looks at the files; true when the value changed.
    fn refresh(&self) -> bool {
        let Some(files) = &self.files else { return false };
        let mut watched = files.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(secret) = watched.look(&self.name) else { return false };
        if self.get().is_some_and(|old| old.fingerprint() == secret.fingerprint()) {
            return false;
        }
        tracing::info!(secret = self.name(), fingerprint = secret.fingerprint(), "secret read");
        self.value.store(Some(Arc::new(secret)));
        true
    }
}

impl fmt::Debug for Inner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let slots = self.slots.lock().unwrap_or_else(PoisonError::into_inner);
        f.debug_map().entries(slots.iter().map(|(name, slot)| (name, slot.get()))).finish()
    }
}

impl fmt::Debug for Slot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Slot").field(&self.name).field(&self.get()).finish()
    }
}
