//! Signals as events, for the two processes that stand between the caller and the command.

use std::io;

use libc::SI_KERNEL;
use nix::sys::signal::{SigSet, Signal, raise};
use nix::sys::signalfd::{SfdFlags, SignalFd};
use nix::sys::wait::WaitStatus;

/// What is passed on to the command. Of `SIGTSTP` we stop ourselves only when the command has
/// stopped ([`stop`]): a shell outside that went on earlier would share the terminal with it.
const FORWARDED: [Signal; 10] = [
    Signal::SIGHUP,
    Signal::SIGINT,
    Signal::SIGQUIT,
    Signal::SIGTERM,
    Signal::SIGUSR1,
    Signal::SIGUSR2,
    Signal::SIGALRM,
    Signal::SIGWINCH,
    Signal::SIGTSTP,
    Signal::SIGCONT,
];

/// Blocks the signals that the command should get, and `SIGCHLD`; they arrive here instead.
///
/// Blocked signals reach even the first process of a pid namespace, which is deaf to others.
pub(super) fn catch() -> io::Result<SignalFd> {
    let mask = caught();
    mask.thread_block()?;
    Ok(SignalFd::with_flags(&mask, SfdFlags::SFD_CLOEXEC | SfdFlags::SFD_NONBLOCK)?)
}

/// The signals that [`catch`] blocks.
pub(super) fn caught() -> SigSet {
    FORWARDED.into_iter().chain([Signal::SIGCHLD]).collect()
}

/// The next signal that somebody sent to this process alone, or a child's end.
///
/// The terminal's own (Ctrl-C, Ctrl-Z, hang-up) go to the whole foreground group, so the command has them
/// already: they are dropped here.
pub(super) fn next(signals: &SignalFd) -> io::Result<Option<Signal>> {
    while let Some(info) = signals.read_signal()? {
        let signal = i32::try_from(info.ssi_signo).map_err(io::Error::other)?;
        let signal = Signal::try_from(signal)?;
        if signal == Signal::SIGCHLD || info.ssi_code != SI_KERNEL {
            return Ok(Some(signal));
        }
    }
    Ok(None)
}

/// Stops this process as Ctrl-Z does, until somebody lets it go on.
pub(super) fn stop() -> io::Result<()> {
    let stop = SigSet::from(Signal::SIGTSTP);
    raise(Signal::SIGTSTP)?;
    // Here it stops, and goes on.
    stop.thread_unblock()?;
    Ok(stop.thread_block()?)
}

/// The exit code of an ended child, by the custom of shells; `None` while it has not ended.
pub(super) fn exit_code(status: WaitStatus) -> Option<u8> {
    match status {
        WaitStatus::Exited(_, code) => Some(u8::try_from(code & 0xff).unwrap_or(u8::MAX)),
        WaitStatus::Signaled(_, signal, _) => {
            Some(u8::try_from(128 + signal as i32).unwrap_or(u8::MAX))
        }
        _ => None,
    }
}
