//! The one thread that writes the audit log.
//!
//! In:    records of all workers.
//! Out:   lines, in batches; checkpoints; the next file when one is full.
//! Never: gives up a record that it has taken: while the disk is full, it waits and workers are
//!        refused.

use std::{
    io,
    sync::{
        Arc, PoisonError,
        atomic::Ordering,
        mpsc::{Receiver, RecvTimeoutError},
    },
    thread::JoinHandle,
    time::{Duration, Instant},
};

use base64::{Engine as _, engine::general_purpose::STANDARD};
use sluis_audit::{Chain, Checkpoint, Entry, Gap, Occasion, Reopening, Writer as Author};
use sluis_tls::{Clock, Slot, StatementError, StatementSigner};
use tracing::{info, warn};

use super::{
    AuditSettings, Message, Shared,
    file::{LogFile, compress_aside, newest_aside},
};

/// Records that are written at once.
const BATCH_MAX: usize = 256;

/// How often a file that cannot be written is tried again, and the one that is written is looked at.
const LOOK_AGAIN: Duration = Duration::from_millis(250);

/// The same while nothing waits.
const QUIET_LOOK_AGAIN: Duration = Duration::from_secs(1);

/// How long the end waits for a disk that is full.
const CLOSE_WAIT_MAX: Duration = Duration::from_secs(2);

pub(super) struct Writer {
    settings: AuditSettings,
    author: Author,
    shared: Arc<Shared>,
    certificate: Arc<Slot>,
    clock: Clock,
    file: Option<LogFile>,
    /// `None` before a file was opened for the first time.
    chain: Option<Chain>,
    /// Lines that are not in the file yet.
    out: Vec<u8>,
    /// Records among them.
    held: usize,
    /// When the oldest line without a checkpoint was made.
    unsigned_since: Option<Instant>,
    is_told: bool,
    compression: Option<JoinHandle<()>>,
}

/// Why there is no checkpoint now.
enum Unsigned {
    /// The certificate has not come yet.
    NoCertificate,
    Statement(StatementError),
}

impl Writer {
    pub(super) fn new(
        settings: AuditSettings,
        author: Author,
        shared: Arc<Shared>,
        (certificate, clock): (Arc<Slot>, Clock),
    ) -> Self {
        Self {
            settings,
            author,
            shared,
            certificate,
            clock,
            file: None,
            chain: None,
            out: Vec::new(),
            held: 0,
            unsigned_since: None,
            is_told: false,
            compression: None,
        }
    }

    /// Works until the word to close.
    pub(super) fn run(mut self, messages: &Receiver<Message>) {
        // What a process that was killed had put aside.
        self.compress();
        loop {
            let is_quiet = self.out.is_empty() && self.unsigned_since.is_none();
            let wait = if is_quiet { QUIET_LOOK_AGAIN } else { LOOK_AGAIN };
            let is_closing = match messages.recv_timeout(wait) {
                Ok(first) => self.take_batch(first, messages),
                Err(RecvTimeoutError::Timeout) => false,
                Err(RecvTimeoutError::Disconnected) => true,
            };
            if is_closing {
                return self.close(messages);
            }
            self.keep_up();
        }
    }

    fn take_batch(&mut self, first: Message, messages: &Receiver<Message>) -> bool {
        let mut next = Some(first);
        for _ in 0..BATCH_MAX {
            match next {
                Some(Message::Record(at, used)) => self.record(at, used),
                Some(Message::Close) => return true,
                None => break,
            }
            next = messages.try_recv().ok();
        }
        if let Some(Message::Record(at, used)) = next {
            self.record(at, used);
        }
        false
    }

    fn record(&mut self, at: std::time::SystemTime, used: Box<sluis_audit::Use>) {
        self.append(at, Entry::Use(Box::new(used.bounded())));
        self.held += 1;
    }

    fn append(&mut self, at: std::time::SystemTime, entry: Entry) {
        self.chain.get_or_insert_default().append(at, entry, &mut self.out);
        self.unsigned_since.get_or_insert_with(Instant::now);
    }

    /// Writes what there is, makes checkpoints that are due, and goes on in another file.
    fn keep_up(&mut self) {
        if self.file.as_ref().is_some_and(|file| !file.is_in_place()) {
            warn!(path = %self.settings.path.display(), "the audit log was moved away or removed");
            self.file = None;
        }
        if self.file.is_none() {
            self.open();
        }
        // Once it can be written again: one line for the whole gap.
        if self.file.is_some() && self.out.is_empty() {
            let lost = self.shared.lost.swap(0, Ordering::Relaxed);
            if lost > 0 {
                self.append(self.clock.now(), Entry::Gap(Gap { lost }));
            }
        }
        let lines = self.chain.as_ref().map_or(0, Chain::since_checkpoint);
        let is_old = self
            .unsigned_since
            .is_some_and(|since| since.elapsed() >= self.settings.checkpoint_interval);
        if lines > 0 && (is_old || lines >= self.settings.checkpoint_lines) {
            self.checkpoint(Occasion::Due);
        }
        self.write();
        let is_full =
            self.file.as_ref().is_some_and(|file| file.length() >= self.settings.file_bytes_max);
        if is_full && self.out.is_empty() {
            self.turn_over();
        }
    }

    /// Opens the file and says in it what was found.
    pub(super) fn open(&mut self) {
        match LogFile::open(&self.settings.path) {
            Ok((file, tail)) => {
                let is_first = self.chain.is_none() && tail.is_none();
                let aside = is_first.then(|| newest_aside(&self.settings.path)).flatten();
                let tail = tail.or(aside);
                let entry = match (&self.chain, &tail) {
                    // A file was put in the place of ours: the chain goes on, a verifier sees it.
                    (Some(_), _) => Entry::Continue(self.author.clone()),
                    (None, None) => Entry::Start(self.author.clone()),
                    (None, Some(tail)) => Entry::Restart(Reopening {
                        writer: self.author.clone(),
                        closed: tail.is_closed,
                        torn_bytes: tail.torn_bytes,
                    }),
                };
                self.chain
                    .get_or_insert_with(|| tail.as_ref().map_or_else(Chain::default, Chain::after));
                if tail.is_some_and(|tail| tail.torn_bytes > 0) {
                    warn!(path = %self.settings.path.display(), "the audit log's last line is cut off");
                    self.out.insert(0, b'\n');
                }
                self.file = Some(file);
                self.append(self.clock.now(), entry);
                self.write();
                info!(path = %self.settings.path.display(), "audit log");
            }
            Err(error) => self.fail(&error),
        }
    }

    fn write(&mut self) {
        let Some(file) = &mut self.file else { return };
        let (written, result) = file.append(&self.out);
        self.out.drain(..written);
        match result {
            Ok(()) => {
                let held = std::mem::take(&mut self.held);
                self.shared.pending.fetch_sub(held, Ordering::Relaxed);
                self.shared.is_writable.store(true, Ordering::Relaxed);
                self.is_told = false;
                let mut head = self.shared.head.lock().unwrap_or_else(PoisonError::into_inner);
                if let Some(chain) = &self.chain {
                    head.seq = chain.seq();
                    chain.last().clone_into(&mut head.hash);
                }
                head.records += held as u64;
            }
            Err(error) => self.fail(&error),
        }
    }

    fn fail(&mut self, error: &io::Error) {
        self.shared.is_writable.store(false, Ordering::Relaxed);
        if !std::mem::replace(&mut self.is_told, true) {
            let path = self.settings.path.display();
            warn!(%path, %error, "the audit log cannot be written: no credential is used");
        }
    }

    fn checkpoint(&mut self, occasion: Occasion) {
        match self.sign(occasion) {
            Ok(()) => {
                self.unsigned_since = None;
                let mut head = self.shared.head.lock().unwrap_or_else(PoisonError::into_inner);
                head.checkpoints += 1;
            }
            Err(Unsigned::NoCertificate) => {}
            Err(Unsigned::Statement(error)) => warn!(%error, "no checkpoint of the audit log"),
        }
    }

    fn sign(&mut self, occasion: Occasion) -> Result<(), Unsigned> {
        let pair = self.certificate.key_pair().ok_or(Unsigned::NoCertificate)?;
        let signer = StatementSigner::of(&pair).map_err(Unsigned::Statement)?;
        let checkpoint = Checkpoint {
            occasion,
            lines: 0,
            scheme: signer.scheme().to_owned(),
            chain: pair.chain().iter().map(|one| STANDARD.encode(one)).collect(),
        };
        let sign = |statement: &[u8]| signer.sign(statement).map_err(Unsigned::Statement);
        let chain = self.chain.get_or_insert_default();
        chain.checkpoint(self.clock.now(), checkpoint, sign, &mut self.out)
    }

    /// Closes the file and goes on in another.
    fn turn_over(&mut self) {
        self.checkpoint(Occasion::Full);
        self.write();
        let Some(file) = &self.file else { return };
        if !self.out.is_empty() {
            return;
        }
        let put =
            file.sync().and_then(|()| file.put_aside(self.chain.as_ref().map_or(0, Chain::seq)));
        match put {
            Ok(()) => {
                self.file = None;
                self.open();
                self.compress();
            }
            Err(error) => warn!(%error, "the audit log goes on in the same file"),
        }
    }

    /// Compresses what was put aside, on a thread of its own: one at a time.
    fn compress(&mut self) {
        self.wait_for_compression();
        let path = self.settings.path.clone();
        let builder = std::thread::Builder::new().name("audit-gzip".to_owned());
        match builder.spawn(move || compress_aside(&path)) {
            Ok(thread) => self.compression = Some(thread),
            Err(error) => warn!(%error, "the audit log is not compressed"),
        }
    }

    fn wait_for_compression(&mut self) {
        if self.compression.take().is_some_and(|thread| thread.join().is_err()) {
            warn!("the compression of the audit log panicked");
        }
    }

    /// Takes what is left, signs, and ends.
    fn close(mut self, messages: &Receiver<Message>) {
        while let Ok(message) = messages.try_recv() {
            if let Message::Record(at, used) = message {
                self.record(at, used);
            }
        }
        self.keep_up();
        self.checkpoint(Occasion::Close);
        let until = Instant::now() + CLOSE_WAIT_MAX;
        loop {
            self.write();
            if self.out.is_empty() {
                break;
            }
            if Instant::now() >= until {
                warn!(records = self.held, "the audit log ends without its last records");
                break;
            }
            std::thread::sleep(LOOK_AGAIN);
        }
        self.shared.is_writable.store(false, Ordering::Relaxed);
        if let Some(file) = &self.file
            && let Err(error) = file.sync()
        {
            warn!(%error, "the audit log may not outlast the machine");
        }
        self.wait_for_compression();
    }
}
