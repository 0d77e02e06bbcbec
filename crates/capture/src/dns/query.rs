//! Reads a query strictly (RFC 1035 §4.1, RFC 6891 §6.1).

/// The codes with which a query that cannot be read is refused (RFC 1035 §4.1.1).
pub(super) const FORMERR: u16 = 1;
pub(super) const NOTIMP: u16 = 4;

pub(super) const TYPE_A: u16 = 1;
pub(super) const TYPE_AAAA: u16 = 28;
pub(super) const CLASS_IN: u16 = 1;
const TYPE_OPT: u16 = 41;

const HEADER_BYTES: usize = 12;
const LABEL_BYTES_MAX: usize = 63;
const NAME_BYTES_MAX: usize = 255;

/// The most additional records that are looked at for EDNS: a query carries one or two.
const ADDITIONAL_MAX: u16 = 4;

const FLAG_QR: u16 = 0x8000;
const FLAG_TC: u16 = 0x0200;
const OPCODE_MASK: u16 = 0x7800;

/// What a reply repeats of the query's header.
#[derive(Clone, Copy, Debug)]
pub(super) struct Header {
    pub(super) id: u16,
    pub(super) flags: u16,
}

/// The EDNS(0) pseudo-record of a query.
#[derive(Debug)]
pub(super) struct Edns {
    pub(super) udp_bytes: u16,
    pub(super) version: u8,
}

/// One question, with all that a reply needs to know.
#[derive(Debug)]
pub(super) struct Question<'a> {
    pub(super) header: Header,
    /// The question section as it came: a reply repeats it byte for byte.
    pub(super) raw: &'a [u8],
    /// The name, lower case, without the final dot; `None` when no host can have it.
    pub(super) name: Option<String>,
    pub(super) kind: u16,
    pub(super) class: u16,
    pub(super) edns: Option<Edns>,
}

/// Why a query gets no answer from the table.
#[derive(Debug)]
pub(super) enum Refusal {
    /// Say nothing.
    Silence,
    /// Say this code and nothing else.
    Code(Header, u16),
}

/// Reads a query that holds one question.
pub(super) fn parse(query: &[u8]) -> Result<Question<'_>, Refusal> {
    let mut reader = Reader { bytes: query, at: 0 };
    let header = (|| Some(Header { id: reader.u16()?, flags: reader.u16()? }))();
    let Some(header) = header.filter(|header| header.flags & FLAG_QR == 0) else {
        return Err(Refusal::Silence);
    };
    if query.len() < HEADER_BYTES {
        return Err(Refusal::Silence);
    }
    if header.flags & OPCODE_MASK != 0 {
        return Err(Refusal::Code(header, NOTIMP));
    }
    read(&mut reader, header).ok_or(Refusal::Code(header, FORMERR))
}

/// What follows the flags; `None` when it is malformed.
fn read<'a>(reader: &mut Reader<'a>, header: Header) -> Option<Question<'a>> {
    let [questions, answers, authorities, additional] =
        [reader.u16()?, reader.u16()?, reader.u16()?, reader.u16()?];
    if questions != 1 || answers != 0 || authorities != 0 || additional > ADDITIONAL_MAX {
        return None;
    }
    if header.flags & FLAG_TC != 0 {
        return None;
    }
    let name = reader.name()?;
    let (kind, class) = (reader.u16()?, reader.u16()?);
    let raw = &reader.bytes[HEADER_BYTES..reader.at];
    let mut edns = None;
    for _ in 0..additional {
        match (reader.additional()?, &edns) {
            (Some(_), Some(_)) => return None, // RFC 6891 §6.1.1: more than one OPT is FORMERR.
            (Some(found), None) => edns = Some(found),
            (None, _) => {}
        }
    }
    if reader.at != reader.bytes.len() {
        return None;
    }
    Some(Question { header, raw, name, kind, class, edns })
}

/// A position in the query; every read is checked.
struct Reader<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl<'a> Reader<'a> {
    fn take(&mut self, count: usize) -> Option<&'a [u8]> {
        let taken = self.bytes.get(self.at..self.at.checked_add(count)?)?;
        self.at += count;
        Some(taken)
    }

    fn u8(&mut self) -> Option<u8> {
        self.take(1).map(|bytes| bytes[0])
    }

    fn u16(&mut self) -> Option<u16> {
        self.take(2).map(|bytes| u16::from_be_bytes([bytes[0], bytes[1]]))
    }

    /// A name without compression: in a query there is nothing before it to point at.
    ///
    /// The outer `None` is malformed; the inner one is a name that no host can have.
    fn name(&mut self) -> Option<Option<String>> {
        let mut name = String::new();
        let mut is_host = true;
        let mut length = 1;
        loop {
            let label = usize::from(self.u8()?);
            if label == 0 {
                break;
            }
            length += label + 1;
            if label > LABEL_BYTES_MAX || length > NAME_BYTES_MAX {
                return None;
            }
            let bytes = self.take(label)?;
            is_host &= bytes
                .iter()
                .all(|byte| matches!(byte, b'-' | b'_' | b'0'..=b'9' | b'a'..=b'z' | b'A'..=b'Z'));
            if !name.is_empty() {
                name.push('.');
            }
            name.extend(bytes.iter().map(|byte| char::from(byte.to_ascii_lowercase())));
        }
        Some((is_host && !name.is_empty()).then_some(name))
    }

    /// One additional record: `Some(None)` when it is not EDNS.
    fn additional(&mut self) -> Option<Option<Edns>> {
        let is_root = self.bytes.get(self.at) == Some(&0);
        self.name()?;
        let kind = self.u16()?;
        let class = self.u16()?;
        let ttl = self.take(4)?;
        let version = ttl[1];
        let length = self.u16()?;
        self.take(usize::from(length))?;
        match (kind == TYPE_OPT, is_root) {
            (true, true) => Some(Some(Edns { udp_bytes: class, version })),
            (true, false) => None,
            (false, _) => Some(None),
        }
    }
}
