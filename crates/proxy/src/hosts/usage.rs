//! Circuit breakers: what is under way in the whole process, and permits to have more.

use std::sync::{
    Arc,
    atomic::{AtomicU32, Ordering},
};

use sluis_rules::{CircuitLimits, Limits};

use super::{Group, Host};

/// Whose limits a request counts against.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Priority {
    /// Most of them.
    #[default]
    Default,
    /// Those of routes that say so.
    High,
}

/// What is under way of one priority.
#[derive(Debug, Default)]
pub(super) struct Usage {
    connections: AtomicU32,
    pending: AtomicU32,
    requests: AtomicU32,
    retries: AtomicU32,
}

#[derive(Clone, Copy, Debug)]
enum Kind {
    Pending,
    Request,
    Retry,
}

/// One request that waits, is under way or is sent again; ends when dropped.
#[derive(Debug)]
pub struct Permit {
    group: Arc<Group>,
    host: Option<Arc<Host>>,
    priority: Priority,
    kind: Kind,
}

/// One connection to an endpoint; ends when dropped.
#[derive(Debug)]
pub struct ConnectionPermit {
    group: Arc<Group>,
    host: Option<Arc<Host>>,
    priority: Priority,
}

impl Priority {
    fn limits(self, limits: &Limits) -> &CircuitLimits {
        match self {
            Self::Default => &limits.default,
            Self::High => &limits.high,
        }
    }
}

/// Counts one more unless that would be too many.
fn take(count: &AtomicU32, max: u32) -> bool {
    if count.fetch_add(1, Ordering::Relaxed) < max {
        return true;
    }
    count.fetch_sub(1, Ordering::Relaxed);
    false
}

impl Group {
    fn usage(&self, priority: Priority) -> &Usage {
        &self.usage[priority as usize]
    }

    /// A place among the requests that wait for a connection.
    #[must_use]
    pub fn pending(self: &Arc<Self>, limits: &Limits, priority: Priority) -> Option<Permit> {
        let usage = self.usage(priority);
        if !take(&usage.pending, priority.limits(limits).pending) {
            self.overflows.fetch_add(1, Ordering::Relaxed);
            return None;
        }
        Some(Permit { group: Arc::clone(self), host: None, priority, kind: Kind::Pending })
    }

    /// A place among the requests under way; it counts for the endpoint too.
    #[must_use]
    pub fn request(
        self: &Arc<Self>,
        limits: &Limits,
        priority: Priority,
        host: Option<&Arc<Host>>,
    ) -> Option<Permit> {
        let usage = self.usage(priority);
        if !take(&usage.requests, priority.limits(limits).requests) {
            self.overflows.fetch_add(1, Ordering::Relaxed);
            return None;
        }
        self.traffic.store(true, Ordering::Relaxed);
        if let Some(host) = host {
            host.requests.fetch_add(1, Ordering::Relaxed);
        }
        let host = host.cloned();
        Some(Permit { group: Arc::clone(self), host, priority, kind: Kind::Request })
    }

    /// A place among the requests that are sent again.
    #[must_use]
    pub fn retry(self: &Arc<Self>, limits: &Limits, priority: Priority) -> Option<Permit> {
        let usage = self.usage(priority);
        let under_way = usage.requests.load(Ordering::Relaxed);
        let under_way = under_way.saturating_add(usage.pending.load(Ordering::Relaxed));
        let max = priority.limits(limits).retries_at(under_way);
        take(&usage.retries, max).then(|| Permit {
            group: Arc::clone(self),
            host: None,
            priority,
            kind: Kind::Retry,
        })
    }

    /// A place among the connections.
    ///
    /// `is_first` says that the caller has none to this endpoint: then it may have one whatever
    /// the limits are, or requests would wait for ever (as in Envoy).
    #[must_use]
    pub fn connection(
        self: &Arc<Self>,
        limits: &Limits,
        priority: Priority,
        host: Option<&Arc<Host>>,
        is_first: bool,
    ) -> Option<ConnectionPermit> {
        let usage = self.usage(priority);
        let max = if is_first { u32::MAX } else { priority.limits(limits).connections };
        if !take(&usage.connections, max) {
            return None;
        }
        let host_max = limits.host_connections.filter(|_| !is_first).unwrap_or(u32::MAX);
        if host.is_some_and(|host| !take(&host.connections, host_max)) {
            usage.connections.fetch_sub(1, Ordering::Relaxed);
            return None;
        }
        self.traffic.store(true, Ordering::Relaxed);
        Some(ConnectionPermit { group: Arc::clone(self), host: host.cloned(), priority })
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        let usage = self.group.usage(self.priority);
        let count = match self.kind {
            Kind::Pending => &usage.pending,
            Kind::Request => &usage.requests,
            Kind::Retry => &usage.retries,
        };
        count.fetch_sub(1, Ordering::Relaxed);
        if let Some(host) = &self.host {
            host.requests.fetch_sub(1, Ordering::Relaxed);
        }
    }
}

impl Drop for ConnectionPermit {
    fn drop(&mut self) {
        self.group.usage(self.priority).connections.fetch_sub(1, Ordering::Relaxed);
        if let Some(host) = &self.host {
            host.connections.fetch_sub(1, Ordering::Relaxed);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn permits_end_when_they_are_dropped() {
        let group = Arc::<Group>::default();
        let mut limits = Limits::default();
        (limits.default.requests, limits.default.connections) = (1, 1);
        let priority = Priority::Default;
        let one = group.request(&limits, priority, None);
        assert!(one.is_some() && group.request(&limits, priority, None).is_none());
        assert!(group.request(&limits, Priority::High, None).is_some());
        drop(one);
        assert!(group.request(&limits, priority, None).is_some());
        let connection = group.connection(&limits, priority, None, true);
        assert!(connection.is_some());
        assert!(group.connection(&limits, priority, None, false).is_none());
        assert!(group.connection(&limits, priority, None, true).is_some());
    }

    #[test]
    fn a_budget_grows_with_the_requests() {
        let limits = CircuitLimits {
            retry_budget: Some(sluis_rules::RetryBudget { percent: 20.0, min: 3 }),
            ..CircuitLimits::default()
        };
        assert_eq!((limits.retries_at(0), limits.retries_at(100)), (3, 20));
    }
}
