//! The head of a response.

use std::mem::MaybeUninit;

use crate::request::of_httparse;
use crate::scan::{Scan, Side};
use crate::{
    Connection, FIELDS_MAX, FieldError, Fields, Framing, HeadError, Limits, Method, Upgrade,
    Version, connection, quick,
};

/// The head of one response, checked. Reused from response to response.
#[derive(Debug, Default)]
pub struct ResponseHead {
    /// The header fields.
    pub fields: Fields,
    status: u16,
    reason: (u32, u32),
    /// Whether the phrase is to be sent, and not the usual one.
    has_own_reason: bool,
    version: Version,
    framing: Framing,
    connection: Connection,
}

impl ResponseHead {
    /// Reads a head from the start of `input`, as the response to a request of `method`; returns
    /// how many bytes it took, or `None` when more are needed.
    ///
    /// # Errors
    ///
    /// Every form of [`HeadError`] that concerns responses; the connection must be closed.
    pub fn parse(
        &mut self,
        scan: &mut Scan,
        input: &[u8],
        limits: &Limits,
        method: Method,
    ) -> Result<Option<usize>, HeadError> {
        if scan.is_fresh()
            && let Some(line) = quick::response(input, limits, &mut self.fields)
        {
            self.read_line(line.status, line.version);
            self.reason = (line.reason.start as u32, line.reason.end as u32);
            self.finish(method)?;
            return Ok(Some(line.head_len));
        }
        self.parse_slowly(scan, input, limits, method)
    }

    /// The same for any head, with the reason for a refusal.
    pub(crate) fn parse_slowly(
        &mut self,
        scan: &mut Scan,
        input: &[u8],
        limits: &Limits,
        method: Method,
    ) -> Result<Option<usize>, HeadError> {
        let Some(range) = scan.find(Side::Response, input, limits)? else {
            return Ok(None);
        };
        *scan = Scan::default();
        let end = range.end;
        self.read(&input[range], method)?;
        Ok(Some(end))
    }

    pub(crate) fn read(&mut self, block: &[u8], method: Method) -> Result<(), HeadError> {
        let mut table = [const { MaybeUninit::uninit() }; FIELDS_MAX];
        let mut parsed = httparse::Response::new(&mut []);
        let config = httparse::ParserConfig::default();
        match config.parse_response_with_uninit_headers(&mut parsed, block, &mut table) {
            Ok(httparse::Status::Complete(len)) if len == block.len() => {}
            Ok(_) => return Err(HeadError::StartLine),
            Err(error) => return Err(of_httparse(error)),
        }
        let (Some(status), Some(version)) = (parsed.code, parsed.version) else {
            return Err(HeadError::StartLine);
        };
        if !(100..=599).contains(&status) {
            return Err(HeadError::Status);
        }
        self.read_line(status, if version == 0 { Version::Http10 } else { Version::Http11 });
        // `HTTP/1.1 200 ` is 13 bytes; the reason may be missing with its space.
        let line_end = memchr::memchr(b'\r', block).unwrap_or(block.len());
        self.reason = (line_end.min(13) as u32, line_end as u32);
        let place = |text: &[u8]| text.as_ptr() as usize - block.as_ptr() as usize;
        let names = parsed.headers.iter().map(|h| (place(h.name.as_bytes()), h.name.len()));
        self.fields.take_block(block, names)?;
        self.finish(method)
    }

    fn read_line(&mut self, status: u16, version: Version) {
        self.status = status;
        self.has_own_reason = false;
        self.version = version;
    }

    /// Judges what has been read.
    fn finish(&mut self, method: Method) -> Result<(), HeadError> {
        self.connection = Connection::of(&self.fields)?;
        self.framing = Framing::of_response(&mut self.fields, self.version, self.status, method)?;
        Ok(())
    }

    /// The status code, 100 to 599.
    pub fn status(&self) -> u16 {
        self.status
    }

    /// The reason phrase, which may be empty.
    pub fn reason(&self) -> &[u8] {
        self.fields.slice(self.reason)
    }

    /// The version of the message.
    pub fn version(&self) -> Version {
        self.version
    }

    /// How the body ends.
    pub fn framing(&self) -> Framing {
        self.framing
    }

    /// Says how the body ends where no field does: for messages that came by another version.
    pub(crate) fn set_framing(&mut self, framing: Framing) {
        self.framing = framing;
    }

    /// What the Connection field said.
    pub fn connection(&self) -> Connection {
        self.connection
    }

    /// Whether the connection may carry another request after this response.
    pub fn persists(&self) -> bool {
        self.framing != Framing::UntilClose && self.connection.persists(self.version)
    }

    /// Begins a response of our own, without fields.
    ///
    /// Codes outside 200 to 599 become 500: an interim response is not a response.
    pub fn begin(&mut self, status: u16) {
        self.fields.clear();
        self.version = Version::Http11;
        self.framing = Framing::None;
        self.connection = Connection::default();
        self.status = 0;
        self.has_own_reason = false;
        self.set_status(if (200..=599).contains(&status) { status } else { 500 });
    }

    /// Replaces the status, keeping the fields; the reason phrase is the usual one.
    ///
    /// Codes outside 200 to 599 are not taken.
    pub fn set_status(&mut self, status: u16) {
        if (200..=599).contains(&status) && status != self.status {
            self.status = status;
            self.has_own_reason = false;
            let reason = usual_reason(status);
            self.reason = self.fields.stash(&[reason.as_bytes()]).unwrap_or_default();
        }
    }

    /// Sets a reason phrase in place of the usual one, until the status changes.
    ///
    /// # Errors
    ///
    /// [`FieldError::Value`] when it holds more than visible text and blanks (RFC 9112 §4);
    /// [`FieldError::Room`].
    pub fn set_reason(&mut self, phrase: &[u8]) -> Result<(), FieldError> {
        if phrase.iter().any(|byte| *byte != b'\t' && (*byte < b' ' || *byte == 0x7f)) {
            return Err(FieldError::Value);
        }
        self.reason = self.fields.stash(&[phrase])?;
        self.has_own_reason = true;
        Ok(())
    }

    /// Removes the fields that belong to this hop. Call it before any edit of your own.
    pub fn strip_hop_by_hop(&mut self, upgrade: Upgrade) {
        connection::strip(&mut self.fields, self.connection, upgrade);
    }

    /// Appends the status line and the fields as an HTTP/1.1 message, without the last empty line.
    pub fn write_open_to(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(b"HTTP/1.1 ");
        let status = self.status;
        let digit = |value: u16| b'0' + (value % 10) as u8;
        out.extend_from_slice(&[digit(status / 100), digit(status / 10), digit(status), b' ']);
        // As Envoy: the usual phrase, whatever the server said.
        let usual = usual_reason(status).as_bytes();
        out.extend_from_slice(if self.has_own_reason { self.reason() } else { usual });
        out.extend_from_slice(b"\r\n");
        self.fields.write_to(out);
    }
}

/// The reason phrase of a status (RFC 9110 §15 and the IANA registry); what Envoy says for others.
pub(crate) fn usual_reason(status: u16) -> &'static str {
    match status {
        100 => "Continue",
        101 => "Switching Protocols",
        200 => "OK",
        201 => "Created",
        202 => "Accepted",
        203 => "Non-Authoritative Information",
        204 => "No Content",
        205 => "Reset Content",
        206 => "Partial Content",
        207 => "Multi-Status",
        208 => "Already Reported",
        226 => "IM Used",
        300 => "Multiple Choices",
        301 => "Moved Permanently",
        302 => "Found",
        303 => "See Other",
        304 => "Not Modified",
        305 => "Use Proxy",
        307 => "Temporary Redirect",
        308 => "Permanent Redirect",
        400 => "Bad Request",
        401 => "Unauthorized",
        402 => "Payment Required",
        403 => "Forbidden",
        404 => "Not Found",
        405 => "Method Not Allowed",
        406 => "Not Acceptable",
        407 => "Proxy Authentication Required",
        408 => "Request Timeout",
        409 => "Conflict",
        410 => "Gone",
        411 => "Length Required",
        412 => "Precondition Failed",
        413 => "Payload Too Large",
        414 => "URI Too Long",
        415 => "Unsupported Media Type",
        416 => "Range Not Satisfiable",
        417 => "Expectation Failed",
        421 => "Misdirected Request",
        422 => "Unprocessable Entity",
        423 => "Locked",
        424 => "Failed Dependency",
        425 => "Too Early",
        426 => "Upgrade Required",
        428 => "Precondition Required",
        429 => "Too Many Requests",
        431 => "Request Header Fields Too Large",
        500 => "Internal Server Error",
        501 => "Not Implemented",
        502 => "Bad Gateway",
        503 => "Service Unavailable",
        504 => "Gateway Timeout",
        505 => "HTTP Version Not Supported",
        506 => "Variant Also Negotiates",
        507 => "Insufficient Storage",
        508 => "Loop Detected",
        511 => "Network Authentication Required",
        _ => "Unknown",
    }
}
