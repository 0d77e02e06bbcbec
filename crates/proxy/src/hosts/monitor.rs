//! How one endpoint answers, as outlier detection counts it.
//!
//! Workers count with atomics and ring; the control thread judges (`control::outlier`).

use std::{
    sync::atomic::{AtomicU8, AtomicU32, Ordering},
    time::{Duration, Instant},
};

use sluis_rules::Outlier;

use super::{Group, Host};

/// What an endpoint rings for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Alarm {
    /// Too many answers of 5xx in a row.
    Status5xx = 1,
    /// Too many answers of 502, 503 or 504 in a row.
    Gateway = 2,
    /// Too many failed connections in a row.
    Local = 4,
}

impl Alarm {
    pub(crate) const ALL: [Self; 3] = [Self::Status5xx, Self::Gateway, Self::Local];
}

/// Requests and successes since somebody looked.
#[derive(Debug, Default)]
struct Rate {
    total: AtomicU32,
    good: AtomicU32,
}

#[derive(Debug, Default)]
pub(crate) struct Monitor {
    status_5xx: AtomicU32,
    gateway: AtomicU32,
    local: AtomicU32,
    external_rate: Rate,
    local_rate: Rate,
    rung: AtomicU8,
}

/// When and how often an endpoint was taken out.
#[derive(Debug, Default)]
pub(crate) struct Ejection {
    pub(crate) at: Option<Instant>,
    pub(crate) ended: Option<Instant>,
    /// What the base time is multiplied by.
    pub(crate) backoff: u32,
    pub(crate) jitter: Duration,
}

impl Rate {
    fn count(&self, is_good: bool) {
        self.total.fetch_add(1, Ordering::Relaxed);
        if is_good {
            self.good.fetch_add(1, Ordering::Relaxed);
        }
    }

    fn take(&self) -> (u32, u32) {
        (self.total.swap(0, Ordering::Relaxed), self.good.swap(0, Ordering::Relaxed))
    }
}

impl Monitor {
    /// Takes what was rung for.
    pub(crate) fn take_alarms(&self) -> u8 {
        self.rung.swap(0, Ordering::Relaxed)
    }

    /// Begins to count anew after an alarm.
    pub(crate) fn reset(&self, alarm: Alarm) {
        let count = match alarm {
            Alarm::Status5xx => &self.status_5xx,
            Alarm::Gateway => &self.gateway,
            Alarm::Local => &self.local,
        };
        count.store(0, Ordering::Relaxed);
    }

    /// Requests and successes since the last time: of answers, or of connections.
    pub(crate) fn take_rate(&self, is_local: bool) -> (u32, u32) {
        if is_local { self.local_rate.take() } else { self.external_rate.take() }
    }

    fn ring(&self, group: &Group, alarm: Alarm) {
        self.rung.fetch_or(alarm as u8, Ordering::Relaxed);
        group.alarm.notify_one();
    }
}

impl Host {
    /// Counts an answer, by its status (of gRPC: the status that its own stands for).
    pub(crate) fn answered(&self, rules: Option<&Outlier>, group: &Group, status: u16) {
        let Some(rules) = rules else { return };
        let monitor = &self.monitor;
        let is_bad = (500..600).contains(&status);
        monitor.external_rate.count(!is_bad);
        let more = |count: &AtomicU32| count.fetch_add(1, Ordering::Relaxed) + 1;
        if !is_bad {
            // A look first: a store would take the line from the other workers each time.
            for count in [&monitor.status_5xx, &monitor.gateway] {
                if count.load(Ordering::Relaxed) != 0 {
                    count.store(0, Ordering::Relaxed);
                }
            }
            return;
        }
        if (502..=504).contains(&status) {
            if more(&monitor.gateway) == rules.consecutive_gateway {
                monitor.ring(group, Alarm::Gateway);
            }
        } else {
            monitor.gateway.store(0, Ordering::Relaxed);
        }
        if more(&monitor.status_5xx) == rules.consecutive_5xx {
            monitor.ring(group, Alarm::Status5xx);
        }
    }

    /// Counts that the endpoint was reached; `is_final` where nothing else will be heard of it.
    pub(crate) fn reached(&self, rules: Option<&Outlier>, group: &Group, is_final: bool) {
        let Some(rules) = rules else { return };
        if !rules.splits_local {
            if is_final {
                self.answered(Some(rules), group, 200);
            }
            return;
        }
        self.monitor.local_rate.count(true);
        if self.monitor.local.load(Ordering::Relaxed) != 0 {
            self.monitor.local.store(0, Ordering::Relaxed);
        }
    }

    /// Counts that the endpoint was not reached, or left us without an answer.
    pub(crate) fn failed(&self, rules: Option<&Outlier>, group: &Group, is_timeout: bool) {
        let Some(rules) = rules else { return };
        if !rules.splits_local {
            return self.answered(Some(rules), group, if is_timeout { 504 } else { 503 });
        }
        self.monitor.local_rate.count(false);
        if self.monitor.local.fetch_add(1, Ordering::Relaxed) + 1 == rules.consecutive_local {
            self.monitor.ring(group, Alarm::Local);
        }
    }
}
