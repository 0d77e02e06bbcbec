//! The program as an operator meets it: ready line, signals, exit status.

#![expect(clippy::unwrap_used, reason = "a test fails where it unwraps")]

use std::{
    fs::Permissions,
    io::{BufRead as _, BufReader, Read as _, Write as _},
    net::{SocketAddr, TcpListener, TcpStream},
    os::unix::{
        fs::{MetadataExt as _, PermissionsExt as _},
        net::UnixStream,
        process::CommandExt as _,
    },
    path::Path,
    process::{Child, ChildStderr, Command, Stdio},
    sync::{
        atomic::{AtomicU16, Ordering},
        mpsc,
    },
    time::Duration,
};

use prost::Message as _;
use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value, json};

/// Longest wait for anything.
const DEADLINE: Duration = Duration::from_secs(20);

/// The user that owns nothing.
const NOBODY: u32 = 65534;

struct Proxy {
    child: Child,
    /// The lines of its stderr, as they come.
    lines: mpsc::Receiver<String>,
}

impl Proxy {
    fn start(dir: &Path, bootstrap: &Value, arguments: &[&str]) -> Self {
        let command = Command::new(env!("CARGO_BIN_EXE_sluis-proxy"));
        Self::spawn(dir, bootstrap, command, arguments)
    }

    fn spawn(dir: &Path, bootstrap: &Value, mut command: Command, arguments: &[&str]) -> Self {
        let message: envoy_types::pb::envoy::config::bootstrap::v3::Bootstrap =
            sluis_protojson::message_from_json(bootstrap).unwrap();
        let file = dir.join("bootstrap.pb");
        std::fs::write(&file, message.encode_to_vec()).unwrap();
        let mut child = command
            .args(["run", "--workers", "1", "--bootstrap"])
            .arg(&file)
            .args(arguments)
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let lines = read_lines(child.stderr.take().unwrap());
        Self { child, lines }
    }

    /// Waits for a line with this in it; returns it.
    fn line(&self, part: &str) -> String {
        let mut seen = Vec::new();
        loop {
            match self.lines.recv_timeout(DEADLINE) {
                Ok(line) if line.contains(part) => return line,
                Ok(line) => seen.push(line),
                Err(_) => panic!("no {part:?} in {seen:#?}"),
            }
        }
    }

    fn signal(&self, signal: Signal) {
        kill_process(Pid::from_child(&self.child), signal).unwrap();
    }

    fn status(&mut self) -> Option<i32> {
        self.child.wait().unwrap().code()
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        // It has ended already where the test went well.
        let _ended = self.child.kill();
        let _ended = self.child.wait();
    }
}

fn read_lines(stderr: ChildStderr) -> mpsc::Receiver<String> {
    let (sender, lines) = mpsc::channel();
    std::thread::spawn(move || {
        for line in BufReader::new(stderr).lines().map_while(Result::ok) {
            if sender.send(line).is_err() {
                return;
            }
        }
    });
    lines
}

/// A port that nobody has: below those that the system hands out, and another at each call, so that
/// tests beside each other cannot meet.
fn spare_port() -> u16 {
    static CALLS: AtomicU16 = AtomicU16::new(0);
    let first = u16::try_from(std::process::id() % 20_000).unwrap();
    loop {
        let port = 10_000 + (first + CALLS.fetch_add(1, Ordering::Relaxed)) % 20_000;
        if TcpListener::bind(("127.0.0.1", port)).is_ok() {
            return port;
        }
    }
}

/// A TCP listener in front of a server that only says hello.
fn bootstrap(dir: &Path) -> (Value, SocketAddr) {
    let server = TcpListener::bind("127.0.0.1:0").unwrap();
    let to = server.local_addr().unwrap();
    std::thread::spawn(move || {
        let mut kept = Vec::new();
        for stream in server.incoming().map_while(Result::ok) {
            let mut stream = stream;
            stream.write_all(b"hello").unwrap();
            kept.push(stream);
        }
    });
    let at = SocketAddr::from(([127, 0, 0, 1], spare_port()));
    let address = |at: SocketAddr| json!({"socket_address": {"address": at.ip().to_string(), "port_value": at.port()}});
    let bootstrap = json!({
        "admin": {"address": {"pipe": {"path": dir.join("admin")}}},
        "static_resources": {
            "listeners": [{
                "name": "in",
                "address": address(at),
                "filter_chains": [{"filters": [{
                    "name": "envoy.filters.network.tcp_proxy",
                    "typed_config": {
                        "@type": "type.googleapis.com/envoy.extensions.filters.network.tcp_proxy.v3.TcpProxy",
                        "stat_prefix": "hello",
                        "cluster": "hello",
                    },
                }]}],
            }],
            "clusters": [{
                "name": "hello",
                "type": "STATIC",
                "load_assignment": {"cluster_name": "hello", "endpoints": [
                    {"lb_endpoints": [{"endpoint": {"address": address(to)}}]},
                ]},
            }],
        },
    });
    (bootstrap, at)
}

fn greet(at: SocketAddr) -> TcpStream {
    let mut stream = TcpStream::connect(at).unwrap();
    stream.set_read_timeout(Some(DEADLINE)).unwrap();
    let mut hello = [0; 5];
    stream.read_exact(&mut hello).unwrap();
    assert_eq!(&hello, b"hello");
    stream
}

#[test]
fn a_proxy_says_that_it_is_ready_and_ends_in_order() {
    let dir = tempfile::tempdir().unwrap();
    let (bootstrap, at) = bootstrap(dir.path());
    // The server behind never closes: the last connection ends with the drain.
    let mut proxy = Proxy::start(dir.path(), &bootstrap, &["--drain", "1"]);
    proxy.line("ready");
    drop(greet(at));
    let mut admin = UnixStream::connect(dir.path().join("admin")).unwrap();
    admin.write_all(b"GET /ready HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n").unwrap();
    let mut answer = String::new();
    admin.read_to_string(&mut answer).unwrap();
    assert!(answer.starts_with("HTTP/1.1 200") && answer.ends_with("LIVE\n"), "{answer}");
    proxy.signal(Signal::TERM);
    assert_eq!(proxy.status(), Some(0));
    assert!(TcpStream::connect(at).is_err());
    assert!(!dir.path().join("admin").exists());
}

#[test]
fn a_second_signal_ends_a_draining_proxy_at_once() {
    let dir = tempfile::tempdir().unwrap();
    let (bootstrap, at) = bootstrap(dir.path());
    let mut proxy = Proxy::start(dir.path(), &bootstrap, &["--drain", "600"]);
    proxy.line("ready");
    let open = greet(at);
    proxy.signal(Signal::INT);
    proxy.line("draining");
    proxy.signal(Signal::TERM);
    assert_eq!(proxy.status(), Some(143));
    drop(open);
}

#[test]
fn a_bootstrap_that_is_not_understood_is_refused_by_field() {
    let dir = tempfile::tempdir().unwrap();
    let bootstrap = json!({"stats_sinks": [{"name": "envoy.stat_sinks.statsd"}]});
    let mut proxy = Proxy::start(dir.path(), &bootstrap, &[]);
    let line = proxy.line("ERROR");
    assert!(line.contains("bootstrap field stats_sinks: is not supported"), "{line}");
    assert_eq!(proxy.status(), Some(1));
}

#[test]
fn the_memory_of_a_proxy_is_closed_to_its_user() {
    let dir = tempfile::tempdir().unwrap();
    let (bootstrap, _) = bootstrap(dir.path());
    let own = rustix::process::getuid();
    let proxy = if own.is_root() {
        // Root may look at anything: see it as another user would.
        std::fs::set_permissions(dir.path(), Permissions::from_mode(0o777)).unwrap();
        let program = dir.path().join("sluis-proxy");
        std::fs::copy(env!("CARGO_BIN_EXE_sluis-proxy"), &program).unwrap();
        let mut command = Command::new(program);
        command.uid(NOBODY).gid(NOBODY);
        Proxy::spawn(dir.path(), &bootstrap, command, &[])
    } else {
        Proxy::start(dir.path(), &bootstrap, &[])
    };
    proxy.line("ready");
    let uid = if own.is_root() { NOBODY } else { own.as_raw() };
    let owner =
        |file: &str| std::fs::metadata(format!("/proc/{}/{file}", proxy.child.id())).unwrap().uid();
    // The kernel gives the files of a process that cannot be dumped to root (proc(5)).
    assert_ne!(uid, 0);
    assert_eq!([owner("environ"), owner("mem"), owner("maps")], [0; 3]);
}
