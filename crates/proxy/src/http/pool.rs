//! Keep-alive connections to endpoints: last in, first out, per endpoint and server name.
//!
//! In:    connections whose last response has ended in order.
//! Out:   one that is still quiet, for the next request to the same place.
//! Never: gives a connection to a request for another cluster, endpoint, TLS setting or server
//!        name; asks the kernel whether a connection is alive.

use std::{cell::RefCell, collections::HashMap, rc::Rc, sync::Arc, time::Duration};

use foldhash::fast::RandomState;
use sluis_rules::{Address, Cluster, UpstreamTls};
use tokio::{
    task::JoinSet,
    time::{Instant, sleep},
};

use crate::upstream::Upstream;

/// Idle connections per endpoint and worker; more would only wait to be closed.
const IDLE_PER_ENDPOINT_MAX: usize = 256;

/// Idle connections per worker in all: bounds the descriptors that nobody uses.
const IDLE_MAX: usize = 4096;

/// How often a worker looks for connections that have been idle for too long.
const SWEEP_EVERY: Duration = Duration::from_secs(1);

/// The place that a connection goes to.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Key {
    /// Places in memory, which the entry keeps alive.
    cluster: usize,
    tls: usize,
    address: Address,
    /// The server name, where the request decides it.
    host: Option<Box<str>>,
}

impl Key {
    pub(super) fn new(
        cluster: &Arc<Cluster>,
        tls: Option<&Arc<UpstreamTls>>,
        address: &Address,
        host: Option<&str>,
    ) -> Self {
        Self {
            cluster: Arc::as_ptr(cluster) as usize,
            tls: tls.map_or(0, |tls| Arc::as_ptr(tls) as usize),
            address: address.clone(),
            host: host.map(Into::into),
        }
    }
}

#[derive(Debug)]
struct Place {
    /// Keep the key's places in memory from being used by others.
    _cluster: Arc<Cluster>,
    _tls: Option<Arc<UpstreamTls>>,
    idle: Vec<Idle>,
    idle_timeout: Option<Duration>,
}

#[derive(Debug)]
struct Idle {
    upstream: Box<Upstream>,
    since: Instant,
    requests: u32,
}

/// One worker's idle connections.
#[derive(Debug, Default)]
pub(super) struct Pool {
    inner: Rc<RefCell<Inner>>,
    /// Runs while there are idle connections; ends with the pool.
    sweeper: RefCell<JoinSet<()>>,
}

#[derive(Debug, Default)]
struct Inner {
    places: HashMap<Key, Place, RandomState>,
    count: usize,
    /// Whether somebody looks after what is idle.
    is_watched: bool,
}

/// A connection to an endpoint, with how it came about.
#[derive(Debug)]
pub(super) struct Pooled {
    /// Boxed: it is moved often while a request is under way.
    pub(super) upstream: Box<Upstream>,
    /// Requests that it has carried before.
    pub(super) requests: u32,
    /// Whether it takes no more requests.
    pub(super) is_done: bool,
}

impl Pooled {
    /// A connection that has carried nothing yet.
    pub(super) fn fresh(upstream: Upstream) -> Self {
        Self { upstream: Box::new(upstream), requests: 0, is_done: false }
    }
}

impl Pool {
    /// Takes the connection that was used last and is still usable.
    pub(super) fn take(&self, key: &Key, now: Instant) -> Option<Pooled> {
        let mut inner = self.inner.borrow_mut();
        let Inner { places, count, .. } = &mut *inner;
        let place = places.get_mut(key)?;
        while let Some(mut idle) = place.idle.pop() {
            *count -= 1;
            if idle.is_fresh(place.idle_timeout, now) && idle.upstream.io.is_quiet() {
                return Some(Pooled {
                    upstream: idle.upstream,
                    requests: idle.requests,
                    is_done: false,
                });
            }
        }
        None
    }

    /// Keeps a connection whose last response has ended in order.
    pub(super) fn give(
        &self,
        key: Key,
        pooled: Pooled,
        (cluster, tls): (&Arc<Cluster>, Option<&Arc<UpstreamTls>>),
        now: Instant,
    ) {
        let mut inner = self.inner.borrow_mut();
        if inner.count >= IDLE_MAX || pooled.is_done {
            return;
        }
        let place = inner.places.entry(key).or_insert_with(|| Place {
            _cluster: Arc::clone(cluster),
            _tls: tls.cloned(),
            idle: Vec::new(),
            idle_timeout: cluster.http.idle_timeout,
        });
        if place.idle.len() < IDLE_PER_ENDPOINT_MAX {
            let Pooled { upstream, requests, .. } = pooled;
            place.idle.push(Idle { upstream, since: now, requests });
            inner.count += 1;
            self.watch(&mut inner);
        }
    }

    /// Closes what nobody will use, once a second, until nothing is left.
    fn watch(&self, inner: &mut Inner) {
        if std::mem::replace(&mut inner.is_watched, true) {
            return;
        }
        let inner = Rc::clone(&self.inner);
        let mut sweeper = self.sweeper.borrow_mut();
        // The one before has ended.
        while sweeper.try_join_next().is_some() {}
        sweeper.spawn_local(async move {
            loop {
                sleep(SWEEP_EVERY).await;
                let mut inner = inner.borrow_mut();
                inner.sweep(Instant::now());
                if inner.count == 0 {
                    inner.is_watched = false;
                    return;
                }
            }
        });
    }
}

impl Inner {
    /// Closes connections that have been idle for too long or that the endpoint has closed.
    fn sweep(&mut self, now: Instant) {
        let mut count = 0;
        self.places.retain(|_, place| {
            let limit = place.idle_timeout;
            place.idle.retain_mut(|idle| idle.is_fresh(limit, now) && idle.upstream.io.is_quiet());
            count += place.idle.len();
            !place.idle.is_empty()
        });
        self.count = count;
    }
}

impl Idle {
    fn is_fresh(&self, limit: Option<Duration>, now: Instant) -> bool {
        limit.is_none_or(|limit| now.duration_since(self.since) < limit)
    }
}
