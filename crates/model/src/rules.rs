//! Destination rules: which one holds for a client and a service, and what it says for a port.
//!
//! In:    the `DestinationRule`s of all namespaces.
//! Out:   merged [`Rule`]s by namespace, and the [`Policy`] for a subset and a port.
//! Never: looks at other namespaces than the client's, the service's and the root one.

use sluis_nouns::{HostPattern, Labels, ObjectName, SourceRef};
use sluis_resources::{
    ClientTls, ConnectionPool, DestinationRule, ExportTo, LoadBalancer, Meta, OutlierDetection,
    Subset, TrafficPolicy,
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
    /// Who sees it; empty for the mesh-wide default.
    pub export_to: Vec<ExportTo>,
    /// The clients that obey; `None` for all.
    pub workload_selector: Option<Labels>,
    /// What holds for all subsets.
    pub policy: Option<TrafficPolicy>,
    /// The subsets, names unique.
    pub subsets: Vec<Subset>,
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
}

impl Rule {
    pub(crate) fn new(meta: &Meta, rule: &DestinationRule) -> Self {
        Self {
            object: meta.name.clone(),
            at: meta.at.clone(),
            host: rule.host.qualified(&meta.name.namespace, SERVICE_DOMAIN),
            export_to: rule.export_to.clone(),
            workload_selector: rule.workload_selector.clone(),
            policy: rule.traffic_policy.clone(),
            subsets: rule.subsets.clone(),
        }
    }

    /// Whether another rule of the namespace adds to this one.
    pub(crate) fn can_merge(&self, other: &Self) -> bool {
        self.host == other.host
            && self.export_to == other.export_to
            && self.workload_selector == other.workload_selector
    }

    /// Adds the subsets of a younger rule, and its policy where this one has none.
    pub(crate) fn merge(&mut self, younger: Self) {
        for subset in younger.subsets {
            if self.subset(&subset.name).is_none() {
                self.subsets.push(subset);
            }
        }
        if self.policy.is_none() {
            self.policy = younger.policy;
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
    /// place of all four sections at once: what they leave out falls to the default, not to the level
    /// above (as in Istio).
    #[must_use]
    pub fn policy(&self, subset: Option<&Subset>, port: u16) -> Policy {
        let whole = overlay(Policy::default(), self.policy.as_ref(), port);
        match subset {
            None => whole,
            Some(subset) => overlay(whole, subset.traffic_policy.as_ref(), port),
        }
    }
}

fn overlay(mut base: Policy, over: Option<&TrafficPolicy>, port: u16) -> Policy {
    let Some(over) = over else { return base };
    replace(&mut base.load_balancer, &over.load_balancer);
    replace(&mut base.connection_pool, &over.connection_pool);
    replace(&mut base.outlier_detection, &over.outlier_detection);
    replace(&mut base.tls, &over.tls);
    if let Some(level) = over.port_level.iter().find(|level| level.port == port) {
        base = Policy {
            load_balancer: level.load_balancer.clone(),
            connection_pool: level.connection_pool.clone(),
            outlier_detection: level.outlier_detection.clone(),
            tls: level.tls.clone(),
        };
    }
    base
}

fn replace<T: Clone>(base: &mut Option<T>, over: &Option<T>) {
    if over.is_some() {
        base.clone_from(over);
    }
}
