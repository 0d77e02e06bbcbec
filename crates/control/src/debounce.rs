//! Waits until changes have come to rest, so that one edit of many files is one push.

use std::{collections::BTreeMap, time::Duration};

use sluis_model::Batch;
use sluis_resources::{Key, Resource};
use tokio::{
    sync::mpsc,
    time::{Instant, sleep_until},
};

/// Quiet that ends a batch. Editors and `git checkout` write their files within a few tens of
/// milliseconds of each other.
const QUIET: Duration = Duration::from_millis(100);

/// Longest wait of a change, however restless the source. With [`QUIET`] it keeps the promise that
/// an edit is in force within about a second.
const WAIT_MAX: Duration = Duration::from_secs(1);

/// Waits for a batch, and for those that follow it closely; returns them as one.
///
/// `None` when the source is gone and nothing is left to apply.
///
/// # Cancel safety
///
/// None: a cancelled wait loses what it has received. Cancel only on shutdown.
pub(crate) async fn next(batches: &mut mpsc::Receiver<Batch>) -> Option<Batch> {
    let mut pending = Pending::default();
    pending.merge(batches.recv().await?);
    let last = Instant::now() + WAIT_MAX;
    loop {
        let quiet = Instant::now() + QUIET;
        tokio::select! {
            () = sleep_until(quiet.min(last)) => return Some(pending.into_batch()),
            more = batches.recv() => match more {
                Some(batch) => pending.merge(batch),
                None => return Some(pending.into_batch()),
            }
        }
    }
}

/// The last word on each object; `None` means that it is gone. Bounded by the objects that exist.
#[derive(Default)]
struct Pending(BTreeMap<Key, Option<Resource>>);

impl Pending {
    fn merge(&mut self, batch: Batch) {
        self.0.extend(batch.removals.into_iter().map(|key| (key, None)));
        self.0.extend(batch.upserts.into_iter().map(|resource| (resource.key(), Some(resource))));
    }

    fn into_batch(self) -> Batch {
        let mut batch = Batch::default();
        for (key, resource) in self.0 {
            match resource {
                Some(resource) => batch.upserts.push(resource),
                None => batch.removals.push(key),
            }
        }
        batch
    }
}
