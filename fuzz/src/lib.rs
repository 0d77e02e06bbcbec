//! What must hold for any bytes, by what reads them.

pub mod checks;
pub mod manifests;
pub mod requests;
pub mod tokens;

pub use checks::{chunked, request_head, response_head};
pub use manifests::manifest;
pub use requests::signing_request;
pub use tokens::token;
