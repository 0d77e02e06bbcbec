//! Starts the data-plane threads and runs their accept loops.
//!
//! In:    published configurations, jail sockets, the word to drain.
//! Out:   one task per connection.
//! Never: lets one worker wait for another; takes more connections than its descriptors allow.

use std::{
    cell::{Cell, RefCell},
    collections::HashMap,
    io,
    net::TcpListener as StdTcpListener,
    rc::Rc,
    sync::Arc,
    time::Duration,
};

use tokio::{
    runtime::{Builder, LocalOptions},
    sync::{mpsc, watch},
    task::{AbortHandle, JoinSet, spawn_local},
    time::{Instant, sleep, timeout},
};
use tracing::{error, warn};

use crate::{
    accepted::{Accepted, Way},
    bound::Bound,
    config::Config,
    http::{HttpWorker, Server},
    log_sink::LogSender,
    serve::serve,
    sockets::Listening,
    stats::{Counter, Shard},
    upstream::Dialer,
    worker::Worker,
};

/// First wait after `accept` failed for want of descriptors or memory; doubled up to the longest.
const ACCEPT_WAIT_MIN: Duration = Duration::from_millis(10);
const ACCEPT_WAIT_MAX: Duration = Duration::from_secs(1);

/// How long connections have to finish after their filter chain changed or went: Istio's
/// `drainDuration`.
const CHAIN_DRAIN: Duration = Duration::from_secs(45);

/// How long a connection has to write its log once its time is up.
const LAST_WORDS: Duration = Duration::from_millis(100);

/// Jails that may wait to be taken over by a worker.
const JAILS_QUEUED_MAX: usize = 16;

/// The stack of a worker: TLS, regular expressions and Lua fit many times over.
const STACK_BYTES: usize = 1024 * 1024;

/// From this many connections of a worker on, it is watched whether they are a wave: what fewer
/// leave behind is not worth asking the allocator for.
const WAVE_MIN: usize = 512;

/// How often that is looked at.
const WAVE_LOOK: Duration = Duration::from_secs(2);

/// How the process is doing, as the workers are told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Phase {
    /// Work as usual.
    Running,
    /// Accept nothing more, finish what is under way by then.
    Draining(Instant),
}

/// What a jail's capture listeners mean to a worker.
pub(crate) enum JailEvent {
    /// Accept on these; the number names the jail.
    Opened(u64, Vec<StdTcpListener>),
    /// Close them. Connections that are under way end by themselves.
    Closed(u64),
}

/// What all workers share.
pub(crate) struct Common {
    pub(crate) config: watch::Receiver<Arc<Config>>,
    pub(crate) phase: watch::Receiver<Phase>,
    pub(crate) logs: LogSender,
    /// The most connections of one worker.
    pub(crate) connections_max: usize,
    /// Gives free memory of this thread back to the system.
    pub(crate) give_back: Option<fn()>,
}

/// The control thread's ends of the workers.
pub(crate) struct Workers {
    jails: Vec<mpsc::Sender<JailEvent>>,
    /// What each worker has taken over: the generation of its configuration.
    generations: Vec<watch::Receiver<u64>>,
}

impl Workers {
    /// Starts one thread per shard. The channel is closed when all of them have ended.
    pub(crate) fn start(
        common: &Common,
        shards: &[Arc<Shard>],
    ) -> io::Result<(Self, mpsc::Receiver<()>)> {
        let (alive, ended) = mpsc::channel(1);
        let mut workers = Self { jails: Vec::new(), generations: Vec::new() };
        for (index, shard) in shards.iter().enumerate() {
            let (jails, arrivals) = mpsc::channel(JAILS_QUEUED_MAX);
            let (reached, generation) = watch::channel(0);
            workers.jails.push(jails);
            workers.generations.push(generation);
            let seed = Seed {
                index,
                config: common.config.clone(),
                phase: common.phase.clone(),
                logs: common.logs.clone(),
                connections_max: common.connections_max,
                give_back: common.give_back,
                shard: Arc::clone(shard),
                arrivals,
                reached,
                _alive: alive.clone(),
            };
            std::thread::Builder::new()
                .name(format!("worker-{index}"))
                .stack_size(STACK_BYTES)
                .spawn(move || seed.run())?;
        }
        Ok((workers, ended))
    }

    /// Gives a jail's capture listeners to the workers: each accepts on its own descriptor.
    pub(crate) async fn open_jail(
        &self,
        jail: u64,
        listeners: Vec<StdTcpListener>,
    ) -> io::Result<()> {
        for worker in &self.jails {
            let copies =
                listeners.iter().map(StdTcpListener::try_clone).collect::<Result<_, _>>()?;
            // A worker that has ended has drained: the process is about to.
            let _ended = worker.send(JailEvent::Opened(jail, copies)).await;
        }
        Ok(())
    }

    /// Closes a jail's listeners.
    pub(crate) async fn close_jail(&self, jail: u64) {
        for worker in &self.jails {
            let _ended = worker.send(JailEvent::Closed(jail)).await;
        }
    }

    /// Waits until all workers have taken over this generation.
    pub(crate) async fn reached(&self, generation: u64) {
        for worker in &self.generations {
            // A worker that has ended will not take over anything.
            let mut worker = worker.clone();
            let _ended = worker.wait_for(|reached| *reached >= generation).await;
        }
    }
}

/// What a worker's thread starts with.
struct Seed {
    index: usize,
    config: watch::Receiver<Arc<Config>>,
    phase: watch::Receiver<Phase>,
    logs: LogSender,
    connections_max: usize,
    give_back: Option<fn()>,
    shard: Arc<Shard>,
    arrivals: mpsc::Receiver<JailEvent>,
    reached: watch::Sender<u64>,
    _alive: mpsc::Sender<()>,
}

impl Seed {
    fn run(self) {
        let mut builder = Builder::new_current_thread();
        match builder.enable_all().build_local(LocalOptions::default()) {
            Ok(runtime) => runtime.block_on(self.work()),
            Err(error) => error!(worker = self.index, %error, "worker cannot start"),
        }
    }

    async fn work(mut self) {
        let config = Arc::clone(&self.config.borrow_and_update());
        let worker = Worker::new(self.index, config, self.shard, self.logs);
        let worker = HttpWorker::new(Dialer::new(worker));
        let server = Server::new(Rc::clone(&worker));
        let logs = spawn_local(Rc::clone(worker.logs()).run());
        let mut loops = AcceptLoops::new(server, self.connections_max, self.give_back);
        loops.reconcile();
        self.reached.send_replace(worker.config().generation);
        let deadline = loop {
            if let Phase::Draining(deadline) = *self.phase.borrow_and_update() {
                break deadline;
            }
            tokio::select! {
                changed = self.config.changed() => {
                    if changed.is_err() {
                        break Instant::now();
                    }
                    worker.publish(Arc::clone(&self.config.borrow_and_update()));
                    loops.reconcile();
                    self.reached.send_replace(worker.config().generation);
                }
                Some(event) = self.arrivals.recv() => loops.jail(event),
                changed = self.phase.changed() => {
                    if changed.is_err() {
                        break Instant::now();
                    }
                }
            }
        };
        loops.finish(deadline).await;
        logs.abort();
        worker.logs().flush();
    }
}

/// The listeners on which one worker accepts.
struct AcceptLoops {
    shared: Rc<Shared>,
    /// By listener name; the `Bound` tells whether it is still the same socket.
    listeners: HashMap<Arc<str>, (Arc<Bound>, Vec<AbortHandle>)>,
    jails: HashMap<u64, Vec<AbortHandle>>,
}

/// What the accept loops of one worker share.
struct Shared {
    server: Rc<Server>,
    connections: RefCell<JoinSet<()>>,
    connections_max: usize,
    give_back: Option<fn()>,
    /// Whether [`Shared::ebb`] runs.
    is_watched: Cell<bool>,
}

impl AcceptLoops {
    fn new(server: Rc<Server>, connections_max: usize, give_back: Option<fn()>) -> Self {
        let (connections, is_watched) = (RefCell::default(), Cell::new(false));
        let shared = Shared { server, connections, connections_max, give_back, is_watched };
        let shared = Rc::new(shared);
        Self { shared, listeners: HashMap::new(), jails: HashMap::new() }
    }

    /// Makes the accept loops and gates follow the published configuration.
    fn reconcile(&mut self) {
        let worker = &self.shared.server.worker;
        let config = worker.config();
        self.listeners.retain(|name, (bound, tasks)| {
            let kept = config.bound.get(name).is_some_and(|now| Arc::ptr_eq(now, bound));
            if !kept {
                tasks.iter().for_each(AbortHandle::abort);
            }
            kept
        });
        for (name, bound) in &config.bound {
            if self.listeners.contains_key(name) {
                continue;
            }
            let mut tasks = Vec::new();
            for listening in bound.take(worker.index()) {
                match listening {
                    Ok(listening) => {
                        let accepting =
                            Rc::clone(&self.shared).accept(listening, Arc::clone(name), false);
                        tasks.push(spawn_local(accepting).abort_handle());
                    }
                    Err(error) => error!(listener = %name, %error, "listener cannot accept"),
                }
            }
            if !tasks.is_empty() {
                self.listeners.insert(Arc::clone(name), (Arc::clone(bound), tasks));
            }
        }
        for gate in worker.gates.reconcile(&config.runtime) {
            spawn_local(async move {
                sleep(CHAIN_DRAIN).await;
                gate.close();
            });
        }
    }

    fn jail(&mut self, event: JailEvent) {
        match event {
            JailEvent::Opened(jail, listeners) => {
                for listener in listeners {
                    match Listening::tcp(listener) {
                        Ok(listening) => {
                            let accepting =
                                Rc::clone(&self.shared).accept(listening, Arc::from(""), true);
                            let task = spawn_local(accepting).abort_handle();
                            self.jails.entry(jail).or_default().push(task);
                        }
                        Err(error) => warn!(jail, %error, "jail listener cannot accept"),
                    }
                }
            }
            JailEvent::Closed(jail) => {
                self.jails.remove(&jail).into_iter().flatten().for_each(|task| task.abort());
            }
        }
    }

    /// Stops accepting, and gives the connections until `deadline` to finish.
    async fn finish(self, deadline: Instant) {
        let Self { shared, listeners, jails } = self;
        let loops = listeners.into_values().flat_map(|(_, tasks)| tasks);
        let loops = loops.chain(jails.into_values().flatten());
        loops.for_each(|task| task.abort());
        let gates = &shared.server.worker.gates;
        gates.drain_all();
        let mut connections = std::mem::take(&mut *shared.connections.borrow_mut());
        let all_ended = async { while connections.join_next().await.is_some() {} };
        if timeout(deadline.saturating_duration_since(Instant::now()), all_ended).await.is_err() {
            gates.close_all();
            let all_ended = async { while connections.join_next().await.is_some() {} };
            let _too_long = timeout(LAST_WORDS, all_ended).await;
            connections.shutdown().await;
        }
    }
}

impl Shared {
    /// Accepts until aborted.
    async fn accept(self: Rc<Self>, listening: Listening, listener: Arc<str>, is_captured: bool) {
        let stats = self.server.worker.stats();
        let mut wait = ACCEPT_WAIT_MIN;
        loop {
            match listening.accept().await {
                Ok((socket, ends)) => {
                    wait = ACCEPT_WAIT_MIN;
                    stats.inc(Counter::DownstreamCxTotal);
                    let name =
                        if is_captured { self.outbound() } else { Some(Arc::clone(&listener)) };
                    let Some(listener) = name else {
                        stats.inc(Counter::NoFilterChain);
                        continue;
                    };
                    let way = if is_captured { Way::Captured } else { Way::Direct };
                    self.admit(Accepted { socket, ends, listener, way });
                }
                // The client gave up while it waited: nobody's fault.
                Err(error) if error.kind() == io::ErrorKind::ConnectionAborted => {}
                Err(error) => {
                    stats.inc(Counter::AcceptErrors);
                    warn!(%listener, %error, ?wait, "accept failed");
                    sleep(wait).await;
                    wait = (wait * 2).min(ACCEPT_WAIT_MAX);
                }
            }
        }
    }

    /// The listener that stands for everything that leaves a workload.
    fn outbound(&self) -> Option<Arc<str>> {
        let config = self.server.worker.peek_config();
        config.outbound.clone()
    }

    fn admit(self: &Rc<Self>, accepted: Accepted) {
        let stats = self.server.worker.stats();
        self.forget_ended();
        if self.server.worker.connections() >= WAVE_MIN && !self.is_watched.replace(true) {
            spawn_local(Rc::clone(self).ebb());
        }
        let mut connections = self.connections.borrow_mut();
        if connections.len() >= self.connections_max {
            stats.inc(Counter::DownstreamCxRefused);
            return;
        }
        let active = Active::new(Rc::clone(&self.server.worker));
        let server = Rc::clone(&self.server);
        // It is in the task's future as often as it is handed on there.
        let accepted = Box::new(accepted);
        // Boxed: a task's future is moved when it is spawned, when it ends and when it is joined.
        connections.spawn_local(Box::pin(async move {
            // Held until the task ends, however it ends.
            let _active = active;
            serve(server, accepted).await;
        }));
    }
}

impl Shared {
    /// Lets go of the tasks of connections that have ended.
    fn forget_ended(&self) {
        let mut connections = self.connections.borrow_mut();
        while let Some(ended) = connections.try_join_next() {
            if ended.is_err_and(|error| error.is_panic()) {
                self.server.worker.stats().inc(Counter::DownstreamPanics);
            }
        }
    }

    /// Gives memory back when a wave of connections has gone: the allocator does so by itself only
    /// while it is asked for more.
    async fn ebb(self: Rc<Self>) {
        let mut high = 0;
        loop {
            sleep(WAVE_LOOK).await;
            let now = self.server.worker.connections();
            high = high.max(now);
            if now > high / 2 {
                continue;
            }
            self.forget_ended();
            if let Some(give_back) = self.give_back {
                give_back();
            }
            high = now;
            if now < WAVE_MIN {
                self.is_watched.set(false);
                return;
            }
        }
    }
}

/// Counts one connection while it lives.
struct Active(Rc<HttpWorker>);

impl Active {
    fn new(worker: Rc<HttpWorker>) -> Self {
        worker.stats().inc(Counter::DownstreamCxActive);
        worker.set_connections(worker.connections() + 1);
        Self(worker)
    }
}

impl Drop for Active {
    fn drop(&mut self) {
        self.0.stats().dec(Counter::DownstreamCxActive);
        self.0.set_connections(self.0.connections().saturating_sub(1));
    }
}
