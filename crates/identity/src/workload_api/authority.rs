//! Mends the `:authority` that gRPC clients make of a socket's path, which the HTTP/2 library refuses.
//!
//! In:    a client's bytes on a unix socket.
//! Out:   the same bytes, of the same length; in that one value, what no authority may hold is a `-`.
//! Never: touches anything but that value. Nothing here goes by an authority: there is one service.
//!
//! gRPC's C core (Python, C++, Ruby) sends the path with each `/` as `%2F` (grpc#38142), written out
//! (RFC 7541 §6.2.1, a new name, no Huffman code). RFC 3986 §3.2.2 would allow it; the `http` crate does
//! not. As the length stays, the compression table of the connection stays right.

use std::{
    io,
    pin::Pin,
    task::{Context, Poll},
};

use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::UnixStream,
};
use tonic::transport::server::{Connected, UdsConnectInfo};

/// The client's first bytes (RFC 9113 §3.4).
const PREFACE_BYTES: usize = 24;
/// RFC 9113 §4.1.
const FRAME_HEAD_BYTES: usize = 9;
/// RFC 9113 §6.2 and §6.10.
const HEADERS: u8 = 1;
const CONTINUATION: u8 = 9;
/// A literal with a new name, and that name.
const MARK: &[u8] = b"\x40\x0a:authority";
/// What does not fit the first byte of a length (RFC 7541 §5.1).
const LENGTH_MORE: usize = 0x7f;
/// Longest length that is followed: a socket's path is shorter.
const LENGTH_SHIFT_MAX: u32 = 14;

/// A connection with a client of the Workload API.
#[derive(Debug)]
pub(crate) struct Mended {
    socket: UnixStream,
    reader: Reader,
}

impl Mended {
    pub(crate) fn new(socket: UnixStream) -> Self {
        Self { socket, reader: Reader::default() }
    }
}

/// Where in the client's bytes we are.
#[derive(Debug)]
struct Reader {
    place: Place,
    value: Value,
}

#[derive(Debug)]
enum Place {
    Preface { left: usize },
    Head { read: usize, length: usize, kind: u8 },
    Payload { left: usize, has_fields: bool },
}

/// How far the value in question is.
#[derive(Debug)]
enum Value {
    Sought { matched: usize },
    Length,
    LengthGoesOn { sum: usize, shift: u32 },
    Inside { left: usize },
}

const START: Place = Place::Head { read: 0, length: 0, kind: 0 };
const SOUGHT: Value = Value::Sought { matched: 0 };

impl Default for Reader {
    fn default() -> Self {
        Self { place: Place::Preface { left: PREFACE_BYTES }, value: SOUGHT }
    }
}

impl Reader {
    fn mend(&mut self, bytes: &mut [u8]) {
        for byte in bytes {
            self.place = match std::mem::replace(&mut self.place, START) {
                Place::Preface { left: 1 } => START,
                Place::Preface { left } => Place::Preface { left: left - 1 },
                Place::Head { read, length, kind } => match read {
                    0..3 => {
                        let length = length << 8 | usize::from(*byte);
                        Place::Head { read: read + 1, length, kind }
                    }
                    3 => Place::Head { read: 4, length, kind: *byte },
                    _ if read + 1 < FRAME_HEAD_BYTES => {
                        Place::Head { read: read + 1, length, kind }
                    }
                    _ if length == 0 => START,
                    _ => {
                        let has_fields = kind == HEADERS || kind == CONTINUATION;
                        Place::Payload { left: length, has_fields }
                    }
                },
                Place::Payload { left, has_fields } => {
                    if has_fields {
                        self.field_byte(byte);
                    }
                    if left == 1 { START } else { Place::Payload { left: left - 1, has_fields } }
                }
            };
        }
    }

    /// One byte of a block of fields.
    fn field_byte(&mut self, byte: &mut u8) {
        let of_length = |length| if length == 0 { SOUGHT } else { Value::Inside { left: length } };
        self.value = match self.value {
            Value::Sought { matched } if *byte == MARK[matched] => {
                if matched + 1 == MARK.len() {
                    Value::Length
                } else {
                    Value::Sought { matched: matched + 1 }
                }
            }
            Value::Sought { .. } => Value::Sought { matched: usize::from(*byte == MARK[0]) },
            // With Huffman's code: who writes so writes `localhost`.
            Value::Length if *byte & 0x80 != 0 => SOUGHT,
            Value::Length if usize::from(*byte) == LENGTH_MORE => {
                Value::LengthGoesOn { sum: LENGTH_MORE, shift: 0 }
            }
            Value::Length => of_length(usize::from(*byte)),
            Value::LengthGoesOn { shift, .. } if shift > LENGTH_SHIFT_MAX => SOUGHT,
            Value::LengthGoesOn { sum, shift } => {
                let sum = sum + (usize::from(*byte & 0x7f) << shift);
                if *byte & 0x80 == 0 {
                    of_length(sum)
                } else {
                    Value::LengthGoesOn { sum, shift: shift + 7 }
                }
            }
            Value::Inside { left } => {
                if !byte.is_ascii_alphanumeric() && !b".-_~".contains(byte) {
                    *byte = b'-';
                }
                of_length(left - 1)
            }
        };
    }
}

impl Connected for Mended {
    type ConnectInfo = UdsConnectInfo;

    fn connect_info(&self) -> Self::ConnectInfo {
        self.socket.connect_info()
    }
}

impl AsyncRead for Mended {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buf.filled().len();
        let polled = Pin::new(&mut self.socket).poll_read(cx, buf);
        if let Poll::Ready(Ok(())) = polled {
            self.reader.mend(&mut buf.filled_mut()[before..]);
        }
        polled
    }
}

impl AsyncWrite for Mended {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.socket).poll_write(cx, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.socket).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.socket).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frame(kind: u8, payload: &[u8]) -> Vec<u8> {
        let length = u32::try_from(payload.len()).unwrap().to_be_bytes();
        [&length[1..], &[kind, 4, 0, 0, 0, 1], payload].concat()
    }

    /// What is read of these frames, in pieces of each size; all must agree.
    #[track_caller]
    fn check(frames: &[Vec<u8>], expected: &[Vec<u8>]) {
        let preface = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_vec();
        let whole = |frames: &[Vec<u8>]| [preface.clone(), frames.concat()].concat();
        let expected = whole(expected);
        for size in 1..64 {
            let mut bytes = whole(frames);
            let mut reader = Reader::default();
            bytes.chunks_mut(size).for_each(|piece| reader.mend(piece));
            assert_eq!(bytes, expected, "in pieces of {size}");
        }
    }

    fn authority(value: &str) -> Vec<u8> {
        let mut text = b"\x83\x40\x0a:authority".to_vec();
        match value.len() {
            short @ 0..127 => text.push(u8::try_from(short).unwrap()),
            long => text.extend([127, u8::try_from(long - 127).unwrap()]),
        }
        [&text[..], value.as_bytes(), b"\x86"].concat()
    }

    #[test]
    fn the_path_of_a_socket_becomes_an_authority_of_the_same_length() {
        let long = "%2F".repeat(60);
        for (sent, read) in [
            ("tmp%2Ft.sock", "tmp-2Ft.sock"),
            ("/run/x.sock", "-run-x.sock"),
            ("localhost", "localhost"),
            ("", ""),
            (&long, &long.replace('%', "-")),
        ] {
            let settings = frame(4, &[0, 3, 0, 0, 0, 1]);
            let frames =
                |value| vec![settings.clone(), frame(1, &authority(value)), frame(0, b"%%")];
            check(&frames(sent), &frames(read));
        }
    }

    #[test]
    fn nothing_else_is_touched() {
        let data = frame(0, &authority("a%b"));
        check(std::slice::from_ref(&data), std::slice::from_ref(&data));
        let other = frame(1, b"\x40\x0a:authoritx\x03a%b");
        check(std::slice::from_ref(&other), std::slice::from_ref(&other));
        let huffman = frame(1, b"\x40\x0a:authority\x83a%b");
        check(std::slice::from_ref(&huffman), std::slice::from_ref(&huffman));
        let absurd = frame(1, b"\x40\x0a:authority\x7f\xff\xff\xff\xff\xff%%%");
        check(std::slice::from_ref(&absurd), std::slice::from_ref(&absurd));
    }
}
