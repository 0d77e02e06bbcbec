//! Heads between HTTP/2's sections and ours.

use http::{HeaderMap, HeaderName, HeaderValue};
use sluis_http1::{
    Ends, Fields, HeadError, Known, Limits, Method, Pseudo, RequestHead, ResponseHead, TargetError,
};
use sluis_http2::{
    HeadWriter, Parts, RequestParts,
    hpack::{Indexing, Section},
};

/// A head that HTTP/2 cannot carry, or fields that a map cannot hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("head cannot be expressed in HTTP/2")]
pub(super) struct Inexpressible;

/// Longest name that is brought to lower case without another allocation.
const NAME_BYTES: usize = 64;

/// Takes a request off the wire; whether extended CONNECT has been offered.
pub(super) fn read_request(
    section: &Section,
    head: &mut RequestHead,
    (ends, offers_connect): (Ends, bool),
    limits: &Limits,
    text: &mut Vec<u8>,
) -> Result<(), HeadError> {
    let (found, parts) = RequestParts::of(section).map_err(|_| HeadError::FieldName)?;
    let method = found.method.ok_or(HeadError::StartLine)?;
    let is_connect = method == b"CONNECT" && found.protocol.is_none();
    // RFC 9113 §8.3.1.
    if found.scheme.is_none() && !is_connect {
        return Err(TargetError::Scheme.into());
    }
    // RFC 8441 §3: it must have been offered.
    if found.protocol.is_some() && !offers_connect {
        return Err(TargetError::Form.into());
    }
    let pseudo = Pseudo {
        method,
        scheme: found.scheme,
        authority: found.authority,
        path: found.path,
        protocol: found.protocol,
    };
    head.convert(pseudo, parts.fields(section), ends, limits, text)
}

/// Takes a response off the wire.
pub(super) fn read_response(
    (section, status): (&Section, u16),
    head: &mut ResponseHead,
    (ends, method): (Ends, Method),
    limits: &Limits,
    text: &mut Vec<u8>,
) -> Result<(), HeadError> {
    let parts = Parts::of(section).map_err(|_| HeadError::FieldName)?;
    head.convert(status, parts.fields(section), (ends, method), limits, text)
}

/// Checks that the request can go to an endpoint by HTTP/2.
pub(super) fn check_request(head: &RequestHead) -> Result<(), Inexpressible> {
    // HTTP/1.0 may lack it; RFC 9113 §8.3.1 wants one.
    if head.authority().is_empty() { Err(Inexpressible) } else { Ok(()) }
}

/// Writes the request as it goes to an endpoint. An upgrade becomes an extended CONNECT.
pub(super) fn write_request(
    head: &RequestHead,
    scheme: &str,
    is_upgrade: bool,
    is_secret: impl Fn(&[u8]) -> bool,
    out: &mut HeadWriter<'_>,
) {
    let is_connect = head.method() == Method::Connect;
    let method = if is_upgrade { &b"CONNECT"[..] } else { head.method_name() };
    out.add(b":method", method, Indexing::Usual);
    if !is_connect {
        out.add(b":scheme", scheme.as_bytes(), Indexing::Usual);
    }
    out.add(b":authority", head.authority(), Indexing::Usual);
    if !is_connect {
        out.add(b":path", head.path(), Indexing::Usual);
    }
    if is_upgrade {
        let protocol = head.fields.get(Known::Upgrade).unwrap_or_default();
        out.add(b":protocol", protocol, Indexing::Usual);
    }
    write_fields(&head.fields, is_secret, out);
}

/// Writes the response as it goes to a client. An agreed upgrade becomes success.
pub(super) fn write_response(head: &ResponseHead, out: &mut HeadWriter<'_>) {
    let is_agreed = head.status() == 101;
    write_status(if is_agreed { 200 } else { head.status() }, out);
    if !is_agreed {
        return write_fields(&head.fields, |_| false, out);
    }
    // RFC 8441 §5: HTTP/2 does without.
    let is_proof = |name: &[u8]| name.eq_ignore_ascii_case(b"sec-websocket-accept");
    for (name, value) in head.fields.iter().filter(|(name, _)| !is_proof(name)) {
        write_field(name, value, false, out);
    }
}

/// Writes the status of a response.
pub(super) fn write_status(status: u16, out: &mut HeadWriter<'_>) {
    let digit = |value: u16| b'0' + (value % 10) as u8;
    let text = [digit(status / 100), digit(status / 10), digit(status)];
    out.add(b":status", &text, Indexing::Usual);
}

fn write_fields(fields: &Fields, is_secret: impl Fn(&[u8]) -> bool, out: &mut HeadWriter<'_>) {
    for (name, value) in fields.iter() {
        write_field(name, value, is_secret(name), out);
    }
}

fn write_field(name: &[u8], value: &[u8], is_secret: bool, out: &mut HeadWriter<'_>) {
    let indexing = match Known::of(name) {
        // RFC 9113 §8.2.2.
        Some(
            Known::Connection
            | Known::Host
            | Known::Http2Settings
            | Known::KeepAlive
            | Known::ProxyConnection
            | Known::TransferEncoding
            | Known::Upgrade,
        ) => return,
        // RFC 7541 §7.1.3: no table, here or behind, may keep it. Clients that share a connection
        // could otherwise find each other's out by what compresses.
        _ if is_secret || is_credential(name) => Indexing::Never,
        _ => Indexing::Usual,
    };
    if !name.iter().any(u8::is_ascii_uppercase) {
        return out.add(name, value, indexing);
    }
    // RFC 9113 §8.2.1.
    let mut short = [0_u8; NAME_BYTES];
    match short.get_mut(..name.len()) {
        Some(lower) => {
            lower.copy_from_slice(name);
            lower.make_ascii_lowercase();
            out.add(lower, value, indexing);
        }
        None => out.add(&name.to_ascii_lowercase(), value, indexing),
    }
}

fn is_credential(name: &[u8]) -> bool {
    let is = |known: &[u8]| name.eq_ignore_ascii_case(known);
    match name.len() {
        6 => is(b"cookie"),
        10 => is(b"set-cookie"),
        13 => is(b"authorization"),
        19 => is(b"proxy-authorization"),
        _ => false,
    }
}

/// Writes the fields of a map.
pub(super) fn write_map(map: &HeaderMap, out: &mut HeadWriter<'_>) {
    for (name, value) in map {
        write_field(name.as_str().as_bytes(), value.as_bytes(), value.is_sensitive(), out);
    }
}

/// The fields as a map.
pub(super) fn map<'f>(
    fields: impl Iterator<Item = (&'f [u8], &'f [u8])>,
) -> Result<HeaderMap, Inexpressible> {
    let mut map = HeaderMap::new();
    for (name, value) in fields {
        let name = HeaderName::from_bytes(name).map_err(|_| Inexpressible)?;
        let value = HeaderValue::from_bytes(value).map_err(|_| Inexpressible)?;
        map.append(name, value);
    }
    Ok(map)
}
