//! Proxies connections as TCP: choose a cluster, connect, move bytes, log.
//!
//! In:    a [`Downstream`] whose chain says TCP.
//! Out:   bytes both ways; one access-log record per connection.
//! Never: goes anywhere but to the chain's clusters: without an endpoint the connection is closed.

mod inner;
mod pump;

use std::{borrow::Cow, sync::Arc, time::Duration};

use sluis_rules::{Discovery, Listener, TcpProxy, xx64};
use tokio::io::AsyncReadExt as _;
use tracing::debug;

use self::pump::{End, Moved, pump};
use crate::{
    accepted::{Serve, Serving},
    access_log::{Flag, Flags, Logs, Record},
    config::Backend,
    conn::{ConnectionFacts, Downstream},
    guards::Denied,
    sniff::HelloReader,
    stats::Counter,
    upstream::{ConnectContext, ConnectError, Dialer, Pick, Target, Upstream},
    worker::Worker,
};

/// Wait before another try to connect, so that a refused connection is not tried in a tight loop.
const RETRY_WAIT: Duration = Duration::from_millis(25);

/// Wait for the hello of a client that is blocked: one on the same machine has sent it by then.
const ASKED_NAME_WAIT_MAX: Duration = Duration::from_millis(200);

/// Wait for the hello inside the TLS that we have terminated: Envoy's limit for listener filters.
const INNER_NAME_WAIT_MAX: Duration = Duration::from_secs(15);

/// What the access log says at the end.
#[derive(Default)]
struct Outcome {
    flags: Flags,
    cluster: Option<Arc<str>>,
    stat_name: Option<Arc<str>>,
    pick: Option<Pick>,
    local: Option<std::net::SocketAddr>,
    attempts: u32,
    moved: Option<Moved>,
    termination: Option<Cow<'static, str>>,
    transport_failure: Option<String>,
    /// Why the client's handshake failed.
    handshake_failure: Option<String>,
    /// The name in the hello of a client that was blocked, when no listener filter had read it.
    asked: Option<String>,
    /// The cluster has no endpoint: the connection was not to go anywhere.
    is_blocked: bool,
}

/// Serves one connection.
pub(crate) async fn serve(
    downstream: Downstream,
    proxy: Arc<TcpProxy>,
    logs: Arc<Logs>,
    (worker, inner): (&Dialer, Serve<'_>),
) {
    worker.stats().inc(Counter::TcpTotal);
    let mut facts = Arc::clone(&downstream.facts);
    let outcome = forward(downstream, &proxy, (worker, inner)).await;
    if let Some(asked) = &outcome.asked {
        Arc::make_mut(&mut facts).sni = Some(Arc::from(asked.as_str()));
    }
    if let Some(moved) = &outcome.moved {
        worker.stats().add(Counter::TcpReceived, moved.received);
        worker.stats().add(Counter::TcpSent, moved.sent);
    }
    write_log(worker, &logs, &facts, &outcome);
}

/// Logs a connection that no filter chain wanted.
pub(crate) fn log_unmatched(
    worker: &Worker,
    listener: &Listener,
    logs: &Logs,
    facts: &ConnectionFacts,
) {
    debug!(listener = %listener.name, remote = %facts.remote, local = %facts.local, sni = ?facts.sni, "no filter chain matches");
    let termination = Some("filter_chain_not_found".into());
    let outcome = Outcome { flags: Flag::NoRouteFound.into(), termination, ..Outcome::default() };
    write_log(worker, logs, facts, &outcome);
}

/// Logs a connection that was not let pass.
pub(crate) fn log_denied(
    worker: &Worker,
    proxy: &TcpProxy,
    logs: &Logs,
    facts: &ConnectionFacts,
    denied: Denied,
) {
    worker.stats().inc(Counter::TcpTotal);
    let cluster = Arc::clone(proxy.target.pick(worker.random().next()));
    let config = worker.peek_config();
    let outcome = Outcome {
        stat_name: config.backend(&cluster).map(|backend| Arc::clone(&backend.stat_name)),
        cluster: Some(cluster),
        flags: denied.flag.map(Flags::from).unwrap_or_default(),
        termination: Some(denied.details),
        ..Outcome::default()
    };
    drop(config);
    write_log(worker, logs, facts, &outcome);
}

/// Logs a connection whose TLS was refused: who has no certificate of the mesh is to be read there.
pub(crate) fn log_refused(
    worker: &Worker,
    proxy: &TcpProxy,
    logs: &Logs,
    facts: &ConnectionFacts,
    reason: &str,
) {
    let cluster = Some(Arc::clone(proxy.target.pick(worker.random().next())));
    // As Envoy writes it: one word.
    let handshake_failure = Some(reason.replace(' ', "_"));
    write_log(worker, logs, facts, &Outcome { cluster, handshake_failure, ..Outcome::default() });
}

async fn forward(
    mut downstream: Downstream,
    proxy: &TcpProxy,
    (worker, inner): (&Dialer, Serve<'_>),
) -> Outcome {
    let mut outcome = Outcome::default();
    let name = proxy.target.pick(worker.random().next());
    outcome.cluster = Some(Arc::clone(name));
    let Some(backend) = worker.peek_config().backend(name).cloned() else {
        outcome.flags.set(Flag::NoClusterFound);
        outcome.termination = Some("cluster_not_found".into());
        return outcome;
    };
    outcome.stat_name = Some(Arc::clone(&backend.stat_name));
    let gate = downstream.gate.clone();
    let connected = tokio::select! {
        connected = connect((worker, inner), &backend, proxy, &mut downstream, &mut outcome) => connected,
        () = gate.closed() => None,
    };
    let Some((Upstream { io: mut upstream, local, pick, _held }, work)) = connected else {
        if outcome.is_blocked && downstream.facts.sni.is_none() && !downstream.facts.tls_terminated
        {
            outcome.asked = asked_name(&mut downstream, ASKED_NAME_WAIT_MAX).await;
        }
        return outcome;
    };
    let host = pick.host.clone().filter(|_| backend.closes_on_failure);
    (outcome.local, outcome.pick) = (local, Some(pick));
    let ahead = std::mem::take(&mut downstream.prefix);
    let limit = async {
        match proxy.max_duration {
            Some(limit) => tokio::time::sleep(limit).await,
            None => std::future::pending().await,
        }
    };
    let unwell = async {
        match host {
            Some(host) => host.failed.notified().await,
            None => std::future::pending().await,
        }
    };
    let stop = async {
        tokio::select! {
            () = unwell => End::UpstreamError,
            () = limit => End::TooOld,
            () = gate.closed() => End::Drained,
        }
    };
    let moving = async move {
        let ends = (&mut downstream.io, ahead);
        pump(worker, ends, &mut upstream, proxy.idle_timeout).until(stop).await
        // Here `upstream` is closed: the work of an inner listener sees the end.
    };
    let moved = match work {
        Some(work) => tokio::join!(moving, work).0,
        None => moving.await,
    };
    match moved.end {
        End::Finished | End::UpstreamError | End::DownstreamError | End::Drained => {}
        End::Idle => {
            worker.stats().inc(Counter::TcpIdleTimeouts);
            outcome.termination = Some("tcp_session_idle_timeout".into());
        }
        End::TooOld => {
            outcome.flags.set(Flag::DurationTimeout);
            outcome.termination = Some("max_duration_timeout".into());
        }
    }
    outcome.moved = Some(moved);
    outcome
}

/// The server name in a hello that no listener filter has read.
///
/// Of a blocked client it is what the operator wants to read in the log; the connection is closed
/// in any case, and a client that does not speak first has lost nothing.
async fn asked_name(downstream: &mut Downstream, wait_max: Duration) -> Option<String> {
    let reading = async {
        let mut hello = HelloReader::default();
        loop {
            if let Some(hello) = hello.read(&downstream.prefix).ok()? {
                return hello.sni;
            }
            if downstream.io.read_buf(&mut downstream.prefix).await.ok()? == 0 {
                return None;
            }
        }
    };
    tokio::time::timeout(wait_max, reading).await.ok()?
}

/// Whether the bytes inside the TLS that we have terminated must be TLS for the same name.
///
/// A cluster that is guarded leads to what the client names. A sidecar says the name in the mesh's
/// TLS, which policy is decided by; the application says it inside. A compromised sidecar must not
/// have one name allowed and lead to another (a fake outer SNI).
fn holds_inner_name(proxy: &TcpProxy, facts: &ConnectionFacts, backend: &Backend) -> bool {
    let is_guarded = match &backend.discovery {
        Discovery::DynamicForward(forward) => !forward.reach.patterns.is_empty(),
        _ => false,
    };
    is_guarded && facts.tls_terminated && proxy.sni_port.is_some()
}

/// Connects, as often as the proxy may try.
async fn connect(
    (worker, serve): (&Dialer, Serve<'_>),
    backend: &Arc<Backend>,
    proxy: &TcpProxy,
    downstream: &mut Downstream,
    outcome: &mut Outcome,
) -> Option<(Upstream, Option<Serving>)> {
    let facts = Arc::clone(&downstream.facts);
    if let Some(listener) = inner::listener_of(backend) {
        outcome.attempts = 1;
        return match inner::enter(serve, backend, listener, &facts) {
            Ok((upstream, work)) => Some((upstream, Some(work))),
            Err(error) => {
                debug!(cluster = %backend.name, %listener, remote = %facts.remote, %error, "no way in");
                outcome.flags.set(Flag::UpstreamConnectionFailure);
                outcome.termination = Some("inner_listener_unreachable".into());
                None
            }
        };
    }
    let mut context = context(proxy, &facts);
    let inner;
    if holds_inner_name(proxy, &facts, backend) {
        inner = asked_name(downstream, INNER_NAME_WAIT_MAX).await.unwrap_or_default();
        let sni = facts.sni.as_deref();
        context.target = Some(Target { host: &inner, port: proxy.sni_port, sni });
    }
    loop {
        outcome.attempts += 1;
        let error = match worker.connect(backend, &context).await {
            Ok(upstream) => return Some((upstream, None)),
            Err(error) => error,
        };
        debug!(cluster = %backend.name, remote = %facts.remote, sni = ?facts.sni, %error, "no connection to an endpoint");
        outcome.transport_failure = error.transport_failure().map(str::to_owned);
        if matches!(error, ConnectError::NoEndpoint { .. }) {
            worker.stats().inc(Counter::TcpBlocked);
            outcome.is_blocked = true;
        }
        if !error.is_worth_another_try() || outcome.attempts >= proxy.max_connect_attempts {
            if let Some(flag) = Flag::of(error.flag()) {
                outcome.flags.set(flag);
            }
            if error.is_worth_another_try() {
                // As Envoy says it: all tries are used up.
                outcome.flags.set(Flag::UpstreamRetryLimitExceeded);
            }
            outcome.termination = Some(error.details().into());
            outcome.pick = error.into_pick();
            return None;
        }
        tokio::time::sleep(RETRY_WAIT).await;
    }
}

/// What the choice of an endpoint may depend on.
fn context<'p>(proxy: &'p TcpProxy, facts: &'p ConnectionFacts) -> ConnectContext<'p> {
    let own = ConnectContext::of(facts);
    let target = proxy.sni_port.zip(facts.sni.as_deref());
    ConnectContext {
        // As Envoy hashes it: the address as a text, without its port.
        hash: own
            .downstream
            .filter(|_| proxy.hashes_source)
            .map(|(source, _)| xx64(source.ip().to_string().as_bytes())),
        labels: proxy.labels.as_ref(),
        target: target.map(|(port, host)| Target { host, port: Some(port), sni: None }),
        tunnel: proxy.tunnel.as_ref(),
        server_name: facts.sni.as_deref().filter(|_| proxy.passes_name),
        ..own
    }
}

fn write_log(worker: &Worker, logs: &Logs, facts: &ConnectionFacts, outcome: &Outcome) {
    if logs.is_empty() {
        return;
    }
    logs.write(
        worker.logs(),
        &Record {
            duration: worker.now().saturating_duration_since(facts.start),
            flags: outcome.flags,
            connection_termination_details: outcome.termination.as_deref(),
            upstream_transport_failure: outcome.transport_failure.as_deref(),
            downstream_transport_failure: outcome.handshake_failure.as_deref(),
            bytes_received: outcome.moved.as_ref().map_or(0, |moved| moved.received),
            bytes_sent: outcome.moved.as_ref().map_or(0, |moved| moved.sent),
            upstream_host: outcome.pick.as_ref().map(|pick| &pick.address),
            upstream_local: outcome.local,
            upstream_cluster: outcome.cluster.as_deref(),
            upstream_cluster_stat: outcome.stat_name.as_deref(),
            upstream_attempts: outcome.attempts,
            ..Record::new(facts)
        },
    );
}
