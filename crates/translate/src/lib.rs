//! What one proxy should do, in Envoy's terms: the output is what Istio would send.
//!
//! In:    a [`ProxyView`] (who asks) and a [`Snapshot`] (what the mesh is).
//! Out:   a [`ResourceSet`] sorted by name, and the faults met on the way.
//! Never: reads a clock, the environment, a file or the network. Equal input gives equal bytes.
//!
//! Start at [`build`]: it is [`select`], which chooses and orders everything that matters to the proxy,
//! then [`render`], which sees nothing but that. So [`Inputs::fingerprint`] is a cache key that cannot
//! be wrong, and proxies with equal inputs may share one result.
//!
//! [`ResourceSet`]: sluis_envoy::ResourceSet

mod class;
mod inputs;
mod render;
mod select;
mod view;

pub use class::{Readers, is_told_in_parts};
pub use inputs::*;
pub use render::{Known, Marks, Rendered, render, render_encoded};
pub use select::{CLIENT_TLS, Part, select, select_clusters, select_part};
pub use sluis_resources::Fault;
pub use view::{Capture, NodeFacts, ProxyView, Role};

use sluis_model::Snapshot;

/// What one proxy should do: [`select`], then [`render`].
#[must_use]
pub fn build(view: &ProxyView, snapshot: &Snapshot) -> Rendered {
    render(&select(view, snapshot))
}
