//! Capture: takes a workload's connections to its sidecar, and leaves no other way out.
//!
//! In:    a command and the place of its sidecar; sockets that others made.
//! Out:   a jailed process ([`jail`]); the jail's sockets in the sidecar's hands ([`handoff`]); the
//!        address that a captured connection was meant for ([`original_dst`]); DNS answers ([`dns`]).
//! Never: reads configuration, decides where a connection may go, or logs a byte of it.
//!
//! Start at [`jail`]: who runs where, and in which order.

pub mod app_probes;
pub mod dns;
pub mod filter;
pub mod firewall;
pub mod handoff;
pub mod jail;
pub mod netns;
pub mod probe;
pub mod relay;

mod original;
mod sys;
mod wire;

pub use original::original_dst;
