//! The control plane as a library: from batches of resources to what each proxy holds.
//!
//! In:    batches of parsed resources; proxies that connect, and what they answer.
//! Out:   the set that each proxy should hold, whenever it changes; status, for people.
//! Never: does I/O of its own, parses, or gives a proxy another workload's configuration.
//!
//! Start at [`Control`]. [`proxy_view`] says how a proxy's view follows from its workload.

mod config;
mod control;
mod debounce;
mod directory;
mod metrics;
mod node;
mod status;
mod view;

pub use config::Config;
pub use control::{Client, Control, ProxyConfig};
pub use metrics::Exposition;
pub use node::{Interception, NodeId, NodeIdError, ProxyNode};
pub use status::{KindStatus, ProxyStatus, Sync};
pub use view::{
    NETNS_ANNOTATION, PROXY_ANNOTATION, RUN_ANNOTATION, ViewError, proxy_view, wants_proxy,
    workload_id,
};
