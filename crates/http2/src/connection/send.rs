//! What goes to the peer: heads, data, ends.

use std::task::{Poll, Waker};

use super::{Connection, Key, wait};
use crate::{
    Fault, Role,
    frame::{FrameHead, HEAD_BYTES, flag, kind},
    hpack::{Encoder, Indexing},
    limits::{FRAME_BYTES_MAX, OUT_BYTES_MAX, PIECE_BYTES_MAX, STREAM_ID_MAX},
    stream::Stream,
};

/// Where the fields of a head go, pseudo-header fields first.
pub struct HeadWriter<'c> {
    encoder: &'c mut Encoder,
    out: &'c mut Vec<u8>,
}

impl HeadWriter<'_> {
    /// Adds a field, whose name has no upper case.
    #[inline]
    pub fn add(&mut self, name: &[u8], value: &[u8], indexing: Indexing) {
        self.encoder.encode(name, value, indexing, self.out);
    }
}

impl Connection {
    /// Begins a stream with a request's head. `is_head` says that its method is HEAD. For clients.
    ///
    /// # Errors
    ///
    /// [`Fault::Refused`] when the connection takes no new streams.
    pub fn open(
        &mut self,
        is_head: bool,
        ends: bool,
        write: impl FnOnce(&mut HeadWriter<'_>),
    ) -> Result<Key, Fault> {
        let id = self.next_id;
        if self.role != Role::Client || !self.is_usable() || id > STREAM_ID_MAX {
            return Err(Fault::Refused);
        }
        self.next_id += 2;
        let key = self.streams.insert(id, self.stream_window, self.theirs.stream_window);
        self.guard.begun();
        if let Some(stream) = self.streams.get_mut(key) {
            stream.is_to_head = is_head;
        }
        self.send_head(key, ends, write)?;
        Ok(key)
    }

    /// Sends a head, of a response or of trailers; whether our half ends with it.
    ///
    /// # Errors
    ///
    /// A [`Fault`] when the stream takes nothing more.
    pub fn send_head(
        &mut self,
        key: Key,
        ends: bool,
        write: impl FnOnce(&mut HeadWriter<'_>),
    ) -> Result<(), Fault> {
        sendable(self.streams.get_mut(key))?.is_sent = ends;
        let out = &mut self.out.bytes;
        let at = out.len();
        let mut head =
            FrameHead { len: 0, kind: kind::HEADERS, flags: flag::END_HEADERS, id: key.id };
        if ends {
            head.flags |= flag::END_STREAM;
        }
        head.write(out);
        write(&mut HeadWriter { encoder: &mut self.encoder, out });
        head.len = out.len() - at - HEAD_BYTES;
        if head.len > FRAME_BYTES_MAX {
            cut(head, at, out);
        } else if let Some(place) = out.get_mut(at..at + HEAD_BYTES) {
            place.copy_from_slice(&head.bytes());
        }
        Ok(())
    }

    /// How many bytes of data may be sent now: more than none, and perhaps fewer than wanted.
    pub fn poll_room(
        &mut self,
        key: Key,
        wanted: usize,
        waker: &Waker,
    ) -> Poll<Result<usize, Fault>> {
        let room = OUT_BYTES_MAX.saturating_sub(self.out.len()).min(PIECE_BYTES_MAX);
        let stream = match sendable(self.streams.get_mut(key)) {
            Ok(stream) => stream,
            Err(fault) => return Poll::Ready(Err(fault)),
        };
        let window = stream.send_window.min(self.send_window).max(0);
        let room = usize::try_from(window).unwrap_or(0).min(room).min(wanted);
        if room > 0 {
            return Poll::Ready(Ok(room));
        }
        if stream.send_window > 0 && !std::mem::replace(&mut stream.is_waiting, true) {
            self.waiting.push_back(key);
        }
        wait(stream, waker)
    }

    /// Sends data, no more than there is room for; whether our half ends with it.
    ///
    /// # Errors
    ///
    /// A [`Fault`] when the stream takes nothing more.
    pub fn send_data(&mut self, key: Key, data: &[u8], ends: bool) -> Result<(), Fault> {
        let stream = sendable(self.streams.get_mut(key))?;
        let len = data.len() as i64;
        if len > stream.send_window.max(0) || len > self.send_window.max(0) {
            // Its owner has not asked.
            return Err(Fault::Gone);
        }
        stream.send_window -= len;
        stream.is_sent = ends;
        self.send_window -= len;
        self.guard.carried(data.len());
        let out = &mut self.out.bytes;
        out.reserve(data.len() + HEAD_BYTES * (1 + data.len() / FRAME_BYTES_MAX));
        let mut left = data;
        loop {
            let (part, rest) = left.split_at(left.len().min(FRAME_BYTES_MAX));
            let flags = if ends && rest.is_empty() { flag::END_STREAM } else { 0 };
            FrameHead { len: part.len(), kind: kind::DATA, flags, id: key.id }.write(out);
            out.extend_from_slice(part);
            left = rest;
            if left.is_empty() {
                return Ok(());
            }
        }
    }
}

/// A stream on which frames may still go.
fn sendable(stream: Option<&mut Stream>) -> Result<&mut Stream, Fault> {
    let stream = stream.ok_or(Fault::Gone)?;
    match stream.fault {
        Some(fault) => Err(fault),
        None if stream.is_reset || stream.is_sent => Err(Fault::Gone),
        None => Ok(stream),
    }
}

/// Writes a field block anew that does not fit into one frame.
fn cut(mut head: FrameHead, at: usize, out: &mut Vec<u8>) {
    let block = out.split_off(at + HEAD_BYTES);
    out.truncate(at);
    let last = block.len().div_ceil(FRAME_BYTES_MAX) - 1;
    for (place, part) in block.chunks(FRAME_BYTES_MAX).enumerate() {
        head.len = part.len();
        head.flags &= !flag::END_HEADERS;
        if place == last {
            head.flags |= flag::END_HEADERS;
        }
        head.write(out);
        out.extend_from_slice(part);
        head.kind = kind::CONTINUATION;
        head.flags = 0;
    }
}
