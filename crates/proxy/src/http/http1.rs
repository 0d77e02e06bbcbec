//! The HTTP/1 sides of relayed exchanges.

pub(super) mod client;
pub(super) mod endpoint;
pub(super) mod lines;
