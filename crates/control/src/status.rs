//! How far each proxy has come, for people to read.

use std::{collections::BTreeMap, time::Duration};

use sluis_envoy::Kind;
use sluis_nouns::{ObjectName, WorkloadId};
use sluis_translate::Role;
use sluis_xds::Report;
use tokio::time::Instant;

/// One proxy, connected or expected.
#[derive(Clone, Debug, PartialEq)]
pub struct ProxyStatus {
    /// The workload that it serves.
    pub workload: ObjectName,
    /// Its identity.
    pub id: WorkloadId,
    /// What it is.
    pub role: Role,
    /// The id by which it introduced itself; `None` while it is not connected.
    pub node: Option<String>,
    /// How long it has been connected; `None` while it is not.
    pub connected: Option<Duration>,
    /// How far each kind has come. All kinds are there.
    pub kinds: BTreeMap<Kind, KindStatus>,
}

impl ProxyStatus {
    /// Whether it is connected and has accepted everything that it was sent.
    #[must_use]
    pub fn is_synced(&self) -> bool {
        let is_good = |kind: &KindStatus| matches!(kind.sync, Sync::Synced | Sync::NotSent);
        self.connected.is_some()
            && self.kinds.values().all(is_good)
            && self.kinds.values().any(|kind| kind.sync == Sync::Synced)
    }
}

/// How far one kind has come on one proxy.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KindStatus {
    /// The state.
    pub sync: Sync,
    /// How long it has been so.
    pub age: Duration,
    /// The version that was last sent; empty when nothing was.
    pub version: String,
}

/// Whether a proxy holds what it was sent.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Sync {
    /// Nothing was sent: it did not ask, or there is nothing for it.
    #[default]
    NotSent,
    /// It was sent and has not been answered.
    Stale,
    /// It was accepted.
    Synced,
    /// It was refused, for this reason; the proxy holds what it had before.
    Nack(String),
}

impl std::fmt::Display for Sync {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::NotSent => "NOT SENT",
            Self::Stale => "STALE",
            Self::Synced => "SYNCED",
            Self::Nack(_) => "NACK",
        })
    }
}

/// The progress of one stream.
#[derive(Debug)]
pub(crate) struct Progress {
    since: Instant,
    kinds: BTreeMap<Kind, (Sync, Instant, String)>,
}

impl Progress {
    pub(crate) fn new(now: Instant) -> Self {
        Self { since: now, kinds: BTreeMap::new() }
    }

    pub(crate) fn take(&mut self, kind: Kind, report: Report, now: Instant) {
        let (sync, version) = match report {
            Report::Sent { version } => (Sync::Stale, version),
            Report::Ack { version } => (Sync::Synced, version),
            Report::Nack { version, detail } => (Sync::Nack(detail), version),
        };
        self.kinds.insert(kind, (sync, now, version));
    }

    pub(crate) fn age(&self, now: Instant) -> Duration {
        now - self.since
    }

    pub(crate) fn show(&self, now: Instant) -> BTreeMap<Kind, KindStatus> {
        let show = |kind| match self.kinds.get(&kind) {
            None => KindStatus { sync: Sync::NotSent, age: self.age(now), version: String::new() },
            Some((sync, at, version)) => {
                KindStatus { sync: sync.clone(), age: now - *at, version: version.clone() }
            }
        };
        Kind::ALL.into_iter().map(|kind| (kind, show(kind))).collect()
    }
}
