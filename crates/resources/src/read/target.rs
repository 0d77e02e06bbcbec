//! Reads what a policy is attached to.

use sluis_nouns::Labels;

use super::forms::read_fields;
use super::shared::LabelSelector;
use crate::kinds::target::{PolicyTarget, TargetKind, TargetRef};
use crate::value::Fields;

read_fields!(TargetRef => target_ref);

/// Most `targetRefs` of one policy, as Istio has it.
const TARGETS_MAX: usize = 16;

/// The objects that Istio attaches policies to: group, kind and what they are here.
const TARGETS: [(&str, &str, TargetKind); 4] = [
    ("", "Service", TargetKind::Service),
    ("networking.istio.io", "ServiceEntry", TargetKind::ServiceEntry),
    ("gateway.networking.k8s.io", "Gateway", TargetKind::Gateway),
    ("gateway.networking.k8s.io", "GatewayClass", TargetKind::GatewayClass),
];

/// Reads `selector`, `targetRef` and `targetRefs`, of which one may be written.
pub(super) fn policy_target(fields: &mut Fields<'_, '_>) -> PolicyTarget {
    fields.at_most_one(&["selector", "targetRef", "targetRefs"]);
    let selector = fields.opt("selector").map(|LabelSelector(labels)| labels);
    let one: Option<TargetRef> = fields.opt("targetRef");
    let mut targets: Vec<TargetRef> = fields.or_default("targetRefs");
    if targets.len() > TARGETS_MAX
        && let Some(value) = fields.get("targetRefs")
    {
        value.fault::<()>(format!("there are more than {TARGETS_MAX} targets"));
    }
    targets.extend(one);
    if !targets.is_empty() {
        return PolicyTarget::Objects(targets);
    }
    if selector.as_ref().is_some_and(Labels::is_empty)
        && let Some(value) = fields.get("selector")
    {
        value.warn("a selector without labels selects all workloads of the namespace");
    }
    match selector {
        Some(labels) if !labels.is_empty() => PolicyTarget::Labels(labels),
        _ => PolicyTarget::Namespace,
    }
}

fn target_ref(fields: &mut Fields<'_, '_>) -> Option<TargetRef> {
    let group: String = fields.or_default("group");
    let kind: Option<String> = fields.req("kind");
    let name: Option<String> = fields.req("name");
    if let Some(value) = fields.get("namespace")
        && value.is_set()
    {
        value.fault::<()>("a policy cannot refer to another namespace, so this cannot be set");
    }
    if let Some(value) = fields.get("name")
        && name.as_deref() == Some("")
    {
        value.fault::<()>("a name must not be empty");
    }
    let (kind, name) = (kind?, name?);
    let group = if group == "core" { "" } else { group.as_str() };
    let known = TARGETS.iter().find(|(_, known, _)| *known == kind);
    match known {
        Some((wanted, _, target)) if *wanted == group => {
            Some(TargetRef { at: fields.at(), kind: *target, name })
        }
        Some((wanted, ..)) => {
            let message = format!("a {kind} has the group {wanted:?}");
            match fields.get("group") {
                Some(value) => value.fault(message),
                None => fields.value().fault(message),
            }
        }
        None => fields.get("kind")?.fault(
            "a policy is attached to a Service, a ServiceEntry, a Gateway or a GatewayClass",
        ),
    }
}
