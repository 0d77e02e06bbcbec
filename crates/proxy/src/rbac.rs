//! Carries out role-based access control on connections and requests: decides, counts, tells.
//!
//! In:    a compiled filter and what is known of the peer and the request.
//! Out:   whether it may pass; counters and dynamic metadata under Envoy's names.
//! Never: lets pass what the policies do not allow.

use std::{cell::RefCell, rc::Rc, sync::Arc};

use sluis_rules::{
    Address, MetaValue, Metadata, NetworkRbac, PeerFacts, RbacFacts, RbacFilter, Verdict,
};
use tracing::debug;

use crate::{
    conn::ConnectionFacts,
    stats::{Shard, Tally},
};

/// Where a filter that logs says that a request is to be logged.
const COMMON: &str = "envoy.common";

/// Under which names the filters tell what they have found, whatever they are called themselves.
const HTTP: &str = "envoy.filters.http.rbac";
const NETWORK: &str = "envoy.filters.network.rbac";

/// A value of dynamic metadata: its namespace and key.
pub(crate) type Told = (Arc<str>, Arc<str>, MetaValue);

/// One of the filters that Envoy calls RBAC, with its counters.
#[derive(Debug)]
pub(crate) struct Guard {
    /// Under which name it tells what it has found.
    namespace: Arc<str>,
    tallies: Tallies,
    /// Of the filter that was used last: a route may have its own.
    names: RefCell<Option<Rc<Names>>>,
}

/// The keys under which a filter tells what it has found, and what it tells.
#[derive(Debug)]
struct Names {
    prefix: Arc<str>,
    shadow_prefix: Arc<str>,
    enforced: Keys,
    shadow: Keys,
    allowed: MetaValue,
    denied: MetaValue,
}

#[derive(Debug)]
struct Keys {
    result: Arc<str>,
    policy: Arc<str>,
}

impl Names {
    fn of(filter: &RbacFilter) -> Self {
        let keys = |prefix: String| Keys {
            result: format!("{prefix}engine_result").into(),
            policy: format!("{prefix}effective_policy_id").into(),
        };
        Self {
            enforced: keys(format!("{}enforced_", filter.prefix)),
            shadow: keys(format!("{}shadow_", filter.shadow_prefix)),
            prefix: Arc::clone(&filter.prefix),
            shadow_prefix: Arc::clone(&filter.shadow_prefix),
            allowed: MetaValue::text("allowed"),
            denied: MetaValue::text("denied"),
        }
    }

    fn are_of(&self, filter: &RbacFilter) -> bool {
        self.prefix == filter.prefix && self.shadow_prefix == filter.shadow_prefix
    }
}

#[derive(Debug)]
struct Tallies {
    prefix: String,
    shadow_prefix: String,
    allowed: Tally,
    denied: Tally,
    shadow_allowed: Tally,
    shadow_denied: Tally,
}

impl Tallies {
    fn new(shard: &Shard, stats: &str, filter: &RbacFilter) -> Self {
        let prefix = format!("{stats}{}", dotted(&filter.prefix));
        let shadow_prefix = format!("{stats}{}", dotted(&filter.shadow_prefix));
        Self {
            allowed: shard.named(&format!("{prefix}allowed")),
            denied: shard.named(&format!("{prefix}denied")),
            shadow_allowed: shard.named(&format!("{shadow_prefix}shadow_allowed")),
            shadow_denied: shard.named(&format!("{shadow_prefix}shadow_denied")),
            prefix,
            shadow_prefix,
        }
    }
}

/// As Envoy joins prefixes: with one dot.
fn dotted(prefix: &str) -> String {
    if prefix.is_empty() || prefix.ends_with('.') {
        prefix.to_owned()
    } else {
        format!("{prefix}.")
    }
}

impl Guard {
    /// The HTTP filter of a manager. As in Envoy its counters are named by it, not by routes.
    pub(crate) fn http(shard: &Shard, manager: &str, filter: &RbacFilter) -> Self {
        let tallies = Tallies::new(shard, &format!("http.{manager}.rbac."), filter);
        Self { namespace: HTTP.into(), tallies, names: RefCell::default() }
    }

    fn network(shard: &Shard, filter: &NetworkRbac) -> Self {
        let stats = format!("{}rbac.", dotted(&filter.stat_prefix));
        let tallies = Tallies::new(shard, &stats, &filter.filter);
        Self { namespace: NETWORK.into(), tallies, names: RefCell::default() }
    }

    /// Decides by a filter's policies. What is found is put into `told`, for the dynamic metadata.
    ///
    /// # Errors
    ///
    /// Why the request or connection may not pass, in Envoy's words.
    pub(crate) fn decide(
        &self,
        shard: &Shard,
        filter: &RbacFilter,
        facts: &RbacFacts<'_>,
        told: &mut Vec<Told>,
    ) -> Result<(), String> {
        let tallies = &self.tallies;
        if let Some(rules) = &filter.shadow {
            let verdict = rules.decide(facts);
            let tally =
                if verdict.is_allowed { &tallies.shadow_allowed } else { &tallies.shadow_denied };
            tally.inc();
            if filter.counts_policies {
                count(shard, &tallies.shadow_prefix, "shadow_", verdict);
            }
            let names = self.names(filter);
            self.tell((&names, &names.shadow), verdict, told);
        }
        let Some(rules) = &filter.rules else { return Ok(()) };
        let verdict = rules.decide(facts);
        let names = self.names(filter);
        self.tell((&names, &names.enforced), verdict, told);
        if let Some(logs) = verdict.logs {
            told.push((COMMON.into(), "access_log_hint".into(), MetaValue::Bool(logs)));
        }
        if filter.counts_policies {
            count(shard, &tallies.prefix, "", verdict);
        }
        if verdict.is_allowed {
            tallies.allowed.inc();
            return Ok(());
        }
        tallies.denied.inc();
        Err(verdict.details())
    }

    fn names(&self, filter: &RbacFilter) -> Rc<Names> {
        let mut kept = self.names.borrow_mut();
        match &*kept {
            Some(names) if names.are_of(filter) => Rc::clone(names),
            _ => Rc::clone(kept.insert(Rc::new(Names::of(filter)))),
        }
    }

    fn tell(&self, (names, keys): (&Names, &Keys), verdict: Verdict<'_>, told: &mut Vec<Told>) {
        let result = if verdict.is_allowed { &names.allowed } else { &names.denied };
        let mut set = |key: &Arc<str>, value: MetaValue| {
            told.push((Arc::clone(&self.namespace), Arc::clone(key), value));
        };
        set(&keys.result, result.clone());
        if let Some(policy) = verdict.policy {
            set(&keys.policy, MetaValue::Text(Arc::clone(policy)));
        }
    }
}

/// Counts a policy by its name.
fn count(shard: &Shard, prefix: &str, kind: &str, verdict: Verdict<'_>) {
    let Some(policy) = verdict.policy else { return };
    let result = if verdict.is_allowed { "allowed" } else { "denied" };
    shard.named(&format!("{prefix}policy.{policy}.{kind}{result}")).inc();
}

/// Puts what was found into the dynamic metadata.
pub(crate) fn tell(metadata: &mut Metadata, told: Vec<Told>) {
    for (namespace, key, value) in told {
        metadata.put(&namespace, key, value);
    }
}

/// What policies may ask of a connection. `client` is who is trusted to be the client of a request.
pub(crate) fn peer_facts<'f>(
    connection: &'f ConnectionFacts,
    client: Option<std::net::SocketAddr>,
) -> PeerFacts<'f> {
    let socket = |address: &Address| match address {
        Address::Socket(address) => Some(*address),
        Address::Pipe(_) | Address::Internal(_) => None,
    };
    let peer = connection.peer.as_ref();
    let source = socket(&connection.remote).map(|address| address.ip());
    PeerFacts {
        is_tls: connection.tls_terminated,
        uris: peer.map_or(&[], |peer| &peer.uris),
        dns_names: peer.map_or(&[], |peer| &peer.dns_names),
        subject: peer.map_or("", |peer| &peer.subject),
        server_name: connection.sni.as_deref().unwrap_or_default(),
        local: socket(&connection.local),
        direct_remote: socket(&connection.direct_remote).map(|address| address.ip()),
        source,
        remote: client.map(|client| client.ip()).or(source),
    }
}

/// Decides whether a connection may pass.
///
/// Envoy decides when the first byte comes. Nothing that is asked changes until then, so that it is
/// decided at once here: who is denied is never connected anywhere, and sees no byte of a server
/// that speaks first.
///
/// # Errors
///
/// Why it is to be closed.
pub(crate) async fn admit(
    shard: &Shard,
    filter: &NetworkRbac,
    connection: &mut ConnectionFacts,
) -> Result<(), String> {
    let guard = Guard::network(shard, filter);
    let mut told = Vec::new();
    let facts = RbacFacts {
        peer: peer_facts(connection, None),
        request: None,
        metadata: &connection.metadata,
    };
    let decided = guard.decide(shard, &filter.filter, &facts, &mut told);
    tell(&mut connection.metadata, told);
    if let Err(details) = decided {
        debug!(remote = %connection.remote, local = %connection.local, sni = ?connection.sni, details, "RBAC: connection denied");
        if let Some(delay) = filter.delay {
            tokio::time::sleep(delay).await;
        }
        return Err(details);
    }
    Ok(())
}
