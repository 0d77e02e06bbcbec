//! Where a running `sluis up` keeps its files, and how other verbs find them.
//!
//! In:    the state directory: `--state-dir`, `SLUIS_STATE_DIR`, or the user's state folder.
//! Out:   paths; directories made for the owner alone (0700).
//! Never: anything in a workload's jail: the whole directory is hidden from it.
//!
//! ```text
//! STATE/lock                      held while `sluis up` runs
//! STATE/control.sock              what the other verbs talk to
//! STATE/debug-token               what opens the debug pages
//! STATE/audit/NS/NAME.jsonl       what a gateway did with credentials; full files beside it
//! STATE/ca/                       roots, keys, issue log, how far a change of the root has come
//! STATE/sealing/NS.key             what opens the sealed texts of a namespace's Credentials
//! STATE/workloads/NS/NAME/        one proxy: bootstrap.pb, join-token, launch, pid, proxy.log,
//!                                 names.json, admin.sock, handoff.sock, sds.sock, capture.sock,
//!                                 exec-PID/
//! ```

use std::{
    fs, io,
    os::unix::fs::{DirBuilderExt, PermissionsExt},
    path::{Path, PathBuf},
};

use anyhow::{Context, Result, bail};
use sluis_nouns::ObjectName;

/// Longest path of a Unix socket that the kernel takes (`sun_path`, less its final zero).
const SOCKET_PATH_MAX: usize = 107;

/// The state directory of one `sluis up`.
#[derive(Clone, Debug)]
pub(crate) struct StateDir {
    root: PathBuf,
}

impl StateDir {
    /// The directory given, or the default one of this user.
    ///
    /// # Errors
    ///
    /// When none is given and neither `XDG_STATE_HOME` nor `HOME` is set.
    pub(crate) fn locate(given: Option<PathBuf>) -> Result<Self> {
        let root = match given {
            Some(root) => std::path::absolute(&root)?,
            None => default_root()
                .context("no --state-dir, and neither XDG_STATE_HOME nor HOME is set")?,
        };
        Ok(Self { root })
    }

    /// Makes the directory for the owner alone, and refuses one that others may enter.
    ///
    /// # Errors
    ///
    /// When it cannot be made, or others have rights on it.
    pub(crate) fn create(&self) -> Result<()> {
        make_private(&self.root)?;
        let mode = fs::metadata(&self.root)?.permissions().mode() & 0o777;
        if mode & 0o077 != 0 {
            bail!(
                "state directory {} may be read by others (mode {mode:o}); run `chmod 700 {0}`",
                self.root.display()
            );
        }
        Ok(())
    }

    /// The directory itself.
    pub(crate) fn root(&self) -> &Path {
        &self.root
    }

    /// The file that a running `sluis up` holds locked.
    pub(crate) fn lock(&self) -> PathBuf {
        self.root.join("lock")
    }

    /// The socket of the running control plane's interface for this command line.
    pub(crate) fn control_socket(&self) -> PathBuf {
        self.root.join("control.sock")
    }

    /// What opens the debug pages.
    pub(crate) fn debug_token(&self) -> PathBuf {
        self.root.join("debug-token")
    }

    /// The certificate authority's folder.
    pub(crate) fn ca(&self) -> PathBuf {
        self.root.join("ca")
    }

    /// The keys that open the sealed texts of a namespace's Credentials.
    pub(crate) fn sealing_key(&self, namespace: &str) -> PathBuf {
        self.root.join("sealing").join(format!("{namespace}.key"))
    }

    /// Makes the folder of those keys for the owner alone.
    ///
    /// # Errors
    ///
    /// When it cannot be made.
    pub(crate) fn create_sealing(&self) -> Result<()> {
        make_private(&self.root.join("sealing"))
    }

    /// One workload's folder.
    pub(crate) fn workload(&self, name: &ObjectName) -> WorkloadDir {
        WorkloadDir {
            root: self.root.join("workloads").join(&*name.namespace).join(&*name.name),
            audit: self.audit().join(&*name.namespace).join(format!("{}.jsonl", name.name)),
        }
    }

    /// The folder of audit logs, one folder for each namespace.
    pub(crate) fn audit(&self) -> PathBuf {
        self.root.join("audit")
    }
}

/// The folder of one workload's proxy.
#[derive(Clone, Debug)]
pub(crate) struct WorkloadDir {
    root: PathBuf,
    audit: PathBuf,
}

impl WorkloadDir {
    /// Makes the folder for the owner alone.
    ///
    /// # Errors
    ///
    /// When it cannot be made, or its sockets would have paths too long for the kernel.
    pub(crate) fn create(&self) -> Result<()> {
        let longest = self.handoff_socket();
        if longest.as_os_str().len() > SOCKET_PATH_MAX {
            bail!(
                "{} is longer than {SOCKET_PATH_MAX} bytes, the most that a Unix socket may have; \
                 choose a shorter --state-dir",
                longest.display()
            );
        }
        if let Some(folder) = self.audit.parent() {
            make_private(folder)?;
        }
        make_private(&self.root)
    }

    /// The Envoy bootstrap, as binary protobuf.
    pub(crate) fn bootstrap(&self) -> PathBuf {
        self.root.join("bootstrap.pb")
    }

    /// The one-time join token for the next start.
    pub(crate) fn join_token(&self) -> PathBuf {
        self.root.join("join-token")
    }

    /// What the running process was started with; a process started otherwise is replaced.
    pub(crate) fn launch(&self) -> PathBuf {
        self.root.join("launch")
    }

    /// The process id of the running proxy.
    pub(crate) fn pid(&self) -> PathBuf {
        self.root.join("pid")
    }

    /// The proxy's standard output and error: access log and events.
    pub(crate) fn log(&self) -> PathBuf {
        self.root.join("proxy.log")
    }

    /// The log of what the proxy does with credentials.
    pub(crate) fn audit_log(&self) -> PathBuf {
        self.audit.clone()
    }

    /// The proxy's admin interface.
    pub(crate) fn admin_socket(&self) -> PathBuf {
        self.root.join("admin.sock")
    }

    /// Where jails hand their listening sockets to the sidecar.
    pub(crate) fn handoff_socket(&self) -> PathBuf {
        self.root.join("handoff.sock")
    }

    /// What one running command of `sluis exec --explicit-proxy` is given; gone when it has ended.
    pub(crate) fn given_to(&self, pid: u32) -> PathBuf {
        self.root.join(format!("exec-{pid}"))
    }

    /// Where the agent serves secrets to a real Envoy.
    pub(crate) fn sds_socket(&self) -> PathBuf {
        self.root.join("sds.sock")
    }

    /// The names that the workload may know, for who answers its DNS outside the sidecar.
    pub(crate) fn names(&self) -> PathBuf {
        self.root.join("names.json")
    }

    /// Where the sidecar accepts single connections, each behind a PROXY header.
    pub(crate) fn capture_socket(&self) -> PathBuf {
        self.root.join("capture.sock")
    }
}

/// Writes a file for the owner alone, whole or not at all.
///
/// # Errors
///
/// As the file system says.
pub(crate) fn write_private(path: &Path, content: &[u8]) -> io::Result<()> {
    use std::{io::Write, os::unix::fs::OpenOptionsExt};
    let temporary = path.with_extension("new");
    let mut file = fs::OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o600)
        .open(&temporary)?;
    file.write_all(content)?;
    fs::rename(&temporary, path)
}

/// Makes a folder for the owner alone.
///
/// # Errors
///
/// As the file system says.
pub(crate) fn make_private(path: &Path) -> Result<()> {
    fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(path)
        .with_context(|| format!("cannot make {}", path.display()))
}

fn default_root() -> Option<PathBuf> {
    let state = std::env::var_os("XDG_STATE_HOME").filter(|folder| !folder.is_empty());
    let folder = match state {
        Some(folder) => PathBuf::from(folder),
        None => PathBuf::from(std::env::var_os("HOME")?).join(".local/state"),
    };
    Some(folder.join("sluis"))
}
