//! Reads Gateway.

use std::net::IpAddr;

use sluis_nouns::{HostPattern, is_dns_label};

use super::shared::{some_of, unique};
use super::{checked, read_fields};
use crate::kinds::gateway::{Gateway, GatewayHost, HostScope, Server, ServerPort};
use crate::kinds::shared::Protocol;
use crate::kinds::tls::{ServerTls, ServerTlsMode};
use crate::value::{Fields, Read, Value};

read_fields! {
    Gateway => gateway,
    Server => server,
    ServerPort => server_port,
}

fn gateway(fields: &mut Fields<'_, '_>) -> Option<Gateway> {
    let selector = fields.or_default("selector");
    let servers: Option<Vec<Server>> = some_of(fields, "servers");
    let names = servers.iter().flatten().map(|server| server.port.name.as_str());
    unique(fields, "servers", names, "the port name");
    Some(Gateway { selector, servers: servers? })
}

fn server(fields: &mut Fields<'_, '_>) -> Option<Server> {
    let name = fields.opt("name");
    let port: Option<ServerPort> = fields.req("port");
    let bind = fields.get("bind").and_then(|value| checked(&value, bind_address));
    let hosts = some_of(fields, "hosts");
    let tls: Option<ServerTls> = fields.opt("tls");
    fields.without_effect(&["defaultEndpoint"]);
    let default_endpoint = fields.opt("defaultEndpoint");
    if let Some(port) = &port {
        check_tls(fields, port.protocol, tls.as_ref());
    }
    let at = fields.at();
    Some(Server { at, name, port: port?, bind, hosts: hosts?, tls, default_endpoint })
}

/// Istio's rule: HTTPS and TLS need `tls`, HTTP takes it only to redirect, others not at all.
fn check_tls(fields: &mut Fields<'_, '_>, protocol: Protocol, tls: Option<&ServerTls>) {
    let written = fields.get("tls");
    match (tls, written) {
        (None, None) if protocol.is_tls() => {
            fields.fault_at("tls", format!("a port with protocol {protocol} needs TLS settings"));
        }
        (Some(tls), Some(value))
            if protocol.is_http()
                && (!tls.https_redirect || tls.mode != ServerTlsMode::Passthrough) =>
        {
            value.fault::<()>("on a plain HTTP port only httpsRedirect can be set");
        }
        (Some(_), Some(value)) if !protocol.is_http() && !protocol.is_tls() => {
            value.fault::<()>(format!("a port with protocol {protocol} takes no TLS settings"));
        }
        _ => {}
    }
}

fn bind_address(text: &str) -> Result<String, String> {
    if text.starts_with("unix://") || text.parse::<IpAddr>().is_ok() {
        return Ok(text.to_owned());
    }
    Err(format!("{text:?} is neither an IP address nor unix://PATH"))
}

fn server_port(fields: &mut Fields<'_, '_>) -> Option<ServerPort> {
    let at = fields.get("number").map_or_else(|| fields.at(), |value| value.at());
    let number = fields.req("number");
    let protocol = fields.req("protocol");
    let name: Option<String> = fields.req("name");
    // Istio's own word: of no effect. A Service says where a port leads.
    fields.without_effect(&["targetPort"]);
    let target_port = fields.opt("targetPort");
    Some(ServerPort { at, number: number?, protocol: protocol?, name: name?, target_port })
}

impl Read for GatewayHost {
    fn read(value: &Value<'_>) -> Option<Self> {
        checked(value, |text| {
            let (scope, host) = match text.split_once('/') {
                None => (HostScope::Any, text),
                Some(("*", host)) => (HostScope::Any, host),
                Some((".", host)) => (HostScope::Same, host),
                Some((namespace, host)) if is_dns_label(namespace) => {
                    (HostScope::Namespace(namespace.to_owned()), host)
                }
                Some((other, _)) => {
                    return Err(format!("{other:?} is neither a namespace nor one of * and ."));
                }
            };
            let host: HostPattern = host.parse().map_err(|error| format!("{error}"))?;
            Ok(Self { scope, host, at: value.at() })
        })
    }
}
