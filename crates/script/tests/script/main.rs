//! What scripts can do, what they cannot, and what happens when they fail.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on panics")]

mod bounds;
mod hashing;
mod headers;
mod sandbox;
mod support;
