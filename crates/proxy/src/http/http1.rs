//! The HTTP/1 sides of relayed exchanges.

pub(super) mod client;
pub(super) mod endpoint;
mod lines;
