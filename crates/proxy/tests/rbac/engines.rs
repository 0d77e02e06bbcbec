//! The two proxies, one after the other at the same ports.

use std::{
    net::SocketAddr,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use serde_json::Value;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpStream, UnixStream},
};

use crate::harness::{DEADLINE, Proxy, soon};

/// A proxy that runs.
pub(crate) enum Engine {
    Ours(Box<Proxy>),
    Envoy(Child),
}

impl Engine {
    pub(crate) async fn ours(bootstrap: Value) -> Self {
        let dir = tempfile::tempdir().unwrap();
        Self::Ours(Box::new(Proxy::start(dir, bootstrap, Duration::from_secs(2)).await))
    }

    pub(crate) async fn envoy(
        binary: &Path,
        dir: &Path,
        bootstrap: &Value,
        at: SocketAddr,
    ) -> Self {
        let config = dir.join("envoy.json");
        std::fs::write(&config, bootstrap.to_string()).unwrap();
        let child = Command::new(binary)
            .args(["--concurrency", "1", "--use-dynamic-base-id", "-l", "error"])
            .args(["--file-flush-interval-msec", "20", "-c"])
            .arg(&config)
            .stdin(Stdio::null())
            .spawn()
            .unwrap();
        let engine = Self::Envoy(child);
        let end = Instant::now() + DEADLINE;
        while TcpStream::connect(at).await.is_err() {
            assert!(Instant::now() < end, "Envoy does not listen: is the configuration valid?");
            tokio::task::yield_now().await;
        }
        engine
    }

    /// The counters of access control that are not 0, once each log holds so many lines.
    pub(crate) async fn end(mut self, dir: &Path, logs: &[(&PathBuf, usize)]) -> Vec<String> {
        let stats = match &self {
            Self::Ours(proxy) => proxy.admin("GET /stats").await,
            Self::Envoy(_) => {
                let mut stream = UnixStream::connect(dir.join("admin")).await.unwrap();
                let head = b"GET /stats HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n";
                stream.write_all(head).await.unwrap();
                let mut text = String::new();
                soon("stats", stream.read_to_string(&mut text)).await.unwrap();
                text
            }
        };
        let end = Instant::now() + DEADLINE;
        if let Self::Ours(proxy) = &mut self {
            proxy.ask_to_stop();
            proxy.ended().await.unwrap();
        } else {
            for (log, lines) in logs {
                while std::fs::read_to_string(log).unwrap_or_default().lines().count() < *lines {
                    assert!(Instant::now() < end, "Envoy's log is not complete");
                    tokio::task::yield_now().await;
                }
            }
        }
        let is_told = |line: &&str| line.contains("rbac.") && !line.ends_with(": 0");
        let mut told: Vec<String> = stats.lines().filter(is_told).map(str::to_owned).collect();
        told.sort();
        told
    }
}

impl Drop for Engine {
    fn drop(&mut self) {
        if let Self::Envoy(child) = self {
            child.kill().ok();
            child.wait().ok();
        }
    }
}
