//! Policies on external hosts, enforced wherever traffic for them passes.
//!
//! In:    `AuthorizationPolicy` objects whose `targetRefs` name a `ServiceEntry`; the chains and routes
//!        of a proxy.
//! Out:   the same chains and routes, holding to the policies of the hosts that they lead to.
//! Never: lets through at a sidecar what the policy refuses there already, or at a gateway what its
//!        own policies refuse: each is asked by itself.
//!
//! Istio knows this target for waypoints only (istio/istio#30631). Here it holds twice: at each client's
//! own sidecar, where the client's identity is known when the configuration is made, and at every
//! gateway that carries the host, by the identity of the client's certificate. Tokens are read at the
//! gateway: a sidecar that sends its requests there leaves those clauses to it.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use sluis_model::{Owned, ServiceSource};
use sluis_nouns::HostPattern;
use sluis_resources::{
    AuthorizationPolicy, ConditionKey, ConditionValue, ServiceAccountRef, TargetKind, TextPattern,
};

use super::{
    Selection,
    authorization::{names_identity, written},
    destination::CLIENT_TLS,
};
use crate::{
    Attribute, AuthorizationInput, ChainInput, Clause, Fault, Handler, ListenerInput, PolicySet,
    ProxyView, Role, RouteAction, RouteInput, RouteTable, RuleInput, RuleMatch, VirtualHostInput,
    Wanted,
};

/// The answer to requests that a policy guards and the proxy cannot tell apart.
const FORBIDDEN: u32 = 403;

/// The policies by guarded host.
type Guards<'a> = BTreeMap<HostPattern, Vec<&'a Owned<AuthorizationPolicy>>>;

/// A host, and the port of its service where that is known.
type Led = (HostPattern, Option<u16>);

/// Has chains and routes hold to the policies of the hosts that they lead to.
pub(super) fn apply(
    selection: &mut Selection<'_>,
    listeners: &mut [ListenerInput],
    tables: &mut [RouteTable],
) {
    report_missing(selection);
    let guards = guards(selection);
    if guards.is_empty() {
        return;
    }
    let mut guarding = Guarding { guards, made: BTreeMap::new() };
    let mut guarded = BTreeSet::new();
    for table in tables {
        if guarding.table(selection, table) {
            guarded.insert(table.name.clone());
        }
    }
    for chain in listeners.iter_mut().flat_map(|listener| &mut listener.chains) {
        match &chain.handler {
            Handler::Http { routes, .. } => chain.has_guards = guarded.contains(routes),
            Handler::Tcp { .. } => guarding.chain(selection, chain),
        }
    }
}

/// Names what policies are attached to and is not there: nothing is guarded by them.
fn report_missing(selection: &mut Selection<'_>) {
    for (policy, target) in selection.snapshot.missing_targets() {
        let kind = match target.kind {
            TargetKind::ServiceEntry => "ServiceEntry",
            _ => "Gateway",
        };
        let message = format!(
            "there is no {kind} {} in namespace {}: the policy holds nowhere because of it",
            target.name,
            policy.meta().name.namespace
        );
        let fault = Fault::warning(target.at.clone(), message);
        selection.fault(policy.meta(), fault.field("spec.targetRefs"));
    }
}

/// The policies on hosts that this proxy sees, and sees by the very object that the policy names.
fn guards<'a>(selection: &Selection<'a>) -> Guards<'a> {
    let mut guards = Guards::new();
    for (policy, hosts) in selection.snapshot.guards() {
        for host in hosts {
            let is_seen = selection.service(&host).is_some_and(|service| {
                service.source == ServiceSource::Entry
                    && service.namespace() == &*policy.meta().name.namespace
            });
            if is_seen {
                guards.entry(host).or_default().push(policy);
            }
        }
    }
    guards
}

/// What a rule is decided by when the configuration is made.
struct Known<'a> {
    view: &'a ProxyView,
    host: &'a HostPattern,
    port: Option<u16>,
    /// The traffic goes on to a gateway, which reads tokens.
    is_passed_on: bool,
    /// Of bytes: whether they are TLS, whose server name stands for the host.
    bytes: Option<bool>,
}

/// What is left of a clause.
enum Left {
    /// It holds.
    True,
    /// It does not hold.
    False,
    /// It is decided by another proxy: the rule must not refuse here because of it, nor let through
    /// there.
    Elsewhere,
    /// It cannot be known here: ALLOW has it not hold, the others have it hold.
    Unknown,
    /// It is decided by the request or connection.
    Open(Clause),
}

/// What policies come to depends on: the host, its port, and two of [`Known`]'s.
type MadeFor = (HostPattern, Option<u16>, bool, Option<bool>);

struct Guarding<'a> {
    guards: Guards<'a>,
    made: BTreeMap<MadeFor, Arc<AuthorizationInput>>,
}

impl Guarding<'_> {
    /// The guarded host that a host belongs to: its own service, else the narrowest wildcard's.
    fn of(&self, selection: &Selection<'_>, host: &HostPattern) -> Option<HostPattern> {
        if self.guards.contains_key(host) {
            return Some(host.clone());
        }
        if selection.service(host).is_some() || !self.guards.keys().any(|own| own.covers(host)) {
            return None;
        }
        let covers = |service: &&Arc<sluis_model::MeshService>| service.host.covers(host);
        let all = selection.services.iter().filter(covers);
        let narrowest = all.min_by(|a, b| a.host.by_specificity(&b.host))?;
        self.guards.contains_key(&narrowest.host).then(|| narrowest.host.clone())
    }

    /// The guarded hosts among clusters and names.
    fn led(
        &self,
        selection: &Selection<'_>,
        clusters: &[&str],
        names: &[Led],
    ) -> (BTreeMap<HostPattern, Option<u16>>, bool) {
        let (mut found, mut is_passed_on) = (BTreeMap::new(), false);
        for (host, port) in clusters.iter().filter_map(|cluster| of_cluster(cluster)) {
            match self.of(selection, &host) {
                Some(own) => _ = found.insert(own, Some(port)),
                None => is_passed_on = true,
            }
        }
        for (host, port) in names {
            if let Some(own) = self.of(selection, host) {
                found.entry(own).or_insert(*port);
            }
        }
        (found, is_passed_on)
    }

    fn chain(&mut self, selection: &mut Selection<'_>, chain: &mut ChainInput) {
        let Handler::Tcp { targets, .. } = &chain.handler else { return };
        let clusters: Vec<&str> = targets.iter().map(|target| target.cluster.as_str()).collect();
        let mut names: Vec<Led> = Vec::new();
        if selection.view.role == Role::Sidecar {
            names.extend(of_name(&chain.name).map(|(host, port)| (host, Some(port))));
        }
        let of_tls = chain.server_names.iter().filter_map(|name| name.parse().ok());
        names.extend(of_tls.map(|host| (host, None)));
        let is_tls = !chain.server_names.is_empty() || chain.tls.is_some();
        let (found, is_passed_on) = self.led(selection, &clusters, &names);
        let is_nameless = selection.view.role == Role::Gateway
            && !chain.tls.as_ref().is_some_and(|tls| tls.is_client_required);
        for (host, port) in found {
            if is_nameless {
                self.warn_of_nameless_peers(selection, &host);
            }
            let input = self.input(selection, &host, port, is_passed_on, Some(is_tls));
            chain.authorization.push(input);
        }
    }

    /// Tells of policies that look at identities where a gateway asks for no certificate.
    fn warn_of_nameless_peers(&self, selection: &mut Selection<'_>, host: &HostPattern) {
        for policy in self.guards.get(host).into_iter().flatten() {
            for rule in &policy.spec().rules {
                let names = |source| names_identity(source, true) || names_identity(source, false);
                if rule.from.iter().any(names) {
                    let message = format!(
                        "a gateway takes connections for {host} without a certificate: it knows no \
                         identity, so that ALLOW refuses and DENY is left to the sidecars"
                    );
                    let fault = Fault::warning(rule.at.clone(), message)
                        .field("spec.rules.from.source")
                        .help("a server with mode ISTIO_MUTUAL knows its clients");
                    selection.fault(policy.meta(), fault);
                }
            }
        }
    }

    /// Guards the routes of a table; returns whether there are any.
    fn table(&mut self, selection: &mut Selection<'_>, table: &mut RouteTable) -> bool {
        if selection.view.role == Role::Gateway {
            self.part(selection, table);
        }
        let (mut has_any, is_gateway) = (false, table.gateway.is_some());
        for host in &mut table.hosts {
            let own = of_name(&host.name).map(|(host, port)| (host, (!is_gateway).then_some(port)));
            let domains = host.domains.iter().filter(|_| is_gateway);
            let domains = domains.filter_map(|domain| domain.parse().ok());
            let names: Vec<Led> = own.into_iter().chain(domains.map(|host| (host, None))).collect();
            for route in &mut host.routes {
                has_any |= self.route(selection, &names, route);
            }
        }
        has_any
    }

    /// Takes apart virtual hosts of several names of which some are guarded.
    fn part(&self, selection: &Selection<'_>, table: &mut RouteTable) {
        let mut hosts: Vec<VirtualHostInput> = Vec::new();
        for host in std::mem::take(&mut table.hosts) {
            let is_guarded = |domain: &String| {
                domain.parse().is_ok_and(|host| self.of(selection, &host).is_some())
            };
            if host.domains.len() == 1 || !host.domains.iter().any(is_guarded) {
                hosts.push(host);
                continue;
            }
            let port = host.name.rsplit_once(':').map_or("", |(_, port)| port);
            for domain in &host.domains {
                let name = format!("{domain}:{port}");
                hosts.push(VirtualHostInput {
                    name,
                    domains: vec![domain.clone()],
                    ..host.clone()
                });
            }
        }
        table.hosts = hosts;
    }

    fn route(
        &mut self,
        selection: &mut Selection<'_>,
        names: &[Led],
        route: &mut RouteInput,
    ) -> bool {
        let clusters: Vec<&str> = match &route.action {
            RouteAction::Forward(forward) => {
                let mirrors = forward.mirrors.iter().map(|mirror| mirror.cluster.as_str());
                let targets = forward.targets.iter().map(|target| target.cluster.as_str());
                targets.chain(mirrors).collect()
            }
            RouteAction::Redirect(_) | RouteAction::Respond { .. } => return false,
        };
        let (found, is_passed_on) = self.led(selection, &clusters, names);
        if found.is_empty() {
            return false;
        }
        if selection.view.node.is_grpc {
            let reason =
                "a gRPC library enforces no policy on what it sends: it sends nothing there";
            self.refuse(selection, &found, reason);
            route.action = RouteAction::Respond { status: FORBIDDEN, body: None };
            return false;
        }
        let hosts: Vec<HostPattern> = found.keys().cloned().collect();
        let mut inputs = found
            .into_iter()
            .map(|(host, port)| self.input(selection, &host, port, is_passed_on, None))
            .collect::<Vec<_>>();
        let first = inputs.remove(0);
        route.guard = Some(if inputs.is_empty() {
            first
        } else {
            let (merged, is_exact) = merged(&first, &inputs);
            if !is_exact {
                let all = hosts.iter().map(|host| (host.clone(), None)).collect();
                let reason = "a route leads to several hosts with ALLOW policies: it is refused";
                self.refuse(selection, &all, reason);
            }
            Arc::new(merged)
        });
        true
    }

    fn refuse(
        &self,
        selection: &mut Selection<'_>,
        hosts: &BTreeMap<HostPattern, Option<u16>>,
        reason: &str,
    ) {
        let policies = hosts.keys().filter_map(|host| self.guards.get(host)).flatten();
        for policy in policies.copied().collect::<Vec<_>>() {
            let fault = Fault::error(policy.meta().at.clone(), reason);
            selection.fault(policy.meta(), fault.field("spec.targetRefs"));
        }
    }

    /// What the policies on a host come to at this proxy.
    fn input(
        &mut self,
        selection: &mut Selection<'_>,
        host: &HostPattern,
        port: Option<u16>,
        is_passed_on: bool,
        bytes: Option<bool>,
    ) -> Arc<AuthorizationInput> {
        let key = (host.clone(), port, is_passed_on, bytes);
        if let Some(made) = self.made.get(&key) {
            return Arc::clone(made);
        }
        let policies = self.guards.get(host).cloned().unwrap_or_default();
        let mut input = selection.policies(&policies);
        let known = Known { view: selection.view, host, port, is_passed_on, bytes };
        known.reduce_set(&mut input.audit, false);
        known.reduce_set(&mut input.deny, false);
        known.reduce_set(&mut input.allow, true);
        let made = Arc::new(input);
        self.made.insert(key, Arc::clone(&made));
        made
    }
}

/// Policies that all hold; and whether nothing had to be refused for want of a way to say so.
fn merged(
    first: &AuthorizationInput,
    others: &[Arc<AuthorizationInput>],
) -> (AuthorizationInput, bool) {
    let (mut all, mut is_exact) = (first.clone(), true);
    let join = |into: &mut Option<Vec<RuleInput>>, from: &Option<Vec<RuleInput>>| {
        if let Some(from) = from {
            into.get_or_insert_default().extend(from.iter().cloned());
        }
    };
    for other in others {
        for (into, from) in [(&mut all.audit, &other.audit), (&mut all.deny, &other.deny)] {
            join(&mut into.enforced, &from.enforced);
            join(&mut into.dry_run, &from.dry_run);
        }
        join(&mut all.allow.dry_run, &other.allow.dry_run);
        match (&mut all.allow.enforced, &other.allow.enforced) {
            (_, None) => {}
            (None, Some(from)) => all.allow.enforced = Some(from.clone()),
            (Some(into), Some(_)) => {
                into.clear();
                is_exact = false;
            }
        }
    }
    (all, is_exact)
}

impl Known<'_> {
    fn reduce_set(&self, set: &mut PolicySet, is_allow: bool) {
        for rule in set.enforced.iter_mut().chain(&mut set.dry_run).flatten() {
            rule.matches = rule.matches.take().and_then(|matches| self.reduce(matches, is_allow));
        }
    }

    /// What is left of a rule; `None` when it matches nothing here.
    fn reduce(&self, matches: RuleMatch, is_allow: bool) -> Option<RuleMatch> {
        let each = |all: Vec<Vec<Clause>>| -> Vec<Vec<Clause>> {
            all.into_iter().filter_map(|clauses| self.all_of(clauses, is_allow)).collect()
        };
        let (from, to) = (each(matches.from), each(matches.to));
        (!from.is_empty() && !to.is_empty()).then_some(RuleMatch { from, to })
    }

    fn all_of(&self, clauses: Vec<Clause>, is_allow: bool) -> Option<Vec<Clause>> {
        let mut open = Vec::new();
        for clause in clauses {
            match self.look(clause) {
                Left::True => {}
                Left::False => return None,
                Left::Elsewhere if is_allow => {}
                Left::Elsewhere => return None,
                Left::Unknown if is_allow => return None,
                Left::Unknown => {}
                Left::Open(clause) => open.push(clause),
            }
        }
        Some(open)
    }

    fn look(&self, clause: Clause) -> Left {
        let is_client = self.view.role == Role::Sidecar;
        let key = match &clause.attribute {
            Attribute::Host => return self.look_at_host(clause),
            Attribute::Method | Attribute::Path => return Left::Open(clause),
            Attribute::Key(key) => key,
        };
        match key {
            ConditionKey::DestinationPort => match self.port {
                Some(port) => decided(&clause, |value| *value == ConditionValue::Port(port)),
                None => Left::Unknown,
            },
            ConditionKey::DestinationIp if !is_client => Left::Unknown,
            ConditionKey::SourceIp | ConditionKey::RemoteIp if is_client => {
                let own = || self.view.node.instance_ips.iter().chain([&self.view.address]);
                decided(&clause, |value| match value {
                    ConditionValue::Ip(range) => own().any(|address| range.contains(*address)),
                    _ => false,
                })
            }
            ConditionKey::SourcePrincipal
            | ConditionKey::SourceNamespace
            | ConditionKey::SourceServiceAccount
            | ConditionKey::SourceTrustDomain
                if is_client =>
            {
                let key = key.clone();
                decided(&clause, |value| is_own_identity(self.view, &key, value))
            }
            ConditionKey::RequestPrincipal
            | ConditionKey::RequestAudiences
            | ConditionKey::RequestPresenter
            | ConditionKey::RequestClaim(_)
                if is_client && self.is_passed_on =>
            {
                Left::Elsewhere
            }
            _ => Left::Open(clause),
        }
    }

    /// Of bytes the host is the server name that they ask for; of others, the one that they go to.
    fn look_at_host(&self, clause: Clause) -> Left {
        match self.bytes {
            None => Left::Open(clause),
            Some(true) => {
                let lower = |list: Vec<Wanted>| list.into_iter().map(in_lower_case).collect();
                let attribute = Attribute::Key(ConditionKey::ConnectionSni);
                let (any, none) = (lower(clause.any), lower(clause.none));
                Left::Open(Clause { attribute, any, none })
            }
            Some(false) if self.host.is_wildcard() => Left::Unknown,
            Some(false) => decided(&clause, |value| match value {
                ConditionValue::Text(pattern) => holds(&lower_pattern(pattern), self.host.as_str()),
                _ => false,
            }),
        }
    }
}

fn decided(clause: &Clause, is: impl Fn(&ConditionValue) -> bool) -> Left {
    let one = |wanted: &Wanted| match wanted {
        Wanted::Value(value) => is(value),
        Wanted::Template(_) => false,
    };
    let wanted = clause.any.is_empty() || clause.any.iter().any(one);
    if wanted && !clause.none.iter().any(one) { Left::True } else { Left::False }
}

/// Whether the identity that the proxy proved is one that a policy means.
fn is_own_identity(view: &ProxyView, key: &ConditionKey, value: &ConditionValue) -> bool {
    let id = &view.id;
    let (domain, namespace, account) =
        (id.trust_domain().as_str(), id.namespace(), id.service_account());
    match (key, value) {
        (ConditionKey::SourcePrincipal, ConditionValue::Text(pattern)) => {
            holds(pattern, &format!("{domain}/ns/{namespace}/sa/{account}"))
        }
        (ConditionKey::SourceNamespace, ConditionValue::Text(pattern)) => holds(pattern, namespace),
        (ConditionKey::SourceTrustDomain, ConditionValue::Text(pattern)) => holds(pattern, domain),
        (
            _,
            ConditionValue::ServiceAccount(ServiceAccountRef { namespace: home, account: name }),
        ) => home == namespace && name == account,
        _ => false,
    }
}

fn holds(pattern: &TextPattern, text: &str) -> bool {
    match pattern {
        TextPattern::Exact(whole) => whole == text,
        TextPattern::Prefix(start) => text.starts_with(start.as_str()),
        TextPattern::Suffix(end) => text.ends_with(end.as_str()),
        TextPattern::Present => !text.is_empty(),
    }
}

/// Server names are compared in lower case.
fn in_lower_case(wanted: Wanted) -> Wanted {
    match wanted {
        Wanted::Value(ConditionValue::Text(pattern)) => {
            Wanted::Value(ConditionValue::Text(lower_pattern(&pattern)))
        }
        other => other,
    }
}

fn lower_pattern(pattern: &TextPattern) -> TextPattern {
    TextPattern::new(&written(pattern).to_ascii_lowercase())
}

/// Host and port of a cluster `outbound|PORT|SUBSET|HOST`.
fn of_cluster(name: &str) -> Option<(HostPattern, u16)> {
    let name = name.strip_suffix(CLIENT_TLS).unwrap_or(name);
    let mut parts = name.strip_prefix("outbound|")?.splitn(3, '|');
    let (port, _, host) = (parts.next()?, parts.next()?, parts.next()?);
    Some((host.parse().ok()?, port.parse().ok()?))
}

/// Host and port of what is named `HOST:PORT`; a number that makes chains distinct may follow.
fn of_name(name: &str) -> Option<(HostPattern, u16)> {
    let name = name.split_once('#').map_or(name, |(name, _)| name);
    let (host, port) = name.rsplit_once(':')?;
    Some((host.parse().ok()?, port.parse().ok()?))
}
