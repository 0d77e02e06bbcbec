//! Credentials on the wire: what a server that keeps every byte gets to see, and what it never does.

#![expect(clippy::unwrap_used, reason = "a test fails where it unwraps")]

#[path = "../proxy/control_plane.rs"]
mod control_plane;
#[expect(dead_code, reason = "shared with the tests of the shell; not every helper is used here")]
#[path = "../proxy/harness.rs"]
mod harness;
#[path = "../proxy/pki.rs"]
mod pki;

mod capture;
mod destinations;
mod exact;
mod grants;
mod injecting;
mod responses;
mod rotation;
mod scene;
mod signatures;
mod tokens;
