//! The audit log: one record for each use of a credential and each refusal, chained and signed.
//!
//! In:    a [`Use`] before a request leaves, its [`Outcome`] when the try has ended.
//! Out:   a line in the log ([`sluis_audit`]), written by one thread; or no permission to send.
//! Never: blocks a worker; lets a credential be used that cannot be recorded, unless told to.
//!
//! Start at [`AuditLog::begin`].

mod file;
#[cfg(test)]
mod tests;
mod writer;

use std::{
    io,
    path::PathBuf,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering},
        mpsc::{Sender, channel},
    },
    thread::JoinHandle,
    time::{Duration, Instant, SystemTime},
};

use sluis_audit::Writer as Author;
pub use sluis_audit::{Credential, Destination, Outcome, Use, User, Verdict, What, Who};
use sluis_tls::{SecretStore, WORKLOAD_CERTIFICATE};
use tracing::warn;

use self::writer::Writer;
use crate::bootstrap::{Bootstrap, BootstrapError};

/// Records that may be under way or wait for the writer: some 16 MiB at 2 KiB each, and more than
/// the requests of a busy gateway at once.
const PENDING_MAX: usize = 8192;

/// The smallest bound on a file: smaller ones would be mostly checkpoints.
const FILE_BYTES_MIN: u64 = 64 << 10;

/// What a request that is not recorded as ended is recorded as: its task went away.
const ABANDONED: &str = "abandoned";

/// How the log is kept.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AuditSettings {
    /// The file. Full ones are kept beside it, compressed.
    pub path: PathBuf,
    /// Whether credentials are used also while nothing can be recorded. Default false.
    pub goes_on_without: bool,
    /// Above so many bytes the file is closed, and another one goes on. Default 64 MiB.
    pub file_bytes_max: u64,
    /// A checkpoint is made after so many lines. Default 1000.
    pub checkpoint_lines: u64,
    /// And after so long, when there is a line. Default 10 s.
    pub checkpoint_interval: Duration,
    /// The proxy's node identifier.
    pub node: String,
}

impl AuditSettings {
    /// The defaults for a file.
    #[must_use]
    pub fn new(path: PathBuf, node: String) -> Self {
        Self {
            path,
            goes_on_without: false,
            file_bytes_max: 64 << 20,
            checkpoint_lines: 1000,
            checkpoint_interval: Duration::from_secs(10),
            node,
        }
    }
}

impl AuditSettings {
    /// What the bootstrap's metadata asks for: `SLUIS_AUDIT` names the file, without it there is
    /// none. `SLUIS_AUDIT_REQUIRED` may be `false`; `SLUIS_AUDIT_FILE_BYTES` bounds a file.
    ///
    /// # Errors
    ///
    /// [`BootstrapError`] names the metadata that is malformed.
    pub fn of(bootstrap: &Bootstrap) -> Result<Option<Self>, BootstrapError> {
        let fault = |key: &str, message: &str| BootstrapError::Field {
            field: format!("node.metadata.{key}"),
            message: message.to_owned(),
        };
        let Some(path) = bootstrap.path("SLUIS_AUDIT") else { return Ok(None) };
        let mut settings = Self::new(path, bootstrap.node.id.clone());
        settings.goes_on_without = match bootstrap.metadata("SLUIS_AUDIT_REQUIRED") {
            None | Some("true") => false,
            Some("false") => true,
            Some(_) => return Err(fault("SLUIS_AUDIT_REQUIRED", "is neither true nor false")),
        };
        if let Some(text) = bootstrap.metadata("SLUIS_AUDIT_FILE_BYTES") {
            settings.file_bytes_max = text
                .parse()
                .ok()
                .filter(|bytes| *bytes >= FILE_BYTES_MIN)
                .ok_or_else(|| fault("SLUIS_AUDIT_FILE_BYTES", "is no number from 65536 on"))?;
        }
        Ok(Some(settings))
    }
}

/// Nothing can be recorded now, so no credential may be used.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the audit log cannot be written")]
pub struct AuditUnavailable;

impl AuditUnavailable {
    /// The response's details.
    pub const DETAILS: &'static str = "audit_unavailable";
}

/// The log as workers use it. Cheap to clone; clones share.
#[derive(Clone, Debug, Default)]
pub struct AuditLog(Option<Arc<Shared>>);

/// The writer thread. [`AuditWriter::close`] ends it.
#[derive(Debug)]
pub struct AuditWriter {
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

/// What the workers and the writer share.
#[derive(Debug)]
struct Shared {
    sender: Sender<Message>,
    /// Records that were begun and are not yet in the file.
    pending: AtomicUsize,
    /// Whether the file takes what is written.
    is_writable: AtomicBool,
    /// Records that could not be kept and are not yet told of.
    lost: AtomicU64,
    /// Uses that were refused, or not recorded, because of that.
    refused: AtomicU64,
    goes_on_without: bool,
    path: PathBuf,
    head: Mutex<Head>,
}

/// What is in the file.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Head {
    /// The number of the last line.
    pub seq: u64,
    /// Its hash.
    pub hash: String,
    /// Records of uses and refusals, since the process started.
    pub records: u64,
    /// Checkpoints since then.
    pub checkpoints: u64,
}

enum Message {
    Record(SystemTime, Box<Use>),
    Close,
}

/// The permission to use a credential once: its record has a place in the queue. Dropped without
/// [`Ticket::finish`], it is recorded as abandoned.
#[derive(Debug)]
pub struct Ticket {
    log: Option<Arc<Shared>>,
    used: Option<Box<Use>>,
    begun: Instant,
}

impl AuditLog {
    /// Starts the writer. That the file cannot be opened is no error: nothing may be used until it
    /// can.
    ///
    /// # Errors
    ///
    /// When the thread cannot be started.
    pub fn start(settings: AuditSettings, store: &SecretStore) -> io::Result<(Self, AuditWriter)> {
        let (sender, messages) = channel();
        let shared = Arc::new(Shared {
            sender,
            pending: AtomicUsize::new(0),
            is_writable: AtomicBool::new(false),
            lost: AtomicU64::new(0),
            refused: AtomicU64::new(0),
            goes_on_without: settings.goes_on_without,
            path: settings.path.clone(),
            head: Mutex::default(),
        });
        let slot = store.slot(WORKLOAD_CERTIFICATE).map_err(io::Error::other)?;
        let author =
            Author { node: settings.node.clone(), version: env!("CARGO_PKG_VERSION").to_owned() };
        let clock = store.clock().clone();
        let mut writer = Writer::new(settings, author, Arc::clone(&shared), (slot, clock));
        // What is there is read before the first record can come.
        writer.open();
        let thread = std::thread::Builder::new()
            .name("audit-log".to_owned())
            .stack_size(256 * 1024)
            .spawn(move || writer.run(&messages))?;
        Ok((Self(Some(Arc::clone(&shared))), AuditWriter { shared, thread: Some(thread) }))
    }

    /// Asks to use a credential, before the request leaves. `used` says what is known by then; it
    /// is not asked where there is no log.
    ///
    /// # Errors
    ///
    /// [`AuditUnavailable`] while the file cannot be written or too many records wait for it: the
    /// request must be refused.
    pub fn begin(&self, used: impl FnOnce() -> Use) -> Result<Ticket, AuditUnavailable> {
        let begun = Instant::now();
        let Some(shared) = &self.0 else { return Ok(Ticket { log: None, used: None, begun }) };
        if shared.admit() {
            let (log, used) = (Some(Arc::clone(shared)), Some(Box::new(used())));
            return Ok(Ticket { log, used, begun });
        }
        shared.refused.fetch_add(1, Ordering::Relaxed);
        shared.lost.fetch_add(1, Ordering::Relaxed);
        if shared.goes_on_without {
            return Ok(Ticket { log: None, used: None, begun });
        }
        Err(AuditUnavailable)
    }

    /// Records a refusal. When it cannot be kept it is counted: the request is refused anyway.
    pub fn refused(&self, used: impl FnOnce() -> Use) {
        if let Ok(ticket) = self.begin(used) {
            ticket.end(None);
        }
    }

    /// What is in the file; `None` without a log.
    #[must_use]
    pub fn head(&self) -> Option<Head> {
        let shared = self.0.as_ref()?;
        Some(shared.head.lock().unwrap_or_else(PoisonError::into_inner).clone())
    }

    /// For the admin page and the gauges: whether it can be written, what waits, what was refused.
    #[must_use]
    pub fn state(&self) -> Option<AuditState> {
        let shared = self.0.as_ref()?;
        Some(AuditState {
            path: shared.path.clone(),
            is_writable: shared.is_writable.load(Ordering::Relaxed),
            pending: shared.pending.load(Ordering::Relaxed),
            refused: shared.refused.load(Ordering::Relaxed),
        })
    }
}

/// How the log is doing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AuditState {
    /// The file.
    pub path: PathBuf,
    /// Whether it takes what is written.
    pub is_writable: bool,
    /// Records that are under way or wait.
    pub pending: usize,
    /// Uses that could not be recorded.
    pub refused: u64,
}

impl Shared {
    fn admit(&self) -> bool {
        if !self.is_writable.load(Ordering::Relaxed) {
            return false;
        }
        if self.pending.fetch_add(1, Ordering::Relaxed) >= PENDING_MAX {
            self.pending.fetch_sub(1, Ordering::Relaxed);
            return false;
        }
        true
    }

    fn send(&self, message: Message) {
        let is_record = matches!(message, Message::Record(..));
        if self.sender.send(message).is_err() && is_record {
            self.pending.fetch_sub(1, Ordering::Relaxed);
            self.lost.fetch_add(1, Ordering::Relaxed);
        }
    }
}

impl Ticket {
    /// The record, for what is learnt on the way; `None` without a log.
    pub fn used(&mut self) -> Option<&mut Use> {
        self.used.as_deref_mut()
    }

    /// Records the use with how it ended. Its duration is filled in.
    pub fn finish(self, result: Outcome) {
        self.end(Some(result));
    }

    fn end(mut self, result: Option<Outcome>) {
        if let Some(used) = &mut self.used
            && let Some(result) = result
        {
            used.result = result;
            let elapsed = self.begun.elapsed().as_millis();
            used.result.milliseconds = u64::try_from(elapsed).unwrap_or(u64::MAX);
        }
        self.send();
    }

    fn send(&mut self) {
        if let (Some(log), Some(used)) = (self.log.take(), self.used.take()) {
            log.send(Message::Record(SystemTime::now(), used));
        }
    }
}

impl Drop for Ticket {
    fn drop(&mut self) {
        if let Some(used) = &mut self.used {
            ABANDONED.clone_into(&mut used.result.details);
            self.send();
        }
    }
}

impl AuditWriter {
    /// Writes what was handed over, makes the closing checkpoint and ends. Nothing may be used
    /// from then on.
    pub fn close(self) {
        drop(self);
    }
}

impl Drop for AuditWriter {
    fn drop(&mut self) {
        self.shared.is_writable.store(false, Ordering::Relaxed);
        self.shared.send(Message::Close);
        if self.thread.take().is_some_and(|thread| thread.join().is_err()) {
            warn!("the audit writer panicked");
        }
    }
}
