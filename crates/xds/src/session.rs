//! Decides what one ADS stream is sent: subscriptions, versions, nonces, answers.
//!
//! In:    [`Event`]s: what the proxy asked or answered, and the set it should now hold.
//! Out:   [`Action`]s: responses to send, answers to report, or a reason to close the stream.
//! Never: reads a clock, sends anything, or knows which proxy it serves.
//!
//! Start at [`Session::on`]. The protocol is
//! <https://www.envoyproxy.io/docs/envoy/latest/api-docs/xds_protocol>; sentences of it are quoted
//! where they are obeyed.

mod held;
mod subscription;

use std::{
    collections::{BTreeMap, HashMap},
    sync::Arc,
};

use sluis_envoy::{Encoded, EncodedSet, Kind};

use self::subscription::{Phase, Subscription};

/// Names that one subscription may hold. Above any mesh that one proxy can serve; a peer that asks
/// for more is broken, and the stream is closed.
pub const NAMES_MAX: usize = 20_000;

/// Bytes of one name. Istio's longest names (`outbound|port|subset|host`, file paths) stay far
/// below.
pub const NAME_BYTES_MAX: usize = 4096;

/// Which of the two forms of the protocol a stream speaks. It is fixed by the gRPC method.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Dialect {
    /// State of the world: each response holds everything of its kind that is subscribed.
    Sotw,
    /// Incremental: each response holds what changed.
    Delta,
}

/// What happened to a stream.
#[derive(Clone, Debug)]
pub enum Event {
    /// The proxy sent a request.
    Ask(Ask),
    /// The proxy should hold this set from now on.
    Set(Arc<EncodedSet>),
}

/// One request of the proxy: a subscription, a change of it, an answer, or several of these.
#[derive(Clone, Debug, PartialEq)]
pub struct Ask {
    /// The kind it is about.
    pub kind: Kind,
    /// The nonce that it answers; empty when it answers nothing.
    pub nonce: String,
    /// Why the proxy refuses the response with that nonce; `None` accepts it.
    pub error: Option<String>,
    /// What it subscribes to.
    pub names: Names,
}

/// The names in a request.
#[derive(Clone, Debug, PartialEq)]
pub enum Names {
    /// State of the world: the whole subscription.
    All(Vec<String>),
    /// Incremental: changes to the subscription.
    Change {
        /// Names to add; `*` for everything.
        subscribe: Vec<String>,
        /// Names to take away.
        unsubscribe: Vec<String>,
        /// What the proxy holds from an earlier stream: versions by name.
        held: HashMap<String, String>,
    },
}

/// What the owner of the stream must do, in this order.
#[derive(Clone, Debug, PartialEq)]
pub enum Action {
    /// Send a response.
    Send(Response),
    /// Tell the control plane.
    Report(Kind, Report),
    /// Close the stream: the proxy broke the protocol or a bound.
    Close(Breach),
}

/// One response to the proxy.
#[derive(Clone, Debug, PartialEq)]
pub struct Response {
    /// The kind of every resource in it.
    pub kind: Kind,
    /// The name of this response on this stream.
    pub nonce: String,
    /// The hash of everything of the kind that the proxy holds once it has taken this in.
    pub version: String,
    /// New and changed resources; in state of the world, all of them.
    pub upserts: Vec<Arc<Encoded>>,
    /// Names that are gone or were never there. Always empty in state of the world.
    pub removed: Vec<String>,
}

/// How far one kind has come on one stream.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Report {
    /// It was sent, and no answer is there yet.
    Sent {
        /// The version that was sent.
        version: String,
    },
    /// The proxy took it in.
    Ack {
        /// The version that was accepted.
        version: String,
    },
    /// The proxy refused it and keeps what it had.
    Nack {
        /// The version that was refused.
        version: String,
        /// The proxy's reason.
        detail: String,
    },
}

/// What a proxy did that ends its stream.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Breach {
    /// More names than [`NAMES_MAX`].
    #[error("{kind}: more than {NAMES_MAX} names in one subscription")]
    Names {
        /// The kind of the subscription.
        kind: Kind,
    },
    /// A name longer than [`NAME_BYTES_MAX`].
    #[error("{kind}: a name of more than {NAME_BYTES_MAX} bytes")]
    Name {
        /// The kind of the subscription.
        kind: Kind,
    },
}

/// The server's side of one ADS stream.
///
/// Each kind goes through these phases:
///
/// ```text
///   Idle ──ask──▶ Settled ──something is owed──▶ Sent
///                    ▲                            │
///                    └──────── ACK or NACK ───────┘
/// ```
///
/// At most one response per kind is on the wire. What changes meanwhile is found by comparing what
/// the proxy holds with what it should hold once the answer is there, so changes merge by
/// themselves. What was refused counts as held: it is not sent again before it changes.
///
/// Order across kinds (make before break): clusters, endpoints and secrets go before the listeners
/// and routes that name them, and are *removed* only after the proxy has accepted listeners and
/// routes that no longer do.
#[derive(Debug)]
pub struct Session {
    dialect: Dialect,
    set: Arc<EncodedSet>,
    kinds: BTreeMap<Kind, Subscription>,
    nonces: u64,
    /// The proxy brought resources from an earlier stream.
    resumed: bool,
}

impl Session {
    /// A stream on which nothing was asked yet, for a proxy that should hold `set`.
    #[must_use]
    pub fn new(dialect: Dialect, set: Arc<EncodedSet>) -> Self {
        Self { dialect, set, kinds: BTreeMap::new(), nonces: 0, resumed: false }
    }

    /// Takes one event and says what to do. The only place where the session changes.
    pub fn on(&mut self, event: Event) -> Vec<Action> {
        let mut actions = Vec::new();
        let mut resumed = None;
        match event {
            Event::Set(set) => self.replace(set),
            Event::Ask(ask) => match self.ask(ask, &mut actions) {
                Ok(found) => resumed = found,
                Err(breach) => {
                    actions.push(Action::Close(breach));
                    return actions;
                }
            },
        }
        self.flush(&mut actions);
        if let Some(kind) = resumed
            && let Some(subscription) = self.kinds.get(&kind)
            && !subscription.is_waiting()
        {
            // It holds what it should from an earlier stream, which is as good as an ACK.
            actions.push(Action::Report(kind, Report::Ack { version: subscription.version() }));
        }
        actions
    }

    /// Takes the new set.
    fn replace(&mut self, set: Arc<EncodedSet>) {
        self.set = set;
        for (kind, subscription) in &mut self.kinds {
            subscription.share_names(&self.set.kind(*kind));
        }
    }

    /// Takes a request. Gives its kind when the proxy brought resources of an earlier stream.
    fn ask(&mut self, ask: Ask, actions: &mut Vec<Action>) -> Result<Option<Kind>, Breach> {
        let kind = ask.kind;
        let subscription = self.kinds.entry(kind).or_default();
        let is_first = subscription.phase == Phase::Idle;
        if !is_first && self.dialect == Dialect::Sotw && subscription.is_stale(&ask.nonce) {
            // "The server should not respond to a request with a stale nonce": the proxy repeats
            // its whole subscription when it answers the newer response.
            return Ok(None);
        }
        if let Some(report) = subscription.answer(&ask.nonce, ask.error) {
            actions.push(Action::Report(kind, report));
        }
        let mut resumed = None;
        match ask.names {
            Names::All(names) => subscription.become_all(kind, is_first, names),
            Names::Change { subscribe, unsubscribe, held } => {
                if is_first {
                    resumed = (!held.is_empty()).then_some(kind);
                    self.resumed |= !held.is_empty();
                    subscription.resume(held);
                }
                subscription.change(kind, is_first, subscribe, &unsubscribe);
            }
        }
        subscription.check_bounds(kind)?;
        subscription.share_names(&self.set.kind(kind));
        Ok(resumed)
    }

    /// Sends whatever is owed and may be sent now.
    fn flush(&mut self, actions: &mut Vec<Action>) {
        let may_prune = self.nothing_names_the_removed();
        let mut clusters_wait = false;
        for kind in Kind::ALL {
            // A listener must not arrive before the clusters it names. Endpoints and secrets are
            // not held up: Envoy withholds its ACK of clusters until those have warmed.
            if clusters_wait && names_others(kind) {
                continue;
            }
            let Some(subscription) = self.kinds.get_mut(&kind) else { continue };
            let prune = may_prune || !is_named_by_others(kind);
            let Some(owed) = subscription.owed(&self.set.kind(kind), self.dialect, prune) else {
                continue;
            };
            if subscription.is_waiting() {
                clusters_wait |= kind == Kind::Cluster;
                continue;
            }
            let nonce = format!("{:x}", self.nonces + 1);
            if let Some(response) = subscription.send(kind, nonce, owed, self.dialect) {
                self.nonces += 1;
                let report = Report::Sent { version: response.version.clone() };
                actions.push(Action::Send(response));
                actions.push(Action::Report(kind, report));
                if kind == Kind::Cluster {
                    self.expect_endpoints_again();
                }
            }
        }
    }

    /// Whether the proxy has accepted listeners and routes that no longer name what was removed.
    ///
    /// While a listener or route is refused, the proxy keeps the older one and needs what that
    /// one names.
    fn nothing_names_the_removed(&self) -> bool {
        [Kind::Listener, Kind::Route].into_iter().all(|kind| match self.kinds.get(&kind) {
            // A proxy that comes back asks for clusters before it asks for listeners.
            None => kind != Kind::Listener || !self.resumed,
            Some(subscription) => {
                subscription.is_accepted()
                    && subscription.owed(&self.set.kind(kind), self.dialect, true).is_none()
            }
        })
    }

    /// In state of the world Envoy asks again for the endpoints of a cluster that was updated, in a
    /// request that looks like an ACK, and the cluster warms until it is answered.
    fn expect_endpoints_again(&mut self) {
        if let (Dialect::Sotw, Some(endpoints)) =
            (self.dialect, self.kinds.get_mut(&Kind::Endpoints))
        {
            endpoints.answer_next();
        }
    }
}

/// Whether resources of the kind name resources of other kinds.
fn names_others(kind: Kind) -> bool {
    matches!(kind, Kind::Listener | Kind::Route)
}

/// Whether resources of the kind are named by listeners and routes.
fn is_named_by_others(kind: Kind) -> bool {
    matches!(kind, Kind::Cluster | Kind::Endpoints | Kind::Secret)
}

#[cfg(test)]
mod tests;
#[cfg(test)]
mod walk;
