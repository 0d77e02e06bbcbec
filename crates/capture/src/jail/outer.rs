//! The outer process: makes the user namespace, keeps the sidecar's connection, forwards signals.
//!
//! In:    the spec.
//! Out:   the command's exit code, or why there was none.
//! Never: trusts init's word for more than the error text and the sockets.

use std::io;
use std::os::fd::AsFd as _;
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::{Signal, kill};
use nix::sys::signalfd::SignalFd;
use nix::sys::wait::{WaitPidFlag, waitpid};
use nix::unistd::{ForkResult, Pid};
use serde::{Deserialize, Serialize};

use super::{JailError, Sidecar, Spec, init, namespaces, signals};
use crate::handoff::{self, Sockets};
use crate::{relay, sys, wire};

/// How long to wait before offering the sockets to a restarted sidecar again.
const OFFER_AGAIN_AFTER: Duration = Duration::from_millis(200);

/// What init says.
#[derive(Debug, Serialize, Deserialize)]
pub(super) enum Report {
    /// The jail is made; its sockets follow.
    Ready,
    /// It is not, or the command could not be started.
    Failed(JailError),
}

/// What init is told.
#[derive(Debug, Serialize, Deserialize)]
pub(super) enum Word {
    /// The sidecar serves the sockets: start the command.
    Start,
}

/// Makes the jail and waits for its command.
pub(super) fn run(spec: &Spec) -> Result<u8, JailError> {
    let failed = |step| move |error: io::Error| JailError::step(step, &error);
    let threads = sys::threads().map_err(failed("count threads"))?;
    if threads != 1 {
        let reason = io::Error::other(format!("this process has {threads} threads"));
        return Err(JailError::step("make a user namespace", &reason));
    }
    let caught = signals::catch().map_err(failed("catch signals"))?;
    let (ours, theirs) = UnixStream::pair().map_err(failed("make a socket pair"))?;
    namespaces::enter_user_and_pid()?;
    let init = match sys::fork_single_threaded() {
        Ok(ForkResult::Parent { child }) => child,
        Ok(ForkResult::Child) => {
            drop(ours);
            init::run(spec, &theirs, &caught)
        }
        // The first process of a pid namespace is refused where those are limited.
        Err(error) => return Err(JailError::unsupported("start the jail's first process", error)),
    };
    drop(theirs);
    let jail = Jail { init, stream: ours, caught };
    match jail.start(spec) {
        Ok(link) => jail.watch(link),
        Err(error) => {
            jail.abandon();
            Err(error)
        }
    }
}

/// The jail as seen from outside.
struct Jail {
    init: Pid,
    stream: UnixStream,
    caught: SignalFd,
}

impl Jail {
    /// Takes the sockets from init, brings them to the sidecar, lets the command start.
    fn start(&self, spec: &Spec) -> Result<Link, JailError> {
        let talk = |error: io::Error| JailError::step("talk to the jail", &error);
        match wire::receive::<Report>(&self.stream).map_err(talk)? {
            Some((Report::Ready, _)) => {}
            Some((Report::Failed(error), _)) => return Err(error),
            None => return Err(talk(io::ErrorKind::UnexpectedEof.into())),
        }
        let sockets = Sockets::receive(&self.stream).map_err(talk)?;
        let link = Link::make(spec, sockets).map_err(|error| JailError::Sidecar {
            workload: spec.workload.clone(),
            reason: error.to_string(),
        })?;
        wire::send(&self.stream, &Word::Start, &[]).map_err(talk)?;
        Ok(link)
    }

    /// Ends a jail whose command never started: init ends when the stream does.
    fn abandon(self) {
        drop(self.stream);
        // It ends either way; a failing wait leaves nothing to do.
        let _ended = waitpid(self.init, None);
    }

    /// Forwards signals and keeps the sidecar informed, until init ends.
    fn watch(self, mut link: Link) -> Result<u8, JailError> {
        let failed = |error: io::Error| JailError::step("wait for the command", &error);
        loop {
            self.wait_for_event(&link).map_err(failed)?;
            link.tend();
            while let Some(signal) = signals::next(&self.caught).map_err(failed)? {
                match signal {
                    Signal::SIGCHLD => {
                        if let Some(code) = self.ended().map_err(failed)? {
                            return self.last_word().map_or(Ok(code), Err);
                        }
                    }
                    // Init may have ended just now; then nobody needs this signal any more.
                    signal => drop(kill(self.init, signal)),
                }
            }
        }
    }

    fn wait_for_event(&self, link: &Link) -> io::Result<()> {
        let mut events = vec![PollFd::new(self.caught.as_fd(), PollFlags::POLLIN)];
        if let Some(stream) = link.stream() {
            events.push(PollFd::new(stream.as_fd(), PollFlags::POLLIN));
        }
        let wait = match link.again_in() {
            Some(wait) => PollTimeout::try_from(wait).map_err(io::Error::other)?,
            None => PollTimeout::NONE,
        };
        match poll(&mut events, wait) {
            Ok(_) | Err(nix::errno::Errno::EINTR) => Ok(()),
            Err(errno) => Err(errno.into()),
        }
    }

    /// The exit code of init, once it has one.
    fn ended(&self) -> io::Result<Option<u8>> {
        let status = waitpid(self.init, Some(WaitPidFlag::WNOHANG))?;
        Ok(signals::exit_code(status))
    }

    /// The error that init left, if its end was no command's.
    fn last_word(&self) -> Option<JailError> {
        match wire::receive::<Report>(&self.stream) {
            Ok(Some((Report::Failed(error), _))) => Some(error),
            _ => None,
        }
    }
}

/// How the sockets are with the sidecar.
enum Link {
    /// Handed over; kept here too, for the sidecar after this one.
    Handoff { offer: Box<Offer>, connection: Option<UnixStream>, again_at: Instant },
    /// Served by a thread of this process.
    Relay,
}

/// What a restarted sidecar is offered.
struct Offer {
    path: std::path::PathBuf,
    workload: String,
    sockets: Sockets,
}

impl Link {
    fn make(spec: &Spec, sockets: Sockets) -> io::Result<Self> {
        match &spec.sidecar {
            Sidecar::Handoff(path) => {
                let connection = Some(handoff::send(path, &spec.workload, &sockets)?);
                let workload = spec.workload.clone();
                let offer = Box::new(Offer { path: path.clone(), workload, sockets });
                Ok(Self::Handoff { offer, connection, again_at: Instant::now() })
            }
            Sidecar::Relay { pipe, names } => {
                let (pipe, names) = (pipe.clone(), names.clone());
                let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
                std::thread::Builder::new().name("relay".to_owned()).spawn(move || {
                    if let Err(error) = runtime.block_on(relay::run(sockets, pipe, names)) {
                        tracing::error!(%error, "the relay to the sidecar has ended");
                    }
                })?;
                Ok(Self::Relay)
            }
        }
    }

    fn stream(&self) -> Option<&UnixStream> {
        match self {
            Self::Handoff { connection, .. } => connection.as_ref(),
            Self::Relay => None,
        }
    }

    /// When [`Link::tend`] wants to be called next, if nothing happens before.
    fn again_in(&self) -> Option<Duration> {
        match self {
            Self::Handoff { connection: None, again_at, .. } => {
                Some(again_at.saturating_duration_since(Instant::now()))
            }
            _ => None,
        }
    }

    /// Notices the sidecar's end, and offers the sockets to the next one.
    fn tend(&mut self) {
        let Self::Handoff { offer, connection, again_at } = self else { return };
        if let Some(stream) = connection {
            if !has_ended(stream) {
                return;
            }
            tracing::warn!(workload = offer.workload, "the sidecar is gone; connections wait");
            *connection = None;
            *again_at = Instant::now() + OFFER_AGAIN_AFTER;
        } else if Instant::now() >= *again_at {
            match handoff::send(&offer.path, &offer.workload, &offer.sockets) {
                Ok(stream) => {
                    tracing::info!(workload = offer.workload, "the sidecar is back");
                    *connection = Some(stream);
                }
                Err(error) => {
                    tracing::debug!(%error, workload = offer.workload, "no sidecar yet");
                    *again_at = Instant::now() + OFFER_AGAIN_AFTER;
                }
            }
        }
    }
}

/// Whether the other side has closed. It says nothing after its answer, so any word is an error.
fn has_ended(stream: &UnixStream) -> bool {
    let mut event = [PollFd::new(stream.as_fd(), PollFlags::POLLIN)];
    !matches!(poll(&mut event, PollTimeout::ZERO), Ok(0))
}
