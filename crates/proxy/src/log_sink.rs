//! Carries access-log lines from the workers to their files, without a worker ever waiting.
//!
//! In:    lines formatted into a worker's buffer, one buffer per file.
//! Out:   batched appends by one writer thread.
//! Never: blocks a worker: when the writer is behind by [`QUEUE_MAX`] batches, the batch is dropped
//!        and counted.

use std::{
    cell::RefCell,
    collections::HashMap,
    fs::{File, OpenOptions},
    io::{self, Write as _},
    os::unix::fs::OpenOptionsExt as _,
    rc::Rc,
    sync::{
        Arc,
        mpsc::{Receiver, SyncSender, sync_channel},
    },
    thread::JoinHandle,
    time::Duration,
};

use foldhash::fast::RandomState;
use sluis_rules::LogSink;
use tokio::sync::Notify;
use tracing::warn;

use crate::stats::{Counter, Shard};

/// Batches that may wait for the writer: 64 of at most 64 KiB are 4 MiB.
const QUEUE_MAX: usize = 64;

/// A batch is sent when it reaches this size,
const BATCH_BYTES: usize = 48 * 1024;

/// or when its oldest line is this old, so that `tail -f` feels live.
const BATCH_AGE: Duration = Duration::from_millis(100);

struct Batch {
    to: LogSink,
    lines: Vec<u8>,
}

/// The writer thread. Dropping the last [`LogSender`] ends it; [`LogWriter::join`] waits for that.
#[derive(Debug)]
pub struct LogWriter(JoinHandle<()>);

/// Sends batches to the writer thread.
#[derive(Clone, Debug)]
pub struct LogSender(SyncSender<Batch>);

impl LogWriter {
    /// Starts the writer thread.
    ///
    /// # Errors
    ///
    /// When the thread cannot be started.
    pub fn start() -> io::Result<(Self, LogSender)> {
        let (sender, batches) = sync_channel(QUEUE_MAX);
        let thread = std::thread::Builder::new()
            .name("access-log".to_owned())
            .stack_size(128 * 1024)
            .spawn(move || write_all(&batches))?;
        Ok((Self(thread), LogSender(sender)))
    }

    /// Waits until everything that was sent is written. All senders must be gone.
    pub fn join(self) {
        if self.0.join().is_err() {
            warn!("the access-log writer panicked");
        }
    }
}

fn write_all(batches: &Receiver<Batch>) {
    let mut files: HashMap<Arc<str>, File> = HashMap::new();
    let mut failed: Option<LogSink> = None;
    while let Ok(Batch { to, lines }) = batches.recv() {
        let written = match &to {
            LogSink::Stdout => io::stdout().write_all(&lines).and_then(|()| io::stdout().flush()),
            LogSink::Stderr => io::stderr().write_all(&lines),
            LogSink::File(path) => append(&mut files, path, &lines),
        };
        let Err(error) = written else {
            failed = None;
            continue;
        };
        if let LogSink::File(path) = &to {
            files.remove(path);
        }
        if failed.as_ref() != Some(&to) {
            warn!(log = ?to, %error, "access log cannot be written");
            failed = Some(to);
        }
    }
}

fn append(files: &mut HashMap<Arc<str>, File>, path: &Arc<str>, lines: &[u8]) -> io::Result<()> {
    if !files.contains_key(path) {
        // Logs name who asked for what: for the owner alone.
        let file = OpenOptions::new().append(true).create(true).mode(0o600).open(&**path)?;
        files.insert(Arc::clone(path), file);
    }
    files.get_mut(path).expect("the file was just opened").write_all(lines)
}

/// One worker's lines, by file.
#[derive(Debug)]
pub struct LogBuffers {
    sender: LogSender,
    stats: Arc<Shard>,
    by_sink: RefCell<HashMap<LogSink, Vec<u8>, RandomState>>,
    waiting: Notify,
}

impl LogBuffers {
    /// Makes the buffers of one worker; [`Self::run`] must run on the same thread.
    #[must_use]
    pub fn new(sender: LogSender, stats: Arc<Shard>) -> Self {
        Self { sender, stats, by_sink: RefCell::default(), waiting: Notify::new() }
    }

    /// Lets `write` append whole lines to the buffer of a file.
    pub fn append(&self, to: &LogSink, write: impl FnOnce(&mut Vec<u8>)) {
        let mut by_sink = self.by_sink.borrow_mut();
        let lines = match by_sink.get_mut(to) {
            Some(lines) => lines,
            None => by_sink.entry(to.clone()).or_default(),
        };
        if lines.is_empty() {
            self.waiting.notify_one();
        }
        write(lines);
        if lines.len() >= BATCH_BYTES {
            self.send(to, std::mem::take(lines));
        }
    }

    /// Hands everything to the writer.
    pub fn flush(&self) {
        for (to, lines) in self.by_sink.borrow_mut().iter_mut() {
            if !lines.is_empty() {
                self.send(to, std::mem::take(lines));
            }
        }
    }

    fn send(&self, to: &LogSink, lines: Vec<u8>) {
        let size = lines.len() as u64;
        if self.sender.0.try_send(Batch { to: to.clone(), lines }).is_err() {
            self.stats.add(Counter::LogDropped, size);
        }
    }

    /// Flushes old lines, for ever. Sleeps without a timer while there are none.
    pub(crate) async fn run(self: Rc<Self>) {
        loop {
            self.waiting.notified().await;
            tokio::time::sleep(BATCH_AGE).await;
            self.flush();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_reach_their_files_in_order_and_the_files_are_private() {
        use std::os::unix::fs::PermissionsExt as _;
        let directory = std::env::temp_dir().join(format!("sluis-log-{}", std::process::id()));
        std::fs::create_dir_all(&directory).unwrap();
        let path: Arc<str> = directory.join("access.log").to_str().unwrap().into();
        let (writer, sender) = LogWriter::start().unwrap();
        let buffers = LogBuffers::new(sender, Arc::default());
        let to = LogSink::File(Arc::clone(&path));
        for line in ["one\n", "two\n"] {
            buffers.append(&to, |into| into.extend_from_slice(line.as_bytes()));
        }
        buffers.flush();
        drop(buffers);
        writer.join();
        assert_eq!(std::fs::read_to_string(&*path).unwrap(), "one\ntwo\n");
        assert_eq!(std::fs::metadata(&*path).unwrap().permissions().mode() & 0o777, 0o600);
        std::fs::remove_dir_all(directory).unwrap();
    }
}
