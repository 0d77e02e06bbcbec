//! What the command sees of the file system: a fresh `/proc`, its own resolver, no hidden paths, and
//! what it can change.
//!
//! In:    the spec and the sockets to cover, in a fresh mount namespace with full capabilities.
//! Out:   the mounts; the working directory entered anew.
//! Never: a change outside this mount namespace.

use std::io;
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::mount::{MsFlags, mount, umount};

use super::{JailError, Spec};
use crate::sys;

/// Sockets and directories of sockets of services that run commands, or look up names, for whoever
/// asks: each would be a way around the sidecar. Those that exist are hidden from every jail;
/// `{uid}` is the user's number.
pub const DOORS: &[&str] = &[
    "/run/user/{uid}",                         // the user's D-Bus and systemd
    "/run/dbus",                               // the system's D-Bus
    "/run/systemd/private",                    // systemd itself
    "/run/systemd/resolve/io.systemd.Resolve", // names, through nss-resolve
    "/run/nscd",                               // names, through nscd
    "/run/avahi-daemon",                       // names, through mdns
    "/run/docker.sock",
    "/run/docker",
    "/run/containerd",
    "/run/podman",
    "/run/crio",
    "/run/libvirt",
    "/run/snapd.socket",
    "/run/screen",
    "/tmp/tmux-{uid}",
    "/tmp/.X11-unix",
];

/// The resolver's address as the command sees it. Any would do, for all DNS is redirected.
const NAMESERVER: &str = "127.0.0.53";

/// Where the resolver's file is made, for a moment, in this mount namespace only.
const SCRATCH: &str = "/tmp";

const NONE: Option<&Path> = None;

/// Makes all mounts, then enters the working directory again, by name.
pub(super) fn arrange(spec: &Spec, sockets: &[PathBuf]) -> Result<(), JailError> {
    let cwd = match &spec.cwd {
        Some(cwd) => cwd.clone(),
        None => std::env::current_dir()
            .map_err(|error| JailError::step("find the working directory", &error))?,
    };
    // Mounts of the jail must not appear outside, nor those of outside uncover what is hidden.
    mount(NONE, "/", NONE, MsFlags::MS_REC | MsFlags::MS_PRIVATE, NONE)
        .map_err(|error| JailError::unsupported("make the mounts private", error))?;
    protect(spec)?;
    own_proc(spec.shared_proc)?;
    resolver(&spec.search).map_err(|error| JailError::step("set the jail's resolver", &error))?;
    for path in &spec.hide {
        hide(path, &spec.files).map_err(|error| hide_failed(path, &error))?;
    }
    for path in doors().chain(sockets.iter().cloned()) {
        match hide(&path, &[]) {
            Err(error) if !is_absent(&error) => return Err(hide_failed(&path, &error)),
            _ => {}
        }
    }
    // The old working directory was entered before its covers were made: enter it anew.
    std::env::set_current_dir(&cwd)
        .map_err(|error| JailError::step(&format!("enter {}", cwd.display()), &error))
}

fn hide_failed(path: &Path, error: &io::Error) -> JailError {
    JailError::Hide { path: path.display().to_string(), reason: error.to_string() }
}

fn doors() -> impl Iterator<Item = PathBuf> {
    let uid = nix::unistd::geteuid().to_string();
    DOORS.iter().map(move |door| door.replace("{uid}", &uid).into())
}

/// Not there, or not there for this user: not a door either.
fn is_absent(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::PermissionDenied)
        || error.raw_os_error() == Some(libc::ENOTDIR)
}

/// Makes read-only what must be, and then writable again what may be.
fn protect(spec: &Spec) -> Result<(), JailError> {
    let each = |paths: &[PathBuf], is_read_only: bool| {
        for path in paths {
            let wanted = if is_read_only { "read-only" } else { "writable" };
            set_read_only(path, is_read_only).map_err(|error| JailError::Protect {
                path: path.display().to_string(),
                wanted: wanted.to_owned(),
                reason: error.to_string(),
            })?;
        }
        Ok(())
    };
    each(&spec.read_only, true)?;
    each(&spec.writable, false)
}

/// A path becomes a mount of its own, which has the property; read-only also for all below it.
fn set_read_only(path: &Path, is_read_only: bool) -> io::Result<()> {
    let target = std::fs::canonicalize(path)?;
    // The root stays as it is: a mount over it would be seen by nobody.
    if target.parent().is_some() {
        let flags = MsFlags::MS_BIND | MsFlags::MS_REC;
        mount(Some(&target), &target, NONE, flags, NONE)?;
    }
    sys::set_mount_read_only(&target, is_read_only)
}

/// Mounts the `/proc` of the jail's pid namespace.
fn own_proc(may_share: bool) -> Result<(), JailError> {
    let flags = MsFlags::MS_NOSUID | MsFlags::MS_NODEV | MsFlags::MS_NOEXEC;
    match mount(Some("proc"), "/proc", Some("proc"), flags, NONE) {
        Ok(()) => Ok(()),
        Err(Errno::EPERM) if may_share => Ok(()),
        Err(errno) => Err(JailError::SharedProc { reason: errno.to_string() }),
    }
}

/// Covers `/etc/resolv.conf`; where there is none, resolvers ask 127.0.0.1, which is answered too.
fn resolver(search: &[String]) -> io::Result<()> {
    let target = match std::fs::canonicalize("/etc/resolv.conf") {
        Ok(target) => target,
        Err(error) if is_absent(&error) => return Ok(()),
        Err(error) => return Err(error),
    };
    let mut text = format!("nameserver {NAMESERVER}\noptions timeout:2 attempts:2\n");
    if !search.is_empty() {
        text.push_str(&format!("search {}\n", search.join(" ")));
    }
    mount_tmpfs(Path::new(SCRATCH), 0)?;
    let source = Path::new(SCRATCH).join("resolv.conf");
    let made = std::fs::write(&source, text).and_then(|()| bind(&source, &target));
    umount(SCRATCH)?;
    made
}

/// Covers a path: a directory by one that holds the files given for it alone, anything else by
/// `/dev/null`.
fn hide(path: &Path, files: &[(PathBuf, String)]) -> io::Result<()> {
    let target = std::fs::canonicalize(path)?;
    if target.is_dir() {
        let inside: Vec<_> = files.iter().filter(|(at, _)| at.parent() == Some(path)).collect();
        mount_tmpfs(&target, inside.iter().map(|(_, text)| text.len()).sum())?;
        for (at, text) in inside {
            let name = at.file_name().ok_or(io::ErrorKind::InvalidInput)?;
            std::fs::write(target.join(name), text)?;
        }
        let flags = TMPFS | MsFlags::MS_BIND | MsFlags::MS_REMOUNT | MsFlags::MS_RDONLY;
        Ok(mount(NONE, &target, NONE, flags, NONE)?)
    } else {
        bind(Path::new("/dev/null"), &target)
    }
}

const TMPFS: MsFlags = MsFlags::MS_NOSUID.union(MsFlags::MS_NODEV).union(MsFlags::MS_NOEXEC);

/// Room for a directory, and for a page that each file does not fill.
const TMPFS_BYTES: usize = 64 << 10;

fn mount_tmpfs(target: &Path, bytes: usize) -> io::Result<()> {
    let options = format!("size={},mode=0755", bytes + TMPFS_BYTES);
    Ok(mount(Some("tmpfs"), target, Some("tmpfs"), TMPFS, Some(options.as_str()))?)
}

fn bind(source: &Path, target: &Path) -> io::Result<()> {
    Ok(mount(Some(source), target, NONE, MsFlags::MS_BIND, NONE)?)
}
