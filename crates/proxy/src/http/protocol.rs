//! The HTTP versions that clients speak.

use sluis_rules::{Codec, HttpManager};

use crate::conn::Downstream;

/// The HTTP version spoken with a client.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Protocol {
    Http1,
    Http2,
}

impl Protocol {
    /// What a client speaks: as the manager says, else as TLS has agreed.
    pub(super) fn of(downstream: &Downstream, manager: &HttpManager) -> Self {
        match (manager.codec, downstream.io.alpn()) {
            (Codec::Http2, _) | (Codec::Auto, Some(b"h2")) => Self::Http2,
            _ => Self::Http1,
        }
    }

    /// As access logs and scripts call it.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Http1 => "HTTP/1.1",
            Self::Http2 => "HTTP/2",
        }
    }
}
