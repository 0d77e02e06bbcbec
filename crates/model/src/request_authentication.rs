//! Which `RequestAuthentication` objects hold for a workload.
//!
//! In:    the policies of the root namespace and of the workload's own.
//! Out:   those that select it, as Istio attaches policies.
//! Never: applies a policy of another namespace.

use sluis_nouns::Labels;
use sluis_resources::RequestAuthentication;

use crate::{Owned, Snapshot, target::selects};

impl Snapshot {
    /// The policies that hold for a workload: those of its own namespace, then of the root namespace,
    /// the oldest first within each.
    ///
    /// A policy with `targetRefs` holds for the gateways of the Gateway API that it names, and for no
    /// other workload.
    pub fn request_authentications<'a>(
        &'a self,
        namespace: &'a str,
        labels: &'a Labels,
    ) -> impl Iterator<Item = &'a Owned<RequestAuthentication>> {
        let root = self.mesh().root_namespace.as_str();
        let wide = (root != namespace).then_some(root);
        let all = [namespace]
            .into_iter()
            .chain(wide)
            .flat_map(|home| self.index().request_authentications.get(home).into_iter().flatten());
        all.filter(move |policy| selects(policy.meta(), &policy.spec().target, namespace, labels))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Batch, apply};

    const POLICIES: &str = r#"
apiVersion: security.istio.io/v1
kind: RequestAuthentication
metadata: {name: mesh, namespace: istio-system}
spec: {jwtRules: [{issuer: mesh, jwksUri: "https://a.test/k"}]}
---
apiVersion: security.istio.io/v1
kind: RequestAuthentication
metadata: {name: of-labels, namespace: istio-system}
spec: {selector: {matchLabels: {app: a}}, jwtRules: [{issuer: l, jwksUri: "https://a.test/k"}]}
---
apiVersion: security.istio.io/v1
kind: RequestAuthentication
metadata: {name: own, namespace: app}
spec: {jwtRules: [{issuer: own, jwksUri: "https://a.test/k"}]}
---
apiVersion: security.istio.io/v1
kind: RequestAuthentication
metadata: {name: of-gateway, namespace: app}
spec:
  targetRefs: [{group: gateway.networking.k8s.io, kind: Gateway, name: front}]
  jwtRules: [{issuer: g, jwksUri: "https://a.test/k"}]
---
apiVersion: security.istio.io/v1
kind: RequestAuthentication
metadata: {name: elsewhere, namespace: other}
spec: {jwtRules: [{issuer: o, jwksUri: "https://a.test/k"}]}
"#;

    #[track_caller]
    fn check(namespace: &str, labels: &[(&str, &str)], expected: &[&str]) {
        let parsed = sluis_resources::parse("policies.yaml", POLICIES);
        assert!(parsed.faults.is_empty(), "{:?}", parsed.faults);
        let batch = Batch { upserts: parsed.resources, ..Batch::default() };
        let (snapshot, _) = apply(&Snapshot::default(), batch);
        let labels: Labels =
            labels.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect();
        let names: Vec<_> = snapshot
            .request_authentications(namespace, &labels)
            .map(|policy| policy.meta().name.name.to_string())
            .collect();
        assert_eq!(names, expected, "{namespace} {labels:?}");
    }

    #[test]
    fn policies_of_the_own_and_of_the_root_namespace_hold() {
        check("app", &[], &["own", "mesh"]);
        check("app", &[("app", "a")], &["own", "mesh", "of-labels"]);
        check("istio-system", &[("app", "a")], &["mesh", "of-labels"]);
        check("third", &[], &["mesh"]);
    }

    #[test]
    fn a_policy_of_a_gateway_holds_for_that_gateway_alone() {
        let label = "gateway.networking.k8s.io/gateway-name";
        check("app", &[(label, "front")], &["of-gateway", "own", "mesh"]);
        check("app", &[(label, "back")], &["own", "mesh"]);
        check("other", &[(label, "front")], &["elsewhere", "mesh"]);
    }
}
