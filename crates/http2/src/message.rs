//! What a section of fields means in HTTP (RFC 9113 §8).

use crate::hpack::Section;

/// A section that is no message (RFC 9113 §8.1.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("malformed message")]
pub struct Malformed;

/// A section taken apart: how many pseudo-header fields it begins with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Parts {
    pseudo: usize,
}

impl Parts {
    /// Finds where the fields begin. Pseudo-header fields come before them (RFC 9113 §8.3).
    ///
    /// # Errors
    ///
    /// [`Malformed`] when one comes later.
    pub fn of(section: &Section) -> Result<Self, Malformed> {
        let is_pseudo = |(name, _, _): &(&[u8], &[u8], bool)| name.first() == Some(&b':');
        let pseudo = section.iter().take_while(is_pseudo).count();
        if section.iter().skip(pseudo).any(|field| is_pseudo(&field)) {
            return Err(Malformed);
        }
        Ok(Self { pseudo })
    }

    /// The fields without the pseudo-header fields.
    pub fn fields(self, section: &Section) -> impl Iterator<Item = (&[u8], &[u8])> {
        section.iter().skip(self.pseudo).map(|(name, value, _)| (name, value))
    }
}

/// The pseudo-header fields of a request (RFC 9113 §8.3.1, RFC 8441 §4).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RequestParts<'s> {
    /// `:method`
    pub method: Option<&'s [u8]>,
    /// `:scheme`
    pub scheme: Option<&'s [u8]>,
    /// `:authority`
    pub authority: Option<&'s [u8]>,
    /// `:path`
    pub path: Option<&'s [u8]>,
    /// `:protocol`
    pub protocol: Option<&'s [u8]>,
}

impl<'s> RequestParts<'s> {
    /// Reads them, each at most once.
    ///
    /// # Errors
    ///
    /// [`Malformed`] for one that is repeated, unknown or late.
    pub fn of(section: &'s Section) -> Result<(Self, Parts), Malformed> {
        let parts = Parts::of(section)?;
        let mut found = Self::default();
        for (name, value, _) in section.iter().take(parts.pseudo) {
            let place = match name {
                b":method" => &mut found.method,
                b":scheme" => &mut found.scheme,
                b":authority" => &mut found.authority,
                b":path" => &mut found.path,
                b":protocol" => &mut found.protocol,
                _ => return Err(Malformed),
            };
            if place.replace(value).is_some() {
                return Err(Malformed);
            }
        }
        Ok((found, parts))
    }
}

/// The status of a response, whose one pseudo-header field it is (RFC 9113 §8.3.2).
pub(crate) fn status(section: &Section) -> Result<u16, Malformed> {
    let parts = Parts::of(section)?;
    let mut pseudo = section.iter().take(parts.pseudo);
    let (Some((b":status", value, _)), None) = (pseudo.next(), pseudo.next()) else {
        return Err(Malformed);
    };
    let &[a @ b'1'..=b'9', b @ b'0'..=b'9', c @ b'0'..=b'9'] = value else {
        return Err(Malformed);
    };
    let digit = |byte: u8| u16::from(byte - b'0');
    match digit(a) * 100 + digit(b) * 10 + digit(c) {
        // RFC 9113 §8.6.
        101 => Err(Malformed),
        status => Ok(status),
    }
}

/// The length that a message says it has (RFC 9113 §8.1.1).
pub(crate) fn length(section: &Section) -> Result<Option<u64>, Malformed> {
    let mut found = None;
    for (name, value, _) in section.iter() {
        if name != b"content-length" {
            continue;
        }
        if value.is_empty() || value.len() > 18 || !value.iter().all(u8::is_ascii_digit) {
            return Err(Malformed);
        }
        let length = value.iter().fold(0_u64, |sum, digit| sum * 10 + u64::from(digit - b'0'));
        if found.replace(length).is_some_and(|known| known != length) {
            return Err(Malformed);
        }
    }
    Ok(found)
}

/// Whether a section can be trailers: no pseudo-header field, nothing that belongs to a connection,
/// and names and values as RFC 9113 §8.2.1 has them.
pub(crate) fn check_trailers(section: &Section) -> Result<(), Malformed> {
    for (name, value, _) in section.iter() {
        let is_name =
            |&byte: &u8| (0x21..0x7f).contains(&byte) && byte != b':' && !byte.is_ascii_uppercase();
        let is_value = |&byte: &u8| byte == b'\t' || (byte >= 0x20 && byte != 0x7f);
        let is_of_connection = matches!(
            name,
            b"connection" | b"keep-alive" | b"proxy-connection" | b"transfer-encoding" | b"upgrade"
        );
        if name.is_empty()
            || !name.iter().all(is_name)
            || !value.iter().all(is_value)
            || is_of_connection
        {
            return Err(Malformed);
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn section(fields: &[(&str, &str)]) -> Section {
        let mut section = Section::new();
        for (name, value) in fields {
            section.push(name.as_bytes(), value.as_bytes(), false);
        }
        section
    }

    #[test]
    fn pseudo_header_fields_come_first_and_once() {
        let good = section(&[(":method", "GET"), (":path", "/"), ("a", "b")]);
        let (found, parts) = RequestParts::of(&good).unwrap();
        assert_eq!((found.method, found.path), (Some(&b"GET"[..]), Some(&b"/"[..])));
        assert_eq!(parts.fields(&good).count(), 1);
        for bad in [
            &[("a", "b"), (":method", "GET")][..],
            &[(":method", "GET"), (":method", "GET")],
            &[(":method", "GET"), (":status", "200")],
            &[(":Method", "GET")],
        ] {
            assert_eq!(RequestParts::of(&section(bad)).map(|_| ()), Err(Malformed), "{bad:?}");
        }
    }

    #[test]
    fn a_status_is_three_digits_and_stands_alone() {
        assert_eq!(status(&section(&[(":status", "204"), ("a", "b")])), Ok(204));
        for bad in ["", "20", "2000", "2x4", "099", "101", "+20"] {
            assert_eq!(status(&section(&[(":status", bad)])), Err(Malformed), "{bad}");
        }
        assert_eq!(status(&section(&[])), Err(Malformed));
        assert_eq!(status(&section(&[(":status", "200"), (":path", "/")])), Err(Malformed));
    }

    #[test]
    fn lengths_must_agree() {
        assert_eq!(length(&section(&[("content-length", "12")])), Ok(Some(12)));
        let twice = [("content-length", "12"), ("content-length", "12")];
        assert_eq!(length(&section(&twice)), Ok(Some(12)));
        for bad in ["", "-1", "+1", "1 ", "1,1", "9999999999999999999"] {
            assert_eq!(length(&section(&[("content-length", bad)])), Err(Malformed), "{bad}");
        }
        let other = [("content-length", "12"), ("content-length", "13")];
        assert_eq!(length(&section(&other)), Err(Malformed));
    }

    #[test]
    fn trailers_are_fields_and_nothing_else() {
        assert_eq!(check_trailers(&section(&[("grpc-status", "0")])), Ok(()));
        for bad in
            [(":path", "/"), ("A", "b"), ("", "b"), ("a", "b\n"), ("upgrade", "x"), ("a b", "")]
        {
            assert_eq!(check_trailers(&section(&[bad])), Err(Malformed), "{bad:?}");
        }
    }
}
