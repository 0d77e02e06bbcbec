//! What must hold for any bytes of an HTTP/2 connection and of its field blocks.
//!
//! In:    any bytes.
//! Out:   a panic when a promise of the engine is broken.
//! Never: judges which faults end a stream and which a connection; tables of cases do.

use std::task::{Poll, Waker};

use sluis_http2::hpack::{Decoder, Encoder, Indexing, Section};
use sluis_http2::{Connection, Key, Options, Part, Reason, RequestParts, Role};

/// What a list of fields may count here.
const LIST_BYTES_MAX: usize = 1024;
/// What may wait to be written at once: data up to the engine's bound, and for each octet that came
/// an answer. A frame of nine octets is answered by at most seventeen; one of thirteen that ends
/// the connection by its farewell.
const OUT_BYTES_MAX: usize = 128 * 1024 + 64 * 1024;
/// The largest frame that a peer without other settings takes.
const FRAME_BYTES_MAX: usize = 16_384;
const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
/// An empty SETTINGS frame.
const SETTINGS: &[u8] = &[0, 0, 0, 4, 0, 0, 0, 0, 0];
const OPTIONS: Options = Options {
    streams_max: 8,
    stream_window: 2000,
    connection_window: 70_000,
    list_bytes_max: LIST_BYTES_MAX as u32,
    connect_protocol: true,
};

/// Blocks of one connection, each behind two octets of its length. A list that is read is within the
/// limit, and comes back when it is written again.
///
/// # Panics
///
/// When that does not hold.
pub fn hpack_decode(data: &[u8]) {
    let (mut decoder, mut encoder, mut again) =
        (Decoder::new(4096), Encoder::new(), Decoder::new(4096));
    let (mut section, mut second) = (Section::new(), Section::new());
    let mut rest = data;
    while let [high, low, tail @ ..] = rest {
        let len = (usize::from(*high) << 8 | usize::from(*low)).min(tail.len());
        let (block, next) = tail.split_at(len);
        rest = next;
        match decoder.decode(block, LIST_BYTES_MAX, &mut section) {
            Ok(()) => {}
            Err(error) if error.ends_connection() => return,
            Err(_) => assert!(size(&section) <= LIST_BYTES_MAX, "a list beyond its limit"),
        }
        assert!(size(&section) <= LIST_BYTES_MAX, "a list beyond its limit");
        let mut out = Vec::new();
        for (name, value, never) in section.iter() {
            let indexing = if never { Indexing::Never } else { Indexing::Usual };
            encoder.encode(name, value, indexing, &mut out);
        }
        again.decode(&out, LIST_BYTES_MAX, &mut second).expect("what we write can be read");
        assert!(section.iter().eq(second.iter()), "a list comes back as it was");
    }
}

fn size(section: &Section) -> usize {
    section.iter().map(|(name, value, _)| name.len() + value.len() + 32).sum()
}

/// The bytes of a peer, whole and in pieces. The first octet says whose, and how large pieces are;
/// a preface and settings are put before the rest, unless it asks for none. Nothing panics; what
/// we write is frames in order; what waits is bounded; a connection fails or not however it is cut.
///
/// # Panics
///
/// When that does not hold.
pub fn http2_engine(data: &[u8]) {
    let Some((&first, rest)) = data.split_first() else { return };
    let role = if first & 1 == 0 { Role::Server } else { Role::Client };
    let mut input = Vec::new();
    if first & 2 == 0 {
        input.extend_from_slice(if role == Role::Server { PREFACE } else { b"" });
        input.extend_from_slice(SETTINGS);
    }
    input.extend_from_slice(rest);
    let piece = [1, 3, 9, 100][usize::from(first >> 2) % 4];
    let whole = fed(role, &input, input.len().max(1));
    let cut = fed(role, &input, piece);
    let is_calmed = |failure| failure == Some(Reason::ENHANCE_YOUR_CALM);
    if !is_calmed(whole) && !is_calmed(cut) {
        assert_eq!(whole, cut, "the verdict depends on reads");
    }
    served(role, &input, piece);
}

/// Feeds a connection whose owner does nothing.
fn fed(role: Role, input: &[u8], piece: usize) -> Option<Reason> {
    let mut connection = Connection::new(role, OPTIONS);
    let mut writes = Writes::new(role);
    begin(role, &mut connection);
    for bytes in input.chunks(piece) {
        connection.feed(bytes);
        assert!(connection.pending().len() <= OUT_BYTES_MAX + 16 * input.len());
    }
    writes.take(&mut connection, usize::MAX);
    writes.ended(connection.failure().is_some());
    connection.failure()
}

/// Feeds a connection whose owner answers, reads and lets go.
fn served(role: Role, input: &[u8], piece: usize) {
    let mut connection = Connection::new(role, OPTIONS);
    let mut writes = Writes::new(role);
    let mut open = begin(role, &mut connection);
    for (turn, bytes) in input.chunks(piece).enumerate() {
        connection.feed(bytes);
        while let Some(request) = connection.accept() {
            let _ = RequestParts::of(&request.section);
            assert!(size(&request.section) <= LIST_BYTES_MAX);
            connection.give_back(request.section);
            open.push(request.key);
        }
        assert!(open.len() <= OPTIONS.streams_max as usize, "more streams than offered");
        open.retain(|&key| stays(role, &mut connection, key, turn));
        assert!(connection.pending().len() <= OUT_BYTES_MAX + 16 * input.len());
        writes.take(&mut connection, 100 * (turn % 7));
    }
    for key in open {
        connection.release(key);
    }
    assert!(connection.is_idle(), "a stream stays that everybody has let go");
    writes.take(&mut connection, usize::MAX);
    writes.ended(connection.failure().is_some());
}

/// A client asks; a server has nothing to say first.
fn begin(role: Role, connection: &mut Connection) -> Vec<Key> {
    if role == Role::Server {
        return Vec::new();
    }
    let asked = (0..3).map(|number| {
        connection.open(number == 1, number != 2, |head| {
            for (name, value) in [(":method", "GET"), (":scheme", "http"), (":path", "/")] {
                head.add(name.as_bytes(), value.as_bytes(), Indexing::Usual);
            }
        })
    });
    asked.map(|key| key.expect("a new connection takes streams")).collect()
}

/// One turn of a stream's owner; whether it goes on.
fn stays(role: Role, connection: &mut Connection, key: Key, turn: usize) -> bool {
    let waker = Waker::noop();
    if role == Role::Client
        && let Poll::Ready(Ok(head)) = connection.poll_head(key, waker)
    {
        assert!(head.status >= 100 && size(&head.section) <= LIST_BYTES_MAX);
        connection.give_back(head.section);
        return true;
    }
    let ended = match connection.poll_part(key, waker) {
        Poll::Ready(Ok(Part::Data(data, is_last))) => {
            assert!(!data.is_empty());
            connection.used(key, data.len());
            is_last
        }
        Poll::Ready(Ok(Part::End(_))) => true,
        Poll::Ready(Err(_)) => {
            connection.release(key);
            return false;
        }
        Poll::Pending => turn % 50 == 49,
    };
    if role == Role::Server && turn.is_multiple_of(3) {
        let _ = connection.send_head(key, false, |head| {
            head.add(b":status", b"200", Indexing::Usual);
            head.add(b"x-turn", &[b'a' + (turn % 5) as u8], Indexing::Usual);
        });
        if let Poll::Ready(Ok(room)) = connection.poll_room(key, 40_000, waker) {
            connection.send_data(key, &vec![b'x'; room], ended).expect("there was room");
        }
    }
    if ended {
        connection.release(key);
    }
    !ended
}

/// What a connection has written, read as its peer would.
struct Writes {
    bytes: Vec<u8>,
    decoder: Decoder,
    /// Whether CONTINUATION must come next, and of which stream.
    block: Option<(u32, Vec<u8>)>,
    is_client: bool,
    has_failed: bool,
}

impl Writes {
    fn new(role: Role) -> Self {
        let is_client = role == Role::Client;
        let decoder = Decoder::new(4096);
        Self { bytes: Vec::new(), decoder, block: None, is_client, has_failed: false }
    }

    /// The owner's transport takes so much.
    fn take(&mut self, connection: &mut Connection, most: usize) {
        let pending = connection.pending();
        let len = pending.len().min(most);
        self.bytes.extend_from_slice(&pending[..len]);
        connection.wrote(len);
        if self.is_client && self.bytes.len() >= PREFACE.len() {
            assert!(self.bytes.starts_with(PREFACE));
            self.bytes.drain(..PREFACE.len());
            self.is_client = false;
        }
        while !self.is_client && self.bytes.len() >= 9 {
            let len = usize::from(self.bytes[0]) << 16
                | usize::from(self.bytes[1]) << 8
                | usize::from(self.bytes[2]);
            assert!(len <= FRAME_BYTES_MAX, "a frame larger than the peer takes");
            if self.bytes.len() < 9 + len {
                return;
            }
            let frame: Vec<u8> = self.bytes.drain(..9 + len).collect();
            self.frame(&frame);
        }
    }

    fn frame(&mut self, frame: &[u8]) {
        let (kind, flags, payload) = (frame[3], frame[4], &frame[9..]);
        let id = u32::from_be_bytes([frame[5], frame[6], frame[7], frame[8]]);
        assert!(!self.has_failed, "something follows the farewell");
        if let Some((stream, _)) = &self.block {
            assert!(kind == 9 && id == *stream, "a field block is interrupted");
        }
        match kind {
            0 | 1 | 9 => assert!(id % 2 == 1),
            3 => assert!(id != 0 && payload.len() == 4),
            4 => assert!(id == 0 && payload.len() % 6 == 0),
            6 => assert!(id == 0 && payload.len() == 8),
            7 => {
                assert!(id == 0 && payload.len() >= 8);
                self.has_failed = payload[4..8] != [0; 4];
            }
            8 => assert!(payload.len() == 4 && payload != [0; 4], "a window that grows by nothing"),
            other => panic!("we send no frame of kind {other}"),
        }
        if kind == 1 || kind == 9 {
            let mut block = self.block.take().map(|(_, block)| block).unwrap_or_default();
            block.extend_from_slice(payload);
            if flags & 4 == 0 {
                self.block = Some((id, block));
            } else {
                let read = self.decoder.decode(&block, 1 << 20, &mut Section::new());
                assert_eq!(read, Ok(()), "a field block that cannot be read");
            }
        }
    }

    /// That all was whole, and that a failure was told.
    fn ended(&self, has_failed: bool) {
        assert!(self.bytes.is_empty() && self.block.is_none(), "a frame breaks off");
        assert_eq!(self.has_failed, has_failed, "a failure is told, and nothing else is");
    }
}
