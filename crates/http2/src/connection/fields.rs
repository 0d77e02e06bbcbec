//! Field blocks that have come: requests, responses, trailers.

use super::{Connection, Key, keep};
use crate::{
    Fault, Reason, Role,
    frame::{self, FrameHead, flag, kind},
    hpack::{DecodeError, Section},
    limits::{CONTINUATIONS_MAX, HEADS_WAITING_MAX, RESETS_KEPT_MAX},
    message,
    stream::{Phase, Waiting},
};

/// A field block of which more is to come.
#[derive(Debug)]
pub(super) struct Block {
    pub(super) id: u32,
    ends: bool,
    bytes: Vec<u8>,
    continuations: u32,
}

impl Connection {
    /// Takes a HEADERS frame.
    pub(super) fn on_headers(&mut self, head: FrameHead, payload: &[u8]) -> Result<(), Reason> {
        if head.id == 0 {
            return Err(Reason::PROTOCOL_ERROR);
        }
        let mut fragment = payload;
        if head.has(flag::PADDED) {
            let (&padding, rest) = fragment.split_first().ok_or(Reason::FRAME_SIZE_ERROR)?;
            let len = rest.len().checked_sub(usize::from(padding));
            fragment = &rest[..len.ok_or(Reason::PROTOCOL_ERROR)?];
        }
        if head.has(flag::PRIORITY) {
            // Priorities are not followed (RFC 9113 §5.3.2).
            if fragment.len() < 5 {
                return Err(Reason::FRAME_SIZE_ERROR);
            }
            if frame::number(fragment, 0) & 0x7fff_ffff == head.id {
                return Err(Reason::PROTOCOL_ERROR);
            }
            fragment = &fragment[5..];
        }
        self.guard.carried(fragment.len());
        let ends = head.has(flag::END_STREAM);
        if head.has(flag::END_HEADERS) {
            return self.on_block(head.id, ends, fragment);
        }
        let bytes = fragment.to_vec();
        self.block = Some(Block { id: head.id, ends, bytes, continuations: 0 });
        Ok(())
    }

    /// Takes a CONTINUATION frame; that it follows its block has been checked.
    pub(super) fn on_continuation(
        &mut self,
        head: FrameHead,
        payload: &[u8],
    ) -> Result<(), Reason> {
        let Some(block) = &mut self.block else { return Err(Reason::PROTOCOL_ERROR) };
        block.continuations += 1;
        // A block is never longer than the list that it stands for by more than Huffman's worst.
        let most = self.options.list_bytes_max as usize * 4;
        if block.continuations > CONTINUATIONS_MAX || block.bytes.len() + payload.len() > most {
            return Err(Reason::ENHANCE_YOUR_CALM);
        }
        self.guard.carried(payload.len());
        block.bytes.extend_from_slice(payload);
        if !head.has(flag::END_HEADERS) {
            return Ok(());
        }
        match self.block.take() {
            Some(block) => self.on_block(block.id, block.ends, &block.bytes),
            None => Ok(()),
        }
    }

    fn on_block(&mut self, id: u32, ends: bool, block: &[u8]) -> Result<(), Reason> {
        let mut section = self.spare.pop().unwrap_or_default();
        // Every block is read, wanted or not: the table must keep step (RFC 9113 §4.3).
        let list_bytes_max = self.options.list_bytes_max as usize;
        let is_too_large = match self.decoder.decode(block, list_bytes_max, &mut section) {
            Ok(()) => false,
            Err(DecodeError::ListTooLarge) => true,
            Err(DecodeError::ListWithoutMeasure) => return Err(Reason::ENHANCE_YOUR_CALM),
            Err(_) => return Err(Reason::COMPRESSION_ERROR),
        };
        match (self.streams.find(id), self.role) {
            (Some(key), _) => self.on_known(key, section, ends, is_too_large),
            (None, Role::Server) => self.on_request(id, section, ends, is_too_large),
            (None, Role::Client) => {
                self.give_back(section);
                self.on_unknown(id)
            }
        }
    }

    /// A frame with a head or data for a stream that is not there.
    pub(super) fn on_unknown(&mut self, id: u32) -> Result<(), Reason> {
        if self.is_unused(id) {
            return Err(Reason::PROTOCOL_ERROR);
        }
        if self.resets.contains(&id) {
            // It was on its way when we reset the stream.
            return Ok(());
        }
        Err(Reason::STREAM_CLOSED)
    }

    /// Whether no such stream has been begun (RFC 9113 §5.1, "idle").
    pub(super) fn is_unused(&self, id: u32) -> bool {
        let is_ours = id % 2 == 1;
        match self.role {
            Role::Server => !is_ours || id > self.last_id,
            Role::Client => !is_ours || id >= self.next_id,
        }
    }

    /// A request, or what comes on a stream that has ended.
    fn on_request(
        &mut self,
        id: u32,
        section: Section,
        ends: bool,
        is_too_large: bool,
    ) -> Result<(), Reason> {
        if id.is_multiple_of(2) {
            return Err(Reason::PROTOCOL_ERROR);
        }
        if id <= self.last_id {
            self.give_back(section);
            return match self.on_unknown(id) {
                // Numbers rise: this one was skipped (RFC 9113 §5.1.1).
                Err(_) if !self.ends.contains(&id) => Err(Reason::PROTOCOL_ERROR),
                judged => judged,
            };
        }
        self.last_id = id;
        self.guard.begun();
        let is_closing = !matches!(self.life, super::Life::Open | super::Life::Draining);
        if is_closing || self.streams.len() >= self.options.streams_max as usize {
            self.give_back(section);
            self.refuse(id);
            return Ok(());
        }
        let key = self.streams.insert(id, self.stream_window, self.theirs.stream_window);
        let length = message::length(&section).unwrap_or_default();
        if let Some(stream) = self.streams.get_mut(key) {
            stream.phase = if ends { Phase::Ended } else { Phase::Body };
            stream.length_left = length;
            stream.heads.push_back(Waiting { section, status: 0, is_too_large });
        }
        self.accepted.push_back(key);
        Ok(())
    }

    /// Refuses a stream on which nobody has acted.
    fn refuse(&mut self, id: u32) {
        self.guard.answer();
        frame::write_reset(id, Reason::REFUSED_STREAM, &mut self.out.bytes);
        keep(&mut self.resets, id, RESETS_KEPT_MAX);
    }

    /// A head on a stream that is there: of a response, or trailers.
    fn on_known(
        &mut self,
        key: Key,
        section: Section,
        ends: bool,
        is_too_large: bool,
    ) -> Result<(), Reason> {
        let Some(stream) = self.streams.get_mut(key) else { return Ok(()) };
        if let Some(Fault::Reset(_) | Fault::Refused) = stream.fault {
            return Err(Reason::STREAM_CLOSED);
        }
        if stream.is_reset {
            self.give_back(section);
            return Ok(());
        }
        match stream.phase {
            Phase::Ended if stream.is_sent => return Err(Reason::STREAM_CLOSED),
            Phase::Ended => self.spoil(key, Reason::STREAM_CLOSED),
            Phase::Body => {
                let is_whole = stream.length_left.is_none_or(|left| left == 0);
                let is_well = message::check_trailers(&section).is_ok();
                if !ends || is_too_large || !is_whole || !is_well {
                    self.spoil(key, Reason::PROTOCOL_ERROR);
                    return Ok(());
                }
                stream.trailers = Some(section);
                stream.phase = Phase::Ended;
                stream.wake();
            }
            Phase::Head => self.on_response(key, section, ends, is_too_large),
        }
        Ok(())
    }

    fn on_response(&mut self, key: Key, section: Section, ends: bool, is_too_large: bool) {
        let Some(stream) = self.streams.get_mut(key) else { return };
        let Ok(status) = message::status(&section) else {
            return self.spoil(key, Reason::PROTOCOL_ERROR);
        };
        // RFC 9113 §8.1: an interim response does not end the stream.
        if is_too_large || (status < 200 && ends) {
            return self.spoil(key, Reason::PROTOCOL_ERROR);
        }
        if stream.heads.len() >= HEADS_WAITING_MAX {
            return self.spoil(key, Reason::ENHANCE_YOUR_CALM);
        }
        if status >= 200 {
            stream.phase = if ends { Phase::Ended } else { Phase::Body };
            let says_nothing = stream.is_to_head || matches!(status, 204 | 304);
            let length = message::length(&section).unwrap_or_default();
            stream.length_left = length.filter(|_| !says_nothing);
        }
        stream.heads.push_back(Waiting { section, status, is_too_large });
        stream.wake();
    }

    /// Resets a stream for a fault of the peer's (RFC 9113 §5.4.2).
    pub(super) fn spoil(&mut self, key: Key, reason: Reason) {
        self.guard.faulty();
        self.guard.answer();
        self.reset(key, reason);
        self.discard(key);
        if let Some(stream) = self.streams.get_mut(key) {
            stream.fault.get_or_insert(Fault::Malformed);
            stream.wake();
        }
    }

    /// Whether the frame may come now: within a field block only the block goes on.
    pub(super) fn check_order(&self, head: FrameHead) -> Result<(), Reason> {
        let is_in_order = match &self.block {
            Some(block) => head.kind == kind::CONTINUATION && head.id == block.id,
            None => head.kind != kind::CONTINUATION,
        };
        // RFC 9113 §3.4: settings come first.
        let is_first = self.is_settled || head.kind == kind::SETTINGS && !head.has(flag::ACK);
        if is_in_order && is_first { Ok(()) } else { Err(Reason::PROTOCOL_ERROR) }
    }
}
