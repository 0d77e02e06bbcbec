//! What a policy is attached to.

use sluis_nouns::{Labels, SourceRef};

/// `selector`, `targetRef` or `targetRefs` of a policy.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum PolicyTarget {
    /// Nothing is written (or an empty selector): all workloads of the namespace, or in the root
    /// namespace of the mesh.
    #[default]
    Namespace,
    /// `selector.matchLabels`: the workloads with these labels. At least one.
    Labels(Labels),
    /// `targetRef` or `targetRefs`: objects of the policy's namespace. At least one.
    Objects(Vec<TargetRef>),
}

/// One of `targetRefs`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TargetRef {
    /// Place of the list item.
    pub at: SourceRef,
    /// `group` and `kind`.
    pub kind: TargetKind,
    /// `name`.
    pub name: String,
}

/// What a policy can be attached to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum TargetKind {
    /// Kubernetes Service.
    Service,
    /// ServiceEntry.
    ServiceEntry,
    /// Gateway of the Gateway API.
    Gateway,
    /// GatewayClass of the Gateway API.
    GatewayClass,
}
