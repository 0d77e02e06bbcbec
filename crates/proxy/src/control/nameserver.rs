//! Answers the workload's name queries from the mesh's name table.
//!
//! In:    queries on the port to which a packet filter redirects them, or on a jail's own sockets.
//! Out:   the addresses of the mesh's hosts; NXDOMAIN for what nobody declared under `REGISTRY_ONLY`.
//! Never: asks another server for a name that the policy does not let the workload reach.

use std::{
    collections::HashSet,
    io,
    net::{
        IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener as StdTcpListener,
        UdpSocket as StdUdpSocket,
    },
    sync::{Arc, Mutex, PoisonError},
};

use sluis_capture::dns::{self, Found, Lookup, Unknown};
use tokio::{
    net::{TcpListener, UdpSocket},
    sync::watch,
    task::JoinSet,
};
use tracing::{info, warn};

use crate::{
    config::Config,
    stats::{Counter, Shard},
};

/// Istio's port for the workload's name queries (`DNS_PROXY_ADDR` of its agent).
const PORT: u16 = 15053;

/// Unknown names that are remembered, so that each is logged once.
const NAMES_REMEMBERED_MAX: usize = 256;

/// Answers from the newest name table.
pub(super) struct Table {
    config: watch::Receiver<Arc<Config>>,
    stats: Arc<Shard>,
    logged: Mutex<HashSet<String>>,
}

impl Lookup for Table {
    fn lookup(&self, name: &str) -> Found {
        self.stats.inc(Counter::DnsQueries);
        let config = self.config.borrow();
        if let Some(addresses) = config.runtime.names.lookup(name) {
            return Found::Addresses(addresses.to_vec());
        }
        if config.runtime.names.is_empty() {
            return Found::Unknown(Unknown::ServFail);
        }
        self.stats.inc(Counter::DnsUnknown);
        if config.allows_any() {
            return Found::Unknown(Unknown::Elsewhere);
        }
        self.log_once(name);
        Found::Unknown(Unknown::NxDomain)
    }

    fn servers(&self) -> Vec<SocketAddr> {
        super::dns::system_servers()
    }
}

impl Table {
    fn log_once(&self, name: &str) {
        let mut logged = self.logged.lock().unwrap_or_else(PoisonError::into_inner);
        if logged.len() >= NAMES_REMEMBERED_MAX {
            logged.clear();
        }
        if logged.insert(name.to_owned()) {
            info!(host = name, "name refused: no resource of the mesh declares this host");
        }
    }
}

impl Table {
    pub(super) fn new(config: watch::Receiver<Arc<Config>>, stats: Arc<Shard>) -> Self {
        Self { config, stats, logged: Mutex::default() }
    }
}

/// The sockets to which a packet filter redirects name queries.
pub(crate) struct Sockets {
    udp: Vec<StdUdpSocket>,
    tcp: Vec<StdTcpListener>,
}

/// Opens the sockets on loopback, of IPv6 too where the machine has it.
///
/// # Errors
///
/// What the kernel says; a machine without IPv6 is no error.
pub(crate) fn bind() -> io::Result<Sockets> {
    let mut sockets = Sockets { udp: Vec::new(), tcp: Vec::new() };
    for ip in [IpAddr::V4(Ipv4Addr::LOCALHOST), IpAddr::V6(Ipv6Addr::LOCALHOST)] {
        let address = SocketAddr::new(ip, PORT);
        let udp = match StdUdpSocket::bind(address) {
            Ok(udp) => udp,
            // No IPv6 here: then nothing is redirected to it either.
            Err(error) if ip.is_ipv6() && error.kind() != io::ErrorKind::AddrInUse => continue,
            Err(error) => return Err(error),
        };
        udp.set_nonblocking(true)?;
        let tcp = StdTcpListener::bind(address)?;
        tcp.set_nonblocking(true)?;
        sockets.udp.push(udp);
        sockets.tcp.push(tcp);
    }
    Ok(sockets)
}

/// Answers until dropped.
pub(crate) async fn serve(
    sockets: Sockets,
    config: watch::Receiver<Arc<Config>>,
    stats: Arc<Shard>,
) {
    let table = Arc::new(Table::new(config, stats));
    let mut resolvers: JoinSet<io::Result<()>> = JoinSet::new();
    for socket in sockets.udp {
        let table = Arc::clone(&table);
        resolvers
            .spawn_local(async move { dns::serve_udp(UdpSocket::from_std(socket)?, table).await });
    }
    for listener in sockets.tcp {
        let table = Arc::clone(&table);
        resolvers.spawn_local(async move {
            dns::serve_tcp(TcpListener::from_std(listener)?, table).await
        });
    }
    while let Some(ended) = resolvers.join_next().await {
        warn!(?ended, "name queries are not answered on one of the sockets any more");
    }
}
