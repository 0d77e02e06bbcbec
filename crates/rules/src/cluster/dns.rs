//! How a cluster's names become addresses, and what names a dynamic cluster may reach.

use std::{net::SocketAddr, sync::Arc, time::Duration};

/// How names are resolved.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct DnsOptions {
    /// Which address families are asked for.
    pub family: DnsFamily,
    /// How often a name is resolved again. Default 5 s.
    pub refresh: Duration,
    /// Whether the answer's own life is used instead of `refresh`.
    pub respect_ttl: bool,
    /// The shortest time between two look-ups of a name.
    pub min_refresh: Duration,
    /// The first and the longest wait after a failure; `None` waits `refresh`.
    pub failure: Option<(Duration, Duration)>,
    /// Up to this much is added to each wait at random.
    pub jitter: Duration,
    /// Whom to ask; empty asks those of the operating system.
    pub resolvers: Arc<[SocketAddr]>,
    /// Whether questions go by TCP.
    pub use_tcp: bool,
    /// Whether search domains are left alone.
    pub no_search: bool,
    /// Longest wait for one answer. Default 5 s.
    pub timeout: Duration,
    /// Tries for one name. Default 4, as c-ares.
    pub tries: u32,
}

impl Default for DnsOptions {
    fn default() -> Self {
        Self {
            family: DnsFamily::V6Preferred,
            refresh: Duration::from_secs(5),
            respect_ttl: false,
            min_refresh: Duration::ZERO,
            failure: None,
            jitter: Duration::ZERO,
            resolvers: Arc::default(),
            use_tcp: false,
            no_search: false,
            timeout: Duration::from_secs(5),
            tries: 4,
        }
    }
}

/// Which address families DNS names are resolved to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum DnsFamily {
    /// IPv6 if there is any, else IPv4.
    V6Preferred,
    /// IPv4 if there is any, else IPv6.
    V4Preferred,
    /// IPv4 only.
    V4Only,
    /// IPv6 only.
    V6Only,
    /// Both.
    All,
}

/// A cluster whose endpoints are the hosts that requests name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DynamicForward {
    /// The name of the cache, which filters and clusters share.
    pub cache: Arc<str>,
    /// How names are resolved.
    pub dns: DnsOptions,
    /// How long a name that nobody asks for is kept. Default 5 min.
    pub host_ttl: Duration,
    /// Most names at once. Default 1024.
    pub max_hosts: u32,
    /// Most requests that wait for answers. Default 1024.
    pub max_pending: u32,
    /// What may be reached.
    pub reach: Reach,
}

/// What a dynamic cluster may reach (metadata `sluis.dev` of the cluster).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Reach {
    /// Whether private, link-local, loopback and metadata addresses may be reached.
    pub allow_private: bool,
    /// The names that may be asked for, exact or `*.suffix`; empty for any.
    pub patterns: Vec<Arc<str>>,
}

impl Reach {
    /// Whether this name may be asked for. Case is ignored, and so is a dot at the end.
    #[must_use]
    pub fn holds(&self, host: &str) -> bool {
        let host = host.strip_suffix('.').unwrap_or(host);
        let fits = |pattern: &Arc<str>| match pattern.strip_prefix('*') {
            // `*` alone is everything; `*.a` is what ends in `.a` and has something before it.
            Some("") => true,
            Some(suffix) => {
                host.len() > suffix.len()
                    && host.is_char_boundary(host.len() - suffix.len())
                    && host[host.len() - suffix.len()..].eq_ignore_ascii_case(suffix)
            }
            None => pattern.eq_ignore_ascii_case(host),
        };
        self.patterns.is_empty() || self.patterns.iter().any(fits)
    }
}
