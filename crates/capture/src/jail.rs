//! Runs a command where its only way out is its sidecar.
//!
//! In:    a [`Spec`]: the command, what it may not see, where its sidecar listens.
//! Out:   the command's exit code (128 + n for a signal).
//! Never: needs root, changes anything outside the jail, or leaves anything behind.
//!
//! Three processes, the last two inside:
//!
//! ```text
//!   sluis exec … ── exec ──> outer (hidden verb; [`enter`])      outside, in the new user namespace
//!                              │ fork      ^ sockets, errors
//!                              v           │
//!                            init (pid 1 of the jail)            makes net, mounts, sockets; reaps
//!                              │ spawn
//!                              v
//!                            the command                         no capability, no way to get one
//! ```
//!
//! 1. The caller puts the [`Spec`] in a memory file and becomes (or spawns) the hidden verb, because
//!    `unshare(CLONE_NEWUSER)` needs a process of one thread.
//! 2. The outer process makes the user and pid namespaces and forks; it stays outside to forward
//!    signals and to hold the sidecar's connection.
//! 3. Init makes the net, mount, ipc and uts namespaces: loopback alone, every address local to it,
//!    every TCP connection redirected to one port, all DNS to another, a fresh `/proc`, the hidden
//!    paths covered. It sends its listening sockets out and waits for the word.
//! 4. The outer process hands the sockets to the sidecar ([`crate::handoff`]) or relays them
//!    ([`crate::relay`]), then gives the word.
//! 5. Init drops every capability, forbids new ones, closes the doors that namespaces leave open
//!    (`confine`), and starts the command.
//!
//! What the jail does not do by itself: the command is the same user outside, so it can write what that
//! user can write ([`Spec::read_only`] says what it cannot); a pathname socket of a service that acts
//! for its caller is a way out: the usual ones are covered ([`DOORS`]), and all others as
//! [`UnixSockets`] says.

mod confine;
mod init;
mod mounts;
mod namespaces;
mod netlink;
mod network;
mod nft;
mod outer;
mod report;
mod signals;
mod sockets;

use std::ffi::OsString;
use std::io::{self, Seek as _, Write as _};
use std::os::fd::{AsRawFd as _, OwnedFd, RawFd};
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command};

use nix::sys::memfd::{MFdFlags, memfd_create};
use serde::{Deserialize, Serialize};

pub use mounts::DOORS;
pub use nft::{CAPTURE_PORT, DNS_PORT};

/// What to run, where, and what it may not see.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Spec {
    /// The workload, as `namespace/name`; its sidecar accepts no other.
    pub workload: String,
    /// The program, found on `PATH` unless it has a slash.
    pub command: OsString,
    /// Its arguments.
    pub args: Vec<OsString>,
    /// Its working directory; the caller's own if there is none.
    pub cwd: Option<PathBuf>,
    /// Environment variables to set, or with `None` to remove; all others are the caller's.
    pub env: Vec<(OsString, Option<OsString>)>,
    /// Files and directories that do not exist for the command. Prefer directories: a hidden file
    /// that is replaced outside comes back into view. Each must exist when the jail starts.
    pub hide: Vec<PathBuf>,
    /// Files that exist in the jail alone, each directly in one of the hidden directories; public
    /// ones: the command can read them. At most [`FILES_BYTES_MAX`] altogether.
    #[serde(default)]
    pub files: Vec<(PathBuf, String)>,
    /// Files and directories that the command cannot change, with all that is mounted in them.
    #[serde(default)]
    pub read_only: Vec<PathBuf>,
    /// What it can change within those, as far as its user can.
    #[serde(default)]
    pub writable: Vec<PathBuf>,
    /// Which Unix sockets with a path it can call.
    #[serde(default)]
    pub unix_sockets: UnixSockets,
    /// Domains that the resolver tries for short names.
    pub search: Vec<String>,
    /// How the jail's connections reach the sidecar.
    pub sidecar: Sidecar,
    /// TCP listeners per address family, 1 to [`LISTENERS_MAX`]: one for each worker of the
    /// sidecar, among which the kernel spreads connections.
    pub listeners: u16,
    /// Go on without a `/proc` of its own where the kernel refuses one (a container with masked
    /// parts of `/proc`). The command then sees the other processes of its user.
    pub shared_proc: bool,
}

/// Which Unix sockets with a path a command can call. Those without one (abstract ones) belong to a
/// network namespace, and so are the jail's own always.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub enum UnixSockets {
    /// None: it cannot make such a socket at all; a pair of connected ones it can.
    None,
    /// Those at, or below, these paths. Others on which somebody on this machine listens when the jail
    /// starts are covered; what comes later is not, nor what listens in another network namespace.
    Only(Vec<PathBuf>),
    /// All but [`DOORS`].
    Any,
}

impl Default for UnixSockets {
    /// None of those that are there when the jail starts.
    fn default() -> Self {
        Self::Only(Vec::new())
    }
}

/// The most bytes of [`Spec::files`]: some certificates of authorities, of which systems have 250 KiB.
pub const FILES_BYTES_MAX: usize = 8 << 20;

/// How the jail's connections reach the sidecar.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub enum Sidecar {
    /// A proxy that takes the sockets themselves ([`crate::handoff::Receiver`]) at this path.
    Handoff(PathBuf),
    /// A proxy that listens on a unix socket and understands the PROXY protocol: a real Envoy.
    Relay {
        /// Envoy's listener.
        pipe: PathBuf,
        /// What DNS answers: see [`crate::relay::run`].
        names: PathBuf,
    },
}

/// The most listeners per address family: more than any useful number of workers.
pub const LISTENERS_MAX: u16 = 32;

/// The program that has the hidden verb: usually this very one.
#[derive(Clone, Copy, Debug)]
pub struct Helper<'a> {
    /// The program's path.
    pub program: &'a Path,
    /// What makes it call [`enter`]; the number of the spec's descriptor follows as last argument.
    pub verb: &'a [&'a str],
}

/// Becomes the jail's outer process; returns only if that fails.
pub fn exec(helper: Helper<'_>, spec: &Spec) -> JailError {
    match command(helper, spec) {
        Ok((mut command, _file)) => JailError::step("start the jail", &command.exec()),
        Err(error) => error,
    }
}

/// Starts a jail as a child process. Its exit code is the command's.
///
/// # Errors
/// When the helper cannot be started; what fails later, the helper says on its standard error.
pub fn spawn(helper: Helper<'_>, spec: &Spec) -> Result<Child, JailError> {
    let (mut command, _file) = command(helper, spec)?;
    command.spawn().map_err(|error| JailError::step("start the jail", &error))
}

/// The hidden verb: makes the jail of the spec in descriptor `spec`, and waits for its command.
///
/// Call it first thing, before any thread exists. Blocks until the command has ended, and returns
/// its exit code. In the forked child it never returns.
///
/// # Errors
/// [`JailError::Unsupported`] when this machine refuses the namespaces; see the others. Exit with
/// [`JailError::exit_code`] then.
pub fn enter(spec: RawFd) -> Result<u8, JailError> {
    outer::run(&Spec::receive(spec)?)
}

/// The command line that enters the jail, and the memory file that must stay open until it runs.
///
/// # Errors
/// When the memory file cannot be made.
pub fn command(helper: Helper<'_>, spec: &Spec) -> Result<(Command, OwnedFd), JailError> {
    let file = spec.send().map_err(|error| JailError::step("pass on what to run", &error))?;
    let mut command = Command::new(helper.program);
    command.args(helper.verb).arg(file.as_raw_fd().to_string());
    Ok((command, file))
}

impl Spec {
    /// A memory file that holds the spec, and that a new program keeps open.
    fn send(&self) -> io::Result<OwnedFd> {
        let mut file = std::fs::File::from(memfd_create("jail-spec", MFdFlags::empty())?);
        serde_json::to_writer(&mut file, self)?;
        file.flush()?;
        file.rewind()?;
        Ok(file.into())
    }

    /// Reads the spec, closes the file, and checks what the types do not.
    fn receive(descriptor: RawFd) -> Result<Self, JailError> {
        let failed = |error: &io::Error| JailError::step("read what to run", error);
        let path = format!("/proc/self/fd/{descriptor}");
        let text = std::fs::read(path).map_err(|error| failed(&error))?;
        nix::unistd::close(descriptor).map_err(|error| failed(&error.into()))?;
        let spec: Self = serde_json::from_slice(&text).map_err(|error| failed(&error.into()))?;
        if spec.listeners == 0 || spec.listeners > LISTENERS_MAX {
            return Err(failed(&io::Error::from_raw_os_error(libc::ERANGE)));
        }
        let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b".-_".contains(&byte);
        if !spec.search.iter().all(|domain| !domain.is_empty() && domain.bytes().all(is_plain)) {
            return Err(failed(&io::Error::from_raw_os_error(libc::EINVAL)));
        }
        if spec.files.iter().map(|(_, text)| text.len()).sum::<usize>() > FILES_BYTES_MAX {
            return Err(failed(&io::Error::from_raw_os_error(libc::EFBIG)));
        }
        Ok(spec)
    }
}

/// Why there is no jail. It crosses from init to the outer process, so it holds plain values.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error, Serialize, Deserialize)]
pub enum JailError {
    /// User namespaces are switched off, forbidden by a security module, or used up.
    #[error("this machine does not let this user make a jail: {step}: {reason}")]
    Unsupported {
        /// What was refused.
        step: String,
        /// What the kernel said.
        reason: String,
    },
    /// The kernel refuses a fresh `/proc`, because parts of the present one are masked.
    #[error(
        "the command cannot have a /proc of its own here ({reason}), so it would see the other \
         processes of its user"
    )]
    SharedProc {
        /// What the kernel said.
        reason: String,
    },
    /// A path that must be hidden cannot be.
    #[error("cannot hide {path}: {reason}")]
    Hide {
        /// The path.
        path: String,
        /// What the kernel said.
        reason: String,
    },
    /// A path that must not be changed could be.
    #[error("cannot make {path} {wanted}: {reason}")]
    Protect {
        /// The path.
        path: String,
        /// What it should be: read-only, writable.
        wanted: String,
        /// What the kernel said.
        reason: String,
    },
    /// The sidecar does not answer, or refuses this jail.
    #[error("the sidecar of {workload} does not take this command's connections: {reason}")]
    Sidecar {
        /// The workload.
        workload: String,
        /// What it or the kernel said.
        reason: String,
    },
    /// The command cannot be started.
    #[error("cannot run {command}: {reason}")]
    Command {
        /// The program.
        command: String,
        /// What the kernel said.
        reason: String,
        /// Whether the program does not exist, as opposed to cannot be executed.
        is_missing: bool,
    },
    /// Another step failed.
    #[error("cannot {step}: {reason}")]
    Step {
        /// What was tried.
        step: String,
        /// What the kernel said.
        reason: String,
    },
}

impl JailError {
    /// The exit code that tells this error, by the custom of shells and of `env(1)`.
    #[must_use]
    pub fn exit_code(&self) -> u8 {
        match self {
            Self::Command { is_missing: true, .. } => 127,
            Self::Command { is_missing: false, .. } => 126,
            _ => 125,
        }
    }

    fn step(step: &str, error: &io::Error) -> Self {
        Self::Step { step: step.to_owned(), reason: error.to_string() }
    }

    fn unsupported(step: &str, error: impl Into<io::Error>) -> Self {
        Self::Unsupported { step: step.to_owned(), reason: error.into().to_string() }
    }
}
