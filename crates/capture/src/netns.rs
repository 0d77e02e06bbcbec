//! Enters another network namespace, and another group.

use std::fs::File;
use std::io;
use std::path::Path;

use nix::sched::{CloneFlags, setns};
use nix::unistd::{Gid, setgid, setgroups};

use crate::sys;

/// Moves this process into the network namespace at `path` (`/run/netns/NAME`, `/proc/PID/ns/net`).
///
/// Only the calling thread moves, and threads that it starts later: call it first thing.
///
/// # Errors
/// `EBUSY` when there is a second thread; what open(2) and setns(2) say: `EPERM` without
/// `CAP_SYS_ADMIN`, `EINVAL` for what is no network namespace.
pub fn enter(path: &Path) -> io::Result<()> {
    if sys::threads()? != 1 {
        return Err(io::Error::from_raw_os_error(libc::EBUSY));
    }
    Ok(setns(File::open(path)?, CloneFlags::CLONE_NEWNET)?)
}

/// Does some work in the network namespace at `path`, on a thread of its own; the caller stays.
///
/// # Errors
/// What open(2) and setns(2) say; then the work is not done.
pub fn within<T: Send>(path: &Path, work: impl FnOnce() -> T + Send) -> io::Result<T> {
    let namespace = File::open(path)?;
    let visit = move || -> io::Result<T> {
        setns(namespace, CloneFlags::CLONE_NEWNET)?;
        Ok(work())
    };
    std::thread::scope(|scope| {
        let visitor = scope.spawn(visit);
        visitor.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    })
}

/// Makes `group` the only group of this process.
///
/// # Errors
/// What setgroups(2) and setgid(2) say: `EPERM` without `CAP_SETGID`.
pub fn become_group(group: u32) -> io::Result<()> {
    let group = Gid::from_raw(group);
    setgroups(&[group])?;
    Ok(setgid(group)?)
}
