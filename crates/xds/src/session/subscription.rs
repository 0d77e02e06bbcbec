//! One kind on one stream: what the proxy wants, what it holds, and what it is owed.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use sluis_envoy::{Encoded, EncodedSet, Kind};
use xxhash_rust::xxh3::Xxh3;

use super::{Breach, Dialect, NAME_BYTES_MAX, NAMES_MAX, Report, Response};

/// The name that stands for every resource of a kind.
const WILDCARD: &str = "*";

/// Where one kind stands.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) enum Phase {
    /// The proxy has not asked for this kind.
    #[default]
    Idle,
    /// Nothing is on the wire. `accepted` is false after a NACK.
    Settled { accepted: bool },
    /// A response is on the wire; `names` are the resources in it.
    Sent { nonce: String, version: String, names: Vec<String> },
}

/// What the proxy asked for of one kind, and what it has.
#[derive(Debug, Default)]
pub(super) struct Subscription {
    pub(super) phase: Phase,
    wanted: Wanted,
    /// Version by name, as sent. `None`: the proxy was told that there is no such resource.
    held: BTreeMap<String, Option<String>>,
    /// What was in a refused response. It is sent again together with the next change, because
    /// the proxy may have taken none of that response.
    refused: BTreeSet<String>,
    /// State of the world: removed resources that something may still name.
    retained: BTreeMap<String, Encoded>,
    /// The nonce of the last response, answered or not.
    nonce_last: String,
    /// The proxy waits for a response even when nothing differs.
    must_respond: bool,
    /// The next request is to be answered even when it looks like an ACK.
    answers_next: bool,
}

/// The names that are subscribed.
#[derive(Debug, Default)]
struct Wanted {
    /// Everything of the kind.
    wildcard: bool,
    /// The wildcard came from an empty list, the form before `*` existed.
    wildcard_by_silence: bool,
    names: BTreeSet<String>,
}

/// What must be sent to make the proxy hold what it should.
#[derive(Debug)]
pub(super) struct Owed {
    upserts: Vec<Encoded>,
    removed: Vec<String>,
    /// What the proxy holds afterwards.
    held: BTreeMap<String, Option<String>>,
}

impl Subscription {
    /// Whether a request with this nonce answers an older response than the last one.
    pub(super) fn is_stale(&self, nonce: &str) -> bool {
        !nonce.is_empty() && nonce != self.nonce_last
    }

    /// Whether a response is on the wire.
    pub(super) fn is_waiting(&self) -> bool {
        matches!(self.phase, Phase::Sent { .. })
    }

    /// The version of what the proxy holds.
    pub(super) fn version(&self) -> String {
        version_of(&self.held)
    }

    /// Whether the proxy has accepted everything it was sent.
    pub(super) fn is_accepted(&self) -> bool {
        self.phase == Phase::Settled { accepted: true }
    }

    /// Makes the next request be answered even when it looks like an ACK.
    pub(super) fn answer_next(&mut self) {
        self.answers_next = true;
    }

    /// Takes an ACK or NACK, when the request is one for the response on the wire.
    pub(super) fn answer(&mut self, nonce: &str, error: Option<String>) -> Option<Report> {
        match std::mem::replace(&mut self.phase, Phase::Settled { accepted: true }) {
            Phase::Sent { nonce: sent, version, names } if sent == nonce => match error {
                None => {
                    self.refused.clear();
                    Some(Report::Ack { version })
                }
                Some(detail) => {
                    self.refused.extend(names);
                    self.phase = Phase::Settled { accepted: false };
                    Some(Report::Nack { version, detail })
                }
            },
            // State of the world without a nonce begins anew. In delta, a request without a nonce
            // only changes the subscription.
            Phase::Idle => None,
            other => {
                self.phase = other;
                None
            }
        }
    }

    /// Takes what the proxy holds from an earlier stream.
    pub(super) fn resume(&mut self, held: HashMap<String, String>) {
        self.held = held.into_iter().map(|(name, version)| (name, Some(version))).collect();
    }

    /// State of the world: the subscription is exactly `names`.
    pub(super) fn become_all(&mut self, kind: Kind, is_first: bool, names: Vec<String>) {
        let mut names: BTreeSet<String> = names.into_iter().collect();
        let silent = names.is_empty();
        let asks_all = names.remove(WILDCARD);
        // "If the client sends a request but has not previously subscribed by name, the server
        // should treat the empty list as a wildcard subscription."
        let by_silence =
            silent && ((is_first && kind.is_wildcard()) || self.wanted.wildcard_by_silence);
        self.wanted =
            Wanted { wildcard: asks_all || by_silence, wildcard_by_silence: by_silence, names };
        self.must_respond |= is_first || std::mem::take(&mut self.answers_next);
        let wanted = &self.wanted;
        self.held.retain(|name, _| wanted.covers(name));
        self.retained.retain(|name, _| wanted.covers(name));
    }

    /// Incremental: adds and takes away names.
    pub(super) fn change(
        &mut self,
        kind: Kind,
        is_first: bool,
        subscribe: Vec<String>,
        unsubscribe: &[String],
    ) {
        for name in unsubscribe {
            if name == WILDCARD {
                self.wanted.wildcard = false;
                let wanted = &self.wanted;
                self.held.retain(|name, _| wanted.covers(name));
            } else {
                self.wanted.names.remove(name);
                self.held.remove(name);
            }
        }
        if is_first && subscribe.is_empty() && kind.is_wildcard() {
            self.wanted.wildcard = true;
        }
        for name in subscribe {
            // "The server must still provide those resources in the response; due to
            // implementation details hidden from the server, the client may have forgotten those
            // resources despite apparently remaining subscribed."
            if name == WILDCARD {
                self.wanted.wildcard = true;
                if !is_first {
                    self.held.clear();
                    self.must_respond = true;
                }
            } else {
                if !is_first {
                    self.held.remove(&name);
                }
                self.wanted.names.insert(name);
            }
        }
        // A proxy that starts waits for the first response, even when there is nothing to hold.
        self.must_respond |= is_first && self.wanted.wildcard;
    }

    /// Checks the sizes of what the proxy asked for.
    pub(super) fn check_bounds(&self, kind: Kind) -> Result<(), Breach> {
        if self.wanted.names.len() > NAMES_MAX || self.held.len() > NAMES_MAX {
            return Err(Breach::Names { kind });
        }
        if self.wanted.names.iter().chain(self.held.keys()).any(|name| name.len() > NAME_BYTES_MAX)
        {
            return Err(Breach::Name { kind });
        }
        Ok(())
    }

    /// Keeps the bodies of resources that the proxy holds and that the new set lacks.
    pub(super) fn retain_from(&mut self, old: &EncodedSet, new: &EncodedSet, kind: Kind) {
        for name in self.held.keys() {
            if let Some(body) = old.get(kind, name) {
                self.retained.insert(name.clone(), body.clone());
            }
        }
        self.retained.retain(|name, _| new.get(kind, name).is_none());
    }

    /// What to send so that the proxy holds what it should; `None` when it does.
    ///
    /// With `prune` false, nothing is removed yet.
    pub(super) fn owed(
        &self,
        kind: Kind,
        set: &EncodedSet,
        dialect: Dialect,
        prune: bool,
    ) -> Option<Owed> {
        match dialect {
            Dialect::Sotw => self.owed_whole(kind, set, prune),
            Dialect::Delta => self.owed_changes(kind, set, prune),
        }
    }

    /// Notes that `owed` is on its way. `None` when there is nothing to say after all.
    pub(super) fn send(
        &mut self,
        kind: Kind,
        nonce: String,
        owed: Owed,
        dialect: Dialect,
    ) -> Option<Response> {
        self.must_respond = false;
        self.held = owed.held;
        if dialect == Dialect::Sotw {
            let held = &self.held;
            self.retained.retain(|name, _| held.contains_key(name));
            // Absence cannot be said for a kind that is subscribed by name.
            if owed.upserts.is_empty() && !self.wanted.wildcard {
                return None;
            }
        }
        let version = version_of(&self.held);
        self.nonce_last.clone_from(&nonce);
        self.phase = Phase::Sent {
            nonce: nonce.clone(),
            version: version.clone(),
            names: owed.upserts.iter().map(|resource| resource.name.clone()).collect(),
        };
        Some(Response { kind, nonce, version, upserts: owed.upserts, removed: owed.removed })
    }

    fn owed_whole(&self, kind: Kind, set: &EncodedSet, prune: bool) -> Option<Owed> {
        let mut whole = self.wanted.select(kind, set);
        if !prune {
            whole.extend(self.retained.iter().map(|(name, body)| (name.as_str(), Some(body))));
        }
        let upserts: Vec<&Encoded> = whole.values().filter_map(|found| *found).collect();
        let held: BTreeMap<String, Option<String>> = upserts
            .iter()
            .map(|resource| (resource.name.clone(), Some(resource.version.clone())))
            .collect();
        (self.must_respond || held != self.held).then(|| Owed {
            upserts: upserts.into_iter().cloned().collect(),
            removed: Vec::new(),
            held,
        })
    }

    fn owed_changes(&self, kind: Kind, set: &EncodedSet, prune: bool) -> Option<Owed> {
        let wanted = self.wanted.select(kind, set);
        let mut owed = Owed { upserts: vec![], removed: vec![], held: self.held.clone() };
        for (name, found) in &wanted {
            match (found, self.held.get(*name)) {
                (Some(resource), Some(Some(version))) if resource.version == *version => {}
                (Some(resource), _) => owed.upsert(resource),
                (None, Some(None)) => {}
                (None, Some(Some(_))) if !prune => {}
                (None, _) => {
                    owed.removed.push((*name).to_owned());
                    owed.held.insert((*name).to_owned(), None);
                }
            }
        }
        let gone = self.held.iter().filter(|(name, _)| !wanted.contains_key(name.as_str()));
        for (name, version) in gone {
            if version.is_none() {
                owed.held.remove(name);
            } else if prune {
                owed.held.remove(name);
                owed.removed.push(name.clone());
            }
        }
        if !self.must_respond && owed.upserts.is_empty() && owed.removed.is_empty() {
            return None;
        }
        for name in &self.refused {
            if let Some(Some(resource)) = wanted.get(name.as_str())
                && !owed.upserts.iter().any(|upsert| upsert.name == *name)
            {
                owed.upsert(resource);
            }
        }
        Some(owed)
    }
}

impl Owed {
    fn upsert(&mut self, resource: &Encoded) {
        self.held.insert(resource.name.clone(), Some(resource.version.clone()));
        self.upserts.push(resource.clone());
    }
}

impl Wanted {
    fn covers(&self, name: &str) -> bool {
        self.wildcard || self.names.contains(name)
    }

    /// The resources that are subscribed; `None` for a name that the set lacks.
    fn select<'a>(
        &'a self,
        kind: Kind,
        set: &'a EncodedSet,
    ) -> BTreeMap<&'a str, Option<&'a Encoded>> {
        let mut found: BTreeMap<&str, Option<&Encoded>> =
            self.names.iter().map(|name| (name.as_str(), set.get(kind, name))).collect();
        if self.wildcard {
            found.extend(set.of(kind).map(|resource| (resource.name.as_str(), Some(resource))));
        }
        found
    }
}

/// The hash of what a proxy holds, as 16 hexadecimal digits.
fn version_of(held: &BTreeMap<String, Option<String>>) -> String {
    let mut hash = Xxh3::new();
    for (name, version) in held {
        if let Some(version) = version {
            for part in [name, version] {
                hash.update(&(part.len() as u64).to_le_bytes());
                hash.update(part.as_bytes());
            }
        }
    }
    format!("{:016x}", hash.digest())
}
