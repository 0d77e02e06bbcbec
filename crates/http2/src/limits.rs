//! Bounds of one connection, each with its reason.

/// Bytes of a frame's payload that we accept: the least that can be offered (RFC 9113 §6.5.2), so
/// that a frame that has to be held as a whole holds little.
pub(crate) const FRAME_BYTES_MAX: usize = 16_384;

/// The window that both ends begin with (RFC 9113 §6.9.2).
pub(crate) const WINDOW_DEFAULT: i64 = 65_535;

/// The largest window (RFC 9113 §6.9.1).
pub(crate) const WINDOW_MAX: i64 = (1 << 31) - 1;

/// The last stream that a connection can have (RFC 9113 §5.1.1).
pub(crate) const STREAM_ID_MAX: u32 = (1 << 31) - 1;

/// Bytes of data that wait to be written to the peer, of all streams: more is not taken. A peer with
/// tiny windows, or one that does not read, holds no more than this (CVE-2019-9511, CVE-2019-9517).
pub(crate) const OUT_BYTES_MAX: usize = 128 * 1024;

/// Bytes of data that one stream may give at once: the others get their turn in between.
pub(crate) const PIECE_BYTES_MAX: usize = 64 * 1024;

/// Answers (to pings, settings, errors) that wait because the peer does not read; Envoy's bound of
/// control frames (CVE-2019-9512, CVE-2019-9514, CVE-2019-9515).
pub(crate) const ANSWERS_MAX: u32 = 1000;

/// Frames that one field block may be cut into; with full frames four hold the largest
/// (CVE-2024-27316, CVE-2024-28182).
pub(crate) const CONTINUATIONS_MAX: u32 = 64;

/// DATA frames in a row that hold no data and end nothing (CVE-2019-9518).
pub(crate) const EMPTY_FRAMES_MAX: u32 = 100;

/// Bytes that may come beyond [`OVERHEAD_RATIO`] times what they carry. As in nginx: frames that
/// carry nothing (PING, SETTINGS, PRIORITY, WINDOW_UPDATE, RST_STREAM, unknown ones) are paid for by
/// those that do (CVE-2019-9512, CVE-2019-9513, CVE-2019-9515).
pub(crate) const OVERHEAD_BYTES_MAX: u64 = 1 << 20;

/// See [`OVERHEAD_BYTES_MAX`].
pub(crate) const OVERHEAD_RATIO: u64 = 8;

/// Streams that may be reset for a fault of the peer's before half of all streams have to be well
/// (CVE-2025-8671: a peer that makes us reset its streams leaves us with their work).
pub(crate) const FAULTY_STREAMS_MAX: u64 = 100;

/// Streams of which we remember that we have reset them: what the peer sent before it knew is no
/// fault (RFC 9113 §5.1).
pub(crate) const RESETS_KEPT_MAX: usize = 256;

/// Heads of one stream that wait to be read; interim responses are what can be many.
pub(crate) const HEADS_WAITING_MAX: usize = 8;

/// Streams that a client may open before the server has said how many.
pub(crate) const STREAMS_AT_FIRST: u32 = 100;

/// Sections kept for the next heads, of at most [`SECTION_KEPT_BYTES`] bytes.
pub(crate) const SECTIONS_KEPT_MAX: usize = 8;

/// See [`SECTIONS_KEPT_MAX`].
pub(crate) const SECTION_KEPT_BYTES: usize = 4096;

/// Bytes of a buffer that is kept from one turn to the next while streams are open: as many as may
/// wait, with the heads beside them.
pub(crate) const BUFFER_KEPT_BYTES: usize = 160 * 1024;

/// The same without open streams: what an idle connection may hold.
pub(crate) const IDLE_BUFFER_BYTES: usize = 4096;

/// Places of streams that an idle connection keeps for the next ones.
pub(crate) const SLOTS_KEPT_MAX: usize = 16;
