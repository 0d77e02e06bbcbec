//! The bytes of a request's body that have gone on, in case they are needed again: for another try,
//! and for copies to mirrors.

use bytes::Bytes;
use http::HeaderMap;

use super::piece::Piece;

/// Bytes of a request's body that are kept where nobody asks for it: another connection may be needed
/// in place of a dead one.
const REPLAY_BYTES_MAX: usize = 64 * 1024;

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

    /// Whether the bytes that go out next are to be kept.
    pub(super) fn wants_more(&self) -> bool {
        self.goes_on && !self.has_lost
    }

    /// Whether all that has gone out can be sent again.
    pub(super) fn is_whole(&self) -> bool {
        !self.has_lost
    }

    pub(super) fn bytes(&self) -> &[u8] {
        &self.bytes
    }
}

/// What has come of a request's body, for another try.
#[derive(Debug, Default)]
pub(super) struct Replay {
    pieces: Vec<(Bytes, bool)>,
    len: usize,
    len_max: usize,
    pub(super) end: Option<Option<HeaderMap>>,
    is_broken: bool,
}

impl Replay {
    /// Whether nothing is missing.
    pub(super) fn is_whole(&self) -> bool {
        !self.is_broken
    }

    /// Keeps a piece, if it is small enough.
    pub(super) fn keep(&mut self, data: &Bytes, is_last: bool) -> bool {
        self.len += data.len();
        self.is_broken |= self.len > self.len_max;
        if self.is_broken {
            self.pieces = Vec::new();
            return false;
        }
        self.pieces.push((data.clone(), is_last));
        true
    }

    /// Begins anew; `goes_on` when all of the body will be needed.
    pub(super) fn restart(&mut self, goes_on: bool) {
        let len_max = if goes_on { KEPT_BYTES_MAX } else { REPLAY_BYTES_MAX };
        *self = Self { len_max, ..Self::default() };
    }

    /// The whole body, when all of it has come and is kept.
    pub(super) fn whole(&self) -> Option<Vec<u8>> {
        let has_end = self.end.is_some() || self.pieces.last().is_some_and(|(_, is_last)| *is_last);
        let is_whole = has_end && !self.is_broken;
        is_whole.then(|| self.pieces.iter().flat_map(|(data, _)| data.iter().copied()).collect())
    }

    pub(super) fn at(&self, index: usize) -> Option<Piece> {
        match self.pieces.get(index) {
            Some((data, is_last)) => Some(Piece::Data(data.clone(), *is_last)),
            None => self.end.clone().filter(|_| !self.is_broken).map(Piece::End),
        }
    }
}
