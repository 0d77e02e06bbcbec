//! How far each proxy has come, for people to read.

use std::{collections::BTreeMap, net::IpAddr, time::Duration};

use sluis_envoy::Kind;
use sluis_nouns::{ObjectName, WorkloadId};
use sluis_translate::Role;
use sluis_xds::{Peer, Report};
use tokio::time::Instant;

/// One proxy, connected or expected.
#[derive(Clone, Debug, PartialEq)]
pub struct ProxyStatus {
    /// The workload that it serves.
    pub workload: ObjectName,
    /// Its identity.
    pub id: WorkloadId,
    /// Its workload's address.
    pub address: IpAddr,
    /// What it is.
    pub role: Role,
    /// The id by which it introduced itself; `None` while it is not connected.
    pub node: Option<String>,
    /// How long it has been connected; `None` while it is not.
    pub connected: Option<Duration>,
    /// Who it is: by its certificate, or by its word alone; `None` while it is not connected.
    pub peer: Option<Peer>,
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
    /// The version that was last accepted; empty when none was.
    pub accepted: String,
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
    kinds: BTreeMap<Kind, KindProgress>,
    /// Since when an answer to a change is awaited.
    changed: Option<Instant>,
}

/// The progress of one kind.
#[derive(Debug)]
struct KindProgress {
    sync: Sync,
    at: Instant,
    version: String,
    accepted: String,
}

impl Progress {
    pub(crate) fn new(now: Instant) -> Self {
        Self { since: now, kinds: BTreeMap::new(), changed: None }
    }

    /// Something is on its way that follows from a change at `at`.
    pub(crate) fn change(&mut self, at: Instant) {
        self.changed.get_or_insert(at);
    }

    /// Takes reports that belong together. Gives the time since the change that they follow from,
    /// once everything is answered.
    pub(crate) fn take(&mut self, reports: Vec<(Kind, Report)>, now: Instant) -> Option<Duration> {
        for (kind, report) in reports {
            let (sync, version) = match report {
                Report::Sent { version } => (Sync::Stale, version),
                Report::Ack { version } => (Sync::Synced, version),
                Report::Nack { version, detail } => (Sync::Nack(detail), version),
            };
            let before = self.kinds.remove(&kind).map(|before| before.accepted);
            let accepted = match sync {
                Sync::Synced => version.clone(),
                _ => before.unwrap_or_default(),
            };
            self.kinds.insert(kind, KindProgress { sync, at: now, version, accepted });
        }
        if self.kinds.values().any(|kind| kind.sync == Sync::Stale) {
            return None;
        }
        self.changed.take().map(|changed| now - changed)
    }

    pub(crate) fn age(&self, now: Instant) -> Duration {
        now - self.since
    }

    pub(crate) fn show(&self, now: Instant) -> BTreeMap<Kind, KindStatus> {
        let show = |kind| match self.kinds.get(&kind) {
            None => KindStatus {
                sync: Sync::NotSent,
                age: self.age(now),
                version: String::new(),
                accepted: String::new(),
            },
            Some(kind) => KindStatus {
                sync: kind.sync.clone(),
                age: now - kind.at,
                version: kind.version.clone(),
                accepted: kind.accepted.clone(),
            },
        };
        Kind::ALL.into_iter().map(|kind| (kind, show(kind))).collect()
    }
}
