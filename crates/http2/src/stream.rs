//! Streams and where they are kept.

use std::{collections::HashMap, collections::VecDeque, task::Waker};

use foldhash::fast::RandomState;

use crate::{
    Fault,
    hpack::Section,
    limits::{BUFFER_KEPT_BYTES, IDLE_BUFFER_BYTES, SLOTS_KEPT_MAX},
};

/// A stream of one connection, as its owner names it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Key {
    pub(crate) index: u32,
    pub(crate) id: u32,
}

/// How far what the peer sends has come.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Phase {
    /// The head has not come.
    #[default]
    Head,
    /// The body is under way.
    Body,
    /// The peer has ended its half.
    Ended,
}

/// One head that waits to be read.
pub(crate) struct Waiting {
    pub(crate) section: Section,
    pub(crate) status: u16,
    pub(crate) is_too_large: bool,
}

/// One stream. Its memory is used again for the next one.
#[derive(Default)]
pub(crate) struct Stream {
    pub(crate) id: u32,
    pub(crate) phase: Phase,
    pub(crate) heads: VecDeque<Waiting>,
    pub(crate) data: Vec<u8>,
    pub(crate) trailers: Option<Section>,
    pub(crate) fault: Option<Fault>,
    /// What the peer may still send.
    pub(crate) window: i64,
    /// What has been used and the peer has not been told of.
    pub(crate) owed: u32,
    /// What is still to come by the content-length field.
    pub(crate) length_left: Option<u64>,
    /// Whether a content-length says nothing about this message: the response to HEAD.
    pub(crate) is_to_head: bool,
    /// What we may still send.
    pub(crate) send_window: i64,
    /// Whether our half has ended.
    pub(crate) is_sent: bool,
    /// Whether one of both ends has reset it: no frame goes any more.
    pub(crate) is_reset: bool,
    /// Whether it waits for the connection's window or for room in the output.
    pub(crate) is_waiting: bool,
    pub(crate) waker: Option<Waker>,
}

impl Stream {
    pub(crate) fn wake(&mut self) {
        if let Some(waker) = self.waker.take() {
            waker.wake();
        }
    }

    pub(crate) fn wait(&mut self, waker: &Waker) {
        match &mut self.waker {
            Some(known) if known.will_wake(waker) => {}
            known => *known = Some(waker.clone()),
        }
    }

    fn begin(&mut self, id: u32, window: i64, send_window: i64) {
        let heads = std::mem::take(&mut self.heads);
        *self = Self { id, heads, window, send_window, ..Self::default() };
    }
}

/// The streams that somebody holds, by place and by number.
#[derive(Default)]
pub(crate) struct Store {
    slots: Vec<Stream>,
    free: Vec<u32>,
    by_id: HashMap<u32, u32, RandomState>,
}

impl Store {
    pub(crate) fn len(&self) -> usize {
        self.by_id.len()
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.by_id.is_empty()
    }

    pub(crate) fn insert(&mut self, id: u32, window: i64, send_window: i64) -> Key {
        let index = self.free.pop().unwrap_or_else(|| {
            self.slots.push(Stream::default());
            self.slots.len() as u32 - 1
        });
        if let Some(slot) = self.slots.get_mut(index as usize) {
            slot.begin(id, window, send_window);
        }
        self.by_id.insert(id, index);
        Key { index, id }
    }

    pub(crate) fn find(&self, id: u32) -> Option<Key> {
        self.by_id.get(&id).map(|&index| Key { index, id })
    }

    pub(crate) fn get(&self, key: Key) -> Option<&Stream> {
        self.slots.get(key.index as usize).filter(|stream| stream.id == key.id)
    }

    pub(crate) fn get_mut(&mut self, key: Key) -> Option<&mut Stream> {
        self.slots.get_mut(key.index as usize).filter(|stream| stream.id == key.id)
    }

    /// Forgets a stream. Without any other, the memory of many is given back.
    pub(crate) fn remove(&mut self, key: Key) {
        if self.by_id.remove(&key.id).is_none() {
            return;
        }
        if self.by_id.is_empty() && self.slots.len() > SLOTS_KEPT_MAX {
            *self = Self::default();
        } else if let Some(slot) = self.slots.get_mut(key.index as usize) {
            let mut heads = std::mem::take(&mut slot.heads);
            heads.clear();
            *slot = Stream { heads, ..Stream::default() };
            self.free.push(key.index);
        }
    }

    pub(crate) fn each(&mut self) -> impl Iterator<Item = &mut Stream> {
        self.slots.iter_mut().filter(|stream| stream.id != 0)
    }
}

/// Bytes that wait to be written to the peer.
#[derive(Default)]
pub(crate) struct Output {
    pub(crate) bytes: Vec<u8>,
    written: usize,
}

impl Output {
    pub(crate) fn pending(&self) -> &[u8] {
        self.bytes.get(self.written..).unwrap_or_default()
    }

    pub(crate) fn len(&self) -> usize {
        self.bytes.len() - self.written
    }

    /// So many bytes have left.
    pub(crate) fn wrote(&mut self, len: usize, is_idle: bool) {
        self.written = self.bytes.len().min(self.written + len);
        if self.written == self.bytes.len() {
            self.bytes.clear();
            self.written = 0;
            let kept = if is_idle { IDLE_BUFFER_BYTES } else { BUFFER_KEPT_BYTES };
            if self.bytes.capacity() > kept {
                self.bytes = Vec::new();
            }
        } else if self.written * 2 > self.bytes.len() {
            self.bytes.drain(..self.written);
            self.written = 0;
        }
    }
}
