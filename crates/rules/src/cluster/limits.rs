//! How much a cluster may have under way at once, in the whole process.

/// The limits of a cluster.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Limits {
    /// Of requests of default priority, and of connections.
    pub default: CircuitLimits,
    /// Of requests of high priority.
    pub high: CircuitLimits,
    /// Connections to one endpoint; `None` for no limit.
    pub host_connections: Option<u32>,
}

/// The limits of one priority.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct CircuitLimits {
    /// Connections. Default 1024.
    pub connections: u32,
    /// Requests that wait for a connection. Default 1024.
    pub pending: u32,
    /// Requests. Default 1024.
    pub requests: u32,
    /// Retries. Default 3.
    pub retries: u32,
    /// Retries in proportion to requests, in place of `retries`.
    pub retry_budget: Option<RetryBudget>,
}

/// Retries in proportion to what is under way.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct RetryBudget {
    /// In percent of the requests under way and waiting. Default 20.
    pub percent: f64,
    /// This many are always allowed. Default 3.
    pub min: u32,
}

impl Default for CircuitLimits {
    fn default() -> Self {
        Self { connections: 1024, pending: 1024, requests: 1024, retries: 3, retry_budget: None }
    }
}

impl CircuitLimits {
    /// How many retries may be under way while so many requests are, waiting ones included.
    #[must_use]
    pub fn retries_at(&self, requests: u32) -> u32 {
        match self.retry_budget {
            Some(budget) => budget.min.max((f64::from(requests) * budget.percent / 100.0) as u32),
            None => self.retries,
        }
    }
}
