//! Reads server name and protocols out of a TLS ClientHello (RFC 8446 §4.1.2, RFC 6066 §3, RFC 7301).
//!
//! In:    the connection's bytes, as they arrive, however the client cuts its records.
//! Out:   the [`Hello`], that more is needed, or why this is no hello.
//! Never: copies a byte twice; holds more than [`HELLO_BYTES_MAX`].

/// The most bytes of a hello, records included. Envoy's bound; post-quantum hellos are 2 KiB.
pub(crate) const HELLO_BYTES_MAX: usize = 64 * 1024;

/// The most plaintext in one record, RFC 8446 §5.1.
const RECORD_BYTES_MAX: usize = 16 * 1024;

/// The longest host name, RFC 1035 §2.3.4.
const NAME_BYTES_MAX: usize = 255;

/// The most ALPN protocols that are kept; clients offer two.
const PROTOCOLS_MAX: usize = 32;

const RECORD_HEADER: usize = 5;
const HANDSHAKE_HEADER: usize = 4;
const CONTENT_HANDSHAKE: u8 = 22;
const TYPE_CLIENT_HELLO: u8 = 1;
const EXTENSION_SERVER_NAME: u16 = 0;
const EXTENSION_ALPN: u16 = 16;

/// What a ClientHello says.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Hello {
    /// The server name, lower case; `None` when the client sends none.
    pub sni: Option<String>,
    /// The protocols offered, in the client's order.
    pub alpn: Vec<Box<[u8]>>,
}

/// Why the bytes are not taken as a ClientHello.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum HelloError {
    /// The first bytes are not a TLS handshake record: another protocol.
    #[error("not TLS")]
    NotTls,
    /// It starts like TLS, and then does not follow the format.
    #[error("malformed ClientHello")]
    Malformed,
    /// It would pass [`HELLO_BYTES_MAX`].
    #[error("ClientHello above 64 KiB")]
    TooLarge,
}

/// Collects the handshake message across records.
#[derive(Debug, Default)]
pub struct HelloReader {
    /// How many of the connection's bytes have been taken in.
    taken: usize,
    /// How many bytes of the current record are still to come.
    record_left: usize,
    /// The handshake message so far.
    message: Vec<u8>,
}

impl HelloReader {
    /// Looks at the bytes after those seen before. `bytes` is everything since the connection's
    /// start. `Ok(None)`: more bytes are needed.
    ///
    /// # Errors
    ///
    /// [`HelloError`]; calling again after an error is a mistake.
    pub fn read(&mut self, bytes: &[u8]) -> Result<Option<Hello>, HelloError> {
        loop {
            if self.record_left == 0 && !self.open_record(bytes)? {
                return Ok(None);
            }
            let available = bytes.len() - self.taken;
            let length = available.min(self.record_left);
            if length == 0 {
                return Ok(None);
            }
            self.message.extend_from_slice(&bytes[self.taken..self.taken + length]);
            self.taken += length;
            self.record_left -= length;
            if let Some(length) = self.message_length()?
                && self.message.len() >= length
            {
                return parse(&self.message[HANDSHAKE_HEADER..length]).map(Some);
            }
        }
    }

    /// Reads a record header; `false` when it is not there yet.
    fn open_record(&mut self, bytes: &[u8]) -> Result<bool, HelloError> {
        let header = &bytes[self.taken..];
        let wrong = if self.taken == 0 { HelloError::NotTls } else { HelloError::Malformed };
        // Refuse another protocol at its first wrong byte, without waiting for five.
        let plausible = [CONTENT_HANDSHAKE, 3];
        if header.iter().zip(plausible).any(|(byte, want)| *byte != want) {
            return Err(wrong);
        }
        if header.len() < RECORD_HEADER {
            return Ok(false);
        }
        let length = usize::from(u16::from_be_bytes([header[3], header[4]]));
        // RFC 8446 §5.1: no empty handshake records, so every record moves us on.
        if length == 0 || length > RECORD_BYTES_MAX {
            return Err(wrong);
        }
        self.taken += RECORD_HEADER;
        self.record_left = length;
        if self.taken > HELLO_BYTES_MAX {
            return Err(HelloError::TooLarge);
        }
        Ok(true)
    }

    /// The whole length of the handshake message, once its header is there.
    fn message_length(&self) -> Result<Option<usize>, HelloError> {
        match self.message[..] {
            [] => Ok(None),
            [kind, ..] if kind != TYPE_CLIENT_HELLO => Err(HelloError::Malformed),
            [_, a, b, c, ..] => {
                let length = usize::from(a) << 16 | usize::from(b) << 8 | usize::from(c);
                if length > HELLO_BYTES_MAX - HANDSHAKE_HEADER {
                    return Err(HelloError::TooLarge);
                }
                Ok(Some(HANDSHAKE_HEADER + length))
            }
            _ => Ok(None),
        }
    }
}

/// Takes fields off the front of a slice.
struct Fields<'a>(&'a [u8]);

impl<'a> Fields<'a> {
    fn take(&mut self, length: usize) -> Result<&'a [u8], HelloError> {
        let (head, rest) = self.0.split_at_checked(length).ok_or(HelloError::Malformed)?;
        self.0 = rest;
        Ok(head)
    }

    fn byte(&mut self) -> Result<u8, HelloError> {
        Ok(self.take(1)?[0])
    }

    fn short(&mut self) -> Result<u16, HelloError> {
        let bytes = self.take(2)?;
        Ok(u16::from_be_bytes([bytes[0], bytes[1]]))
    }

    fn block8(&mut self) -> Result<Self, HelloError> {
        let length = usize::from(self.byte()?);
        self.take(length).map(Self)
    }

    fn block16(&mut self) -> Result<Self, HelloError> {
        let length = usize::from(self.short()?);
        self.take(length).map(Self)
    }

    fn finish(&self) -> Result<(), HelloError> {
        if self.0.is_empty() { Ok(()) } else { Err(HelloError::Malformed) }
    }
}

/// Parses the body of a ClientHello.
fn parse(body: &[u8]) -> Result<Hello, HelloError> {
    let mut fields = Fields(body);
    fields.take(2 + 32)?; // legacy_version, random
    fields.block8()?; // legacy_session_id
    fields.block16()?; // cipher_suites
    fields.block8()?; // legacy_compression_methods
    let mut hello = Hello::default();
    if fields.0.is_empty() {
        return Ok(hello);
    }
    let mut extensions = fields.block16()?;
    fields.finish()?;
    let (mut has_name, mut has_alpn) = (false, false);
    while !extensions.0.is_empty() {
        let kind = extensions.short()?;
        let value = extensions.block16()?;
        // RFC 8446 §4.2: an extension comes once. A second one could mean another name to us than
        // to the server behind us.
        match kind {
            EXTENSION_SERVER_NAME if has_name => return Err(HelloError::Malformed),
            EXTENSION_SERVER_NAME => {
                has_name = true;
                hello.sni = server_name(value)?;
            }
            EXTENSION_ALPN if has_alpn => return Err(HelloError::Malformed),
            EXTENSION_ALPN => {
                has_alpn = true;
                hello.alpn = protocols(value)?;
            }
            _ => {}
        }
    }
    Ok(hello)
}

/// RFC 6066 §3: a list in which at most one entry is a host name.
fn server_name(mut value: Fields<'_>) -> Result<Option<String>, HelloError> {
    let mut list = value.block16()?;
    value.finish()?;
    let mut name = None;
    while !list.0.is_empty() {
        let kind = list.byte()?;
        let text = list.block16()?.0;
        if kind != 0 {
            continue;
        }
        let fits = !text.is_empty() && text.len() <= NAME_BYTES_MAX;
        if name.is_some() || !fits || !text.iter().all(u8::is_ascii_graphic) {
            return Err(HelloError::Malformed);
        }
        name = Some(String::from_utf8_lossy(text).to_ascii_lowercase());
    }
    Ok(name)
}

/// RFC 7301 §3.1.
fn protocols(mut value: Fields<'_>) -> Result<Vec<Box<[u8]>>, HelloError> {
    let mut list = value.block16()?;
    value.finish()?;
    let mut protocols = Vec::new();
    while !list.0.is_empty() {
        let protocol = list.block8()?.0;
        if protocol.is_empty() || protocols.len() == PROTOCOLS_MAX {
            return Err(HelloError::Malformed);
        }
        protocols.push(protocol.into());
    }
    Ok(protocols)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn block16(bytes: &[u8]) -> Vec<u8> {
        [&u16::try_from(bytes.len()).unwrap().to_be_bytes()[..], bytes].concat()
    }

    fn extension(kind: u16, value: &[u8]) -> Vec<u8> {
        [&kind.to_be_bytes()[..], &block16(value)].concat()
    }

    fn sni(name: &[u8]) -> Vec<u8> {
        extension(0, &block16(&[&[0][..], &block16(name)].concat()))
    }

    fn message(extensions: &[Vec<u8>]) -> Vec<u8> {
        let mut body = vec![3, 3];
        body.extend([7; 32]);
        body.push(0);
        body.extend([0, 2, 0x13, 0x01, 1, 0]);
        body.extend(block16(&extensions.concat()));
        let length = u32::try_from(body.len()).unwrap().to_be_bytes();
        [&[1][..], &length[1..], &body].concat()
    }

    fn records(message: &[u8], size: usize) -> Vec<u8> {
        message.chunks(size).flat_map(|part| [&[22, 3, 1][..], &block16(part)].concat()).collect()
    }

    fn read(bytes: &[u8]) -> Result<Option<Hello>, HelloError> {
        HelloReader::default().read(bytes)
    }

    #[test]
    fn name_and_protocols_are_found_however_the_records_are_cut() {
        let alpn = extension(16, &block16(b"\x02h2\x08http/1.1"));
        let message = message(&[extension(43, b"\x02\x03\x04"), sni(b"API.data.Local"), alpn]);
        for size in [1, 3, 50, message.len()] {
            let bytes = records(&message, size);
            let mut reader = HelloReader::default();
            for end in 0..bytes.len() {
                assert_eq!(reader.read(&bytes[..end]), Ok(None), "records of {size}, {end} bytes");
            }
            let hello = reader.read(&bytes).unwrap().unwrap();
            assert_eq!(hello.sni.as_deref(), Some("api.data.local"));
            assert_eq!(hello.alpn, [Box::from(&b"h2"[..]), Box::from(&b"http/1.1"[..])]);
        }
    }

    #[test]
    fn another_protocol_is_known_by_its_first_wrong_byte() {
        for bytes in [&b"G"[..], b"\x80", b"\x16\x02", b"\x16\x03\x01\x00\x00"] {
            assert_eq!(read(bytes), Err(HelloError::NotTls), "{bytes:?}");
        }
        assert_eq!(read(b""), Ok(None));
    }

    #[test]
    fn a_hello_that_two_readers_could_read_differently_is_malformed() {
        for extensions in [
            vec![sni(b"a.test"), sni(b"b.test")],
            vec![sni(b"")],
            vec![sni(b"a b")],
            vec![sni(b"a\0.test")],
            vec![sni("ä.test".as_bytes())],
            vec![extension(0, b"\x00\x05\x00\x00\x09abc")],
            vec![extension(16, &block16(b"\x00"))],
        ] {
            let bytes = records(&message(&extensions), 1000);
            assert_eq!(read(&bytes), Err(HelloError::Malformed), "{extensions:?}");
        }
        assert_eq!(read(&records(&[2, 0, 0, 0], 4)), Err(HelloError::Malformed));
    }

    #[test]
    fn a_hello_above_the_bound_is_refused_before_it_is_held() {
        assert_eq!(read(&records(&[1, 1, 0, 0], 4)), Err(HelloError::TooLarge));
        let many = records(&[&[1, 0, 0xff, 0xf0][..], &vec![0; 60_000]].concat(), 1);
        assert_eq!(read(&many), Err(HelloError::TooLarge));
    }

    #[test]
    fn a_hello_without_extensions_has_no_name() {
        let mut message = message(&[]);
        message.truncate(message.len() - 2);
        let length = u8::try_from(message.len() - 4).unwrap();
        message[3] = length;
        assert_eq!(read(&records(&message, 1000)), Ok(Some(Hello::default())));
    }
}
