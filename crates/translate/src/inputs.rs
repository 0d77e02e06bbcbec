//! Everything that one proxy's resources are made of, chosen and put in order.
//!
//! In:    what `select` finds in a snapshot for one proxy.
//! Out:   values that `render` turns into Envoy's messages, one to one.
//! Never: refers back to the snapshot; equal inputs give equal resources, whoever asks.
//!
//! Start at [`Inputs`].

mod authorization;
mod cluster;
mod credential;
mod inbound;
mod listener;
mod mesh;
mod patch;
mod route;
mod secret;
mod tls;
mod tokens;

pub use authorization::*;
pub use cluster::*;
pub use credential::*;
pub use inbound::*;
pub use listener::*;
pub use mesh::*;
pub use patch::*;
pub use route::*;
pub use secret::*;
pub use tls::*;
pub use tokens::*;

use std::{hash::Hash, net::IpAddr};

use xxhash_rust::xxh3::Xxh3;

use crate::Fault;

/// Everything that one proxy's resources are made of.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Inputs {
    /// What the mesh configuration says to every proxy.
    pub mesh: MeshInputs,
    /// The proxy is a gRPC library.
    pub is_grpc: bool,
    /// The capturing listener, when the proxy is a sidecar.
    pub outbound: Option<OutboundInputs>,
    /// What the workload receives; `None` when it receives nothing, and for gateways.
    pub inbound: Option<InboundInputs>,
    /// The listeners, in order of name.
    pub listeners: Vec<ListenerInput>,
    /// The route tables that the listeners name.
    pub routes: Vec<RouteTable>,
    /// The clusters, in order of name.
    pub clusters: Vec<ClusterInput>,
    /// The secrets that listeners and clusters name and the control plane sends, in order of name.
    pub secrets: Vec<SecretInput>,
    /// The names that the proxy's resolver answers; `None` when it answers none.
    pub names: Option<Vec<NameInput>>,
    /// The `EnvoyFilter` patches that apply to this proxy, in order of application.
    pub patches: Vec<PatchInput>,
    /// What selection met and could not carry out.
    pub faults: Vec<Fault>,
}

impl Inputs {
    /// The hash of the inputs: the key under which rendered resources may be shared and kept.
    #[must_use]
    pub fn fingerprint(&self) -> u64 {
        let mut hasher = Xxh3::new();
        self.hash(&mut hasher);
        hasher.digest()
    }
}

/// What the resolver answers for one name.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct NameInput {
    /// The name; `*.suffix` for all below.
    pub host: String,
    /// The addresses.
    pub addresses: Vec<IpAddr>,
    /// Whether it is a Service of the platform, and then its short name and namespace.
    pub service: Option<(String, String)>,
}
