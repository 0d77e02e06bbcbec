//! The data plane as a library: capture, sniff, terminate, filter, forward, drain.
//!
//! In:    connections of captured workloads and of clients; an Envoy bootstrap; an xDS stream.
//! Out:   proxied connections and requests, access-log lines, counters.
//! Never: sees a Kubernetes or Istio resource; lets a data thread wait for the control plane;
//!        reads the environment.
//!
//! Start at [`run()`]; then [`worker::Worker`] (what a thread owns) and [`conn::Downstream`] (a
//! connection).

mod accepted;
pub mod access_log;
pub mod audit;
pub mod bootstrap;
mod bound;
mod buckets;
pub mod config;
pub mod conn;
mod control;
mod credentials;
pub mod drain;
mod gates;
mod grpc;
mod guards;
pub mod hosts;
pub mod http;
mod inspect;
mod key_ring;
pub mod log_sink;
pub mod names;
mod pipes;
pub mod random;
mod rbac;
mod run;
mod serve;
pub mod sniff;
mod sockets;
pub mod stats;
mod tcp;
pub mod upstream;
pub mod worker;
mod workers;

pub use bootstrap::{Bootstrap, BootstrapError};
pub use control::probes::{ProberError, StatusError, StatusPort};
pub use run::{OUTPUT_CERTS, Options, PROBERS, Ready, RunError, renewal, run, status_port};
