//! Reads the first bytes of a connection without deciding anything: TLS hello, PROXY header, HTTP.
//!
//! In:    the bytes that have arrived so far.
//! Out:   what they say, or that more are needed.
//! Never: does I/O, allocates more than the named bounds, or looks at a byte twice in a row of
//!        small reads.

mod hello;
mod http;
mod proxy_header;

pub use hello::{Hello, HelloError, HelloReader};
pub use http::{HttpGuess, guess_http};
pub use proxy_header::{ProxyHeader, ProxyHeaderError, parse_proxy_header};
