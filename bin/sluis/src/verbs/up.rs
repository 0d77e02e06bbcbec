//! `sluis up -f DIR`: the mesh that a folder of YAML describes, on this machine.
//!
//! In:    files, watched; the state directory.
//! Out:   a control plane and certificate authority on one gRPC port, a proxy for each workload that
//!        asks for one, answers to the other verbs; lines about what runs and what is wrong.
//! Never: leaves a process behind when asked to stop; ends a proxy when it is killed itself.
//!
//! Start at [`up`].

mod files;
mod mesh;
mod show;

use std::{
    collections::BTreeMap,
    fs::File,
    io,
    path::{Path, PathBuf},
    process::ExitCode,
    sync::Arc,
    time::Duration,
};

use anyhow::{Context, Result, anyhow, bail};
use sluis_ca::{Authority, AuthorityConfig, Desk, JoinTokens, ServerCertificate};
use sluis_control::Control;
use sluis_identity::CertificateService;
use sluis_tls::{Clock, SecretStore, ServerTls};
use sluis_xds::Server;
use tokio::{
    net::TcpListener,
    signal::unix::{SignalKind, signal},
    sync::watch,
};

use crate::{
    api,
    bootstrap::CONTROL_PLANE_NAME,
    cli::UpOptions,
    output,
    state::StateDir,
    supervise::{Setting, Supervisor, TokenSource},
};
use files::Files;
use mesh::Mesh;

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
    show::start_logging();
    let runtime =
        tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    runtime.block_on(up(options))?;
    Ok(ExitCode::SUCCESS)
}

async fn up(options: UpOptions) -> Result<()> {
    let state = StateDir::locate(options.state.state_dir.clone())?;
    state.create()?;
    let _lock = lock(&state)?;
    let (stop, stopped) = watch::channel(false);
    let files = Files::load(&options.files, stopped.clone()).await?;
    let trust_domain = files.trust_domain();

    let clock = Clock::system();
    let config = AuthorityConfig {
        trust_domain: trust_domain.clone(),
        lifetime_max: options.certificate_life,
    };
    let authority = Arc::new(Authority::open(&state.ca(), config, clock.clone())?);
    let tokens = Arc::new(JoinTokens::new(clock.clone()));
    let control = Control::new(trust_domain.clone());

    let store = SecretStore::new(clock, None);
    let certificate = ServerCertificate::new(
        Arc::clone(&authority),
        store.clone(),
        vec![CONTROL_PLANE_NAME.to_owned()],
    )?;
    let tls = ServerTls::grpc(&store)?;
    let listener = TcpListener::bind(options.listen).await.with_context(|| {
        format!("cannot listen on {}; choose another with --listen", options.listen)
    })?;
    let address = listener.local_addr()?;
    let desk = Arc::new(Desk::new(Arc::clone(&authority), Arc::clone(&tokens)));
    let server = Server::new(Arc::new(move || tls.config()), Arc::new(control.clone()))
        .with(CertificateService::new(desk));

    let issue: TokenSource =
        Arc::new(move |id| Ok(tokens.create(id.clone(), TOKEN_LIFE)?.reveal().to_owned()));
    let supervisor = Supervisor::new(Setting {
        state: state.clone(),
        program: proxy_program(options.proxy_program)?,
        control: address,
        roots: authority.root_path().to_path_buf(),
        trust_domain,
        tokens: issue,
        environment: inherited(),
    });
    let mesh = Arc::new(Mesh {
        control,
        authority,
        statuses: supervisor.statuses(),
        state: state.clone(),
        address,
        local: Default::default(),
    });
    output::print(&format!("control plane on {address}, state in {}\n", state.root().display()))?;

    let answers = Arc::clone(&mesh) as Arc<dyn api::Answers>;
    let socket = state.control_socket();
    let interface = tokio::spawn(async move { api::serve(&socket, answers).await });
    let renewing = tokio::spawn(certificate.run(told(stopped.clone())));
    let serving = tokio::spawn(server.serve(listener, told(stopped.clone())));
    let showing = tokio::spawn(show::changes(Arc::clone(&mesh), told(stopped.clone())));

    let following = tokio::spawn(files.follow(Arc::clone(&mesh), supervisor, told(stopped)));
    let outcome = tokio::select! {
        outcome = interface => Err(anyhow!("the control socket failed: {outcome:?}")),
        outcome = serving => Err(anyhow!("the gRPC server stopped: {outcome:?}")),
        outcome = interrupted() => outcome,
    };
    stop.send_replace(true);
    output::print("stopping\n")?;
    // Ends every proxy, which takes as long as they need to drain; after an error too.
    let ended = following.await.context("the supervisor panicked")?;
    for task in [renewing, showing] {
        // They end by the same word; one that panicked has told so already.
        let _ = task.await;
    }
    let _ = std::fs::remove_file(state.control_socket());
    outcome.and(ended)
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

/// The lock that keeps a second `sluis up` off the same state.
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
