//! Who may speak: proves who asks, and signs the certificates of the mesh.
//!
//! In:    a state directory with the root; join tokens; certificate signing requests.
//! Out:   SPIFFE certificates (ECDSA P-256 root, one URI name each), and a log of every one.
//! Never: signs a name because a request contains it, or lets the root's key be read by others.
//!
//! Start at [`Authority`]; [`Desk`] is what callers meet over gRPC.

mod authority;
mod desk;
mod files;
mod log;
mod request;
mod server;
mod tokens;

pub use authority::{Authority, AuthorityConfig, IssueError, Issued, OpenError};
pub use desk::{Desk, DeskCounts};
pub use files::FileError;
pub use log::{Entry, Proof};
pub use request::{RequestError, SigningRequest};
pub use server::{ServerCertificate, ServerCertificateStatus};
pub use tokens::{JoinToken, JoinTokens, TokenError};
