//! `sluis probe NS/WORKLOAD`: tries every known way out, from inside the workload's namespace.
//!
//! In:    a workload of the running mesh, or a network namespace; addresses outside that answer.
//! Out:   each way, closed or open, as a table or JSON; exit code 0 when all are closed, 3 when one is
//!        open.
//! Never: runs as root unless told to: it has the workload's rights, not ours.

use std::{
    net::{IpAddr, SocketAddr},
    os::unix::process::CommandExt as _,
    path::PathBuf,
    process::{Command, ExitCode, Stdio},
    time::Duration,
};

use anyhow::{Context, Result, bail};
use clap::Args;
use serde_json::json;
use sluis_capture::{
    netns,
    probe::{self, Finding, Targets, Way},
};

use crate::{
    api::{self, JailPlan},
    arguments::{StateOption, WorkloadArgument},
    output::{self, Format, Table},
    state::StateDir,
    verbs::workload_name,
};

/// A way out was found.
const EXIT_OPEN: u8 = 3;

/// The user as which root's probes run, where there is no other: nobody.
const NOBODY: u32 = 65534;

/// The sidecar's user and group, whose connections Istio's packet filter lets pass.
const PROXY: u32 = 1337;

/// The program itself, which a user may run who may not enter its folder.
const ITSELF: &str = "/proc/self/exe";

/// `sluis probe`.
#[derive(Args, Debug)]
#[command(
    after_help = "The addresses must be of servers that listen: a way to a silent address looks closed.
Exit code: 0 all closed, 3 one is open.

Examples:
  sluis probe shop/cart --outside 198.51.100.10 --outside 2001:db8::10
  sluis probe --netns /run/netns/cart --outside 198.51.100.10 -o json"
)]
pub(crate) struct ProbeOptions {
    /// The workload: NAMESPACE/NAME, NAME.NAMESPACE, or NAME with -n
    #[arg(required_unless_present_any = ["netns", "here", "tcp"])]
    workload: Option<String>,

    /// The namespace of a workload named without one
    #[arg(short, long, default_value = "default")]
    namespace: String,

    #[command(flatten)]
    state: StateOption,

    /// Probe this network namespace, by path, instead of a workload's
    #[arg(long, value_name = "PATH", conflicts_with = "workload")]
    netns: Option<PathBuf>,

    /// Probe from where we are
    #[arg(long, conflicts_with_all = ["workload", "netns"])]
    here: bool,

    /// An address outside the mesh; may be given several times
    #[arg(long, value_name = "ADDRESS")]
    outside: Vec<IpAddr>,

    /// The TCP port that answers there
    #[arg(long, default_value_t = 443)]
    port: u16,

    /// The control plane's address
    #[arg(long, value_name = "ADDRESS")]
    control: Option<IpAddr>,

    /// How long each way is tried
    #[arg(long, default_value = "1s", value_parser = humantime::parse_duration, value_name = "DURATION")]
    within: Duration,

    /// As which user and group a probe of a network namespace runs; 0 stays root
    #[arg(long, default_value_t = NOBODY, value_name = "UID")]
    user: u32,

    /// One connection, for a probe that has become another user
    #[arg(long, hide = true, value_name = "ADDRESS")]
    tcp: Option<SocketAddr>,

    /// How to print
    #[arg(short, long, value_enum, default_value_t)]
    output: Format,
}

/// Carries out the verb.
///
/// # Errors
///
/// When the workload or its namespace is not there.
pub(crate) fn run(options: &ProbeOptions) -> Result<ExitCode> {
    if let Some(to) = options.tcp {
        let finding = Way::tcp("", to).attempt(options.within);
        output::print_value(&json!(finding), Format::Json)?;
        return Ok(ExitCode::SUCCESS);
    }
    if options.here {
        return show(options, &here(options));
    }
    if options.outside.is_empty() {
        bail!(
            "give at least one --outside ADDRESS of a server that listens: without one nothing is proved"
        );
    }
    let path = match (&options.netns, &options.workload) {
        (Some(path), _) => path.clone(),
        (None, Some(workload)) => {
            let (workload, namespace) = (workload.clone(), options.namespace.clone());
            let name = workload_name(&WorkloadArgument { workload, namespace })?;
            let state = StateDir::locate(options.state.state_dir.clone())?;
            let path = format!("/v1/workloads/{}/{}/jail", name.namespace, name.name);
            let plan: JailPlan = serde_json::from_value(api::get(&state, &path)?)?;
            match plan.netns {
                Some(path) => path,
                None => return in_jail(options, &state, &name.to_string()),
            }
        }
        (None, None) => bail!("name a workload, or --netns"),
    };
    netns::enter(&path).with_context(|| format!("network namespace {}", path.display()))?;
    let mut command = itself(options);
    if options.user != 0 {
        command.uid(options.user).gid(options.user);
    }
    Err(command.exec().into())
}

/// The same probe, from where the program is started.
fn itself(options: &ProbeOptions) -> Command {
    let mut command = Command::new(ITSELF);
    command.args(arguments(options));
    command
}

fn arguments(options: &ProbeOptions) -> Vec<String> {
    let mut all = vec!["probe".to_owned(), "--here".to_owned()];
    for ip in &options.outside {
        all.extend(["--outside".to_owned(), ip.to_string()]);
    }
    if let Some(control) = options.control {
        all.extend(["--control".to_owned(), control.to_string()]);
    }
    let within = format!("{}ms", options.within.as_millis());
    all.extend(["--port".to_owned(), options.port.to_string(), "--within".to_owned(), within]);
    let form = match options.output {
        Format::Table | Format::Wide => "table",
        Format::Json => "json",
        Format::Yaml => "yaml",
    };
    all.extend(["--output".to_owned(), form.to_owned()]);
    all
}

/// In the jail of `sluis exec`.
fn in_jail(options: &ProbeOptions, state: &StateDir, workload: &str) -> Result<ExitCode> {
    let program = std::env::current_exe()?;
    let mut command = Command::new(&program);
    command.arg("exec").arg("--state-dir").arg(state.root()).arg(workload).arg("--").arg(&program);
    command.args(arguments(options));
    Err(command.exec().into())
}

fn here(options: &ProbeOptions) -> Vec<Finding> {
    let targets =
        Targets { outside: options.outside.clone(), port: options.port, control: options.control };
    let mut found = probe::attempt_all(&probe::ways(&targets), options.within);
    for ip in &options.outside {
        let to = SocketAddr::new(*ip, options.port);
        found.push(as_proxy("TCP as the sidecar's user", to, options, true));
        found.push(as_proxy("TCP as the sidecar's group", to, options, false));
    }
    found
}

/// A connection as the sidecar's user or group; closed for one who cannot become that.
fn as_proxy(name: &str, to: SocketAddr, options: &ProbeOptions, is_user: bool) -> Finding {
    let mut command = Command::new(ITSELF);
    command.args(["probe", "--tcp", &to.to_string()]);
    command.args(["--within", &format!("{}ms", options.within.as_millis())]);
    command.stdin(Stdio::null()).stderr(Stdio::null());
    if is_user {
        command.uid(PROXY);
    } else {
        command.gid(PROXY);
    }
    let (is_open, detail) = match command.output() {
        Err(error) if error.kind() == std::io::ErrorKind::PermissionDenied => {
            (false, "not permitted".to_owned())
        }
        // A user namespace that does not map it, as a jail's.
        Err(error) if error.kind() == std::io::ErrorKind::InvalidInput => {
            (false, "there is no such user here".to_owned())
        }
        Err(error) => (true, format!("the probe itself failed: {error}")),
        Ok(output) => match serde_json::from_slice::<serde_json::Value>(&output.stdout) {
            Ok(value) => (
                value["is_open"].as_bool().unwrap_or(true),
                value["detail"].as_str().unwrap_or_default().to_owned(),
            ),
            Err(error) => (true, format!("the probe itself failed: {error}")),
        },
    };
    let is_doubtful = false;
    Finding { way: name.to_owned(), target: to.to_string(), is_open, is_doubtful, detail }
}

fn show(options: &ProbeOptions, found: &[Finding]) -> Result<ExitCode> {
    let open = found.iter().filter(|finding| finding.is_open).count();
    match options.output {
        Format::Json | Format::Yaml => output::print_value(&json!(found), options.output)?,
        Format::Table | Format::Wide => {
            let mut table = Table::new(&["WAY", "TARGET", "STATE", "SEEN"]);
            for one in found {
                let state = match (one.is_open, one.is_doubtful) {
                    (true, _) => "OPEN",
                    (false, true) => "doubtful",
                    (false, false) => "closed",
                };
                table.row(vec![
                    one.way.clone(),
                    one.target.clone(),
                    state.to_owned(),
                    one.detail.clone(),
                ]);
            }
            output::print(&table.render())?;
            let doubtful = found.iter().filter(|one| one.is_doubtful && !one.is_open).count();
            let doubtful =
                if doubtful > 0 { format!(", {doubtful} doubtful") } else { String::new() };
            output::print(&format!("{} ways tried, {open} open{doubtful}\n", found.len()))?;
        }
    }
    Ok(if open == 0 { ExitCode::SUCCESS } else { ExitCode::from(EXIT_OPEN) })
}
