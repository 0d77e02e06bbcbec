//! The first process of the jail: makes it, starts the command, reaps, and takes it down.
//!
//! In:    the spec; one unix stream to the outer process.
//! Out:   the jail's sockets, that the command has stopped, or the error, on that stream; the
//!        command's exit code as its own.
//! Never: outlives the outer process; holds a capability once the command runs.

use std::io;
use std::os::fd::AsFd as _;
use std::os::unix::net::UnixStream;
use std::process::Command;

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::{Signal, kill};
use nix::sys::signalfd::SignalFd;
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::Pid;

use super::report::{Report, Word};
use super::{JailError, Spec, UnixSockets, confine, mounts, namespaces, network, signals, sockets};
use crate::{sys, wire};

/// Lives the life of the jail; exits with the command's code.
pub(super) fn run(spec: &Spec, outer: &UnixStream, caught: &SignalFd) -> ! {
    let code = match live(spec, outer, caught) {
        Ok(code) => code,
        Err(error) => {
            let code = error.exit_code();
            // If the outer process is gone, there is nobody to tell.
            let _told = wire::send(outer, &Report::Failed(error), &[]);
            code
        }
    };
    std::process::exit(code.into());
}

fn live(spec: &Spec, outer: &UnixStream, caught: &SignalFd) -> Result<u8, JailError> {
    nix::sys::prctl::set_pdeathsig(Signal::SIGKILL)
        .map_err(|error| JailError::step("tie the jail to its starter", &error.into()))?;
    // The list is of this network namespace, which we are about to leave.
    let bound = sockets::to_cover(&spec.unix_sockets)
        .map_err(|error| JailError::step("list this machine's Unix sockets", &error))?;
    namespaces::enter_the_others()?;
    mounts::arrange(spec, &bound)?;
    let handed = network::arrange(spec.listeners)?;
    let talk = |error: &io::Error| JailError::step("talk to the jail's starter", error);
    wire::send(outer, &Report::Ready, &[]).map_err(|error| talk(&error))?;
    handed.send(outer, &spec.workload).map_err(|error| talk(&error))?;
    drop(handed);
    match wire::receive::<Word>(outer).map_err(|error| talk(&error))? {
        Some((Word::Start, _)) => {}
        None => return Ok(0), // The starter gave up, and says why itself.
    }
    confine::confine(spec.unix_sockets == UnixSockets::None)
        .map_err(|error| JailError::step("give up all privileges", &error))?;
    let command = start(spec)?;
    watch(command, outer, caught).map_err(|error| JailError::step("wait for the command", &error))
}

/// Starts the command, in the working directory that the mounts left us in.
fn start(spec: &Spec) -> Result<Pid, JailError> {
    let mut command = Command::new(&spec.command);
    command.args(&spec.args);
    for (name, value) in &spec.env {
        match value {
            Some(value) => command.env(name, value),
            None => command.env_remove(name),
        };
    }
    sys::unblock_in(&mut command, signals::caught());
    let child = command.spawn().map_err(|error| JailError::Command {
        command: spec.command.to_string_lossy().into_owned(),
        reason: error.to_string(),
        is_missing: error.kind() == io::ErrorKind::NotFound,
    })?;
    let pid = i32::try_from(child.id()).unwrap_or(i32::MAX);
    // Reaped by `watch`, with all the orphans that the command leaves to us.
    drop(child);
    Ok(Pid::from_raw(pid))
}

/// Forwards signals and reaps, until the command ends or the outer process does.
fn watch(command: Pid, outer: &UnixStream, caught: &SignalFd) -> io::Result<u8> {
    loop {
        let mut events = [
            PollFd::new(caught.as_fd(), PollFlags::POLLIN),
            PollFd::new(outer.as_fd(), PollFlags::POLLIN),
        ];
        match poll(&mut events, PollTimeout::NONE) {
            Ok(_) | Err(nix::errno::Errno::EINTR) => {}
            Err(errno) => return Err(errno.into()),
        }
        if events[1].any() == Some(true) {
            return Ok(128 + 9); // The starter is gone; our end is the end of the jail.
        }
        while let Some(signal) = signals::next(caught)? {
            match signal {
                Signal::SIGCHLD => {
                    if let Some(code) = reap(command, outer)? {
                        return Ok(code);
                    }
                }
                // The command may have ended just now; then nobody needs this signal any more.
                signal => drop(kill(command, signal)),
            }
        }
    }
}

/// Collects every ended child; tells the command's exit code if it is among them, and the outer
/// process when the command has stopped.
fn reap(command: Pid, outer: &UnixStream) -> io::Result<Option<u8>> {
    loop {
        match waitpid(None, Some(WaitPidFlag::WNOHANG | WaitPidFlag::WUNTRACED)) {
            Ok(WaitStatus::StillAlive) | Err(nix::errno::Errno::ECHILD) => return Ok(None),
            Ok(WaitStatus::Stopped(pid, Signal::SIGTSTP)) if pid == command => {
                wire::send(outer, &Report::Stopped, &[])?;
            }
            Ok(status) if status.pid() == Some(command) => {
                if let Some(code) = signals::exit_code(status) {
                    return Ok(Some(code));
                }
            }
            Ok(_) | Err(nix::errno::Errno::EINTR) => {}
            Err(errno) => return Err(errno.into()),
        }
    }
}
