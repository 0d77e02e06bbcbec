//! What must hold for any bytes, by what reads them.

pub mod checks;
pub mod framing;
pub mod http2;
pub mod letter;
pub mod manifests;
pub mod peers;
pub mod requests;
pub mod tokens;

pub use checks::{chunked, converted_head, request_head, response_head};
pub use http2::{hpack_decode, http2_engine};
pub use manifests::manifest;
pub use requests::signing_request;
pub use tokens::token;
