//! The interface between a running `sluis up` and the other verbs: JSON over HTTP on a Unix socket.
//!
//! In:    requests of the same user; the socket is 0600 in a 0700 directory.
//! Out:   reports, resources, bootstraps, what a jail needs, the state of the authority.
//! Never: a key, a token or a secret's value; or a change, but for the steps of a change of the root.

mod client;
mod server;

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

pub(crate) use client::{NotRunning, get, get_from, post};
pub(crate) use server::{Answers, Denial, serve};

/// What `sluis exec` needs to know of a workload.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct JailPlan {
    /// Where the sidecar takes the jail's sockets; none when a real Envoy serves the workload.
    pub handoff: Option<PathBuf>,
    /// The network namespace in which the workload runs, where a packet filter captures it.
    #[serde(default)]
    pub netns: Option<PathBuf>,
    /// Where the sidecar takes single connections, each behind a PROXY header.
    pub capture: PathBuf,
    /// A file, kept current: a JSON object from each name that the workload may know to its addresses.
    pub names: PathBuf,
    /// Paths that the jail must not show.
    pub hidden: Vec<PathBuf>,
    /// The socket of the workload's own Workload API.
    #[serde(default)]
    pub workload_api: Option<PathBuf>,
    /// What the command may do.
    #[serde(default)]
    pub policy: crate::workload::JailPolicy,
    /// Whether hosts that the mesh does not know may be reached: they are looked up outside then.
    #[serde(default)]
    pub allows_any: bool,
    /// The file of the mesh's trusted roots.
    #[serde(default)]
    pub roots: PathBuf,
    /// Variables that gateways get as secrets, and that the jail must not inherit.
    pub secret_variables: Vec<String>,
}

/// An order of `sluis ca rotate`.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct RotateOrder {
    /// The step; none for the one that follows.
    pub step: Option<sluis_ca::Step>,
    /// Do not wait.
    pub force: bool,
    /// The folder of the operator's next authority.
    pub ca_dir: Option<PathBuf>,
}

/// The kinds of resource that can be asked for, by the name in the path.
pub(crate) fn kind_named(name: &str) -> Option<sluis_envoy::Kind> {
    use sluis_envoy::Kind;
    match name {
        "listeners" => Some(Kind::Listener),
        "routes" => Some(Kind::Route),
        "clusters" => Some(Kind::Cluster),
        "endpoints" => Some(Kind::Endpoints),
        _ => None,
    }
}
