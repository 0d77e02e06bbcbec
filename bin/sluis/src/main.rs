//! `sluis`: the command line, standalone mode and control plane.
//!
//! In:    arguments, and a folder of Istio's YAML.
//! Out:   a running mesh (`up`), a command in a jail (`exec`), or answers about either.
//! Never: prints a secret, or talks to the network beyond the mesh that it runs.
//!
//! One file for each verb, under [`verbs`]. Exit codes: 0 done; 1 failed; 2 wrong usage;
//! 65 faults in the input; 69 no `sluis up` is running; 79 an audit log was changed; `check` 0, 1, 2 for
//! well, doubtful, wrong; `exec` the command's own.

mod api;
mod arguments;
mod bootstrap;
mod cli;
mod custody;
mod debug;
mod grants;
mod objects;
mod output;
mod plane;
mod state;
mod status;
mod supervise;
mod tls_check;
mod verbs;
mod workload;

use std::process::ExitCode;

use clap::Parser;

use cli::{Cli, Verb};

/// Gives memory back after a wave of connections, which the C library's allocator does not.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    let cli = Cli::parse();
    let answer = match cli.verb {
        Verb::Up(options) => verbs::up::run(options),
        Verb::ControlPlane(options) => verbs::control_plane::run(options),
        Verb::Exec(options) => verbs::exec::run(options),
        Verb::ExecJail { spec } => verbs::exec::run_in_jail(spec),
        Verb::Capture(options) => verbs::capture::run(&options),
        Verb::Probe(options) => verbs::probe::run(&options),
        Verb::Check(options) => verbs::check::run(&options),
        Verb::Validate(options) => verbs::validate::run(&options),
        Verb::Get(options) => verbs::get::run(&options),
        Verb::Status(options) => verbs::status::run(&options),
        Verb::ProxyStatus(options) => verbs::proxy_status::run(&options),
        Verb::ProxyConfig(options) => verbs::proxy_config::run(&options),
        Verb::Authn(options) => verbs::authn::run(&options),
        Verb::Proxy(options) => verbs::proxy::run(&options),
        Verb::Logs(options) => verbs::logs::run(&options),
        Verb::Audit(options) => verbs::audit::run(&options),
        Verb::Ca(options) => verbs::ca::run(&options),
        Verb::Credentials(options) => verbs::credentials::run(&options),
        Verb::Completion { shell } => verbs::completion::run(shell),
    };
    match answer {
        Ok(code) => code,
        Err(error) => {
            eprint_error(&error);
            let is_absent = error.chain().any(|cause| cause.is::<api::NotRunning>());
            ExitCode::from(if is_absent { EXIT_UNAVAILABLE } else { 1 })
        }
    }
}

/// `EX_UNAVAILABLE` of sysexits: the control plane is not there.
const EXIT_UNAVAILABLE: u8 = 69;

#[expect(clippy::print_stderr, reason = "an error is what standard error is for")]
fn eprint_error(error: &anyhow::Error) {
    eprintln!("sluis: {error:#}");
}
