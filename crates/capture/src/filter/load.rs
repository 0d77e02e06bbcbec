//! Loads the rules into a network namespace, and takes them out again, by the system's own programs.

use std::io::{self, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::time::Duration;

use super::rules::{Family, Rules};
use super::{iptables, nft};
use crate::netns;

/// How long a program may wait for another that changes iptables' rules.
const LOCK_WITHIN: Duration = Duration::from_secs(10);

/// The network namespace in which rules are loaded.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Place {
    /// The caller's own.
    #[default]
    Here,
    /// The one at this path.
    At(PathBuf),
}

/// By which of the kernel's two interfaces.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Backend {
    /// `nft`.
    Nft,
    /// `iptables-restore` and `ip6tables-restore`.
    Iptables,
}

/// Why the rules are not in force.
#[derive(Debug, thiserror::Error)]
pub enum Fault {
    /// The namespace cannot be entered.
    #[error("cannot enter network namespace {path}: {source}")]
    Namespace {
        /// Its path.
        path: PathBuf,
        /// What the kernel said.
        source: io::Error,
    },
    /// There is neither of the programs.
    #[error("neither nft nor iptables-restore is installed")]
    NoProgram,
    /// A program cannot be started.
    #[error("cannot run {program}: {source}")]
    Start {
        /// The program.
        program: &'static str,
        /// What the kernel said.
        source: io::Error,
    },
    /// A program refused; nothing was changed by it.
    #[error("{program} refused: {said}")]
    Refused {
        /// The program.
        program: &'static str,
        /// What it said.
        said: String,
    },
}

impl Backend {
    /// nft where it is installed, else iptables.
    ///
    /// # Errors
    ///
    /// [`Fault::NoProgram`].
    pub fn found() -> Result<Self, Fault> {
        if is_installed("nft") {
            Ok(Self::Nft)
        } else if is_installed("iptables-restore") {
            Ok(Self::Iptables)
        } else {
            Err(Fault::NoProgram)
        }
    }
}

/// The rules as the programs read them, for people to look at.
#[must_use]
pub fn script(backend: Backend, rules: &Rules) -> String {
    match backend {
        Backend::Nft => nft::script(rules),
        Backend::Iptables => {
            let v4 = iptables::script(Some(rules), Family::V4, "");
            let v6 = iptables::script(Some(rules), Family::V6, "");
            let v6 = if rules.ipv6 { format!("# ip6tables-restore --noflush\n{v6}") } else { v6 };
            format!("# iptables-restore --noflush\n{v4}{v6}")
        }
    }
}

/// Puts the rules in force: all of ours that were there are replaced, at once for each family.
///
/// # Errors
///
/// A [`Fault`]; the rules that were there stay.
pub fn apply(place: &Place, backend: Backend, rules: &Rules) -> Result<(), Fault> {
    inside(place, || {
        // First: rules whose packets nobody routes to the sidecar would lose them.
        route(rules)?;
        match backend {
            Backend::Nft => run("nft", &["-f", "-"], &nft::script(rules)),
            Backend::Iptables => {
                restore(Family::V4, Some(rules))?;
                if rules.ipv6 { restore(Family::V6, Some(rules)) } else { Ok(()) }
            }
        }
    })
}

/// Takes all of our rules out, of both backends; none there is no error.
///
/// # Errors
///
/// A [`Fault`].
pub fn remove(place: &Place) -> Result<(), Fault> {
    inside(place, || {
        if is_installed("nft") {
            run("nft", &["-f", "-"], &nft::removal())?;
        }
        if is_installed("iptables-save") {
            restore(Family::V4, None)?;
        }
        if is_installed("ip6tables-save") {
            restore(Family::V6, None)?;
        }
        unroute()
    })
}

/// Our rules as they are in force; empty when there are none.
///
/// # Errors
///
/// A [`Fault`].
pub fn show(place: &Place, backend: Backend) -> Result<String, Fault> {
    inside(place, || match backend {
        Backend::Nft => {
            let table = ["list", "table", "inet", nft::TABLE];
            let output = start("nft", &table, "")?;
            // nft fails for a table that is not there.
            let is_there = output.status.success();
            Ok(if is_there { text(&output.stdout) } else { String::new() })
        }
        Backend::Iptables => {
            let mut shown = String::new();
            for program in ["iptables-save", "ip6tables-save"] {
                let saved = text(&start(program, &[], "")?.stdout);
                let ours =
                    saved.lines().filter(|line| line.contains("SLUIS_") || line.starts_with('*'));
                shown.extend(ours.map(|line| format!("{line}\n")));
            }
            Ok(if shown.contains("SLUIS_") { shown } else { String::new() })
        }
    })
}

/// How the rules in force stand to those that are wanted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Standing {
    /// They are the same.
    InForce,
    /// There are none.
    Missing,
    /// Others of ours are in force, or only some of these.
    Differ,
}

/// Compares the rules in force with those that are wanted: as the kernel tells both, the latter from a
/// namespace made for that and gone at the end.
///
/// # Errors
///
/// A [`Fault`]. It takes the right to make a network namespace.
pub fn standing(place: &Place, backend: Backend, rules: &Rules) -> Result<Standing, Fault> {
    let found = show(place, backend)?;
    if found.is_empty() {
        return Ok(Standing::Missing);
    }
    let wanted = netns::within_new(|| {
        match backend {
            Backend::Nft => run("nft", &["-f", "-"], &nft::script(rules))?,
            Backend::Iptables => {
                restore(Family::V4, Some(rules))?;
                if rules.ipv6 {
                    restore(Family::V6, Some(rules))?;
                }
            }
        }
        show(&Place::Here, backend)
    });
    let wanted =
        wanted.map_err(|source| Fault::Namespace { path: PathBuf::from("(new)"), source })??;
    let is_same = ours(&found) == ours(&wanted) && inside(place, || is_routed(rules))?;
    Ok(if is_same { Standing::InForce } else { Standing::Differ })
}

/// The lines of ours in what a program shows: iptables names the tables of others too.
fn ours(shown: &str) -> Vec<&str> {
    shown.lines().map(str::trim_end).filter(|line| !line.starts_with('*')).collect()
}

/// Whether packets of TPROXY find their way, where there are any.
fn is_routed(rules: &Rules) -> Result<bool, Fault> {
    let Some((mark, table)) = rules.routing else { return Ok(true) };
    for family in families(rules.ipv6) {
        let told = text(&start("ip", &[family, "rule", "list"], "")?.stdout);
        let rule = format!("fwmark {mark:#x} lookup {table}");
        if !told.contains(&rule) {
            return Ok(false);
        }
    }
    Ok(true)
}

/// Ends the TCP connections of a namespace, so that they are made again under its rules; says how many.
/// Where neither the kernel nor a program can do that, none are.
///
/// # Errors
///
/// A [`Fault`] of the namespace.
pub fn end_connections(place: &Place) -> Result<usize, Fault> {
    if !is_installed("ss") {
        return Ok(0);
    }
    inside(place, || {
        let ended = start("ss", &["-K", "-t", "-n", "-H", "state", "connected"], "")?;
        Ok(text(&ended.stdout).lines().filter(|line| !line.trim().is_empty()).count())
    })
}

/// Loads a script of nft, whole or not at all.
///
/// # Errors
///
/// A [`Fault`].
pub fn load_script(place: &Place, script: &str) -> Result<(), Fault> {
    inside(place, || run("nft", &["-f", "-"], script))
}

fn inside<T: Send>(
    place: &Place,
    work: impl FnOnce() -> Result<T, Fault> + Send,
) -> Result<T, Fault> {
    match place {
        Place::Here => work(),
        Place::At(path) => netns::within(path, work)
            .map_err(|source| Fault::Namespace { path: path.clone(), source })?,
    }
}

fn restore(family: Family, rules: Option<&Rules>) -> Result<(), Fault> {
    let (save, load) = match family {
        Family::V4 => ("iptables-save", "iptables-restore"),
        Family::V6 => ("ip6tables-save", "ip6tables-restore"),
    };
    let saved = text(&start(save, &[], "")?.stdout);
    let input = iptables::script(rules, family, &saved);
    if input.is_empty() {
        return Ok(());
    }
    let wait = LOCK_WITHIN.as_secs().to_string();
    run(load, &["--noflush", "-w", &wait], &input)
}

/// The routes by which packets that are marked reach the sidecar, and the address from which it calls
/// the workload over IPv6.
fn route(rules: &Rules) -> Result<(), Fault> {
    if rules.ipv6 && is_installed("ip") && Path::new("/proc/net/if_inet6").exists() {
        // Without IPv6 in this namespace there is nothing to give an address to.
        let _ = start("ip", &["-6", "address", "replace", "::6/128", "dev", "lo"], "")?;
    }
    let Some((mark, table)) = rules.routing else { return unroute() };
    let (mark, table) = (mark.to_string(), table.to_string());
    for family in families(rules.ipv6) {
        let rule = ["rule", "delete", "fwmark", &mark, "lookup", &table];
        let _ = start("ip", &[&[family], &rule[..]].concat(), "")?;
        run("ip", &[family, "rule", "add", "fwmark", &mark, "lookup", &table], "")?;
        let route = ["route", "replace", "local", "default", "dev", "lo", "table", &table];
        run("ip", &[&[family], &route[..]].concat(), "")?;
    }
    Ok(())
}

/// Takes the routes of the default mark and table away.
fn unroute() -> Result<(), Fault> {
    if !is_installed("ip") {
        return Ok(());
    }
    for family in families(true) {
        // They fail where there are none.
        let _ = start("ip", &[family, "rule", "delete", "fwmark", "1337", "lookup", "133"], "")?;
        let _ = start("ip", &[family, "route", "flush", "table", "133"], "")?;
    }
    Ok(())
}

fn families(ipv6: bool) -> impl Iterator<Item = &'static str> {
    ["-4", "-6"].into_iter().filter(move |family| ipv6 || *family == "-4")
}

fn run(program: &'static str, arguments: &[&str], input: &str) -> Result<(), Fault> {
    let output = start(program, arguments, input)?;
    if output.status.success() {
        return Ok(());
    }
    Err(Fault::Refused { program, said: text(&output.stderr).trim().to_owned() })
}

/// Runs a program to its end.
fn start(program: &'static str, arguments: &[&str], input: &str) -> Result<Output, Fault> {
    let failed = |source| Fault::Start { program, source };
    let mut child = Command::new(program)
        .args(arguments)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .map_err(failed)?;
    // A program that does not read its input says why.
    let _ = child.stdin.take().map(|mut stdin| stdin.write_all(input.as_bytes()));
    child.wait_with_output().map_err(failed)
}

fn is_installed(program: &str) -> bool {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path).any(|folder| folder.join(program).is_file())
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}
