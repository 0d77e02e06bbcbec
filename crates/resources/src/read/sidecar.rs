//! Reads Sidecar.

use std::collections::BTreeSet;
use std::net::IpAddr;

use sluis_nouns::{HostPattern, is_dns_label, is_dns_name};

use super::forms::{checked, read_fields, read_names};
use super::service_entry::unix;
use super::shared::{WorkloadSelector, some_of};
use super::virtual_service::entry;
use crate::kinds::gateway::HostScope;
use crate::kinds::mesh_config::OutboundTrafficPolicy;
use crate::kinds::shared::Protocol;
use crate::kinds::sidecar::{
    CaptureMode, DefaultEndpoint, EgressListener, ImportedHost, IngressListener, Sidecar,
    SidecarOutboundPolicy, SidecarPort,
};
use crate::kinds::tls::{ServerTls, ServerTlsMode};
use crate::value::{Fields, Read, Value};

read_fields! {
    Sidecar => sidecar,
    IngressListener => ingress,
    EgressListener => egress,
    SidecarPort => port,
    SidecarOutboundPolicy => outbound,
}

read_names! {
    CaptureMode {
        "DEFAULT" => CaptureMode::Default,
        "IPTABLES" => CaptureMode::Iptables,
        "NONE" => CaptureMode::None,
    }
}

const UNIX: &str = "unix://";

fn sidecar(fields: &mut Fields<'_, '_>) -> Option<Sidecar> {
    let selector = fields.opt("workloadSelector").map(|WorkloadSelector(labels)| labels);
    let listeners =
        ["egress", "ingress"].map(|name| fields.get(name).is_some_and(|value| value.is_set()));
    let sections = ["outboundTrafficPolicy", "inboundConnectionPool"].map(|name| fields.has(name));
    if !listeners.contains(&true) && !sections.contains(&true) {
        fields.value().fault::<()>(
            "one of egress, ingress, outboundTrafficPolicy and inboundConnectionPool is required",
        );
    }
    if selector.as_ref().is_some_and(|labels| labels.is_empty())
        && let Some(value) = fields.get("workloadSelector")
    {
        value.warn("a selector without labels selects all workloads of the namespace");
    }
    let sidecar = Sidecar {
        workload_selector: selector.filter(|labels| !labels.is_empty()),
        ingress: fields.or_default("ingress"),
        egress: fields.or_default("egress"),
        outbound_traffic_policy: fields.opt("outboundTrafficPolicy"),
        inbound_connection_pool: fields.opt("inboundConnectionPool"),
    };
    check_ingress_ports(fields, &sidecar);
    check_egress_ports(fields, &sidecar);
    Some(sidecar)
}

const SAME_PORT: &str = "two listeners have this port";

fn check_ingress_ports(fields: &mut Fields<'_, '_>, sidecar: &Sidecar) {
    let items = fields.get("ingress").and_then(|value| value.items()).unwrap_or_default();
    let mut seen = BTreeSet::new();
    for (listener, item) in sidecar.ingress.iter().zip(&items) {
        if !seen.insert(listener.port.number)
            && let Some(port) = entry(item, "port")
        {
            port.fault::<()>(SAME_PORT);
        }
    }
}

/// Istio: ports (of unix sockets: paths) are unique, and the listener without a port is the last.
fn check_egress_ports(fields: &mut Fields<'_, '_>, sidecar: &Sidecar) {
    let items = fields.get("egress").and_then(|value| value.items()).unwrap_or_default();
    let (mut ports, mut sockets) = (BTreeSet::new(), BTreeSet::new());
    for (index, (listener, item)) in sidecar.egress.iter().zip(&items).enumerate() {
        let is_new = match &listener.port {
            None if index + 1 < items.len() => {
                item.fault::<()>("a listener without a port must be the last of the list");
                true
            }
            None => true,
            Some(port) if port.number == 0 => sockets.insert(&listener.bind),
            Some(port) => ports.insert(port.number),
        };
        if !is_new && let Some(port) = entry(item, "port") {
            port.fault::<()>(SAME_PORT);
        }
    }
}

fn ingress(fields: &mut Fields<'_, '_>) -> Option<IngressListener> {
    let port: Option<SidecarPort> = fields.req("port");
    if port.as_ref().is_some_and(|port| port.number == 0)
        && let Some(value) = fields.get("port")
    {
        value.fault::<()>("0 is not a port: it must be 1 to 65535");
    }
    let bind = fields.get("bind").and_then(|value| checked(&value, ip));
    let capture_mode = fields.or_default("captureMode");
    let endpoint = fields.get("defaultEndpoint").and_then(|value| checked(&value, endpoint));
    let tls: Option<ServerTls> = fields.opt("tls");
    let connection_pool = fields.opt("connectionPool");
    if let (Some(tls), Some(port)) = (&tls, &port) {
        check_tls(fields, tls, port.protocol);
    }
    let at = fields.at();
    let port = port?;
    Some(IngressListener {
        at,
        port,
        bind,
        capture_mode,
        default_endpoint: endpoint,
        tls,
        connection_pool,
    })
}

/// Istio's rules for TLS of a sidecar: the files of the workload, and nothing of a gateway.
fn check_tls(fields: &mut Fields<'_, '_>, tls: &ServerTls, protocol: Protocol) {
    let Some(value) = fields.get("tls") else { return };
    for name in
        ["subjectAltNames", "httpsRedirect", "credentialName", "credentialNames", "tlsCertificates"]
    {
        if let Some(value) = entry(&value, name)
            && value.is_set()
        {
            value.fault::<()>("this is not possible for a sidecar");
        }
    }
    if matches!(tls.mode, ServerTlsMode::IstioMutual | ServerTlsMode::AutoPassthrough) {
        value.fault::<()>("this mode is not possible for a sidecar");
    }
    if !protocol.is_tls() {
        value.fault::<()>(format!("a port with protocol {protocol} takes no TLS settings"));
    }
}

fn egress(fields: &mut Fields<'_, '_>) -> Option<EgressListener> {
    let port: Option<SidecarPort> = fields.opt("port");
    let bind: Option<String> = fields.opt("bind");
    let capture_mode = fields.or_default("captureMode");
    let hosts: Option<Vec<ImportedHost>> = some_of(fields, "hosts");
    check_bind(fields, port.as_ref(), bind.as_deref(), capture_mode);
    tell_duplicates(fields, hosts.as_deref().unwrap_or_default());
    Some(EgressListener { at: fields.at(), port, bind, capture_mode, hosts: hosts? })
}

/// Istio: port 0 means a unix socket, which cannot be captured; other ports are bound to addresses.
fn check_bind(
    fields: &mut Fields<'_, '_>,
    port: Option<&SidecarPort>,
    bind: Option<&str>,
    mode: CaptureMode,
) {
    let (Some(port), written) = (port, fields.get("bind")) else { return };
    if port.number != 0 {
        if let Some(value) = written {
            checked(&value, ip);
        }
        return;
    }
    match (bind.and_then(|bind| bind.strip_prefix(UNIX)), written) {
        (Some(path), Some(value)) => {
            if let Err(message) = unix(path) {
                value.fault::<()>(message);
            }
        }
        _ => fields.fault_at("bind", "port 0 needs bind: unix://PATH"),
    }
    if mode == CaptureMode::Iptables
        && let Some(value) = fields.get("captureMode")
    {
        value.fault::<()>("a unix socket cannot be captured: only DEFAULT and NONE are possible");
    }
}

fn tell_duplicates(fields: &mut Fields<'_, '_>, hosts: &[ImportedHost]) {
    let items = fields.get("hosts").and_then(|value| value.items()).unwrap_or_default();
    let own = fields.value().doc.namespace.clone();
    let mut seen = BTreeSet::new();
    for (host, item) in hosts.iter().zip(items) {
        let namespace = match &host.namespace {
            HostScope::Same => HostScope::Namespace(own.clone()),
            other => other.clone(),
        };
        if !host.exclude && !seen.insert((namespace, host.host.clone())) {
            item.warn("this host is there twice");
        }
    }
}

fn port(fields: &mut Fields<'_, '_>) -> Option<SidecarPort> {
    let at = fields.at();
    let number: Option<u32> = fields.opt("number");
    if let Some(value) = fields.get("number")
        && number.is_some_and(|number| number > u32::from(u16::MAX))
    {
        value.fault::<()>("this is not a port: it must be 1 to 65535");
    }
    let number = u16::try_from(number.unwrap_or_default()).ok();
    let protocol: Option<Protocol> = match fields.get("protocol") {
        Some(value) if value.is_set() => value.read(),
        _ => Some(Protocol::Unknown),
    };
    let name: String = fields.or_default("name");
    if !name.is_empty()
        && !is_dns_label(&name)
        && let Some(value) = fields.get("name")
    {
        value.fault::<()>(format!("{name:?} is not a port's name: it must be a DNS label"));
    }
    if let Some(value) = fields.get("targetPort")
        && value.read::<u32>().is_some_and(|port| port > 0)
    {
        value
            .fault::<()>("a Sidecar's port has no targetPort: defaultEndpoint says where it leads");
    }
    Some(SidecarPort { at, number: number?, protocol: protocol?, name })
}

impl Read for ImportedHost {
    fn read(value: &Value<'_>) -> Option<Self> {
        checked(value, |text| {
            let Some((namespace, host)) = text.split_once('/') else {
                return Err(format!("{text:?} must have the form namespace/host"));
            };
            if namespace.is_empty() || host.is_empty() {
                return Err("neither the namespace nor the host can be empty".to_owned());
            }
            let (exclude, scope) = match namespace.strip_prefix('~') {
                Some(rest) => (true, rest),
                None => (false, namespace),
            };
            let namespace = match scope {
                "" | "*" => HostScope::Any,
                "." => HostScope::Same,
                name if is_dns_label(name) => HostScope::Namespace(name.to_owned()),
                other => return Err(format!("{other:?} is not a namespace, nor *, ., ~")),
            };
            if host != "*" && !host.contains('.') {
                return Err(format!("{host:?} is a short name: a full one is expected"));
            }
            let host: HostPattern = host.parse().map_err(|error| format!("{error}"))?;
            Ok(Self { at: value.at(), exclude, namespace, host })
        })
    }
}

fn ip(text: &str) -> Result<IpAddr, String> {
    text.parse().map_err(|_| format!("{text:?} is not an IP address"))
}

/// Reads `127.0.0.1:PORT`, `0.0.0.0:PORT`, `[::1]:PORT`, `[::]:PORT`, `:PORT` or `unix://PATH`.
fn endpoint(text: &str) -> Result<DefaultEndpoint, String> {
    if let Some(path) = text.strip_prefix(UNIX) {
        return unix(path).map(|_| DefaultEndpoint::Unix(path.to_owned()));
    }
    let form = || {
        format!(
            "{text:?} is none of 127.0.0.1:PORT, 0.0.0.0:PORT, [::1]:PORT, [::]:PORT and \
             unix://PATH"
        )
    };
    let (host, port) = text.rsplit_once(':').ok_or_else(form)?;
    let ip: IpAddr = match host {
        "" | "127.0.0.1" => IpAddr::from([127, 0, 0, 1]),
        "0.0.0.0" => IpAddr::from([0, 0, 0, 0]),
        "[::1]" => IpAddr::from(std::net::Ipv6Addr::LOCALHOST),
        "[::]" => IpAddr::from(std::net::Ipv6Addr::UNSPECIFIED),
        _ => return Err(form()),
    };
    match port.parse::<u16>() {
        Ok(port) if port > 0 => Ok(DefaultEndpoint::Address { ip, port }),
        _ => Err(format!("{port:?} is not a port: it must be 1 to 65535")),
    }
}

fn outbound(fields: &mut Fields<'_, '_>) -> Option<SidecarOutboundPolicy> {
    // In protobuf a section without a mode means its first value, and so does Istio.
    let mut mode = OutboundTrafficPolicy::RegistryOnly;
    if let Some(value) = fields.get("mode") {
        mode = value.read()?;
        if mode == OutboundTrafficPolicy::AllowAnyDynamicDns {
            value.fault::<()>("this mode is possible only in the mesh configuration");
        }
    }
    let egress_proxy = fields.opt("egressProxy");
    if let Some(value) = fields.get("egressProxy") {
        if mode != OutboundTrafficPolicy::AllowAny {
            value.fault::<()>("this needs mode ALLOW_ANY");
        }
        if entry(&value, "port").is_none() {
            value.fault::<()>("a port is required here");
        }
        let host = entry(&value, "host").and_then(|host| host.read::<String>());
        if host.is_some_and(|host| !is_dns_name(&host)) {
            value.fault::<()>("the host must be a full name");
        }
    }
    Some(SidecarOutboundPolicy { mode, egress_proxy })
}
