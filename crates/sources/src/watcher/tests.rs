//! That changes arrive by themselves, however they are made.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::time::Duration;

use sluis_resources::Options;
use tokio::sync::{mpsc, oneshot};
use tokio::time::{Instant, timeout};

use super::Watcher;
use crate::SourceEvent;

/// Longest wait for an event, far above what a busy machine needs.
const DEADLINE: Duration = Duration::from_secs(20);

struct Running {
    events: mpsc::Receiver<SourceEvent>,
    stop: oneshot::Sender<()>,
    task: tokio::task::JoinHandle<()>,
}

impl Running {
    fn start(root: &Path) -> Self {
        let (sender, events) = mpsc::channel(1);
        let (stop, stopped) = oneshot::channel::<()>();
        let watcher = Watcher::new(vec![root.to_owned()], Options::default());
        let shutdown = async {
            let _ = stopped.await;
        };
        Self { events, stop, task: tokio::spawn(watcher.run(sender, shutdown)) }
    }

    async fn next(&mut self) -> SourceEvent {
        timeout(DEADLINE, self.events.recv()).await.expect("an event in time").expect("it runs")
    }

    /// Waits for the event that brings an object, and returns the names of all that it brings.
    async fn until(&mut self, name: &str) -> Vec<String> {
        loop {
            let event = self.next().await;
            let names: Vec<String> =
                event.upserts.iter().map(|resource| resource.key().name.to_string()).collect();
            if names.iter().any(|found| found == name) {
                return names;
            }
        }
    }

    async fn end(self) {
        self.stop.send(()).expect("it still runs");
        timeout(DEADLINE, self.task).await.expect("it stops in time").expect("it did not panic");
    }
}

fn write(path: &Path, name: &str) {
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    fs::write(path, format!("apiVersion: v1\nkind: Namespace\nmetadata: {{name: {name}}}\n"))
        .unwrap();
}

#[tokio::test]
async fn the_first_event_comes_at_once_also_when_there_is_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let mut running = Running::start(folder.path());
    assert_eq!(running.next().await, SourceEvent::default());
    running.end().await;
}

#[tokio::test]
async fn a_change_is_told_within_a_second() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("a.yaml");
    write(&file, "a");
    let mut running = Running::start(folder.path());
    running.until("a").await;
    write(&file, "b");
    let start = Instant::now();
    running.until("b").await;
    assert!(start.elapsed() < Duration::from_secs(1), "{:?}", start.elapsed());
    running.end().await;
}

#[tokio::test]
async fn an_editor_that_replaces_the_file_is_noticed_each_time() {
    let folder = tempfile::tempdir().unwrap();
    let (file, swap) = (folder.path().join("a.yaml"), folder.path().join(".a.yaml.swp"));
    write(&file, "a");
    let mut running = Running::start(&file);
    running.until("a").await;
    for name in ["b", "c", "d"] {
        write(&swap, name);
        fs::rename(&swap, &file).unwrap();
        running.until(name).await;
    }
    running.end().await;
}

#[tokio::test]
async fn the_symlink_swap_of_a_mounted_config_map_is_noticed_each_time() {
    let folder = tempfile::tempdir().unwrap();
    let root = folder.path();
    write(&root.join("..2024_1/a.yaml"), "a");
    symlink("..2024_1", root.join("..data")).unwrap();
    symlink("..data/a.yaml", root.join("a.yaml")).unwrap();
    let mut running = Running::start(root);
    running.until("a").await;
    for (version, name) in [("..2024_2", "b"), ("..2024_3", "c")] {
        write(&root.join(version).join("a.yaml"), name);
        symlink(version, root.join("..data_tmp")).unwrap();
        fs::rename(root.join("..data_tmp"), root.join("..data")).unwrap();
        running.until(name).await;
    }
    running.end().await;
}

#[tokio::test]
async fn new_directories_are_watched_too() {
    let folder = tempfile::tempdir().unwrap();
    let mut running = Running::start(folder.path());
    running.next().await;
    let file = folder.path().join("x/y/a.yaml");
    write(&file, "a");
    running.until("a").await;
    write(&file, "b");
    running.until("b").await;
    running.end().await;
}

#[tokio::test]
async fn a_file_behind_a_symlink_is_watched_where_it_is() {
    let (folder, elsewhere) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let target = elsewhere.path().join("real.yaml");
    write(&target, "a");
    symlink(&target, folder.path().join("a.yaml")).unwrap();
    let mut running = Running::start(folder.path());
    running.until("a").await;
    write(&target, "b");
    running.until("b").await;
    running.end().await;
}

#[tokio::test]
async fn the_whole_directory_can_be_replaced() {
    let folder = tempfile::tempdir().unwrap();
    let root = folder.path().join("conf");
    write(&root.join("a.yaml"), "a");
    let mut running = Running::start(&root);
    running.until("a").await;
    for name in ["b", "c"] {
        write(&folder.path().join("new/a.yaml"), name);
        fs::rename(&root, folder.path().join(format!("old-{name}"))).unwrap();
        fs::rename(folder.path().join("new"), &root).unwrap();
        running.until(name).await;
    }
    // The new directory is watched, not the old one.
    write(&root.join("a.yaml"), "d");
    running.until("d").await;
    running.end().await;
}
