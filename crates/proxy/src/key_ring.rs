//! Key sets of servers, for all workers: what has been fetched, and until when it counts.
//!
//! In:    what the control thread has fetched (`control::key_sets`).
//! Out:   keys, at once where they are there; else after a wait, or why there are none.
//! Never: gives keys that are older than they may be; takes others in their place.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use sluis_jwt::{KeySet, Refusal};
use sluis_rules::RemoteKeys;
use tokio::{
    sync::{Notify, watch},
    time::{Instant, timeout},
};

/// Sets of the process, by where they are fetched.
#[derive(Debug, Default)]
pub(crate) struct KeyRing(Mutex<BTreeMap<Arc<RemoteKeys>, Arc<KeySlot>>>);

/// One set.
#[derive(Debug)]
pub(crate) struct KeySlot {
    known: watch::Sender<Known>,
    /// Rings when a request wants keys that are not there.
    pub(crate) wanted: Notify,
    /// How long a request waits for them.
    patience: Duration,
    /// How long a failure is not asked about again.
    refetch_after: Duration,
}

/// What is known of a set.
#[derive(Clone, Debug, Default)]
struct Known {
    /// The keys, and until when they count.
    keys: Option<(Arc<KeySet>, Instant)>,
    /// The last failure, if nothing has come since.
    failure: Option<(Refusal, Instant)>,
    /// Counts what has come, keys or failures.
    answers: u64,
}

impl KeyRing {
    /// The slot of a set; its keys come once the control thread follows it.
    pub(crate) fn slot(&self, remote: &Arc<RemoteKeys>) -> Arc<KeySlot> {
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        Arc::clone(all.entry(Arc::clone(remote)).or_insert_with(|| Arc::new(KeySlot::new(remote))))
    }

    /// Forgets all sets but these.
    pub(crate) fn retain(&self, wanted: &BTreeSet<Arc<RemoteKeys>>) {
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        all.retain(|remote, _| wanted.contains(remote));
    }
}

impl KeySlot {
    fn new(remote: &RemoteKeys) -> Self {
        Self {
            known: watch::Sender::new(Known::default()),
            wanted: Notify::new(),
            patience: remote.timeout,
            refetch_after: remote.refetch_after,
        }
    }

    /// The keys. Waits for them where none have been fetched yet, no longer than one question to the
    /// server may take.
    ///
    /// # Errors
    ///
    /// [`Refusal::Fetch`], or what is wrong with the set that was fetched.
    pub(crate) async fn keys(&self) -> Result<Arc<KeySet>, Refusal> {
        let now = Instant::now();
        let mut changes = self.known.subscribe();
        let seen = {
            let known = changes.borrow_and_update();
            if let Some(keys) = known.current(now) {
                return Ok(keys);
            }
            match known.failure {
                Some((refusal, at)) if now < at + self.refetch_after => return Err(refusal),
                _ => known.answers,
            }
        };
        self.wanted.notify_one();
        let answered =
            timeout(self.patience, changes.wait_for(|known| known.answers != seen)).await;
        match answered {
            Ok(Ok(known)) => known.current(Instant::now()).ok_or_else(|| known.reason()),
            _ => Err(Refusal::Fetch),
        }
    }

    /// Whether there are keys that count.
    pub(crate) fn is_filled(&self) -> bool {
        self.known.borrow().current(Instant::now()).is_some()
    }

    /// Takes in keys that have been fetched.
    pub(crate) fn fill(&self, keys: KeySet, until: Instant) {
        self.known.send_modify(|known| {
            known.keys = Some((Arc::new(keys), until));
            known.failure = None;
            known.answers += 1;
        });
    }

    /// Notes that nothing could be fetched. Keys that still count are kept until they do not.
    pub(crate) fn fail(&self, refusal: Refusal) {
        self.known.send_modify(|known| {
            known.failure = Some((refusal, Instant::now()));
            known.answers += 1;
        });
    }
}

impl Known {
    fn current(&self, now: Instant) -> Option<Arc<KeySet>> {
        let (keys, until) = self.keys.as_ref()?;
        (now < *until).then(|| Arc::clone(keys))
    }

    fn reason(&self) -> Refusal {
        self.failure.map_or(Refusal::Fetch, |(refusal, _)| refusal)
    }
}
