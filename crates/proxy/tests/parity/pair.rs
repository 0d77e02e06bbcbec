//! Both proxies before one origin.

use std::{
    collections::HashMap,
    net::SocketAddr,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use serde_json::{Value, json};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpListener, TcpStream},
};

use crate::harness::{DEADLINE, Proxy, cluster, soon};

const FORMAT: &str = "%REQ(X-CASE)% %REQ(:METHOD)% %REQ(X-ENVOY-ORIGINAL-PATH?:PATH)% %RESPONSE_CODE% \
    %RESPONSE_FLAGS% %RESPONSE_CODE_DETAILS% %BYTES_RECEIVED% %BYTES_SENT% %UPSTREAM_CLUSTER% \
    %ROUTE_NAME% %DOWNSTREAM_REMOTE_ADDRESS_WITHOUT_PORT% %UPSTREAM_REQUEST_ATTEMPT_COUNT%\n";

/// What both proxies are told, and asked.
pub(crate) struct Scene {
    pub(crate) table: Value,
    pub(crate) manager: Value,
    pub(crate) clusters: Vec<Value>,
    pub(crate) requests: Vec<String>,
}

impl Scene {
    /// One virtual host for everything with these routes.
    pub(crate) fn routes(routes: Value) -> Self {
        Self::table(
            json!({ "virtual_hosts": [{ "name": "all", "domains": ["*"], "routes": routes }] }),
        )
    }

    pub(crate) fn table(mut table: Value) -> Self {
        table["name"] = json!("table");
        Self { table, manager: json!({}), clusters: Vec::new(), requests: Vec::new() }
    }

    /// Everything to the origin, with these settings of the manager.
    pub(crate) fn manager(manager: Value) -> Self {
        let all = json!([{ "name": "all", "match": { "prefix": "/" }, "route": { "cluster": "origin" } }]);
        Self { manager, ..Self::routes(all) }
    }

    pub(crate) fn with(mut self, manager: Value) -> Self {
        self.manager = manager;
        self
    }

    /// A request without a body.
    pub(crate) fn get(self, target: &str, fields: &[&str]) -> Self {
        self.send("GET", target, fields, "")
    }

    pub(crate) fn send(mut self, method: &str, target: &str, fields: &[&str], body: &str) -> Self {
        let mut text = format!("{method} {target} HTTP/1.1\r\n");
        if !fields.iter().any(|field| field.to_ascii_lowercase().starts_with("host:")) {
            text.push_str("Host: a.test\r\n");
        }
        for field in fields {
            text.push_str(field);
            text.push_str("\r\n");
        }
        if !body.is_empty() {
            text.push_str(&format!("Content-Length: {}\r\n", body.len()));
        }
        text.push_str("\r\n");
        text.push_str(body);
        self.requests.push(text);
        self
    }

    /// Raw bytes.
    pub(crate) fn raw(mut self, text: &str) -> Self {
        self.requests.push(text.to_owned());
        self
    }

    /// Sends everything through both and compares.
    #[track_caller]
    pub(crate) fn check(self) {
        let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
        let (ours, theirs) = runtime.block_on(async {
            let origin = Origin::start().await;
            let ours = Ours::run(&self, &origin).await;
            let Some(envoy) = std::env::var_os("ENVOY_BIN") else { return (ours.clone(), ours) };
            let theirs = Envoy::run(&self, &origin, Path::new(&envoy)).await;
            (ours, theirs)
        });
        let mut differences = String::new();
        for (request, (ours, theirs)) in self.requests.iter().zip(ours.iter().zip(&theirs)) {
            if ours != theirs {
                differences
                    .push_str(&format!("=== {request}--- Envoy:\n{theirs}\n--- ours:\n{ours}\n"));
            }
        }
        assert!(differences.is_empty(), "{differences}");
    }

    fn bootstrap(&self, origin: &Origin, port: u16, log: &Path, dir: &Path) -> Value {
        let mut manager = json!({
            "@type": "type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager",
            "stat_prefix": "in",
            "route_config": self.table,
            "http_filters": [router()],
            "access_log": [{
                "name": "envoy.access_loggers.file",
                "typed_config": {
                    "@type": "type.googleapis.com/envoy.extensions.access_loggers.file.v3.FileAccessLog",
                    "path": log,
                    "log_format": {"text_format_source": {"inline_string": FORMAT}},
                },
            }],
        });
        for (name, value) in self.manager.as_object().unwrap() {
            manager[name] = value.clone();
        }
        let mut clusters = vec![
            cluster("origin", &[origin.address]),
            cluster("other", &[origin.address]),
            cluster("refusing", &["127.0.0.1:1".parse().unwrap()]),
            json!({"name": "nowhere", "type": "STATIC", "connect_timeout": "1s"}),
        ];
        clusters.extend(self.clusters.iter().cloned());
        json!({
            "node": { "id": "n", "cluster": "c" },
            "admin": { "address": { "pipe": { "path": dir.join("admin") } } },
            "static_resources": {
                "listeners": [{
                    "name": "in",
                    "address": { "socket_address": { "address": "127.0.0.1", "port_value": port } },
                    "filter_chains": [{ "filters": [{ "name": "http", "typed_config": manager }] }],
                }],
                "clusters": clusters,
            },
        })
    }
}

pub(crate) fn router() -> Value {
    json!({
        "name": "envoy.filters.http.router",
        "typed_config": {"@type": "type.googleapis.com/envoy.extensions.filters.http.router.v3.Router"},
    })
}

/// A filter before the router.
pub(crate) fn filters(name: &str, message: &str, mut settings: Value) -> Value {
    settings["@type"] =
        json!(format!("type.googleapis.com/envoy.extensions.filters.http.{message}"));
    json!({ "http_filters": [{ "name": name, "typed_config": settings }, router()] })
}

struct Ours;

impl Ours {
    async fn run(scene: &Scene, origin: &Origin) -> Vec<String> {
        let dir = tempfile::tempdir().unwrap();
        let log = dir.path().join("access.log");
        let bootstrap = scene.bootstrap(origin, 0, &log, dir.path());
        let mut proxy = Proxy::start(dir, bootstrap, Duration::from_secs(5)).await;
        let mut answers = ask(scene, proxy.address("in")).await;
        let lines = proxy.stop_and_read(&log).await;
        append(&mut answers, &lines);
        answers
    }
}

struct Envoy(Child);

impl Drop for Envoy {
    fn drop(&mut self) {
        self.0.kill().ok();
        self.0.wait().ok();
    }
}

impl Envoy {
    async fn run(scene: &Scene, origin: &Origin, binary: &Path) -> Vec<String> {
        let dir = tempfile::tempdir().unwrap();
        let log: PathBuf = dir.path().join("access.log");
        let port = {
            let free = TcpListener::bind("127.0.0.1:0").await.unwrap();
            free.local_addr().unwrap().port()
        };
        let config = dir.path().join("envoy.json");
        let bootstrap = scene.bootstrap(origin, port, &log, dir.path());
        std::fs::write(&config, bootstrap.to_string()).unwrap();
        let child = Command::new(binary)
            .args(["--concurrency", "1", "--use-dynamic-base-id", "-l", "error"])
            .args(["--file-flush-interval-msec", "20", "-c"])
            .arg(&config)
            .stdin(Stdio::null())
            .stderr(Stdio::inherit())
            .spawn()
            .unwrap();
        let envoy = Self(child);
        let address = SocketAddr::from(([127, 0, 0, 1], port));
        let end = Instant::now() + DEADLINE;
        while TcpStream::connect(address).await.is_err() {
            assert!(Instant::now() < end, "Envoy does not listen: is the configuration valid?");
            tokio::task::yield_now().await;
        }
        let mut answers = ask(scene, address).await;
        let lines = loop {
            let text = std::fs::read_to_string(&log).unwrap_or_default();
            if text.lines().count() >= scene.requests.len() {
                break text.lines().map(str::to_owned).collect::<Vec<_>>();
            }
            assert!(Instant::now() < end, "Envoy's log is not complete: {text}");
            tokio::task::yield_now().await;
        };
        drop(envoy);
        append(&mut answers, &lines);
        answers
    }
}

/// Puts each log line behind the answer that it is of: the first word is the request's number. A
/// request that could not be read has none.
fn append(answers: &mut [String], lines: &[String]) {
    let (numbered, nameless): (Vec<_>, Vec<_>) =
        lines.iter().partition(|line| !line.starts_with("- "));
    let mut nameless = nameless.into_iter();
    for (at, answer) in answers.iter_mut().enumerate() {
        let start = format!("{at} ");
        let own = numbered.iter().find_map(|line| line.strip_prefix(&start));
        let line = own.or_else(|| nameless.next().map(String::as_str)).unwrap_or("none");
        answer.push_str(&format!("log: {line}\n"));
    }
}

/// Sends each request on a connection of its own.
async fn ask(scene: &Scene, address: SocketAddr) -> Vec<String> {
    let mut answers = Vec::new();
    for (at, request) in scene.requests.iter().enumerate() {
        let mut stream = TcpStream::connect(address).await.unwrap();
        let (line, rest) = request.split_once("\r\n").unwrap();
        let request = format!("{line}\r\nx-case: {at}\r\n{rest}");
        stream.write_all(request.as_bytes()).await.unwrap();
        let is_head = request.starts_with("HEAD ");
        let text = soon("answer", answer(&mut stream, is_head)).await;
        answers.push(text.replace(&format!(": {}\n", address.port()), ": PORT\n"));
    }
    answers
}

/// One response in a form that can be compared.
async fn answer(stream: &mut TcpStream, is_head: bool) -> String {
    let mut bytes = Vec::new();
    let (mut head_end, mut is_closed) = (None, false);
    loop {
        if head_end.is_none() {
            head_end = bytes.windows(4).position(|four| four == b"\r\n\r\n").map(|at| at + 4);
        }
        if let Some(end) = head_end {
            let head = String::from_utf8_lossy(&bytes[..end]).to_ascii_lowercase();
            let length = field(&head, "content-length").and_then(|text| text.parse::<usize>().ok());
            let done = is_head
                || head.starts_with("http/1.1 204")
                || head.starts_with("http/1.1 304")
                || match length {
                    Some(length) => bytes.len() >= end + length,
                    None => bytes.ends_with(b"0\r\n\r\n"),
                };
            if done {
                break;
            }
        }
        if stream.read_buf(&mut bytes).await.unwrap_or(0) == 0 {
            is_closed = true;
            break;
        }
    }
    let end = head_end.unwrap_or(bytes.len());
    let text = String::from_utf8_lossy(&bytes).into_owned();
    let mut out = normal(&text[..end]);
    out.push_str(&text[end..]);
    if is_closed {
        out.push_str("\n(closed)");
    }
    out.push('\n');
    out
}

fn field<'h>(head: &'h str, name: &str) -> Option<&'h str> {
    head.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':')).map(str::trim)
}

/// A head with lower-case names in order of the alphabet, and without what differs each time.
fn normal(head: &str) -> String {
    let mut lines = head.lines();
    let mut out = format!("{}\n", lines.next().unwrap_or_default().trim_end());
    let mut fields: Vec<String> = lines
        .filter_map(|line| line.split_once(':'))
        .map(|(name, value)| {
            let name = name.to_ascii_lowercase();
            let value = match name.as_str() {
                "date" | "x-request-id" | "x-envoy-upstream-service-time" => "*".to_owned(),
                // What is left of the time, roughly: tries take some of it.
                "x-envoy-expected-rq-timeout-ms" => {
                    let millis: u64 = value.trim().parse().unwrap_or(0);
                    if millis > 1000 {
                        format!("{}000", (millis + 500) / 1000)
                    } else {
                        millis.to_string()
                    }
                }
                _ => value.trim().to_owned(),
            };
            format!("{name}: {value}\n")
        })
        .collect();
    fields.sort();
    out.extend(fields);
    out
}

/// Answers each request with what it received, or as the field `x-do` asks: `status=N`, `set=A:B`,
/// `close`, `hang`, `first=N` (only the first N requests of an id get the rest).
pub(crate) struct Origin {
    address: SocketAddr,
    _task: tokio::task::JoinSet<()>,
}

impl Origin {
    async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let mut task = tokio::task::JoinSet::new();
        task.spawn(async move {
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                tokio::spawn(serve(stream));
            }
        });
        Self { address, _task: task }
    }
}

async fn serve(mut stream: TcpStream) {
    let mut bytes = Vec::new();
    loop {
        let end = loop {
            if let Some(at) = bytes.windows(4).position(|four| four == b"\r\n\r\n") {
                break at + 4;
            }
            if stream.read_buf(&mut bytes).await.unwrap_or(0) == 0 {
                return;
            }
        };
        let head = String::from_utf8_lossy(&bytes[..end]).into_owned();
        let lower = head.to_ascii_lowercase();
        let length =
            field(&lower, "content-length").and_then(|text| text.parse().ok()).unwrap_or(0);
        while bytes.len() < end + length {
            if stream.read_buf(&mut bytes).await.unwrap_or(0) == 0 {
                return;
            }
        }
        let body = String::from_utf8_lossy(&bytes[end..end + length]).into_owned();
        bytes.drain(..end + length);
        let mut status = 200;
        let mut further = String::new();
        let asked: HashMap<&str, &str> = field(&lower, "x-do")
            .unwrap_or_default()
            .split(',')
            .map(|part| part.trim().split_once('=').unwrap_or((part.trim(), "")))
            .collect();
        let attempt =
            field(&lower, "x-envoy-attempt-count").and_then(|text| text.parse().ok()).unwrap_or(1);
        let is_meant =
            asked.get("first").is_none_or(|most| attempt <= most.parse::<u32>().unwrap());
        if is_meant {
            if let Some(text) = asked.get("status") {
                status = text.parse().unwrap();
            }
            if let Some((name, value)) = asked.get("set").and_then(|text| text.split_once(':')) {
                further = format!("{name}: {value}\r\n");
            }
            if asked.contains_key("close") {
                return;
            }
            if asked.contains_key("hang") {
                tokio::time::sleep(DEADLINE).await;
                return;
            }
        }
        let text = format!("{}{body}", normal(&head));
        let answer = format!(
            "HTTP/1.1 {status} OK\r\ncontent-length: {}\r\nx-origin: yes\r\n{further}\r\n{text}",
            text.len()
        );
        let sent =
            if head.starts_with("HEAD ") { &answer[..answer.len() - text.len()] } else { &answer };
        if stream.write_all(sent.as_bytes()).await.is_err() {
            return;
        }
    }
}
