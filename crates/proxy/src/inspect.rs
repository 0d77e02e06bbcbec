//! Runs a listener's filters on a fresh connection: where it was going, and what it speaks.
//!
//! In:    an accepted socket and the listener's filters.
//! Out:   the facts by which a filter chain is chosen, with the bytes that were read for them.
//! Never: reads past what it needs to know; waits longer than the listener allows.

use std::{io, net::SocketAddr};

use bytes::BytesMut;
use sluis_rules::{self as rules, Listener, ListenerFilterKind, TransportProtocol};
use tokio::io::AsyncReadExt as _;

use crate::{
    conn::Socket,
    sniff::{HelloError, HelloReader, HttpGuess, ProxyHeaderError, guess_http, parse_proxy_header},
    sockets::{self, canonical},
};

/// How much is read at once: a hello fits, a request's first line too.
const READ_BYTES: usize = 4096;

/// A connection while it is looked at.
#[derive(Debug)]
pub(crate) struct Inspection {
    pub(crate) socket: Socket,
    /// What was read and not used up.
    pub(crate) ahead: BytesMut,
    /// Our end, or what the client wanted to reach, once that is known.
    pub(crate) local: Option<SocketAddr>,
    /// The client.
    pub(crate) remote: Option<SocketAddr>,
    /// The other end of the socket itself.
    pub(crate) direct_remote: Option<SocketAddr>,
    /// Where the client wanted to go, when it was redirected or a PROXY header says so.
    pub(crate) original_dst: Option<SocketAddr>,
    /// The mark of connections to endpoints, which are made from the client's own address.
    pub(crate) source_mark: Option<u32>,
    pub(crate) sni: Option<String>,
    pub(crate) protocols: Vec<String>,
    pub(crate) is_tls: bool,
    hello_read: bool,
    is_captured: bool,
}

/// Why a connection is closed before a filter chain is chosen.
#[derive(Debug, thiserror::Error)]
pub(crate) enum InspectError {
    #[error("the client closed the connection")]
    Closed,
    #[error(transparent)]
    Io(#[from] io::Error),
    #[error(transparent)]
    Proxy(#[from] ProxyHeaderError),
    #[error(transparent)]
    Hello(HelloError),
    #[error("the connection was not redirected: it has no original destination")]
    NotRedirected,
    #[error("the listener's filters were not done within {0:?}")]
    Timeout(std::time::Duration),
}

impl Inspection {
    pub(crate) fn new(socket: Socket, ends: Option<(SocketAddr, SocketAddr)>) -> Self {
        let (local, remote) = ends.unzip();
        Self {
            socket,
            ahead: BytesMut::new(),
            local,
            remote,
            direct_remote: remote,
            original_dst: None,
            source_mark: None,
            sni: None,
            protocols: Vec::new(),
            is_tls: false,
            hello_read: false,
            is_captured: false,
        }
    }

    /// Runs the filters of one listener, within its time.
    pub(crate) async fn run(&mut self, listener: &Listener) -> Result<(), InspectError> {
        if listener.filters.is_empty() && !listener.use_original_dst {
            return Ok(());
        }
        // Boxed: a connection that lives should not carry the size of what came before.
        let filters = Box::pin(self.filter(listener));
        let Some(limit) = listener.filters_timeout else { return filters.await };
        // Filters that need no bytes never wait: no timer for them.
        match tokio::time::timeout(limit, filters).await {
            Ok(done) => done,
            Err(_) if listener.continue_on_filters_timeout => Ok(()),
            Err(_) => Err(InspectError::Timeout(limit)),
        }
    }

    /// A connection from a jail: the kernel must know where it was going.
    ///
    /// A PROXY header on it would be the client's own, and is not believed.
    pub(crate) fn captured(&mut self) -> Result<(), InspectError> {
        self.is_captured = true;
        self.restore();
        self.original_dst.map(drop).ok_or(InspectError::NotRedirected)
    }

    async fn filter(&mut self, listener: &Listener) -> Result<(), InspectError> {
        // Envoy adds the original_dst filter to a listener that hands connections over.
        if listener.use_original_dst && self.original_dst.is_none() {
            self.restore();
        }
        for filter in &listener.filters {
            let port = self.local.map_or(0, |local| local.port());
            if filter.disabled.as_ref().is_some_and(|ports| ports.holds(port)) {
                continue;
            }
            match filter.kind {
                ListenerFilterKind::OriginalDst if self.original_dst.is_none() => self.restore(),
                ListenerFilterKind::OriginalDst => {}
                ListenerFilterKind::OriginalSrc { mark } => self.source_mark = Some(mark),
                ListenerFilterKind::ProxyProtocol { .. } if self.is_captured => {}
                ListenerFilterKind::ProxyProtocol { optional } => {
                    self.proxy_header(optional).await?;
                }
                ListenerFilterKind::TlsInspector => self.hello().await?,
                ListenerFilterKind::HttpInspector => self.http().await?,
            }
        }
        Ok(())
    }

    fn restore(&mut self) {
        let Socket::Tcp(stream) = &self.socket else { return };
        // A connection for the listener's own port was not redirected. On a transparent socket that
        // cannot be told: the port's own chain is for it.
        if let Some(found) = sockets::original_dst(stream)
            && (Some(found) != self.local || sockets::was_taken(stream))
        {
            self.original_dst = Some(found);
            self.local = Some(found);
        }
    }

    /// Reads some more; false at the end of the stream.
    async fn more(&mut self) -> io::Result<bool> {
        self.ahead.reserve(READ_BYTES);
        Ok(self.socket.read_buf(&mut self.ahead).await? > 0)
    }

    async fn proxy_header(&mut self, optional: bool) -> Result<(), InspectError> {
        let header = loop {
            match parse_proxy_header(&self.ahead) {
                Ok(Some(header)) => break header,
                Ok(None) if self.more().await? => {}
                Ok(None) => return Err(InspectError::Closed),
                Err(ProxyHeaderError::Missing) if optional => return Ok(()),
                Err(error) => return Err(error.into()),
            }
        };
        bytes::Buf::advance(&mut self.ahead, header.length);
        if let Some((source, destination)) = header.addresses {
            self.remote = Some(canonical(source));
            self.local = Some(canonical(destination));
            self.original_dst = self.local;
        }
        Ok(())
    }

    async fn hello(&mut self) -> Result<(), InspectError> {
        if self.hello_read {
            return Ok(());
        }
        let mut reader = HelloReader::default();
        loop {
            match reader.read(&self.ahead) {
                Ok(Some(hello)) => {
                    self.is_tls = true;
                    self.sni = hello.sni;
                    self.protocols = hello
                        .alpn
                        .iter()
                        .map(|name| String::from_utf8_lossy(name).into_owned())
                        .collect();
                    break;
                }
                Ok(None) if self.more().await? => {}
                Ok(None) => return Err(InspectError::Closed),
                // As in Envoy: what is no hello is no TLS. A rule that asks for TLS or for a
                // server name will not match it.
                Err(HelloError::NotTls | HelloError::Malformed) => break,
                Err(error @ HelloError::TooLarge) => return Err(InspectError::Hello(error)),
            }
        }
        self.hello_read = true;
        Ok(())
    }

    async fn http(&mut self) -> Result<(), InspectError> {
        if self.is_tls || !self.protocols.is_empty() {
            return Ok(());
        }
        loop {
            let found = match guess_http(&self.ahead) {
                HttpGuess::Http10 => Some("http/1.0"),
                HttpGuess::Http1 => Some("http/1.1"),
                HttpGuess::Http2 => Some("h2c"),
                HttpGuess::Other => None,
                HttpGuess::More if self.more().await? => continue,
                HttpGuess::More => None,
            };
            self.protocols.extend(found.map(str::to_owned));
            return Ok(());
        }
    }

    /// Lends the facts to the rules.
    pub(crate) fn with_facts<T>(&self, look: impl FnOnce(&rules::ConnectionFacts<'_>) -> T) -> T {
        let protocols: Vec<&str> = self.protocols.iter().map(String::as_str).collect();
        look(&rules::ConnectionFacts {
            destination: self.local,
            source: self.remote,
            direct_source: self.direct_remote,
            server_name: self.sni.as_deref(),
            transport: if self.is_tls {
                TransportProtocol::Tls
            } else {
                TransportProtocol::RawBuffer
            },
            application_protocols: &protocols,
        })
    }
}
