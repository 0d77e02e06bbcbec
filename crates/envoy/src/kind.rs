//! The kinds of resource that travel over xDS.

use std::fmt;

/// A kind of xDS resource.
///
/// The order of the variants is the order in which ADS sends them (make before break): a listener
/// arrives after the clusters and secrets that it names.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Kind {
    /// `envoy.config.cluster.v3.Cluster` (CDS).
    Cluster,
    /// `envoy.config.endpoint.v3.ClusterLoadAssignment` (EDS).
    Endpoints,
    /// `envoy.extensions.transport_sockets.tls.v3.Secret` (SDS).
    Secret,
    /// `envoy.config.listener.v3.Listener` (LDS).
    Listener,
    /// `envoy.config.route.v3.RouteConfiguration` (RDS).
    Route,
    /// `envoy.config.core.v3.TypedExtensionConfig` (ECDS): filters that listeners name.
    Extension,
    /// `istio.networking.nds.v1.NameTable` (NDS): the names that a sidecar's resolver answers.
    NameTable,
}

impl Kind {
    /// Every kind, in the order in which ADS sends them.
    pub const ALL: [Self; 7] = [
        Self::Cluster,
        Self::Endpoints,
        Self::Secret,
        Self::Listener,
        Self::Route,
        Self::Extension,
        Self::NameTable,
    ];

    /// The type URL under which the kind is asked for and sent.
    #[must_use]
    pub fn type_url(self) -> &'static str {
        match self {
            Self::Cluster => "type.googleapis.com/envoy.config.cluster.v3.Cluster",
            Self::Endpoints => "type.googleapis.com/envoy.config.endpoint.v3.ClusterLoadAssignment",
            Self::Secret => "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.Secret",
            Self::Listener => "type.googleapis.com/envoy.config.listener.v3.Listener",
            Self::Route => "type.googleapis.com/envoy.config.route.v3.RouteConfiguration",
            Self::Extension => "type.googleapis.com/envoy.config.core.v3.TypedExtensionConfig",
            Self::NameTable => "type.googleapis.com/istio.networking.nds.v1.NameTable",
        }
    }

    /// The kind of a type URL; `None` for a type that Sluis does not serve.
    #[must_use]
    pub fn from_type_url(url: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| kind.type_url() == url)
    }

    /// Whether a subscriber without a list of names gets every resource of the kind.
    ///
    /// Envoy subscribes to listeners and clusters with a wildcard; the other kinds by name.
    /// The name table is one resource and is sent to whoever subscribes.
    #[must_use]
    pub fn is_wildcard(self) -> bool {
        matches!(self, Self::Cluster | Self::Listener | Self::NameTable)
    }

    /// The short name in tables and logs: `CDS`, `EDS`, `SDS`, `LDS`, `RDS`, `ECDS`, `NDS`.
    #[must_use]
    pub fn short(self) -> &'static str {
        match self {
            Self::Cluster => "CDS",
            Self::Endpoints => "EDS",
            Self::Secret => "SDS",
            Self::Listener => "LDS",
            Self::Route => "RDS",
            Self::Extension => "ECDS",
            Self::NameTable => "NDS",
        }
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.short())
    }
}
