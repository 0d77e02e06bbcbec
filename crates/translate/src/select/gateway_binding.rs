//! Binds hosts to the TLS options of their server, so that no client gets past them by another name.
//!
//! In:    the TLS servers of a gateway, and their route tables.
//! Out:   in the table of a server with a wider host, an answer 421 for the hosts of a server with other
//!        options.
//! Never: touches servers that terminate TLS alike: there a connection may carry both hosts' requests.
//!
//! A client that says `*.example.com`'s name in its hello and another server's in its request would be
//! served without the certificate which that server demands (RFC 9110 §15.5.20; Traefik's
//! CVE-2026-48491). Istio serves it.

use std::{collections::BTreeMap, net::IpAddr};

use sluis_nouns::HostPattern;

use super::http;
use crate::{HeaderChanges, RouteAction, RouteInput, RouteTable, ServerTls, VirtualHostInput};

/// `Misdirected Request`.
const MISDIRECTED: u32 = 421;

/// A server that terminates TLS and reads HTTP.
pub(super) struct Terminating {
    pub(super) place: (IpAddr, u16),
    /// The port that users know.
    pub(super) port: u16,
    /// The name of its route table.
    pub(super) table: String,
    pub(super) hosts: Vec<HostPattern>,
    pub(super) tls: ServerTls,
}

impl Terminating {
    /// Whether both ask the same of clients. Certificates of their own may differ.
    fn is_alike(&self, other: &Self) -> bool {
        let asked = |tls: &ServerTls| ServerTls { certificates: Vec::new(), ..tls.clone() };
        asked(&self.tls) == asked(&other.tls)
    }

    /// Whether a host of the other is below one of this server's: its connections could ask for it.
    fn is_wider(&self, host: &HostPattern) -> bool {
        self.hosts.iter().any(|own| own != host && own.covers(host))
    }
}

/// Refuses, in each table, requests for hosts whose own server asks something else of clients.
pub(super) fn bind(servers: &[Terminating], tables: &mut BTreeMap<String, RouteTable>) {
    for server in servers {
        let others = servers.iter().filter(|other| {
            other.place == server.place && other.table != server.table && !server.is_alike(other)
        });
        let mut hosts: Vec<&HostPattern> = others.flat_map(|other| &other.hosts).collect();
        hosts.retain(|host| server.is_wider(host));
        hosts.sort();
        hosts.dedup();
        let Some(table) = tables.get_mut(&server.table) else { continue };
        for host in hosts {
            refuse(table, host, server.port);
        }
    }
}

fn refuse(table: &mut RouteTable, host: &HostPattern, port: u16) {
    let is_below =
        |domain: &String| domain.parse::<HostPattern>().is_ok_and(|domain| host.covers(&domain));
    for other in &mut table.hosts {
        other.domains.retain(|domain| !is_below(domain));
    }
    table.hosts.retain(|other| !other.domains.is_empty());
    table.hosts.push(VirtualHostInput {
        name: format!("misdirected:{host}:{port}"),
        domains: vec![host.to_string()],
        is_tls_required: false,
        routes: vec![RouteInput {
            name: "misdirected".to_owned(),
            matches: http::match_all(),
            action: RouteAction::Respond { status: MISDIRECTED, body: None },
            headers: HeaderChanges::default(),
            config: None,
            operation: format!("misdirected:{port}/*"),
            stat_prefix: None,
            fault: None,
            cors: None,
            guard: None,
        }],
    });
}
