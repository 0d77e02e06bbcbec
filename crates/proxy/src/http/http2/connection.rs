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

use bytes::Bytes;
use h2::{
    Reason, RecvStream,
    server::{Builder, Connection, SendResponse},
};
use http::Request;
use tokio::{
    task::JoinSet,
    time::{Instant, timeout},
};
use tracing::debug;

use super::{
    HANDSHAKE_WAIT_MAX, SEND_BUFFER_BYTES_MAX, STREAMS_MAX, ping,
    sessions::header_list_bytes,
    stream::{self, Tally},
    windows,
};
use crate::{
    conn::{Io, Prefixed},
    drain::Gate,
    http::{
        clock::{Clock, earlier},
        connection::Place,
    },
    stats::Counter,
};

/// Streams that a client may reset early before it is looked at; Envoy's bound.
const EARLY_RESETS_MAX: u64 = 100;

/// Serves a connection until it ends.
pub(in crate::http) async fn serve(io: Prefixed<Io>, place: Rc<Place>, gate: Gate) {
    let manager = &place.program.manager;
    let options = &manager.http2;
    let (stream_window, connection_window) = windows(options);
    let mut builder = Builder::new();
    builder
        .initial_window_size(stream_window)
        .initial_connection_window_size(connection_window)
        .max_concurrent_streams(options.max_concurrent_streams.unwrap_or(STREAMS_MAX))
        .max_send_buffer_size(SEND_BUFFER_BYTES_MAX)
        .max_header_list_size(header_list_bytes(place.program.limits.head_bytes_max));
    if options.allow_connect {
        builder.enable_connect_protocol();
    }
    let shaken = timeout(HANDSHAKE_WAIT_MAX, builder.handshake(io)).await;
    let Ok(Ok(mut connection)) = shaken else {
        place.worker.stats().inc(Counter::HttpFramingErrors);
        return;
    };
    let mut pings = connection.ping_pong();
    let asking = ping::keep_asking(&mut pings, options.keepalive, place.worker.random());
    let mut streams = Streams::new(Rc::clone(&place));
    tokio::select! {
        () = streams.run(&mut connection, &gate) => {}
        () = asking => {
            debug!(remote = %place.facts.remote, "no answer to a ping: connection closed");
        }
    }
}

/// The streams of one connection.
struct Streams {
    place: Rc<Place>,
    tasks: JoinSet<()>,
    tally: Rc<Tally>,
    clock: Clock,
    born: Instant,
    idle_from: Instant,
    drain_from: Instant,
    is_draining: bool,
}

/// What happened on the connection.
#[expect(clippy::large_enum_variant, reason = "looked at once and taken apart")]
enum Happened {
    Stream(Request<RecvStream>, SendResponse<Bytes>),
    Drain,
    Abuse,
    End,
}

impl Streams {
    fn new(place: Rc<Place>) -> Self {
        let now = Instant::now();
        Self {
            place,
            tasks: JoinSet::new(),
            tally: Rc::default(),
            clock: Clock::new(now),
            born: now,
            idle_from: now,
            drain_from: now,
            is_draining: false,
        }
    }

    async fn run(&mut self, connection: &mut Connection<Prefixed<Io>, Bytes>, gate: &Gate) {
        let mut draining = pin!(gate.draining());
        loop {
            let happened = std::future::poll_fn(|cx| {
                if !self.is_draining && draining.as_mut().poll(cx).is_ready() {
                    return Poll::Ready(Happened::Drain);
                }
                self.poll(cx, connection)
            });
            match happened.await {
                Happened::Stream(request, respond) => {
                    self.begin(request, respond);
                    let most = self.place.program.manager.http.max_requests;
                    if most.is_some_and(|most| self.tally.begun.get() >= u64::from(most)) {
                        self.drain(connection);
                    }
                }
                Happened::Drain => self.drain(connection),
                Happened::Abuse => {
                    debug!(remote = %self.place.facts.remote, "streams reset too fast: connection closed");
                    self.place.worker.stats().inc(Counter::HttpFramingErrors);
                    connection.abrupt_shutdown(Reason::ENHANCE_YOUR_CALM);
                    self.is_draining = true;
                }
                Happened::End => break,
            }
        }
        // The last streams may still be writing their logs.
        while self.tasks.join_next().await.is_some() {}
    }

    fn begin(&mut self, request: Request<RecvStream>, respond: SendResponse<Bytes>) {
        self.tally.begun.set(self.tally.begun.get() + 1);
        let place = Rc::clone(&self.place);
        // Boxed: the task would be moved as a whole each time its state changes.
        let serving = stream::serve(place, request, respond, Rc::clone(&self.tally));
        self.tasks.spawn_local(Box::pin(serving));
    }

    fn drain(&mut self, connection: &mut Connection<Prefixed<Io>, Bytes>) {
        if !std::mem::replace(&mut self.is_draining, true) {
            self.drain_from = Instant::now();
            connection.graceful_shutdown();
        }
    }

    fn poll(
        &mut self,
        cx: &mut Context<'_>,
        connection: &mut Connection<Prefixed<Io>, Bytes>,
    ) -> Poll<Happened> {
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
            return Poll::Ready(Happened::Abuse);
        }
        match connection.poll_accept(cx) {
            Poll::Ready(Some(Ok((request, respond)))) => {
                return Poll::Ready(Happened::Stream(request, respond));
            }
            Poll::Ready(Some(Err(error))) => {
                debug!(remote = %self.place.facts.remote, %error, "HTTP/2 connection ended");
                if error.is_library() {
                    self.place.worker.stats().inc(Counter::HttpFramingErrors);
                }
                return Poll::Ready(Happened::End);
            }
            Poll::Ready(None) => return Poll::Ready(Happened::End),
            Poll::Pending => {}
        }
        let deadline = self.deadline();
        match self.clock.poll_until(cx, deadline) {
            Poll::Ready(()) if self.is_draining => Poll::Ready(Happened::End),
            Poll::Ready(()) => Poll::Ready(Happened::Drain),
            Poll::Pending => Poll::Pending,
        }
    }

    /// When the connection is to take no more streams.
    fn deadline(&self) -> Option<Instant> {
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
