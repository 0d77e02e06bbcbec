//! Values that change under load, and values that are gone for a while.

use std::{
    collections::BTreeSet,
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use sluis_envoy::{Kind, ResourceSet};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
    task::JoinSet,
};

use crate::{
    capture::{Capture, ok},
    control_plane::ControlPlane,
    harness::{Proxy, listener, log_in, soon, spare_port},
    pki::Pki,
    scene::{self, HOST, Setting, ask},
};

/// Requests in all: what was asked for.
const REQUESTS: usize = 50_000;

/// Clients at once.
const CLIENTS: usize = 8;

const NAME: &str = "credential://egress/api";

/// A set with these versions of the secret.
fn set(base: &ResourceSet, now: Option<&str>, before: Option<&str>) -> ResourceSet {
    let mut set = base.clone();
    for (name, value) in [(NAME.to_owned(), now), (format!("{NAME}#previous"), before)] {
        let Some(value) = value else { continue };
        let entries = [("k", value.to_owned()), ("@version", value.to_owned())];
        let message = sluis_protojson::message_from_json(&scene::secret(&name, &entries)).unwrap();
        set.secrets.insert(name, Arc::new(message));
    }
    set
}

struct World {
    control: ControlPlane,
    base: ResourceSet,
    proxy: Proxy,
    accepted: Arc<Mutex<BTreeSet<String>>>,
    _server: Capture,
    _dir: tempfile::TempDir,
}

impl World {
    /// A gateway whose secret comes from a control plane, and a server that takes some values.
    async fn start(first: &str) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let pki = Pki::new(dir.path());
        let (chain, key) = pki.issue(HOST);
        let accepted = Arc::new(Mutex::new(BTreeSet::from([first.to_owned()])));
        let known = Arc::clone(&accepted);
        let server = Capture::forgetful((&chain, &key), move |request| {
            let sent = request.field("x-key").unwrap_or_default();
            let value = sent.strip_prefix("Key ").unwrap_or_default();
            if known.lock().unwrap().contains(value) { ok() } else { (401, Vec::new(), sent) }
        })
        .await;
        let setting = Setting::default();
        let mut base = ResourceSet::default();
        let at = std::net::SocketAddr::from(([127, 0, 0, 1], spare_port()));
        let mut gateway = listener("in", scene::gateway(&setting, &log_in(&dir)));
        gateway["address"] = crate::harness::address(at);
        let listener: envoy_types::pb::envoy::config::listener::v3::Listener =
            sluis_protojson::message_from_json(&gateway).unwrap();
        base.listeners.insert("in".to_owned(), Arc::new(listener));
        let api = scene::api(&setting, &pki, &[server.address]);
        let cluster: envoy_types::pb::envoy::config::cluster::v3::Cluster =
            sluis_protojson::message_from_json(&api).unwrap();
        base.clusters.insert("api".to_owned(), Arc::new(cluster));
        let control = ControlPlane::start(&pki, &set(&base, Some(first), None)).await;
        let own = tempfile::tempdir().unwrap();
        let proxy = Proxy::start(own, control.bootstrap(), Duration::ZERO).await;
        control.answer(Kind::Secret).await.unwrap();
        Self { control, base, proxy, accepted, _server: server, _dir: dir }
    }

    async fn get(&self) -> (u16, String) {
        let request = format!("GET / HTTP/1.1\r\nHost: {HOST}\r\n\r\n");
        let reply = ask(self.proxy.address("in"), request.as_bytes()).await;
        (reply.status, reply.body)
    }

    fn push(&self, now: Option<&str>, before: Option<&str>) {
        self.control.push(&set(&self.base, now, before));
    }
}

/// Sends requests over one connection until enough were sent by all; the answers that failed.
async fn load(at: std::net::SocketAddr, sent: Arc<AtomicUsize>) -> Vec<String> {
    let mut stream = TcpStream::connect(at).await.unwrap();
    let request = format!("POST /load HTTP/1.1\r\nHost: {HOST}\r\nContent-Length: 4\r\n\r\nbody")
        .into_bytes();
    let (mut failed, mut bytes) = (Vec::new(), Vec::new());
    while sent.fetch_add(1, Ordering::Relaxed) < REQUESTS {
        stream.write_all(&request).await.unwrap();
        bytes.clear();
        while !bytes.ends_with(b"fine") {
            if bytes.len() > 12 && &bytes[9..12] != b"200" {
                break;
            }
            assert!(stream.read_buf(&mut bytes).await.unwrap() > 0, "closed");
        }
        if &bytes[9..12] != b"200" {
            failed.push(String::from_utf8_lossy(&bytes).into_owned());
            stream = TcpStream::connect(at).await.unwrap();
        }
    }
    failed
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_request_fails_while_values_change_under_load() {
    let world = World::start("v0").await;
    let sent = Arc::new(AtomicUsize::new(0));
    let mut clients = JoinSet::new();
    for _ in 0..CLIENTS {
        clients.spawn(load(world.proxy.address("in"), Arc::clone(&sent)));
    }
    // Enough that whatever was on its way before has come back.
    let more = async |count: usize| {
        let goal = (sent.load(Ordering::Relaxed) + count).min(REQUESTS);
        while sent.load(Ordering::Relaxed) < goal {
            tokio::task::yield_now().await;
        }
    };
    let mut changes = 0;
    while sent.load(Ordering::Relaxed) < REQUESTS {
        let (old, new) = (format!("v{changes}"), format!("v{}", changes + 1));
        // The gateway has the new value before the server knows it: the old one still serves.
        world.push(Some(&new), Some(&old));
        world.control.answer(Kind::Secret).await.unwrap();
        more(500).await;
        world.accepted.lock().unwrap().insert(new.clone());
        more(500).await;
        world.push(Some(&new), None);
        world.control.answer(Kind::Secret).await.unwrap();
        more(500).await;
        world.accepted.lock().unwrap().remove(&old);
        more(500).await;
        changes += 1;
    }
    let failed: Vec<String> = clients.join_all().await.into_iter().flatten().collect();
    let fallbacks = world.proxy.counter("credentials.previous").await;
    assert!(failed.is_empty(), "{} of {REQUESTS}, {changes} changes: {failed:?}", failed.len());
    assert!(changes >= 10 && fallbacks > 0, "{changes} changes, {fallbacks} with the old value");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_value_that_is_gone_refuses_with_its_own_reason_and_comes_back() {
    let world = World::start("v0").await;
    assert_eq!(world.get().await.0, 200);
    for _ in 0..2 {
        world.push(None, None);
        soon("gone", async { while world.get().await.0 == 200 {} }).await;
        assert_eq!(world.get().await, (503, "credential unavailable".to_owned()));
        world.push(Some("v0"), None);
        soon("back", async { while world.get().await.0 != 200 {} }).await;
    }
}
