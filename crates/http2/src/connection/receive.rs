//! Frames that have come: cut out of the bytes, and acted on.
//!
//! In:    bytes in pieces of any size.
//! Out:   streams that have more to read, windows that have grown, answers in the output.
//! Never: holds a frame of data: its bytes go on as they come.

use super::{Connection, DRAIN_PING, Key, Life, OWN_PING};
use crate::{
    Fault, Reason, Role,
    frame::{self, FrameHead, HEAD_BYTES, PREFACE, flag, kind},
    limits::{FRAME_BYTES_MAX, RESETS_KEPT_MAX, WINDOW_MAX},
    settings,
    stream::Phase,
};

/// What is expected next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum At {
    Preface,
    Head,
    /// The length of a DATA frame's padding.
    PadLength,
    Data,
    Padding,
    /// A payload that is held until all of it has come.
    Payload,
}

/// Where in a frame the bytes stand.
#[derive(Debug)]
pub(super) struct Reader {
    at: At,
    head: FrameHead,
    /// Bytes of the present thing that are still to come.
    left: usize,
    padding: usize,
    held: Vec<u8>,
    /// Whose the data is; `None` throws it away.
    key: Option<Key>,
    /// Whether the frame has held data.
    is_empty: bool,
}

impl Reader {
    pub(super) fn new(role: Role) -> Self {
        let at = if role == Role::Server { At::Preface } else { At::Head };
        Self {
            at,
            head: FrameHead::default(),
            left: if role == Role::Server { PREFACE.len() } else { HEAD_BYTES },
            padding: 0,
            held: Vec::new(),
            key: None,
            is_empty: true,
        }
    }

    fn expect_head(&mut self) {
        self.at = At::Head;
        self.left = HEAD_BYTES;
    }
}

impl Connection {
    /// Takes what has come. What it leads to is seen by the streams, by [`Connection::accept`],
    /// [`Connection::pending`] and [`Connection::failure`].
    pub fn feed(&mut self, mut input: &[u8]) {
        self.guard.came(input.len());
        while !input.is_empty() && self.is_alive() {
            match self.step(input) {
                Ok(taken) => input = input.get(taken..).unwrap_or_default(),
                Err(reason) => self.fail(reason),
            }
        }
        if let Err(reason) = self.guard.check() {
            self.fail(reason);
        }
        if self.reader.held.is_empty() && self.streams.is_empty() {
            self.reader.held = Vec::new();
        }
    }

    /// Takes some of the input, which is not empty; returns how much.
    fn step(&mut self, input: &[u8]) -> Result<usize, Reason> {
        let len = input.len().min(self.reader.left);
        let part = &input[..len];
        match self.reader.at {
            At::Preface => {
                let from = PREFACE.len() - self.reader.left;
                if part != &PREFACE[from..from + len] {
                    return Err(Reason::PROTOCOL_ERROR);
                }
                self.reader.left -= len;
                if self.reader.left == 0 {
                    self.reader.expect_head();
                }
            }
            At::Head | At::Payload => return self.step_held(part),
            At::PadLength => {
                self.reader.left = 0;
                let padding = usize::from(part[0]);
                let rest = self.reader.head.len - 1;
                if padding > rest {
                    return Err(Reason::PROTOCOL_ERROR);
                }
                self.reader.padding = padding;
                self.skip(1 + padding);
                self.expect_data(rest - padding)?;
            }
            At::Data => {
                self.on_data(part);
                self.reader.left -= len;
                if self.reader.left == 0 {
                    self.expect_padding()?;
                }
            }
            At::Padding => {
                self.reader.left -= len;
                if self.reader.left == 0 {
                    self.end_data()?;
                }
            }
        }
        Ok(len)
    }

    /// Takes what is acted on as a whole: at once when all of it is there.
    fn step_held(&mut self, part: &[u8]) -> Result<usize, Reason> {
        let is_whole = part.len() == self.reader.left;
        if is_whole && self.reader.held.is_empty() {
            self.on_whole(part)?;
            return Ok(part.len());
        }
        self.reader.held.extend_from_slice(part);
        self.reader.left -= part.len();
        if is_whole {
            let mut held = std::mem::take(&mut self.reader.held);
            self.on_whole(&held)?;
            held.clear();
            self.reader.held = held;
        }
        Ok(part.len())
    }

    fn on_whole(&mut self, bytes: &[u8]) -> Result<(), Reason> {
        if self.reader.at == At::Payload {
            let head = self.reader.head;
            self.reader.expect_head();
            return self.on_frame(head, bytes);
        }
        let Ok(bytes) = bytes.try_into() else { return Err(Reason::INTERNAL_ERROR) };
        let head = FrameHead::read(bytes);
        if head.len > FRAME_BYTES_MAX {
            return Err(Reason::FRAME_SIZE_ERROR);
        }
        self.check_order(head)?;
        self.reader.head = head;
        self.reader.expect_head();
        if head.kind == kind::DATA {
            return self.begin_data(head);
        }
        if head.len == 0 {
            return self.on_frame(head, &[]);
        }
        self.reader.at = At::Payload;
        self.reader.left = head.len;
        Ok(())
    }

    fn on_frame(&mut self, head: FrameHead, payload: &[u8]) -> Result<(), Reason> {
        match head.kind {
            kind::HEADERS => self.on_headers(head, payload),
            kind::CONTINUATION => self.on_continuation(head, payload),
            kind::SETTINGS => self.on_settings(head, payload),
            kind::WINDOW_UPDATE => self.on_window_update(head, payload),
            kind::PING => self.on_ping(head, payload),
            kind::RST_STREAM => self.on_reset(head, payload),
            kind::GOAWAY => self.on_goaway(head, payload),
            kind::PRIORITY => on_priority(head, payload),
            // We have refused it, and a client cannot send it (RFC 9113 §8.4).
            kind::PUSH_PROMISE => Err(Reason::PROTOCOL_ERROR),
            // RFC 9113 §5.5.
            _ => Ok(()),
        }
    }

    /// Finds whose the data is, and counts it against both windows.
    fn begin_data(&mut self, head: FrameHead) -> Result<(), Reason> {
        if head.id == 0 || self.is_unused(head.id) {
            return Err(Reason::PROTOCOL_ERROR);
        }
        let len = head.len as i64;
        if len > self.window {
            return Err(Reason::FLOW_CONTROL_ERROR);
        }
        self.window -= len;
        self.reader.key = None;
        self.reader.is_empty = true;
        self.reader.padding = 0;
        match self.streams.find(head.id) {
            None => self.on_late_data(head.id)?,
            Some(key) => self.reader.key = self.judge_data(key, len)?,
        }
        if head.has(flag::PADDED) {
            if head.len == 0 {
                return Err(Reason::FRAME_SIZE_ERROR);
            }
            self.reader.at = At::PadLength;
            self.reader.left = 1;
            return Ok(());
        }
        self.expect_data(head.len)
    }

    /// Data for a stream that is not there.
    fn on_late_data(&mut self, id: u32) -> Result<(), Reason> {
        if self.resets.contains(&id) {
            return Ok(());
        }
        if self.ends.contains(&id) {
            return Err(Reason::STREAM_CLOSED);
        }
        self.guard.answer();
        self.guard.faulty();
        frame::write_reset(id, Reason::STREAM_CLOSED, &mut self.out.bytes);
        super::keep(&mut self.resets, id, RESETS_KEPT_MAX);
        Ok(())
    }

    /// The stream that takes the data; none when it is thrown away.
    fn judge_data(&mut self, key: Key, len: i64) -> Result<Option<Key>, Reason> {
        let Some(stream) = self.streams.get_mut(key) else { return Ok(None) };
        if let Some(Fault::Reset(_) | Fault::Refused) = stream.fault {
            return Err(Reason::STREAM_CLOSED);
        }
        if stream.is_reset {
            return Ok(None);
        }
        let fault = match stream.phase {
            Phase::Ended if stream.is_sent => return Err(Reason::STREAM_CLOSED),
            Phase::Ended => Reason::STREAM_CLOSED,
            Phase::Head => Reason::PROTOCOL_ERROR,
            Phase::Body if len > stream.window => Reason::FLOW_CONTROL_ERROR,
            Phase::Body => {
                stream.window -= len;
                return Ok(Some(key));
            }
        };
        self.spoil(key, fault);
        Ok(None)
    }

    fn expect_data(&mut self, len: usize) -> Result<(), Reason> {
        self.reader.at = At::Data;
        self.reader.left = len;
        if len == 0 { self.expect_padding() } else { Ok(()) }
    }

    fn expect_padding(&mut self) -> Result<(), Reason> {
        self.reader.at = At::Padding;
        self.reader.left = self.reader.padding;
        if self.reader.left == 0 { self.end_data() } else { Ok(()) }
    }

    /// Bytes of a DATA frame that nobody reads: they are used at once.
    fn skip(&mut self, len: usize) {
        match self.reader.key {
            Some(key) => self.used(key, len),
            None => self.owe(len),
        }
    }

    fn on_data(&mut self, part: &[u8]) {
        self.reader.is_empty = false;
        self.guard.carried(part.len());
        let Some(key) = self.reader.key else { return self.owe(part.len()) };
        let Some(stream) = self.streams.get_mut(key).filter(|stream| !stream.is_reset) else {
            return self.owe(part.len());
        };
        if let Some(left) = &mut stream.length_left {
            let Some(less) = left.checked_sub(part.len() as u64) else {
                self.spoil(key, Reason::PROTOCOL_ERROR);
                return self.owe(part.len());
            };
            *left = less;
        }
        stream.data.extend_from_slice(part);
        stream.wake();
    }

    /// The frame has come to its end.
    fn end_data(&mut self) -> Result<(), Reason> {
        let head = self.reader.head;
        self.reader.expect_head();
        let ends = head.has(flag::END_STREAM);
        self.guard.data(usize::from(!self.reader.is_empty), ends);
        let Some(key) = self.reader.key.take().filter(|_| ends) else { return Ok(()) };
        let Some(stream) = self.streams.get_mut(key).filter(|stream| !stream.is_reset) else {
            return Ok(());
        };
        if stream.length_left.is_some_and(|left| left > 0) {
            self.spoil(key, Reason::PROTOCOL_ERROR);
        } else {
            stream.phase = Phase::Ended;
            stream.wake();
        }
        Ok(())
    }

    fn on_settings(&mut self, head: FrameHead, payload: &[u8]) -> Result<(), Reason> {
        if head.id != 0 {
            return Err(Reason::PROTOCOL_ERROR);
        }
        if head.has(flag::ACK) {
            if !payload.is_empty() {
                return Err(Reason::FRAME_SIZE_ERROR);
            }
            self.apply_own();
            return Ok(());
        }
        if !payload.len().is_multiple_of(6) {
            return Err(Reason::FRAME_SIZE_ERROR);
        }
        let before = self.theirs.stream_window;
        self.theirs.take(payload, self.role, !self.is_settled)?;
        if let Some(bytes) = self.theirs.table_bytes_max {
            self.encoder.set_table_bytes_max(bytes);
        }
        let more = self.theirs.stream_window - before;
        if more != 0 {
            for stream in self.streams.each() {
                stream.send_window += more;
                if stream.send_window > WINDOW_MAX {
                    return Err(Reason::FLOW_CONTROL_ERROR);
                }
                if more > 0 {
                    stream.wake();
                }
            }
        }
        self.is_settled = true;
        self.guard.answer();
        settings::write_ack(&mut self.out.bytes);
        Ok(())
    }

    /// The peer knows our settings: from here on they count.
    fn apply_own(&mut self) {
        let more = self.options.stream_window() - self.stream_window;
        self.stream_window += more;
        for stream in self.streams.each().filter(|_| more != 0) {
            stream.window += more;
        }
    }

    fn on_window_update(&mut self, head: FrameHead, payload: &[u8]) -> Result<(), Reason> {
        if payload.len() != 4 {
            return Err(Reason::FRAME_SIZE_ERROR);
        }
        let more = i64::from(frame::number(payload, 0) & 0x7fff_ffff);
        if head.id == 0 {
            if more == 0 {
                return Err(Reason::PROTOCOL_ERROR);
            }
            self.send_window += more;
            if self.send_window > WINDOW_MAX {
                return Err(Reason::FLOW_CONTROL_ERROR);
            }
            self.wake_waiting();
            return Ok(());
        }
        if self.is_unused(head.id) {
            return Err(Reason::PROTOCOL_ERROR);
        }
        let Some(key) = self.streams.find(head.id) else { return Ok(()) };
        let Some(stream) = self.streams.get_mut(key).filter(|stream| !stream.is_reset) else {
            return Ok(());
        };
        stream.send_window += more;
        if more == 0 {
            self.spoil(key, Reason::PROTOCOL_ERROR);
        } else if stream.send_window > WINDOW_MAX {
            self.spoil(key, Reason::FLOW_CONTROL_ERROR);
        } else {
            stream.wake();
        }
        Ok(())
    }

    fn on_ping(&mut self, head: FrameHead, payload: &[u8]) -> Result<(), Reason> {
        if head.id != 0 {
            return Err(Reason::PROTOCOL_ERROR);
        }
        let payload: [u8; 8] = payload.try_into().map_err(|_| Reason::FRAME_SIZE_ERROR)?;
        if !head.has(flag::ACK) {
            self.guard.answer();
            frame::write_ping(true, payload, &mut self.out.bytes);
        } else if payload == OWN_PING {
            self.pongs += 1;
        } else if payload == DRAIN_PING && self.life == Life::Draining {
            // What the client sent before it knew has come.
            self.life = Life::Drained;
            frame::write_goaway(self.last_id, Reason::NO_ERROR, &mut self.out.bytes);
        }
        Ok(())
    }

    fn on_reset(&mut self, head: FrameHead, payload: &[u8]) -> Result<(), Reason> {
        if head.id == 0 {
            return Err(Reason::PROTOCOL_ERROR);
        }
        if payload.len() != 4 {
            return Err(Reason::FRAME_SIZE_ERROR);
        }
        if self.is_unused(head.id) {
            return Err(Reason::PROTOCOL_ERROR);
        }
        let reason = Reason::of(frame::number(payload, 0));
        let Some(key) = self.streams.find(head.id) else { return Ok(()) };
        let Some(stream) = self.streams.get_mut(key).filter(|stream| !stream.is_reset) else {
            return Ok(());
        };
        stream.is_reset = true;
        stream.fault.get_or_insert(match reason {
            Reason::REFUSED_STREAM => Fault::Refused,
            reason => Fault::Reset(reason),
        });
        stream.wake();
        Ok(())
    }

    fn on_goaway(&mut self, head: FrameHead, payload: &[u8]) -> Result<(), Reason> {
        if head.id != 0 {
            return Err(Reason::PROTOCOL_ERROR);
        }
        if payload.len() < 8 {
            return Err(Reason::FRAME_SIZE_ERROR);
        }
        self.is_sent_away = true;
        if self.role == Role::Server {
            return Ok(());
        }
        let last_id = frame::number(payload, 0) & 0x7fff_ffff;
        let fault = match Reason::of(frame::number(payload, 4)) {
            // Streams above the last one that it names have not been acted on.
            Reason::NO_ERROR => Fault::Refused,
            _ => Fault::Gone,
        };
        for stream in self.streams.each().filter(|stream| stream.id > last_id) {
            stream.is_reset = true;
            stream.fault.get_or_insert(fault);
            stream.wake();
        }
        Ok(())
    }
}

/// Priorities are not followed, but must be well-formed (RFC 9113 §6.3).
fn on_priority(head: FrameHead, payload: &[u8]) -> Result<(), Reason> {
    if head.id == 0 {
        return Err(Reason::PROTOCOL_ERROR);
    }
    if payload.len() != 5 {
        return Err(Reason::FRAME_SIZE_ERROR);
    }
    if frame::number(payload, 0) & 0x7fff_ffff == head.id {
        return Err(Reason::PROTOCOL_ERROR);
    }
    Ok(())
}
