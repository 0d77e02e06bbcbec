//! The two proxies that are compared, origins for them to reach, and a client.

use std::{
    net::SocketAddr,
    path::{Path, PathBuf},
    process::Stdio,
    sync::Arc,
    sync::atomic::{AtomicU16, Ordering},
    time::Duration,
};

use serde_json::{Value, json};
use tokio::{
    io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader},
    net::{TcpListener, TcpStream},
    process::{Child, Command},
    sync::Semaphore,
    task::JoinSet,
};

use crate::harness::{Proxy, soon};

const TYPE: &str = "type.googleapis.com/envoy.extensions";

/// One of the proxies.
pub(crate) struct Side {
    pub(crate) name: &'static str,
    pub(crate) address: SocketAddr,
    log: PathBuf,
    _dir: tempfile::TempDir,
    ours: Option<Proxy>,
    envoy: Option<Child>,
}

/// What a listener does with connections.
pub(crate) enum Serve {
    /// HTTP, by these routes.
    Http(Value),
    /// HTTP, by these routes, through this filter.
    Filtered(Value, Value),
    /// TCP, with these fields of the filter.
    Tcp(Value),
    /// TLS that is passed on, behind this filter.
    Sni(Value),
}

/// Starts the proxies, one after the other asked for.
pub(crate) async fn sides(serve: Serve, clusters: Value) -> Vec<Side> {
    let mut all = vec![Side::ours(&serve, &clusters).await];
    if let Ok(program) = std::env::var("ENVOY_BIN") {
        all.push(Side::envoy(&program, &serve, &clusters).await);
    }
    all
}

fn bootstrap(serve: &Serve, clusters: &Value, port: u16, log: &Path) -> Value {
    let access_log = json!([{ "name": "file", "typed_config": {
        "@type": format!("{TYPE}.access_loggers.file.v3.FileAccessLog"),
        "path": log,
        "log_format": { "text_format_source": { "inline_string":
            "%RESPONSE_CODE% %RESPONSE_FLAGS% %RESPONSE_CODE_DETAILS%\n" } } } }]);
    let router = json!({ "name": "router", "typed_config": {
        "@type": format!("{TYPE}.filters.http.router.v3.Router") } });
    let http = |routes: &Value, filters: Value| {
        json!({ "name": "http", "typed_config": {
            "@type": format!("{TYPE}.filters.network.http_connection_manager.v3.HttpConnectionManager"),
            "stat_prefix": "in", "access_log": access_log,
            "route_config": { "name": "local", "virtual_hosts": [
                { "name": "all", "domains": ["*"], "routes": routes }] },
            "http_filters": filters } })
    };
    let filter = match serve {
        Serve::Http(routes) => http(routes, json!([router])),
        Serve::Filtered(routes, filter) => http(routes, json!([filter, router])),
        Serve::Sni(_) => json!({ "name": "tcp", "typed_config": {
            "@type": format!("{TYPE}.filters.network.tcp_proxy.v3.TcpProxy"),
            "stat_prefix": "in", "cluster": "origin", "access_log": access_log } }),
        Serve::Tcp(fields) => {
            let mut proxy = json!({
                "@type": format!("{TYPE}.filters.network.tcp_proxy.v3.TcpProxy"),
                "stat_prefix": "in", "access_log": access_log });
            for (name, value) in fields.as_object().unwrap() {
                proxy[name] = value.clone();
            }
            json!({ "name": "tcp", "typed_config": proxy })
        }
    };
    let mut inspectors = json!([]);
    let mut filters = json!([filter]);
    if let Serve::Sni(before) = serve {
        filters.as_array_mut().unwrap().insert(0, before.clone());
        inspectors = json!([{ "name": "tls", "typed_config": {
            "@type": format!("{TYPE}.filters.listener.tls_inspector.v3.TlsInspector") } }]);
    }
    json!({
        "node": { "id": "test", "cluster": "test", "metadata": { "SLUIS_WORKERS": "1" } },
        "static_resources": {
            "listeners": [{ "name": "in",
                "address": { "socket_address": { "address": "127.0.0.1", "port_value": port } },
                "listener_filters": inspectors,
                "filter_chains": [{ "filters": filters }] }],
            "secrets": [{ "name": "token", "generic_secret": {
                "secret": { "inline_string": "t0ken" } } }],
            "clusters": clusters } })
}

/// A port that nobody has: below those that the system hands out, and another at each call, so that
/// tests beside each other cannot meet.
fn spare_port() -> u16 {
    static CALLS: AtomicU16 = AtomicU16::new(0);
    let first = u16::try_from(std::process::id() % 20_000).unwrap();
    loop {
        let port = 10_000 + (first + CALLS.fetch_add(1, Ordering::Relaxed)) % 20_000;
        if std::net::TcpListener::bind(("127.0.0.1", port)).is_ok() {
            return port;
        }
    }
}

/// Whether somebody listens on a port; to connect would be a connection that tests would see.
fn is_listened_on(port: u16) -> bool {
    let table = std::fs::read_to_string("/proc/net/tcp").unwrap();
    let local = format!(":{port:04X}");
    table.lines().any(|line| {
        let mut words = line.split_whitespace().skip(1);
        words.next().is_some_and(|at| at.ends_with(&local)) && words.nth(1) == Some("0A")
    })
}

impl Side {
    async fn ours(serve: &Serve, clusters: &Value) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let log = dir.path().join("access.log");
        let config = bootstrap(serve, clusters, 0, &log);
        let own = tempfile::tempdir().unwrap();
        let proxy = Proxy::start(own, config, Duration::from_secs(5)).await;
        let address = proxy.address("in");
        Self { name: "sluis", address, log, _dir: dir, ours: Some(proxy), envoy: None }
    }

    async fn envoy(program: &str, serve: &Serve, clusters: &Value) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let log = dir.path().join("access.log");
        let address = SocketAddr::from(([127, 0, 0, 1], spare_port()));
        let config = bootstrap(serve, clusters, address.port(), &log);
        let file = dir.path().join("envoy.json");
        std::fs::write(&file, config.to_string()).unwrap();
        let output = std::fs::File::create(dir.path().join("output")).unwrap();
        let mut child = Command::new(program)
            .args(["--concurrency", "1", "--use-dynamic-base-id", "-l", "warning", "-c"])
            .arg(&file)
            .stdout(Stdio::null())
            .stderr(output)
            .kill_on_drop(true)
            .spawn()
            .unwrap();
        let up = async {
            while !is_listened_on(address.port()) {
                if child.try_wait().unwrap().is_some() {
                    panic!("{}", std::fs::read_to_string(dir.path().join("output")).unwrap());
                }
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        };
        soon("envoy", up).await;
        Self { name: "envoy", address, log, _dir: dir, ours: None, envoy: Some(child) }
    }

    /// A client of its own.
    pub(crate) async fn client(&self) -> Client {
        Client(BufReader::new(soon("connect", TcpStream::connect(self.address)).await.unwrap()))
    }

    /// Ends the proxy; the lines of its log, sorted.
    pub(crate) async fn log(mut self) -> Vec<String> {
        if let Some(proxy) = &mut self.ours {
            proxy.ask_to_stop();
            proxy.ended().await.unwrap();
        }
        if let Some(envoy) = &mut self.envoy {
            let pid = envoy.id().unwrap().to_string();
            // In order, so that the log is written.
            drop(Command::new("kill").args(["-TERM", &pid]).status().await);
            soon("end", envoy.wait()).await.unwrap();
        }
        let text = std::fs::read_to_string(&self.log).unwrap_or_default();
        let mut lines: Vec<String> = text.lines().map(str::to_owned).collect();
        // Envoy's wait for the port is a connection too, which says nothing.
        lines.retain(|line| !line.starts_with("0 - -"));
        lines.sort();
        lines
    }
}

/// A response, as far as anybody asks.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) head: String,
    pub(crate) body: String,
}

/// A client that keeps its connection.
pub(crate) struct Client(BufReader<TcpStream>);

impl Client {
    pub(crate) async fn get(&mut self, path: &str, headers: &[(&str, &str)]) -> Answer {
        self.send(path, headers).await;
        self.answer().await
    }

    /// Asks for a path of another host.
    pub(crate) async fn get_from(&mut self, host: &str, path: &str) -> Answer {
        let request = format!("GET {path} HTTP/1.1\r\nhost: {host}\r\n\r\n");
        soon("write", self.0.write_all(request.as_bytes())).await.unwrap();
        self.answer().await
    }

    pub(crate) async fn send(&mut self, path: &str, headers: &[(&str, &str)]) {
        let mut request = format!("GET {path} HTTP/1.1\r\nhost: a.local\r\n");
        for (name, value) in headers {
            request.push_str(&format!("{name}: {value}\r\n"));
        }
        request.push_str("\r\n");
        soon("write", self.0.write_all(request.as_bytes())).await.unwrap();
    }

    pub(crate) async fn answer(&mut self) -> Answer {
        let mut head = String::new();
        while !head.ends_with("\r\n\r\n") {
            let read = soon("head", self.0.read_line(&mut head)).await.unwrap();
            assert!(read > 0, "ended in {head:?}");
        }
        let head = head.to_ascii_lowercase();
        let length = head.lines().find_map(|line| line.strip_prefix("content-length: "));
        let length = length.map_or(0, |value| value.trim().parse().unwrap());
        let mut body = vec![0; length];
        soon("body", self.0.read_exact(&mut body)).await.unwrap();
        let status = head.split(' ').nth(1).unwrap().parse().unwrap();
        Answer { status, head, body: String::from_utf8(body).unwrap() }
    }
}

/// A server that answers with its name; `/STATUS` with that status; `/hold` when it is told to.
pub(crate) struct Origin {
    pub(crate) address: SocketAddr,
    held: Arc<Semaphore>,
    go: Arc<Semaphore>,
    _tasks: JoinSet<()>,
}

impl Origin {
    pub(crate) async fn start(name: &str) -> Self {
        Self::with(name, None).await
    }

    /// One that answers every request with this status.
    pub(crate) async fn failing(name: &str, status: u16) -> Self {
        Self::with(name, Some(status)).await
    }

    async fn with(name: &str, status: Option<u16>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (held, go) = (Arc::new(Semaphore::new(0)), Arc::new(Semaphore::new(0)));
        let mut tasks = JoinSet::new();
        let (name, signals) = (name.to_owned(), (Arc::clone(&held), Arc::clone(&go)));
        tasks.spawn(async move {
            let mut connections = JoinSet::new();
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                connections.spawn(converse(stream, name.clone(), status, signals.clone()));
            }
        });
        Self { address, held, go, _tasks: tasks }
    }

    /// Waits until a request is held.
    pub(crate) async fn holds_one(&self) {
        soon("held request", self.held.acquire()).await.unwrap().forget();
    }

    /// Lets one held request go.
    pub(crate) fn release(&self) {
        self.go.add_permits(1);
    }
}

async fn converse(
    stream: TcpStream,
    name: String,
    fixed: Option<u16>,
    (held, go): (Arc<Semaphore>, Arc<Semaphore>),
) {
    let mut stream = BufReader::new(stream);
    loop {
        let mut head = String::new();
        while !head.ends_with("\r\n\r\n") {
            if stream.read_line(&mut head).await.unwrap_or(0) == 0 {
                return;
            }
        }
        let path = head.split(' ').nth(1).unwrap_or("/").trim_start_matches('/');
        if path == "hold" {
            held.add_permits(1);
            go.acquire().await.unwrap().forget();
        }
        let status = fixed.or(path.parse().ok()).unwrap_or(200);
        let length = name.len();
        let answer = format!("HTTP/1.1 {status} X\r\ncontent-length: {length}\r\n\r\n{name}");
        if stream.write_all(answer.as_bytes()).await.is_err() {
            return;
        }
    }
}

/// A static cluster `origin` with these endpoints and further fields.
pub(crate) fn cluster(origins: &[&Origin], fields: Value) -> Value {
    let endpoints: Vec<Value> = origins.iter().map(|origin| endpoint(origin.address)).collect();
    let mut cluster = json!({ "name": "origin", "type": "STATIC", "connect_timeout": "2s",
        "load_assignment": { "cluster_name": "origin", "endpoints": [
            { "lb_endpoints": endpoints }] } });
    for (name, value) in fields.as_object().unwrap() {
        cluster[name] = value.clone();
    }
    cluster
}

pub(crate) fn endpoint(at: SocketAddr) -> Value {
    json!({ "endpoint": { "address": { "socket_address": {
        "address": at.ip().to_string(), "port_value": at.port() } } } })
}

/// Routes that send everything to `origin`, with further fields of the route action.
pub(crate) fn to_origin(fields: Value) -> Serve {
    let mut action = json!({ "cluster": "origin" });
    for (name, value) in fields.as_object().unwrap() {
        action[name] = value.clone();
    }
    Serve::Http(json!([{ "match": { "prefix": "/" }, "route": action }]))
}

/// A DNS server with answers that a test may change: addresses and seconds to live.
pub(crate) struct Dns {
    pub(crate) address: SocketAddr,
    answers: Answers,
    _task: JoinSet<()>,
}

type Answers = Arc<std::sync::Mutex<std::collections::HashMap<String, (Vec<[u8; 4]>, u32)>>>;

impl Dns {
    pub(crate) async fn start(answers: &[(&str, &[[u8; 4]], u32)]) -> Self {
        let socket = tokio::net::UdpSocket::bind("127.0.0.1:0").await.unwrap();
        let address = socket.local_addr().unwrap();
        let shared = Answers::default();
        let mut task = JoinSet::new();
        let table = Arc::clone(&shared);
        task.spawn(async move {
            let mut query = [0; 1500];
            loop {
                let (length, client) = socket.recv_from(&mut query).await.unwrap();
                let reply = reply(&query[..length], &table);
                socket.send_to(&reply, client).await.unwrap();
            }
        });
        let dns = Self { address, answers: shared, _task: task };
        for (name, addresses, ttl) in answers {
            dns.set(name, addresses, *ttl);
        }
        dns
    }

    pub(crate) fn set(&self, name: &str, addresses: &[[u8; 4]], ttl: u32) {
        self.answers.lock().unwrap().insert(name.to_owned(), (addresses.to_vec(), ttl));
    }

    /// The fields by which a cluster or cache asks this server.
    pub(crate) fn resolver(&self) -> Value {
        json!({ "name": "cares", "typed_config": {
            "@type": format!("{TYPE}.network.dns_resolver.cares.v3.CaresDnsResolverConfig"),
            "resolvers": [{ "socket_address": { "address": "127.0.0.1",
                "port_value": self.address.port() } }],
            "dns_resolver_options": { "no_default_search_domain": true } } })
    }
}

fn reply(query: &[u8], answers: &Answers) -> Vec<u8> {
    let (mut at, mut labels) = (12, Vec::new());
    while query[at] != 0 {
        let end = at + 1 + usize::from(query[at]);
        labels.push(String::from_utf8_lossy(&query[at + 1..end]).to_lowercase());
        at = end;
    }
    let is_v4 = query[at + 2] == 1;
    let (addresses, ttl) =
        answers.lock().unwrap().get(&labels.join(".")).cloned().unwrap_or_default();
    let addresses = if is_v4 { addresses } else { Vec::new() };
    let mut reply = query[..at + 5].to_vec();
    reply[2..4].copy_from_slice(&[0x81, 0x80]);
    reply[6..12].copy_from_slice(&[0, addresses.len() as u8, 0, 0, 0, 0]);
    for address in addresses {
        reply.extend([0xc0, 12, 0, 1, 0, 1]);
        reply.extend(ttl.to_be_bytes());
        reply.extend([0, 4]);
        reply.extend(address);
    }
    reply
}
