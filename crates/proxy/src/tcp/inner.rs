//! The way from one listener of this proxy into another, without a network in between.
//!
//! In:    a connection that a chain sends to a cluster of an internal listener.
//! Out:   our end of it, and the work of the other listener, to be driven beside the copying.
//! Never: leads from an inner connection into a further one: there is no going round in circles.
//!
//! Who the client has proven to be goes with it. That is what the mesh's TLS around an application's
//! own is for: the outer says which workload it is, the inner keeps the application's bytes its own.

use std::{io, sync::Arc};

use sluis_rules::{Address, EndpointAddress};
use tokio::net::UnixStream;

use crate::{
    accepted::{Accepted, Serve, Serving, Way},
    config::Backend,
    conn::{ConnectionFacts, Io, Socket},
    upstream::{ConnectContext, Pick, Upstream},
};

/// The listener that a cluster leads to, when it is one of this proxy.
pub(super) fn listener_of(backend: &Backend) -> Option<&Arc<str>> {
    match &backend.endpoints.list.first()?.address {
        EndpointAddress::Fixed(Address::Internal(name)) => Some(name),
        _ => None,
    }
}

/// Hands the connection to that listener.
///
/// # Errors
///
/// When the connection has come this way already, or the kernel has no sockets left.
pub(super) fn enter(
    serve: Serve<'_>,
    backend: &Backend,
    listener: &Arc<str>,
    facts: &ConnectionFacts,
) -> io::Result<(Upstream, Serving)> {
    if facts.is_inner {
        let what = "an inner connection does not lead into another";
        return Err(io::Error::new(io::ErrorKind::Unsupported, what));
    }
    let pick = Pick::of(backend, 0).ok_or(io::ErrorKind::NotFound)?;
    let (ours, theirs) = UnixStream::pair()?;
    let way = Way::Inner { peer: facts.peer.clone(), own_uris: facts.own_uris.clone() };
    let ends = ConnectContext::of(facts).downstream.map(|(remote, local)| (local, remote));
    let accepted =
        Accepted { socket: Socket::Unix(theirs), ends, listener: Arc::clone(listener), way };
    let work = serve(accepted);
    let io = Io::Plain(Socket::Unix(ours));
    Ok((Upstream { io, local: None, pick, _held: None }, work))
}
