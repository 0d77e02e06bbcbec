//! The life of one HTTP/2 connection of a client: streams in, pings, drain, the end.
//!
//! In:    a connection whose client speaks HTTP/2, the compiled manager that serves it.
//! Out:   one task per stream, all of which end with the connection.
//! Never: accepts streams after the drain has begun; serves a client that resets its streams as
//!        fast as it opens them.

use std::{
    pin::pin,
    rc::Rc,
    task::{Context, Poll},
    time::Duration,
};

use bytes::BytesMut;
use sluis_http2::{Accepted, Connection, Reason, Role};
use tokio::{
    io::AsyncWriteExt as _,
    task::JoinSet,
    time::{Instant, timeout},
};
use tracing::debug;

use super::{
    HANDSHAKE_WAIT_MAX, STREAMS_MAX, options, ping,
    stream::{self, Tally},
    wire::Wire,
};
use crate::{
    conn::Io,
    drain::Gate,
    http::{
        clock::{Clock, earlier},
        site::Place,
    },
    stats::Counter,
};

/// Streams that a client may reset early before it is looked at; Envoy's bound.
const EARLY_RESETS_MAX: u64 = 100;

/// How long a farewell may take to leave.
const FAREWELL_WAIT_MAX: Duration = Duration::from_secs(1);

/// Serves a connection, of which some bytes have been read already, until it ends.
pub(in crate::http) async fn serve(mut io: Io, ahead: BytesMut, place: Rc<Place>, gate: Gate) {
    let manager = &place.program.manager;
    let settings = &manager.http2;
    let mut own = options(settings, place.program.limits.head_bytes_max);
    own.streams_max = settings.max_concurrent_streams.unwrap_or(STREAMS_MAX);
    own.connect_protocol = settings.allow_connect;
    let wire = Wire::new(Role::Server, own);
    wire.with(|engine| engine.feed(&ahead));
    drop(ahead);
    let asking = ping::keep_asking(&wire, settings.keepalive, place.worker.random());
    let mut streams = Streams::new(Rc::clone(&place), Rc::clone(&wire));
    tokio::select! {
        () = streams.run(&mut io, &gate) => {}
        () = asking => {
            debug!(remote = %place.facts.remote, "no answer to a ping: connection closed");
            return;
        }
    }
    // Without it the peer could not tell the end from a cut (RFC 8446 §6.1).
    let _late = timeout(FAREWELL_WAIT_MAX, io.shutdown()).await;
}

/// The streams of one connection.
struct Streams {
    place: Rc<Place>,
    wire: Rc<Wire>,
    tasks: JoinSet<()>,
    tally: Rc<Tally>,
    clock: Clock,
    born: Instant,
    idle_from: Instant,
    drain_from: Instant,
    is_draining: bool,
}

/// What happened on the connection.
enum Happened {
    Drain,
    Late,
    End,
}

impl Streams {
    fn new(place: Rc<Place>, wire: Rc<Wire>) -> Self {
        let now = Instant::now();
        Self {
            place,
            wire,
            tasks: JoinSet::new(),
            tally: Rc::default(),
            clock: Clock::new(now),
            born: now,
            idle_from: now,
            drain_from: now,
            is_draining: false,
        }
    }

    async fn run(&mut self, io: &mut Io, gate: &Gate) {
        let mut draining = pin!(gate.draining());
        loop {
            let happened = std::future::poll_fn(|cx| {
                if !self.is_draining && draining.as_mut().poll(cx).is_ready() {
                    return Poll::Ready(Happened::Drain);
                }
                self.poll(cx, io)
            });
            match happened.await {
                Happened::Drain => self.drain(),
                Happened::Late => {
                    self.wire.with(Connection::lost);
                    break;
                }
                Happened::End => break,
            }
        }
        let (failure, is_settled) = self.wire.see(|engine| (engine.failure(), engine.is_settled()));
        if let Some(reason) = failure {
            debug!(remote = %self.place.facts.remote, ?reason, "HTTP/2 connection ended");
        }
        if failure.is_some() || !is_settled {
            self.place.worker.stats().inc(Counter::HttpFramingErrors);
        }
        // The last streams may still be writing their logs.
        while self.tasks.join_next().await.is_some() {}
    }

    fn begin(&mut self, accepted: Accepted) {
        self.tally.begun.set(self.tally.begun.get() + 1);
        let (place, wire) = (Rc::clone(&self.place), Rc::clone(&self.wire));
        // Boxed: the task would be moved as a whole each time its state changes.
        let serving = stream::serve(place, wire, accepted, Rc::clone(&self.tally));
        self.tasks.spawn_local(Box::pin(serving));
        let most = self.place.program.manager.http.max_requests;
        if most.is_some_and(|most| self.tally.begun.get() >= u64::from(most)) {
            self.drain();
        }
    }

    fn drain(&mut self) {
        if !std::mem::replace(&mut self.is_draining, true) {
            self.drain_from = Instant::now();
            self.wire.with(Connection::drain);
        }
    }

    fn poll(&mut self, cx: &mut Context<'_>, io: &mut Io) -> Poll<Happened> {
        while let Poll::Ready(Some(ended)) = self.tasks.poll_join_next(cx) {
            if ended.is_err_and(|error| error.is_panic()) {
                self.place.worker.stats().inc(Counter::DownstreamPanics);
            }
            if self.tasks.is_empty() {
                self.idle_from = Instant::now();
            }
        }
        let early = self.tally.early_resets.get();
        if early > EARLY_RESETS_MAX && early * 2 > self.tally.begun.get() {
            self.tally.early_resets.set(0);
            debug!(remote = %self.place.facts.remote, "streams reset too fast: connection closed");
            self.wire.with(|engine| engine.fail(Reason::ENHANCE_YOUR_CALM));
        }
        let ended = self.wire.poll_io(cx, io);
        while let Some(accepted) = self.wire.with(Connection::accept) {
            self.begin(accepted);
        }
        if ended.is_ready() {
            return Poll::Ready(Happened::End);
        }
        let deadline = self.deadline();
        match self.clock.poll_until(cx, deadline) {
            Poll::Ready(()) if self.is_draining || !self.is_settled() => {
                Poll::Ready(Happened::Late)
            }
            Poll::Ready(()) => Poll::Ready(Happened::Drain),
            Poll::Pending => Poll::Pending,
        }
    }

    fn is_settled(&self) -> bool {
        self.wire.see(Connection::is_settled)
    }

    /// When the connection is to take no more streams.
    fn deadline(&self) -> Option<Instant> {
        if !self.is_settled() {
            return Some(self.born + HANDSHAKE_WAIT_MAX);
        }
        if self.is_draining {
            // A client that does not answer our farewell is not waited for.
            let wait = self.place.program.manager.drain_timeout;
            return self.tasks.is_empty().then(|| self.idle_from.max(self.drain_from) + wait);
        }
        let options = &self.place.program.manager.http;
        let idle: Option<Duration> = options.idle_timeout.filter(|_| self.tasks.is_empty());
        let age = options.max_connection_duration.map(|age| self.born + age);
        earlier(idle.map(|idle| self.idle_from + idle), age)
    }
}
