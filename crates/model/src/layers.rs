//! Objects that hold for the mesh, a namespace or some workloads, of which the narrowest says most:
//! `Telemetry` and `ProxyConfig`.
//!
//! In:    a workload's namespace and labels.
//! Out:   at most one object for each of the three, the widest first, as Istio finds them.
//! Never: gives an object of another namespace than the root's and the workload's own.

use sluis_nouns::Labels;
use sluis_resources::{PolicyTarget, TargetKind, Telemetry, WorkloadProxyConfig};

use crate::{GATEWAY_NAME_LABEL, Owned, Snapshot, index::ByNamespace};

impl Snapshot {
    /// The `Telemetry` objects that hold for a workload, the widest first; at each level the oldest.
    pub fn telemetries<'a>(
        &'a self,
        namespace: &'a str,
        labels: &'a Labels,
    ) -> impl Iterator<Item = &'a Owned<Telemetry>> {
        let level = |telemetry: &Telemetry| match &telemetry.target {
            PolicyTarget::Namespace => Level::Wide,
            PolicyTarget::Labels(wanted) if labels.matches(wanted) => Level::Own,
            PolicyTarget::Objects(targets) => {
                let gateway = labels.get(GATEWAY_NAME_LABEL);
                let is_named = targets.iter().any(|target| {
                    target.kind == TargetKind::Gateway && gateway == Some(target.name.as_str())
                });
                if is_named { Level::Own } else { Level::Other }
            }
            PolicyTarget::Labels(_) => Level::Other,
        };
        layers(&self.index().telemetries, &self.mesh().root_namespace, namespace, level)
    }

    /// The `ProxyConfig` objects that hold for a workload, the widest first; at each level the oldest.
    pub fn proxy_configs<'a>(
        &'a self,
        namespace: &'a str,
        labels: &'a Labels,
    ) -> impl Iterator<Item = &'a Owned<WorkloadProxyConfig>> {
        let level = |config: &WorkloadProxyConfig| match &config.selector {
            None => Level::Wide,
            Some(wanted) if labels.matches(wanted) => Level::Own,
            Some(_) => Level::Other,
        };
        layers(&self.index().proxy_configs, &self.mesh().root_namespace, namespace, level)
    }
}

/// For whom an object of a workload's namespace holds.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Level {
    /// All workloads.
    Wide,
    /// The workload that is asked for.
    Own,
    /// Others.
    Other,
}

fn layers<'a, T>(
    all: &'a ByNamespace<T>,
    root: &str,
    namespace: &str,
    level: impl Fn(&T) -> Level,
) -> impl Iterator<Item = &'a Owned<T>> {
    let first = |namespace: &str, wanted: Level| {
        all.get(namespace)?.iter().find(|object| level(object.spec()) == wanted)
    };
    let of_mesh = (root != namespace).then(|| first(root, Level::Wide)).flatten();
    [of_mesh, first(namespace, Level::Wide), first(namespace, Level::Own)].into_iter().flatten()
}

#[cfg(test)]
mod tests {
    use crate::{Batch, Snapshot, apply};

    const OBJECTS: &str = "
apiVersion: networking.istio.io/v1beta1
kind: ProxyConfig
metadata: {name: mesh, namespace: istio-system}
spec: {concurrency: 1}
---
apiVersion: networking.istio.io/v1beta1
kind: ProxyConfig
metadata: {name: root-only, namespace: istio-system}
spec: {selector: {matchLabels: {app: cart}}, concurrency: 2}
---
apiVersion: networking.istio.io/v1beta1
kind: ProxyConfig
metadata: {name: shop, namespace: shop}
spec: {concurrency: 3}
---
apiVersion: networking.istio.io/v1beta1
kind: ProxyConfig
metadata: {name: cart, namespace: shop}
spec: {selector: {matchLabels: {app: cart}}, concurrency: 4}
";

    #[track_caller]
    fn check(namespace: &str, app: &str, expected: &[u32]) {
        let parsed = sluis_resources::parse("mesh.yaml", OBJECTS);
        assert!(parsed.faults.is_empty(), "{:?}", parsed.faults);
        let batch = Batch { upserts: parsed.resources, removals: Vec::new() };
        let snapshot = apply(&Snapshot::default(), batch).0;
        let mut labels = sluis_nouns::Labels::new();
        labels.insert("app", app);
        let found: Vec<u32> = snapshot
            .proxy_configs(namespace, &labels)
            .filter_map(|config| config.spec().concurrency)
            .collect();
        assert_eq!(found, expected, "{namespace} {app}");
    }

    #[test]
    fn the_narrowest_comes_last_and_other_namespaces_say_nothing() {
        check("shop", "cart", &[1, 3, 4]);
        check("shop", "web", &[1, 3]);
        check("other", "cart", &[1]);
        check("istio-system", "cart", &[1, 2]);
    }
}
