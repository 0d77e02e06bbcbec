//! The server and the client over loopback TLS, and the server with a real Envoy.

mod envoy;
mod loopback;
mod pki;

use std::{
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use envoy_types::pb::envoy::config::{
    cluster::v3::Cluster, core::v3::Node, listener::v3::Listener,
};
use sluis_envoy::{EncodedSet, Kind, ResourceSet};

use tokio::{
    net::TcpListener,
    sync::{oneshot, watch},
    task::JoinHandle,
    time::timeout,
};

use self::pki::Pki;
use super::{Connection, Directory, Peer, ProxyKey, Refusal, Server};
use crate::Report;

/// Far above what any step takes, so that only a real hang fails.
const DEADLINE: Duration = Duration::from_secs(20);

/// The only workload that the directory of these tests knows.
const KNOWN: &str = "spiffe://cluster.local/ns/shop/sa/web";

/// Gives every known proxy the same set, and remembers what was reported.
struct World {
    sets: watch::Sender<Arc<EncodedSet>>,
    reports: watch::Sender<Vec<(Kind, Report)>>,
    absent: watch::Sender<Vec<(Kind, String)>>,
    keys: AtomicU64,
    open: watch::Sender<u64>,
}

impl World {
    fn with(set: &ResourceSet) -> Arc<Self> {
        Arc::new(Self {
            sets: watch::Sender::new(Arc::new(set.encode())),
            reports: watch::Sender::default(),
            absent: watch::Sender::default(),
            keys: AtomicU64::default(),
            open: watch::Sender::default(),
        })
    }

    fn push(&self, set: &ResourceSet) {
        self.sets.send_replace(Arc::new(set.encode()));
    }

    /// Waits until a report of that kind is there, and returns it.
    async fn reported(&self, kind: Kind, is_meant: impl Fn(&Report) -> bool) -> Report {
        let mut reports = self.reports.subscribe();
        let find = |all: &[(Kind, Report)]| {
            all.iter().find(|(k, report)| *k == kind && is_meant(report)).map(|(_, r)| r.clone())
        };
        let all = timeout(DEADLINE, reports.wait_for(|all| find(all).is_some()))
            .await
            .unwrap_or_else(|_| panic!("no such {kind} report in {:?}", self.reports.borrow()))
            .unwrap();
        find(&all).unwrap()
    }

    async fn acked(&self, kind: Kind) -> Report {
        self.reported(kind, |report| matches!(report, Report::Ack { .. })).await
    }

    fn forget_reports(&self) {
        self.reports.send_replace(Vec::new());
    }
}

impl Directory for World {
    fn connect(&self, peer: &Peer, _node: &Node) -> Result<Connection, Refusal> {
        if *peer != Peer::Local && peer.to_string() != KNOWN {
            return Err(Refusal::Forbidden(format!("{peer} is not known")));
        }
        self.open.send_modify(|open| *open += 1);
        let key = ProxyKey(self.keys.fetch_add(1, Ordering::Relaxed));
        Ok(Connection { key, sets: self.sets.subscribe() })
    }

    fn report(&self, _key: ProxyKey, new: Vec<(Kind, Report)>) {
        self.reports.send_modify(|reports| reports.extend(new));
    }

    fn absent(&self, _key: ProxyKey, kind: Kind, names: &[String]) {
        let names = names.iter().map(|name| (kind, name.clone()));
        self.absent.send_modify(|absent| absent.extend(names));
    }

    fn disconnect(&self, _key: ProxyKey) {
        self.open.send_modify(|open| *open -= 1);
    }
}

/// A server on a loopback port that stops when told.
struct Running {
    address: SocketAddr,
    stop: oneshot::Sender<()>,
    task: JoinHandle<()>,
}

impl Running {
    async fn start(pki: &Pki, world: &Arc<World>, at: &str) -> Self {
        let listener = TcpListener::bind(at).await.unwrap();
        let directory = Arc::clone(world) as Arc<dyn Directory>;
        Self::serve(listener, Server::new(pki.server_tls(), directory))
    }

    fn serve(listener: TcpListener, server: Server) -> Self {
        let address = listener.local_addr().unwrap();
        let (stop, stopped) = oneshot::channel::<()>();
        let task = tokio::spawn(async move {
            server.serve(listener, async { drop(stopped.await) }).await.unwrap();
        });
        Self { address, stop, task }
    }

    async fn stop(self) {
        self.stop.send(()).unwrap();
        timeout(DEADLINE, self.task).await.unwrap().unwrap();
    }
}

fn node() -> Node {
    Node { id: "sidecar~127.0.0.1~web.shop~shop.svc.cluster.local".to_owned(), ..Node::default() }
}

fn resources(clusters: &[&str], listeners: &[&str]) -> ResourceSet {
    let mut set = ResourceSet::default();
    for name in clusters {
        let cluster = Cluster { name: (*name).to_owned(), ..Cluster::default() };
        set.clusters.insert((*name).to_owned(), Arc::new(cluster));
    }
    for name in listeners {
        let listener = Listener { name: (*name).to_owned(), ..Listener::default() };
        set.listeners.insert((*name).to_owned(), Arc::new(listener));
    }
    set
}
