//! One proxy process: starts it, finds it again, ends it.
//!
//! In:    a [`Launch`]: program, arguments, environment.
//! Out:   a [`Running`] process and the files by which a later `sluis up` finds it.
//! Never: signals a process that it cannot prove to be the proxy (a process id may be used again).

use std::{
    collections::BTreeMap,
    fs::{self, OpenOptions},
    hash::{DefaultHasher, Hash, Hasher},
    os::{fd::OwnedFd, unix::fs::OpenOptionsExt},
    path::PathBuf,
    process::Stdio,
    time::Duration,
};

use anyhow::{Context, Result};
use rustix::{
    event::{PollFd, PollFlags, Timespec, poll},
    process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal},
};
use serde_json::Value;
use tokio::{
    process::{Child, Command},
    time::{sleep, timeout},
};

use crate::state::{WorkloadDir, write_private};

/// A proxy's log is moved aside when it is this long at a start; one older file is kept.
const LOG_BYTES_MAX: u64 = 16 << 20;
/// How often a process that is not our child is looked at; a child tells by itself.
const LOOK_EVERY: Duration = Duration::from_millis(100);

/// How a process is started.
pub(crate) struct Launch {
    /// The program.
    pub program: PathBuf,
    /// Its arguments.
    pub arguments: Vec<String>,
    /// Its variables.
    pub environment: BTreeMap<String, String>,
    /// Names of variables that it gets from our own environment.
    pub inherited: Vec<String>,
}

impl Launch {
    /// What tells this launch from another; values of inherited variables stay out, as they may be
    /// secrets. The bootstrap counts as JSON: its binary form has maps in no fixed order.
    pub(crate) fn fingerprint(&self, bootstrap: &Value) -> String {
        let mut hasher = DefaultHasher::new();
        (&self.program, &self.arguments, &self.environment, &self.inherited).hash(&mut hasher);
        bootstrap.to_string().hash(&mut hasher);
        format!("{:016x}", hasher.finish())
    }
}

/// A process that runs.
pub(crate) struct Running {
    pid: Pid,
    handle: OwnedFd,
    /// Present when we started it: then it is ours to reap.
    child: Option<Child>,
}

impl Running {
    /// Its process id.
    pub(crate) fn pid(&self) -> i32 {
        self.pid.as_raw_nonzero().get()
    }

    /// Waits for its end and says how it ended.
    pub(crate) async fn ended(&mut self) -> String {
        if let Some(child) = &mut self.child {
            return match child.wait().await {
                Ok(status) => status.to_string(),
                Err(error) => error.to_string(),
            };
        }
        while is_alive(&self.handle) {
            sleep(LOOK_EVERY).await;
        }
        "ended".to_owned()
    }

    /// Asks it to end, waits so long for it to drain, then kills it.
    pub(crate) async fn end(mut self, drain: Duration) {
        // An error here means that it ended by itself.
        let _ = pidfd_send_signal(&self.handle, Signal::TERM);
        if timeout(drain, self.ended()).await.is_err() {
            let _ = pidfd_send_signal(&self.handle, Signal::KILL);
            self.ended().await;
        }
    }
}

/// Starts a process in a group of its own, so that Ctrl-C reaches us first.
///
/// # Errors
///
/// When the program cannot be started or its files not be written.
pub(crate) fn spawn(launch: &Launch, files: &WorkloadDir, fingerprint: &str) -> Result<Running> {
    let log = open_log(files)?;
    let mut command = Command::new(&launch.program);
    command
        .args(&launch.arguments)
        .env_clear()
        .envs(&launch.environment)
        .stdin(Stdio::null())
        .stdout(log.try_clone()?)
        .stderr(log)
        .process_group(0);
    for name in &launch.inherited {
        if let Some(value) = std::env::var_os(name) {
            command.env(name, value);
        }
    }
    let child =
        command.spawn().with_context(|| format!("cannot start {}", launch.program.display()))?;
    let pid =
        child.id().and_then(|id| Pid::from_raw(id.cast_signed())).context("it ended at once")?;
    let handle = pidfd_open(pid, PidfdFlags::empty()).context("it ended at once")?;
    write_private(&files.launch(), fingerprint.as_bytes())?;
    let record = format!("{} {}", pid.as_raw_nonzero(), start_time(pid).unwrap_or_default());
    write_private(&files.pid(), record.as_bytes())?;
    Ok(Running { pid, handle, child: Some(child) })
}

/// Finds the process that the files name. One that was started otherwise is ended.
pub(crate) fn adopt(files: &WorkloadDir, fingerprint: &str) -> Option<Running> {
    let record = fs::read_to_string(files.pid()).ok()?;
    let (pid, started) = record.trim().split_once(' ')?;
    let pid = Pid::from_raw(pid.parse().ok()?)?;
    // The handle first: from here on the id cannot pass to another process unseen.
    let handle = pidfd_open(pid, PidfdFlags::empty()).ok()?;
    if start_time(pid)? != started || !is_alive(&handle) {
        return None;
    }
    if fs::read_to_string(files.launch()).ok()? != fingerprint {
        let _ = pidfd_send_signal(&handle, Signal::TERM);
        return None;
    }
    Some(Running { pid, handle, child: None })
}

/// Whether a process runs: its descriptor becomes readable when it has ended.
fn is_alive(handle: &OwnedFd) -> bool {
    let mut waiting = [PollFd::new(handle, PollFlags::IN)];
    matches!(poll(&mut waiting, Some(&Timespec::default())), Ok(0))
}

/// When the process started, in clock ticks since boot: field 22 of `/proc/PID/stat`.
fn start_time(pid: Pid) -> Option<String> {
    let stat = fs::read_to_string(format!("/proc/{}/stat", pid.as_raw_nonzero())).ok()?;
    // The command name, in parentheses, may hold spaces; the fields after it are counted from 3.
    let (_, fields) = stat.rsplit_once(')')?;
    fields.split_whitespace().nth(22 - 3).map(str::to_owned)
}

fn open_log(files: &WorkloadDir) -> Result<fs::File> {
    let path = files.log();
    if fs::metadata(&path).is_ok_and(|metadata| metadata.len() > LOG_BYTES_MAX) {
        fs::rename(&path, path.with_extension("log.1"))?;
    }
    OpenOptions::new()
        .append(true)
        .create(true)
        .mode(0o600)
        .open(&path)
        .with_context(|| format!("cannot write {}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_launch_is_known_again_until_something_in_it_changes() {
        let launch = |argument: &str| Launch {
            program: PathBuf::from("/bin/proxy"),
            arguments: vec![argument.to_owned()],
            environment: BTreeMap::from([("LANG".to_owned(), "C".to_owned())]),
            inherited: Vec::new(),
        };
        let document = json!({"node": {"metadata": {"A": "1", "B": "2", "C": "3", "D": "4"}}});
        let known = launch("run").fingerprint(&document);
        assert_eq!(launch("run").fingerprint(&document.clone()), known);
        assert_ne!(launch("agent").fingerprint(&document), known);
        assert_ne!(launch("run").fingerprint(&json!({"node": {"metadata": {"A": "1"}}})), known);
    }
}
