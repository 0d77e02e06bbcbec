//! Which `AuthorizationPolicy` objects hold for a workload, and which guard an external host.
//!
//! In:    the policies of the root namespace and of the workload's own.
//! Out:   those that select it, as Istio attaches policies.
//! Never: applies a policy of another namespace to a workload.

use sluis_nouns::{HostPattern, Labels, ObjectName};
use sluis_resources::{AuthorizationPolicy, Key, Kind, PolicyTarget, Spec, TargetKind, TargetRef};

use crate::{Owned, SERVICE_DOMAIN, Snapshot, target::selects};

impl Snapshot {
    /// The policies that hold for a workload: those of the root namespace, then of its own, the oldest
    /// first.
    ///
    /// A policy with `targetRefs` holds for the gateways of the Gateway API that it names, and for no
    /// other workload; one that names a `ServiceEntry` is asked for by [`Snapshot::guards`].
    pub fn authorization_policies<'a>(
        &'a self,
        namespace: &'a str,
        labels: &'a Labels,
    ) -> impl Iterator<Item = &'a Owned<AuthorizationPolicy>> {
        let root = self.mesh().root_namespace.as_str();
        let wide = (root != namespace).then_some(root);
        let all = wide
            .into_iter()
            .chain([namespace])
            .flat_map(|home| self.index().authorization_policies.get(home).into_iter().flatten());
        all.filter(move |policy| selects(policy.meta(), &policy.spec().target, namespace, labels))
    }

    /// The policies that guard external hosts, the oldest first within a namespace: each with the
    /// hosts of the `ServiceEntry` objects that it names.
    pub fn guards(&self) -> impl Iterator<Item = (&Owned<AuthorizationPolicy>, Vec<HostPattern>)> {
        self.index().authorization_policies.values().flatten().filter_map(|policy| {
            let PolicyTarget::Objects(targets) = &policy.spec().target else { return None };
            let namespace = &policy.meta().name.namespace;
            let mut hosts = Vec::new();
            for target in targets.iter().filter(|target| target.kind == TargetKind::ServiceEntry) {
                let name = ObjectName::new(namespace.clone(), target.name.as_str());
                let entry = self.get(&Key { kind: Kind::ServiceEntry, name });
                if let Some(Spec::ServiceEntry(entry)) = entry.map(|found| &found.spec) {
                    let all = entry.hosts.iter();
                    hosts.extend(all.map(|host| host.qualified(namespace, SERVICE_DOMAIN)));
                }
            }
            (!hosts.is_empty()).then_some((policy, hosts))
        })
    }

    /// The targets of policies that are not there.
    pub fn missing_targets(
        &self,
    ) -> impl Iterator<Item = (&Owned<AuthorizationPolicy>, &TargetRef)> {
        let missing = |policy: &Owned<AuthorizationPolicy>, target: &TargetRef| {
            let kind = match target.kind {
                TargetKind::ServiceEntry => Kind::ServiceEntry,
                TargetKind::Gateway => Kind::KubernetesGateway,
                // Refused as they are read.
                TargetKind::Service | TargetKind::GatewayClass => return false,
            };
            let namespace = policy.meta().name.namespace.clone();
            let name = ObjectName::new(namespace, target.name.as_str());
            self.get(&Key { kind, name }).is_none()
        };
        self.index().authorization_policies.values().flatten().flat_map(move |policy| {
            let targets = match &policy.spec().target {
                PolicyTarget::Objects(targets) => targets.as_slice(),
                PolicyTarget::Namespace | PolicyTarget::Labels(_) => &[],
            };
            let gone = targets.iter().filter(move |target| missing(policy, target));
            gone.map(move |target| (policy, target))
        })
    }
}

#[cfg(test)]
mod tests;
