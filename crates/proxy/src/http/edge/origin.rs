//! Where a request came from: `x-forwarded-*`, `x-envoy-*`, and who counts as the client.
//!
//! The rules are those of Envoy's HTTP connection manager (`use_remote_address`,
//! `xff_num_trusted_hops`, `internal_address_config`), field by field.

use std::net::{IpAddr, SocketAddr};

use sluis_http1::{Fields, Known, Names, RequestHead};
use sluis_rules::HttpManager;

use crate::http::{
    site::Site,
    text::{address, ip, number, write_ip},
};

/// Fields that steer the router: believed from inside only.
const STEERING: [Known; 14] = [
    Known::XEnvoyRetriableStatusCodes,
    Known::XEnvoyRetriableHeaderNames,
    Known::XEnvoyRetryOn,
    Known::XEnvoyRetryGrpcOn,
    Known::XEnvoyMaxRetries,
    Known::XEnvoyUpstreamAltStatName,
    Known::XEnvoyUpstreamRqTimeoutMs,
    Known::XEnvoyUpstreamRqPerTryTimeoutMs,
    Known::XEnvoyUpstreamRqTimeoutAltResponse,
    Known::XEnvoyExpectedRqTimeoutMs,
    Known::XEnvoyForceTrace,
    Known::XEnvoyIpTags,
    Known::XEnvoyOriginalUrl,
    Known::XEnvoyHedgeOnPerTryTimeout,
];

/// Fields that only the mesh sets: not believed from outside of it.
const OF_THE_MESH: [Known; 5] = [
    Known::XEnvoyDecoratorOperation,
    Known::XEnvoyDownstreamServiceCluster,
    Known::XEnvoyDownstreamServiceNode,
    Known::XEnvoyOriginalPath,
    Known::XEnvoyOriginalHost,
];

/// What was found out of a request's way here.
#[derive(Clone, Copy, Debug)]
pub(in crate::http) struct Origin {
    /// The client as the manager trusts it: from the connection or from `x-forwarded-for`.
    pub(in crate::http) client: Option<SocketAddr>,
    /// Whether the request enters the mesh here.
    pub(in crate::http) is_edge: bool,
}

/// Sets the fields that say where the request came from.
pub(super) fn mark(site: Site<'_>, head: &mut RequestHead, text: &mut Vec<u8>) -> Origin {
    let manager = site.manager;
    let remote = address(&site.connection.remote);
    head.fields.remove(Known::XEnvoyInternal);
    let (found, may_be_internal) = if manager.use_remote_address {
        let is_alone = !head.fields.has(Known::XForwardedFor);
        let hops = manager.xff_trusted_hops;
        let trusted = (hops > 0).then(|| last_forwarded(&head.fields, hops - 1)).flatten();
        append_forwarded_for(site, head, remote, text);
        (trusted.map(|(ip, _)| SocketAddr::new(ip, 0)).or(remote), is_alone)
    } else {
        match last_forwarded(&head.fields, manager.xff_trusted_hops) {
            Some((ip, is_alone)) => (Some(SocketAddr::new(ip, 0)), is_alone),
            None => (None, false),
        }
    };
    set_protocol(site, head, text);
    let is_internal = may_be_internal && found.is_some_and(|at| is_internal(manager, at.ip()));
    let client = found.or(remote);
    let is_edge = manager.use_remote_address && !is_internal;
    if is_internal {
        head.fields.set_trusted(Known::XEnvoyInternal, b"true");
    } else {
        remove_steering(&mut head.fields, is_edge);
    }
    if let (true, Some(client)) = (is_edge, client) {
        ip(client.ip(), text);
        head.fields.set_trusted(Known::XEnvoyExternalAddress, text);
    }
    Origin { client, is_edge }
}

/// Envoy's default since 1.33: nobody is internal unless the configuration says who.
fn is_internal(manager: &HttpManager, ip: IpAddr) -> bool {
    let ranges = manager.internal_addresses.as_deref().unwrap_or_default();
    ranges.iter().any(|range| range.contains(ip))
}

fn remove_steering(fields: &mut Fields, is_edge: bool) {
    const STEERS: Names = Names::of(&STEERING);
    const TELLS: Names = Names::of(&OF_THE_MESH);
    if fields.has_any(STEERS) {
        STEERING.into_iter().for_each(|known| fields.remove(known));
    }
    if is_edge && fields.has_any(TELLS) {
        OF_THE_MESH.into_iter().for_each(|known| fields.remove(known));
    }
}

/// The address that stands so many places before the last in `x-forwarded-for`, and whether it is
/// the only one there.
fn last_forwarded(fields: &Fields, skips: u32) -> Option<(IpAddr, bool)> {
    let values: Vec<&[u8]> = fields.all(Known::XForwardedFor).collect();
    if values.is_empty() {
        return None;
    }
    let joined = values.join(&b","[..]);
    let mut list = std::str::from_utf8(&joined).ok()?;
    for _ in 0..skips {
        list = list.rsplit_once(',')?.0;
    }
    let last = list.rsplit_once(',').map_or(list, |(_, last)| last).trim();
    let is_alone = skips == 0 && !list.contains(',');
    last.parse().ok().map(|ip| (ip, is_alone))
}

fn append_forwarded_for(
    site: Site<'_>,
    head: &mut RequestHead,
    remote: Option<SocketAddr>,
    text: &mut Vec<u8>,
) {
    let Some(remote) = remote.filter(|_| !site.manager.skip_xff_append) else { return };
    // As in Envoy: who comes by loopback is this machine, and is named by its address.
    let ip = match remote.ip() {
        ip if ip.is_loopback() => site.worker.peek_config().settings.local_ip,
        ip => ip,
    };
    text.clear();
    for value in head.fields.all(Known::XForwardedFor) {
        text.extend_from_slice(value);
        text.push(b',');
    }
    write_ip(ip, text);
    head.fields.set_trusted(Known::XForwardedFor, text);
}

fn set_protocol(site: Site<'_>, head: &mut RequestHead, text: &mut Vec<u8>) {
    let manager = site.manager;
    let proto: &[u8] = if site.connection.tls_terminated { b"https" } else { b"http" };
    // What a proxy before us says counts only if one is trusted.
    let trusts = !manager.use_remote_address || manager.xff_trusted_hops > 0;
    if !trusts || !head.fields.has(Known::XForwardedProto) {
        head.fields.set_trusted(Known::XForwardedProto, proto);
    }
    if manager.append_x_forwarded_port
        && (!trusts || !head.fields.has(Known::XForwardedPort))
        && let Some(local) = address(&site.connection.local)
    {
        number(u64::from(local.port()), text);
        head.fields.set_trusted(Known::XForwardedPort, text);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_trusted_address_is_counted_from_the_end() {
        let mut fields = Fields::default();
        fields.append(b"x-forwarded-for", b"10.0.0.1, 10.0.0.2").unwrap();
        fields.append(b"x-forwarded-for", b"10.0.0.3").unwrap();
        let at = |skips| last_forwarded(&fields, skips).map(|(ip, alone)| (ip.to_string(), alone));
        assert_eq!(at(0), Some(("10.0.0.3".to_owned(), false)));
        assert_eq!(at(2), Some(("10.0.0.1".to_owned(), false)));
        assert_eq!(at(3), None);
        let mut one = Fields::default();
        one.append(b"x-forwarded-for", b"10.0.0.1").unwrap();
        assert!(last_forwarded(&one, 0).unwrap().1);
        let mut bad = Fields::default();
        bad.append(b"x-forwarded-for", b"somebody").unwrap();
        assert_eq!(last_forwarded(&bad, 0), None);
    }
}
