//! Reads NetworkPolicy.

use sluis_nouns::Cidr;

use super::forms::{read_fields, read_names};
use crate::kinds::mesh_policy::ObjectSelector;
use crate::kinds::network_policy::{
    NetworkPeer, NetworkPolicy, NetworkPort, NetworkPortName, NetworkProtocol, NetworkRule,
};
use crate::resource::Meta;
use crate::value::{Fields, Read, Value};

read_fields! {
    Body => body,
    Incoming => incoming,
    Outgoing => outgoing,
    NetworkPeer => peer,
    Block => block,
    NetworkPort => port,
}

read_names! {
    NetworkProtocol {
        "TCP" => NetworkProtocol::Tcp,
        "UDP" => NetworkProtocol::Udp,
        "SCTP" => NetworkProtocol::Sctp,
    }
    PolicyType {
        "Ingress" => PolicyType::Ingress,
        "Egress" => PolicyType::Egress,
    }
}

/// One of `policyTypes`.
#[derive(Clone, Copy, PartialEq, Eq)]
enum PolicyType {
    Ingress,
    Egress,
}

/// `spec`.
struct Body(NetworkPolicy);

/// One of `ingress`.
struct Incoming(NetworkRule);

/// One of `egress`.
struct Outgoing(NetworkRule);

pub(super) fn network_policy(
    fields: &mut Fields<'_, '_>,
    _: Option<&Meta>,
) -> Option<NetworkPolicy> {
    // Its own controller writes it; it says nothing of what is allowed.
    fields.ignore(&["status"]);
    if let Some(value) = fields.get("kind") {
        value.warn("no proxy enforces this: `sluis capture firewall` does, on hosts and routers");
    }
    fields.req("spec").map(|Body(policy)| policy)
}

fn body(fields: &mut Fields<'_, '_>) -> Option<Body> {
    let pods: ObjectSelector = fields.or_default("podSelector");
    let ingress: Option<Vec<Incoming>> = fields.opt("ingress");
    let egress: Option<Vec<Outgoing>> = fields.opt("egress");
    let types: Option<Vec<PolicyType>> = fields.opt("policyTypes");
    // Kubernetes: Ingress always, Egress where there are rules of it.
    let has = |wanted: PolicyType| match &types {
        Some(types) if !types.is_empty() => types.contains(&wanted),
        _ => wanted == PolicyType::Ingress || egress.as_ref().is_some_and(|list| !list.is_empty()),
    };
    let (is_in, is_out) = (has(PolicyType::Ingress), has(PolicyType::Egress));
    for (name, applies) in [("ingress", is_in), ("egress", is_out)] {
        if !applies && let Some(value) = fields.get(name) {
            value.warn("policyTypes leaves these rules out, so that they mean nothing");
        }
    }
    let ingress = ingress.unwrap_or_default().into_iter().map(|Incoming(rule)| rule).collect();
    let egress = egress.unwrap_or_default().into_iter().map(|Outgoing(rule)| rule).collect();
    Some(Body(NetworkPolicy {
        pods,
        ingress: is_in.then_some(ingress),
        egress: is_out.then_some(egress),
    }))
}

fn incoming(fields: &mut Fields<'_, '_>) -> Option<Incoming> {
    let peers = fields.or_default("from");
    Some(Incoming(NetworkRule { at: fields.at(), peers, ports: fields.or_default("ports") }))
}

fn outgoing(fields: &mut Fields<'_, '_>) -> Option<Outgoing> {
    let peers = fields.or_default("to");
    Some(Outgoing(NetworkRule { at: fields.at(), peers, ports: fields.or_default("ports") }))
}

fn peer(fields: &mut Fields<'_, '_>) -> Option<NetworkPeer> {
    let block: Option<Block> = fields.opt("ipBlock");
    let namespaces: Option<ObjectSelector> = fields.opt("namespaceSelector");
    let pods: Option<ObjectSelector> = fields.opt("podSelector");
    let is_by_labels = namespaces.is_some() || pods.is_some();
    match block {
        Some(_) if is_by_labels => {
            fields.value().fault("ipBlock cannot be beside a namespaceSelector or podSelector")
        }
        Some(Block { range, except }) => Some(NetworkPeer::Block { range, except }),
        None if is_by_labels => Some(NetworkPeer::Pods { namespaces, pods }),
        // An empty one would mean nobody to some and everybody to others.
        None => fields.value().fault("ipBlock, namespaceSelector or podSelector is needed here"),
    }
}

/// `ipBlock`.
struct Block {
    range: Cidr,
    except: Vec<Cidr>,
}

fn block(fields: &mut Fields<'_, '_>) -> Option<Block> {
    let range: Cidr = fields.req("cidr")?;
    let except: Vec<Cidr> = fields.or_default("except");
    for (part, value) in
        except.iter().zip(fields.get("except").and_then(|value| value.items()).unwrap_or_default())
    {
        if !range.contains(part.addr()) || part.prefix() <= range.prefix() {
            value.fault::<()>(format!("{part} is no part of {range}"));
        }
    }
    Some(Block { range, except })
}

fn port(fields: &mut Fields<'_, '_>) -> Option<NetworkPort> {
    let protocol = fields.or_default("protocol");
    let port: Option<NetworkPortName> = fields.opt("port");
    let end: Option<u16> = fields.opt("endPort");
    match (&port, end) {
        (Some(NetworkPortName::Number(first)), Some(end)) if end < *first => {
            fields.fault_at("endPort", "the last port must not be before the first");
        }
        (None | Some(NetworkPortName::Name(_)), Some(_)) => {
            fields.fault_at("endPort", "endPort needs a number as port");
        }
        _ => {}
    }
    Some(NetworkPort { protocol, port, end })
}

impl Read for NetworkPortName {
    fn read(value: &Value<'_>) -> Option<Self> {
        if !value.is_text() {
            let port: u16 = value.read()?;
            return if port == 0 { value.fault("0 is no port") } else { Some(Self::Number(port)) };
        }
        let name: String = value.read()?;
        // IANA's rule for service names (RFC 6335 §5.1), as Kubernetes holds to.
        let is_name = (1..=15).contains(&name.len())
            && name
                .bytes()
                .all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-')
            && name.bytes().any(|byte| byte.is_ascii_lowercase());
        if is_name { Some(Self::Name(name)) } else { value.fault("this is no name of a port") }
    }
}
