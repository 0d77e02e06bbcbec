//! The outer process: makes the user namespace, keeps the sidecar's connection, forwards signals.
//!
//! In:    the spec.
//! Out:   the command's exit code, or why there was none.
//! Never: trusts init's word for more than the error text, the sockets, and that the command stopped.

use std::io;
use std::os::fd::AsFd as _;
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::pin::Pin;
use std::time::Duration;

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::{Signal, kill};
use nix::sys::signalfd::SignalFd;
use nix::sys::wait::{WaitPidFlag, waitpid};
use nix::unistd::{ForkResult, Pid};
use tokio::runtime::Runtime;

use super::report::{Report, Word};
use super::{JailError, Sidecar, Spec, init, namespaces, signals};
use crate::handoff::{self, Sockets};
use crate::{relay, sys, wire};

/// How long to wait before offering the sockets to a restarted sidecar again.
const OFFER_AGAIN_AFTER: Duration = Duration::from_millis(200);

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
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let started = runtime
        .map_err(failed("start the event loop"))
        .and_then(|runtime| Ok((jail.start(spec)?, runtime)));
    match started {
        Ok((link, runtime)) => jail.watch(link, &runtime),
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
            Some((Report::Stopped, _)) | None => {
                return Err(talk(io::ErrorKind::UnexpectedEof.into()));
            }
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

    /// Forwards signals, stops when the command has, and keeps the sidecar's link, until init ends.
    ///
    /// On one thread: a process that has made a pid namespace for its children can have no more
    /// (pid_namespaces(7)).
    fn watch(self, mut link: Link, runtime: &Runtime) -> Result<u8, JailError> {
        let failed = |error: io::Error| JailError::step("wait for the command", &error);
        let ended = runtime.block_on(async {
            let caught = sys::watch_readable(self.caught.as_fd())?;
            let stream = sys::watch_readable(self.stream.as_fd())?;
            let mut last_word = None;
            let mut is_over = false;
            loop {
                tokio::select! {
                    ready = caught.readable() => {
                        ready?.clear_ready();
                        if let Some(code) = self.pass_on_signals()? {
                            return Ok((code, last_word));
                        }
                    }
                    ready = stream.readable(), if !is_over => {
                        ready?.clear_ready();
                        while !is_over && self.has_more()? {
                            match wire::receive::<Report>(&self.stream)? {
                                Some((Report::Stopped, _)) => signals::stop()?,
                                Some((Report::Failed(error), _)) => last_word = Some(error),
                                Some((Report::Ready, _)) => {}
                                None => is_over = true,
                            }
                        }
                    }
                    () = link.tend() => {}
                }
            }
        });
        let (code, last_word) = ended.map_err(failed)?;
        last_word.or_else(|| self.last_word()).map_or(Ok(code), Err)
    }

    /// Whether init has said something, or ended.
    fn has_more(&self) -> io::Result<bool> {
        let mut events = [PollFd::new(self.stream.as_fd(), PollFlags::POLLIN)];
        Ok(poll(&mut events, PollTimeout::ZERO)? > 0)
    }

    /// Gives init the signals that are for the command; tells the exit code once init has ended.
    fn pass_on_signals(&self) -> io::Result<Option<u8>> {
        while let Some(signal) = signals::next(&self.caught)? {
            match signal {
                Signal::SIGCHLD => {
                    if let Some(code) = self.ended()? {
                        return Ok(Some(code));
                    }
                }
                // Init may have ended just now; then nobody needs this signal any more.
                signal => drop(kill(self.init, signal)),
            }
        }
        Ok(None)
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
    Handoff { offer: Box<Offer>, connection: Option<UnixStream> },
    /// Served by this process.
    Relay(Pin<Box<dyn Future<Output = io::Result<()>>>>),
    /// The relay has failed. Connections end in the backlog.
    Broken,
}

/// What a restarted sidecar is offered.
struct Offer {
    path: PathBuf,
    workload: String,
    sockets: Sockets,
}

impl Link {
    fn make(spec: &Spec, sockets: Sockets) -> io::Result<Self> {
        match &spec.sidecar {
            Sidecar::Handoff(path) => {
                let connection = handoff::send(path, &spec.workload, &sockets)?;
                let workload = spec.workload.clone();
                let offer = Box::new(Offer { path: path.clone(), workload, sockets });
                Ok(Self::Handoff { offer, connection: Some(connection) })
            }
            Sidecar::Relay { pipe, names } => {
                Ok(Self::Relay(Box::pin(relay::run(sockets, pipe.clone(), names.clone()))))
            }
        }
    }

    /// Keeps the link until something changes; safe to cancel and call again.
    async fn tend(&mut self) {
        match self {
            Self::Handoff { connection: connection @ Some(_), offer } => {
                // A stream that cannot be watched is as good as ended: the offer is made again.
                let _watched = ended(connection.as_ref()).await;
                tracing::warn!(workload = offer.workload, "the sidecar is gone; connections wait");
                *connection = None;
            }
            Self::Handoff { connection, offer } => {
                tokio::time::sleep(OFFER_AGAIN_AFTER).await;
                match handoff::send(&offer.path, &offer.workload, &offer.sockets) {
                    Ok(stream) => {
                        tracing::info!(workload = offer.workload, "the sidecar is back");
                        *connection = Some(stream);
                    }
                    Err(error) => {
                        tracing::debug!(%error, workload = offer.workload, "no sidecar yet");
                    }
                }
            }
            Self::Relay(serving) => {
                if let Err(error) = serving.await {
                    tracing::error!(%error, "the relay to the sidecar has ended");
                }
                *self = Self::Broken;
            }
            Self::Broken => std::future::pending().await,
        }
    }
}

/// Waits until the other side has closed. It says nothing after its answer, so any word is an end.
async fn ended(stream: Option<&UnixStream>) -> io::Result<()> {
    let Some(stream) = stream else { return Ok(()) };
    let stream = sys::watch_readable(stream.as_fd())?;
    stream.readable().await.map(drop)
}
