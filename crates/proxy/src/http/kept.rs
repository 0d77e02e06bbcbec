//! The bytes of a request's body that have gone on, in case they are needed again: for another try,
//! and for copies to mirrors.

/// Most bytes of a body that are kept: Envoy's default. A request with more is neither tried again
/// nor mirrored once it has outgrown this.
pub(super) const KEPT_BYTES_MAX: usize = 1 << 20;

/// A buffer larger than this is not kept for the next request.
const SPARE_BYTES_MAX: usize = 64 * 1024;

/// The first bytes of a body, as they were framed.
#[derive(Debug, Default)]
pub(super) struct Kept {
    bytes: Vec<u8>,
    /// Whether bytes are kept beyond those that come with the head.
    goes_on: bool,
    /// Whether some are missing.
    has_lost: bool,
}

impl Kept {
    /// Begins anew; `goes_on` when all of the body will be needed.
    pub(super) fn restart(&mut self, goes_on: bool) {
        self.bytes.clear();
        self.bytes.shrink_to(SPARE_BYTES_MAX);
        (self.goes_on, self.has_lost) = (goes_on, false);
    }

    /// Keeps the bytes that go out behind the head.
    pub(super) fn first(&mut self, bytes: &[u8]) {
        self.bytes.extend_from_slice(bytes);
    }

    /// Keeps bytes that go out later, as far as there is need and room.
    pub(super) fn more(&mut self, bytes: &[u8]) {
        if !self.goes_on || self.has_lost || self.bytes.len() + bytes.len() > KEPT_BYTES_MAX {
            self.has_lost = true;
            self.bytes = Vec::new();
            return;
        }
        self.bytes.extend_from_slice(bytes);
    }

    /// Whether all that has gone out can be sent again.
    pub(super) fn is_whole(&self) -> bool {
        !self.has_lost
    }

    pub(super) fn bytes(&self) -> &[u8] {
        &self.bytes
    }
}
