//! How a workload gets its certificate, keeps it fresh, and hands it to the proxy beside it.
//!
//! In:    a join token; the authority's address and roots.
//! Out:   `default` and `ROOTCA` in the secret store; the same over SDS for a real Envoy.
//! Never: lets a private key leave the process, but to the Envoy of the same user.
//!
//! Start at [`Renewal`]; [`CertificateService`] is the authority's side of the same wire.

mod agent;
mod renewal;
mod sds;
mod service;
mod socket;
mod wire;
mod workload_api;

pub use agent::Agent;
pub use renewal::{CertificateStatus, KeyKind, Renewal, RenewalConfig, RenewalError, Status};
pub use sds::{SdsError, SdsServer};
pub use service::{Caller, CertificateAuthority, CertificateClient, CertificateService};
pub use wire::{IstioCertificateRequest, IstioCertificateResponse};
pub use workload_api::{WorkloadApi, WorkloadApiError};
