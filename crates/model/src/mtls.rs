//! Which ports of a workload demand mutual TLS: `PeerAuthentication`, from the mesh down to the port.
//!
//! In:    the policies of the root namespace and of the workload's own, the oldest first.
//! Out:   [`Mtls`]: a mode for each port.
//! Never: looks at a policy of another namespace.

use std::collections::BTreeMap;

use sluis_nouns::{Labels, ObjectName};
use sluis_resources::{MtlsMode as Written, PeerAuthentication};

use crate::{Owned, Snapshot};

/// Whether connections must come by mutual TLS.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum MtlsMode {
    /// Only mutual TLS is taken.
    Strict,
    /// Mutual TLS and plain text are taken. The default.
    #[default]
    Permissive,
    /// Only plain text is taken.
    Disable,
}

/// The modes of one workload.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Mtls {
    mode: MtlsMode,
    ports: BTreeMap<u16, MtlsMode>,
}

impl Mtls {
    /// The mode of ports that have none of their own.
    #[must_use]
    pub fn mode(&self) -> MtlsMode {
        self.mode
    }

    /// The mode of a port of the workload (not of a service).
    #[must_use]
    pub fn of_port(&self, port: u16) -> MtlsMode {
        self.ports.get(&port).copied().unwrap_or(self.mode)
    }

    /// The ports with a mode of their own.
    pub fn ports(&self) -> impl Iterator<Item = (u16, MtlsMode)> {
        self.ports.iter().map(|(port, mode)| (*port, *mode))
    }
}

impl Snapshot {
    /// The modes of a workload: that of the mesh, then of its namespace, then its own.
    ///
    /// In each scope the oldest policy decides; one that says nothing leaves it to the wider scope. A
    /// selector in the root namespace selects nothing.
    #[must_use]
    pub fn mtls(&self, namespace: &str, labels: &Labels) -> Mtls {
        let wide = self.mtls_of_namespace(namespace);
        let own = (namespace != self.mesh().root_namespace)
            .then(|| {
                self.policies_in(namespace).find(|policy| {
                    let selector = policy.spec().selector.as_ref();
                    selector.is_some_and(|selector| labels.matches(selector))
                })
            })
            .flatten();
        let Some(own) = own else { return Mtls { mode: wide, ports: BTreeMap::new() } };
        let mode = said(own.spec().mtls).unwrap_or(wide);
        let ports = &own.spec().port_level;
        let ports = ports.iter().map(|(port, written)| (*port, said(*written).unwrap_or(mode)));
        Mtls { mode, ports: ports.collect() }
    }

    /// The mode of a namespace's workloads that have none of their own.
    #[must_use]
    pub fn mtls_of_namespace(&self, namespace: &str) -> MtlsMode {
        let root = self.mesh().root_namespace.as_str();
        let of = |namespace: &str| {
            let policy =
                self.policies_in(namespace).find(|policy| policy.spec().selector.is_none())?;
            said(policy.spec().mtls)
        };
        of(namespace).or_else(|| of(root)).unwrap_or_default()
    }

    /// The policy that decides on the mode of a workload's port; `None` for the default.
    #[must_use]
    pub fn mtls_policy(&self, namespace: &str, labels: &Labels, port: u16) -> Option<ObjectName> {
        let root = self.mesh().root_namespace.as_str();
        let own = self.policies_in(namespace).find(|policy| {
            let selector = policy.spec().selector.as_ref();
            namespace != root && selector.is_some_and(|selector| labels.matches(selector))
        });
        let own = own.filter(|policy| {
            let of_port = policy.spec().port_level.get(&port).copied().unwrap_or_default();
            said(of_port).or(said(policy.spec().mtls)).is_some()
        });
        let wide = |namespace: &str| {
            let policy =
                self.policies_in(namespace).find(|policy| policy.spec().selector.is_none())?;
            said(policy.spec().mtls).map(|_| policy)
        };
        let found = own.or_else(|| wide(namespace)).or_else(|| wide(root));
        found.map(|policy| policy.meta().name.clone())
    }

    fn policies_in(&self, namespace: &str) -> impl Iterator<Item = &Owned<PeerAuthentication>> {
        let of_namespace = self.index().peer_authentications.get(namespace);
        of_namespace.into_iter().flatten()
    }
}

fn said(written: Written) -> Option<MtlsMode> {
    match written {
        Written::Unset => None,
        Written::Disable => Some(MtlsMode::Disable),
        Written::Permissive => Some(MtlsMode::Permissive),
        Written::Strict => Some(MtlsMode::Strict),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Batch, apply};

    const POLICIES: &str = r#"
apiVersion: security.istio.io/v1
kind: PeerAuthentication
metadata: {name: mesh, namespace: istio-system}
spec: {mtls: {mode: STRICT}}
---
apiVersion: security.istio.io/v1
kind: PeerAuthentication
metadata: {name: of-root, namespace: istio-system}
spec: {selector: {matchLabels: {app: a}}, mtls: {mode: DISABLE}}
---
apiVersion: security.istio.io/v1
kind: PeerAuthentication
metadata: {name: wide, namespace: open}
spec: {mtls: {mode: PERMISSIVE}}
---
apiVersion: security.istio.io/v1
kind: PeerAuthentication
metadata: {name: younger, namespace: open, creationTimestamp: "2024-02-01T00:00:00Z"}
spec: {mtls: {mode: DISABLE}}
---
apiVersion: security.istio.io/v1
kind: PeerAuthentication
metadata: {name: a, namespace: open}
spec:
  selector: {matchLabels: {app: a}}
  mtls: {mode: UNSET}
  portLevelMtls:
    "8080": {mode: DISABLE}
    "9090": {mode: UNSET}
    "7070": {mode: STRICT}
"#;

    #[test]
    fn the_narrowest_policy_that_says_something_decides() {
        let parsed = sluis_resources::parse("policies.yaml", POLICIES);
        assert!(!parsed.has_errors(), "{:?}", parsed.faults);
        let batch = Batch { upserts: parsed.resources, removals: Vec::new() };
        let (snapshot, _) = apply(&Snapshot::default(), batch);
        let check = |namespace: &str, app: &str, port: u16, expected: MtlsMode| {
            let labels: Labels = [("app", app)].into_iter().collect();
            let found = snapshot.mtls(namespace, &labels).of_port(port);
            assert_eq!(found, expected, "{namespace} {app} {port}");
        };
        check("elsewhere", "a", 80, MtlsMode::Strict);
        check("istio-system", "a", 80, MtlsMode::Strict);
        check("open", "b", 80, MtlsMode::Permissive);
        check("open", "a", 80, MtlsMode::Permissive);
        check("open", "a", 8080, MtlsMode::Disable);
        check("open", "a", 9090, MtlsMode::Permissive);
        check("open", "a", 7070, MtlsMode::Strict);
        assert_eq!(Snapshot::default().mtls("x", &Labels::new()).of_port(1), MtlsMode::Permissive);
    }
}
