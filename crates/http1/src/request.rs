//! The head of a request.

use std::mem::MaybeUninit;

use crate::scan::{Scan, Side};
use crate::target::{self, PathForm, TargetOrHost};
use crate::{
    Authority, Connection, FIELDS_MAX, FieldError, Fields, Framing, HeadError, HostError, Known,
    Limits, Method, Upgrade, connection, quick,
};

/// The two versions that this crate reads.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Version {
    /// HTTP/1.0
    Http10,
    /// HTTP/1.1
    #[default]
    Http11,
}

type Span = (u32, u32);

/// What a head has besides its method, its target and its fields: two spaces, the version, the ends
/// of two lines.
const START_LINE_MORE: usize = 2 + "HTTP/1.1".len() + 2 * "\r\n".len();

/// The head of one request, checked. Reused from request to request.
#[derive(Clone, Debug, Default)]
pub struct RequestHead {
    /// The header fields.
    pub fields: Fields,
    method: Method,
    version: Version,
    framing: Framing,
    connection: Connection,
    method_name: Span,
    path: Span,
    authority: Span,
    is_absolute: bool,
}

impl RequestHead {
    /// Reads a head from the start of `input`; returns how many bytes it took, or `None` when more
    /// are needed. `scan` remembers what has been searched in between.
    ///
    /// # Errors
    ///
    /// Every form of [`HeadError`]; the connection must be closed after the answer.
    pub fn parse(
        &mut self,
        scan: &mut Scan,
        input: &[u8],
        limits: &Limits,
    ) -> Result<Option<usize>, HeadError> {
        if scan.is_fresh()
            && let Some(line) = quick::request(input, limits, &mut self.fields)
        {
            self.read_line(&input[..line.method_len], line.version);
            self.finish(&input[line.target.clone()], line.target.start)?;
            return Ok(Some(line.head_len));
        }
        self.parse_slowly(scan, input, limits)
    }

    /// The same for any head, with the reason for a refusal.
    pub(crate) fn parse_slowly(
        &mut self,
        scan: &mut Scan,
        input: &[u8],
        limits: &Limits,
    ) -> Result<Option<usize>, HeadError> {
        let Some(range) = scan.find(Side::Request, input, limits)? else {
            return Ok(None);
        };
        *scan = Scan::default();
        let end = range.end;
        self.read(&input[range])?;
        Ok(Some(end))
    }

    pub(crate) fn read(&mut self, block: &[u8]) -> Result<(), HeadError> {
        let mut table = [const { MaybeUninit::uninit() }; FIELDS_MAX];
        let mut parsed = httparse::Request::new(&mut []);
        match parsed.parse_with_uninit_headers(block, &mut table) {
            Ok(httparse::Status::Complete(len)) if len == block.len() => {}
            Ok(_) => return Err(HeadError::StartLine),
            Err(error) => return Err(of_httparse(error)),
        }
        let (Some(method), Some(target), Some(version)) =
            (parsed.method, parsed.path, parsed.version)
        else {
            return Err(HeadError::StartLine);
        };
        // Methods are case-sensitive: `put` is not PUT to us, and might be to the next hop.
        if method.bytes().any(|byte| byte.is_ascii_lowercase()) {
            return Err(HeadError::StartLine);
        }
        let version = if version == 0 { Version::Http10 } else { Version::Http11 };
        self.read_line(method.as_bytes(), version);
        let place = |text: &[u8]| text.as_ptr() as usize - block.as_ptr() as usize;
        let names = parsed.headers.iter().map(|h| (place(h.name.as_bytes()), h.name.len()));
        self.fields.take_block(block, names)?;
        self.finish(target.as_bytes(), place(target.as_bytes()))
    }

    fn read_line(&mut self, method: &[u8], version: Version) {
        self.version = version;
        self.method = Method::of(method);
        self.method_name = (0, method.len() as u32);
    }

    /// Judges what has been read.
    fn finish(&mut self, target: &[u8], place: usize) -> Result<(), HeadError> {
        self.read_target(target, place)?;
        self.connection = Connection::of(&self.fields)?;
        self.framing = Framing::of_request(&mut self.fields, self.version, self.method)?;
        Ok(())
    }

    fn read_target(&mut self, target: &[u8], place: usize) -> Result<(), HeadError> {
        let parts = target::split(self.method, target).map_err(|error| match error {
            TargetOrHost::Target(error) => HeadError::Target(error),
            TargetOrHost::Host(error) => HeadError::Host(error),
        })?;
        let path = &target[parts.path.clone()];
        let span = |start: usize, end: usize| ((place + start) as u32, (place + end) as u32);
        self.path = match parts.form {
            PathForm::AsIs => span(parts.path.start, parts.path.end),
            PathForm::SlashMissing => self.stash(&[b"/", path])?,
            PathForm::Asterisk => self.stash(&[b"*"])?,
        };
        self.authority = (0, 0);
        self.is_absolute = parts.authority.is_some() && self.method != Method::Connect;
        let from_target = parts.authority.map(|range| &target[range]);
        self.read_host(from_target)
    }

    fn stash(&mut self, parts: &[&[u8]]) -> Result<Span, HeadError> {
        self.fields.stash(parts).map_err(|_| HeadError::TooLarge)
    }

    /// RFC 9112 §3.2: a server must answer 400 to a request that lacks Host (1.1), has more than
    /// one, or an invalid one. §3.2.2: the authority of the target wins; we refuse a contradiction,
    /// because the next hop might choose the other one.
    fn read_host(&mut self, from_target: Option<&[u8]>) -> Result<(), HeadError> {
        let mut hosts = self.fields.all(Known::Host);
        let host = hosts.next();
        if hosts.next().is_some() {
            return Err(HostError::Repeated.into());
        }
        let authority = match (from_target, host) {
            (None, None) if self.version == Version::Http10 => return Ok(()),
            (_, None) if self.version == Version::Http11 => return Err(HostError::Missing.into()),
            (Some(target), None) => target,
            (None, Some(host)) => host,
            (Some(target), Some(host)) => {
                let (wanted, said) = (Authority::parse(target)?, Authority::parse(host)?);
                let is_same_port = wanted.port == said.port
                    || matches!((wanted.port, said.port), (None, Some(80)) | (Some(80), None));
                if !wanted.host.eq_ignore_ascii_case(said.host) || !is_same_port {
                    return Err(HostError::Mismatch.into());
                }
                target
            }
            (None, None) => return Err(HostError::Missing.into()),
        };
        Authority::parse(authority)?;
        // Written anew only when the target spells it differently, which is rare.
        let anew = (host != Some(authority)).then(|| authority.to_vec());
        drop(hosts);
        if let Some(authority) = anew {
            self.fields.set_trusted(Known::Host, &authority);
        }
        Ok(())
    }

    /// The method.
    pub fn method(&self) -> Method {
        self.method
    }

    /// The method's name.
    pub fn method_name(&self) -> &[u8] {
        self.fields.slice(self.method_name)
    }

    /// The version of the message, which is not that of our connection to the next hop.
    pub fn version(&self) -> Version {
        self.version
    }

    /// Path and query in origin-form, or `*`; empty for CONNECT.
    pub fn path(&self) -> &[u8] {
        self.fields.slice(self.path)
    }

    /// Whether the target was an absolute URL, as proxies are asked.
    pub fn is_absolute(&self) -> bool {
        self.is_absolute
    }

    /// The authority: from the target, else from Host; empty only for HTTP/1.0 without Host.
    pub fn authority(&self) -> &[u8] {
        self.fields.get(Known::Host).unwrap_or_default()
    }

    /// How the body ends.
    pub fn framing(&self) -> Framing {
        self.framing
    }

    /// Says how the body ends where no field does: for messages that came by another version.
    pub(crate) fn set_framing(&mut self, framing: Framing) {
        self.framing = framing;
    }

    /// Frames the message anew: its body is another, or goes on in another way. The fields say so.
    pub fn reframe(&mut self, framing: Framing) {
        self.framing = if framing == Framing::Length(0) { Framing::None } else { framing };
        self.fields.remove(Known::TransferEncoding);
        self.fields.remove(Known::ContentLength);
        match framing {
            Framing::Length(length) => {
                self.fields.set_trusted(Known::ContentLength, length.to_string().as_bytes());
            }
            Framing::Chunked => self.fields.set_trusted(Known::TransferEncoding, b"chunked"),
            Framing::None | Framing::UntilClose => {}
        }
    }

    /// What the Connection field said.
    pub fn connection(&self) -> Connection {
        self.connection
    }

    /// Whether the client lets the connection stay open.
    pub fn persists(&self) -> bool {
        self.connection.persists(self.version)
    }

    /// Replaces path and query.
    ///
    /// # Errors
    ///
    /// [`FieldError::Value`] when it does not begin with `/` (or is `*`) or holds a byte that a
    /// target may not hold; [`FieldError::Room`].
    pub fn set_path(&mut self, path: &[u8]) -> Result<(), FieldError> {
        let is_target = path == b"*"
            || (path.first() == Some(&b'/')
                && path.iter().all(|&byte| (0x21..=0x7e).contains(&byte) && byte != b'#'));
        if !is_target {
            return Err(FieldError::Value);
        }
        self.path = self.fields.stash(&[path])?;
        Ok(())
    }

    /// Replaces the method.
    ///
    /// # Errors
    ///
    /// [`FieldError::Name`] when it is not a token, or is CONNECT; [`FieldError::Room`].
    pub fn set_method(&mut self, name: &[u8]) -> Result<(), FieldError> {
        let is_token = !name.is_empty() && name.iter().all(|&b| crate::bytes::is_token_byte(b));
        if !is_token || [Method::of(name), self.method].contains(&Method::Connect) {
            return Err(FieldError::Name);
        }
        self.method_name = self.fields.stash(&[name])?;
        self.method = Method::of(name);
        Ok(())
    }

    /// Replaces the authority, that is the Host field.
    ///
    /// # Errors
    ///
    /// [`FieldError::Value`] when it is not an authority; [`FieldError::Room`].
    pub fn set_authority(&mut self, authority: &[u8]) -> Result<(), FieldError> {
        Authority::parse(authority).map_err(|_| FieldError::Value)?;
        self.fields.set(b"host", authority)
    }

    /// Removes the fields that belong to this hop. Call it before any edit of your own.
    pub fn strip_hop_by_hop(&mut self, upgrade: Upgrade) {
        connection::strip(&mut self.fields, self.connection, upgrade);
    }

    /// Whether the client waits for `100 Continue`; `None` when it expects something unknown.
    pub fn expects_continue(&self) -> Option<bool> {
        match self.fields.get(Known::Expect) {
            None => Some(false),
            Some(value) if value.eq_ignore_ascii_case(b"100-continue") => Some(true),
            Some(_) => None,
        }
    }

    /// Appends the head as an HTTP/1.1 message in origin-form (CONNECT: in authority-form).
    pub fn write_to(&self, out: &mut Vec<u8>) {
        // At once: a head with credentials leaves no halves in memory that was given back.
        let target = self.path().len().max(self.authority().len());
        out.reserve(
            self.fields.written_max() + self.method_name().len() + target + START_LINE_MORE,
        );
        out.extend_from_slice(self.method_name());
        out.push(b' ');
        out.extend_from_slice(if self.path().is_empty() { self.authority() } else { self.path() });
        out.extend_from_slice(b" HTTP/1.1\r\n");
        self.fields.write_to(out);
        out.extend_from_slice(b"\r\n");
    }
}

pub(crate) fn of_httparse(error: httparse::Error) -> HeadError {
    match error {
        httparse::Error::HeaderName => HeadError::FieldName,
        httparse::Error::HeaderValue => HeadError::FieldValue,
        httparse::Error::TooManyHeaders => HeadError::TooManyFields,
        httparse::Error::Version => HeadError::Version,
        httparse::Error::NewLine | httparse::Error::Status | httparse::Error::Token => {
            HeadError::StartLine
        }
    }
}
