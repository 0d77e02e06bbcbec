//! A connection as its listener gets it, and who serves it.

use std::{net::SocketAddr, pin::Pin, sync::Arc};

use sluis_tls::PeerIdentity;

use crate::conn::Socket;

/// A connection that a listener has accepted.
#[derive(Debug)]
pub(crate) struct Accepted {
    pub(crate) socket: Socket,
    /// Our end and the client's; `None` for a Unix socket.
    pub(crate) ends: Option<(SocketAddr, SocketAddr)>,
    /// The listener's name.
    pub(crate) listener: Arc<str>,
    /// How it came.
    pub(crate) way: Way,
}

/// How a connection came to its listener.
#[derive(Debug)]
pub(crate) enum Way {
    /// By the listener's own socket.
    Direct,
    /// From a jail, where everything is redirected.
    Captured,
    /// From another listener of this proxy, which knows who the client is.
    Inner {
        /// By its certificate.
        peer: Option<PeerIdentity>,
        /// The URI names of the certificate that the client was shown.
        own_uris: Vec<String>,
    },
}

/// The serving of one connection.
pub(crate) type Serving = Pin<Box<dyn Future<Output = ()>>>;

/// Who serves connections: chains that lead into other listeners are given it.
pub(crate) type Serve<'a> = &'a dyn Fn(Accepted) -> Serving;
