//! Keeps one proxy process running for each workload that asks for one.
//!
//! In:    the workloads that should run, each time they change.
//! Out:   processes: started, replaced when their start-up settings change, restarted with back-off
//!        when they die, adopted when a killed `sluis up` left them behind, ended on request.
//! Never: ends a proxy because the control plane ended without being asked to; traffic goes on.
//!
//! Start at [`Supervisor::reconcile`].

mod process;

use std::{
    collections::BTreeMap,
    fs,
    net::SocketAddr,
    path::PathBuf,
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use anyhow::{Context, Result};
use sluis_nouns::{ObjectName, TrustDomain, WorkloadId};
use tokio::{sync::watch, task::JoinHandle, time::sleep};
use tracing::{info, warn};

use crate::{
    bootstrap::{self, ControlPlane, Engine},
    state::{StateDir, WorkloadDir, make_private, write_private},
    workload::Workload,
};
use process::{Launch, Running};

/// First wait before a proxy that died is started again.
const BACK_OFF_FIRST: Duration = Duration::from_millis(100);
/// Longest wait: a proxy that cannot start must not fill the log, yet recover soon.
const BACK_OFF_MAX: Duration = Duration::from_secs(5);
/// A proxy that lived this long is taken as healthy: its next wait is the first one again.
const HEALTHY_AFTER: Duration = Duration::from_secs(10);
/// How long a proxy may drain after it is asked to end, before it is killed.
const DRAIN_MAX: Duration = Duration::from_secs(8);

/// The group whose connections Istio's packet filter lets pass: the sidecar's own.
const PROXY_GROUP: u32 = 1337;

/// Makes a one-time join token for a workload.
pub(crate) type TokenSource = Arc<dyn Fn(&WorkloadId) -> Result<String> + Send + Sync>;

/// What every proxy needs to know.
#[derive(Clone)]
pub(crate) struct Setting {
    /// Where proxies keep their files.
    pub state: StateDir,
    /// The `sluis-proxy` program.
    pub program: PathBuf,
    /// The control plane's gRPC address.
    pub control: SocketAddr,
    /// The mesh's root certificates, PEM.
    pub roots: PathBuf,
    /// The mesh's trust domain.
    pub trust_domain: TrustDomain,
    /// Where join tokens come from.
    pub tokens: TokenSource,
    /// The variables of `sluis up` that every proxy gets.
    pub environment: BTreeMap<String, String>,
}

/// What one process is doing.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) enum Phase {
    /// Being started.
    #[default]
    Starting,
    /// Running, with this process id.
    Running(i32),
    /// Waiting to be started again; why the last one ended.
    Waiting(String),
    /// Being ended.
    Ending,
}

/// One workload's process.
#[derive(Clone, Debug, Default)]
pub(crate) struct Status {
    /// What it is doing.
    pub phase: Phase,
    /// How often it died and was started again.
    pub restarts: u32,
}

/// All statuses by workload; cheap to clone, read by the status display and the command line.
#[derive(Clone)]
pub(crate) struct Statuses {
    all: Arc<Mutex<BTreeMap<ObjectName, Status>>>,
    changes: watch::Sender<()>,
}

impl Statuses {
    /// A copy of what is known now.
    pub(crate) fn all(&self) -> BTreeMap<ObjectName, Status> {
        self.all.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Changes whenever a status does.
    pub(crate) fn changes(&self) -> watch::Receiver<()> {
        self.changes.subscribe()
    }

    fn change(&self, name: &ObjectName, change: impl FnOnce(&mut Status)) {
        let mut all = self.all.lock().unwrap_or_else(PoisonError::into_inner);
        change(all.entry(name.clone()).or_default());
        self.changes.send_replace(());
    }

    fn forget(&self, name: &ObjectName) {
        self.all.lock().unwrap_or_else(PoisonError::into_inner).remove(name);
        self.changes.send_replace(());
    }
}

impl Default for Statuses {
    fn default() -> Self {
        Self { all: Arc::default(), changes: watch::Sender::new(()) }
    }
}

/// The keeper of all proxies of one `sluis up`.
pub(crate) struct Supervisor {
    setting: Setting,
    statuses: Statuses,
    keepers: BTreeMap<ObjectName, Keeper>,
}

struct Keeper {
    workload: Workload,
    stop: watch::Sender<bool>,
    task: JoinHandle<()>,
}

impl Supervisor {
    /// A supervisor that runs nothing yet.
    pub(crate) fn new(setting: Setting) -> Self {
        Self { setting, statuses: Statuses::default(), keepers: BTreeMap::new() }
    }

    /// What every process is doing.
    pub(crate) fn statuses(&self) -> Statuses {
        self.statuses.clone()
    }

    /// Makes what runs equal to what should run. A workload that did not change is left alone.
    pub(crate) async fn reconcile(&mut self, wanted: Vec<Workload>) {
        let wanted: BTreeMap<ObjectName, Workload> =
            wanted.into_iter().map(|workload| (workload.name.clone(), workload)).collect();
        let gone: Vec<ObjectName> = self
            .keepers
            .iter()
            .filter(|(name, keeper)| wanted.get(*name) != Some(&keeper.workload))
            .map(|(name, _)| name.clone())
            .collect();
        let ended: Vec<Keeper> = gone.iter().filter_map(|name| self.keepers.remove(name)).collect();
        end_all(ended).await;
        for (name, workload) in wanted {
            if self.keepers.contains_key(&name) {
                continue;
            }
            let (stop, stopped) = watch::channel(false);
            let job = Job {
                setting: self.setting.clone(),
                files: self.setting.state.workload(&name),
                statuses: self.statuses.clone(),
                workload: workload.clone(),
            };
            let task = tokio::spawn(job.run(stopped));
            self.keepers.insert(name, Keeper { workload, stop, task });
        }
    }

    /// Ends every process and waits for it.
    pub(crate) async fn shut_down(self) {
        end_all(self.keepers.into_values().collect()).await;
    }
}

/// Done once the word to stop is given, or its giver is gone.
async fn told(stopped: &mut watch::Receiver<bool>) {
    let _ = stopped.wait_for(|stop| *stop).await;
}

async fn end_all(keepers: Vec<Keeper>) {
    for keeper in &keepers {
        keeper.stop.send_replace(true);
    }
    for keeper in keepers {
        if keeper.task.await.is_err() {
            warn!(workload = %keeper.workload.name, "the keeper of a proxy panicked");
        }
    }
}

/// The task that keeps one proxy running until told to stop.
struct Job {
    setting: Setting,
    files: WorkloadDir,
    statuses: Statuses,
    workload: Workload,
}

impl Job {
    async fn run(self, mut stopped: watch::Receiver<bool>) {
        let name = self.workload.name.clone();
        let mut wait = BACK_OFF_FIRST;
        loop {
            let begun = Instant::now();
            self.statuses.change(&name, |status| status.phase = Phase::Starting);
            let why = match self.start() {
                Ok(mut running) => {
                    let phase = Phase::Running(running.pid());
                    self.statuses.change(&name, |status| status.phase = phase);
                    tokio::select! {
                        why = running.ended() => why,
                        () = told(&mut stopped) => {
                            self.statuses.change(&name, |status| status.phase = Phase::Ending);
                            running.end(DRAIN_MAX).await;
                            break;
                        }
                    }
                }
                Err(error) => format!("{error:#}"),
            };
            if begun.elapsed() >= HEALTHY_AFTER {
                wait = BACK_OFF_FIRST;
            }
            warn!(workload = %name, reason = %why, wait_ms = wait.as_millis(), "proxy ended, starts again");
            self.statuses.change(&name, |status| {
                status.phase = Phase::Waiting(why);
                status.restarts += 1;
            });
            tokio::select! {
                () = sleep(wait) => wait = (wait * 2).min(BACK_OFF_MAX),
                () = told(&mut stopped) => break,
            }
        }
        // What is left would only mislead the next start.
        let _ = fs::remove_file(self.files.pid());
        self.statuses.forget(&name);
    }

    /// Takes over the process that a killed `sluis up` left, if it was started alike; else starts one.
    fn start(&self) -> Result<Running> {
        self.files.create()?;
        if let Some(folder) = &self.workload.workload_api {
            make_private(folder)?;
        }
        let id = self.identity()?;
        let control = ControlPlane { address: self.setting.control, roots: &self.setting.roots };
        let engine = if self.workload.is_envoy { Engine::Envoy } else { Engine::Sluis };
        let document = bootstrap::render(&self.workload, &id, &self.files, &control, engine);
        let bytes = bootstrap::encode(&document).context("the bootstrap is not valid")?;
        let launch = Launch {
            program: self.setting.program.clone(),
            arguments: self.arguments(),
            environment: self.environment(),
            inherited: self.workload.inherited.clone(),
        };
        let print = launch.fingerprint(&document);
        if let Some(running) = process::adopt(&self.files, &print) {
            info!(workload = %self.workload.name, pid = running.pid(), "took over a running proxy");
            return Ok(running);
        }
        write_private(&self.files.bootstrap(), &bytes)?;
        write_private(&self.files.join_token(), (self.setting.tokens)(&id)?.as_bytes())?;
        process::spawn(&launch, &self.files, &print)
    }

    fn identity(&self) -> Result<WorkloadId> {
        let name = &self.workload.name;
        WorkloadId::new(self.setting.trust_domain.clone(), &name.namespace, &self.workload.account)
            .with_context(|| format!("{name} has no valid identity"))
    }

    fn arguments(&self) -> Vec<String> {
        let bootstrap = self.files.bootstrap().display().to_string();
        let mut arguments = if self.workload.is_envoy {
            let socket = self.files.sds_socket().display().to_string();
            ["agent", "--bootstrap", &bootstrap, "--sds", &socket].map(str::to_owned).to_vec()
        } else {
            ["run", "--bootstrap", &bootstrap].map(str::to_owned).to_vec()
        };
        if let Some(netns) = &self.workload.netns {
            let (netns, group) = (netns.display().to_string(), PROXY_GROUP.to_string());
            arguments.extend(["--netns".to_owned(), netns, "--group".to_owned(), group]);
        }
        arguments
    }

    fn environment(&self) -> BTreeMap<String, String> {
        let mut all = self.setting.environment.clone();
        all.extend(self.workload.environment.clone());
        all
    }
}
