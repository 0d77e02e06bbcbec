//! What a gateway listens for: the servers of the Gateways that select it.
//!
//! In:    Gateways by the proxy's labels, the Services in front of it, the VirtualServices bound to them.
//! Out:   a listener for each port, with a chain for each server or server name; route tables.
//! Never: serves a host on one port twice: the first server wins, and the other is named in a fault.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
};

use sluis_model::Owned;
use sluis_nouns::HostPattern;
use sluis_resources::{Gateway, Server, ServerTlsMode};

use super::{
    Selection, config_path, gateway_binding,
    gateway_binding::Terminating,
    gateway_bytes, gateway_http, inner,
    listeners::Listeners,
    secrets, server_tls,
    serving::{Serving, listener_name, own_address, refuse, wildcard_name},
    tls,
};
use crate::{ChainInput, Fault, Handler, ListenerInput, RouteTable, ServerTls};

/// What a server does with connections.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Treatment {
    /// Reads HTTP in the clear.
    PlainHttp,
    /// Terminates TLS and reads HTTP.
    Https,
    /// Forwards TLS by its server name.
    Passthrough,
    /// Forwards the mesh's own TLS by its server name.
    AutoPassthrough,
    /// Terminates TLS and forwards the bytes.
    TerminatedBytes,
    /// Forwards the bytes.
    PlainBytes,
}

/// The listeners and route tables of a gateway.
pub(super) fn select(selection: &mut Selection<'_>) -> (Vec<ListenerInput>, Vec<RouteTable>) {
    let snapshot = selection.snapshot;
    let gateways: Vec<&Owned<Gateway>> =
        snapshot.gateways(&selection.view.name.namespace, &selection.view.labels).collect();
    let mut listeners = Listeners::default();
    let mut inner = inner::Inner::default();
    let mut tables: BTreeMap<String, RouteTable> = BTreeMap::new();
    let mut treated: BTreeMap<(IpAddr, u16), Treatment> = BTreeMap::new();
    let mut terminating = Vec::new();
    let mut hosts_on: BTreeMap<(IpAddr, u16), BTreeSet<HostPattern>> = BTreeMap::new();
    for gateway in gateways {
        for server in &gateway.spec().servers {
            let Some(serving) = serving(selection, gateway, server) else { continue };
            let place = (serving.address, serving.port);
            let treatment = treatment(&serving);
            let first = *treated.entry(place).or_insert(treatment);
            if let Err(message) = shared(first, treatment) {
                // The very first server of a port shares with itself.
                if listeners.has(place.0, place.1) || first != treatment {
                    refuse(selection, &serving, "port", message.to_owned());
                    continue;
                }
            }
            if server.tls.is_some() {
                let taken = hosts_on.entry(place).or_default();
                let hosts = server.hosts.iter().map(|host| host.host.clone());
                if hosts.clone().any(|host| taken.contains(&host)) {
                    let message = "an older server has one of the hosts on this port, and keeps it";
                    refuse(selection, &serving, "hosts", message.to_owned());
                    continue;
                }
                taken.extend(hosts);
            }
            report_unused(selection, &serving);
            listeners.know(serving.address, serving.port, serving.port);
            listeners.know(serving.address, serving.port, server.port.number);
            serve(selection, &serving, treatment, (&mut listeners, &mut inner), &mut tables);
            let table = gateway_http::table_name(&serving);
            if treatment == Treatment::Https
                && tables.contains_key(&table)
                && let Some(tls) = terminated(selection, &serving, true)
            {
                let hosts = server.hosts.iter().map(|host| host.host.clone()).collect();
                terminating.push(Terminating {
                    place,
                    port: server.port.number,
                    table,
                    hosts,
                    tls,
                });
            }
        }
    }
    gateway_binding::bind(&terminating, &mut tables);
    let tables = tables.into_values().map(gateway_http::finish).collect();
    let mut listeners = listeners.finish(true, None);
    selection.widen(&mut listeners);
    let own = own_address(selection);
    for listener in listeners.iter_mut().filter(|listener| listener.address == own) {
        listener.name = wildcard_name(selection, listener.port);
    }
    listeners.extend(inner.finish());
    listeners.sort_by(|a, b| a.name.cmp(&b.name));
    (listeners, tables)
}

/// Whether two servers can share a port: plain HTTP with plain HTTP, and TLS with TLS.
fn shared(first: Treatment, second: Treatment) -> Result<(), &'static str> {
    let is_plain = |one| matches!(one, Treatment::PlainHttp | Treatment::PlainBytes);
    match (first, second) {
        (Treatment::PlainHttp, Treatment::PlainHttp) => Ok(()),
        _ if !is_plain(first) && !is_plain(second) => Ok(()),
        _ if is_plain(first) != is_plain(second) => {
            Err("another server has the port, and TLS and plain text cannot share")
        }
        _ => Err("another server has the port, and only HTTP servers share one"),
    }
}

/// Names what is written and has no effect.
fn report_unused(selection: &mut Selection<'_>, serving: &Serving<'_>) {
    if serving.server.default_endpoint.is_some() {
        let message = "of no effect: a gateway sends traffic where VirtualServices say";
        let fault = Fault::warning(serving.server.at.clone(), message);
        selection.fault(serving.gateway.meta(), fault.field("spec.servers.defaultEndpoint"));
    }
}

/// The port at which a server is served: a Service that selects the proxy translates the port that
/// users know into the one that is bound (the first such Service, as in Istio); without one it is
/// bound as it is.
fn serving<'a>(
    selection: &mut Selection<'_>,
    gateway: &'a Owned<Gateway>,
    server: &'a Server,
) -> Option<Serving<'a>> {
    let view = selection.view;
    let address = match server.bind.as_deref().map(str::parse::<IpAddr>) {
        None => own_address(selection),
        Some(Ok(address)) if address.is_unspecified() => own_address(selection),
        Some(Ok(address)) => address,
        Some(Err(_)) => {
            let fault =
                Fault::error(server.at.clone(), "not an IP address: the server is not served");
            selection.fault(gateway.meta(), fault.field("spec.servers.bind"));
            return None;
        }
    };
    let port = selection.snapshot.services_selecting(&view.name.namespace, &view.labels).find_map(
        |service| {
            let port = service.port(server.port.number)?;
            selection.snapshot.own_port(&view.name, service, port)
        },
    );
    let port = port.unwrap_or(server.port.number);
    Some(Serving { gateway, server, address, port })
}

fn treatment(serving: &Serving<'_>) -> Treatment {
    let protocol = serving.server.port.protocol;
    let mode = serving.server.tls.as_ref().map(|tls| tls.mode);
    if protocol.is_http() {
        return Treatment::PlainHttp;
    }
    match (mode, protocol.is_tls()) {
        (None, false) => Treatment::PlainBytes,
        (Some(ServerTlsMode::AutoPassthrough), _) => Treatment::AutoPassthrough,
        (Some(ServerTlsMode::Passthrough) | None, _) => Treatment::Passthrough,
        (Some(_), _) if protocol == sluis_resources::Protocol::Https => Treatment::Https,
        (Some(_), _) => Treatment::TerminatedBytes,
    }
}

fn serve(
    selection: &mut Selection<'_>,
    serving: &Serving<'_>,
    treatment: Treatment,
    (listeners, inner): (&mut Listeners, &mut inner::Inner),
    tables: &mut BTreeMap<String, RouteTable>,
) {
    let chains = match treatment {
        Treatment::PlainHttp => {
            let name = format!("http.{}", serving.port);
            gateway_http::add_server(selection, serving, &name, tables);
            // Servers of one port share the chain: their hosts are told apart by the route table.
            if listeners.has(serving.address, serving.port) {
                return;
            }
            vec![http_chain(selection, serving, name, None)]
        }
        Treatment::Https => match terminated(selection, serving, true) {
            None => return,
            Some(tls) => {
                let name = gateway_http::table_name(serving);
                gateway_http::add_server(selection, serving, &name, tables);
                let chain = http_chain(selection, serving, name, Some(tls));
                let door = inner::door(selection, serving, &chain, inner);
                std::iter::once(chain).chain(door).collect()
            }
        },
        Treatment::TerminatedBytes => match terminated(selection, serving, false) {
            None => return,
            Some(tls) => gateway_bytes::plain(selection, serving, Some(&tls)),
        },
        Treatment::PlainBytes => gateway_bytes::plain(selection, serving, None),
        Treatment::Passthrough => gateway_bytes::passthrough(selection, serving),
        Treatment::AutoPassthrough => gateway_bytes::automatic(selection, serving),
    };
    for mut chain in chains {
        // As in Istio: what only passes through is not looked into. What is inside is, there.
        let is_looked_into = treatment != Treatment::AutoPassthrough && !inner::is_door(&chain);
        let own = is_looked_into.then(|| selection.authorization());
        chain.authorization.extend(own.filter(|own| !own.is_empty()));
        for (name, _) in listeners.add(serving.address, serving.port, "", true, chain) {
            let what = if name.is_empty() { "connections".to_owned() } else { name };
            let message = format!("{what} are claimed by an older route, which keeps them");
            refuse(selection, serving, "hosts", message);
        }
    }
}

fn terminated(
    selection: &mut Selection<'_>,
    serving: &Serving<'_>,
    is_http: bool,
) -> Option<ServerTls> {
    let written = serving.server.tls.as_ref()?;
    match server_tls::server(written, is_http, selection.snapshot.mesh()) {
        Ok(tls) => {
            for name in tls.certificates.iter().chain(&tls.client_roots) {
                let meta = serving.gateway.meta();
                selection.askers.entry(name.clone()).or_insert_with(|| secrets::Asker {
                    resource: format!("{} {}", meta.kind, meta.name),
                    at: written.at.clone(),
                    field: "spec.servers.tls.credentialName".to_owned(),
                });
            }
            Some(tls)
        }
        Err((field, message)) => {
            refuse(selection, serving, field, message);
            None
        }
    }
}

fn http_chain(
    selection: &Selection<'_>,
    serving: &Serving<'_>,
    routes: String,
    tls: Option<ServerTls>,
) -> ChainInput {
    let is_https = tls.is_some();
    let server_names = if is_https { tls::server_names(serving.server) } else { Vec::new() };
    let own = serving.server.name.clone().filter(|name| is_https && !name.is_empty());
    let listener = listener_name(selection, serving);
    let stat_prefix = own.unwrap_or_else(|| format!("outbound_{listener};"));
    ChainInput {
        name: routes.clone(),
        server_names,
        subnets: Vec::new(),
        is_plain_only: false,
        alpn: Vec::new(),
        tls,
        handler: Handler::Http { routes, stat_prefix, is_edge: true },
        config: Some(config_path("gateway", serving.gateway.meta())),
        authorization: Vec::new(),
        has_guards: false,
    }
}
