//! Finds the end of a head, remembering what has been searched.

use std::ops::Range;

use memchr::memchr;

use crate::{HeadError, Limits, bytes::is_token_byte};

/// Whose head is being read; the first line differs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Side {
    Request,
    Response,
}

/// How far a head has been searched, so that a slow sender cannot make us search twice.
///
/// Belongs to the bytes from the start of one head; reset by a finished parse.
#[derive(Clone, Copy, Debug, Default)]
pub struct Scan {
    /// Where the message starts: 2 when one empty line came first.
    start: usize,
    /// Where the current line starts.
    line: usize,
    /// Bytes searched for a line end.
    seen: usize,
    /// Complete lines since `start`.
    lines: usize,
}

impl Scan {
    /// Whether nothing has been searched yet.
    pub(crate) fn is_fresh(&self) -> bool {
        self.seen == 0
    }

    /// Returns where the head lies in `input` (empty line included) once all of it is there.
    ///
    /// The verdict depends on the bytes alone, not on how they were split into reads.
    pub(crate) fn find(
        &mut self,
        side: Side,
        input: &[u8],
        limits: &Limits,
    ) -> Result<Option<Range<usize>>, HeadError> {
        while let Some(at) = memchr(b'\n', &input[self.seen..]) {
            let line_feed = self.seen + at;
            self.check_room(line_feed + 1, limits)?;
            self.check_first_byte(side, input)?;
            if line_feed == self.line || input[line_feed - 1] != b'\r' {
                return Err(HeadError::BareLineFeed);
            }
            let line = &input[self.line..line_feed - 1];
            self.seen = line_feed + 1;
            self.line = self.seen;
            match (line.is_empty(), self.lines) {
                // RFC 9112 §2.2: a server SHOULD ignore at least one empty line (CRLF) received
                // prior to the request-line. We ignore one.
                (true, 0) if self.start == 0 && side == Side::Request => self.start = self.seen,
                (true, 0) => return Err(HeadError::LeadingEmptyLines),
                (true, _) => return Ok(Some(self.start..self.seen)),
                (false, 0) => self.first_line(side, line, limits)?,
                (false, _) => self.field_line(line, limits)?,
            }
        }
        self.seen = input.len();
        self.check_room(self.seen, limits)?;
        self.check_first_byte(side, input)?;
        Ok(None)
    }

    fn check_room(&self, end: usize, limits: &Limits) -> Result<(), HeadError> {
        // The line end does not count.
        if self.lines == 0 && end - self.start > limits.start_line_bytes_max + 2 {
            return Err(HeadError::StartLineTooLong);
        }
        if end - self.start > limits.head_bytes_max { Err(HeadError::TooLarge) } else { Ok(()) }
    }

    /// Refuses at once what is not HTTP, instead of waiting for a line end.
    fn check_first_byte(&self, side: Side, input: &[u8]) -> Result<(), HeadError> {
        if self.lines > 0 {
            return Ok(());
        }
        match (side, input.get(self.start)) {
            (_, None | Some(b'\r' | b'\n')) | (Side::Response, Some(b'H')) => Ok(()),
            (Side::Request, Some(byte)) if is_token_byte(*byte) => Ok(()),
            (_, Some(_)) => Err(HeadError::NotHttp),
        }
    }

    fn first_line(&mut self, side: Side, line: &[u8], limits: &Limits) -> Result<(), HeadError> {
        self.lines = 1;
        if line.len() > limits.start_line_bytes_max {
            return Err(HeadError::StartLineTooLong);
        }
        match side {
            Side::Request => check_request_line(line),
            Side::Response if line.starts_with(b"HTTP/1.1 ") || line.starts_with(b"HTTP/1.0 ") => {
                Ok(())
            }
            Side::Response => Err(HeadError::Version),
        }
    }

    fn field_line(&mut self, line: &[u8], limits: &Limits) -> Result<(), HeadError> {
        self.lines += 1;
        if matches!(line[0], b' ' | b'\t') {
            return Err(HeadError::FoldedLine);
        }
        if self.lines - 1 > limits.fields_max.min(crate::FIELDS_MAX) {
            return Err(HeadError::TooManyFields);
        }
        Ok(())
    }
}

/// Checks the version at the end of a request line; the rest is httparse's.
fn check_request_line(line: &[u8]) -> Result<(), HeadError> {
    if line.starts_with(b"PRI * HTTP/2") {
        return Err(HeadError::Http2Preface);
    }
    let Some(space) = memchr::memrchr(b' ', line) else {
        return Err(HeadError::StartLine);
    };
    match &line[space + 1..] {
        b"HTTP/1.1" | b"HTTP/1.0" => Ok(()),
        version if version.starts_with(b"HTTP/") => Err(HeadError::Version),
        _ => Err(HeadError::StartLine),
    }
}
