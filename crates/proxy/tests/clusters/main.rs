//! Clusters in use: the same configuration and the same requests at sluis-proxy and, where
//! `ENVOY_BIN` names one, at a real Envoy; both must give the answers that are written here.

#![expect(clippy::unwrap_used, reason = "tests")]

#[expect(dead_code, reason = "shared with the tests of the shell; not every helper is used here")]
#[path = "../proxy/harness.rs"]
mod harness;

mod dns;
mod health;
mod injector;
mod limits;
mod outlier;
mod placing;
mod sharing;
mod sides;
mod tcp;
mod transport;
