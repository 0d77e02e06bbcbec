//! What every proxy of the mesh would be told, and whether it would take it.
//!
//! In:    the mesh.
//! Out:   the faults of the translation, and of `sluis-proxy`'s own compiler, each with its place.
//! Never: needs a workload for a Gateway: one is imagined that its selector selects.

use std::{
    collections::HashSet,
    net::{IpAddr, Ipv4Addr},
};

use sluis_control::{PROXY_ANNOTATION, proxy_view, wants_proxy};
use sluis_model::{Snapshot, Workload};
use sluis_nouns::{ObjectName, SourceRef, TrustDomain, WorkloadId};
use sluis_resources::{Fault, Spec};
use sluis_translate::{Capture, NodeFacts, ProxyView, Role, build};

/// The name of the proxy that is imagined for a Gateway which selects no workload.
const IMAGINED: &str = "gateway";

/// Every fault that some proxy would meet. May hold one twice.
pub(super) fn faults(snapshot: &Snapshot, domain: &TrustDomain) -> Vec<Fault> {
    let mut seen = HashSet::new();
    let mut faults = Vec::new();
    let known = snapshot.workloads().filter_map(|workload| candidate(workload, snapshot, domain));
    for candidate in known.chain(imagined(snapshot, domain)) {
        if seen.insert(candidate.kind_of_proxy()) {
            candidate.check(snapshot, &mut faults);
        }
    }
    faults
}

/// A proxy that there is, or may be.
struct Candidate {
    view: ProxyView,
    /// What it stands at: its workload, or the Gateway that it was imagined for.
    at: SourceRef,
    resource: String,
    /// `sluis-proxy` is to be run for it, so what that refuses is an error.
    is_ours: bool,
}

impl Candidate {
    /// The view without what is different for each workload: one proxy of a kind is checked.
    fn kind_of_proxy(&self) -> (ProxyView, bool) {
        let mut view = self.view.clone();
        view.name = ObjectName::new(view.name.namespace, "");
        if view.role == Role::Sidecar {
            view.address = IpAddr::V4(Ipv4Addr::UNSPECIFIED);
        }
        (view, self.is_ours)
    }

    fn check(self, snapshot: &Snapshot, faults: &mut Vec<Fault>) {
        let rendered = build(&self.view, snapshot);
        faults.extend(rendered.faults);
        // A sidecar that we do not run is Envoy.
        if !self.is_ours && self.view.role == Role::Sidecar {
            return;
        }
        for refused in sluis_rules::compile(&rendered.set, None).faults {
            let message = format!("sluis-proxy refuses {refused}");
            let fault = if self.is_ours {
                Fault::error(self.at.clone(), message)
            } else {
                Fault::warning(self.at.clone(), message)
            };
            faults.push(fault.of(self.resource.clone()));
        }
    }
}

/// The proxy of a workload: as its annotations say, else a gateway where a Gateway selects it.
fn candidate(workload: &Workload, snapshot: &Snapshot, domain: &TrustDomain) -> Option<Candidate> {
    let mut view = proxy_view(workload, None, domain).ok()?;
    let annotated = wants_proxy(workload);
    if !annotated {
        let is_gateway = snapshot
            .gateways(&view.name.namespace, &view.labels)
            .any(|gateway| !gateway.spec().selector.is_empty());
        view.role = if is_gateway { Role::Gateway } else { Role::Sidecar };
        view.capture = if is_gateway { Capture::None } else { Capture::Redirect };
        view.dns = !is_gateway;
    }
    let meta = workload.meta();
    let is_envoy = meta.annotations.get(PROXY_ANNOTATION).is_some_and(|proxy| proxy == "envoy");
    Some(Candidate {
        view,
        at: meta.at.clone(),
        resource: workload.resource.key().to_string(),
        is_ours: annotated && !is_envoy,
    })
}

/// One proxy for each Gateway that selects no workload that is written down.
fn imagined<'a>(
    snapshot: &'a Snapshot,
    domain: &'a TrustDomain,
) -> impl Iterator<Item = Candidate> + 'a {
    snapshot.resources().filter_map(move |resource| {
        let Spec::Gateway(gateway) = &resource.spec else { return None };
        let meta = &resource.meta;
        if snapshot.workloads().any(|workload| workload.labels().matches(&gateway.selector)) {
            return None;
        }
        let namespace = &meta.name.namespace;
        Some(Candidate {
            view: ProxyView {
                name: ObjectName::new(namespace.clone(), IMAGINED),
                id: WorkloadId::new(domain.clone(), namespace, IMAGINED).ok()?,
                address: IpAddr::V4(Ipv4Addr::UNSPECIFIED),
                labels: gateway.selector.clone(),
                role: Role::Gateway,
                capture: Capture::None,
                dns: false,
                node: NodeFacts::default(),
            },
            at: meta.at.clone(),
            resource: resource.key().to_string(),
            is_ours: false,
        })
    })
}

#[cfg(test)]
mod tests {
    use sluis_model::{Batch, apply};

    use super::*;

    const GATEWAY: &str = "
apiVersion: networking.istio.io/v1
kind: Gateway
metadata: {name: edge, namespace: shop}
spec:
  selector: {istio: edge}
  servers: [{port: {number: 80, name: http, protocol: HTTP}, hosts: ['*']}]
";

    const WORKLOAD: &str = "
---
apiVersion: networking.istio.io/v1
kind: WorkloadEntry
metadata: {name: edge, namespace: shop, labels: {istio: edge}}
spec: {address: 10.0.0.1}
";

    #[track_caller]
    fn check(text: &str, expected: &[(&str, Role)]) {
        let parsed = sluis_resources::parse("mesh.yaml", text);
        assert!(parsed.faults.is_empty(), "{:?}", parsed.faults);
        let batch = Batch { upserts: parsed.resources, removals: Vec::new() };
        let snapshot = apply(&Snapshot::default(), batch).0;
        let domain = TrustDomain::default();
        let known = snapshot.workloads().filter_map(|one| candidate(one, &snapshot, &domain));
        let found: Vec<(String, Role)> = known
            .chain(imagined(&snapshot, &domain))
            .map(|candidate| (candidate.resource.clone(), candidate.view.role))
            .collect();
        let expected: Vec<(String, Role)> =
            expected.iter().map(|(name, role)| ((*name).to_owned(), *role)).collect();
        assert_eq!(found, expected);
        assert!(!faults(&snapshot, &domain).iter().any(Fault::is_error));
    }

    #[test]
    fn a_gateway_is_checked_with_its_workload_or_an_imagined_one() {
        check(GATEWAY, &[("Gateway shop/edge", Role::Gateway)]);
        let both = format!("{GATEWAY}{WORKLOAD}");
        check(&both, &[("WorkloadEntry shop/edge", Role::Gateway)]);
        check(WORKLOAD, &[("WorkloadEntry shop/edge", Role::Sidecar)]);
    }
}
