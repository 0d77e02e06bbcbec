//! Takes over the sockets of jails: connections to the workers, name queries here.
//!
//! In:    arrivals at the handoff socket.
//! Out:   capture listeners in every worker; DNS answers from the name table.
//! Never: serves a jail of another workload (the receiver refuses it), or after its end.

use std::{io, path::Path, rc::Rc, sync::Arc, time::Duration};

use sluis_capture::{
    dns,
    handoff::{Arrival, JailLife, Receiver, Sockets},
};
use tokio::{
    net::{TcpListener, UdpSocket},
    sync::watch,
    task::JoinSet,
    time::sleep,
};
use tracing::{info, warn};

use super::nameserver::Table;
use crate::{config::Config, stats::Shard, workers::Workers};

/// Jails at once: each is a process that somebody started by hand.
const JAILS_MAX: usize = 64;

/// Wait after the socket failed to accept, for want of descriptors.
const ACCEPT_WAIT: Duration = Duration::from_millis(500);

/// Serves jails until dropped.
pub(crate) async fn serve(
    receiver: Receiver,
    workers: Rc<Workers>,
    config: watch::Receiver<Arc<Config>>,
    stats: Arc<Shard>,
) {
    let table = Arc::new(Table::new(config, stats));
    let mut jails = JoinSet::new();
    let mut last = 0;
    loop {
        let arrival = match receiver.accept().await {
            Ok(arrival) => arrival,
            Err(error) => {
                warn!(%error, "handoff socket failed");
                sleep(ACCEPT_WAIT).await;
                continue;
            }
        };
        while jails.try_join_next().is_some() {}
        let Arrival { sockets, life } = arrival;
        if jails.len() >= JAILS_MAX {
            let _ended = life.refuse("this sidecar serves as many jails as it can").await;
            continue;
        }
        last += 1;
        let (workers, table) = (Rc::clone(&workers), Arc::clone(&table));
        jails.spawn_local(async move {
            if let Err(error) = serve_one(last, sockets, life, &workers, table).await {
                warn!(jail = last, %error, "jail cannot be served");
            }
        });
    }
}

async fn serve_one(
    jail: u64,
    sockets: Sockets,
    mut life: JailLife,
    workers: &Workers,
    table: Arc<Table>,
) -> io::Result<()> {
    // Dropped at the end, with the sockets.
    let mut resolvers = JoinSet::new();
    for socket in sockets.dns_udp {
        resolvers.spawn_local(dns::serve_udp(UdpSocket::from_std(socket)?, Arc::clone(&table)));
    }
    for listener in sockets.dns_tcp {
        resolvers.spawn_local(dns::serve_tcp(TcpListener::from_std(listener)?, Arc::clone(&table)));
    }
    workers.open_jail(jail, sockets.capture).await?;
    let accepted = life.accept().await;
    if accepted.is_ok() {
        info!(jail, "jail served");
        life.ended().await;
        info!(jail, "jail ended");
    }
    workers.close_jail(jail).await;
    accepted
}

/// Opens the handoff socket.
pub(crate) fn bind(path: &Path, workload: &str) -> io::Result<Receiver> {
    Receiver::bind(path, workload)
}
