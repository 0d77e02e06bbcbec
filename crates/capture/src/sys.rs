//! The two system calls that have no safe wrapper: `fork` and the loading of a seccomp filter.

#![expect(unsafe_code, reason = "fork and prctl(PR_SET_SECCOMP) exist only as unsafe calls")]

use std::io;

use nix::unistd::{ForkResult, fork};

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
