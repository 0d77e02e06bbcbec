//! One object that a user wrote: what it is called, and what it says.

use std::collections::BTreeMap;
use std::fmt;

use sluis_nouns::{Labels, ObjectName, SourceRef};

use crate::fault::Fault;
use crate::kinds::core::{ConfigMap, Namespace, Secret, Service};
use crate::kinds::destination_rule::DestinationRule;
use crate::kinds::envoy_filter::EnvoyFilter;
use crate::kinds::gateway::Gateway;
use crate::kinds::service_entry::{ServiceEntry, WorkloadEntry};
use crate::kinds::virtual_service::VirtualService;

/// What a text said: the resources without an error, and all faults.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Parsed {
    /// Resources to use, in the order of the text.
    pub resources: Vec<Resource>,
    /// Everything that is wrong, in the order of the text within each document. A resource with an
    /// error is not among `resources`.
    pub faults: Vec<Fault>,
}

impl Parsed {
    /// Returns whether some fault is an error.
    pub fn has_errors(&self) -> bool {
        self.faults.iter().any(Fault::is_error)
    }
}

/// One object.
#[derive(Clone, Debug, PartialEq)]
pub struct Resource {
    /// What it is called and where it stands.
    pub meta: Meta,
    /// What it says.
    pub spec: Spec,
}

impl Resource {
    /// Returns what tells this object from all others.
    pub fn key(&self) -> Key {
        Key { kind: self.meta.kind, name: self.meta.name.clone() }
    }
}

/// What is common to all kinds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Meta {
    /// The kind; agrees with the variant of [`Spec`].
    pub kind: Kind,
    /// Namespace (`default` where none is written; empty for a Namespace) and name.
    pub name: ObjectName,
    /// Labels of the object itself.
    pub labels: Labels,
    /// Annotations, `sluis.dev/…` among them, uninterpreted.
    pub annotations: BTreeMap<String, String>,
    /// `metadata.creationTimestamp` in seconds since 1970 (UTC), where written. Istio prefers the
    /// older of two objects in conflict.
    pub created: Option<i64>,
    /// The first line of the document.
    pub at: SourceRef,
}

/// What one object says.
#[derive(Clone, Debug, PartialEq)]
#[expect(
    clippy::large_enum_variant,
    reason = "objects are few, and shared by pointer as soon as they are in a snapshot"
)]
pub enum Spec {
    /// `networking.istio.io` Gateway.
    Gateway(Gateway),
    /// `networking.istio.io` VirtualService.
    VirtualService(VirtualService),
    /// `networking.istio.io` DestinationRule.
    DestinationRule(DestinationRule),
    /// `networking.istio.io` ServiceEntry.
    ServiceEntry(ServiceEntry),
    /// `networking.istio.io` WorkloadEntry.
    WorkloadEntry(WorkloadEntry),
    /// `networking.istio.io` EnvoyFilter.
    EnvoyFilter(EnvoyFilter),
    /// Kubernetes Service.
    Service(Service),
    /// Kubernetes Namespace.
    Namespace(Namespace),
    /// Kubernetes Secret.
    Secret(Secret),
    /// Kubernetes ConfigMap; the mesh configuration is in [`ConfigMap::mesh`].
    ConfigMap(ConfigMap),
}

/// The kinds that are understood.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Kind {
    /// Kubernetes ConfigMap.
    ConfigMap,
    /// DestinationRule.
    DestinationRule,
    /// EnvoyFilter.
    EnvoyFilter,
    /// Gateway of Istio (not of the Gateway API).
    Gateway,
    /// Kubernetes Namespace.
    Namespace,
    /// Kubernetes Secret.
    Secret,
    /// Kubernetes Service.
    Service,
    /// ServiceEntry.
    ServiceEntry,
    /// VirtualService.
    VirtualService,
    /// WorkloadEntry.
    WorkloadEntry,
}

impl Kind {
    /// All kinds, in alphabetical order.
    pub const ALL: [Self; 10] = [
        Self::ConfigMap,
        Self::DestinationRule,
        Self::EnvoyFilter,
        Self::Gateway,
        Self::Namespace,
        Self::Secret,
        Self::Service,
        Self::ServiceEntry,
        Self::VirtualService,
        Self::WorkloadEntry,
    ];

    /// Returns the name as `kind:` has it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::ConfigMap => "ConfigMap",
            Self::DestinationRule => "DestinationRule",
            Self::EnvoyFilter => "EnvoyFilter",
            Self::Gateway => "Gateway",
            Self::Namespace => "Namespace",
            Self::Secret => "Secret",
            Self::Service => "Service",
            Self::ServiceEntry => "ServiceEntry",
            Self::VirtualService => "VirtualService",
            Self::WorkloadEntry => "WorkloadEntry",
        }
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// What tells one object from all others. Prints as `Kind namespace/name`.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Key {
    /// The kind.
    pub kind: Kind,
    /// Namespace and name.
    pub name: ObjectName,
}

impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.kind, self.name)
    }
}
