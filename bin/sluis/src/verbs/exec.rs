//! `sluis exec WORKLOAD -- COMMAND`: a command whose only way out is its workload's sidecar.
//!
//! In:    the workload's plan from the running `sluis up`; the command.
//! Out:   the command's exit code; 125 when there is no jail.
//! Never: falls back from the jail to the explicit proxy by itself: the user must ask.

mod environment;
mod explicit;
mod trust;

use std::{
    collections::BTreeMap,
    ffi::OsString,
    path::{Path, PathBuf},
    process::ExitCode,
    thread,
};

use anyhow::{Context, Result, bail};
use sluis_capture::jail::{self, Helper, JailError, LISTENERS_MAX, Sidecar, Spec, UnixSockets};

use crate::{
    api::{self, JailPlan},
    cli::ExecOptions,
    state::StateDir,
    verbs::workload_name,
};
use environment::{Change, Wishes};
use trust::File;

/// Runs the command; returns only for the explicit proxy, or when the jail cannot be started.
///
/// # Errors
///
/// When no `sluis up` runs, or the workload has no sidecar.
pub(crate) fn run(options: ExecOptions) -> Result<ExitCode> {
    let name = workload_name(&options.workload)?;
    let state = StateDir::locate(options.state.state_dir.clone())?;
    let path = format!("/v1/workloads/{}/{}/jail", name.namespace, name.name);
    let plan: JailPlan = serde_json::from_value(api::get(&state, &path)?)?;
    if let Some(netns) = &plan.netns {
        bail!(
            "{name} has a network namespace of its own: run commands there, as in `nsenter --net={}`",
            netns.display()
        );
    }
    if options.explicit_proxy {
        let folder = state.workload(&name).given_to(std::process::id());
        let (changes, files) = environment(&options, &plan, &folder)?;
        let run = explicit::Run { command: &options.command, changes, files, folder: &folder };
        return explicit::run(&plan, run);
    }
    // The state's folder is hidden: what it holds in the jail is for the jail alone.
    let (env, files) = environment(&options, &plan, state.root())?;
    let mut hide = plan.hidden;
    hide.push(state.root().to_path_buf());
    for path in options.hide {
        hide.push(std::path::absolute(&path).with_context(|| path.display().to_string())?);
    }
    let mut words = options.command.into_iter().map(OsString::from);
    let sidecar = match plan.handoff {
        Some(socket) => Sidecar::Handoff(socket),
        None => Sidecar::Relay { pipe: plan.capture, names: plan.names },
    };
    let spec = Spec {
        workload: name.to_string(),
        command: words.next().unwrap_or_default(),
        args: words.collect(),
        cwd: None,
        env,
        hide: outermost(hide)?,
        files,
        read_only: plan.policy.read_only,
        writable: plan.policy.writable,
        unix_sockets: with_own(plan.policy.unix_sockets, plan.workload_api),
        search: vec![
            format!("{}.svc.cluster.local", name.namespace),
            "svc.cluster.local".to_owned(),
        ],
        sidecar,
        listeners: thread::available_parallelism().map_or(1, |cores| {
            u16::try_from(cores.get()).unwrap_or(LISTENERS_MAX).min(LISTENERS_MAX)
        }),
        shared_proc: false,
    };
    let program = std::env::current_exe()?;
    Err(jail::exec(Helper { program: &program, verb: &["exec-jail"] }, &spec).into())
}

/// The inside of the jail: the hidden verb.
///
/// # Errors
///
/// Never; what fails is told on standard error and by the exit code.
#[expect(clippy::print_stderr, reason = "an error is what standard error is for")]
pub(crate) fn run_in_jail(spec: i32) -> Result<ExitCode> {
    match jail::enter(spec) {
        Ok(code) => Ok(ExitCode::from(code)),
        Err(error) => {
            eprintln!("sluis: {error}");
            if matches!(error, JailError::Unsupported { .. }) {
                eprintln!(
                    "sluis: `sluis exec --explicit-proxy …` works without a jail, for programs \
                     that honour HTTPS_PROXY; a program that ignores it bypasses the mesh"
                );
            }
            Ok(ExitCode::from(error.exit_code()))
        }
    }
}

/// The changes to the caller's variables, and the files that they name, to lie in `folder`.
///
/// A gateway gets secrets from the environment of `sluis up`; a shell that still has the same
/// variables must not pass them on.
/// Where there is a Workload API, the command finds it by the variable that SPIFFE names.
fn environment(
    options: &ExecOptions,
    plan: &JailPlan,
    folder: &Path,
) -> Result<(Vec<Change>, Vec<File>)> {
    let current: BTreeMap<OsString, OsString> = std::env::vars_os().collect();
    let offer = trust::offer(folder, &plan.policy.ca_certificates, &plan.roots, &current)?;
    let mut offered = offer.variables;
    if let Some(socket) = &plan.workload_api {
        let endpoint = format!("unix://{}", socket.display());
        offered.push(("SPIFFE_ENDPOINT_SOCKET".to_owned(), endpoint.into()));
    }
    let wishes = Wishes {
        secrets: plan.secret_variables.clone(),
        is_clean: options.clean_env || plan.policy.clean_env,
        is_without_proxies: !options.explicit_proxy,
        kept: options.keep_env.clone(),
        offered,
        set: options.env.clone(),
    };
    let current: Vec<_> = current.into_iter().collect();
    Ok((wishes.changes(&current), offer.files))
}

/// The workload's own Workload API is for the command, whatever else is covered.
fn with_own(policy: UnixSockets, own: Option<PathBuf>) -> UnixSockets {
    match policy {
        UnixSockets::Only(mut paths) => {
            paths.extend(own);
            UnixSockets::Only(paths)
        }
        other => other,
    }
}

/// Leaves out what lies inside another of the paths.
///
/// # Errors
///
/// For a path that does not exist: it could not be covered, and would be seen once it is made.
fn outermost(mut paths: Vec<PathBuf>) -> Result<Vec<PathBuf>> {
    for path in &paths {
        if !path.exists() {
            bail!("cannot hide {}: it does not exist (--hide, sluis.dev/hide)", path.display());
        }
    }
    paths.sort();
    paths.dedup();
    let is_inside = |path: &Path, all: &[PathBuf]| {
        all.iter().any(|other| other != path && path.starts_with(other))
    };
    let all = paths.clone();
    paths.retain(|path| !is_inside(path, &all));
    Ok(paths)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_inside_a_hidden_one_is_hidden_once() {
        let given = ["/usr/bin", "/usr", "/etc", "/usr"];
        let kept = outermost(given.iter().map(PathBuf::from).collect()).unwrap();
        assert_eq!(kept, [PathBuf::from("/etc"), PathBuf::from("/usr")]);
    }

    #[test]
    fn a_path_that_cannot_be_hidden_is_an_error() {
        let error = outermost(vec![PathBuf::from("/nowhere/at/all")]).unwrap_err();
        assert!(error.to_string().contains("/nowhere/at/all"));
    }
}
