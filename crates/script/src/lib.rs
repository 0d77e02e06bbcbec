//! Runs the scripts of Envoy's Lua HTTP filter.
//!
//! In:    a script, and a [`Stream`]: the headers of one request or response; later its body, its
//!        trailers and the answers to the script's calls, as the script asks for them.
//! Out:   the stream as the script wants it, or a response of its own ([`Step`]).
//! Never: lets a request pass that a script should have changed and did not: an error is an answer
//!        of 500. Envoy logs the error and passes the request on; a script that adds credentials or
//!        checks them must not be skipped. Never waits or reads from a network: who runs the script
//!        brings what it wants.
//!
//! A script runs on LuaJIT's interpreter, with a bound on instructions and memory, without native
//! libraries, processes or writable files. What each method does is in Envoy's documentation of the
//! filter. Each run is a coroutine:
//!
//! ```text
//!   start ──▶ Step::Done        the head goes on as the script left it
//!         ──▶ Step::Respond     the client gets this instead
//!         ──▶ Step::Wants ──▶ body / chunk / end / answer ──▶ the next Step
//! ```
//!
//! Start at [`Script::compile`], then [`Script::start`].

mod body;
mod budget;
mod call;
mod exchange;
mod handle;
mod headers;
mod info;
mod keys;
mod list;
mod methods;
mod run;
mod sandbox;
mod script;
mod stream;
mod terms;
mod values;
mod worker;

pub use call::{Answer, Call};
pub use run::{Run, Step, Want};
pub use sandbox::Host;
pub use script::{CompileError, Script};
pub use stream::{
    AddressOf, Edit, Facts, FieldsOf, HeaderRefused, Level, Stream, Tls, TlsList, TlsText,
};
pub use terms::{Begin, BodyIs, Effects, Pairs, Response, RunError, Side};
