//! Fields that belong to one hop (RFC 9110 §7.6.1).

use crate::{Fields, HeadError, Known, Version};

/// What the Connection field of one message says.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Connection {
    /// `close` is said.
    pub close: bool,
    /// `keep-alive` is said.
    pub keep_alive: bool,
    /// `upgrade` is said.
    pub upgrade: bool,
    /// Other names are said; those fields are for this hop only.
    pub(crate) nominates: bool,
}

/// What becomes of an Upgrade field when the hop-by-hop fields are removed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Upgrade {
    /// Removed, with the Connection field.
    Remove,
    /// Kept, with `connection: upgrade`.
    Keep,
}

impl Connection {
    /// Reads the options of all Connection fields.
    ///
    /// # Errors
    ///
    /// [`HeadError::Nomination`] when an option names a field that framing, routing or the next
    /// hop's trust rests on: removing it would change the message.
    pub(crate) fn of(fields: &Fields) -> Result<Self, HeadError> {
        let mut found = Self::default();
        if !fields.has(Known::Connection) {
            return Ok(found);
        }
        let mut values = fields.all(Known::Connection);
        if let (Some(value), None) = (values.next(), values.next())
            && value.eq_ignore_ascii_case(b"keep-alive")
        {
            // What most say that say anything.
            return Ok(Self { keep_alive: true, ..found });
        }
        drop(values);
        for option in options(fields) {
            match option {
                _ if option.eq_ignore_ascii_case(b"close") => found.close = true,
                _ if option.eq_ignore_ascii_case(b"keep-alive") => found.keep_alive = true,
                _ if option.eq_ignore_ascii_case(b"upgrade") => found.upgrade = true,
                _ if is_protected(option) => return Err(HeadError::Nomination),
                _ => found.nominates = true,
            }
        }
        Ok(found)
    }

    /// Whether the sender lets the connection stay open after this message.
    pub fn persists(&self, version: Version) -> bool {
        match version {
            Version::Http11 => !self.close,
            Version::Http10 => self.keep_alive && !self.close,
        }
    }
}

/// Removes what is for this hop only. Must run before any edit of our own, so that a peer cannot
/// nominate what we add.
pub(crate) fn strip(fields: &mut Fields, connection: Connection, upgrade: Upgrade) {
    if connection.nominates {
        remove_nominated(fields);
    }
    fields.remove(Known::Connection);
    fields.remove(Known::KeepAlive);
    fields.remove(Known::ProxyConnection);
    strip_te(fields);
    // Trailers are dropped with the trailer section.
    fields.remove(Known::Trailer);
    fields.remove(Known::Http2Settings);
    match upgrade {
        Upgrade::Remove => fields.remove(Known::Upgrade),
        Upgrade::Keep => fields.append_trusted(Known::Connection, b"upgrade"),
    }
}

/// `trailers` says what the client can read, whoever answers; gRPC servers insist on it. Envoy
/// passes it on and drops the rest.
fn strip_te(fields: &mut Fields) {
    if !fields.has(Known::Te) {
        return;
    }
    let wants_trailers = fields
        .all(Known::Te)
        .flat_map(|value| value.split(|&byte| byte == b','))
        .any(|coding| coding.trim_ascii().eq_ignore_ascii_case(b"trailers"));
    fields.remove(Known::Te);
    if wants_trailers {
        fields.append_trusted(Known::Te, b"trailers");
    }
}

fn remove_nominated(fields: &mut Fields) {
    // Rare, so the copy does not matter.
    let names: Vec<Vec<u8>> = options(fields).map(<[u8]>::to_vec).collect();
    for name in names {
        // What of TE goes on is decided apart.
        if !name.eq_ignore_ascii_case(b"upgrade") && !name.eq_ignore_ascii_case(b"te") {
            fields.remove_name(&name);
        }
    }
}

fn options(fields: &Fields) -> impl Iterator<Item = &[u8]> {
    fields
        .all(Known::Connection)
        .flat_map(|value| value.split(|&byte| byte == b','))
        .map(<[u8]>::trim_ascii)
        .filter(|option| !option.is_empty())
}

/// Fields that a peer must not make us drop.
fn is_protected(option: &[u8]) -> bool {
    if option.first() == Some(&b':') {
        return true;
    }
    matches!(
        Known::of(option),
        Some(
            Known::Host
                | Known::ContentLength
                | Known::TransferEncoding
                | Known::ContentType
                | Known::ContentEncoding
                | Known::Authorization
                | Known::Cookie
                | Known::SetCookie
                | Known::Expect
                | Known::CacheControl
                | Known::Forwarded
                | Known::XForwardedClientCert
                | Known::XForwardedFor
                | Known::XForwardedHost
                | Known::XForwardedPort
                | Known::XForwardedProto
                | Known::XRealIp
                | Known::XRequestId
        )
    )
}
