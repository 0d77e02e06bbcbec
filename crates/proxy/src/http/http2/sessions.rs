//! HTTP/2 connections to endpoints, shared by the requests that go there.
//!
//! In:    a request's place (cluster, endpoint, TLS, server name).
//! Out:   a [`Lease`]: one stream's share of a connection with room for it.
//! Never: opens a second connection to a place while the first is being opened, or one beside a
//!        connection with room; puts more streams on a connection than both sides allow.

use std::{
    cell::{Cell, RefCell},
    collections::HashMap,
    future::poll_fn,
    net::SocketAddr,
    rc::{Rc, Weak},
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use foldhash::fast::RandomState;
use sluis_http1::{Known, Limits, Method, RequestHead};
use sluis_http2::{Connection, HeadWriter, Role};
use sluis_rules::{Cluster, Http2Keepalive, UpstreamProtocol, UpstreamTls};
use tokio::{
    io::AsyncWriteExt as _,
    sync::Notify,
    task::JoinSet,
    time::{Instant, sleep_until, timeout},
};
use tracing::debug;

use super::{
    HANDSHAKE_WAIT_MAX, STREAMS_MAX,
    endpoint::Remote,
    heads, options, ping,
    wire::{Handle, Wire},
};
use crate::{
    conn::Io,
    http::{desk::Desk, failure::Failure, piece::Fault, pool::Key, sealed::Sealed},
    random::Random,
    stats::Counter,
    upstream::Upstream,
    worker::Worker,
};

/// How often a session is looked at whether it is idle or old.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// How long a farewell may take to leave.
const FAREWELL_WAIT_MAX: Duration = Duration::from_secs(1);

/// One worker's sessions.
#[derive(Debug, Default)]
pub(in crate::http) struct Sessions {
    places: RefCell<HashMap<Key, Rc<Place>, RandomState>>,
    /// One task for each connection; they end with the worker.
    drivers: RefCell<JoinSet<()>>,
}

/// Where sessions go to.
#[derive(Debug)]
struct Place {
    /// Keep the key's places in memory from being used by others.
    _cluster: Arc<Cluster>,
    _tls: Option<Arc<UpstreamTls>>,
    sessions: RefCell<Vec<Rc<Session>>>,
    /// Whether somebody is opening a connection.
    is_opening: Cell<bool>,
    /// Told when a connection has been opened or has not, when a stream ends, when one is lost.
    changed: Notify,
    /// Whether TLS agreed on HTTP/1.1 the last time.
    speaks_http1: Cell<bool>,
}

/// One connection.
#[derive(Debug)]
struct Session {
    wire: Rc<Wire>,
    local: Option<SocketAddr>,
    streams: Cell<u32>,
    requests: Cell<u32>,
    requests_max: Option<u32>,
    /// Whether it takes no more requests.
    is_done: Cell<bool>,
    /// Whether the endpoint's settings are known.
    is_settled: Cell<bool>,
    settled: Notify,
    last_use: Cell<Instant>,
}

impl Session {
    fn has_room(&self) -> bool {
        // Shares that have not begun their streams count too.
        let streams = self.streams.get() as usize;
        !self.is_done.get() && self.wire.see(|engine| engine.has_room_for(streams))
    }
}

impl Drop for Session {
    /// Nobody can begin a stream any more: those under way end in their own time.
    fn drop(&mut self) {
        self.wire.with(Connection::drain);
    }
}

/// One stream's share of a session.
#[derive(Debug)]
pub(in crate::http) struct Lease {
    session: Rc<Session>,
    place: Rc<Place>,
}

impl Drop for Lease {
    fn drop(&mut self) {
        let session = &self.session;
        session.streams.set(session.streams.get() - 1);
        session.last_use.set(Instant::now());
        if session.is_done.get() {
            self.place.forget(session);
        }
        self.place.changed.notify_one();
    }
}

/// For whom a session is wanted.
#[derive(Clone, Copy)]
pub(in crate::http) struct Seat<'s> {
    pub(in crate::http) worker: &'s Worker,
    pub(in crate::http) limits: Limits,
}

/// What a request gets.
pub(in crate::http) enum Acquired {
    Http2(Lease),
    /// The endpoint chose HTTP/1.1; the connection, if it was opened for this request.
    Http1(Option<Upstream>),
}

/// Says that nobody is opening a connection any more, however that ended.
struct Opening<'p>(&'p Place);

impl Drop for Opening<'_> {
    fn drop(&mut self) {
        self.0.is_opening.set(false);
        self.0.changed.notify_waiters();
        self.0.changed.notify_one();
    }
}

impl Sessions {
    /// A share of a session that is there and has room.
    pub(in crate::http) fn lease(&self, worker: &Worker, key: &Key) -> Option<Lease> {
        let place = Rc::clone(self.places.borrow().get(key)?);
        let lease = Place::lease(&place)?;
        worker.stats().inc(Counter::HttpPoolHits);
        Some(lease)
    }

    /// A share of a session, of one that is there or of one that `dial` opens.
    pub(in crate::http) async fn acquire(
        &self,
        seat: Seat<'_>,
        (cluster, tls): (&Arc<Cluster>, Option<&Arc<UpstreamTls>>),
        key: &Key,
        dial: impl AsyncFnOnce() -> Result<Upstream, Failure>,
    ) -> Result<Acquired, Failure> {
        let place = self.place(key, cluster, tls);
        let opening = loop {
            if let Some(lease) = Place::lease(&place) {
                seat.worker.stats().inc(Counter::HttpPoolHits);
                return Ok(Acquired::Http2(lease));
            }
            if place.speaks_http1.get() {
                return Ok(Acquired::Http1(None));
            }
            if !place.is_opening.replace(true) {
                break Opening(&place);
            }
            place.changed.notified().await;
        };
        let upstream = dial().await?;
        if cluster.protocol == UpstreamProtocol::Auto && upstream.io.alpn() != Some(b"h2") {
            place.speaks_http1.set(true);
            return Ok(Acquired::Http1(Some(upstream)));
        }
        let session = self.open(seat, &place, cluster, upstream);
        place.sessions.borrow_mut().push(session);
        drop(opening);
        Place::lease(&place).map(Acquired::Http2).ok_or(Failure::Reset { is_refused: true })
    }

    fn place(
        &self,
        key: &Key,
        cluster: &Arc<Cluster>,
        tls: Option<&Arc<UpstreamTls>>,
    ) -> Rc<Place> {
        let mut places = self.places.borrow_mut();
        if let Some(place) = places.get(key) {
            return Rc::clone(place);
        }
        // A place that nobody goes to any more is forgotten when another is made.
        places
            .retain(|_, place| Rc::strong_count(place) > 1 || !place.sessions.borrow().is_empty());
        let place = Rc::new(Place {
            _cluster: Arc::clone(cluster),
            _tls: tls.cloned(),
            sessions: RefCell::default(),
            is_opening: Cell::new(false),
            changed: Notify::new(),
            speaks_http1: Cell::new(false),
        });
        places.insert(key.clone(), Rc::clone(&place));
        place
    }

    /// Speaks first, and leaves the connection to its driver.
    fn open(
        &self,
        seat: Seat<'_>,
        place: &Rc<Place>,
        cluster: &Cluster,
        upstream: Upstream,
    ) -> Rc<Session> {
        let mut own = options(&cluster.http2, seat.limits.head_bytes_max);
        own.streams_max = cluster.http2.max_concurrent_streams.unwrap_or(STREAMS_MAX);
        let Upstream { io, local, .. } = upstream;
        let session = Rc::new(Session {
            wire: Wire::new(Role::Client, own),
            local,
            streams: Cell::new(0),
            requests: Cell::new(0),
            requests_max: cluster.http.max_requests,
            is_done: Cell::new(false),
            is_settled: Cell::new(false),
            settled: Notify::new(),
            last_use: Cell::new(Instant::now()),
        });
        let driver = Driver {
            session: Rc::downgrade(&session),
            wire: Rc::clone(&session.wire),
            place: Rc::downgrade(place),
            keepalive: cluster.http2.keepalive,
            idle_timeout: cluster.http.idle_timeout,
            age_max: cluster.http.max_connection_duration,
        };
        let mut drivers = self.drivers.borrow_mut();
        while drivers.try_join_next().is_some() {}
        drivers.spawn_local(Box::pin(driver.run(io)));
        session
    }
}

impl Place {
    /// A share of the session that was opened first and has room.
    fn lease(place: &Rc<Self>) -> Option<Lease> {
        let sessions = place.sessions.borrow();
        let session = Rc::clone(sessions.iter().find(|session| session.has_room())?);
        drop(sessions);
        session.streams.set(session.streams.get() + 1);
        session.requests.set(session.requests.get() + 1);
        if session.requests_max.is_some_and(|most| session.requests.get() >= most) {
            session.is_done.set(true);
        }
        Some(Lease { session, place: Rc::clone(place) })
    }

    fn forget(&self, session: &Rc<Session>) {
        self.sessions.borrow_mut().retain(|kept| !Rc::ptr_eq(kept, session));
    }
}

impl Lease {
    /// Our end, for the log.
    pub(in crate::http) fn local(&self) -> Option<SocketAddr> {
        self.session.local
    }

    /// Whether the session has carried requests before.
    pub(in crate::http) fn is_kept(&self) -> bool {
        self.session.requests.get() > 1
    }

    /// Sends the head of the request on the desk, whose scheme is told for a head that nobody has
    /// signed. `None` when HTTP/2 cannot carry it.
    pub(in crate::http) async fn send(
        &mut self,
        desk: &mut Desk,
        scheme: impl FnOnce(&RequestHead) -> &'static str,
        limits: Limits,
        (is_upgrade, is_bodiless): (bool, bool),
    ) -> Result<Option<Remote>, Failure> {
        let sealed = desk.sealed.take();
        let head = sealed.as_ref().map_or(&desk.request, |sealed| sealed.head());
        let method = head.method();
        // A CONNECT is itself in both versions.
        let is_upgrade = is_upgrade && method != Method::Connect;
        // A signature says https, and so it is.
        let scheme = match &sealed {
            Some(sealed) if sealed.is_verified() => "https",
            _ => scheme(head),
        };
        if heads::check_request(head).is_err() {
            return Ok(None);
        }
        let upgrade = head.fields.get(Known::Upgrade).filter(|_| is_upgrade).map(<[u8]>::to_vec);
        let session = &self.session;
        if is_upgrade {
            while !session.is_settled.get() && !session.is_done.get() {
                session.settled.notified().await;
            }
            if !session.wire.see(Connection::takes_connect_protocol) {
                return Err(Failure::Protocol);
            }
        }
        let is_secret = |name: &[u8]| {
            let is_sensitive = |sealed: &Sealed, name| sealed.is_sensitive(name);
            match (&sealed, std::str::from_utf8(name)) {
                (Some(sealed), Ok(name)) => is_sensitive(sealed, name),
                _ => false,
            }
        };
        let opened = self.open(method == Method::Head, is_bodiless, |out| {
            heads::write_request(head, scheme, is_upgrade, is_secret, out);
        });
        match opened {
            Ok(stream) => Ok(Some(Remote::new(stream, limits, method, upgrade))),
            Err(fault) => Err(match fault {
                Fault::Malformed => Failure::Protocol,
                Fault::Refused | Fault::Reset(_) => Failure::Reset { is_refused: true },
                Fault::Gone => Failure::Closed { is_stale: true, is_unsent: true },
            }),
        }
    }

    /// Opens the stream. After a fault the session takes no more.
    pub(super) fn open(
        &self,
        is_head: bool,
        is_bodiless: bool,
        write: impl FnOnce(&mut HeadWriter<'_>),
    ) -> Result<Handle, Fault> {
        let wire = &self.session.wire;
        match wire.with(|engine| engine.open(is_head, is_bodiless, write)) {
            Ok(key) => Ok(Handle::new(wire, key)),
            Err(fault) => {
                self.session.is_done.set(true);
                Err(fault)
            }
        }
    }
}

/// Reads and writes one connection until it ends.
struct Driver {
    session: Weak<Session>,
    wire: Rc<Wire>,
    place: Weak<Place>,
    keepalive: Option<Http2Keepalive>,
    idle_timeout: Option<Duration>,
    age_max: Option<Duration>,
}

impl Driver {
    async fn run(self, mut io: Io) {
        let random = Random::from_os();
        let asking = async {
            // The settings come first of all.
            let wait = self.keepalive.map_or(HANDSHAKE_WAIT_MAX, |settings| settings.timeout);
            let settled = async {
                while !self.wire.see(Connection::is_settled) {
                    self.wire.news.notified().await;
                }
            };
            if timeout(wait, settled).await.is_err() && self.keepalive.is_some() {
                return;
            }
            self.settle();
            ping::keep_asking(&self.wire, self.keepalive, &random).await;
        };
        tokio::select! {
            () = poll_fn(|cx| self.poll(cx, &mut io)) => return self.lose(),
            // Without an answer the streams are as dead as the connection.
            () = asking => {
                self.wire.with(Connection::lost);
                return self.lose();
            }
            () = self.retire() => {}
        }
        // No new streams; those under way end in their own time.
        poll_fn(|cx| self.wire.poll_io(cx, &mut io)).await;
        let _late = timeout(FAREWELL_WAIT_MAX, io.shutdown()).await;
    }

    fn poll(&self, cx: &mut Context<'_>, io: &mut Io) -> Poll<()> {
        let ended = self.wire.poll_io(cx, io);
        if let Some(reason) = self.wire.see(Connection::failure) {
            debug!(?reason, "HTTP/2 connection to an endpoint ended");
        }
        if ended.is_pending() && !self.wire.see(Connection::is_usable) {
            self.lose();
        }
        ended
    }

    fn settle(&self) {
        if let Some(session) = self.session.upgrade() {
            session.is_settled.set(true);
            session.settled.notify_waiters();
        }
        if let Some(place) = self.place.upgrade() {
            place.changed.notify_waiters();
        }
    }

    /// The connection has ended, or the endpoint takes no new streams.
    fn lose(&self) {
        let Some(session) = self.session.upgrade() else { return };
        session.is_done.set(true);
        session.settled.notify_waiters();
        if let Some(place) = self.place.upgrade() {
            place.forget(&session);
            place.changed.notify_waiters();
        }
    }

    /// Returns when the session takes no new streams because it has been idle or is old.
    async fn retire(&self) {
        let born = Instant::now();
        loop {
            sleep_until(Instant::now() + LOOK_EVERY).await;
            let Some(session) = self.session.upgrade() else { return };
            let is_idle = session.streams.get() == 0
                && self.idle_timeout.is_some_and(|most| session.last_use.get().elapsed() >= most);
            let is_old = self.age_max.is_some_and(|most| born.elapsed() >= most);
            if is_idle || is_old {
                session.is_done.set(true);
                if let Some(place) = self.place.upgrade() {
                    place.forget(&session);
                }
                return;
            }
        }
    }
}
