//! `sluis up -f DIR`: the mesh that a folder of YAML describes, on this machine.
//!
//! In:    files, watched; the state directory.
//! Out:   a control plane and certificate authority, and a proxy for each workload that asks for one.
//! Never: leaves a process behind when asked to stop; ends a proxy when it is killed itself.
//!
//! Start at [`up`]. The control plane is [`Plane`].

use std::{
    collections::BTreeMap,
    io,
    path::{Path, PathBuf},
    process::ExitCode,
    sync::Arc,
    time::Duration,
};

use anyhow::{Context, Result};

use crate::{
    cli::UpOptions,
    plane::{self, Follower, Plane, PlaneOptions},
    supervise::{Setting, Supervisor, TokenSource},
    workload::Workload,
};

/// How long a proxy has to use its join token: it starts in a fraction of a second.
const TOKEN_LIFE: Duration = Duration::from_secs(60);
/// Variables that every proxy gets from us; all others only by annotation.
const INHERITED: [&str; 8] =
    ["PATH", "HOME", "LANG", "TZ", "SSL_CERT_FILE", "SLUIS_LOG", "NO_COLOR", "RUST_BACKTRACE"];

/// Runs the mesh until Ctrl-C or SIGTERM.
///
/// # Errors
///
/// When another `sluis up` has the state directory, the port is taken, or a path cannot be read.
pub(crate) fn run(options: UpOptions) -> Result<ExitCode> {
    plane::run(up(options))?;
    Ok(ExitCode::SUCCESS)
}

async fn up(options: UpOptions) -> Result<()> {
    let program = proxy_program(options.proxy_program)?;
    let options = PlaneOptions::new(options.plane, options.listen, options.debug)?;
    let state = options.state.clone();
    let plane = Plane::open(options).await?;
    let tokens = Arc::clone(plane.tokens());
    let issue: TokenSource =
        Arc::new(move |id| Ok(tokens.create(id.clone(), TOKEN_LIFE)?.reveal().to_owned()));
    let supervisor = Supervisor::new(Setting {
        state,
        program,
        control: plane.address()?,
        roots: plane.authority().root_path(),
        trust_domain: plane.control().trust_domain().clone(),
        tokens: issue,
        environment: inherited(),
    });
    let statuses = supervisor.statuses();
    plane.run(supervisor, statuses).await
}

impl Follower for Supervisor {
    async fn reconcile(&mut self, workloads: Vec<Workload>) {
        Self::reconcile(self, workloads).await;
    }

    async fn shut_down(self) {
        Self::shut_down(self).await;
    }
}

/// The program given, or `sluis-proxy` beside this one.
fn proxy_program(given: Option<PathBuf>) -> Result<PathBuf> {
    let program = match given {
        Some(program) => std::path::absolute(program)?,
        None => {
            let own = std::env::current_exe()?;
            own.parent().unwrap_or(Path::new("/")).join("sluis-proxy")
        }
    };
    if !program.is_file() {
        return Err(io::Error::from(io::ErrorKind::NotFound))
            .with_context(|| format!("{}: name it with --proxy-program", program.display()));
    }
    Ok(program)
}

fn inherited() -> BTreeMap<String, String> {
    let own =
        INHERITED.iter().filter_map(|name| Some(((*name).to_owned(), std::env::var(name).ok()?)));
    own.collect()
}
