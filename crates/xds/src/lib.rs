//! How configuration travels from the control plane to its proxies: Envoy's xDS over gRPC.
//!
//! In:    on the control plane, the set that each proxy should hold; on a proxy, the names it wants.
//! Out:   on the control plane, who holds what and what was refused; on a proxy, updates.
//! Never: makes a resource or understands one. Only this crate knows nonces and versions.
//!
//! Start at [`Session`] for the protocol, [`Server`] for the control plane's end, [`Client`] for
//! the proxy's.

mod client;
mod server;
mod session;
mod wire;

pub use client::{
    CONTROL_PLANE_NAME, Client, ClientTlsSource, Config as ClientConfig, Delivery,
    Handle as ClientHandle, Jitter, Subscriptions, Update,
};
pub use server::{
    Connection, Directory, Peer, ProxyKey, Refusal, ServeError, Server, ServerTlsSource,
};
pub use session::{
    Action, Ask, Breach, Dialect, Event, NAME_BYTES_MAX, NAMES_MAX, Names, Report, Response,
    Session,
};
