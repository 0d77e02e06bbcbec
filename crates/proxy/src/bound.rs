//! The sockets on which listeners listen: opened on the control thread, one for each worker.
//!
//! In:    the listeners of a configuration that are bound.
//! Out:   [`Bound`] sockets that workers take; why a listener cannot be bound.
//! Never: closes a socket that the next configuration needs.

use std::{
    collections::HashMap,
    io,
    net::{SocketAddr, TcpListener as StdTcpListener},
    os::unix::net::UnixListener as StdUnixListener,
    sync::{Arc, Mutex, PoisonError},
};

use sluis_rules::{Address, Listener, Runtime};
use tokio::net::{TcpListener, UnixListener};

use crate::sockets::{self, ListenOptions, Listening, abstract_name};

/// Permissions of a listener's Unix socket: the owner alone.
const PIPE_MODE: u32 = 0o600;

/// The sockets of one listener.
#[derive(Debug)]
pub(crate) struct Bound {
    wanted: Wanted,
    /// Where it listens: with the port that the kernel chose when 0 was asked for.
    pub(crate) address: Address,
    /// One for each worker; a worker takes its own out.
    sockets: Vec<Mutex<Option<Raw>>>,
}

/// What the sockets depend on: a listener that changes otherwise keeps them.
#[derive(Clone, Debug, PartialEq)]
struct Wanted {
    address: Address,
    reuse_port: bool,
    freebind: bool,
    backlog: Option<u32>,
}

#[derive(Debug)]
enum Raw {
    Tcp(StdTcpListener),
    Unix(StdUnixListener),
}

/// The bound sockets by listener name.
pub(crate) type BoundSet = HashMap<Arc<str>, Arc<Bound>>;

/// A listener that cannot be bound.
#[derive(Debug, thiserror::Error)]
#[error("listener {listener} cannot listen on {address}: {source}")]
pub(crate) struct BindError {
    pub(crate) listener: Arc<str>,
    pub(crate) address: Address,
    #[source]
    pub(crate) source: io::Error,
}

/// Opens what `runtime` needs and `before` has not.
pub(crate) fn bind_all(
    runtime: &Runtime,
    before: &BoundSet,
    workers: usize,
) -> (BoundSet, Vec<BindError>) {
    let mut errors = Vec::new();
    let mut bound = BoundSet::new();
    for (name, listener) in &runtime.listeners {
        if !listener.bind_to_port {
            continue;
        }
        let wanted = Wanted::of(listener);
        let kept = before.get(name).filter(|before| before.wanted == wanted).cloned();
        match kept.map_or_else(|| Bound::open(wanted, workers).map(Arc::new), Ok) {
            Ok(made) => drop(bound.insert(Arc::clone(name), made)),
            Err(source) => {
                let address = listener.address.clone();
                errors.push(BindError { listener: Arc::clone(name), address, source });
                // A listener that moved and cannot: it stays where it is.
                if let Some(before) = before.get(name) {
                    bound.insert(Arc::clone(name), Arc::clone(before));
                }
            }
        }
    }
    (bound, errors)
}

impl Wanted {
    fn of(listener: &Listener) -> Self {
        Self {
            address: listener.address.clone(),
            reuse_port: listener.reuse_port,
            freebind: listener.freebind,
            backlog: listener.backlog,
        }
    }
}

impl Bound {
    fn open(wanted: Wanted, workers: usize) -> io::Result<Self> {
        let mut raw = Vec::with_capacity(workers);
        let address = match &wanted.address {
            Address::Socket(address) => {
                let first = Self::open_tcp(&wanted, *address)?;
                let local = first.local_addr()?;
                for _ in 1..workers {
                    let next = if wanted.reuse_port {
                        Self::open_tcp(&wanted, local)?
                    } else {
                        first.try_clone()?
                    };
                    raw.push(Some(Raw::Tcp(next)));
                }
                raw.push(Some(Raw::Tcp(first)));
                Address::Socket(local)
            }
            Address::Pipe(path) => {
                raw.push(Some(Raw::Unix(sockets::listen_unix(path, PIPE_MODE)?)));
                raw.resize_with(workers, || None);
                wanted.address.clone()
            }
            // Its connections come from within.
            Address::Internal(_) => {
                raw.resize_with(workers, || None);
                wanted.address.clone()
            }
        };
        Ok(Self { wanted, address, sockets: raw.into_iter().map(Mutex::new).collect() })
    }

    fn open_tcp(wanted: &Wanted, address: SocketAddr) -> io::Result<StdTcpListener> {
        let options = ListenOptions {
            reuse_port: wanted.reuse_port,
            freebind: wanted.freebind,
            backlog: wanted.backlog.map(|length| i32::try_from(length).unwrap_or(i32::MAX)),
        };
        sockets::listen_tcp(address, options)
    }

    /// The socket of one worker; `None` when it has been taken or another worker has the only one.
    pub(crate) fn take(&self, worker: usize) -> Option<io::Result<Listening>> {
        let mut slot = self.sockets[worker].lock().unwrap_or_else(PoisonError::into_inner);
        Some(match slot.take()? {
            Raw::Tcp(listener) => TcpListener::from_std(listener).map(Listening::Tcp),
            Raw::Unix(listener) => UnixListener::from_std(listener).map(Listening::Unix),
        })
    }
}

impl Drop for Bound {
    fn drop(&mut self) {
        if let Address::Pipe(path) = &self.address
            && abstract_name(path).is_none()
        {
            // It may be gone with its directory.
            let _gone = std::fs::remove_file(path);
        }
    }
}
