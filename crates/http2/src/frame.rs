//! Frames as bytes (RFC 9113 §4.1).

use crate::Reason;

/// Bytes of a frame's head.
pub(crate) const HEAD_BYTES: usize = 9;

/// What a client says first (RFC 9113 §3.4).
pub(crate) const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// A frame's type (RFC 9113 §6).
pub(crate) mod kind {
    pub(crate) const DATA: u8 = 0x0;
    pub(crate) const HEADERS: u8 = 0x1;
    pub(crate) const PRIORITY: u8 = 0x2;
    pub(crate) const RST_STREAM: u8 = 0x3;
    pub(crate) const SETTINGS: u8 = 0x4;
    pub(crate) const PUSH_PROMISE: u8 = 0x5;
    pub(crate) const PING: u8 = 0x6;
    pub(crate) const GOAWAY: u8 = 0x7;
    pub(crate) const WINDOW_UPDATE: u8 = 0x8;
    pub(crate) const CONTINUATION: u8 = 0x9;
}

/// A frame's flags.
pub(crate) mod flag {
    pub(crate) const ACK: u8 = 0x1;
    pub(crate) const END_STREAM: u8 = 0x1;
    pub(crate) const END_HEADERS: u8 = 0x4;
    pub(crate) const PADDED: u8 = 0x8;
    pub(crate) const PRIORITY: u8 = 0x20;
}

/// The head of a frame.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct FrameHead {
    pub(crate) len: usize,
    pub(crate) kind: u8,
    pub(crate) flags: u8,
    pub(crate) id: u32,
}

impl FrameHead {
    pub(crate) fn read(bytes: &[u8; HEAD_BYTES]) -> Self {
        let [a, b, c, kind, flags, rest @ ..] = *bytes;
        Self {
            len: u32::from_be_bytes([0, a, b, c]) as usize,
            kind,
            flags,
            // The reserved bit is ignored.
            id: u32::from_be_bytes(rest) & 0x7fff_ffff,
        }
    }

    pub(crate) fn write(self, out: &mut Vec<u8>) {
        out.extend_from_slice(&self.bytes());
    }

    pub(crate) fn bytes(self) -> [u8; HEAD_BYTES] {
        let [_, a, b, c] = (self.len as u32).to_be_bytes();
        let [d, e, f, g] = self.id.to_be_bytes();
        [a, b, c, self.kind, self.flags, d, e, f, g]
    }

    pub(crate) fn has(self, flag: u8) -> bool {
        self.flags & flag != 0
    }
}

/// Four bytes of a payload whose length has been checked.
pub(crate) fn number(payload: &[u8], at: usize) -> u32 {
    payload.get(at..at + 4).and_then(|four| four.try_into().ok()).map_or(0, u32::from_be_bytes)
}

pub(crate) fn write_reset(id: u32, reason: Reason, out: &mut Vec<u8>) {
    FrameHead { len: 4, kind: kind::RST_STREAM, flags: 0, id }.write(out);
    out.extend_from_slice(&reason.code().to_be_bytes());
}

pub(crate) fn write_window_update(id: u32, more: u32, out: &mut Vec<u8>) {
    FrameHead { len: 4, kind: kind::WINDOW_UPDATE, flags: 0, id }.write(out);
    out.extend_from_slice(&more.to_be_bytes());
}

pub(crate) fn write_ping(is_ack: bool, payload: [u8; 8], out: &mut Vec<u8>) {
    let flags = if is_ack { flag::ACK } else { 0 };
    FrameHead { len: 8, kind: kind::PING, flags, id: 0 }.write(out);
    out.extend_from_slice(&payload);
}

pub(crate) fn write_goaway(last_id: u32, reason: Reason, out: &mut Vec<u8>) {
    FrameHead { len: 8, kind: kind::GOAWAY, flags: 0, id: 0 }.write(out);
    out.extend_from_slice(&last_id.to_be_bytes());
    out.extend_from_slice(&reason.code().to_be_bytes());
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_head_is_read_as_it_was_written() {
        let head = FrameHead { len: 0x01_02_03, kind: 7, flags: 5, id: 0x7eff_0001 };
        assert_eq!(FrameHead::read(&head.bytes()), head);
        let mut reserved = head.bytes();
        reserved[5] |= 0x80;
        assert_eq!(FrameHead::read(&reserved), head);
    }
}
