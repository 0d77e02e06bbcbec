//! The control plane of one state directory, as `sluis up` and `sluis control-plane` run it.
//!
//! In:    files, watched; the state directory; addresses to serve on.
//! Out:   xDS and certificates on one gRPC port, xDS without TLS on another if wanted, answers to the
//!        other verbs; lines about what is connected and what is wrong.
//! Never: starts a proxy: what is to happen on a change besides is the caller's ([`Follower`]).
//!
//! Start at [`Plane::open`], then [`Plane::run`].

mod files;
mod mesh;
mod show;

use std::{
    fs::File,
    io::Read as _,
    net::SocketAddr,
    path::PathBuf,
    sync::Arc,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, anyhow, bail};
use sluis_ca::{Authority, AuthorityConfig, CaFiles, Desk, JoinTokens, ServerCertificate};
use sluis_control::Control;
use sluis_identity::CertificateService;
use sluis_resources::Options;
use sluis_tls::{Clock, SecretStore, ServerTls};
use sluis_xds::Server;
use tokio::{
    net::TcpListener,
    signal::unix::{SignalKind, signal},
    sync::watch,
    task::{JoinHandle, JoinSet},
};

use crate::custody::Custody;
use crate::{
    api,
    arguments::PlaneArguments,
    bootstrap::CONTROL_PLANE_NAME,
    debug::{self, Debug},
    output,
    state::{StateDir, write_private},
    supervise::Statuses,
    workload::Workload,
};
use files::Files;
use mesh::Mesh;

/// What a control plane is started with.
pub(crate) struct PlaneOptions {
    /// Files and folders of YAML.
    pub files: Vec<PathBuf>,
    /// How strictly they are read.
    pub reading: Options,
    /// Where its state is.
    pub state: StateDir,
    /// Where xDS and certificates are served, under TLS.
    pub xds: SocketAddr,
    /// Where xDS is served without TLS; loopback only.
    pub plaintext_xds: Option<SocketAddr>,
    /// Where the debug pages are served.
    pub debug: Option<SocketAddr>,
    /// How long certificates live.
    pub certificate_life: Duration,
    /// The folder of the operator's own authority.
    pub ca_dir: Option<PathBuf>,
}

impl PlaneOptions {
    /// What the arguments say, with the addresses that each verb names in its own way.
    ///
    /// # Errors
    ///
    /// When there is no place for the state.
    pub(crate) fn new(
        arguments: PlaneArguments,
        xds: SocketAddr,
        debug: Option<SocketAddr>,
    ) -> Result<Self> {
        Ok(Self {
            files: arguments.files,
            reading: arguments.reading.options(),
            state: StateDir::locate(arguments.state.state_dir)?,
            xds,
            plaintext_xds: arguments.plaintext_xds,
            debug,
            certificate_life: arguments.certificate_life,
            ca_dir: arguments.ca_dir,
        })
    }
}

/// What else follows when the workloads of this machine change.
pub(crate) trait Follower: Send + 'static {
    /// Brings what runs to what should run.
    fn reconcile(&mut self, workloads: Vec<Workload>) -> impl Future<Output = ()> + Send;
    /// Ends everything.
    fn shut_down(self) -> impl Future<Output = ()> + Send;
}

/// Nothing follows.
impl Follower for () {
    async fn reconcile(&mut self, _workloads: Vec<Workload>) {}
    async fn shut_down(self) {}
}

/// A control plane that has its ports and files, and serves nobody yet.
pub(crate) struct Plane {
    files: Files,
    control: Control,
    authority: Arc<Authority>,
    tokens: Arc<JoinTokens>,
    certificate: ServerCertificate,
    server: Server,
    listener: TcpListener,
    plaintext: Option<TcpListener>,
    debug: Option<TcpListener>,
    desk: Arc<Desk>,
    state: StateDir,
    stop: watch::Sender<bool>,
    _lock: File,
}

impl Plane {
    /// Reads the files, opens the state and binds the ports.
    ///
    /// # Errors
    ///
    /// When another control plane has the state directory, a port is taken, the plaintext address is
    /// not loopback, or a path cannot be read.
    pub(crate) async fn open(options: PlaneOptions) -> Result<Self> {
        if let Some(address) = options.plaintext_xds.filter(|address| !address.ip().is_loopback()) {
            bail!(
                "--plaintext-xds {address} is not a loopback address: without TLS anybody who \
                 reaches the port gets every proxy's configuration"
            );
        }
        let state = options.state;
        state.create()?;
        let lock = lock(&state)?;
        let (stop, stopped) = watch::channel(false);
        let files = Files::load(&options.files, options.reading, stopped).await?;
        let trust_domain = files.trust_domain();

        let clock = Clock::system();
        let config = AuthorityConfig {
            trust_domain: trust_domain.clone(),
            aliases: files.trust_domain_aliases(),
            lifetime_max: options.certificate_life,
        };
        let plugin = match &options.ca_dir {
            Some(dir) => Some(CaFiles::from_dir(dir)?),
            None => files.plugin_ca()?,
        };
        let authority = Arc::new(Authority::open_with(&state.ca(), config, clock.clone(), plugin)?);
        let tokens = Arc::new(JoinTokens::new(clock.clone()));
        let control = Control::new(trust_domain);

        let store = SecretStore::new(clock, None);
        let names = vec![CONTROL_PLANE_NAME.to_owned()];
        let certificate = ServerCertificate::new(Arc::clone(&authority), store.clone(), names)?;
        let tls = ServerTls::grpc(&store)?;
        let listener = bind(options.xds).await?;
        let plaintext = bind_wanted(options.plaintext_xds).await?;
        let debug = bind_wanted(options.debug).await?;
        let desk = Arc::new(Desk::new(Arc::clone(&authority), Arc::clone(&tokens)));
        let server = Server::new(Arc::new(move || tls.config()), Arc::new(control.clone()))
            .with(CertificateService::new(Arc::clone(&desk)));
        Ok(Self {
            files,
            control,
            authority,
            tokens,
            certificate,
            server,
            listener,
            plaintext,
            debug,
            desk,
            state,
            stop,
            _lock: lock,
        })
    }

    /// The address of the gRPC port.
    ///
    /// # Errors
    ///
    /// As the operating system says.
    pub(crate) fn address(&self) -> Result<SocketAddr> {
        Ok(self.listener.local_addr()?)
    }

    /// The control plane itself.
    pub(crate) fn control(&self) -> &Control {
        &self.control
    }

    /// The certificate authority.
    pub(crate) fn authority(&self) -> &Arc<Authority> {
        &self.authority
    }

    /// Where join tokens are made.
    pub(crate) fn tokens(&self) -> &Arc<JoinTokens> {
        &self.tokens
    }

    /// Serves until Ctrl-C or SIGTERM; `follower` is told of every change of the workloads, and is
    /// what `statuses` tells of.
    ///
    /// # Errors
    ///
    /// When a server fails on the way.
    pub(crate) async fn run(self, follower: impl Follower, statuses: Statuses) -> Result<()> {
        let address = self.address()?;
        let (custody, custodian) = Custody::new();
        let mesh = Arc::new(Mesh {
            control: self.control,
            authority: self.authority,
            statuses,
            state: self.state.clone(),
            custody: custody.clone(),
            address,
            local: Default::default(),
        });
        let place = self.state.root().display();
        output::print(&format!("control plane on {address}, state in {place}\n"))?;

        let stopped = self.stop.subscribe();
        let mut servers: JoinSet<Result<()>> = JoinSet::new();
        let serving = self.server.serve(self.listener, told(stopped.clone()));
        servers.spawn(async { serving.await.context("the gRPC server stopped") });
        if let Some(listener) = self.plaintext {
            output::print(&format!("xDS without TLS on {}\n", listener.local_addr()?))?;
            let server = Server::plaintext(Arc::new(mesh.control.clone()));
            let serving = server.serve(listener, told(stopped.clone()));
            servers.spawn(async { serving.await.context("the server without TLS stopped") });
        }
        if let Some(listener) = self.debug {
            output::print(&format!("debug pages on {}\n", listener.local_addr()?))?;
            let debug = Debug {
                control: mesh.control.clone(),
                authority: Arc::clone(&mesh.authority),
                desk: self.desk,
                custody: custody.clone(),
                began: Instant::now(),
                token: debug_token(&self.state)?,
            };
            let serving = debug::serve(debug, listener, told(stopped.clone()));
            servers.spawn(async { serving.await.context("the debug pages stopped") });
        }
        let (answers, socket) =
            (Arc::clone(&mesh) as Arc<dyn api::Answers>, self.state.control_socket());
        servers.spawn(async move {
            api::serve(&socket, answers).await.context("the control socket failed")
        });
        let renewing = tokio::spawn(self.certificate.run(told(stopped.clone())));
        let keeping = tokio::spawn(custodian.run(told(stopped.clone())));
        let showing = tokio::spawn(show::changes(Arc::clone(&mesh), told(stopped.clone())));
        let following = self.files.follow(Arc::clone(&mesh), follower, told(stopped));
        let following: JoinHandle<Result<()>> = tokio::spawn(following);

        let outcome = tokio::select! {
            Some(ended) = servers.join_next() => Err(anyhow!("a server ended: {ended:?}")),
            outcome = interrupted() => outcome,
        };
        self.stop.send_replace(true);
        output::print("stopping\n")?;
        // Ends every proxy, which takes as long as they need to drain; after an error too.
        let ended = following.await.context("what follows the files panicked")?;
        for task in [renewing, keeping, showing] {
            // They end by the same word; one that panicked has told so already.
            let _ = task.await;
        }
        let _ = std::fs::remove_file(self.state.control_socket());
        outcome.and(ended)
    }
}

/// Sends events to standard error, by the level in `SLUIS_LOG`, and runs a task on two threads.
///
/// # Errors
///
/// Those of the task, or when the threads cannot be started.
pub(crate) fn run(task: impl Future<Output = Result<()>>) -> Result<()> {
    show::start_logging();
    close_to_debuggers()?;
    let runtime =
        tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    runtime.block_on(task)
}

/// Closes the process to other processes of the user, and to core files: it holds the authority's key
/// and the values of credentials. Programs that it starts inherit the limit on core files alone.
fn close_to_debuggers() -> Result<()> {
    use rustix::process::{DumpableBehavior, Resource, Rlimit, set_dumpable_behavior, setrlimit};
    set_dumpable_behavior(DumpableBehavior::NotDumpable).context("PR_SET_DUMPABLE")?;
    setrlimit(Resource::Core, Rlimit { current: Some(0), maximum: Some(0) }).context("RLIMIT_CORE")
}

/// A new token for the debug pages, in a file for the owner alone.
fn debug_token(state: &StateDir) -> Result<String> {
    let mut random = [0_u8; 32];
    File::open("/dev/urandom").and_then(|mut file| file.read_exact(&mut random))?;
    let token: String = random.iter().map(|byte| format!("{byte:02x}")).collect();
    write_private(&state.debug_token(), token.as_bytes())?;
    Ok(token)
}

async fn bind_wanted(address: Option<SocketAddr>) -> Result<Option<TcpListener>> {
    match address {
        Some(address) => bind(address).await.map(Some),
        None => Ok(None),
    }
}

async fn bind(address: SocketAddr) -> Result<TcpListener> {
    let listener = TcpListener::bind(address).await;
    listener.with_context(|| format!("cannot listen on {address}; choose another address"))
}

/// Waits for Ctrl-C or SIGTERM.
async fn interrupted() -> Result<()> {
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    tokio::select! {
        _ = terminate.recv() => {}
        _ = interrupt.recv() => {}
    }
    Ok(())
}

/// Done once the word to stop is given.
async fn told(mut stopped: watch::Receiver<bool>) {
    // An error means that the sender is gone, which is an end as well.
    let _ = stopped.wait_for(|stop| *stop).await;
}

/// The lock that keeps a second control plane off the same state.
fn lock(state: &StateDir) -> Result<File> {
    let file = File::options().create(true).append(true).open(state.lock())?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(std::fs::TryLockError::WouldBlock) => {
            bail!(
                "another `sluis up` uses {}; give this one its own --state-dir",
                state.root().display()
            )
        }
        Err(std::fs::TryLockError::Error(error)) => Err(error.into()),
    }
}
