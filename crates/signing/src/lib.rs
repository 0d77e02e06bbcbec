//! Adds a credential to a request: as it is, or as a signature over the request.
//!
//! In:    a [`Kind`] (how, as written), [`Material`] (the secret's entries), a [`RequestView`] (the
//!        request as it will be sent) and a [`Moment`] (the time, and random bytes).
//! Out:   [`Edits`] to make to the request, or why it cannot be signed.
//! Never: reads a clock, random bytes (save those that an algorithm needs inside, such as ECDSA's), a
//!        file or a socket; shows a value of a secret in `Debug` or in an error; signs what two
//!        readers could read in two ways: that is refused.
//!
//! Start at [`Scheme::compile`]. It is done once for a configuration; [`Scheme::signer`] once for each
//! version of the secret; [`Signer::sign`] for each attempt, last of all changes to the request.

mod date;
mod digest;
mod dpop;
mod edits;
mod jws;
mod keys;
mod material;
mod query;
mod request;
mod scheme;
mod template;
mod tokens;
mod view;

pub use digest::{BodyDigest, BodyNeed, Digest, Digester, HashAlgorithm, TextEncoding};
pub use dpop::{DpopKey, ProofOf};
pub use edits::Edits;
pub use jws::{Assertion, AssertionSigner};
pub use keys::{KeyEncoding, KeySource, SignatureAlgorithm};
pub use material::{Material, MaterialError, Secret};
pub use request::{Moment, RequestView, SignError};
pub use scheme::{
    AwsSigV4, Basic, Cookie, Header, Hmac, JwtSign, KeyId, Kind, MessageSignature, Output, Owned,
    Place, Query, Scheme, SchemeError, SignedFields, Signer,
};
pub use template::{TEMPLATE_BYTES_MAX, TemplateError};
pub use tokens::{
    ANSWER_BYTES_MAX, AnswerError, ClientAuthentication, Flow, Grant, Token, TokenClient,
    TokenFlow, TokenRequest,
};
