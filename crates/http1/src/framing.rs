//! How long the body of a message is (RFC 9112 §6.3).

use crate::{Fields, FramingError, Known, Method, Version};

/// Longest Content-Length: 2^63 - 1 has 19 digits.
const LENGTH_DIGITS_MAX: usize = 19;
/// More would not fit where lengths are signed.
const LENGTH_MAX: u64 = u64::MAX >> 1;

/// How the end of a body is found.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Framing {
    /// There is no body.
    #[default]
    None,
    /// Content-Length says so; never zero (that is [`Framing::None`]).
    Length(u64),
    /// Chunked transfer coding.
    Chunked,
    /// The connection's end; responses only.
    UntilClose,
}

impl Framing {
    /// Decides for a request; a length is written anew when it has leading zeros.
    ///
    /// # Errors
    ///
    /// Any doubt: see [`FramingError`].
    pub(crate) fn of_request(
        fields: &mut Fields,
        version: Version,
        method: Method,
    ) -> Result<Self, FramingError> {
        let framing = declared(fields, version)?.unwrap_or(Self::None);
        // RFC 9110 §9.3.6, §9.3.8: CONNECT and TRACE have no content.
        match (framing, method) {
            (Self::None, _) => Ok(framing),
            (_, Method::Connect | Method::Trace) => Err(FramingError::Forbidden),
            _ => Ok(framing),
        }
    }

    /// Decides for the response to a request of `method`, as [`Framing::of_request`].
    ///
    /// # Errors
    ///
    /// Any doubt: see [`FramingError`].
    pub(crate) fn of_response(
        fields: &mut Fields,
        version: Version,
        status: u16,
        method: Method,
    ) -> Result<Self, FramingError> {
        let declared = declared(fields, version)?;
        match status {
            // RFC 9110 §8.6, RFC 9112 §6.1: neither field may be sent with 1xx or 204. A zero
            // length is common and says the truth.
            100..=199 | 204 => match declared {
                None | Some(Self::None) => Ok(Self::None),
                Some(_) => Err(FramingError::Forbidden),
            },
            // The fields describe what GET would have had.
            304 => Ok(Self::None),
            _ if method == Method::Head => Ok(Self::None),
            _ => Ok(declared.unwrap_or(Self::UntilClose)),
        }
    }
}

/// What the fields say: `None` when they say nothing.
fn declared(fields: &mut Fields, version: Version) -> Result<Option<Framing>, FramingError> {
    let has_length = fields.has(Known::ContentLength);
    match (has_length, fields.has(Known::TransferEncoding)) {
        (false, false) => Ok(None),
        // RFC 9112 §6.3: such a message might indicate an attempt to perform request smuggling
        // or response splitting and ought to be handled as an error.
        (true, true) => Err(FramingError::Both),
        (true, false) => length(fields).map(Some),
        (false, true) => coding(fields, version).map(Some),
    }
}

fn length(fields: &mut Fields) -> Result<Framing, FramingError> {
    let mut values = fields.all(Known::ContentLength);
    let value = values.next().unwrap_or_default();
    if values.next().is_some() {
        return Err(FramingError::RepeatedLength);
    }
    if value.is_empty() || value.len() > LENGTH_DIGITS_MAX || !value.iter().all(u8::is_ascii_digit)
    {
        return Err(FramingError::Length);
    }
    // 19 digits fit in a u64.
    let length = value.iter().fold(0u64, |sum, digit| sum * 10 + u64::from(digit - b'0'));
    if length > LENGTH_MAX {
        return Err(FramingError::Length);
    }
    // RFC 9110 §8.6 allows leading zeros; a reader that takes them for octal must not be behind us.
    let has_zeros = value[0] == b'0' && value.len() > 1;
    drop(values);
    if has_zeros {
        fields.set_trusted(Known::ContentLength, length.to_string().as_bytes());
    }
    Ok(if length == 0 { Framing::None } else { Framing::Length(length) })
}

fn coding(fields: &Fields, version: Version) -> Result<Framing, FramingError> {
    // RFC 9112 §6.1: a recipient of an HTTP/1.0 message with Transfer-Encoding must treat its
    // framing as faulty.
    if version == Version::Http10 {
        return Err(FramingError::CodingInHttp10);
    }
    let mut values = fields.all(Known::TransferEncoding);
    let value = values.next().unwrap_or_default();
    if values.next().is_some() || !value.eq_ignore_ascii_case(b"chunked") {
        return Err(FramingError::Coding);
    }
    Ok(Framing::Chunked)
}
