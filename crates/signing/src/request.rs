//! A request as it will be sent, the moment of it, and why it may not be signed.

use crate::{Digest, HashAlgorithm};

/// A request as it will be sent: after routing, rewriting and every other filter.
#[derive(Clone, Copy, Debug)]
pub struct RequestView<'r> {
    /// As sent; methods have their case.
    pub method: &'r str,
    /// `https`, or `http` where a guard lets it pass.
    pub scheme: &'r str,
    /// As sent in `Host` or `:authority`, with its port if it has one there.
    pub authority: &'r str,
    /// The target in origin form, as the bytes that are sent: `/`, or `*` for OPTIONS.
    pub path_and_query: &'r str,
    /// Names in lower case, values as sent, in order, without `host` and what begins with a colon.
    pub fields: &'r [(&'r str, &'r [u8])],
    /// Of the body as sent, made by a [`crate::Digester`] of the algorithm that the scheme needs.
    pub body: Option<&'r Digest>,
}

/// When a request is signed, and what makes this signature unlike others.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Moment {
    /// Nanoseconds since 1970, UTC.
    pub unix_nanos: i128,
    /// Random bytes; new ones for each attempt.
    pub nonce: [u8; 16],
}

impl Moment {
    /// Whole seconds since 1970.
    #[must_use]
    pub fn unix_seconds(&self) -> i64 {
        i64::try_from(self.unix_nanos.div_euclid(1_000_000_000)).unwrap_or(i64::MAX)
    }
}

/// Why a request is not signed. It must not be sent.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SignError {
    /// The scheme needs the digest of the body, and was not given it.
    #[error("the body has not been digested with {wanted:?}")]
    NoDigest {
        /// What the scheme needs.
        wanted: HashAlgorithm,
    },

    /// A part of the head holds what no HTTP message can.
    #[error("{part} holds a character that cannot be sent")]
    Character {
        /// Which part.
        part: String,
    },

    /// The target is neither a path nor `*`.
    #[error("the target is no path")]
    Target,

    /// Two readers of the path could see two paths, so that a signature of one is none of the other.
    #[error("the path can be read in two ways: it has {what}")]
    AmbiguousPath {
        /// What makes it so.
        what: &'static str,
    },

    /// The query is not what percent-encoding makes.
    #[error("the query can be read in two ways: it has {what}")]
    AmbiguousQuery {
        /// What makes it so.
        what: &'static str,
    },

    /// A covered component is not there.
    #[error("the request has no {component}, which is to be signed")]
    NoComponent {
        /// As in `Signature-Input`.
        component: String,
    },

    /// RFC 9421 §2.2.8: a parameter that is there twice cannot be covered.
    #[error("the parameter {name} is there more than once")]
    Repeated {
        /// Its name.
        name: String,
    },

    /// The time lies outside of the years 1970 to 9999.
    #[error("the time cannot be written")]
    Time,

    /// The library refused; there is no more to know.
    #[error("the signature could not be made")]
    Library,
}
