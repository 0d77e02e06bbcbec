//! Runs a proxy inside the test's process, with servers for it to reach.

use std::{
    collections::HashMap,
    net::SocketAddr,
    path::{Path, PathBuf},
    sync::atomic::{AtomicU16, Ordering},
    thread::JoinHandle,
    time::{Duration, Instant},
};

use serde_json::{Value, json};
use sluis_proxy::{Bootstrap, Options, Ready, RunError};
use sluis_rules::Address;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpListener, TcpStream, UnixStream},
    sync::oneshot,
    time::timeout,
};

/// Longest wait for anything: a loaded machine is slow, a hang is for ever.
pub(crate) const DEADLINE: Duration = Duration::from_secs(20);

/// Waits, but not for ever.
pub(crate) async fn soon<T>(what: &str, future: impl Future<Output = T>) -> T {
    timeout(DEADLINE, future).await.unwrap_or_else(|_| panic!("{what}: not within {DEADLINE:?}"))
}

/// A proxy that runs until it is stopped or dropped.
pub(crate) struct Proxy {
    pub(crate) dir: tempfile::TempDir,
    listeners: HashMap<String, Address>,
    stop: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<Result<(), RunError>>>,
}

impl Proxy {
    /// Starts a proxy with static resources and waits until it is ready.
    pub(crate) async fn with(listeners: Value, clusters: Value) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let resources = json!({"listeners": listeners, "clusters": clusters});
        Self::start(dir, json!({"static_resources": resources}), Duration::from_secs(5)).await
    }

    /// Starts a proxy from a bootstrap in JSON; its admin socket is in `dir`.
    pub(crate) async fn start(
        dir: tempfile::TempDir,
        mut bootstrap: Value,
        drain: Duration,
    ) -> Self {
        bootstrap["admin"] = json!({"address": {"pipe": {"path": dir.path().join("admin")}}});
        let message = sluis_protojson::message_from_json(&bootstrap).unwrap();
        let bootstrap = Bootstrap::from_message(message).unwrap();
        let (stop, stopped) = oneshot::channel();
        let (told, ready) = oneshot::channel::<Ready>();
        let workers = bootstrap.workers().unwrap().unwrap_or(2);
        let options = Options {
            bootstrap,
            workers,
            drain,
            descriptors: 4096,
            give_back: None,
            system_roots: None,
            environment: HashMap::new(),
            started: Instant::now(),
            ready: Some(told),
        };
        let thread =
            std::thread::spawn(move || sluis_proxy::run(options, async { drop(stopped.await) }));
        let ready = soon("ready", ready).await.unwrap();
        let listeners = ready.listeners.into_iter().collect();
        Self { dir, listeners, stop: Some(stop), thread: Some(thread) }
    }

    /// The address of a listener.
    pub(crate) fn address(&self, listener: &str) -> SocketAddr {
        match &self.listeners[listener] {
            Address::Socket(address) => *address,
            other => panic!("{listener} is at {other}"),
        }
    }

    /// Connects to a listener.
    pub(crate) async fn connect(&self, listener: &str) -> TcpStream {
        soon("connect", TcpStream::connect(self.address(listener))).await.unwrap()
    }

    /// Asks the admin server; returns its whole response.
    pub(crate) async fn admin(&self, request: &str) -> String {
        let mut stream = UnixStream::connect(self.dir.path().join("admin")).await.unwrap();
        let head = format!("{request} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n");
        stream.write_all(head.as_bytes()).await.unwrap();
        let mut response = String::new();
        soon("admin", stream.read_to_string(&mut response)).await.unwrap();
        response
    }

    /// One counter.
    pub(crate) async fn counter(&self, name: &str) -> u64 {
        let stats = self.admin("GET /stats").await;
        let line = stats.lines().find_map(|line| line.strip_prefix(&format!("{name}: ")));
        line.unwrap_or_else(|| panic!("no {name} in {stats}")).trim().parse().unwrap()
    }

    /// Waits until a counter has come to this value.
    pub(crate) async fn until_counter(&self, name: &str, value: u64) {
        let reached = async { while self.counter(name).await < value {} };
        soon(name, reached).await;
        assert_eq!(self.counter(name).await, value, "{name}");
    }

    /// Tells the proxy to stop.
    pub(crate) fn ask_to_stop(&mut self) {
        drop(self.stop.take());
    }

    /// Waits until the proxy has ended.
    pub(crate) async fn ended(&mut self) -> Result<(), RunError> {
        let thread = self.thread.take().unwrap();
        soon("end", tokio::task::spawn_blocking(|| thread.join().unwrap())).await.unwrap()
    }

    /// Stops the proxy, and returns the lines that it wrote to a file of its directory.
    pub(crate) async fn stop_and_read(&mut self, file: &Path) -> Vec<String> {
        self.ask_to_stop();
        self.ended().await.unwrap();
        std::fs::read_to_string(file).unwrap().lines().map(str::to_owned).collect()
    }
}

/// A server that answers each connection with its name, then echoes, then closes in order.
pub(crate) struct Echo {
    pub(crate) address: SocketAddr,
    _task: tokio::task::JoinSet<()>,
}

/// A port that nobody has: below those that the system hands out, and another at each call, so that
/// tests beside each other cannot meet.
pub(crate) fn spare_port() -> u16 {
    static CALLS: AtomicU16 = AtomicU16::new(0);
    let first = u16::try_from(std::process::id() % 20_000).unwrap();
    loop {
        let port = 10_000 + (first + CALLS.fetch_add(1, Ordering::Relaxed)) % 20_000;
        if std::net::TcpListener::bind(("127.0.0.1", port)).is_ok() {
            return port;
        }
    }
}

impl Echo {
    pub(crate) async fn start(name: &'static str) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let mut task = tokio::task::JoinSet::new();
        task.spawn(async move {
            loop {
                let (mut stream, _) = listener.accept().await.unwrap();
                tokio::spawn(async move {
                    let (mut reader, mut writer) = stream.split();
                    writer.write_all(name.as_bytes()).await.ok();
                    tokio::io::copy(&mut reader, &mut writer).await.ok();
                    writer.shutdown().await.ok();
                });
            }
        });
        Self { address, _task: task }
    }
}

/// Reads exactly as many bytes as `text` has and compares them.
pub(crate) async fn expect(stream: &mut TcpStream, text: &str) {
    let mut bytes = vec![0; text.len()];
    soon("bytes", stream.read_exact(&mut bytes)).await.unwrap();
    assert_eq!(String::from_utf8_lossy(&bytes), text);
}

/// A listener on a free port of loopback.
pub(crate) fn listener(name: &str, body: Value) -> Value {
    let mut listener = body;
    listener["name"] = json!(name);
    if listener.get("address").is_none() {
        listener["address"] = address("127.0.0.1:0".parse().unwrap());
    }
    listener
}

/// A filter chain that proxies TCP to a cluster, with an access log.
pub(crate) fn tcp_chain(cluster: &str, log: &Path) -> Value {
    json!({"filters": [{
        "name": "envoy.filters.network.tcp_proxy",
        "typed_config": {
            "@type": "type.googleapis.com/envoy.extensions.filters.network.tcp_proxy.v3.TcpProxy",
            "stat_prefix": cluster,
            "cluster": cluster,
            "access_log": [file_log(log)],
        },
    }]})
}

/// An access log with flags, bytes, cluster and SNI.
pub(crate) fn file_log(path: &Path) -> Value {
    let format = "%RESPONSE_FLAGS% %BYTES_RECEIVED% %BYTES_SENT% %UPSTREAM_CLUSTER% %REQUESTED_SERVER_NAME%\n";
    json!({
        "name": "envoy.access_loggers.file",
        "typed_config": {
            "@type": "type.googleapis.com/envoy.extensions.access_loggers.file.v3.FileAccessLog",
            "path": path,
            "log_format": {"text_format_source": {"inline_string": format}},
        },
    })
}

/// A static cluster with these endpoints.
pub(crate) fn cluster(name: &str, endpoints: &[SocketAddr]) -> Value {
    let endpoints: Vec<Value> =
        endpoints.iter().map(|at| json!({"endpoint": {"address": address(*at)}})).collect();
    json!({
        "name": name,
        "type": "STATIC",
        "connect_timeout": "2s",
        "load_assignment": {"cluster_name": name, "endpoints": [{"lb_endpoints": endpoints}]},
    })
}

pub(crate) fn address(at: SocketAddr) -> Value {
    json!({"socket_address": {"address": at.ip().to_string(), "port_value": at.port()}})
}

/// A listener filter by its short name.
pub(crate) fn listener_filter(name: &str, message: &str) -> Value {
    json!({
        "name": format!("envoy.filters.listener.{name}"),
        "typed_config": {
            "@type": format!("type.googleapis.com/envoy.extensions.filters.listener.{name}.v3.{message}"),
        },
    })
}

/// A fresh log file's path.
pub(crate) fn log_in(dir: &tempfile::TempDir) -> PathBuf {
    dir.path().join("access.log")
}
