//! Destination rules: which one holds for a client and a service, and what it says for a port.
//!
//! In:    the `DestinationRule`s of all namespaces.
//! Out:   merged [`Rule`]s by namespace, and the [`Policy`] for a subset and a port.
//! Never: looks at other namespaces than the client's, the service's and the root one.

use std::{collections::BTreeMap, sync::Arc};

use sluis_nouns::{HostPattern, Labels, ObjectName, SourceRef};
use sluis_resources::{
    ClientTls, ConnectionPool, DestinationRule, ExportTo, LoadBalancer, Meta, OutlierDetection,
    PortTrafficPolicy, ProxyProtocolVersion, RetryBudget, Subset, TrafficPolicy, Tunnel,
};

use crate::SERVICE_DOMAIN;

/// A `DestinationRule`, with those of the same host and namespace merged into it.
#[derive(Clone, Debug, PartialEq)]
pub struct Rule {
    /// The (oldest) object.
    pub object: ObjectName,
    /// Where it stands.
    pub at: SourceRef,
    /// The host in full; may be a wildcard.
    pub host: HostPattern,
    /// Who sees it; empty for the mesh-wide default. A rule for selected clients is private.
    pub export_to: Vec<ExportTo>,
    /// The clients that obey; `None` for all.
    pub workload_selector: Option<Labels>,
    /// What holds for all subsets.
    pub policy: Option<TrafficPolicy>,
    /// The subsets, names unique.
    pub subsets: Vec<Subset>,
    /// Whether a server name that the rule writes is not verified in the certificate, as in Istio
    /// (annotation `sluis.dev/verify-name: "false"`).
    pub is_name_unverified: bool,
}

/// What a rule says for one subset and port. An absent section means the default.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Policy {
    /// `loadBalancer`.
    pub load_balancer: Option<LoadBalancer>,
    /// `connectionPool`.
    pub connection_pool: Option<ConnectionPool>,
    /// `outlierDetection`.
    pub outlier_detection: Option<OutlierDetection>,
    /// `tls`; absent leaves the decision to automatic mutual TLS.
    pub tls: Option<ClientTls>,
    /// `proxyProtocol`.
    pub proxy_protocol: Option<ProxyProtocolVersion>,
    /// `retryBudget`.
    pub retry_budget: Option<RetryBudget>,
}

/// Sections of the mesh configuration that hold where a rule has none (`defaultTrafficPolicy`).
#[derive(Clone, Copy, Debug, Default)]
pub struct PolicyDefaults<'a> {
    /// `connectionPool`.
    pub connection_pool: Option<&'a ConnectionPool>,
    /// `outlierDetection`.
    pub outlier_detection: Option<&'a OutlierDetection>,
}

/// The annotation that gives up the check of a written server name.
const VERIFY_NAME: &str = "sluis.dev/verify-name";

impl Rule {
    pub(crate) fn new(meta: &Meta, rule: &DestinationRule) -> Self {
        let export_to = match &rule.workload_selector {
            None => rule.export_to.clone(),
            Some(_) => vec![ExportTo::Same],
        };
        Self {
            object: meta.name.clone(),
            at: meta.at.clone(),
            host: rule.host.qualified(&meta.name.namespace, SERVICE_DOMAIN),
            export_to,
            workload_selector: rule.workload_selector.clone(),
            policy: rule.traffic_policy.clone(),
            subsets: rule.subsets.clone(),
            is_name_unverified: meta
                .annotations
                .get(VERIFY_NAME)
                .is_some_and(|value| value.trim() == "false"),
        }
    }

    /// Adds the subsets of a younger rule, and its policy where this one has none.
    pub(crate) fn merge(&mut self, younger: &Self) {
        for subset in &younger.subsets {
            if self.subset(&subset.name).is_none() {
                self.subsets.push(subset.clone());
            }
        }
        if self.policy.is_none() {
            self.policy.clone_from(&younger.policy);
        }
    }

    /// The subset of that name.
    #[must_use]
    pub fn subset(&self, name: &str) -> Option<&Subset> {
        self.subsets.iter().find(|subset| subset.name == name)
    }

    /// What the rule says for a subset (or the whole service) and a port.
    ///
    /// A subset's sections stand in place of the rule's, one by one. Settings of the port stand in
    /// place of the four sections at once: what they leave out falls to the default, not to the level
    /// above (as in Istio).
    #[must_use]
    pub fn policy(&self, subset: Option<&Subset>, port: u16) -> Policy {
        self.policy_over(PolicyDefaults::default(), subset, port)
    }

    /// As [`Rule::policy`], over the defaults of the mesh.
    #[must_use]
    pub fn policy_over(
        &self,
        defaults: PolicyDefaults<'_>,
        subset: Option<&Subset>,
        port: u16,
    ) -> Policy {
        let mut policy = match (&self.policy, self.policy.as_ref().and_then(|p| level(p, port))) {
            (_, Some(level)) => of_port(level),
            (Some(whole), None) => of_whole(whole),
            (None, None) => Policy::default(),
        };
        policy.fill(defaults);
        let Some(over) = subset.and_then(|subset| subset.traffic_policy.as_ref()) else {
            return policy;
        };
        match level(over, port) {
            Some(level) => {
                let (proxy_protocol, retry_budget) = (policy.proxy_protocol, policy.retry_budget);
                Policy { proxy_protocol, retry_budget, ..of_port(level) }
            }
            None => {
                let over = of_whole(over);
                Policy {
                    load_balancer: over.load_balancer.or(policy.load_balancer),
                    connection_pool: over.connection_pool.or(policy.connection_pool),
                    outlier_detection: over.outlier_detection.or(policy.outlier_detection),
                    tls: over.tls.or(policy.tls),
                    proxy_protocol: over.proxy_protocol.or(policy.proxy_protocol),
                    retry_budget: over.retry_budget.or(policy.retry_budget),
                }
            }
        }
    }

    /// The tunnel around the connections to a subset, or to the whole service. A subset does not
    /// inherit one, as in Istio.
    #[must_use]
    pub fn tunnel<'a>(&'a self, subset: Option<&'a Subset>) -> Option<&'a Tunnel> {
        let policy = match subset {
            Some(subset) => subset.traffic_policy.as_ref(),
            None => self.policy.as_ref(),
        };
        policy?.tunnel.as_ref()
    }
}

impl Policy {
    /// What holds where there is no rule at all.
    #[must_use]
    pub fn of_mesh(defaults: PolicyDefaults<'_>) -> Self {
        let mut policy = Self::default();
        policy.fill(defaults);
        policy
    }

    fn fill(&mut self, defaults: PolicyDefaults<'_>) {
        if self.connection_pool.is_none() {
            self.connection_pool = defaults.connection_pool.cloned();
        }
        if self.outlier_detection.is_none() {
            self.outlier_detection = defaults.outlier_detection.cloned();
        }
    }
}

fn level(policy: &TrafficPolicy, port: u16) -> Option<&PortTrafficPolicy> {
    policy.port_level.iter().find(|level| level.port == port)
}

fn of_port(level: &PortTrafficPolicy) -> Policy {
    Policy {
        load_balancer: level.load_balancer.clone(),
        connection_pool: level.connection_pool.clone(),
        outlier_detection: level.outlier_detection.clone(),
        tls: level.tls.clone(),
        proxy_protocol: None,
        retry_budget: None,
    }
}

fn of_whole(policy: &TrafficPolicy) -> Policy {
    Policy {
        load_balancer: policy.load_balancer.clone(),
        connection_pool: policy.connection_pool.clone(),
        outlier_detection: policy.outlier_detection.clone(),
        tls: policy.tls.clone(),
        proxy_protocol: policy.proxy_protocol,
        retry_budget: policy.retry_budget,
    }
}

/// The rules of one namespace: for its own clients, and for those of others.
#[derive(Clone, Debug, Default)]
pub(crate) struct NamespaceRules {
    local: RuleTable,
    exported: RuleTable,
    private: RuleTable,
}

/// Merged rules by host.
#[derive(Clone, Debug, Default)]
struct RuleTable {
    exact: BTreeMap<HostPattern, Vec<Arc<Rule>>>,
    /// In order of specificity.
    wild: Vec<(HostPattern, Vec<Arc<Rule>>)>,
}

impl NamespaceRules {
    /// Files a rule. Ask with the rules for selected clients first, then from the oldest to the
    /// youngest: what comes first wins.
    pub(crate) fn add(&mut self, rule: &Rule, default: &[ExportTo]) {
        let home = &*rule.object.namespace;
        let names_home = |entry: &ExportTo| match entry {
            ExportTo::All | ExportTo::Same => true,
            ExportTo::None => false,
            ExportTo::Namespace(name) => name == home,
        };
        if rule.export_to.is_empty() || rule.export_to.iter().any(names_home) {
            self.local.add(rule);
        }
        let is_private = match rule.export_to.as_slice() {
            [] => default.contains(&ExportTo::Same),
            [only] => *only != ExportTo::All && names_home(only),
            _ => false,
        };
        if is_private { self.private.add(rule) } else { self.exported.add(rule) }
    }

    /// The rule for a client of this very namespace. `Some(None)` when rules for the host exist, but
    /// none for this client: the search ends there, as in Istio.
    pub(crate) fn for_own(
        &self,
        host: &HostPattern,
        client_labels: &Labels,
        is_root: bool,
    ) -> Option<Option<&Arc<Rule>>> {
        let table = if is_root { &self.private } else { &self.local };
        let list = table.find(host)?;
        let selects = |rule: &Arc<Rule>| {
            rule.workload_selector.as_ref().is_some_and(|labels| client_labels.matches(labels))
        };
        let general = || list.iter().rfind(|rule| rule.workload_selector.is_none());
        Some(list.iter().find(|rule| selects(rule)).or_else(general))
    }

    /// The rule for a client of another namespace.
    pub(crate) fn for_other(&self, host: &HostPattern, client: &str) -> Option<&Arc<Rule>> {
        let is_seen = |rule: &&Arc<Rule>| {
            rule.workload_selector.is_none()
                && (rule.export_to.is_empty()
                    || rule.export_to.iter().any(|entry| match entry {
                        ExportTo::All => true,
                        ExportTo::Namespace(name) => name == client,
                        ExportTo::Same => &*rule.object.namespace == client,
                        ExportTo::None => false,
                    }))
        };
        self.exported.find(host)?.iter().rfind(is_seen)
    }
}

impl RuleTable {
    /// The rules of the most specific host that covers one.
    fn find(&self, host: &HostPattern) -> Option<&Vec<Arc<Rule>>> {
        self.exact.get(host).or_else(|| {
            self.wild.iter().find(|(pattern, _)| pattern.covers(host)).map(|(_, list)| list)
        })
    }

    fn add(&mut self, rule: &Rule) {
        let list = if rule.host.is_wildcard() {
            let at = match self.wild.iter().position(|(host, _)| *host == rule.host) {
                Some(at) => at,
                None => {
                    let before =
                        |(host, _): &(HostPattern, _)| host.by_specificity(&rule.host).is_lt();
                    let at = self.wild.partition_point(before);
                    self.wild.insert(at, (rule.host.clone(), Vec::new()));
                    at
                }
            };
            &mut self.wild[at].1
        } else {
            self.exact.entry(rule.host.clone()).or_default()
        };
        if file(list, rule) {
            list.push(Arc::new(rule.clone()));
        }
    }
}

/// Merges a rule into those of its host and namespace; tells whether it also stands on its own.
///
/// Rules of one reach and one selector are one. A rule of wider reach adds to the narrower one and
/// stands on its own besides; so does a general rule towards one for selected clients.
fn file(list: &mut [Arc<Rule>], rule: &Rule) -> bool {
    let mut stands_alone = true;
    for older in list {
        let is_equal = same_reach(&older.export_to, &rule.export_to);
        let is_wider = !older.export_to.is_empty()
            && older.export_to.iter().all(|entry| rule.export_to.contains(entry));
        if !is_equal && !is_wider {
            continue;
        }
        match (&older.workload_selector, &rule.workload_selector) {
            (Some(a), Some(b)) if a != b => continue,
            (None, Some(_)) => continue,
            (Some(_), None) => {}
            _ if is_equal => stands_alone = false,
            _ => {}
        }
        Arc::make_mut(older).merge(rule);
    }
    stands_alone
}

fn same_reach(a: &[ExportTo], b: &[ExportTo]) -> bool {
    a.iter().all(|entry| b.contains(entry)) && b.iter().all(|entry| a.contains(entry))
}

#[cfg(test)]
mod tests;
