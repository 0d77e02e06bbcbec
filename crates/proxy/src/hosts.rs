//! Endpoints as the whole process sees them: what is under way, how they answer, whether they are
//! well.
//!
//! In:    events of all workers (atomics only), verdicts of the control thread.
//! Out:   health for the balancer, permits within the cluster's limits.
//! Never: locks on a request's way.
//!
//! A [`Host`] and a [`Group`] live as long as their address and cluster do, across configurations.

mod monitor;
mod usage;

use std::{
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicBool, AtomicU8, AtomicU32, AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use sluis_rules::{Address, Health, Observed, SlowStart};
use tokio::sync::Notify;

use self::monitor::Monitor;
pub(crate) use self::monitor::{Alarm, Ejection};
use self::usage::Usage;
pub use self::usage::{ConnectionPermit, Permit, Priority};

/// Taken out for bad answers.
const EJECTED: u8 = 1;
/// Found unhealthy by health checks.
const FAILED: u8 = 2;
/// Not yet asked for its health.
const PENDING: u8 = 4;

/// What is counted of one cluster.
#[derive(Debug, Default)]
pub struct Group {
    usage: [Usage; 2],
    /// Wakes the control thread when an endpoint rang.
    pub(crate) alarm: Notify,
    /// Whether anything was ever sent.
    traffic: AtomicBool,
    /// Requests refused because a limit was reached.
    pub(crate) overflows: AtomicU64,
}

/// One endpoint of one cluster.
#[derive(Debug)]
pub struct Host {
    address: Address,
    flags: AtomicU8,
    requests: AtomicU32,
    connections: AtomicU32,
    monitor: Monitor,
    /// Since when it is healthy, in milliseconds after [`started`].
    since: AtomicU64,
    /// Only the control thread looks at it.
    ejection: Mutex<Ejection>,
    /// Wakes who holds idle connections when they are to be closed.
    pub(crate) failed: Notify,
}

impl Group {
    /// Whether anything was ever sent.
    pub(crate) fn has_traffic(&self) -> bool {
        self.traffic.load(Ordering::Relaxed)
    }
}

impl Host {
    pub(crate) fn new(address: Address, is_pending: bool) -> Self {
        Self {
            address,
            flags: AtomicU8::new(if is_pending { PENDING | FAILED } else { 0 }),
            requests: AtomicU32::new(0),
            connections: AtomicU32::new(0),
            monitor: Monitor::default(),
            since: AtomicU64::new(millis(Instant::now())),
            ejection: Mutex::default(),
            failed: Notify::new(),
        }
    }

    /// Where it is.
    #[must_use]
    pub fn address(&self) -> &Address {
        &self.address
    }

    /// Requests under way, of all workers.
    #[must_use]
    pub fn requests(&self) -> u32 {
        self.requests.load(Ordering::Relaxed)
    }

    pub(crate) fn is_ejected(&self) -> bool {
        self.has(EJECTED)
    }

    pub(crate) fn is_failed(&self) -> bool {
        self.has(FAILED)
    }

    pub(crate) fn is_pending(&self) -> bool {
        self.has(PENDING)
    }

    fn has(&self, flag: u8) -> bool {
        self.flags.load(Ordering::Relaxed) & flag != 0
    }

    fn set(&self, flag: u8, on: bool) {
        if on {
            self.flags.fetch_or(flag, Ordering::Relaxed);
        } else {
            self.flags.fetch_and(!flag, Ordering::Relaxed);
        }
    }

    pub(crate) fn set_ejected(&self, on: bool) {
        self.set(EJECTED, on);
    }

    /// Takes over what a health check found.
    pub(crate) fn set_failed(&self, on: bool) {
        if !on && self.is_failed() {
            self.since.store(millis(Instant::now()), Ordering::Relaxed);
        }
        self.set(FAILED, on);
        self.set(PENDING, false);
        if on {
            self.failed.notify_waiters();
        }
    }

    /// Nobody asks for its health any more.
    pub(crate) fn unwatch(&self) {
        self.set(FAILED | PENDING, false);
    }

    /// What the balancer is told.
    pub(crate) fn observed(&self, slow_start: Option<&SlowStart>, now: Instant) -> Observed {
        let flags = self.flags.load(Ordering::Relaxed);
        let health =
            if flags & (EJECTED | FAILED) == 0 { Health::Healthy } else { Health::Unhealthy };
        let share = slow_start.map_or(1.0, |config| self.share(config, now));
        Observed { health, share, is_pending: flags & PENDING != 0 }
    }

    /// Whether it is still new.
    pub(crate) fn is_new(&self, config: &SlowStart, now: Instant) -> bool {
        self.age(now) < config.window
    }

    fn age(&self, now: Instant) -> Duration {
        let since = self.since.load(Ordering::Relaxed);
        Duration::from_millis(millis(now).saturating_sub(since))
    }

    /// Envoy's curve: time to the power of 1/aggression, and never less than the least share.
    fn share(&self, config: &SlowStart, now: Instant) -> f64 {
        let age = self.age(now);
        if age >= config.window {
            return 1.0;
        }
        let age = age.as_millis().max(1) as f64 / config.window.as_millis().max(1) as f64;
        age.powf(1.0 / config.aggression).max(config.min)
    }

    pub(crate) fn ejection(&self) -> std::sync::MutexGuard<'_, Ejection> {
        // Plain numbers: nothing is left half changed.
        self.ejection.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn monitor(&self) -> &Monitor {
        &self.monitor
    }
}

/// When this process began to count.
fn started() -> Instant {
    static STARTED: std::sync::OnceLock<Instant> = std::sync::OnceLock::new();
    *STARTED.get_or_init(Instant::now)
}

fn millis(at: Instant) -> u64 {
    // The first endpoint may be older than the first look at the clock.
    at.saturating_duration_since(started()).as_millis().try_into().unwrap_or(u64::MAX)
}
