//! `--explicit-proxy`: for machines that refuse user namespaces.
//!
//! In:    the command, its variables, the way to its workload's sidecar.
//! Out:   the command's exit code; while it runs, an HTTP proxy on a loopback port that only the command
//!        has the token of, which is made anew for each command.
//! Never: a promise: a command that ignores `HTTPS_PROXY` bypasses the mesh, and we say so.

mod request;
mod serve;

use std::{
    ffi::OsString,
    fs,
    io::{IsTerminal, Read},
    net::Ipv4Addr,
    os::unix::process::ExitStatusExt,
    path::{Path, PathBuf},
    process::ExitCode,
};

use anyhow::{Context, Result};
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use tokio::{
    net::TcpListener,
    process::Command,
    signal::unix::{SignalKind, signal},
    sync::mpsc,
};

use super::environment::Change;
use crate::{api::JailPlan, state::make_private};

/// Variables that lead programs to a proxy.
const VARIABLES: [&str; 6] =
    ["HTTPS_PROXY", "https_proxy", "HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy"];

/// What a command reaches by itself: its own servers.
const NO_PROXY: &str = "localhost,127.0.0.1,::1";

/// What is passed on to the command.
const FORWARDED: [Signal; 6] = [
    Signal::SIGHUP,
    Signal::SIGINT,
    Signal::SIGQUIT,
    Signal::SIGTERM,
    Signal::SIGUSR1,
    Signal::SIGUSR2,
];

/// Signals that wait; more of them are as good as one.
const SIGNALS_MAX: usize = 16;

/// The command and what it is given.
pub(super) struct Run<'a> {
    /// The command and its arguments.
    pub command: &'a [String],
    /// Changes to the caller's variables.
    pub changes: Vec<Change>,
    /// Files for the command, gone when it has ended, in `folder`.
    pub files: Vec<(PathBuf, String)>,
    /// The folder that is made for them.
    pub folder: &'a Path,
}

/// Runs the command beside a proxy that ends with it.
///
/// # Errors
///
/// When the proxy cannot listen or the command not be started.
pub(super) fn run(plan: &JailPlan, run: Run<'_>) -> Result<ExitCode> {
    make_private(run.folder)?;
    let folder = run.folder.to_path_buf();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let done = runtime.block_on(serve(plan, run));
    // What is left holds no secret, and the state folder's owner alone sees it.
    let _gone = fs::remove_dir_all(folder);
    done
}

#[expect(clippy::print_stderr, reason = "a warning is what standard error is for")]
async fn serve(plan: &JailPlan, run: Run<'_>) -> Result<ExitCode> {
    for (path, text) in &run.files {
        fs::write(path, text).with_context(|| path.display().to_string())?;
    }
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
    let token = random()?;
    let url = format!("http://{}:{token}@{}", request::USER, listener.local_addr()?);
    let token = request::Token::new(&token);
    let way = serve::Way::new(token, plan);
    eprintln!("sluis: no jail: only programs that honour HTTPS_PROXY go through the mesh");
    let (program, arguments) = run.command.split_first().context("no command")?;
    let mut command = Command::new(program);
    command.args(arguments);
    for name in VARIABLES {
        command.env(name, &url);
    }
    command.env("NO_PROXY", NO_PROXY).env("no_proxy", NO_PROXY);
    // Node's fetch looks at the others only with this one.
    command.env("NODE_USE_ENV_PROXY", "1");
    for (name, value) in run.changes {
        match value {
            Some(value) => command.env(name, value),
            None => command.env_remove::<OsString>(name),
        };
    }
    let mut signals = caught()?;
    let mut child = match command.spawn() {
        Ok(child) => child,
        Err(error) => return Ok(told(program, &error)),
    };
    let pid = child.id().and_then(|pid| i32::try_from(pid).ok()).map(Pid::from_raw);
    let proxy = serve::accept(listener, way);
    tokio::pin!(proxy);
    let status = loop {
        tokio::select! {
            status = child.wait() => break status?,
            error = &mut proxy => return Err(error),
            Some(signal) = signals.recv() => {
                // It may have ended just now; then nobody needs this signal any more.
                pid.map(|pid| kill(pid, signal).ok());
            }
        }
    };
    let code = status.signal().map_or(status.code(), |number| Some(128 + number));
    Ok(ExitCode::from(u8::try_from(code.unwrap_or(1)).unwrap_or(1)))
}

#[expect(clippy::print_stderr, reason = "an error is what standard error is for")]
fn told(program: &str, error: &std::io::Error) -> ExitCode {
    eprintln!("sluis: cannot run {program}: {error}");
    ExitCode::from(if error.kind() == std::io::ErrorKind::NotFound { 127 } else { 126 })
}

fn random() -> Result<String> {
    let mut random = [0; 32];
    fs::File::open("/dev/urandom").and_then(|mut file| file.read_exact(&mut random))?;
    Ok(random.iter().map(|byte| format!("{byte:02x}")).collect())
}

/// The signals that somebody sends to us and means for the command. Those of the terminal reach it
/// without us.
fn caught() -> Result<mpsc::Receiver<Signal>> {
    let (sender, receiver) = mpsc::channel(SIGNALS_MAX);
    let has_terminal = std::io::stdin().is_terminal();
    for one in FORWARDED {
        let mut stream = signal(SignalKind::from_raw(one as i32))?;
        let sender = sender.clone();
        let is_terminals = has_terminal && matches!(one, Signal::SIGINT | Signal::SIGQUIT);
        tokio::spawn(async move {
            while stream.recv().await.is_some() {
                if !is_terminals {
                    // A full channel holds the same news already.
                    let _full = sender.try_send(one);
                }
            }
        });
    }
    Ok(receiver)
}
