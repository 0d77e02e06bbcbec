//! The Kubernetes Gateway API, in the terms of Istio's resources.
//!
//! In:    every resource of the mesh.
//! Out:   the Gateways, VirtualServices and DestinationRules that those of the Gateway API mean, and the
//!        status of each.
//! Never: serves a listener or a route that its status refuses.
//!
//! The rules are those of Istio's gateway controller, its names of what is made included.

mod gateways;
mod policies;
mod routes;
mod rules;
mod status;
mod world;

use std::{collections::BTreeMap, sync::Arc};

use sluis_resources::{Key, Resource, Spec};

pub use status::{ApiCondition, ApiStatus, ListenerStatus, ParentStatus};
use world::World;

/// Our own controller, as `GatewayClass` names it.
pub const CONTROLLER: &str = "sluis.dev/gateway-controller";

/// Istio's controller, whose classes are served too.
const ISTIO_CONTROLLER: &str = "istio.io/gateway-controller";

/// The controller of gateways of other clusters, which nobody here programs.
const REMOTE_CONTROLLER: &str = "istio.io/unmanaged-gateway";

/// The annotation of what is made: routes have the semantics of the Gateway API, and a Gateway serves
/// only in its own namespace.
pub(crate) const SEMANTICS: &str = "internal.istio.io/route-semantics";

/// The label by which a workload serves a Gateway without an address.
pub const GATEWAY_NAME_LABEL: &str = "gateway.networking.k8s.io/gateway-name";

/// The host that stands for a backend that cannot be used; no service has it (RFC 2606 §2).
const NO_BACKEND: &str = "backend.invalid";

/// What the Gateway API says of a mesh.
#[derive(Debug, Default, PartialEq)]
pub(crate) struct Converted {
    /// Gateways, VirtualServices and DestinationRules.
    pub(crate) resources: Vec<Arc<Resource>>,
    /// By resource of the Gateway API.
    pub(crate) statuses: BTreeMap<Key, ApiStatus>,
}

/// Whether an object was made from one of the Gateway API.
#[must_use]
pub fn is_gateway_api(meta: &sluis_resources::Meta) -> bool {
    meta.annotations.contains_key(SEMANTICS)
}

/// Converts all resources of the Gateway API.
pub(crate) fn convert(resources: &BTreeMap<Key, Arc<Resource>>) -> Converted {
    let mut converted = Converted::default();
    if !resources.values().any(|resource| is_of_api(&resource.spec)) {
        return converted;
    }
    let world = World { resources };
    let mut parents = Vec::new();
    for resource in resources.values() {
        let status = match &resource.spec {
            Spec::GatewayClass(class) => gateways::class(&resource.meta, class),
            Spec::KubernetesGateway(gateway) => {
                gateways::gateway(&world, &resource.meta, gateway, &mut parents)
            }
            _ => None,
        };
        converted.statuses.extend(status.map(|status| (resource.key(), status)));
    }
    for parent in &parents {
        converted.resources.extend(parent.resource.clone());
    }
    routes::convert(&world, &parents, &mut converted);
    policies::convert(&world, &mut converted);
    converted
}

/// Whether a Secret or ConfigMap may be named by the Gateways of another namespace.
pub(crate) fn is_granted(
    resources: &BTreeMap<Key, Arc<Resource>>,
    from: &str,
    target: &Key,
) -> bool {
    let world = World { resources };
    let name = &target.name;
    world.is_granted(("Gateway", from), ("", target.kind.as_str(), &name.namespace, &name.name))
}

fn is_of_api(spec: &Spec) -> bool {
    matches!(
        spec,
        Spec::GatewayClass(_)
            | Spec::KubernetesGateway(_)
            | Spec::HttpRoute(_)
            | Spec::GrpcRoute(_)
            | Spec::TlsRoute(_)
            | Spec::TcpRoute(_)
            | Spec::BackendTlsPolicy(_)
    )
}
