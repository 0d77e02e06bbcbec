//! One kind on one stream: what the proxy wants, what it holds, and what it is owed.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    sync::Arc,
};

use sluis_envoy::{Encoded, Kind, KindSet};

use super::{
    Breach, Dialect, NAME_BYTES_MAX, NAMES_MAX, Report, Response,
    held::{Held, Holding, WILDCARD, Wanted},
};

/// Where one kind stands.
#[derive(Debug, Default, PartialEq)]
pub(super) enum Phase {
    /// The proxy has not asked for this kind.
    #[default]
    Idle,
    /// Nothing is on the wire. `accepted` is false after a NACK.
    Settled { accepted: bool },
    /// A response is on the wire, with these resources in it.
    Sent { nonce: String, version: String, resources: Vec<Arc<Encoded>> },
}

/// What the proxy asked for of one kind, and what it has.
#[derive(Debug, Default)]
pub(super) struct Subscription {
    pub(super) phase: Phase,
    wanted: Wanted,
    held: Held,
    /// What was in a refused response. It is sent again together with the next change, because
    /// the proxy may have taken none of that response.
    refused: BTreeSet<String>,
    /// The nonce of the last response, answered or not.
    nonce_last: String,
    /// The proxy waits for a response even when nothing differs.
    must_respond: bool,
    /// The next request is to be answered even when it looks like an ACK.
    answers_next: bool,
}

/// What must be sent to make the proxy hold what it should.
#[derive(Debug)]
pub(super) struct Owed {
    upserts: Vec<Arc<Encoded>>,
    removed: Vec<String>,
    /// What the proxy holds afterwards.
    held: Held,
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
        self.held.version(&self.wanted)
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
            Phase::Sent { nonce: sent, version, resources } if sent == nonce => match error {
                None => {
                    self.refused.clear();
                    Some(Report::Ack { version })
                }
                Some(detail) => {
                    self.refused.extend(resources.iter().map(|resource| resource.name.clone()));
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
        let except = held.into_iter().map(|(name, version)| (name, Holding::Version(version)));
        self.held = Held { except: except.collect(), ..Held::default() };
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
        let wildcard = asks_all || by_silence;
        if wildcard != self.wanted.wildcard {
            self.held.spell_out(&self.wanted);
        }
        if !self.wanted.is_exactly(&names) {
            for name in names.iter().filter(|name| !self.wanted.covers(name)) {
                self.held.forget(name);
            }
            self.wanted.replace(names);
        }
        self.wanted.wildcard = wildcard;
        self.wanted.wildcard_by_silence = by_silence;
        self.must_respond |= is_first || std::mem::take(&mut self.answers_next);
        let wanted = &self.wanted;
        self.held.except.retain(|name, _| wanted.covers(name));
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
                self.held.spell_out(&self.wanted);
                self.wanted.wildcard = false;
                let wanted = &self.wanted;
                self.held.except.retain(|name, _| wanted.covers(name));
            } else {
                self.wanted.remove(name);
                self.held.forget(name);
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
                    self.held = Held::default();
                    self.must_respond = true;
                }
            } else {
                if !is_first {
                    self.held.forget(&name);
                }
                self.wanted.insert(name);
            }
        }
        // A proxy that starts waits for the first response, even when there is nothing to hold.
        self.must_respond |= is_first && self.wanted.wildcard;
    }

    /// Shares the list of names with all who want the same.
    pub(super) fn share_names(&mut self, set: &KindSet) {
        self.wanted.share(set);
    }

    /// Checks the sizes of what the proxy asked for.
    pub(super) fn check_bounds(&self, kind: Kind) -> Result<(), Breach> {
        let own = self.wanted.own_names();
        if self.wanted.count() > NAMES_MAX || self.held.except.len() > NAMES_MAX {
            return Err(Breach::Names { kind });
        }
        let mut names = own.into_iter().flatten().chain(self.held.except.keys());
        if names.any(|name| name.len() > NAME_BYTES_MAX) {
            return Err(Breach::Name { kind });
        }
        Ok(())
    }

    /// What to send so that the proxy holds what it should; `None` when it does.
    ///
    /// With `prune` false, nothing is removed yet.
    pub(super) fn owed(&self, set: &KindSet, dialect: Dialect, prune: bool) -> Option<Owed> {
        let mut owed = Owed {
            upserts: Vec::new(),
            removed: Vec::new(),
            held: Held { base: set.clone(), except: BTreeMap::new() },
        };
        let is_different = self.compare(set, prune, &mut owed);
        if !self.must_respond && !is_different {
            return None;
        }
        match dialect {
            Dialect::Sotw => self.repeat_everything(set, &mut owed),
            Dialect::Delta => self.repeat_refused(set, &mut owed),
        }
        Some(owed)
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
        // Absence cannot be said for a kind that is subscribed by name.
        if dialect == Dialect::Sotw && owed.upserts.is_empty() && !self.wanted.wildcard {
            return None;
        }
        let version = self.version();
        self.nonce_last.clone_from(&nonce);
        self.phase = Phase::Sent {
            nonce: nonce.clone(),
            version: version.clone(),
            resources: owed.upserts.clone(),
        };
        let removed = if dialect == Dialect::Delta { owed.removed } else { Vec::new() };
        Some(Response { kind, nonce, version, upserts: owed.upserts, removed })
    }

    /// Finds what differs between what the proxy has and what it should have; says whether anything
    /// does. Looks only at names of which something may differ.
    fn compare(&self, set: &KindSet, prune: bool, owed: &mut Owed) -> bool {
        let differences = set.since(&self.held.base);
        let changed = differences.iter().flat_map(|difference| &difference.resources);
        let mut candidates: BTreeSet<&str> =
            changed.map(|resource| resource.name.as_str()).collect();
        candidates.extend(self.held.except.keys().map(String::as_str));
        let own = self.wanted.own_names().into_iter().flatten();
        candidates.extend(own.map(String::as_str).filter(|name| set.get(name).is_none()));
        let mut is_different = false;
        for name in candidates {
            let found = set.get(name).filter(|_| self.wanted.covers(name));
            let holding = self.held.of(name, &self.wanted);
            let is_named = self.wanted.names(name);
            match (found, &holding) {
                (Some(resource), held) if held.version() == Some(&resource.version) => {}
                (Some(resource), _) => {
                    is_different = true;
                    owed.upserts.push(Arc::clone(resource));
                }
                (None, Holding::Absence) if is_named => {
                    owed.held.except.insert(name.to_owned(), Holding::Absence);
                }
                (None, Holding::Nothing) if is_named => {
                    is_different = true;
                    owed.remove(name, is_named);
                }
                (None, Holding::Nothing | Holding::Absence) => {}
                (None, _) if prune => {
                    is_different = true;
                    owed.remove(name, is_named);
                }
                (None, _) => {
                    owed.held.except.insert(name.to_owned(), holding);
                }
            }
        }
        is_different
    }

    /// State of the world: everything that the proxy should have, and what it has still to keep.
    fn repeat_everything(&self, set: &KindSet, owed: &mut Owed) {
        let wanted = set.iter().filter(|resource| self.wanted.covers(&resource.name));
        let kept = owed.held.except.values().filter_map(|holding| match holding {
            Holding::Resource(resource) => Some(resource),
            _ => None,
        });
        owed.upserts = wanted.chain(kept).cloned().collect();
        owed.upserts.sort_by(|a, b| a.name.cmp(&b.name));
    }

    /// Incremental: what was refused goes along with the next change.
    fn repeat_refused(&self, set: &KindSet, owed: &mut Owed) {
        for name in &self.refused {
            if let Some(resource) = set.get(name).filter(|_| self.wanted.covers(name))
                && !owed.upserts.iter().any(|upsert| upsert.name == *name)
            {
                owed.upserts.push(Arc::clone(resource));
            }
        }
    }
}

impl Owed {
    /// The proxy is told that there is no such resource, and remembers it if it named it.
    fn remove(&mut self, name: &str, is_named: bool) {
        self.removed.push(name.to_owned());
        if is_named {
            self.held.except.insert(name.to_owned(), Holding::Absence);
        }
    }
}
