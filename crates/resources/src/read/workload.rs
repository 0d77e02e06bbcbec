//! Reads EndpointSlice, Pod and Node, as far as they bear on traffic. The rest is Kubernetes' own, is
//! checked by its API server, and is read over.

use std::net::IpAddr;

use super::forms::{checked, read_fields, read_names};
use super::shared::some_of;
use crate::kinds::core::WorkloadAddress;
use crate::kinds::workload::{ContainerPort, EndpointSlice, Node, Pod, SliceEndpoint, SlicePort};
use crate::resource::Meta;
use crate::value::{Fields, Read, Value};

read_fields! {
    SliceEndpoint => slice_endpoint,
    Conditions => conditions,
    TargetRef => target_ref,
    SlicePort => slice_port,
    PodSpec => pod_spec,
    PodStatus => pod_status,
    PodIp => pod_ip,
    Condition => condition,
    Container => container,
    ContainerPort => container_port,
    NodeStatus => node_status,
    NodeAddress => node_address,
}

read_names! {
    AddressType {
        "IPv4" => AddressType::Ip,
        "IPv6" => AddressType::Ip,
        "FQDN" => AddressType::Name,
    }
}

/// The label that names the Service of an EndpointSlice.
const SERVICE_NAME: &str = "kubernetes.io/service-name";

#[derive(Clone, Copy, Default, PartialEq, Eq)]
enum AddressType {
    #[default]
    Ip,
    Name,
}

pub(super) fn endpoint_slice(
    fields: &mut Fields<'_, '_>,
    meta: Option<&Meta>,
) -> Option<EndpointSlice> {
    let kind: Option<AddressType> = fields.req("addressType");
    let endpoints: Vec<SliceEndpoint> = fields.or_default("endpoints");
    let ports = fields.or_default("ports");
    for item in fields.get("endpoints").and_then(|value| value.items()).unwrap_or_default() {
        let addresses = super::virtual_service::entry(&item, "addresses");
        for value in addresses.and_then(|value| value.items()).unwrap_or_default() {
            let is_ip = |text: String| text.parse::<IpAddr>().is_ok();
            if kind == Some(AddressType::Ip) && value.read().is_some_and(|text| !is_ip(text)) {
                value.fault::<()>("this is not an IP address, as addressType says");
            }
        }
    }
    let service = meta?.labels.get(SERVICE_NAME).map(str::to_owned);
    Some(EndpointSlice { service, endpoints, ports })
}

fn slice_endpoint(fields: &mut Fields<'_, '_>) -> Option<SliceEndpoint> {
    let addresses: Option<Vec<WorkloadAddress>> = some_of(fields, "addresses");
    let conditions: Conditions = fields.or_default("conditions");
    let ready = conditions.ready.unwrap_or(true);
    let endpoint = SliceEndpoint {
        addresses: Vec::new(),
        ready,
        serving: conditions.serving.unwrap_or(ready),
        terminating: conditions.terminating.unwrap_or(false),
        hostname: fields.opt("hostname"),
        pod: fields.opt("targetRef").and_then(|TargetRef(pod)| pod),
        node: fields.opt("nodeName"),
        zone: fields.opt("zone"),
    };
    fields.ignore(&["hints", "deprecatedTopology"]);
    Some(SliceEndpoint { addresses: addresses?, ..endpoint })
}

#[derive(Default)]
struct Conditions {
    ready: Option<bool>,
    serving: Option<bool>,
    terminating: Option<bool>,
}

fn conditions(fields: &mut Fields<'_, '_>) -> Option<Conditions> {
    let (ready, serving) = (fields.opt("ready"), fields.opt("serving"));
    Some(Conditions { ready, serving, terminating: fields.opt("terminating") })
}

/// The pod that a `targetRef` names.
struct TargetRef(Option<String>);

fn target_ref(fields: &mut Fields<'_, '_>) -> Option<TargetRef> {
    let kind: String = fields.or_default("kind");
    let name = fields.opt("name");
    fields.ignore(&["namespace", "uid", "apiVersion", "resourceVersion", "fieldPath"]);
    Some(TargetRef(name.filter(|_| kind == "Pod")))
}

fn slice_port(fields: &mut Fields<'_, '_>) -> Option<SlicePort> {
    Some(SlicePort {
        name: fields.or_default("name"),
        port: fields.opt("port"),
        is_tcp: is_tcp(fields),
        app_protocol: fields.opt("appProtocol"),
    })
}

fn is_tcp(fields: &mut Fields<'_, '_>) -> bool {
    fields.opt::<String>("protocol").is_none_or(|protocol| protocol == "TCP")
}

pub(super) fn pod(fields: &mut Fields<'_, '_>) -> Option<Pod> {
    let spec: Option<PodSpec> = fields.req("spec");
    let status: PodStatus = fields.or_default("status");
    let spec = spec?.0;
    Some(Pod { ips: status.ips, ready: status.ready, finished: status.finished, ..spec })
}

/// What `spec` says.
struct PodSpec(Pod);

fn pod_spec(fields: &mut Fields<'_, '_>) -> Option<PodSpec> {
    fields.ignore_rest();
    let containers: Vec<Container> = fields.or_default("containers");
    let first: Vec<Container> = fields.or_default("initContainers");
    let first = first.into_iter().filter(|container| container.restarts);
    Some(PodSpec(Pod {
        service_account: fields
            .opt("serviceAccountName")
            .or_else(|| fields.opt("serviceAccount"))
            .unwrap_or_else(|| "default".to_owned()),
        node: fields.opt("nodeName"),
        hostname: fields.opt("hostname"),
        subdomain: fields.opt("subdomain"),
        host_network: fields.or_default("hostNetwork"),
        ports: containers.into_iter().chain(first).flat_map(|container| container.ports).collect(),
        ..Pod::default()
    }))
}

struct Container {
    ports: Vec<ContainerPort>,
    restarts: bool,
}

fn container(fields: &mut Fields<'_, '_>) -> Option<Container> {
    fields.ignore_rest();
    let restarts = fields.opt::<String>("restartPolicy").as_deref() == Some("Always");
    Some(Container { ports: fields.or_default("ports"), restarts })
}

fn container_port(fields: &mut Fields<'_, '_>) -> Option<ContainerPort> {
    let (name, port) = (fields.or_default("name"), fields.req("containerPort"));
    fields.ignore(&["hostPort", "hostIP"]);
    Some(ContainerPort { name, is_tcp: is_tcp(fields), port: port? })
}

#[derive(Default)]
struct PodStatus {
    ips: Vec<IpAddr>,
    ready: bool,
    finished: bool,
}

fn pod_status(fields: &mut Fields<'_, '_>) -> Option<PodStatus> {
    fields.ignore_rest();
    let single: Option<Ip> = fields.opt("podIP");
    let mut ips: Vec<IpAddr> =
        fields.or_default::<Vec<PodIp>>("podIPs").into_iter().map(|PodIp(ip)| ip).collect();
    if ips.is_empty() {
        ips.extend(single.map(|Ip(ip)| ip));
    }
    let conditions: Vec<Condition> = fields.or_default("conditions");
    let ready = conditions.iter().any(|condition| condition.is_ready);
    let phase: String = fields.or_default("phase");
    Some(PodStatus { ips, ready, finished: matches!(phase.as_str(), "Succeeded" | "Failed") })
}

/// `{ip: …}`.
struct PodIp(IpAddr);

fn pod_ip(fields: &mut Fields<'_, '_>) -> Option<PodIp> {
    fields.req("ip").map(|Ip(ip)| PodIp(ip))
}

struct Ip(IpAddr);

impl Read for Ip {
    fn read(value: &Value<'_>) -> Option<Self> {
        checked(value, |text| text.parse().map_err(|_| format!("{text:?} is not an IP address")))
            .map(Self)
    }
}

struct Condition {
    is_ready: bool,
}

fn condition(fields: &mut Fields<'_, '_>) -> Option<Condition> {
    fields.ignore_rest();
    let kind: String = fields.or_default("type");
    let status: String = fields.or_default("status");
    Some(Condition { is_ready: kind == "Ready" && status == "True" })
}

pub(super) fn node(fields: &mut Fields<'_, '_>) -> Option<Node> {
    fields.ignore(&["spec"]);
    let NodeStatus(node) = fields.or_default("status");
    Some(node)
}

#[derive(Default)]
struct NodeStatus(Node);

fn node_status(fields: &mut Fields<'_, '_>) -> Option<NodeStatus> {
    fields.ignore_rest();
    let addresses: Vec<NodeAddress> = fields.or_default("addresses");
    let of = |wanted: &str| {
        let fits = addresses.iter().filter(|address| address.kind == wanted);
        fits.filter_map(|address| address.address.parse().ok()).collect()
    };
    Some(NodeStatus(Node { internal_ips: of("InternalIP"), external_ips: of("ExternalIP") }))
}

struct NodeAddress {
    kind: String,
    address: String,
}

fn node_address(fields: &mut Fields<'_, '_>) -> Option<NodeAddress> {
    Some(NodeAddress { kind: fields.or_default("type"), address: fields.or_default("address") })
}
