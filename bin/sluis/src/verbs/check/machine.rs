//! Whether this machine and this user can run a mesh.
//!
//! In:    the kernel, programs, limits, the state folder, the clock.
//! Out:   a category of checks.
//! Never: leaves anything behind: the jail that it makes is gone when it is told about.

use std::{
    ffi::OsString,
    fs, io,
    net::TcpListener,
    os::unix::fs::{MetadataExt, PermissionsExt},
    path::{Path, PathBuf},
    process::{Command, Stdio},
    time::{Duration, SystemTime},
};

use rustix::process::{Resource, getrlimit};
use sluis_capture::jail::{self, Helper, Sidecar, Spec, UnixSockets};

use super::finding::{Category, Check};
use crate::state::StateDir;

/// The kernel that has all calls we use: `mount_setattr`, for what a command may not change.
const KERNEL: (u32, u32) = (5, 12);

/// Open files that a gateway needs for a thousand clients, with room.
const FILES_MIN: u64 = 4096;

/// How far a clock may be behind what was issued by it: as `linkerd check` has it.
const SKEW_MAX: Duration = Duration::from_secs(5 * 60);

/// The port of the control plane, where none is named.
const CONTROL: (&str, u16) = ("127.0.0.1", 15012);

/// All that can be known without a mesh.
pub(super) fn check(state: &StateDir, is_pre: bool) -> Category {
    let mut checks = vec![kernel(), jail_works(), packet_filter(), files(), program()];
    checks.push(folder(state.root()));
    checks.push(clock(&state.ca().join("issued.jsonl"), SystemTime::now()));
    if is_pre {
        checks.push(port());
    }
    Category::new("machine", checks)
}

fn kernel() -> Check {
    let release = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    let release = release.trim();
    let check = Check::new(format!("the kernel is new enough ({release})"));
    match version(release) {
        Some(found) if found >= KERNEL => check,
        _ => check
            .warning(format!("sluis.dev/read-only needs Linux {}.{}", KERNEL.0, KERNEL.1))
            .hint("without that annotation older kernels do"),
    }
}

fn version(release: &str) -> Option<(u32, u32)> {
    let mut numbers = release.split(|c: char| !c.is_ascii_digit());
    Some((numbers.next()?.parse().ok()?, numbers.next()?.parse().ok()?))
}

/// Makes one, and runs a command in it that needs no network.
fn jail_works() -> Check {
    let check = Check::new("this user can make a jail (namespaces, nf_tables, seccomp)");
    match make_jail() {
        Ok(()) => check,
        Err(error) => check.error(error).hint(hint()),
    }
}

/// Why a jail may be refused, by what the machine says of itself.
fn hint() -> String {
    let says =
        |path: &str, value: &str| fs::read_to_string(path).is_ok_and(|text| text.trim() == value);
    let known = [
        ("kernel.unprivileged_userns_clone", "0", "1"),
        ("kernel.apparmor_restrict_unprivileged_userns", "1", "0"),
        ("user.max_user_namespaces", "0", "15000"),
    ];
    let found = known
        .iter()
        .find(|(name, bad, _)| says(&format!("/proc/sys/{}", name.replace('.', "/")), bad));
    match found {
        Some((name, bad, good)) => {
            format!(
                "{name} is {bad}: as root, `sysctl {name}={good}`; else `sluis exec --explicit-proxy`"
            )
        }
        None => "a container must allow user namespaces and a /proc of one's own; else use \
                 `sluis exec --explicit-proxy`"
            .to_owned(),
    }
}

/// A jail without a sidecar.
fn make_jail() -> Result<(), String> {
    let program = std::env::current_exe().map_err(|error| error.to_string())?;
    let spec = Spec {
        workload: "check/check".to_owned(),
        command: program.clone().into_os_string(),
        args: vec![OsString::from("--version")],
        cwd: Some("/".into()),
        env: Vec::new(),
        hide: Vec::new(),
        files: Vec::new(),
        read_only: Vec::new(),
        writable: Vec::new(),
        unix_sockets: UnixSockets::default(),
        search: Vec::new(),
        // Nobody is there; the command connects to nothing.
        sidecar: Sidecar::Relay { pipe: "/nonexistent".into(), names: "/nonexistent".into() },
        listeners: 1,
        shared_proc: false,
    };
    let helper = Helper { program: &program, verb: &["exec-jail"] };
    let (mut command, _file) = jail::command(helper, &spec).map_err(|error| error.to_string())?;
    ran(&mut command)
}

/// Runs a command that says why it fails.
pub(super) fn ran(command: &mut Command) -> Result<(), String> {
    let output = command.stdin(Stdio::null()).output().map_err(|error| error.to_string())?;
    if output.status.success() {
        return Ok(());
    }
    let told = String::from_utf8_lossy(&output.stderr);
    let first = told.lines().next().unwrap_or("it said nothing");
    Err(format!("{} ({})", first.trim_start_matches("sluis: "), output.status))
}

fn packet_filter() -> Check {
    let check = Check::new("nft or iptables is installed, for capture of pods and hosts");
    if ["nft", "iptables-restore"].iter().any(|name| is_installed(name)) {
        return check;
    }
    check.warning("neither is").hint("`sluis exec` needs neither; `sluis capture` needs one")
}

fn is_installed(name: &str) -> bool {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let folders = std::env::split_paths(&path).chain(["/usr/sbin", "/sbin"].map(PathBuf::from));
    folders.into_iter().any(|folder| folder.join(name).is_file())
}

fn files() -> Check {
    let limit = getrlimit(Resource::Nofile);
    let most = limit.maximum.unwrap_or(u64::MAX);
    let check = Check::new(format!("proxies may open enough files ({FILES_MIN})"));
    if most >= FILES_MIN {
        return check;
    }
    check
        .warning(format!("at most {most}"))
        .hint("raise the limit: `ulimit -Hn`, LimitNOFILE= of systemd")
}

fn program() -> Check {
    let check = Check::new("sluis-proxy is beside this program, of the same version");
    let Ok(own) = std::env::current_exe() else { return check.warning("where is this program?") };
    let beside = own.parent().unwrap_or(Path::new("/")).join("sluis-proxy");
    let output = match Command::new(&beside).arg("--version").stdin(Stdio::null()).output() {
        Ok(output) => output,
        Err(error) => {
            return check
                .warning(format!("{}: {error}", beside.display()))
                .hint("name it with `sluis up --proxy-program`");
        }
    };
    let told = String::from_utf8_lossy(&output.stdout);
    match told.split_whitespace().last() {
        Some(env!("CARGO_PKG_VERSION")) => check,
        _ => check
            .warning(format!("this is {}, that is {:?}", env!("CARGO_PKG_VERSION"), told.trim()))
            .hint("install both programs of one release"),
    }
}

fn folder(root: &Path) -> Check {
    let check = Check::new(format!("the state folder is ours alone ({})", root.display()));
    let facts = match fs::metadata(root) {
        Ok(facts) => facts,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return can_be_made(check, root),
        Err(error) => return check.error(error.to_string()),
    };
    let (mode, owner) = (facts.permissions().mode() & 0o777, facts.uid());
    let user = nix::unistd::geteuid().as_raw();
    if owner != user {
        return check
            .error(format!("it belongs to user {owner}, and this is user {user}"))
            .hint("run as that user, or name another --state-dir");
    }
    if mode & 0o077 != 0 {
        return check
            .error(format!("others may read it (mode {mode:o})"))
            .hint(format!("chmod 700 {}", root.display()));
    }
    check
}

/// The nearest folder above that exists must let us make it.
fn can_be_made(check: Check, root: &Path) -> Check {
    let above = root.ancestors().skip(1).find(|folder| folder.exists());
    let above = above.unwrap_or(Path::new("/"));
    match nix::unistd::access(above, nix::unistd::AccessFlags::W_OK) {
        Ok(()) => check,
        Err(errno) => check
            .error(format!("it is not there, and {}: {}", above.display(), errno.desc()))
            .hint("name another --state-dir"),
    }
}

/// What was issued lately was not issued in the future.
fn clock(log: &Path, now: SystemTime) -> Check {
    let check = Check::new("the clock is not behind what was issued by it");
    let last = fs::metadata(log).and_then(|facts| facts.modified());
    match last.map(|last| last.duration_since(now)) {
        Ok(Ok(ahead)) if ahead > SKEW_MAX => check
            .error(format!(
                "the last certificate was issued {} from now",
                humantime::format_duration(Duration::from_secs(ahead.as_secs()))
            ))
            .hint("set the clock, by NTP"),
        _ => check,
    }
}

fn port() -> Check {
    let check = Check::new(format!("port {} of {} is free", CONTROL.1, CONTROL.0));
    match TcpListener::bind(CONTROL) {
        Ok(_) => check,
        Err(error) => check
            .warning(error.to_string())
            .hint("another mesh may run here; give `sluis up` another --listen"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::verbs::check::finding::Outcome;

    #[test]
    fn versions_of_kernels_are_read() {
        assert_eq!(version("6.18.44-fc"), Some((6, 18)));
        assert_eq!(version("5.4.0-150-generic"), Some((5, 4)));
        assert_eq!(version("6.1+"), Some((6, 1)));
        assert_eq!(version(""), None);
        assert!(version("5.4.0") < Some(KERNEL) && version("5.15.0") > Some(KERNEL));
    }

    #[test]
    fn a_folder_that_others_may_read_is_wrong() {
        let folder = tempfile::tempdir().unwrap();
        let check = |mode: u32| {
            fs::set_permissions(folder.path(), fs::Permissions::from_mode(mode)).unwrap();
            super::folder(folder.path()).outcome
        };
        assert_eq!(check(0o700), Outcome::Success);
        assert_eq!(check(0o750), Outcome::Error);
        assert_eq!(super::folder(&folder.path().join("a/b")).outcome, Outcome::Success);
    }

    #[test]
    fn a_clock_that_went_back_is_wrong() {
        let folder = tempfile::tempdir().unwrap();
        let log = folder.path().join("issued.jsonl");
        fs::write(&log, "").unwrap();
        let now = SystemTime::now();
        assert_eq!(clock(&log, now).outcome, Outcome::Success);
        assert_eq!(clock(&log, now - 2 * SKEW_MAX).outcome, Outcome::Error);
        assert_eq!(clock(&folder.path().join("none"), now).outcome, Outcome::Success);
    }
}
