//! HTTP through the proxy: raw bytes on both sides, so that every byte can be judged.

#![expect(clippy::unwrap_used, reason = "tests")]

#[expect(dead_code, reason = "shared with the tests of the shell; not every helper is used here")]
#[path = "../proxy/harness.rs"]
mod harness;

mod bulk;
mod filters;
mod forwarding;
mod http2;
mod injected;
mod peers;
mod refusals;
mod replies;
mod retries;
mod scripts;
mod silence;
mod streaming;
