//! Tokens of the RFCs, tokens of ours, and every trick that tokens are known for.

#![expect(clippy::unwrap_used, reason = "a test fails where it unwraps")]

mod corpus;
mod signing;
mod tricks;
mod vectors;
