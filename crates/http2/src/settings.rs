//! What the two ends tell each other about themselves (RFC 9113 §6.5).

use crate::{
    Reason,
    frame::{FrameHead, flag, kind},
    limits::{FRAME_BYTES_MAX, STREAMS_AT_FIRST, WINDOW_DEFAULT, WINDOW_MAX},
};

const HEADER_TABLE_SIZE: u16 = 0x1;
const ENABLE_PUSH: u16 = 0x2;
const MAX_CONCURRENT_STREAMS: u16 = 0x3;
const INITIAL_WINDOW_SIZE: u16 = 0x4;
const MAX_FRAME_SIZE: u16 = 0x5;
const MAX_HEADER_LIST_SIZE: u16 = 0x6;
const ENABLE_CONNECT_PROTOCOL: u16 = 0x8;

/// Which end of a connection we are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// We are asked.
    Server,
    /// We ask.
    Client,
}

/// What we allow our peer.
#[derive(Clone, Copy, Debug)]
pub struct Options {
    /// Streams at once. For a client: streams that we open at once, whatever the server allows.
    pub streams_max: u32,
    /// Bytes that a stream may be ahead.
    pub stream_window: u32,
    /// Bytes that all streams together may be ahead; less than 65,535 counts as that.
    pub connection_window: u32,
    /// Bytes of one head: names, values and 32 for each field.
    pub list_bytes_max: u32,
    /// Whether extended CONNECT (RFC 8441) is offered. For servers.
    pub connect_protocol: bool,
}

impl Options {
    pub(crate) fn stream_window(&self) -> i64 {
        i64::from(self.stream_window).min(WINDOW_MAX)
    }

    pub(crate) fn connection_window(&self) -> i64 {
        i64::from(self.connection_window).clamp(WINDOW_DEFAULT, WINDOW_MAX)
    }

    pub(crate) fn write(&self, role: Role, out: &mut Vec<u8>) {
        let mut entries: Vec<(u16, u32)> = vec![
            (INITIAL_WINDOW_SIZE, self.stream_window.min(WINDOW_MAX as u32)),
            (MAX_HEADER_LIST_SIZE, self.list_bytes_max),
        ];
        match role {
            Role::Client => entries.push((ENABLE_PUSH, 0)),
            Role::Server => {
                entries.push((MAX_CONCURRENT_STREAMS, self.streams_max));
                if self.connect_protocol {
                    entries.push((ENABLE_CONNECT_PROTOCOL, 1));
                }
            }
        }
        FrameHead { len: entries.len() * 6, kind: kind::SETTINGS, flags: 0, id: 0 }.write(out);
        for (name, value) in entries {
            out.extend_from_slice(&name.to_be_bytes());
            out.extend_from_slice(&value.to_be_bytes());
        }
    }
}

pub(crate) fn write_ack(out: &mut Vec<u8>) {
    FrameHead { len: 0, kind: kind::SETTINGS, flags: flag::ACK, id: 0 }.write(out);
}

/// What our peer allows us.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Theirs {
    pub(crate) streams_max: u32,
    pub(crate) stream_window: i64,
    pub(crate) table_bytes_max: Option<u32>,
    pub(crate) connect_protocol: bool,
}

impl Theirs {
    pub(crate) fn at_first(role: Role) -> Self {
        Self {
            streams_max: if role == Role::Client { STREAMS_AT_FIRST } else { u32::MAX },
            stream_window: WINDOW_DEFAULT,
            table_bytes_max: None,
            connect_protocol: false,
        }
    }

    /// Takes one SETTINGS frame. Its entries count in their order, so the last of a name stands;
    /// streams are adjusted once for the whole frame, however often it names their window.
    pub(crate) fn take(
        &mut self,
        payload: &[u8],
        role: Role,
        is_first: bool,
    ) -> Result<(), Reason> {
        if is_first {
            // What was not said is not limited.
            self.streams_max = u32::MAX;
        }
        self.table_bytes_max = None;
        for entry in payload.chunks_exact(6) {
            let &[a, b, c, d, e, f] = entry else { return Err(Reason::FRAME_SIZE_ERROR) };
            let value = u32::from_be_bytes([c, d, e, f]);
            match u16::from_be_bytes([a, b]) {
                HEADER_TABLE_SIZE => {
                    // The least one counts too: entries beyond it are gone (RFC 7541 §4.2).
                    let least = self.table_bytes_max.map_or(value, |known| known.min(value));
                    self.table_bytes_max = Some(least);
                }
                ENABLE_PUSH if value > 1 || (role == Role::Client && value == 1) => {
                    return Err(Reason::PROTOCOL_ERROR);
                }
                MAX_CONCURRENT_STREAMS => self.streams_max = value,
                INITIAL_WINDOW_SIZE => {
                    if i64::from(value) > WINDOW_MAX {
                        return Err(Reason::FLOW_CONTROL_ERROR);
                    }
                    self.stream_window = i64::from(value);
                }
                MAX_FRAME_SIZE if !(FRAME_BYTES_MAX..1 << 24).contains(&(value as usize)) => {
                    return Err(Reason::PROTOCOL_ERROR);
                }
                ENABLE_CONNECT_PROTOCOL => {
                    // RFC 8441 §3: it may not be taken back.
                    if value > 1 || (value == 0 && self.connect_protocol) {
                        return Err(Reason::PROTOCOL_ERROR);
                    }
                    self.connect_protocol = value == 1;
                }
                _ => {}
            }
        }
        Ok(())
    }
}
