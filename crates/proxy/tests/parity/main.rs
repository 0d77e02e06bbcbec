//! The same static configuration and the same requests, byte for byte, through our proxy and through
//! a real Envoy: what clients get, what origins receive and what is logged must be equal.
//!
//! Runs where `ENVOY_BIN` names an Envoy; elsewhere only ours is run.

#![expect(clippy::unwrap_used, reason = "a test fails where it unwraps")]

#[expect(dead_code, reason = "shared with the tests of the shell; not every helper is used here")]
#[path = "../proxy/harness.rs"]
mod harness;

mod actions;
mod authz;
mod conditions;
mod edges;
mod injected;
mod key_servers;
mod pair;
mod service;
#[path = "../../../jwt/tests/jwt/signing.rs"]
mod signing;
mod timing;
mod tokens;
