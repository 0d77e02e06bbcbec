//! What the manager does to every request's head before anything decides by it.
//!
//! In:    a request head without its hop-by-hop fields, and the connection that it came on.
//! Out:   the head with `x-forwarded-*`, `x-request-id` and `x-envoy-*` as Envoy's manager sets
//!        them, a normal host and a normal path.
//! Never: trusts a field that only the mesh may set when it comes from outside.

mod cert;
mod origin;

use std::{io::Write as _, net::SocketAddr};

use sluis_http1::{Known, Normal, RequestHead, normalize_path};
use sluis_rules::StripPort;

use super::{
    site::Site,
    text::{address, uuid},
};
use origin::Origin;

/// Sets the fields that say where the request came from. Returns the client as it is trusted.
pub(super) fn mark_origin(
    site: Site<'_>,
    head: &mut RequestHead,
    text: &mut Vec<u8>,
) -> Option<SocketAddr> {
    let Origin { client, is_edge } = origin::mark(site, head, text);
    clean(head);
    set_request_id(site, head, is_edge, text);
    cert::mark(site, head, text);
    if let Some(via) = &site.manager.via {
        text.clear();
        for value in head.fields.all(Known::Via) {
            text.extend_from_slice(value);
            text.extend_from_slice(b", ");
        }
        text.extend_from_slice(via.as_bytes());
        head.fields.set_trusted(Known::Via, text);
    }
    client
}

/// Whether the client reads trailers: all that Envoy passes on of `te`.
pub(super) fn takes_trailers(head: &RequestHead) -> bool {
    let is_trailers = |coding: &[u8]| {
        let name = coding.split(|byte| *byte == b';').next().unwrap_or_default();
        name.trim_ascii().eq_ignore_ascii_case(b"trailers")
    };
    let mut values = head.fields.all(Known::Te);
    values.any(|value| value.split(|byte| *byte == b',').any(is_trailers))
}

/// As in Envoy: fields that are one list are one field, and a referer that is no URL does not go on.
fn clean(head: &mut RequestHead) {
    let fields = &mut head.fields;
    for known in [Known::XForwardedFor, Known::XForwardedProto, Known::XForwardedHost] {
        if fields.all(known).nth(1).is_some() {
            let values: Vec<&[u8]> = fields.all(known).collect();
            let joined = values.join(&b","[..]);
            fields.set_trusted(known, &joined);
        }
    }
    if fields.has(Known::Referer) {
        let mut values = fields.all(Known::Referer);
        let is_url = |value: &[u8]| {
            let scheme = [&b"http://"[..], b"https://"];
            let rest = scheme.iter().find_map(|scheme| {
                let (start, rest) = value.split_at_checked(scheme.len())?;
                start.eq_ignore_ascii_case(scheme).then_some(rest)
            });
            rest.is_some_and(|rest| !rest.is_empty() && rest[0] != b'/')
        };
        let is_good = values.next().is_some_and(is_url) && values.next().is_none();
        drop(values);
        if !is_good {
            fields.remove(Known::Referer);
        }
    }
}

fn set_request_id(site: Site<'_>, head: &mut RequestHead, is_edge: bool, text: &mut Vec<u8>) {
    let manager = site.manager;
    let has = head.fields.has(Known::XRequestId);
    let replaces = is_edge && !manager.preserve_external_request_id;
    if !manager.generate_request_id || (has && !replaces) {
        return;
    }
    uuid(site.worker.random().uuid(), text);
    head.fields.set_trusted(Known::XRequestId, text);
}

/// Gives the host its normal form.
pub(super) fn normalise_host(site: Site<'_>, head: &mut RequestHead, text: &mut Vec<u8>) {
    let options = site.manager.host;
    if options.strip_port == StripPort::Never && !options.strip_trailing_dot {
        return;
    }
    let Ok(parsed) = sluis_http1::Authority::parse(head.authority()) else { return };
    let own_port = address(&site.connection.local).map(|local| local.port());
    let strips_port = match options.strip_port {
        StripPort::Never => false,
        StripPort::Matching => parsed.port.is_some() && parsed.port == own_port,
        StripPort::Any => true,
    };
    let host = match parsed.host.strip_suffix(b".") {
        Some(host) if options.strip_trailing_dot && !host.is_empty() => host,
        _ => parsed.host,
    };
    text.clear();
    text.extend_from_slice(host);
    if let (false, Some(port)) = (strips_port, parsed.port) {
        // Writing to a Vec cannot fail.
        let _ = write!(text, ":{port}");
    }
    if text != head.authority() {
        // It was an authority before and is a part of it now.
        let _ = head.set_authority(text);
    }
}

/// What became of the path.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Path {
    Good,
    Bad,
    /// The client is to be sent to the normal form, which the head has now.
    Redirect,
}

/// Gives the path its normal form, for every decision and for the endpoint.
pub(super) fn normalise_path(site: Site<'_>, head: &mut RequestHead, text: &mut Vec<u8>) -> Path {
    let normal = normalize_path(head.path(), site.program.paths, text);
    match normal {
        Ok(Normal::Unchanged) => Path::Good,
        Ok(_) if head.set_path(text).is_err() => Path::Bad,
        Ok(Normal::Changed) => Path::Good,
        Ok(Normal::Redirect) => Path::Redirect,
        Err(_) => Path::Bad,
    }
}
