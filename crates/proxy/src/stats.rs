//! Counters: one shard per worker with a single writer, summed when somebody asks.
//!
//! In:    [`Shard::add`] from the worker that owns the shard.
//! Out:   totals by name, as Envoy's `/stats` lines and in Prometheus' text form.
//! Never: locks or uses a read-modify-write instruction on a request's way.

use std::{
    collections::BTreeMap,
    fmt::Write as _,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
};

macro_rules! counters {
    ($($variant:ident, $kind:ident, $name:literal, $help:literal;)*) => {
        /// What is counted. The name on the wire is in [`Counter::name`].
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub enum Counter {
            $(#[doc = $help] $variant,)*
        }

        impl Counter {
            /// Every counter, in the order of its slots.
            pub const ALL: &'static [Self] = &[$(Self::$variant,)*];

            /// The dotted name, as Envoy prints it where Envoy has the same counter.
            #[must_use]
            pub fn name(self) -> &'static str {
                match self { $(Self::$variant => $name,)* }
            }

            /// One sentence for `# HELP`.
            #[must_use]
            pub fn help(self) -> &'static str {
                match self { $(Self::$variant => $help,)* }
            }

            /// `counter`, or `gauge` for what also goes down.
            #[must_use]
            pub fn kind(self) -> &'static str {
                match self { $(Self::$variant => stringify!($kind),)* }
            }
        }
    };
}

counters! {
    DownstreamCxTotal, counter, "downstream_cx_total", "Connections accepted.";
    DownstreamCxActive, gauge, "downstream_cx_active", "Connections accepted and not yet closed.";
    DownstreamCxRefused, counter, "downstream_cx_overload_reject", "Connections closed at once because the worker holds its maximum.";
    DownstreamCxDrained, counter, "downstream_cx_drain_close", "Connections ended because their time after a drain was up.";
    DownstreamPanics, counter, "downstream_cx_panic", "Connections ended by a fault of our own.";
    AcceptErrors, counter, "downstream_accept_errors", "Calls of accept that failed.";
    SniffTimeouts, counter, "downstream_pre_cx_timeout", "Connections closed because the listener filters did not finish in time.";
    SniffFaults, counter, "downstream_listener_filter_error", "Connections closed by a listener filter, for example for a bad PROXY header.";
    NoFilterChain, counter, "no_filter_chain_match", "Connections closed because no filter chain matched.";
    TlsHandshakes, counter, "ssl.handshake", "TLS handshakes with clients that succeeded.";
    TlsErrors, counter, "ssl.connection_error", "TLS handshakes with clients that failed.";
    TcpTotal, counter, "tcp.downstream_cx_total", "Connections proxied as TCP.";
    TcpReceived, counter, "tcp.downstream_cx_rx_bytes_total", "Bytes from clients on connections proxied as TCP.";
    TcpSent, counter, "tcp.downstream_cx_tx_bytes_total", "Bytes to clients on connections proxied as TCP.";
    TcpIdleTimeouts, counter, "tcp.idle_timeout", "Connections proxied as TCP and closed because nothing moved.";
    TcpBlocked, counter, "tcp.blocked", "Connections closed because their cluster has no endpoint to go to (BlackHoleCluster).";
    UpstreamCxTotal, counter, "upstream_cx_total", "Connections to endpoints that were opened.";
    UpstreamCxConnectFail, counter, "upstream_cx_connect_fail", "Connections to endpoints that failed, TLS included.";
    UpstreamCxConnectTimeout, counter, "upstream_cx_connect_timeout", "Connections to endpoints that took too long.";
    UpstreamCxOverflow, counter, "upstream_cx_overflow", "Connections not opened because the cluster has as many as it may have.";
    UpstreamRqOverflow, counter, "upstream_rq_pending_overflow", "Requests refused because the cluster has as many as it may have.";
    UpstreamRetryOverflow, counter, "upstream_rq_retry_overflow", "Requests not sent again because the cluster has as many retries as it may have.";
    UpstreamNoHost, counter, "upstream_cx_none_healthy", "Choices of an endpoint that found none.";
    UpstreamLoops, counter, "upstream_cx_loop", "Connections refused because their destination is this proxy.";
    HttpCxTotal, counter, "http.downstream_cx_total", "Connections served as HTTP.";
    HttpRqTotal, counter, "http.downstream_rq_total", "Requests received.";
    HttpRq1xx, counter, "http.downstream_rq_1xx", "Responses sent with a status of 1xx.";
    HttpRq2xx, counter, "http.downstream_rq_2xx", "Responses sent with a status of 2xx.";
    HttpRq3xx, counter, "http.downstream_rq_3xx", "Responses sent with a status of 3xx.";
    HttpRq4xx, counter, "http.downstream_rq_4xx", "Responses sent with a status of 4xx.";
    HttpRq5xx, counter, "http.downstream_rq_5xx", "Responses sent with a status of 5xx.";
    HttpFramingErrors, counter, "http.downstream_cx_protocol_error", "Requests refused for their framing.";
    HttpRetries, counter, "http.upstream_rq_retry", "Requests sent again on a fresh connection.";
    HttpPoolHits, counter, "http.upstream_cx_reused", "Requests sent on a kept connection.";
    Mirrors, counter, "http.rq_mirrored", "Copies of requests sent to mirrors.";
    MirrorsDropped, counter, "http.rq_mirror_dropped", "Copies of requests that were not sent: no such cluster, too many at once, or too long a body.";
    CredentialsUsed, counter, "credentials.used", "Requests sent with a credential; each try counts.";
    CredentialsPrevious, counter, "credentials.previous", "Of these, with the version before, because the new one was refused.";
    CredentialsWithout, counter, "credentials.without", "Requests sent without a credential, as it allows.";
    CredentialsDenied, counter, "credentials.denied", "Requests refused because no grant covers them.";
    CredentialsLimited, counter, "credentials.limited", "Requests refused because an identity used a grant too often.";
    CredentialsUnavailable, counter, "credentials.unavailable", "Requests refused because their credential could not be had.";
    CredentialsGuarded, counter, "credentials.guarded", "Requests refused because their credential must not go to their endpoint.";
    CredentialsEchoed, counter, "credentials.echoed", "Responses blocked because they held a secret.";
    LuaErrors, counter, "http.lua.errors", "Lua scripts that failed.";
    DnsQueries, counter, "dns.query_total", "DNS queries of captured workloads.";
    DnsUnknown, counter, "dns.query_unknown", "DNS queries for names that the mesh does not know.";
    LogDropped, counter, "access_log.dropped_bytes", "Bytes of access log dropped because the writer is behind.";
}

/// One worker's counters. Only that worker writes.
#[derive(Debug)]
pub struct Shard {
    slots: Box<[AtomicU64]>,
    /// Counters whose names come with the configuration.
    named: Mutex<BTreeMap<String, Tally>>,
}

/// A counter whose name comes with the configuration. Only the worker of its shard writes.
#[derive(Clone, Debug, Default)]
pub struct Tally(Arc<AtomicU64>);

impl Tally {
    /// Counts one more. Must only be called by the owning thread.
    #[inline]
    pub fn inc(&self) {
        self.0.store(self.0.load(Ordering::Relaxed).wrapping_add(1), Ordering::Relaxed);
    }
}

impl Default for Shard {
    fn default() -> Self {
        Self {
            slots: Counter::ALL.iter().map(|_| AtomicU64::new(0)).collect(),
            named: Mutex::default(),
        }
    }
}

impl Shard {
    /// Counts `by` more. Must only be called by the owning thread.
    #[inline]
    pub fn add(&self, counter: Counter, by: u64) {
        let slot = &self.slots[counter as usize];
        slot.store(slot.load(Ordering::Relaxed).wrapping_add(by), Ordering::Relaxed);
    }

    /// Counts one more.
    #[inline]
    pub fn inc(&self, counter: Counter) {
        self.add(counter, 1);
    }

    /// Counts one less: for gauges.
    #[inline]
    pub fn dec(&self, counter: Counter) {
        self.add(counter, u64::MAX);
    }

    /// The counter of a name: for when a filter is made, not for a request's way.
    #[must_use]
    pub fn named(&self, name: &str) -> Tally {
        let mut named = self.named.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(tally) = named.get(name) {
            return tally.clone();
        }
        named.entry(name.to_owned()).or_default().clone()
    }

    fn get(&self, counter: Counter) -> u64 {
        self.slots[counter as usize].load(Ordering::Relaxed)
    }
}

/// The shards of all workers, and the control thread's own gauges.
#[derive(Clone, Debug)]
pub struct Stats {
    shards: Arc<[Arc<Shard>]>,
}

impl Stats {
    /// Makes a shard for each of `writers` threads.
    #[must_use]
    pub fn new(writers: usize) -> Self {
        Self { shards: (0..writers).map(|_| Arc::default()).collect() }
    }

    /// The shard of one writer.
    #[must_use]
    pub fn shard(&self, writer: usize) -> Arc<Shard> {
        Arc::clone(&self.shards[writer])
    }

    /// The sum over all shards.
    #[must_use]
    pub fn total(&self, counter: Counter) -> u64 {
        self.shards.iter().fold(0_u64, |sum, shard| sum.wrapping_add(shard.get(counter)))
    }

    /// The sums of the counters whose names come with the configuration.
    fn named(&self) -> BTreeMap<String, u64> {
        let mut sums = BTreeMap::new();
        for shard in self.shards.iter() {
            let named = shard.named.lock().unwrap_or_else(PoisonError::into_inner);
            for (name, tally) in named.iter() {
                let sum: &mut u64 = sums.entry(name.clone()).or_default();
                *sum = sum.wrapping_add(tally.0.load(Ordering::Relaxed));
            }
        }
        sums
    }

    /// `name: value` lines, sorted.
    #[must_use]
    pub fn text(&self, gauges: &[(String, u64)]) -> String {
        let mut lines: Vec<String> = Counter::ALL
            .iter()
            .map(|counter| format!("{}: {}", counter.name(), self.total(*counter)))
            .chain(gauges.iter().map(|(name, value)| format!("{name}: {value}")))
            .chain(self.named().into_iter().map(|(name, value)| format!("{name}: {value}")))
            .collect();
        lines.sort_unstable();
        lines.push(String::new());
        lines.join("\n")
    }

    /// Prometheus' text exposition format.
    #[must_use]
    pub fn prometheus(&self, gauges: &[(String, u64)]) -> String {
        let mut text = String::new();
        for counter in Counter::ALL {
            let name = metric_name(counter.name());
            // Writing to a String cannot fail.
            let _ = writeln!(text, "# HELP {name} {}", counter.help());
            let _ = writeln!(text, "# TYPE {name} {}", counter.kind());
            let _ = writeln!(text, "{name} {}", self.total(*counter));
        }
        for (name, value) in self.named() {
            let name = metric_name(&name);
            // Writing to a String cannot fail.
            let _ = writeln!(text, "# TYPE {name} counter\n{name} {value}");
        }
        for (name, value) in gauges {
            let name = metric_name(name);
            let _ = writeln!(text, "# TYPE {name} gauge\n{name} {value}");
        }
        text
    }
}

fn metric_name(name: &str) -> String {
    // A name may hold a policy's name, which may hold anything.
    let is_plain = |c: char| c.is_ascii_alphanumeric() || c == '_';
    let plain: String = name.chars().map(|c| if is_plain(c) { c } else { '_' }).collect();
    format!("sluis_{plain}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shards_are_summed_and_gauges_go_down() {
        let stats = Stats::new(2);
        stats.shard(0).inc(Counter::DownstreamCxActive);
        stats.shard(1).inc(Counter::DownstreamCxActive);
        stats.shard(0).dec(Counter::DownstreamCxActive);
        assert_eq!(stats.total(Counter::DownstreamCxActive), 1);
        assert!(stats.text(&[]).contains("downstream_cx_active: 1\n"));
        assert!(stats.prometheus(&[]).contains("sluis_downstream_cx_active 1\n"));
    }
}
