//! Reads ServiceEntry and WorkloadEntry.

use std::collections::BTreeMap;

use sluis_nouns::{Cidr, HostPattern, Labels, is_dns_label, is_dns_name};

use super::forms::{checked, read_fields, read_names};
use super::shared::{Exporter, WorkloadSelector, check_labels, export_to, some_of, unique};
use crate::kinds::core::WorkloadAddress;
use crate::kinds::service_entry::{
    Endpoint, Location, Resolution, ServiceEntry, ServiceEntryPort, WorkloadEntry,
};
use crate::kinds::shared::Protocol;
use crate::value::{Fields, Read, Value};

read_fields! {
    ServiceEntry => service_entry,
    ServiceEntryPort => port,
    Endpoint => endpoint,
    WorkloadEntry => workload_entry,
}

read_names! {
    Location {
        "MESH_EXTERNAL" => Location::MeshExternal,
        "MESH_INTERNAL" => Location::MeshInternal,
    }
    Resolution {
        "NONE" => Resolution::None,
        "STATIC" => Resolution::Static,
        "DNS" => Resolution::Dns,
        "DNS_ROUND_ROBIN" => Resolution::DnsRoundRobin,
        "DYNAMIC_DNS" => Resolution::DynamicDns,
    }
}

fn service_entry(fields: &mut Fields<'_, '_>) -> Option<ServiceEntry> {
    let hosts: Option<Vec<HostPattern>> = some_of(fields, "hosts");
    let entry = ServiceEntry {
        hosts: hosts.clone().unwrap_or_default(),
        addresses: fields.or_default("addresses"),
        ports: fields.or_default("ports"),
        location: fields.or_default("location"),
        resolution: fields.or_default("resolution"),
        endpoints: fields.or_default("endpoints"),
        workload_selector: fields.opt("workloadSelector").map(|WorkloadSelector(labels)| labels),
        export_to: export_to(fields, Exporter::Service),
        subject_alt_names: fields.or_default("subjectAltNames"),
    };
    fields.at_most_one(&["workloadSelector", "endpoints"]);
    if let Some(value) = fields.get("workloadSelector")
        && entry.workload_selector.as_ref().is_some_and(Labels::is_empty)
    {
        value.warn("a selector without labels selects all workloads of the namespace");
    }
    if entry.resolution == Resolution::None {
        let why = "resolution NONE goes where the client was going";
        fields.useless(&["workloadSelector"], why);
    }
    check_hosts(fields, &entry);
    check_ports(fields, &entry);
    check_addresses(fields, &entry);
    check_endpoints(fields, &entry);
    hosts.map(|_| entry)
}

fn check_hosts(fields: &mut Fields<'_, '_>, entry: &ServiceEntry) {
    use Resolution::{Dns, DnsRoundRobin};
    let by_dns = matches!(entry.resolution, Dns | DnsRoundRobin) && entry.endpoints.is_empty();
    let items = fields.get("hosts").and_then(|value| value.items()).unwrap_or_default();
    for (host, item) in entry.hosts.iter().zip(items) {
        if host.is_any() {
            item.fault::<()>("a ServiceEntry's host cannot be '*'");
        } else if host.is_wildcard() && by_dns {
            item.fault::<()>("a wildcard cannot be resolved by DNS without endpoints");
        } else if entry.resolution == Resolution::DynamicDns {
            if !host.is_wildcard() {
                item.fault::<()>("resolution DYNAMIC_DNS needs a wildcard: DNS resolves one name");
            }
        } else if host.is_wildcard() && !host.as_str().starts_with("*.") {
            item.warn("a star that stands for a part of a label is not matched by every client");
        }
    }
}

fn check_ports(fields: &mut Fields<'_, '_>, entry: &ServiceEntry) {
    unique(fields, "ports", entry.ports.iter().map(|port| port.name.as_str()), "the port name");
    let numbers: Vec<String> = entry.ports.iter().map(|port| port.number.to_string()).collect();
    unique(fields, "ports", numbers.iter().map(String::as_str), "the port number");
    let items = fields.get("ports").and_then(|value| value.items()).unwrap_or_default();
    for (port, item) in entry.ports.iter().zip(items) {
        use Protocol::{Grpc, Http, Http2, Tls};
        let named = port.protocol.is_http() || port.protocol.is_tls();
        if entry.resolution == Resolution::DynamicDns
            && !matches!(port.protocol, Http | Tls | Grpc | Http2)
        {
            item.fault::<()>("resolution DYNAMIC_DNS needs protocol HTTP, HTTP2, GRPC or TLS");
        } else if entry.resolution != Resolution::None && entry.hosts.len() > 1 && !named {
            item.fault::<()>("several hosts cannot be told apart by this port's protocol");
        }
    }
}

fn check_addresses(fields: &mut Fields<'_, '_>, entry: &ServiceEntry) {
    if entry.resolution == Resolution::DynamicDns {
        for name in ["addresses", "endpoints"] {
            if let Some(value) = fields.get(name).filter(Value::is_set) {
                value.fault::<()>(
                    "resolution DYNAMIC_DNS takes the address from the request's name",
                );
            }
        }
    }
    let ranges_allowed = matches!(entry.resolution, Resolution::None | Resolution::Static);
    let items = fields.get("addresses").and_then(|value| value.items()).unwrap_or_default();
    let written_range =
        |item: &Value<'_>| item.read::<String>().is_some_and(|text| text.contains('/'));
    for (_, item) in entry.addresses.iter().zip(items).filter(|(_, item)| written_range(item)) {
        if !ranges_allowed {
            item.fault::<()>("ranges of addresses need resolution NONE or STATIC");
        }
    }
}

fn check_endpoints(fields: &mut Fields<'_, '_>, entry: &ServiceEntry) {
    let Some(list) = fields.get("endpoints") else { return };
    match entry.resolution {
        Resolution::None if !entry.endpoints.is_empty() => {
            list.fault_help::<()>(
                "resolution NONE cannot have endpoints",
                "set resolution to STATIC or DNS",
            );
        }
        Resolution::DnsRoundRobin if entry.endpoints.len() > 1 => {
            list.fault::<()>("resolution DNS_ROUND_ROBIN cannot have several endpoints");
        }
        _ => {}
    }
    for (endpoint, item) in entry.endpoints.iter().zip(list.items().unwrap_or_default()) {
        let address = endpoint.workload.address.as_ref();
        match (entry.resolution, address) {
            (Resolution::Static, Some(WorkloadAddress::Dns(name))) => {
                item.fault::<()>(format!(
                    "{name:?} is not an IP address, as resolution STATIC needs it"
                ));
            }
            (Resolution::Static, Some(WorkloadAddress::Unix(_))) if entry.ports.len() != 1 => {
                item.fault::<()>("a unix socket needs a service with exactly one port");
            }
            (Resolution::Dns | Resolution::DnsRoundRobin, None) => {
                item.fault::<()>("an address is required here");
            }
            (Resolution::Dns | Resolution::DnsRoundRobin, Some(WorkloadAddress::Unix(_))) => {
                item.fault::<()>("a unix socket cannot be resolved by DNS");
            }
            _ => {}
        }
        for name in endpoint.workload.ports.keys() {
            if !entry.ports.iter().any(|port| port.name == *name) {
                item.fault::<()>(format!("the service has no port named {name:?}"));
            }
        }
    }
}

fn port(fields: &mut Fields<'_, '_>) -> Option<ServiceEntryPort> {
    let at = fields.at();
    let number = fields.req("number");
    let name: Option<String> = fields.req("name");
    if name.as_ref().is_some_and(|name| !is_dns_label(name))
        && let Some(value) = fields.get("name")
    {
        value.fault::<()>("this is not a port's name: it must be a DNS label");
    }
    let protocol = fields.get("protocol").map_or(Some(Protocol::Unknown), |value| value.read());
    let target_port = fields.opt("targetPort");
    Some(ServiceEntryPort { at, number: number?, name: name?, protocol: protocol?, target_port })
}

fn endpoint(fields: &mut Fields<'_, '_>) -> Option<Endpoint> {
    Some(Endpoint { at: fields.at(), workload: workload_entry(fields)? })
}

fn workload_entry(fields: &mut Fields<'_, '_>) -> Option<WorkloadEntry> {
    let written = ["network", "address"].map(|name| fields.get(name).filter(Value::is_set));
    if written.iter().all(Option::is_none) {
        fields.fault_at("address", "an address is required where no network is given");
    }
    workload_fields(fields)
}

/// Reads a WorkloadEntry whose address may be missing: the template of a WorkloadGroup.
pub(super) fn workload_fields(fields: &mut Fields<'_, '_>) -> Option<WorkloadEntry> {
    let written = fields.get("address").filter(Value::is_set);
    let address: Option<WorkloadAddress> = written.and_then(|value| value.read());
    if let Some(value) = fields.get("labels") {
        check_labels(&value);
    }
    let ports: BTreeMap<String, u16> = fields.or_default("ports");
    if let Some(value) = fields.get("ports") {
        for (name, port) in value.entries().unwrap_or_default() {
            if !is_dns_label(name) {
                port.fault::<()>(format!("{name:?} is not a port name: it must be a DNS label"));
            }
        }
        if matches!(address, Some(WorkloadAddress::Unix(_))) && !ports.is_empty() {
            value.fault::<()>("a unix socket has no ports");
        }
    }
    let network: Option<String> = fields.opt("network");
    Some(WorkloadEntry {
        address,
        ports,
        labels: fields.or_default("labels"),
        network,
        locality: fields.opt("locality"),
        weight: fields.opt("weight"),
        service_account: fields.opt("serviceAccount"),
    })
}

impl Read for WorkloadAddress {
    fn read(value: &Value<'_>) -> Option<Self> {
        checked(value, |text| {
            if let Some(path) = text.strip_prefix("unix://") {
                return unix(path);
            }
            if let Ok(ip) = text.parse() {
                return Ok(Self::Ip(ip));
            }
            if text.parse::<Cidr>().is_ok() || !is_dns_name(text) {
                return Err(format!(
                    "{text:?} is neither an IP address, a DNS name nor unix://PATH"
                ));
            }
            Ok(Self::Dns(text.to_ascii_lowercase()))
        })
    }
}

/// Reads the path of a unix socket.
pub(super) fn unix(path: &str) -> Result<WorkloadAddress, String> {
    if !path.starts_with(['/', '@']) {
        return Err(format!("{path:?} must be an absolute path or an abstract socket (@name)"));
    }
    if path.ends_with('/') {
        return Err(format!("{path:?} is a directory, not a socket"));
    }
    Ok(WorkloadAddress::Unix(path.to_owned()))
}
