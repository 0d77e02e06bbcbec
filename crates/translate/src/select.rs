//! Chooses and orders everything of the mesh that matters to one proxy.

use sluis_model::Snapshot;

use crate::{Inputs, MeshInputs, Normalization, ProxyView};

/// Chooses and orders everything of the mesh that matters to one proxy.
#[must_use]
pub fn select(view: &ProxyView, snapshot: &Snapshot) -> Inputs {
    let _ = (view, snapshot);
    Inputs {
        mesh: MeshInputs { access_log: None, normalization: Normalization::Base },
        outbound: None,
        listeners: Vec::new(),
        routes: Vec::new(),
        clusters: Vec::new(),
        names: None,
        patches: Vec::new(),
        faults: Vec::new(),
    }
}
