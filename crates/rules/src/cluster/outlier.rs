//! When an endpoint that answers badly is taken out, and for how long.

use std::time::Duration;

/// The rules of outlier detection. Percentages are 0 to 100.
#[derive(Clone, Debug, PartialEq)]
pub struct Outlier {
    /// Answers of 5xx in a row. Default 5.
    pub consecutive_5xx: u32,
    /// How often that has a consequence. Default 100.
    pub enforce_5xx: u32,
    /// Answers of 502, 503 or 504 in a row. Default 5.
    pub consecutive_gateway: u32,
    /// How often that has a consequence. Default 0.
    pub enforce_gateway: u32,
    /// Connections that failed in a row, where they are counted apart. Default 5.
    pub consecutive_local: u32,
    /// How often that has a consequence. Default 100.
    pub enforce_local: u32,
    /// Whether what goes wrong before an answer is counted apart from bad answers.
    pub splits_local: bool,
    /// How often success rates are looked at and endpoints let in again. Default 10 s.
    pub interval: Duration,
    /// How long an endpoint is out, times how often it was. Default 30 s.
    pub base_time: Duration,
    /// The longest time. Default 300 s, or `base_time` if that is longer.
    pub max_time: Duration,
    /// Up to this much is added at random.
    pub jitter: Duration,
    /// Most endpoints that are out at once. Default 10.
    pub max_percent: u32,
    /// Whether one may be out however few there are.
    pub always_one: bool,
    /// How often a bad success rate has a consequence. Default 100.
    pub enforce_success_rate: u32,
    /// The same for connections, where they are counted apart. Default 100.
    pub enforce_local_success_rate: u32,
    /// Endpoints with enough requests that are needed for a comparison. Default 5.
    pub success_rate_hosts: u32,
    /// Requests in an interval that an endpoint needs to be compared. Default 100.
    pub success_rate_volume: u32,
    /// Standard deviations below the mean, in thousandths. Default 1900.
    pub stdev_factor: u32,
    /// How often a bad failure percentage has a consequence. Default 0.
    pub enforce_failure_percentage: u32,
    /// The same for connections, where they are counted apart. Default 0.
    pub enforce_local_failure_percentage: u32,
    /// The failure percentage that is bad. Default 85.
    pub failure_percentage: u32,
    /// Endpoints with enough requests that are needed. Default 5.
    pub failure_percentage_hosts: u32,
    /// Requests in an interval that an endpoint needs. Default 50.
    pub failure_percentage_volume: u32,
    /// Whether a good health check lets an endpoint in again. Default true.
    pub health_check_readmits: bool,
}

impl Default for Outlier {
    fn default() -> Self {
        Self {
            consecutive_5xx: 5,
            enforce_5xx: 100,
            consecutive_gateway: 5,
            enforce_gateway: 0,
            consecutive_local: 5,
            enforce_local: 100,
            splits_local: false,
            interval: Duration::from_secs(10),
            base_time: Duration::from_secs(30),
            max_time: Duration::from_secs(300),
            jitter: Duration::ZERO,
            max_percent: 10,
            always_one: false,
            enforce_success_rate: 100,
            enforce_local_success_rate: 100,
            success_rate_hosts: 5,
            success_rate_volume: 100,
            stdev_factor: 1900,
            enforce_failure_percentage: 0,
            enforce_local_failure_percentage: 0,
            failure_percentage: 85,
            failure_percentage_hosts: 5,
            failure_percentage_volume: 50,
            health_check_readmits: true,
        }
    }
}
