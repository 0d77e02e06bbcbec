//! Who may speak: proves who asks, and signs the certificates of the mesh.
//!
//! In:    a state directory, or the operator's own authority; join tokens; signing requests.
//! Out:   SPIFFE certificates (one URI name each) under an intermediate, and a log of every one.
//! Never: signs a name because a request contains it, or lets the root's key be read by others.
//!
//! Start at [`Authority`]; [`Desk`] is what callers meet over gRPC.

mod authority;
mod bundle;
mod desk;
mod files;
mod log;
mod own;
mod plugin;
mod record;
mod request;
mod review;
mod server;
mod signer;
#[cfg(test)]
mod test_pki;
mod tokens;

pub use authority::{
    Authority, AuthorityConfig, AuthorityStatus, IssueError, Issued, IssuerStatus, OpenError,
    Pending, RootStatus, RotateError, Step,
};
pub use desk::{Denial, Desk, DeskCounts};
pub use files::FileError;
pub use log::{Audit, Entry, Grounds, Proof, audit};
pub use plugin::PluginError;
pub use record::{Phase, Source};
pub use request::{RequestError, SigningRequest};
pub use review::{Review, TokenReviewer};
pub use server::{ServerCertificate, ServerCertificateStatus};
pub use signer::{CaFiles, SignerError};
pub use tokens::{JoinToken, JoinTokens, TokenError};
