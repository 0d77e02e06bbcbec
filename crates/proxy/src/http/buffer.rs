//! Bytes on their way: read from one side, judged, written to the other.

use std::{
    io,
    ops::Range,
    pin::Pin,
    task::{Context, Poll, ready},
};

use tokio::io::{AsyncRead as _, AsyncWrite as _, ReadBuf};

use crate::{conn::Io, worker::BUFFER_BYTES};

/// What a buffer grows to for a transfer that fills it: fewer calls for long bodies, and room for
/// the longest head.
pub(super) const BUFFER_BYTES_MAX: usize = 64 * 1024;

/// Bytes read from one side.
///
/// ```text
///   start ──── ready ──── end ──── capacity
///     └ to be written └ not judged yet
/// ```
#[derive(Debug, Default)]
pub(super) struct Buffer {
    bytes: Vec<u8>,
    start: usize,
    ready: usize,
    end: usize,
}

impl Buffer {
    /// Bytes that nobody has judged yet.
    pub(super) fn unread(&self) -> &[u8] {
        &self.bytes[self.ready..self.end]
    }

    /// Bytes that may be written to the other side.
    pub(super) fn ready(&self) -> &[u8] {
        &self.bytes[self.start..self.ready]
    }

    pub(super) fn is_empty(&self) -> bool {
        self.start == self.end
    }

    /// Declares the next bytes ready to be written, without those of `dropped` among them.
    pub(super) fn mark(&mut self, len: usize, dropped: Range<usize>) {
        let gone = dropped.len();
        if gone > 0 {
            let from = self.ready + dropped.end;
            self.bytes.copy_within(from..self.end, self.ready + dropped.start);
            self.end -= gone;
        }
        self.ready += len - gone;
    }

    /// Forgets the next unread bytes: they have been taken over.
    pub(super) fn skip(&mut self, len: usize) {
        debug_assert_eq!(self.start, self.ready, "nothing may be waiting before what is skipped");
        self.ready += len;
        self.start = self.ready;
    }

    /// Forgets what was ready: nobody is there to take it.
    pub(super) fn discard_ready(&mut self) {
        self.start = self.ready;
    }

    /// Forgets ready bytes: they have been written.
    pub(super) fn consume(&mut self, len: usize) {
        self.start += len;
        debug_assert!(self.start <= self.ready, "only ready bytes are written");
    }

    pub(super) fn clear(&mut self) {
        (self.start, self.ready, self.end) = (0, 0, 0);
    }

    /// Puts bytes in front of what will be read.
    pub(super) fn extend(&mut self, bytes: &[u8]) {
        self.clear();
        let room = bytes.len().max(BUFFER_BYTES);
        self.bytes.resize(room, 0);
        self.bytes[..bytes.len()].copy_from_slice(bytes);
        self.end = bytes.len();
    }

    /// Keeps bytes that are ready and could not be written at once; there must be none before them.
    pub(super) fn hold(&mut self, bytes: &[u8]) {
        self.extend(bytes);
        self.ready = self.end;
    }

    pub(super) fn has_room(&self) -> bool {
        self.end - self.start < self.bytes.len().max(1)
    }

    /// Makes room for a head that does not fit. False when the buffer is as large as it may be.
    pub(super) fn grow(&mut self) -> bool {
        let wanted = (self.bytes.len() * 2).clamp(BUFFER_BYTES, BUFFER_BYTES_MAX);
        let grows = wanted > self.bytes.len();
        if grows {
            self.bytes.resize(wanted, 0);
        }
        grows
    }

    /// Makes room for so many bytes in all, and for no more than that.
    pub(super) fn grow_to(&mut self, most: usize) -> bool {
        let wanted = (self.bytes.len() * 2).clamp(BUFFER_BYTES, most.max(BUFFER_BYTES));
        let grows = wanted > self.bytes.len();
        if grows {
            self.bytes.resize(wanted, 0);
        }
        grows
    }

    /// Whether it has grown beyond its usual size.
    pub(super) fn is_large(&self) -> bool {
        self.bytes.len() > BUFFER_BYTES
    }

    /// Reads once. `Ok(0)` is the end; there must be room.
    pub(super) fn poll_fill(
        &mut self,
        cx: &mut Context<'_>,
        io: &mut Io,
    ) -> Poll<io::Result<usize>> {
        if self.bytes.is_empty() {
            self.bytes.resize(BUFFER_BYTES, 0);
        }
        if self.start == self.end {
            self.clear();
        } else if self.end == self.bytes.len() && self.start > 0 {
            self.bytes.copy_within(self.start..self.end, 0);
            self.end -= self.start;
            self.ready -= self.start;
            self.start = 0;
        }
        let mut room = ReadBuf::new(&mut self.bytes[self.end..]);
        ready!(Pin::new(io).poll_read(cx, &mut room))?;
        let len = room.filled().len();
        self.end += len;
        Poll::Ready(Ok(len))
    }

    /// Writes ready bytes once.
    pub(super) fn poll_drain(
        &mut self,
        cx: &mut Context<'_>,
        io: &mut Io,
    ) -> Poll<io::Result<usize>> {
        self.poll_drain_by(cx, io, |_| {})
    }

    /// Writes ready bytes once; `saw` sees those that were written.
    pub(super) fn poll_drain_by(
        &mut self,
        cx: &mut Context<'_>,
        io: &mut Io,
        saw: impl FnOnce(&[u8]),
    ) -> Poll<io::Result<usize>> {
        let written = ready!(Pin::new(io).poll_write(cx, self.ready()))?;
        if written == 0 {
            return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
        }
        saw(&self.ready()[..written]);
        self.consume(written);
        Poll::Ready(Ok(written))
    }
}

/// Bytes made here, on their way out.
#[derive(Debug, Default)]
pub(super) struct Outgoing {
    pub(super) bytes: Vec<u8>,
    at: usize,
}

impl Outgoing {
    pub(super) fn is_sent(&self) -> bool {
        self.at == self.bytes.len()
    }

    pub(super) fn clear(&mut self) {
        self.bytes.clear();
        self.at = 0;
    }

    /// Overwrites what was there once all of it has been sent, or will not be.
    pub(super) fn wipe(&mut self) {
        zeroize::Zeroize::zeroize(&mut self.bytes);
        self.at = 0;
    }

    /// Writes once; there must be something to write.
    pub(super) fn poll_drain(
        &mut self,
        cx: &mut Context<'_>,
        io: &mut Io,
    ) -> Poll<io::Result<usize>> {
        let written = ready!(Pin::new(io).poll_write(cx, &self.bytes[self.at..]))?;
        if written == 0 {
            return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
        }
        self.at += written;
        Poll::Ready(Ok(written))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dropped_bytes_are_neither_ready_nor_unread() {
        let mut buffer = Buffer::default();
        buffer.extend(b"headDATAdropTAILnext");
        buffer.skip(4);
        buffer.mark(12, 4..8);
        assert_eq!((buffer.ready(), buffer.unread()), (&b"DATATAIL"[..], &b"next"[..]));
        buffer.consume(8);
        buffer.skip(4);
        assert!(buffer.is_empty());
    }
}
