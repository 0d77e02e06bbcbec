//! Looks at files again when something has happened to them.
//!
//! In:    [`Files`], and the operating system's word that something changed in a directory.
//! Out:   [`SourceEvent`]s on a channel, the first one at once.
//! Never: trusts what the operating system says about a change: it is only a reason to look. So
//!        renames, symlink swaps, editors' backup files and lost events are all the same.
//!
//! Start at [`Watcher::run`].

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use notify::{RecommendedWatcher, RecursiveMode, Watcher as _};
use sluis_resources::Options;
use tokio::sync::{Notify, mpsc};
use tokio::task;
use tokio::time::{Instant, sleep, sleep_until};
use tracing::{debug, warn};

use crate::files::{Files, SourceEvent};
use crate::scan::DirectoryId;

/// Quiet that is waited for: an editor's rename-and-replace and a copy of several files come within
/// a few tens of milliseconds.
const QUIET: Duration = Duration::from_millis(100);

/// Longest wait of a change, however restless the directory. With the time to read, an edit is in
/// force well within a second.
const WAIT_MAX: Duration = Duration::from_millis(400);

/// How often files are looked at without a reason: for file systems and mounts that tell nothing.
const LOOK_AGAIN: Duration = Duration::from_secs(2);

/// The same where the operating system gives no watches at all (its limits are used up).
const LOOK_AGAIN_BLIND: Duration = Duration::from_millis(500);

/// Watches the files under some paths.
#[derive(Debug)]
pub struct Watcher {
    files: Files,
}

impl Watcher {
    /// Prepares to watch files: each root that is a file, and `*.yaml`, `*.yml` and `*.json` in and
    /// below each that is a directory.
    pub fn new(roots: Vec<PathBuf>, options: Options) -> Self {
        Self { files: Files::new(roots, options) }
    }

    /// Reads all files, sends what they say, and then sends each change until `shutdown` is done or
    /// nobody receives any more.
    ///
    /// The first event comes at once, also when it is empty. While the receiver is slow nothing
    /// queues up: what happens meanwhile becomes one event.
    ///
    /// # Cancel safety
    ///
    /// Dropping it loses at most an event that has not been received.
    pub async fn run(
        mut self,
        events: mpsc::Sender<SourceEvent>,
        shutdown: impl Future<Output = ()>,
    ) {
        let news = Arc::new(Notify::new());
        let mut watches = Watches::new(&news);
        let watching = async {
            loop {
                let Some((files, event)) = look(self.files).await else { return };
                self.files = files;
                // What happened in a directory before it was watched has been missed.
                if watches.follow(self.files.directories()) {
                    news.notify_one();
                }
                if let Some(event) = event
                    && events.send(event).await.is_err()
                {
                    return;
                }
                wait_for_news(&news, watches.look_again()).await;
            }
        };
        tokio::select! {
            () = shutdown => {}
            () = watching => {}
            () = events.closed() => {}
        }
    }
}

/// Looks at the files away from the runtime's threads. `None` when the runtime is shutting down.
async fn look(mut files: Files) -> Option<(Files, Option<SourceEvent>)> {
    let looked = task::spawn_blocking(move || {
        let event = files.refresh();
        (files, event)
    });
    looked.await.ok()
}

/// Waits until something has happened and come to rest, or for `look_again`.
async fn wait_for_news(news: &Notify, look_again: Duration) {
    tokio::select! {
        () = news.notified() => {}
        () = sleep(look_again) => return,
    }
    let last = Instant::now() + WAIT_MAX;
    loop {
        let quiet = Instant::now() + QUIET;
        tokio::select! {
            () = sleep_until(quiet.min(last)) => return,
            () = news.notified() => {}
        }
    }
}

/// The operating system's watches, one per directory.
struct Watches {
    /// `None` where there are none to be had.
    watcher: Option<RecommendedWatcher>,
    watched: BTreeMap<PathBuf, DirectoryId>,
}

impl Watches {
    fn new(news: &Arc<Notify>) -> Self {
        let news = Arc::clone(news);
        let tell = move |event: notify::Result<notify::Event>| {
            // Reading the files is an event too, and no news.
            if !event.is_ok_and(|event| event.kind.is_access()) {
                news.notify_one();
            }
        };
        let watcher = notify::recommended_watcher(tell)
            .inspect_err(|error| warn!(%error, "files cannot be watched, only looked at"))
            .ok();
        Self { watcher, watched: BTreeMap::new() }
    }

    /// Watches exactly these directories; returns whether one of them is new.
    ///
    /// A directory that was replaced by another of its name counts as new.
    fn follow(&mut self, wanted: &BTreeMap<PathBuf, DirectoryId>) -> bool {
        let Some(watcher) = &mut self.watcher else { return false };
        self.watched.retain(|path, id| {
            let keep = wanted.get(path) == Some(id);
            if !keep {
                // The watch of a directory that is gone has ended by itself.
                let _ = watcher.unwatch(path);
            }
            keep
        });
        let mut added = false;
        for (path, id) in wanted {
            if self.watched.contains_key(path) {
                continue;
            }
            match watcher.watch(path, RecursiveMode::NonRecursive) {
                Ok(()) => {
                    debug!(path = %path.display(), "watching");
                    self.watched.insert(path.clone(), *id);
                    added = true;
                }
                Err(error) => warn!(path = %path.display(), %error, "cannot be watched"),
            }
        }
        added
    }

    fn look_again(&self) -> Duration {
        if self.watcher.is_none() || self.watched.is_empty() {
            LOOK_AGAIN_BLIND
        } else {
            LOOK_AGAIN
        }
    }
}

#[cfg(test)]
mod tests;
