//! Reads Service, Secret and ConfigMap of Kubernetes.

use std::collections::BTreeMap;
use std::net::IpAddr;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;

use super::shared::unique;
use super::{
    forms::{checked, read_fields, read_names},
    mesh_config,
};
use crate::kinds::core::{
    ConfigMap, Secret, SecretValue, Service, ServicePort, ServiceType, TargetPort,
    TrafficDistribution,
};
use crate::kinds::shared::Protocol;
use crate::resource::Meta;
use crate::value::{Fields, Read, Value};

read_fields! {
    Service => service,
    ServicePort => service_port,
}

read_names! {
    ServiceType {
        "ClusterIP" => ServiceType::ClusterIp,
        "NodePort" => ServiceType::NodePort,
        "LoadBalancer" => ServiceType::LoadBalancer,
        "ExternalName" => ServiceType::ExternalName,
    }
    Locality {
        "Cluster" => Locality(false),
        "Local" => Locality(true),
    }
    TrafficDistribution {
        "PreferClose" => TrafficDistribution::SameZone,
        "PreferSameZone" => TrafficDistribution::SameZone,
        "PreferSameNode" => TrafficDistribution::SameNode,
    }
    Transport {
        "TCP" => Transport::Tcp,
        "UDP" => Transport::Udp,
        "SCTP" => Transport::Sctp,
    }
}

/// The name of the ConfigMap with the mesh configuration, and its key.
const MESH_CONFIG: (&str, &str) = ("istio", "mesh");

/// The key beside it that says which networks there are.
const MESH_NETWORKS: &str = "meshNetworks";

/// `protocol` of a Service's port.
#[derive(Clone, Copy, Default, PartialEq, Eq)]
enum Transport {
    #[default]
    Tcp,
    Udp,
    Sctp,
}

fn service(fields: &mut Fields<'_, '_>) -> Option<Service> {
    let ports: Vec<ServicePort> = fields.or_default("ports");
    unique(fields, "ports", ports.iter().map(|port| port.name.as_str()), "the port name");
    let selector = fields.or_default("selector");
    let kind = fields.or_default("type");
    let external_name = fields.opt("externalName");
    let single: Option<ClusterIp> = fields.opt("clusterIP");
    let mut all: Vec<ClusterIp> = fields.or_default("clusterIPs");
    if all.is_empty() {
        all.extend(single);
    }
    // A restriction that nobody would enforce.
    fields.unsupported(&["loadBalancerSourceRanges"]);
    fields.not_carried_out(&["sessionAffinityConfig", "externalIPs"]);
    for (name, default) in [("sessionAffinity", "None"), ("externalTrafficPolicy", "Cluster")] {
        // Kubernetes writes the defaults into every object.
        if fields.get(name).is_some_and(|value| value.text() != Some(default)) {
            fields.not_carried_out(&[name]);
        }
    }
    fields.ignore(&[
        "ipFamilies",
        "ipFamilyPolicy",
        "loadBalancerIP",
        "loadBalancerClass",
        "allocateLoadBalancerNodePorts",
        "healthCheckNodePort",
    ]);
    let publishes_not_ready = fields.or_default("publishNotReadyAddresses");
    let Locality(is_node_local) = fields.or_default("internalTrafficPolicy");
    let traffic_distribution = fields.or_default("trafficDistribution");
    let headless = all.iter().any(|ip| matches!(ip, ClusterIp::None));
    let address = |ip: &ClusterIp| match ip {
        ClusterIp::Ip(ip) => Some(*ip),
        _ => None,
    };
    let cluster_ips = all.iter().filter_map(address).collect();
    Some(Service {
        ports,
        selector,
        cluster_ips,
        headless,
        kind,
        external_name,
        publishes_not_ready,
        is_node_local,
        traffic_distribution,
    })
}

/// Whether `internalTrafficPolicy` is `Local`.
#[derive(Clone, Copy, Default)]
struct Locality(bool);

/// One value of `clusterIP`.
enum ClusterIp {
    /// `None`: headless.
    None,
    /// Empty: not assigned.
    Unassigned,
    Ip(IpAddr),
}

impl Read for ClusterIp {
    fn read(value: &Value<'_>) -> Option<Self> {
        checked(value, |text| match text {
            "None" => Ok(Self::None),
            "" => Ok(Self::Unassigned),
            ip => ip
                .parse()
                .map(Self::Ip)
                .map_err(|_| format!("{ip:?} is neither an IP address nor None")),
        })
    }
}

fn service_port(fields: &mut Fields<'_, '_>) -> Option<ServicePort> {
    let at = fields.at();
    let name: String = fields.or_default("name");
    let port: Option<u16> = fields.req("port");
    let target = fields.opt("targetPort");
    let app_protocol: Option<String> = fields.opt("appProtocol");
    let transport: Transport = fields.or_default("protocol");
    fields.ignore(&["nodePort"]);
    let protocol = match transport {
        Transport::Tcp => Protocol::of_service_port(app_protocol.as_deref(), &name),
        Transport::Udp => {
            fields.useless(&["protocol"], "UDP is not carried, and the port is left out");
            Protocol::Udp
        }
        Transport::Sctp => {
            fields.get("protocol")?.fault::<()>("SCTP is not supported");
            return None;
        }
    };
    let port = port?;
    let target_port = target.unwrap_or(TargetPort::Number(port));
    Some(ServicePort { at, name, port, target_port, protocol, app_protocol })
}

impl Read for TargetPort {
    fn read(value: &Value<'_>) -> Option<Self> {
        if value.is_text() { value.read().map(Self::Name) } else { value.read().map(Self::Number) }
    }
}

pub(super) fn secret(fields: &mut Fields<'_, '_>) -> Option<Secret> {
    let kind = fields.opt("type").unwrap_or_else(|| "Opaque".to_owned());
    let encoded: BTreeMap<String, Encoded> = fields.or_default("data");
    let plain: BTreeMap<String, SecretText> = fields.or_default("stringData");
    fields.ignore(&["immutable"]);
    let mut data: BTreeMap<String, SecretValue> =
        encoded.into_iter().map(|(key, Encoded(bytes))| (key, SecretValue::new(bytes))).collect();
    // Kubernetes: "stringData … keys … overwrite existing values in data".
    data.extend(plain.into_iter().map(|(key, SecretText(text))| (key, SecretValue::new(text))));
    Some(Secret { kind, data })
}

/// Base64 whose faults do not show it.
struct Encoded(Vec<u8>);

impl Read for Encoded {
    fn read(value: &Value<'_>) -> Option<Self> {
        let SecretText(text) = value.read()?;
        let text: String = text.split_ascii_whitespace().collect();
        match STANDARD.decode(text) {
            Ok(bytes) => Some(Self(bytes)),
            Err(_) => value.fault("this is not base64"),
        }
    }
}

/// A text whose faults do not show it.
struct SecretText(String);

impl Read for SecretText {
    fn read(value: &Value<'_>) -> Option<Self> {
        if value.is_null() {
            return Some(Self(String::new()));
        }
        if !value.is_text() {
            return value.fault_help("a text is expected", "write it in quotes");
        }
        value.read().map(Self)
    }
}

pub(super) fn config_map(fields: &mut Fields<'_, '_>, meta: Option<&Meta>) -> Option<ConfigMap> {
    let data: BTreeMap<String, String> = fields.or_default("data");
    let binary = fields.get("binaryData").and_then(|value| value.entries()).unwrap_or_default();
    let binary_keys = binary.into_iter().map(|(key, _)| key.to_owned()).collect();
    fields.ignore(&["immutable"]);
    let (name, key) = MESH_CONFIG;
    let mut mesh = None;
    if meta.is_some_and(|meta| &*meta.name.name == name)
        && let Some(entries) = fields.get("data").and_then(|value| value.entries())
        && let Some((_, value)) = entries.into_iter().find(|(name, _)| *name == key)
    {
        mesh = mesh_config::embedded(&value).map(Box::new);
        for (key, value) in fields.get("data")?.entries().unwrap_or_default() {
            if key == MESH_NETWORKS {
                value.warn("this key is known, and not carried out yet");
            }
        }
    }
    Some(ConfigMap { data, binary_keys, mesh })
}
