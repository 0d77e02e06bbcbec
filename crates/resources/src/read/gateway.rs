//! Reads Gateway.

use std::net::IpAddr;

use sluis_nouns::{HostPattern, is_dns_label};

use super::forms::{checked, read_fields};
use super::service_entry::unix;
use super::shared::{some_of, unique};
use super::virtual_service::entry;
use crate::kinds::gateway::{Gateway, GatewayHost, HostScope, Server, ServerPort};
use crate::kinds::shared::Protocol;
use crate::kinds::tls::{ServerTls, ServerTlsMode, TlsFiles};
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
    let bind: Option<String> = fields.opt("bind");
    let is_socket = bind.is_some_and(|bind| bind.starts_with(UNIX));
    let port: Option<ServerPort> = fields.req("port");
    if let Some(value) = fields.get("port")
        && let Some(number) = port.as_ref().map(|port| port.number)
        && (number == 0) != is_socket
    {
        value.fault::<()>(if is_socket {
            "the port of a unix socket has the number 0"
        } else {
            "0 is not a port: it must be 1 to 65535"
        });
    }
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
        (Some(tls), Some(value)) if protocol.is_http() => {
            use ServerTlsMode::{AutoPassthrough, Passthrough};
            let passes = matches!(tls.mode, Passthrough | AutoPassthrough);
            if !passes || tls.files != TlsFiles::default() {
                value.fault::<()>("on a plain HTTP port only httpsRedirect can be set");
            }
        }
        (Some(tls), Some(_)) if protocol.is_tls() && tls.https_redirect => {
            fields.get("tls").and_then(|value| entry(&value, "httpsRedirect")).inspect(|value| {
                value.warn("this has no effect: only plain HTTP is redirected");
            });
        }
        (Some(_), Some(value)) if !protocol.is_http() && !protocol.is_tls() => {
            value.fault::<()>(format!("a port with protocol {protocol} takes no TLS settings"));
        }
        _ => {}
    }
}

const UNIX: &str = "unix://";

fn bind_address(text: &str) -> Result<String, String> {
    if text.parse::<IpAddr>().is_ok() {
        return Ok(text.to_owned());
    }
    if let Some(path) = text.strip_prefix(UNIX) {
        return unix(path).map(|_| text.to_owned());
    }
    Err(format!("{text:?} is neither an IP address nor unix://PATH"))
}

fn server_port(fields: &mut Fields<'_, '_>) -> Option<ServerPort> {
    let at = fields.get("number").map_or_else(|| fields.at(), |value| value.at());
    // 0 is possible for a unix socket.
    let number: Option<u32> = fields.req("number");
    let number = number.and_then(|number| match u16::try_from(number) {
        Ok(number) => Some(number),
        Err(_) => {
            fields.get("number")?.fault(format!("{number} is not a port: it must be 1 to 65535"))
        }
    });
    let protocol = fields.req("protocol");
    let name: Option<String> = fields.req("name");
    if name.as_deref() == Some("")
        && let Some(value) = fields.get("name")
    {
        value.fault::<()>("a name must not be empty");
    }
    if let Some(value) = fields.get("targetPort")
        && value.is_set()
    {
        value.fault::<()>("a Gateway's port has no targetPort: the Service says where it leads");
    }
    let target_port = None;
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
            if host != "*" && !host.contains(['.', ':']) {
                return Err(format!("{host:?} is a short name: a full one is expected"));
            }
            if host.len() > 1 && host.starts_with('*') && !host.starts_with("*.") {
                return Err(format!("{host:?}: the star must stand for whole labels"));
            }
            let host: HostPattern = host.parse().map_err(|error| format!("{error}"))?;
            Ok(Self { scope, host, at: value.at() })
        })
    }
}
