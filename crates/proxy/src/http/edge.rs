//! What the manager does to every request's head before anything decides by it.
//!
//! In:    a request head without its hop-by-hop fields, and the connection that it came on.
//! Out:   the head with `x-forwarded-*`, `x-request-id` and `x-envoy-*` as Envoy's manager sets
//!        them, a normal host and a normal path.
//! Never: trusts a field that only the mesh may set when it comes from outside.

use std::{
    io::Write as _,
    net::{IpAddr, SocketAddr},
    str,
};

use sluis_http1::{Known, Normal, RequestHead, normalize_path};
use sluis_rules::{Address, ClientCertRule, HttpManager, StripPort};
use tokio::time::Instant;

use super::{client::Protocol, facts::Facts, program::Program};
use crate::{conn::ConnectionFacts, worker::Worker};

/// Where a request is judged: its worker, manager and connection.
#[derive(Clone, Copy, Debug)]
pub(super) struct Site<'s> {
    pub(super) worker: &'s Worker,
    pub(super) program: &'s Program,
    pub(super) connection: &'s ConnectionFacts,
    /// What the client speaks.
    pub(super) protocol: Protocol,
    /// When the request began.
    pub(super) now: Instant,
    /// The number that decides on shares of requests: one for the whole request, as in Envoy.
    pub(super) draw: u64,
}

impl Site<'_> {
    pub(super) fn manager(&self) -> &HttpManager {
        &self.program.manager
    }

    /// The request as rules see it.
    pub(super) fn facts<'r>(&self, head: &'r RequestHead) -> Facts<'r> {
        Facts { head, scheme: self.scheme(head), draw: self.draw }
    }

    /// `https` when the client's TLS ends here, or when a proxy that we trust says so.
    pub(super) fn scheme(&self, head: &RequestHead) -> &'static str {
        let trusts = !self.manager().use_remote_address;
        match head.fields.get(Known::XForwardedProto) {
            Some(b"https") if trusts => "https",
            Some(b"http") if trusts => "http",
            _ if self.connection.tls_terminated => "https",
            _ => "http",
        }
    }
}

/// Sets the fields that say where the request came from.
pub(super) fn mark_origin(site: Site<'_>, head: &mut RequestHead, text: &mut Vec<u8>) {
    let manager = site.manager();
    let remote = address(&site.connection.remote);
    let is_internal = is_internal(manager, head, remote);
    let is_edge = manager.use_remote_address && !is_internal;
    if !is_internal {
        // CVE-2024-45806 and its kin: nobody outside may steer us by our own fields.
        remove_envoy_fields(head);
    }
    if manager.use_remote_address {
        append_forwarded_for(manager, head, remote, text);
    }
    let proto: &[u8] = if site.connection.tls_terminated { b"https" } else { b"http" };
    let trusts_proto = !manager.use_remote_address || manager.xff_trusted_hops > 0;
    if !trusts_proto || !head.fields.has(Known::XForwardedProto) {
        head.fields.set_trusted(Known::XForwardedProto, proto);
    }
    if manager.append_x_forwarded_port
        && !head.fields.has(Known::XForwardedPort)
        && let Some(local) = address(&site.connection.local)
    {
        number(u64::from(local.port()), text);
        head.fields.set_trusted(Known::XForwardedPort, text);
    }
    if is_edge {
        if let Some(remote) = remote {
            ip(remote.ip(), text);
            head.fields.set_trusted(Known::XEnvoyExternalAddress, text);
        }
    } else if is_internal {
        head.fields.set_trusted(Known::XEnvoyInternal, b"true");
    }
    set_request_id(site, head, is_edge, text);
    client_cert(site, head, text);
    if let Some(via) = &manager.via {
        head.fields.append_trusted(Known::Via, via.as_bytes());
    }
}

fn address(of: &Address) -> Option<SocketAddr> {
    match of {
        Address::Socket(address) => Some(*address),
        Address::Pipe(_) => None,
    }
}

/// Internal is only who comes directly from an address that was declared so.
fn is_internal(manager: &HttpManager, head: &RequestHead, remote: Option<SocketAddr>) -> bool {
    let (Some(ranges), Some(remote)) = (&manager.internal_addresses, remote) else { return false };
    !head.fields.has(Known::XForwardedFor) && ranges.iter().any(|range| range.contains(remote.ip()))
}

fn remove_envoy_fields(head: &mut RequestHead) {
    let is_envoy = |name: &[u8]| {
        name.len() > 8 && name[..8].eq_ignore_ascii_case(b"x-envoy-")
            // The mesh's own identity exchange, which says nothing that we act on.
            && !matches!(
                Known::of(name),
                Some(Known::XEnvoyPeerMetadata | Known::XEnvoyPeerMetadataId)
            )
    };
    if head.fields.iter().any(|(name, _)| is_envoy(name)) {
        head.fields.remove_where(|name, _| is_envoy(name));
    }
}

fn append_forwarded_for(
    manager: &HttpManager,
    head: &mut RequestHead,
    remote: Option<SocketAddr>,
    text: &mut Vec<u8>,
) {
    let Some(remote) = remote.filter(|_| !manager.skip_xff_append) else { return };
    text.clear();
    for value in head.fields.all(Known::XForwardedFor) {
        text.extend_from_slice(value);
        text.push(b',');
    }
    write_ip(remote.ip(), text);
    head.fields.set_trusted(Known::XForwardedFor, text);
}

fn set_request_id(site: Site<'_>, head: &mut RequestHead, is_edge: bool, text: &mut Vec<u8>) {
    let manager = site.manager();
    let has = head.fields.has(Known::XRequestId);
    let replaces = is_edge && !manager.preserve_external_request_id;
    if !manager.generate_request_id || (has && !replaces) {
        return;
    }
    uuid(site.worker.random().uuid(), text);
    head.fields.set_trusted(Known::XRequestId, text);
}

/// `x-forwarded-client-cert`: who the client is, said only by those who have verified it.
fn client_cert(site: Site<'_>, head: &mut RequestHead, text: &mut Vec<u8>) {
    let forward = &site.manager().client_cert;
    let peer = site.connection.peer.as_ref();
    let keeps = match forward.rule {
        ClientCertRule::AlwaysForwardOnly => true,
        ClientCertRule::ForwardOnly | ClientCertRule::AppendForward => peer.is_some(),
        ClientCertRule::Sanitize | ClientCertRule::SanitizeSet => false,
    };
    let (ClientCertRule::AppendForward | ClientCertRule::SanitizeSet, Some(peer)) =
        (forward.rule, peer)
    else {
        if !keeps {
            head.fields.remove(Known::XForwardedClientCert);
        }
        return;
    };
    text.clear();
    if keeps {
        for value in head.fields.all(Known::XForwardedClientCert) {
            text.extend_from_slice(value);
            text.push(b',');
        }
    }
    let element = text.len();
    let parts = peer
        .uris
        .iter()
        .filter(|_| forward.details.uri)
        .map(|uri| ("URI", uri))
        .chain(peer.dns_names.iter().filter(|_| forward.details.dns).map(|name| ("DNS", name)));
    for (key, value) in parts {
        // A name that could end its element says nothing at all.
        if value.bytes().all(|b| b.is_ascii_graphic() && !b",;=\"".contains(&b)) {
            if text.len() > element {
                text.push(b';');
            }
            // Writing to a Vec cannot fail.
            let _ = write!(text, "{key}={value}");
        }
    }
    head.fields.set_trusted(Known::XForwardedClientCert, text);
}

/// Gives the host its normal form.
pub(super) fn normalise_host(site: Site<'_>, head: &mut RequestHead, text: &mut Vec<u8>) {
    let options = site.manager().host;
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

/// Writes a number alone into `text`.
pub(super) fn number(value: u64, text: &mut Vec<u8>) {
    text.clear();
    text.extend_from_slice(itoa::Buffer::new().format(value).as_bytes());
}

fn ip(address: IpAddr, text: &mut Vec<u8>) {
    text.clear();
    write_ip(address, text);
}

fn write_ip(address: IpAddr, text: &mut Vec<u8>) {
    // Writing to a Vec cannot fail.
    let _ = write!(text, "{address}");
}

fn uuid(bits: u128, text: &mut Vec<u8>) {
    const HEX: &[u8; 16] = b"0123456789abcdef";
    text.clear();
    for digit in 0..32 {
        if matches!(digit, 8 | 12 | 16 | 20) {
            text.push(b'-');
        }
        text.push(HEX[(bits >> (124 - 4 * digit)) as usize & 15]);
    }
}

/// Lower-case text of a short ASCII value.
pub(super) fn lower(value: &[u8]) -> String {
    str::from_utf8(value).unwrap_or_default().to_ascii_lowercase()
}
