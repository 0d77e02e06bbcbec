//! What has no safe wrapper: `fork`, a seccomp filter, a new program's signal mask, readiness, the
//! properties of mounts.

#![expect(
    unsafe_code,
    reason = "fork, prctl(PR_SET_SECCOMP), pre_exec, AsyncFd and mount_setattr exist only as unsafe calls"
)]

use std::io;
use std::os::fd::{BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::Command;

use nix::sys::signal::SigSet;
use nix::unistd::{ForkResult, fork};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

/// Forks, after proving that this process has one thread.
///
/// # Errors
/// `EBUSY` when there is a second thread; otherwise what fork(2) says.
pub(crate) fn fork_single_threaded() -> io::Result<ForkResult> {
    if threads()? != 1 {
        return Err(io::Error::from_raw_os_error(libc::EBUSY));
    }
    // SAFETY: the child of a process with one thread is a full copy of it, so that no lock can be
    // held by a thread that does not exist in the child; any function may be called there.
    Ok(unsafe { fork() }?)
}

/// The number of threads of this process.
pub(crate) fn threads() -> io::Result<usize> {
    Ok(std::fs::read_dir("/proc/self/task")?.count())
}

/// Lets these signals through to the program, which would else begin with them blocked, as we do.
pub(crate) fn unblock_in(command: &mut Command, signals: SigSet) {
    // SAFETY: the closure runs in the forked child and makes one call, sigprocmask(2), which is
    // async-signal-safe; it touches no memory but its own copy of the set.
    unsafe { command.pre_exec(move || Ok(signals.thread_unblock()?)) };
}

/// Lets the current tokio runtime tell when there is something to read.
pub(crate) fn watch_readable(descriptor: BorrowedFd<'_>) -> io::Result<AsyncFd<OwnedFd>> {
    let descriptor = descriptor.try_clone_to_owned()?;
    // SAFETY: the AsyncFd owns its own duplicate, which nobody else can close.
    unsafe { Ok(AsyncFd::register_with_interest(descriptor, Interest::READABLE)?) }
}

/// Loads a seccomp filter for this thread and all that it starts; needs `no_new_privs`.
pub(crate) fn load_filter(program: &[libc::sock_filter]) -> io::Result<()> {
    let length = u16::try_from(program.len()).map_err(|_| io::ErrorKind::InvalidInput)?;
    let program = libc::sock_fprog { len: length, filter: program.as_ptr().cast_mut() };
    // SAFETY: the kernel copies the program during the call, does not write to it, and checks it;
    // `len` and `filter` describe one live slice.
    let result = unsafe {
        libc::prctl(libc::PR_SET_SECCOMP, libc::SECCOMP_MODE_FILTER, &raw const program, 0, 0)
    };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// Makes the mount at `path` and all below it read-only, or that one alone writable again.
///
/// # Errors
/// What mount_setattr(2) says: `ENOSYS` before Linux 5.12, `EPERM` to open what was closed outside.
pub(crate) fn set_mount_read_only(path: &Path, is_read_only: bool) -> io::Result<()> {
    let path = std::ffi::CString::new(path.as_os_str().as_bytes())?;
    let (set, clear) = match is_read_only {
        true => (libc::MOUNT_ATTR_RDONLY, 0),
        false => (0, libc::MOUNT_ATTR_RDONLY),
    };
    let attributes =
        libc::mount_attr { attr_set: set, attr_clr: clear, propagation: 0, userns_fd: 0 };
    let below = if is_read_only { libc::AT_RECURSIVE } else { 0 };
    // SAFETY: the kernel reads the string up to its zero and the structure of the size given, both of
    // which live through the call; it writes to neither.
    let result = unsafe {
        libc::syscall(
            libc::SYS_mount_setattr,
            libc::AT_FDCWD,
            path.as_ptr(),
            below,
            &raw const attributes,
            size_of::<libc::mount_attr>(),
        )
    };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}
