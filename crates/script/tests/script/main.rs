//! What scripts can do, what they cannot, and what happens when they fail.

mod bounds;
mod hashing;
mod headers;
mod sandbox;
mod support;
