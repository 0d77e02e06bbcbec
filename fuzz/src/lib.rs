//! What must hold for any bytes, by what reads them.

pub mod checks;
pub mod manifests;

pub use checks::{chunked, request_head, response_head};
pub use manifests::manifest;
