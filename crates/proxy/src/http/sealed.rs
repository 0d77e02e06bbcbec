//! A request head with credentials in it: for the codec alone.

use std::fmt;

use sluis_http1::RequestHead;

/// A head with credentials in it. Its memory is overwritten when it has been written.
#[derive(Default)]
pub(super) struct Sealed {
    pub(super) head: RequestHead,
    /// The fields that hold values.
    pub(super) names: Vec<String>,
    pub(super) is_verified: bool,
}

impl Sealed {
    /// What goes on the wire. It is not for anything else.
    pub(super) fn head(&self) -> &RequestHead {
        &self.head
    }

    /// For what the codec itself adds.
    pub(super) fn head_mut(&mut self) -> &mut RequestHead {
        &mut self.head
    }

    /// Whether the endpoint has proved that it is who the request names.
    pub(super) fn is_verified(&self) -> bool {
        self.is_verified
    }

    /// Whether a field's value must be kept from compression tables and logs.
    pub(super) fn is_sensitive(&self, name: &str) -> bool {
        self.names.iter().any(|known| known.eq_ignore_ascii_case(name))
    }
}

impl Drop for Sealed {
    fn drop(&mut self) {
        self.head.fields.wipe();
    }
}

impl fmt::Debug for Sealed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Sealed").field("names", &self.names).finish_non_exhaustive()
    }
}
