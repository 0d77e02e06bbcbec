//! One connection: its streams, windows, tables and state.
//!
//! In:    bytes of the peer by [`Connection::feed`]; what the owner sends, by stream.
//! Out:   streams that the peer begins, what comes on each, bytes for the peer.
//! Never: waits. Who finds nothing leaves a waker and is told when there is something.

mod fields;
mod receive;
mod send;

use std::{
    collections::VecDeque,
    task::{Poll, Waker},
};

use bytes::Bytes;

use crate::{
    Fault, Key, Options, Reason, Role,
    frame::{self, PREFACE},
    guard::Guard,
    hpack::{Decoder, Encoder, Section, TABLE_BYTES_DEFAULT},
    limits::{
        OUT_BYTES_MAX, RESETS_KEPT_MAX, SECTION_KEPT_BYTES, SECTIONS_KEPT_MAX, STREAM_ID_MAX,
        WINDOW_DEFAULT,
    },
    settings::Theirs,
    stream::{Output, Phase, Store, Stream},
};
use fields::Block;
use receive::Reader;
pub use send::HeadWriter;

/// The payload of the ping by which a drain learns that its announcement has arrived.
const DRAIN_PING: [u8; 8] = *b"draining";

/// The payload of pings that the owner asks for.
const OWN_PING: [u8; 8] = *b"are-you?";

/// Streams whose regular end is remembered, to tell a late frame from one of a stream never used.
const ENDS_KEPT: usize = 16;

/// How the connection stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Life {
    Open,
    /// The first GOAWAY of a drain has been sent.
    Draining,
    /// No stream is begun any more.
    Drained,
    /// We have ended it because of this.
    Failed(Reason),
    /// The transport has ended.
    Lost,
}

/// A request that has come.
#[derive(Debug)]
pub struct Accepted {
    /// Its stream, to be released by [`Connection::release`].
    pub key: Key,
    /// Its fields, those up to the limit when it is too large.
    pub section: Section,
    /// Whether nothing follows.
    pub ends: bool,
    /// Whether its fields are more than allowed.
    pub is_too_large: bool,
}

/// A response's head.
#[derive(Debug)]
pub struct Head {
    /// Its fields.
    pub section: Section,
    /// Its status, from 100 on.
    pub status: u16,
    /// Whether nothing follows.
    pub ends: bool,
}

/// What came next of a body.
#[derive(Debug)]
pub enum Part {
    /// Content, never empty; whether it is the last of the message.
    Data(Bytes, bool),
    /// The end, with trailers or without.
    End(Option<Section>),
}

/// One connection of HTTP/2, at either end.
pub struct Connection {
    role: Role,
    options: Options,
    theirs: Theirs,
    life: Life,
    streams: Store,
    accepted: VecDeque<Key>,
    /// Streams that wait for the connection's window or for room in the output.
    waiting: VecDeque<Key>,
    reader: Reader,
    block: Option<Block>,
    decoder: Decoder,
    encoder: Encoder,
    /// What the peer may still send.
    window: i64,
    /// What has been used and the peer has not been told of.
    owed: u32,
    /// The window that streams of the peer have: until it knows our settings, the default.
    stream_window: i64,
    /// What we may still send.
    send_window: i64,
    /// The last stream that the peer has begun.
    last_id: u32,
    /// The next stream that we begin.
    next_id: u32,
    /// Whether the peer's settings have come.
    is_settled: bool,
    /// Whether the peer has said that it takes no new streams.
    is_sent_away: bool,
    /// Streams that we have reset, the last ones.
    resets: VecDeque<u32>,
    ends: VecDeque<u32>,
    pongs: u64,
    guard: Guard,
    out: Output,
    /// Sections for the next heads.
    spare: Vec<Section>,
}

impl std::fmt::Debug for Connection {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Connection")
            .field("role", &self.role)
            .field("life", &self.life)
            .field("streams", &self.streams.len())
            .finish_non_exhaustive()
    }
}

impl Connection {
    /// A connection whose first bytes wait to be written.
    #[must_use]
    pub fn new(role: Role, options: Options) -> Self {
        let mut out = Output::default();
        if role == Role::Client {
            out.bytes.extend_from_slice(PREFACE);
        }
        options.write(role, &mut out.bytes);
        let window = options.connection_window();
        if window > WINDOW_DEFAULT {
            frame::write_window_update(0, (window - WINDOW_DEFAULT) as u32, &mut out.bytes);
        }
        Self {
            role,
            options,
            theirs: Theirs::at_first(role),
            life: Life::Open,
            streams: Store::default(),
            accepted: VecDeque::new(),
            waiting: VecDeque::new(),
            reader: Reader::new(role),
            block: None,
            decoder: Decoder::new(TABLE_BYTES_DEFAULT as usize),
            encoder: Encoder::new(),
            window,
            owed: 0,
            stream_window: WINDOW_DEFAULT,
            send_window: WINDOW_DEFAULT,
            last_id: 0,
            next_id: 1,
            is_settled: false,
            is_sent_away: false,
            resets: VecDeque::new(),
            ends: VecDeque::new(),
            pongs: 0,
            guard: Guard::default(),
            out,
            spare: Vec::new(),
        }
    }

    /// The next request that has come. For servers.
    pub fn accept(&mut self) -> Option<Accepted> {
        loop {
            let key = self.accepted.pop_front()?;
            let Some(stream) = self.streams.get_mut(key) else { continue };
            let Some(head) = stream.heads.pop_front() else { continue };
            let ends =
                stream.phase == Phase::Ended && stream.data.is_empty() && stream.trailers.is_none();
            let (section, is_too_large) = (head.section, head.is_too_large);
            return Some(Accepted { key, section, ends, is_too_large });
        }
    }

    /// Takes a section back whose fields have been read.
    pub fn give_back(&mut self, mut section: Section) {
        if self.spare.len() < SECTIONS_KEPT_MAX && section.bytes().len() <= SECTION_KEPT_BYTES {
            section.clear();
            self.spare.push(section);
        }
    }

    /// The next head of a response, interim ones too. For clients.
    pub fn poll_head(&mut self, key: Key, waker: &Waker) -> Poll<Result<Head, Fault>> {
        let Some(stream) = self.streams.get_mut(key) else { return Poll::Ready(Err(Fault::Gone)) };
        if let Some(head) = stream.heads.pop_front() {
            let ends = head.status >= 200
                && stream.phase == Phase::Ended
                && stream.data.is_empty()
                && stream.trailers.is_none();
            let (section, status) = (head.section, head.status);
            return Poll::Ready(Ok(Head { section, status, ends }));
        }
        wait(stream, waker)
    }

    /// What comes next of a body. Not to be asked after the last part.
    pub fn poll_part(&mut self, key: Key, waker: &Waker) -> Poll<Result<Part, Fault>> {
        let Some(stream) = self.streams.get_mut(key) else { return Poll::Ready(Err(Fault::Gone)) };
        let has_ended = stream.phase == Phase::Ended;
        if !stream.data.is_empty() {
            let data = Bytes::from(std::mem::take(&mut stream.data));
            let is_last = has_ended && stream.trailers.is_none();
            return Poll::Ready(Ok(Part::Data(data, is_last)));
        }
        if has_ended {
            return Poll::Ready(Ok(Part::End(stream.trailers.take())));
        }
        wait(stream, waker)
    }

    /// Ready when the stream has been reset or the connection has ended.
    pub fn poll_fault(&mut self, key: Key, waker: &Waker) -> Poll<Fault> {
        match self.streams.get_mut(key) {
            None => Poll::Ready(Fault::Gone),
            Some(stream) => wait::<()>(stream, waker).map(|ended| match ended {
                Ok(()) => Fault::Gone,
                Err(fault) => fault,
            }),
        }
    }

    /// Whether all of the message has been taken.
    #[must_use]
    pub fn has_ended(&self, key: Key) -> bool {
        self.streams.get(key).is_none_or(|stream| {
            stream.phase == Phase::Ended && stream.data.is_empty() && stream.trailers.is_none()
        })
    }

    /// So many bytes of a stream's data have been used: the peer may send as many more.
    pub fn used(&mut self, key: Key, len: usize) {
        self.owe(len);
        let target = self.options.stream_window();
        let Some(stream) = self.streams.get_mut(key) else { return };
        stream.owed = stream.owed.saturating_add(len as u32);
        let is_due = i64::from(stream.owed) * 2 >= target;
        if is_due && stream.phase != Phase::Ended && !stream.is_reset {
            let owed = std::mem::take(&mut stream.owed);
            stream.window += i64::from(owed);
            frame::write_window_update(key.id, owed, &mut self.out.bytes);
        }
    }

    /// The same for the connection's window.
    fn owe(&mut self, len: usize) {
        self.owed = self.owed.saturating_add(len as u32);
        if i64::from(self.owed) * 2 >= self.options.connection_window() && self.is_alive() {
            let owed = std::mem::take(&mut self.owed);
            self.window += i64::from(owed);
            frame::write_window_update(0, owed, &mut self.out.bytes);
        }
    }

    /// Forgets a stream; what is not over on it is reset.
    pub fn release(&mut self, key: Key) {
        let Some(stream) = self.streams.get_mut(key) else { return };
        let has_ended = stream.phase == Phase::Ended;
        let reason = match (self.role, stream.is_sent) {
            // RFC 9113 §8.1: the rest of the request is not needed for the response.
            (Role::Server, true) => Reason::NO_ERROR,
            _ => Reason::CANCEL,
        };
        let is_over = has_ended && stream.is_sent && !stream.is_reset;
        let is_by_peer = matches!(stream.fault, Some(Fault::Reset(_) | Fault::Refused));
        let is_waiting = stream.is_waiting;
        if is_over || is_by_peer {
            keep(&mut self.ends, key.id, ENDS_KEPT);
        } else {
            self.reset(key, reason);
        }
        if is_waiting {
            self.waiting.retain(|waiting| *waiting != key);
        }
        self.discard(key);
        self.streams.remove(key);
        if self.streams.is_empty() {
            self.accepted = VecDeque::new();
            self.waiting = VecDeque::new();
        }
    }

    /// Ends a stream in both directions.
    pub fn reset(&mut self, key: Key, reason: Reason) {
        if !self.is_alive() {
            return;
        }
        let Some(stream) = self.streams.get_mut(key) else { return };
        if !std::mem::replace(&mut stream.is_reset, true) {
            stream.is_sent = true;
            frame::write_reset(key.id, reason, &mut self.out.bytes);
            keep(&mut self.resets, key.id, RESETS_KEPT_MAX);
        }
    }

    /// Throws away what nobody will read; the other streams may have its room.
    fn discard(&mut self, key: Key) {
        let Some(stream) = self.streams.get_mut(key) else { return };
        let len = std::mem::take(&mut stream.data).len();
        if len > 0 {
            self.owe(len);
        }
    }

    /// Whether one more stream may be begun beside so many. For clients.
    #[must_use]
    pub fn has_room_for(&self, streams: usize) -> bool {
        let most = self.theirs.streams_max.min(self.options.streams_max) as usize;
        self.is_usable() && streams < most
    }

    /// Whether streams can still be begun, now or later. For clients.
    #[must_use]
    pub fn is_usable(&self) -> bool {
        self.life == Life::Open && !self.is_sent_away && self.next_id <= STREAM_ID_MAX
    }

    /// Whether no stream is open.
    #[must_use]
    pub fn is_idle(&self) -> bool {
        self.streams.is_empty()
    }

    /// Whether the peer's settings have come.
    #[must_use]
    pub fn is_settled(&self) -> bool {
        self.is_settled
    }

    /// Whether the peer takes extended CONNECT (RFC 8441).
    #[must_use]
    pub fn takes_connect_protocol(&self) -> bool {
        self.theirs.connect_protocol
    }

    /// Whether we have offered extended CONNECT.
    #[must_use]
    pub fn offers_connect_protocol(&self) -> bool {
        self.options.connect_protocol
    }

    /// Asks the peer whether it is there; [`Connection::pongs`] counts its answers.
    pub fn ping(&mut self) {
        if self.is_alive() {
            frame::write_ping(false, OWN_PING, &mut self.out.bytes);
        }
    }

    /// Answers to [`Connection::ping`].
    #[must_use]
    pub fn pongs(&self) -> u64 {
        self.pongs
    }

    /// Lets no new streams in; those that are on their way still come (RFC 9113 §6.8).
    pub fn drain(&mut self) {
        if self.life != Life::Open {
            return;
        }
        if self.role == Role::Client {
            self.life = Life::Drained;
            return frame::write_goaway(0, Reason::NO_ERROR, &mut self.out.bytes);
        }
        self.life = Life::Draining;
        frame::write_goaway(STREAM_ID_MAX, Reason::NO_ERROR, &mut self.out.bytes);
        frame::write_ping(false, DRAIN_PING, &mut self.out.bytes);
    }

    /// The transport has ended.
    pub fn lost(&mut self) {
        if self.is_alive() {
            self.life = Life::Lost;
            self.end_streams(Fault::Gone);
        }
    }

    /// Ends the connection; its peer is told why.
    pub fn fail(&mut self, reason: Reason) {
        if self.is_alive() {
            frame::write_goaway(self.last_id, reason, &mut self.out.bytes);
            self.life = Life::Failed(reason);
            self.end_streams(Fault::Malformed);
        }
    }

    /// Why we have ended the connection.
    #[must_use]
    pub fn failure(&self) -> Option<Reason> {
        match self.life {
            Life::Failed(reason) => Some(reason),
            _ => None,
        }
    }

    /// Whether nothing more comes or goes but what waits to be written.
    #[must_use]
    pub fn is_over(&self) -> bool {
        match self.life {
            Life::Open | Life::Draining => false,
            Life::Drained => self.streams.is_empty(),
            Life::Failed(_) | Life::Lost => true,
        }
    }

    fn is_alive(&self) -> bool {
        !matches!(self.life, Life::Failed(_) | Life::Lost)
    }

    fn end_streams(&mut self, fault: Fault) {
        for stream in self.streams.each() {
            stream.is_reset = true;
            stream.fault.get_or_insert(fault);
            stream.wake();
        }
    }

    /// The bytes that wait to be written.
    #[must_use]
    pub fn pending(&self) -> &[u8] {
        self.out.pending()
    }

    /// So many of them have been.
    pub fn wrote(&mut self, len: usize) {
        self.out.wrote(len, self.streams.is_empty());
        if self.out.len() == 0 {
            self.guard.all_taken();
        }
        if self.out.len() * 2 <= OUT_BYTES_MAX {
            self.wake_waiting();
        }
    }

    fn wake_waiting(&mut self) {
        while let Some(key) = self.waiting.pop_front() {
            if let Some(stream) = self.streams.get_mut(key) {
                stream.is_waiting = false;
                stream.wake();
            }
        }
    }
}

/// Leaves a waker, unless the stream has ended by a fault.
fn wait<T>(stream: &mut Stream, waker: &Waker) -> Poll<Result<T, Fault>> {
    if let Some(fault) = stream.fault {
        return Poll::Ready(Err(fault));
    }
    stream.wait(waker);
    Poll::Pending
}

/// Remembers a stream, and forgets the eldest.
fn keep(kept: &mut VecDeque<u32>, id: u32, most: usize) {
    if kept.len() >= most {
        kept.pop_front();
    }
    kept.push_back(id);
}
