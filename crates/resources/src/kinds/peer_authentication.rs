//! PeerAuthentication: whether workloads take connections without the mesh's TLS.

use std::collections::BTreeMap;

use sluis_nouns::Labels;

/// `security.istio.io` PeerAuthentication.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PeerAuthentication {
    /// `selector.matchLabels`; `None` (also for an empty selector) means the whole namespace, or in
    /// the root namespace the mesh.
    pub selector: Option<Labels>,
    /// `mtls.mode`.
    pub mtls: MtlsMode,
    /// `portLevelMtls`: by port of the workload. Only with a selector.
    pub port_level: BTreeMap<u16, MtlsMode>,
}

/// Whether mesh TLS is asked for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum MtlsMode {
    /// As the wider scope says; at the top PERMISSIVE. The default.
    #[default]
    Unset,
    /// No TLS of the mesh.
    Disable,
    /// Both mesh TLS and plaintext.
    Permissive,
    /// Mesh TLS only.
    Strict,
}
