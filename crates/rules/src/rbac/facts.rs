//! What policies may ask about.

use std::net::{IpAddr, SocketAddr};

use crate::{Metadata, RequestFacts};

/// What is known when access is decided.
#[derive(Clone, Copy)]
pub struct RbacFacts<'f> {
    /// The connection.
    pub peer: PeerFacts<'f>,
    /// The request; `None` when a connection is decided on.
    pub request: Option<&'f dyn RequestFacts>,
    /// What other filters have found out.
    pub metadata: &'f Metadata,
}

/// What is known of the connection.
#[derive(Clone, Copy, Debug, Default)]
pub struct PeerFacts<'f> {
    /// Whether TLS was terminated here.
    pub is_tls: bool,
    /// The URI names of the client's verified certificate.
    pub uris: &'f [String],
    /// Its DNS names.
    pub dns_names: &'f [String],
    /// Its subject (RFC 2253); empty without a certificate.
    pub subject: &'f str,
    /// The server name that the client asked for, in lower case; empty without one.
    pub server_name: &'f str,
    /// Our side, after original destination; `None` for a Unix socket.
    pub local: Option<SocketAddr>,
    /// The other end of the connection, before a PROXY header.
    pub direct_remote: Option<IpAddr>,
    /// The other end of the connection, after a PROXY header.
    pub source: Option<IpAddr>,
    /// The client as it is trusted, after `x-forwarded-for`.
    pub remote: Option<IpAddr>,
}

impl<'f> PeerFacts<'f> {
    /// The names that a principal is compared with. Envoy: URI names, DNS names, subject; none
    /// without TLS, and the empty subject for TLS without a certificate.
    pub(super) fn names(&self) -> impl Iterator<Item = &'f str> + use<'f> {
        let all = self.uris.iter().chain(self.dns_names).map(String::as_str);
        all.chain(std::iter::once(self.subject)).filter({
            let is_tls = self.is_tls;
            move |_| is_tls
        })
    }
}

impl<'f> RbacFacts<'f> {
    /// The path without query and fragment; `None` where there is none.
    pub(super) fn path(&self) -> Option<&'f str> {
        let path = self.request?.path();
        (!path.is_empty()).then(|| crate::route::path_of(path))
    }
}
