//! Makes the jail's namespaces: user and pid outside, the others in its init.

use std::fs;
use std::io;

use nix::sched::{CloneFlags, unshare};
use nix::unistd::{getegid, geteuid};

use super::JailError;

/// Enters a new user namespace as the same user, and prepares a new pid namespace for children.
///
/// The user keeps its ids (a map of one id needs no privilege, user_namespaces(7)), and holds every
/// capability inside until it gives them up.
pub(super) fn enter_user_and_pid() -> Result<(), JailError> {
    let (uid, gid) = (geteuid(), getegid());
    unshare(CloneFlags::CLONE_NEWUSER)
        .map_err(|error| JailError::unsupported("make a user namespace", error))?;
    let write = |path: &str, text: String| {
        fs::write(path, text)
            .map_err(|error| JailError::unsupported(&format!("write {path}"), error))
    };
    // Without this, an unprivileged process may not map its group (user_namespaces(7)).
    write("/proc/self/setgroups", "deny".to_owned())?;
    write("/proc/self/uid_map", format!("{uid} {uid} 1"))?;
    write("/proc/self/gid_map", format!("{gid} {gid} 1"))?;
    // A security module may allow the user namespace and then take its capabilities away.
    unshare(CloneFlags::CLONE_NEWPID)
        .map_err(|error| JailError::unsupported("make a pid namespace", error))
}

/// Enters new net, mount, ipc and uts namespaces.
pub(super) fn enter_the_others() -> Result<(), JailError> {
    let flags = CloneFlags::CLONE_NEWNET
        | CloneFlags::CLONE_NEWNS
        | CloneFlags::CLONE_NEWIPC
        | CloneFlags::CLONE_NEWUTS;
    unshare(flags).map_err(|error| {
        JailError::unsupported(
            "make the net, mount, ipc and uts namespaces",
            io::Error::from(error),
        )
    })
}
