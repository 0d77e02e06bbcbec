//! The data plane's program: `sluis-proxy run`, and `sluis-proxy agent` beside a real Envoy.
//!
//! In:    arguments, a bootstrap file, the environment, signals.
//! Out:   a running data plane; log lines on stderr; exit 0 after an orderly end.
//! Never: prints a key; lets a debugger of the same user into its memory.

mod init;
mod logs;
mod process;
mod small;

use std::{
    collections::HashMap,
    num::NonZeroUsize,
    path::{Path, PathBuf},
    process::ExitCode,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, bail};
use clap::{Args, Parser, Subcommand};
use sluis_capture::netns;
use sluis_identity::Agent;
use sluis_proxy::{Bootstrap, Options};
use sluis_tls::{Clock, SecretStore};
use tracing::error;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// The largest bootstrap: a static configuration of a benchmark is some kilobytes.
const BOOTSTRAP_BYTES_MAX: u64 = 64 << 20;

/// The data plane of Sluis: sidecar, ingress gateway and egress gateway.
#[derive(Parser)]
#[command(version, about, max_term_width = 100)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Runs the proxy until SIGTERM or SIGINT; a second signal ends it at once.
    Run(Run),
    /// Gets and renews the workload's certificate for a real Envoy, and serves it by SDS.
    Agent(AgentArguments),
    /// Loads the packet filter that brings a pod's connections to its sidecar, as Istio's init container does.
    Init(Box<init::Init>),
}

#[derive(Args)]
struct Run {
    /// The bootstrap: an Envoy Bootstrap message in binary protobuf.
    #[arg(long, value_name = "FILE.pb")]
    bootstrap: PathBuf,

    /// Data-plane threads [default: SLUIS_WORKERS of the node's metadata, else one per core].
    #[arg(long, value_name = "N", env = "SLUIS_WORKERS")]
    workers: Option<NonZeroUsize>,

    /// The network namespace to enter first, by path, as in /run/netns.
    #[arg(long, value_name = "PATH")]
    netns: Option<PathBuf>,

    /// The group to run as: a packet filter tells the proxy's own connections by it.
    #[arg(long, value_name = "GID")]
    group: Option<u32>,

    /// Seconds that connections have to finish when the proxy is told to stop.
    #[arg(long, value_name = "SECONDS", default_value_t = 5, env = "SLUIS_DRAIN_SECONDS")]
    drain: u64,
}

#[derive(Args)]
struct AgentArguments {
    /// The bootstrap, as for `run`: its metadata names the authority and the join token.
    #[arg(long, value_name = "FILE.pb")]
    bootstrap: PathBuf,

    /// The Unix socket on which SDS is served.
    #[arg(long, value_name = "SOCKET")]
    sds: PathBuf,

    /// The network namespace to enter first, by path: that of the Envoy.
    #[arg(long, value_name = "PATH")]
    netns: Option<PathBuf>,

    /// The group to run as.
    #[arg(long, value_name = "GID")]
    group: Option<u32>,
}

fn main() -> ExitCode {
    let started = Instant::now();
    let arguments = Arguments::parse();
    logs::start();
    let done = arguments.command.enter().and_then(|()| process::harden()).and_then(|descriptors| {
        match arguments.command {
            Command::Run(run) => run.run(descriptors, started),
            Command::Agent(agent) => agent.run(),
            Command::Init(init) => init.run(),
        }
    });
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            error!("{error:#}");
            ExitCode::FAILURE
        }
    }
}

impl Command {
    /// Goes where the proxy is to run, while this process still has one thread.
    fn enter(&self) -> Result<()> {
        let (place, group) = match self {
            Self::Run(run) => (&run.netns, run.group),
            Self::Agent(agent) => (&agent.netns, agent.group),
            Self::Init(_) => return Ok(()),
        };
        if let Some(path) = place {
            netns::enter(path).with_context(|| format!("network namespace {}", path.display()))?;
        }
        if let Some(group) = group {
            netns::become_group(group).with_context(|| format!("group {group}"))?;
        }
        Ok(())
    }
}

impl Run {
    fn run(self, descriptors: usize, started: Instant) -> Result<()> {
        let bootstrap = read(&self.bootstrap)?;
        let cores = std::thread::available_parallelism().map_or(1, NonZeroUsize::get);
        let workers = match self.workers {
            Some(workers) => workers.get(),
            None => bootstrap.workers()?.unwrap_or(cores),
        };
        let options = Options {
            bootstrap,
            workers,
            drain: Duration::from_secs(self.drain),
            descriptors,
            system_roots: system_roots(),
            environment: environment(),
            started,
            give_back: Some(small::give_back),
            ready: None,
        };
        Ok(sluis_proxy::run(options, process::stopped())?)
    }
}

impl AgentArguments {
    fn run(self) -> Result<()> {
        let bootstrap = read(&self.bootstrap)?;
        let store = SecretStore::new(Clock::system(), system_roots());
        let Some(renewal) = sluis_proxy::renewal(&bootstrap, &store)? else {
            bail!("{}: node.metadata.SLUIS_JOIN_TOKEN is missing", self.bootstrap.display());
        };
        let folder = std::env::var_os(sluis_proxy::OUTPUT_CERTS).filter(|path| !path.is_empty());
        let renewal = renewal.with_output(folder.map(PathBuf::from));
        let mut builder = tokio::runtime::Builder::new_current_thread();
        let builder = builder.enable_all();
        let runtime =
            builder.build_local(tokio::runtime::LocalOptions::default()).context("runtime")?;
        let probers = std::env::var(sluis_proxy::PROBERS).unwrap_or_default();
        let agent = Agent::new(renewal, store, self.sds.clone())
            .with_workload_api(bootstrap.path("SLUIS_WORKLOAD_API"));
        runtime.block_on(async {
            if let Some(status) = sluis_proxy::status_port(&bootstrap, &probers, None)? {
                tokio::task::spawn_local(status.serve());
            }
            let running = agent.run(process::stopped()).await;
            running.with_context(|| format!("SDS on {}", self.sds.display()))
        })
    }
}

fn read(path: &Path) -> Result<Bootstrap> {
    let named = || format!("bootstrap {}", path.display());
    let size = std::fs::metadata(path).with_context(named)?.len();
    if size > BOOTSTRAP_BYTES_MAX {
        bail!("{}: {size} bytes are no bootstrap", named());
    }
    Bootstrap::from_bytes(&std::fs::read(path).with_context(named)?).with_context(named)
}

/// The trusted roots of this machine, where the environment names them.
fn system_roots() -> Option<PathBuf> {
    std::env::var_os("SSL_CERT_FILE").filter(|path| !path.is_empty()).map(PathBuf::from)
}

/// What scripts may read by `os.getenv` and formats by `%ENVIRONMENT(…)%`.
fn environment() -> HashMap<String, String> {
    std::env::vars_os()
        .filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)))
        .collect()
}
