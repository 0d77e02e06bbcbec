//! HTTP/2 as the generator speaks it (RFC 9113): the same request on stream after stream, written
//! once and copied; of answers only the status and the end are read.

use std::time::Instant;

use crate::{Done, Failure, Wire};

const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// Streams that are open at once on a connection, where the peer allows as many.
const STREAMS_MAX: usize = 100;

/// Window of a connection before updates (RFC 9113 §6.9.2).
const WINDOW: i64 = 65_535;

/// Received bytes after which the connection's window is opened again.
const UPDATE_AFTER: u32 = 16 * 1024;

/// Largest frame that is accepted (RFC 9113 §6.5.2: what we did not change).
const FRAME_MAX: usize = 16 * 1024;

const DATA: u8 = 0;
const HEADERS: u8 = 1;
const RST_STREAM: u8 = 3;
const SETTINGS: u8 = 4;
const PING: u8 = 6;
const GOAWAY: u8 = 7;
const WINDOW_UPDATE: u8 = 8;
const END_STREAM: u8 = 1;
const END_HEADERS: u8 = 4;
const ACK: u8 = 1;
const INITIAL_WINDOW_SIZE: u16 = 4;
const MAX_CONCURRENT_STREAMS: u16 = 3;

/// `:status: 200` in HPACK's static table (RFC 7541, appendix A).
const STATUS_200: u8 = 0x88;

/// One connection.
pub(crate) struct Http2 {
    block: Vec<u8>,
    body: Vec<u8>,
    next: u32,
    open: Vec<Open>,
    window: i64,
    streams_max: usize,
    received: u32,
    buffer: Vec<u8>,
    is_closing: bool,
}

struct Open {
    stream: u32,
    due: Instant,
    /// The status, once the head is there: whether it is 200.
    is_good: Option<bool>,
}

impl Http2 {
    /// With a body of so many bytes the request is a POST. `out` gets the preface.
    pub(crate) fn new(
        path: &str,
        headers: &[(String, String)],
        body: usize,
        out: &mut Vec<u8>,
    ) -> Self {
        out.extend_from_slice(PREFACE);
        frame(out, SETTINGS, 0, 0, &[]);
        // :method GET or POST, :scheme http; :path and :authority as literals that are not indexed.
        let mut block = vec![if body == 0 { 0x82 } else { 0x83 }, 0x86, 0x04];
        string(&mut block, path);
        block.push(0x01);
        string(&mut block, "bench.local");
        for (name, value) in headers {
            block.push(0);
            string(&mut block, name);
            string(&mut block, value);
        }
        Self {
            block,
            body: vec![b'x'; body],
            next: 1,
            open: Vec::new(),
            window: WINDOW,
            streams_max: STREAMS_MAX,
            received: 0,
            buffer: Vec::new(),
            is_closing: false,
        }
    }

    fn on_frame(
        &mut self,
        (kind, flags, stream): (u8, u8, u32),
        payload: &[u8],
        out: &mut Vec<u8>,
        done: &mut Vec<Done>,
    ) -> Result<(), Failure> {
        match kind {
            DATA => {
                self.received += u32::try_from(payload.len())?;
                if self.received >= UPDATE_AFTER {
                    frame(out, WINDOW_UPDATE, 0, 0, &self.received.to_be_bytes());
                    self.received = 0;
                }
            }
            HEADERS => {
                if let Some(open) = self.open.iter_mut().find(|open| open.stream == stream) {
                    open.is_good.get_or_insert(status(payload) == Some(STATUS_200));
                }
            }
            RST_STREAM => {
                let found = self.open.iter().position(|open| open.stream == stream);
                if let Some(open) = found.map(|at| self.open.swap_remove(at)) {
                    done.push(Done { due: open.due, is_good: false });
                }
            }
            SETTINGS if flags & ACK == 0 => {
                self.settings(payload)?;
                frame(out, SETTINGS, ACK, 0, &[]);
            }
            PING if flags & ACK == 0 => frame(out, PING, ACK, 0, payload),
            GOAWAY => self.is_closing = true,
            WINDOW_UPDATE if stream == 0 => {
                self.window += i64::from(u32::from_be_bytes(payload.try_into()?) & 0x7fff_ffff);
            }
            _ => {}
        }
        if matches!(kind, DATA | HEADERS)
            && flags & END_STREAM != 0
            && let Some(at) = self.open.iter().position(|open| open.stream == stream)
        {
            let open = self.open.swap_remove(at);
            done.push(Done { due: open.due, is_good: open.is_good == Some(true) });
        }
        Ok(())
    }

    fn settings(&mut self, payload: &[u8]) -> Result<(), Failure> {
        for entry in payload.chunks_exact(6) {
            let key = u16::from_be_bytes([entry[0], entry[1]]);
            let value = u32::from_be_bytes([entry[2], entry[3], entry[4], entry[5]]);
            let value = usize::try_from(value)?;
            match key {
                INITIAL_WINDOW_SIZE if value < self.body.len() => {
                    return Err("the window of a stream is smaller than the body".into());
                }
                MAX_CONCURRENT_STREAMS => self.streams_max = value.min(STREAMS_MAX),
                _ => {}
            }
        }
        Ok(())
    }
}

impl Wire for Http2 {
    fn ask(&mut self, due: Instant, out: &mut Vec<u8>) -> bool {
        let size = i64::try_from(self.body.len()).unwrap_or(i64::MAX);
        if self.open.len() >= self.streams_max || self.window < size {
            return false;
        }
        let stream = self.next;
        self.next += 2;
        let end = if self.body.is_empty() { END_STREAM } else { 0 };
        frame(out, HEADERS, END_HEADERS | end, stream, &self.block);
        if !self.body.is_empty() {
            frame(out, DATA, END_STREAM, stream, &self.body);
            self.window -= size;
        }
        self.open.push(Open { stream, due, is_good: None });
        true
    }

    fn take(
        &mut self,
        bytes: &[u8],
        out: &mut Vec<u8>,
        done: &mut Vec<Done>,
    ) -> Result<(), Failure> {
        let mut buffer = std::mem::take(&mut self.buffer);
        buffer.extend_from_slice(bytes);
        let mut at = 0;
        while let Some(&[a, b, c, kind, flags, w, x, y, z]) = buffer.get(at..at + 9) {
            let length = usize::try_from(u32::from_be_bytes([0, a, b, c]))?;
            if length > FRAME_MAX {
                return Err("a frame is too long".into());
            }
            let Some(payload) = buffer.get(at + 9..at + 9 + length) else { break };
            let stream = u32::from_be_bytes([w, x, y, z]) & 0x7fff_ffff;
            self.on_frame((kind, flags, stream), payload, out, done)?;
            at += 9 + length;
        }
        buffer.drain(..at);
        self.buffer = buffer;
        Ok(())
    }

    fn is_closing(&self) -> bool {
        self.is_closing
    }

    fn unanswered(&mut self) -> Vec<Instant> {
        self.open.iter().map(|open| open.due).collect()
    }
}

fn frame(out: &mut Vec<u8>, kind: u8, flags: u8, stream: u32, payload: &[u8]) {
    let length = u32::try_from(payload.len()).unwrap_or(u32::MAX).to_be_bytes();
    out.extend_from_slice(&[length[1], length[2], length[3], kind, flags]);
    out.extend_from_slice(&stream.to_be_bytes());
    out.extend_from_slice(payload);
}

/// A string of HPACK without Huffman's code (RFC 7541 §5.2).
fn string(block: &mut Vec<u8>, text: &str) {
    match u8::try_from(text.len()) {
        Ok(length) if length < 127 => block.push(length),
        _ => {
            block.push(127);
            let mut rest = text.len() - 127;
            while rest >= 128 {
                block.push(u8::try_from(rest % 128).unwrap_or_default() | 0x80);
                rest /= 128;
            }
            block.push(u8::try_from(rest).unwrap_or_default());
        }
    }
    block.extend_from_slice(text.as_bytes());
}

/// The first field of a block, which is the status, after changes of the table's size.
fn status(mut block: &[u8]) -> Option<u8> {
    while let [first, rest @ ..] = block {
        if first & 0xe0 != 0x20 {
            return Some(*first);
        }
        block = rest;
        if first & 0x1f == 0x1f {
            let end = block.iter().position(|byte| byte & 0x80 == 0)?;
            block = &block[end + 1..];
        }
    }
    None
}
