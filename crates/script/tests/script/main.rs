//! What scripts can do, what they cannot, and what happens when they fail.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on panics")]

mod bodies;
mod bounds;
mod hashing;
mod headers;
mod info;
mod keys;
mod misuse;
mod sandbox;
mod support;
