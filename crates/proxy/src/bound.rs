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
use tokio::net::UnixListener;

use crate::sockets::{self, ListenOptions, Listening, abstract_name};

/// Permissions of a listener's Unix socket: the owner alone.
const PIPE_MODE: u32 = 0o600;

/// The sockets of one listener.
#[derive(Debug)]
pub(crate) struct Bound {
    wanted: Wanted,
    /// Where it listens: with the port that the kernel chose when 0 was asked for.
    pub(crate) address: Address,
    /// Those of each worker; a worker takes its own out.
    sockets: Vec<Mutex<Vec<Raw>>>,
}

/// What the sockets depend on: a listener that changes otherwise keeps them.
#[derive(Clone, Debug, PartialEq)]
struct Wanted {
    address: Address,
    additional: Vec<Address>,
    transparent: bool,
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
            additional: listener.additional.clone(),
            transparent: listener.transparent,
            reuse_port: listener.reuse_port,
            freebind: listener.freebind,
            backlog: listener.backlog,
        }
    }
}

impl Bound {
    fn open(wanted: Wanted, workers: usize) -> io::Result<Self> {
        let mut raw: Vec<Vec<Raw>> = Vec::new();
        raw.resize_with(workers, Vec::new);
        let address = Self::open_one(&wanted, &wanted.address, &mut raw)?;
        for one in &wanted.additional {
            // As Envoy: where the kernel chose the port, each address has its own.
            Self::open_one(&wanted, one, &mut raw)?;
        }
        Ok(Self { wanted, address, sockets: raw.into_iter().map(Mutex::new).collect() })
    }

    /// Opens the sockets of one address, and says where they are.
    fn open_one(wanted: &Wanted, at: &Address, raw: &mut [Vec<Raw>]) -> io::Result<Address> {
        match at {
            Address::Socket(address) => {
                let first = Self::open_tcp(wanted, *address)?;
                let local = first.local_addr()?;
                let (last, others) = raw.split_last_mut().ok_or(io::ErrorKind::InvalidInput)?;
                for own in others {
                    let next = if wanted.reuse_port {
                        Self::open_tcp(wanted, local)?
                    } else {
                        first.try_clone()?
                    };
                    own.push(Raw::Tcp(next));
                }
                last.push(Raw::Tcp(first));
                Ok(Address::Socket(local))
            }
            Address::Pipe(path) => {
                let socket = sockets::listen_unix(path, PIPE_MODE)?;
                raw.first_mut().ok_or(io::ErrorKind::InvalidInput)?.push(Raw::Unix(socket));
                Ok(at.clone())
            }
            // Its connections come from within.
            Address::Internal(_) => Ok(at.clone()),
        }
    }

    fn open_tcp(wanted: &Wanted, address: SocketAddr) -> io::Result<StdTcpListener> {
        let options = ListenOptions {
            reuse_port: wanted.reuse_port,
            freebind: wanted.freebind,
            transparent: wanted.transparent,
            // Another of its addresses may be IPv4's of the same port.
            only_v6: !wanted.additional.is_empty(),
            backlog: wanted.backlog.map(|length| i32::try_from(length).unwrap_or(i32::MAX)),
        };
        sockets::listen_tcp(address, options)
    }

    /// The sockets of one worker; none when they have been taken or another worker has the only one.
    pub(crate) fn take(&self, worker: usize) -> Vec<io::Result<Listening>> {
        let mut slot = self.sockets[worker].lock().unwrap_or_else(PoisonError::into_inner);
        let made = slot.drain(..).map(|raw| match raw {
            Raw::Tcp(listener) => Listening::tcp(listener),
            Raw::Unix(listener) => UnixListener::from_std(listener).map(Listening::Unix),
        });
        made.collect()
    }
}

impl Drop for Bound {
    fn drop(&mut self) {
        for address in self.wanted.additional.iter().chain([&self.address]) {
            if let Address::Pipe(path) = address
                && abstract_name(path).is_none()
            {
                // It may be gone with its directory.
                let _gone = std::fs::remove_file(path);
            }
        }
    }
}
