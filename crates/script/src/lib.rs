//! Runs the scripts of Envoy's Lua HTTP filter.
//!
//! In:    a script, and a [`Stream`]: the headers of one request or response.
//! Out:   the stream's headers as the script wants them, or a response of its own ([`Outcome`]).
//! Never: lets a request pass that a script should have changed and did not: an error is an answer
//!        of 500. Envoy logs the error and passes the request on; a script that adds credentials or
//!        checks them must not be skipped.
//!
//! A script runs on LuaJIT's interpreter, with a bound on instructions and memory, without native
//! libraries, processes or writable files. What each method does is in Envoy's documentation of the
//! filter; what is not here yet (bodies, trailers, calls to other hosts, keys) raises an error that
//! says so.
//!
//! Start at [`Script::compile`].

mod budget;
mod exchange;
mod handle;
mod sandbox;
mod script;
mod stream;

pub use script::{CompileError, Host, Outcome, Response, RunError, Script};
pub use stream::{Edit, Facts, HeaderRefused, Level, Stream};
