//! Signed tokens of end users (JWT as JWS, RFC 7515 and 7519) and the keys that they are verified by
//! (JWK sets, RFC 7517).
//!
//! In:    a token or a key set as text, and the time.
//! Out:   the token's claims, or why it is refused, in Envoy's words.
//! Never: takes `alg: none`, a key out of the token's own header, or a key for another algorithm than
//!        it is for; reads a clock; keeps a claim of a token that has not been verified apart from it.
//!
//! Start at [`Token::parse`], then [`KeySet::verify`].

mod json;
mod keys;
mod refusal;
mod token;

pub use keys::{KEY_SET_BYTES_MAX, KeySet, Origin};
pub use refusal::Refusal;
pub use token::{Algorithm, Audiences, TOKEN_BYTES_MAX, Token};

/// The values of a token, as JSON has them.
pub use serde_json::{Map, Value};
