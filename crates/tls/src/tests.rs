//! Handshakes between our two sides, over certificates made here.

mod bad_certificates;
mod handshakes;
mod pki;
mod suites;

pub(crate) use pki::{Leaf as TestLeaf, Pki};
