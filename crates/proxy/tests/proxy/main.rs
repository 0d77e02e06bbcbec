//! The data plane as a whole: real sockets, real TLS, real xDS, on loopback.

#![expect(clippy::unwrap_used, reason = "a test fails where it unwraps")]

mod bulk;
mod control_plane;
mod dns;
mod drain;
mod harness;
mod hellos;
mod inner;
mod nagle;
mod pki;
mod tcp;
mod tls;
mod update;
