//! The seam for tokens that somebody else vouches for: Kubernetes' service-account tokens.

use std::{fmt, future::Future, pin::Pin};

use sluis_nouns::WorkloadId;

/// The answer to a review: whose the token is, or why it is not confirmed.
pub type Review<'a> = Pin<Box<dyn Future<Output = Result<WorkloadId, String>> + Send + 'a>>;

/// Vouches for tokens: in a cluster by TokenReview, with the audience of the mesh.
///
/// An implementation must ask for each token anew or keep an answer no longer than the token lives,
/// must refuse a token for another audience, and must make the identity of what the review says, never
/// of what the token's text says.
pub trait TokenReviewer: fmt::Debug + Send + Sync + 'static {
    /// Whose token this is.
    fn review<'a>(&'a self, token: &'a str) -> Review<'a>;
}

/// Whether a token is of the form that is reviewed (RFC 7519: three parts), and no join token (two).
pub(crate) fn looks_reviewable(token: &str) -> bool {
    token.split('.').count() == 3
}
