//! What the mesh is: an immutable snapshot of it, with Istio's rules of visibility and precedence.
//!
//! In:    parsed resources, in batches of upserts and removals.
//! Out:   a [`Snapshot`], cheap to clone, with lookups by host, labels and namespace; [`Changes`].
//! Never: does I/O, reads a clock, or knows what a proxy or Envoy is.
//!
//! Start at [`apply`]. Rules within one resource belong to `resources`; rules for one proxy's
//! configuration to `translate`. What lies between (who sees what, which of two wins, which ports and
//! endpoints a host has) is here.

mod address;
mod authorization;
mod credentials;
mod endpoint;
mod export;
mod gateway_api;
mod held;
mod index;
mod isolation;
mod layers;
mod locality;
mod mtls;
mod platform;
mod request_authentication;
mod rules;
mod scope;
mod service;
mod snapshot;
mod target;
mod tls_check;

pub use endpoint::{EndpointAddress, Health, LeftOut, ServiceEndpoint, placed};
pub use export::is_exported;
pub use gateway_api::{
    ApiCondition, ApiStatus, CONTROLLER, GATEWAY_NAME_LABEL, ListenerStatus, ParentStatus,
    is_gateway_api,
};
pub use held::{Age, held_key, held_values, is_held};
pub use index::{Owned, Workload};
pub use isolation::{Allowed, Isolated, Isolation, PortRange, Range, isolate};
pub use locality::Locality;
pub use mtls::{Mtls, MtlsMode};
pub use rules::{Policy, PolicyDefaults, Rule};
pub use scope::{EgressScope, Scope};
pub use service::{MeshPort, MeshService, PortTarget, ServiceSource};
pub use snapshot::{Batch, Changes, Snapshot, apply};
pub use tls_check::{ClientSends, ServerTls, TlsCheck};

/// The DNS domain of the platform's services: `NAME.NAMESPACE.svc.cluster.local`.
pub const SERVICE_DOMAIN: &str = "cluster.local";
