//! Heads of HTTP/2 messages brought into the form of this crate, so that decisions see one form.
//!
//! In:    pseudo-header fields and fields as the HTTP/2 codec decoded them.
//! Out:   [`RequestHead`] and [`ResponseHead`] as if the message had come by HTTP/1.1.
//! Never: lets a message through that HTTP/1.1 could read in another way: what RFC 9113 §8.2 and
//!        §8.3 call malformed is an error, and the result passes the checks of the HTTP/1 parser.

use crate::{
    Authority, FIELDS_MAX, Framing, FramingError, HeadError, HostError, Known, Limits, Method,
    RequestHead, ResponseHead, Scan, TargetError, bytes::TOKEN_BYTES,
};

/// Bytes around a name and a value on a line: `: ` and CRLF.
const LINE_EXTRA_BYTES: usize = 4;

/// The pseudo-header fields of a request (RFC 9113 §8.3.1, RFC 8441 §4).
#[derive(Clone, Copy, Debug, Default)]
pub struct Pseudo<'m> {
    /// `:method`
    pub method: &'m [u8],
    /// `:scheme`
    pub scheme: Option<&'m [u8]>,
    /// `:authority`
    pub authority: Option<&'m [u8]>,
    /// `:path`
    pub path: Option<&'m [u8]>,
    /// `:protocol`, of an extended CONNECT.
    pub protocol: Option<&'m [u8]>,
}

/// Whether the stream ends with the head.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ends {
    /// There is no body.
    Here,
    /// A body may follow.
    Later,
}

impl RequestHead {
    /// Takes a request that came by HTTP/2. An extended CONNECT becomes the upgrade that it stands
    /// for; cookie crumbs become one field. `text` is for the text under construction.
    ///
    /// A body without a length is [`Framing::Chunked`], though no field says so.
    ///
    /// # Errors
    ///
    /// Every form of [`HeadError`]: the stream is to be reset, or answered where
    /// [`HeadError::status`] is 431.
    pub fn convert<'m>(
        &mut self,
        pseudo: Pseudo<'m>,
        fields: impl Iterator<Item = (&'m [u8], &'m [u8])>,
        ends: Ends,
        limits: &Limits,
        text: &mut Vec<u8>,
    ) -> Result<(), HeadError> {
        text.clear();
        let is_upgrade = pseudo.protocol.is_some();
        let mut host = None;
        start_line(pseudo, limits, text)?;
        let mut cookie: Option<Vec<u8>> = None;
        let mut lines = Lines { text, fields: 1, limits };
        let host_at = lines.text.len();
        let named = pseudo.authority.filter(|authority| !authority.is_empty());
        if let Some(authority) = named {
            Authority::parse(authority)?;
            lines.write(b"host", authority)?;
        }
        for (name, value) in fields {
            match check_field(name, value, Side::Request)? {
                Some(Known::Host) if host.is_some() => return Err(HostError::Repeated.into()),
                Some(Known::Host) => host = Some(value),
                // RFC 9113 §8.2.3: crumbs are joined before they pass into another context.
                Some(Known::Cookie) => match &mut cookie {
                    None => cookie = Some(value.to_vec()),
                    Some(whole) => {
                        lines.check_bytes(whole.len() + value.len())?;
                        whole.extend_from_slice(b"; ");
                        whole.extend_from_slice(value);
                    }
                },
                _ => lines.push(name, value)?,
            }
        }
        if let Some(cookie) = cookie {
            lines.push(b"cookie", &cookie)?;
        }
        if is_upgrade {
            lines.push(b"connection", b"upgrade")?;
            lines.push(b"upgrade", pseudo.protocol.unwrap_or_default())?;
        }
        let host = authority(named, host)?;
        if named.is_none() {
            Authority::parse(host)?;
            lines.insert(host_at, b"host", host)?;
        }
        text.extend_from_slice(b"\r\n");
        match self.parse(&mut Scan::default(), text, limits)? {
            Some(len) if len == text.len() => {}
            _ => return Err(HeadError::StartLine),
        }
        match (ends, self.framing()) {
            (Ends::Here, Framing::None) => {}
            (Ends::Here, _) => return Err(FramingError::Length.into()),
            (Ends::Later, Framing::None)
                if !is_upgrade
                    && self.method() != Method::Connect
                    && !self.fields.has(Known::ContentLength) =>
            {
                self.set_framing(Framing::Chunked);
            }
            (Ends::Later, _) => {}
        }
        Ok(())
    }
}

impl ResponseHead {
    /// Takes a response that came by HTTP/2, to a request of `method`.
    ///
    /// A body without a length is [`Framing::Chunked`], though no field says so.
    ///
    /// # Errors
    ///
    /// Every form of [`HeadError`] that concerns responses.
    pub fn convert<'m>(
        &mut self,
        status: u16,
        fields: impl Iterator<Item = (&'m [u8], &'m [u8])>,
        (ends, method): (Ends, Method),
        limits: &Limits,
        text: &mut Vec<u8>,
    ) -> Result<(), HeadError> {
        text.clear();
        text.extend_from_slice(b"HTTP/1.1 ");
        let digit = |value: u16| b'0' + (value % 10) as u8;
        text.extend_from_slice(&[digit(status / 100), digit(status / 10), digit(status), b' ']);
        text.extend_from_slice(crate::response::usual_reason(status).as_bytes());
        text.extend_from_slice(b"\r\n");
        let mut lines = Lines { text, fields: 0, limits };
        for (name, value) in fields {
            check_field(name, value, Side::Response)?;
            lines.push(name, value)?;
        }
        text.extend_from_slice(b"\r\n");
        match self.parse(&mut Scan::default(), text, limits, method)? {
            Some(len) if len == text.len() => {}
            _ => return Err(HeadError::StartLine),
        }
        match (ends, self.framing()) {
            // What is not said to have a length ends here all the same.
            (Ends::Here, Framing::UntilClose) => self.set_framing(Framing::None),
            (Ends::Here, Framing::Length(_)) => return Err(FramingError::Length.into()),
            (Ends::Later, Framing::UntilClose) => self.set_framing(Framing::Chunked),
            _ => {}
        }
        Ok(())
    }
}

/// Which side's fields are checked.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Side {
    Request,
    Response,
}

/// The start line that HTTP/1.1 would have.
fn start_line(pseudo: Pseudo<'_>, limits: &Limits, text: &mut Vec<u8>) -> Result<(), HeadError> {
    let Pseudo { method, scheme, authority, path, protocol } = pseudo;
    let is_connect = Method::of(method) == Method::Connect;
    if let Some(scheme) = scheme
        && !scheme.eq_ignore_ascii_case(b"http")
        && !scheme.eq_ignore_ascii_case(b"https")
    {
        return Err(TargetError::Scheme.into());
    }
    let (method, target) = match (is_connect, protocol) {
        // RFC 8441 §4: :scheme and :path must be there.
        (true, Some(protocol)) => {
            if scheme.is_none() {
                return Err(TargetError::Form.into());
            }
            // It will be a field's value: RFC 9110 §7.8 wants tokens there.
            let is_name = |&byte: &u8| crate::bytes::is_token_byte(byte) || byte == b'/';
            if protocol.is_empty() || !protocol.iter().all(is_name) {
                return Err(HeadError::FieldValue);
            }
            (&b"GET"[..], path)
        }
        (false, Some(_)) => return Err(TargetError::Form.into()),
        // RFC 9113 §8.5: :scheme and :path must be omitted.
        (true, None) => {
            if scheme.is_some() || path.is_some() {
                return Err(TargetError::AuthorityForm.into());
            }
            (method, authority)
        }
        (false, None) => (method, path),
    };
    let target = target.filter(|target| !target.is_empty()).ok_or(TargetError::Form)?;
    // RFC 9113 §8.3.1: a path, or `*` for OPTIONS; never a whole URL.
    if !is_connect || protocol.is_some() {
        let is_asterisk = target == b"*" && Method::of(method) == Method::Options;
        if target.first() != Some(&b'/') && !is_asterisk {
            return Err(TargetError::Form.into());
        }
    }
    if method.len() + target.len() + b"  HTTP/1.1".len() > limits.start_line_bytes_max {
        return Err(HeadError::StartLineTooLong);
    }
    if !target.iter().all(|&byte| (0x21..=0x7e).contains(&byte)) {
        return Err(TargetError::Byte.into());
    }
    if method.is_empty() || !method.iter().all(|&byte| crate::bytes::is_token_byte(byte)) {
        return Err(HeadError::StartLine);
    }
    text.extend_from_slice(method);
    text.push(b' ');
    text.extend_from_slice(target);
    text.extend_from_slice(b" HTTP/1.1\r\n");
    Ok(())
}

/// RFC 9113 §8.3.1: `:authority` and Host must not differ; one of them must be there.
fn authority<'m>(
    authority: Option<&'m [u8]>,
    host: Option<&'m [u8]>,
) -> Result<&'m [u8], HeadError> {
    match (authority, host) {
        (None, None) => Err(HostError::Missing.into()),
        (Some(authority), None) => Ok(authority),
        (None, Some(host)) => Ok(host),
        (Some(authority), Some(host)) if authority.eq_ignore_ascii_case(host) => Ok(authority),
        (Some(_), Some(_)) => Err(HostError::Mismatch.into()),
    }
}

/// Bytes of a name in HTTP/2 (RFC 9113 §8.2.1).
const NAME_BYTES: [bool; 256] = {
    let mut table = [false; 256];
    let mut byte = 0;
    while byte < table.len() {
        table[byte] = TOKEN_BYTES[byte] && !(byte as u8).is_ascii_uppercase();
        byte += 1;
    }
    table
};

/// RFC 9113 §8.2.1 and §8.2.2. Gives the field that it is, if it is a known one.
fn check_field(name: &[u8], value: &[u8], side: Side) -> Result<Option<Known>, HeadError> {
    if name.is_empty() || !name.iter().all(|&byte| NAME_BYTES[usize::from(byte)]) {
        return Err(HeadError::FieldName);
    }
    // All of it, without a way out: many bytes are looked at at once.
    let is_bad = |byte: u8| (byte != b'\t') & ((byte < 0x20) | (byte == 0x7f));
    if value.iter().fold(false, |bad, &byte| bad | is_bad(byte)) {
        return Err(HeadError::FieldValue);
    }
    let known = Known::of(name);
    match known {
        Some(
            Known::Connection
            | Known::KeepAlive
            | Known::ProxyConnection
            | Known::TransferEncoding
            | Known::Upgrade
            | Known::Http2Settings,
        ) => Err(HeadError::ConnectionSpecific),
        Some(Known::Te) if side == Side::Request && !value.eq_ignore_ascii_case(b"trailers") => {
            Err(HeadError::ConnectionSpecific)
        }
        _ => Ok(known),
    }
}

/// Field lines under construction, within the limits.
struct Lines<'t> {
    text: &'t mut Vec<u8>,
    fields: usize,
    limits: &'t Limits,
}

impl Lines<'_> {
    fn check_bytes(&self, more: usize) -> Result<(), HeadError> {
        if self.text.len() + more > self.limits.head_bytes_max {
            return Err(HeadError::TooLarge);
        }
        Ok(())
    }

    fn push(&mut self, name: &[u8], value: &[u8]) -> Result<(), HeadError> {
        self.fields += 1;
        if self.fields > self.limits.fields_max.min(FIELDS_MAX) {
            return Err(HeadError::TooManyFields);
        }
        self.write(name, value)
    }

    fn write(&mut self, name: &[u8], value: &[u8]) -> Result<(), HeadError> {
        self.check_bytes(name.len() + value.len() + LINE_EXTRA_BYTES)?;
        self.text.reserve(name.len() + value.len() + LINE_EXTRA_BYTES);
        self.text.extend_from_slice(name);
        self.text.extend_from_slice(b": ");
        self.text.extend_from_slice(value);
        self.text.extend_from_slice(b"\r\n");
        Ok(())
    }

    /// Puts a line before the others; it has been counted.
    fn insert(&mut self, at: usize, name: &[u8], value: &[u8]) -> Result<(), HeadError> {
        self.check_bytes(name.len() + value.len() + LINE_EXTRA_BYTES)?;
        let line = [name, b": ", value, b"\r\n"].concat();
        self.text.splice(at..at, line);
        Ok(())
    }
}

impl ResponseHead {
    /// Makes the response that agrees to an extended CONNECT (RFC 8441 §5) the one that agrees to
    /// an upgrade.
    ///
    /// # Errors
    ///
    /// [`HeadError`] when the protocol's name cannot be in a field.
    pub fn agree(&mut self, protocol: &[u8], text: &mut Vec<u8>) -> Result<(), HeadError> {
        text.clear();
        text.extend_from_slice(b"HTTP/1.1 101 Switching Protocols\r\n");
        self.fields.write_to(text);
        text.extend_from_slice(b"connection: upgrade\r\nupgrade: ");
        text.extend_from_slice(protocol);
        text.extend_from_slice(b"\r\n\r\n");
        let head = std::mem::take(text);
        let read = self.read(&head, Method::Get);
        *text = head;
        read
    }
}
