//! The usual head, read in one pass.
//!
//! In:    bytes from the start of a head, the limits.
//! Out:   where its parts lie, with the fields taken over; or nothing: then [`crate::Scan`] and
//!        httparse decide, and find the error if there is one.
//! Never: takes what they would refuse, or reads anything in another way than they do.
//!
//! What is not taken here: a head that has not come as a whole, an empty line before it, a tab, a
//! blank more than the one behind the colon, an empty value, a byte outside ASCII in the first line.

use std::ops::Range;

use crate::{
    FIELDS_MAX, Fields, Known, Limits, Version,
    bytes::{colon, end_of_text, is_token_byte},
    fields::{UNKNOWN, imitates_framing},
};

/// Longest method that is read here.
const METHOD_BYTES_MAX: usize = 16;

/// Where the parts of a request line lie.
#[derive(Debug)]
pub(crate) struct RequestLine {
    pub(crate) version: Version,
    pub(crate) method_len: usize,
    pub(crate) target: Range<usize>,
    /// Bytes of the whole head.
    pub(crate) head_len: usize,
}

/// What a status line says.
#[derive(Debug)]
pub(crate) struct StatusLine {
    pub(crate) version: Version,
    pub(crate) status: u16,
    pub(crate) reason: Range<usize>,
    /// Bytes of the whole head.
    pub(crate) head_len: usize,
}

/// Reads a request's head.
pub(crate) fn request(input: &[u8], limits: &Limits, fields: &mut Fields) -> Option<RequestLine> {
    let method_len =
        input.iter().take(METHOD_BYTES_MAX).position(|byte| !byte.is_ascii_uppercase())?;
    let start = method_len + 1;
    let end = end_of_text(input, start, b'!');
    let target = input.get(start..end)?;
    let is_line = method_len > 0
        && input[method_len] == b' '
        && !target.is_empty()
        && target.is_ascii()
        && input[end..].first() == Some(&b' ');
    let after = end + 1 + b"HTTP/1.1".len();
    let version = version(input.get(end + 1..after)?)?;
    if !is_line || after > limits.start_line_bytes_max || !ends_line(input, after) {
        return None;
    }
    let head_len = take_fields(input, after + 2, limits, fields)?;
    Some(RequestLine { version, method_len, target: start..end, head_len })
}

/// Reads a response's head.
pub(crate) fn response(input: &[u8], limits: &Limits, fields: &mut Fields) -> Option<StatusLine> {
    const START: usize = b"HTTP/1.1 200 ".len();
    let line = input.first_chunk::<START>()?;
    let version = version(&line[..8])?;
    let digits = &line[9..12];
    if line[8] != b' ' || line[12] != b' ' || !digits.iter().all(u8::is_ascii_digit) {
        return None;
    }
    let status = digits.iter().fold(0, |sum, digit| sum * 10 + u16::from(digit - b'0'));
    let end = end_of_text(input, START, b' ');
    let is_line = (100..=599).contains(&status)
        && input.get(START..end)?.is_ascii()
        && end <= limits.start_line_bytes_max
        && ends_line(input, end);
    if !is_line {
        return None;
    }
    let head_len = take_fields(input, end + 2, limits, fields)?;
    Some(StatusLine { version, status, reason: START..end, head_len })
}

fn version(name: &[u8]) -> Option<Version> {
    match name {
        b"HTTP/1.1" => Some(Version::Http11),
        b"HTTP/1.0" => Some(Version::Http10),
        _ => None,
    }
}

fn ends_line(input: &[u8], at: usize) -> bool {
    input.get(at..at + 2) == Some(b"\r\n")
}

/// Reads the lines from `at` on, takes them over, and says how long the head is.
fn take_fields(input: &[u8], at: usize, limits: &Limits, fields: &mut Fields) -> Option<usize> {
    fields.clear();
    let len = read_fields(input, at, limits, fields).filter(|len| *len <= limits.head_bytes_max);
    match len {
        Some(len) => fields.take_bytes(&input[..len]),
        None => fields.clear(),
    }
    len
}

fn read_fields(input: &[u8], mut at: usize, limits: &Limits, fields: &mut Fields) -> Option<usize> {
    let mut left = limits.fields_max.min(FIELDS_MAX);
    loop {
        if ends_line(input, at) {
            return Some(at + 2);
        }
        let colon = colon(input, at)?;
        let name = &input[at..colon];
        let known = match Known::of(name) {
            Some(known) => known as u8,
            None if is_own_name(name) => UNKNOWN,
            None => return None,
        };
        let value = colon + 2;
        let end = end_of_text(input, value, b' ');
        let (first, last) = (input.get(value)?, input[end - 1]);
        let is_canonical =
            end > value && input[colon + 1] == b' ' && *first != b' ' && last != b' ';
        if !is_canonical || left == 0 || !ends_line(input, end) {
            return None;
        }
        left -= 1;
        fields.push_read(known, (at, colon), (value, end));
        at = end + 2;
    }
}

fn is_own_name(name: &[u8]) -> bool {
    !name.is_empty() && name.iter().all(|byte| is_token_byte(*byte)) && !imitates_framing(name)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Method, RequestHead, ResponseHead, Scan, bytes::NAME_BYTES_MAX};

    const REQUESTS: [&[u8]; 7] = [
        b"GET /a?b=c HTTP/1.1\r\nHost: a.example\r\nX-Own_1: v\r\n\r\nGET ",
        b"POST * HTTP/1.0\r\nhost: a\r\nContent-Length: 12\r\nconnection: close, x\r\n\r\n",
        b"CONNECT a:1 HTTP/1.1\r\nHost: a:1\r\n\r\n",
        b"GET http://a/ HTTP/1.1\r\nHost: b\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost:a\r\nA:  b\r\nC: d \r\nE:\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: a\r\ncontent_length: 1\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\nexpect: 100-continue\r\n\r\n",
    ];

    const RESPONSES: [&[u8]; 4] = [
        b"HTTP/1.1 200 OK\r\nServer: a\r\nContent-Length: 2\r\nConnection: keep-alive\r\n\r\nab",
        b"HTTP/1.0 404 Not Found\r\nset-cookie: a=b; c\r\nset-cookie: d\r\n\r\n",
        b"HTTP/1.1 204 \r\nx-y: \xff\r\n\r\n",
        b"HTTP/1.1 304\r\nEtag: \"a\"\r\n\r\n",
    ];

    /// What both ways say of the same bytes must be the same, to the last place.
    fn check(input: &[u8], limits: &Limits) -> bool {
        let (mut scan, mut head) = (Scan::default(), RequestHead::default());
        let quick = head.parse(&mut scan, input, limits);
        let (mut scan, mut slow_head) = (Scan::default(), RequestHead::default());
        let slow = slow_head.parse_slowly(&mut scan, input, limits);
        assert_eq!(quick, slow, "{}", input.escape_ascii());
        if matches!(slow, Ok(Some(_))) {
            assert_eq!(format!("{head:?}"), format!("{slow_head:?}"), "{}", input.escape_ascii());
        }
        let (mut scan, mut head) = (Scan::default(), ResponseHead::default());
        let quick = head.parse(&mut scan, input, limits, Method::Get);
        let (mut scan, mut slow_head) = (Scan::default(), ResponseHead::default());
        let slow = slow_head.parse_slowly(&mut scan, input, limits, Method::Get);
        assert_eq!(quick, slow, "{}", input.escape_ascii());
        if matches!(slow, Ok(Some(_))) {
            assert_eq!(format!("{head:?}"), format!("{slow_head:?}"), "{}", input.escape_ascii());
        }
        request(input, limits, &mut Fields::default()).is_some()
            || response(input, limits, &mut Fields::default()).is_some()
    }

    #[test]
    fn every_change_of_a_byte_is_judged_as_by_the_slow_way() {
        let limits = Limits::default();
        let mut taken = 0;
        for head in REQUESTS.iter().chain(&RESPONSES) {
            for at in 0..head.len() {
                let mut changed = head.to_vec();
                for byte in 0..=255 {
                    changed[at] = byte;
                    taken += u32::from(check(&changed, &limits));
                }
                let mut longer = head.to_vec();
                for byte in [b' ', b'\t', b'\r', b'\n', b':', b'a', b'_', 0, 0x7f, 0xff] {
                    longer.insert(at, byte);
                    taken += u32::from(check(&longer, &limits));
                    longer.remove(at);
                }
                longer.remove(at);
                check(&longer, &limits);
                check(&head[..at], &limits);
            }
        }
        assert!(taken > 25_000, "{taken}: the quick way takes the usual heads");
    }

    #[test]
    fn limits_are_those_of_the_slow_way() {
        for head in REQUESTS.iter().chain(&RESPONSES) {
            for bytes in 0..head.len() + 3 {
                check(head, &Limits { head_bytes_max: bytes, ..Limits::default() });
                check(head, &Limits { start_line_bytes_max: bytes, ..Limits::default() });
            }
            for fields in 0..5 {
                check(head, &Limits { fields_max: fields, ..Limits::default() });
            }
        }
        let long = |len: usize| {
            [b"GET / HTTP/1.1\r\nHost: a\r\n", &b"x"[..].repeat(len)[..], b": y\r\n\r\n"].concat()
        };
        for len in [NAME_BYTES_MAX - 8, NAME_BYTES_MAX, NAME_BYTES_MAX + 20] {
            check(&long(len), &Limits::default());
        }
        let many = |count| {
            let lines = "a: b\r\n".repeat(count);
            format!("GET / HTTP/1.1\r\nHost: a\r\n{lines}\r\n").into_bytes()
        };
        for count in [FIELDS_MAX - 2, FIELDS_MAX - 1, FIELDS_MAX, FIELDS_MAX + 1] {
            check(&many(count), &Limits::default());
        }
    }
}
