//! Whether a policy is attached to a workload, as Istio attaches policies.

use sluis_nouns::Labels;
use sluis_resources::{Meta, PolicyTarget, TargetKind};

use crate::GATEWAY_NAME_LABEL;

/// Whether a policy that is seen from a namespace holds for a workload there: by its selector, or
/// because it is of a gateway of the Gateway API that the policy names in its own namespace.
pub(crate) fn selects(
    policy: &Meta,
    target: &PolicyTarget,
    namespace: &str,
    labels: &Labels,
) -> bool {
    match target {
        PolicyTarget::Namespace => true,
        PolicyTarget::Labels(wanted) => labels.matches(wanted),
        PolicyTarget::Objects(targets) => {
            let gateway = labels.get(GATEWAY_NAME_LABEL);
            &*policy.name.namespace == namespace
                && targets.iter().any(|target| {
                    target.kind == TargetKind::Gateway && gateway == Some(target.name.as_str())
                })
        }
    }
}
