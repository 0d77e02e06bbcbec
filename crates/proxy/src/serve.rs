//! The way of one connection: inspect, choose a filter chain, terminate TLS, serve.
//!
//! In:    an accepted socket and the worker.
//! Out:   a served connection; a log line and a counter for one that is turned away.
//! Never: serves a connection by a configuration older than the choice of its chain.

use std::{
    future::{Future, poll_fn},
    pin::{Pin, pin},
    rc::Rc,
    sync::Arc,
    task::Poll,
    time::Duration,
};

use bytes::BytesMut;
use rustls::ProtocolVersion;
use sluis_rules::{Address, DownstreamTls, FilterChain, Listener, Metadata, Network};
use sluis_tls::{PeerIdentity, TlsSession, peer_identity};
use tokio::time::Instant;
use tokio_rustls::TlsStream;
use tracing::debug;

use crate::{
    accepted::{Accepted, Serving, Way},
    access_log::Logs,
    config::Config,
    conn::{ConnectionFacts, Downstream, Io, Socket, read_ahead::ReadAhead},
    drain::Gate,
    guards,
    http::{self, HttpWorker, Server},
    inspect::{InspectError, Inspection},
    sockets,
    stats::Counter,
    tcp,
};

/// Longest TLS handshake where the chain has no time of its own: as long as a person would wait.
const HANDSHAKE_WAIT_MAX: Duration = Duration::from_secs(10);

/// The same as [`serve`], for a chain that leads into another listener.
fn inner(server: &Rc<Server>, accepted: Accepted) -> Serving {
    Box::pin(serve(Rc::clone(server), Box::new(accepted)))
}

/// Serves a connection until it ends, or until its time after a drain is up.
///
/// What leads there is many times what a silent connection needs: it is boxed, and gone by then.
pub(crate) async fn serve(server: Rc<Server>, accepted: Box<Accepted>) {
    let worker = &server.worker;
    let Some(chosen) = Box::pin(choose(worker, accepted)).await else { return };
    let gate = chosen.gate.clone();
    // Pinned where it is: what serves a connection is large, and moved otherwise.
    let work = pin!(async {
        let (chain, logs) = (Arc::clone(&chosen.chain), Arc::clone(&chosen.logs));
        let Some(downstream) = Box::pin(open(worker, chosen)).await else { return };
        match &chain.network {
            Network::Tcp(proxy) => {
                let proxy = Arc::clone(proxy);
                let inner = |accepted| inner(&server, accepted);
                // HTTP connections should not carry the size of this one.
                Box::pin(tcp::serve(downstream, proxy, logs, (worker, &inner))).await;
            }
            Network::Http(manager) => {
                http::serve(downstream, Arc::clone(manager), &server).await;
            }
        }
    });
    until_closed(worker, &gate, work).await;
}

/// A connection whose filter chain is known.
struct Chosen {
    config: Arc<Config>,
    chain: Arc<FilterChain>,
    gate: Gate,
    /// Where TCP connections of the chain are logged.
    logs: Arc<Logs>,
    socket: Socket,
    ahead: BytesMut,
    facts: ConnectionFacts,
}

/// Inspects a connection and chooses its filter chain; `None` when it has been turned away.
async fn choose(worker: &HttpWorker, accepted: Box<Accepted>) -> Option<Box<Chosen>> {
    let start = Instant::now();
    let start_time = worker.wall_now();
    let Accepted { socket, ends, listener, way } = *accepted;
    let inspection = Inspection::new(socket, ends);
    let (inspection, listener_name) = match inspect(worker, inspection, &listener, &way).await {
        Ok(Some(done)) => done,
        // The listener went away meanwhile.
        Ok(None) => return None,
        Err(error) => {
            turn_away(worker, &listener, &error);
            return None;
        }
    };
    // The configuration of now: between here and the gate nothing waits, so that a chain which is
    // drained cannot be chosen any more.
    let config = worker.config();
    let listener = config.runtime.listeners.get(&listener_name)?;
    let chosen = inspection.with_facts(|facts| listener.chain(facts).map(|(c, _)| Arc::clone(c)));
    let mut facts = facts(worker, listener, &inspection, (start, start_time));
    facts.came_by(way);
    let Ok(chain) = chosen else {
        worker.stats().inc(Counter::NoFilterChain);
        tcp::log_unmatched(worker, listener, &config.listener_logs(listener), &facts);
        return None;
    };
    let gate = worker.gates.of(listener, &chain);
    facts.chain = Arc::clone(&chain.name);
    let logs = match &chain.network {
        Network::Tcp(proxy) => config.tcp_logs(proxy),
        Network::Http(_) => Arc::default(),
    };
    let Inspection { socket, ahead, .. } = inspection;
    Some(Box::new(Chosen { config, chain, gate, logs, socket, ahead, facts }))
}

/// Terminates TLS where the chain says so and asks its guards; `None` when the connection has been
/// turned away. The configuration is let go: one that lives long must not keep an old one alive.
async fn open(worker: &HttpWorker, chosen: Box<Chosen>) -> Option<Downstream> {
    let Chosen { config, chain, gate, logs, socket, ahead, facts } = *chosen;
    let terminated = match &chain.tls {
        None => Ok((Io::Plain(socket), ahead, facts)),
        // Large, and not there without TLS.
        Some(settings) => {
            let chain = (&*chain, settings);
            Box::pin(terminate(worker, &config, chain, socket, ahead, facts)).await
        }
    };
    drop(config);
    let (io, prefix, mut facts) = match terminated {
        Ok(terminated) => terminated,
        Err(refused) => {
            if let Network::Tcp(proxy) = &chain.network {
                tcp::log_refused(worker, proxy, &logs, &refused.facts, &refused.reason);
            }
            return None;
        }
    };
    if let Err(denied) = guards::admit(worker, &chain.guards, &mut facts).await {
        if let Network::Tcp(proxy) = &chain.network {
            tcp::log_denied(worker, proxy, &logs, &facts, denied);
        }
        return None;
    }
    Some(Downstream { io, prefix, facts: Arc::new(facts), gate })
}

/// Goes on with the work until it ends or the gate closes.
async fn until_closed(
    worker: &HttpWorker,
    gate: &Gate,
    mut work: Pin<&mut impl Future<Output = ()>>,
) {
    let mut closed = pin!(gate.closed());
    poll_fn(|cx| {
        // First, so that a filter which hears of the end itself can still write its log.
        if work.as_mut().poll(cx).is_ready() {
            return Poll::Ready(());
        }
        closed.as_mut().poll(cx).map(|()| worker.stats().inc(Counter::DownstreamCxDrained))
    })
    .await;
}

/// Counts and logs a connection that a listener's filters have closed.
fn turn_away(worker: &HttpWorker, listener: &str, error: &InspectError) {
    let counter = match error {
        InspectError::Timeout(_) => Counter::SniffTimeouts,
        _ => Counter::SniffFaults,
    };
    worker.stats().inc(counter);
    debug!(listener, %error, "connection closed by a listener filter");
}

/// Runs the filters of the accepting listener and of the one that it hands over to.
async fn inspect(
    worker: &HttpWorker,
    mut inspection: Inspection,
    accepting: &str,
    way: &Way,
) -> Result<Option<(Inspection, Arc<str>)>, InspectError> {
    let config = worker.config();
    let Some(listener) = config.runtime.listeners.get(accepting) else { return Ok(None) };
    if matches!(way, Way::Captured) {
        inspection.captured()?;
    }
    inspection.run(listener).await?;
    let next = match inspection.original_dst {
        Some(destination) => config.runtime.listener_for(listener, destination),
        None => listener,
    };
    if !Arc::ptr_eq(next, listener) {
        inspection.run(next).await?;
    }
    let name = Arc::clone(&next.name);
    Ok(Some((inspection, name)))
}

impl ConnectionFacts {
    /// With what another listener has found out.
    fn came_by(&mut self, way: Way) {
        if let Way::Inner { peer, own_uris } = way {
            (self.is_inner, self.peer, self.own_uris) = (true, peer, own_uris);
        }
    }
}

fn facts(
    worker: &HttpWorker,
    listener: &Listener,
    seen: &Inspection,
    (start, start_time): (Instant, std::time::SystemTime),
) -> ConnectionFacts {
    let unix = || Address::Pipe(std::path::Path::new("").into());
    ConnectionFacts {
        id: worker.next_connection_id(),
        listener: Arc::clone(&listener.name),
        chain: Arc::default(),
        local: seen.local.map_or_else(|| listener.address.clone(), Address::Socket),
        remote: seen.remote.map_or_else(unix, Address::Socket),
        direct_remote: seen.direct_remote.map_or_else(unix, Address::Socket),
        original_dst: seen.original_dst,
        source: seen.source_mark.zip(seen.remote).map(|(mark, remote)| (remote.ip(), mark)),
        sni: seen.sni.as_deref().map(Arc::from),
        application_protocols: seen.protocols.clone(),
        is_tls: seen.is_tls,
        tls_terminated: false,
        own_uris: Vec::new(),
        own_certificate: None,
        session: None,
        peer: None,
        is_inner: false,
        start,
        start_time,
        metadata: Metadata::default(),
    }
}

/// A client that was not taken through the handshake, and why.
struct Refused {
    facts: ConnectionFacts,
    reason: String,
}

/// Takes the client through the handshake that the chain asks for; else the connection is closed.
async fn terminate(
    worker: &HttpWorker,
    config: &Config,
    (chain, settings): (&FilterChain, &Arc<DownstreamTls>),
    socket: Socket,
    ahead: BytesMut,
    facts: ConnectionFacts,
) -> Result<(Io, BytesMut, ConnectionFacts), Refused> {
    let limit = chain.handshake_timeout.unwrap_or(HANDSHAKE_WAIT_MAX);
    let failed = |facts: ConnectionFacts, error: &dyn std::fmt::Display| {
        worker.stats().inc(Counter::TlsErrors);
        debug!(listener = %facts.listener, remote = %facts.remote, sni = ?facts.sni, %error, "TLS handshake failed");
        Refused { facts, reason: error.to_string() }
    };
    let Some(tls) = config.server_tls(settings) else {
        return Err(failed(facts, &"the filter chain's TLS settings cannot be used"));
    };
    let stream = match tokio::time::timeout(limit, tls.accept(ReadAhead::new(ahead, socket))).await
    {
        Ok(Ok(stream)) => stream,
        Ok(Err(error)) => return Err(failed(facts, &error)),
        Err(_) => return Err(failed(facts, &format_args!("not done within {limit:?}"))),
    };
    let (socket, session) = stream.get_ref();
    if !tls.sends_tickets() && session.protocol_version() == Some(ProtocolVersion::TLSv1_3) {
        // Nothing of ours follows the client's last message before its request does.
        sockets::acknowledge_now(socket.inner());
    }
    let peer: Option<PeerIdentity> = match session.peer_certificates().map(peer_identity) {
        None => None,
        Some(Ok(peer)) => Some(peer),
        Some(Err(error)) => return Err(failed(facts, &error)),
    };
    let sni = session.server_name().map(|name| name.to_ascii_lowercase().into());
    worker.stats().inc(Counter::TlsHandshakes);
    let facts = ConnectionFacts {
        sni: sni.or(facts.sni),
        is_tls: true,
        tls_terminated: true,
        own_uris: if peer.is_some() { tls.own_uris() } else { facts.own_uris },
        own_certificate: tls.own_certificate(),
        session: TlsSession::of(session),
        // Who shows no certificate inside is who it was outside.
        peer: peer.or(facts.peer),
        ..facts
    };
    let io = Io::Tls(Box::new(TlsStream::Server(stream)));
    Ok((io, BytesMut::new(), facts))
}
