//! What a proxy says of itself when it connects: Envoy's node, with Istio's id and metadata. Pure.
//!
//! In:    a `Node` off the wire.
//! Out:   a [`ProxyNode`]; from its id, a [`NodeId`].
//! Never: fails for metadata that is missing or of another type: it is as if it were not there.

use std::{collections::BTreeMap, net::IpAddr};

use envoy_types::pb::{
    envoy::config::core::v3::Node,
    google::protobuf::{Struct, Value, value::Kind as ValueKind},
};
use sluis_envoy::credentials::CREDENTIALS_FILTER;
use sluis_nouns::{Labels, ObjectName};
use sluis_translate::{NodeFacts, Role};

/// Metadata that is the same for no two proxies and that nothing matches; it is not kept, so that
/// proxies that are alike otherwise stay alike.
const UNIQUE_KEYS: [&str; 6] =
    ["NAME", "WORKLOAD_NAME", "INSTANCE_IPS", "POD_NAME", "ENVOY_STATUS_PORT", "PILOT_SAN"];

/// Istio's filter that a stock Envoy has not.
const ALPN_FILTER: &str = "istio.alpn";

/// How connections reach a sidecar, by its own word (`INTERCEPTION_MODE`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Interception {
    /// `REDIRECT` or `TPROXY`, or nothing said: a packet filter sends them to port 15001.
    #[default]
    Redirect,
    /// `NONE`: the application calls the proxy.
    None,
}

/// What a proxy says of itself when it connects, as far as it matters.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct ProxyNode {
    /// The node's id: `sidecar~IP~NAME.NS~NS.svc.cluster.local`, or `router~…` for a gateway.
    pub id: String,
    /// The namespace and name of the workload it serves, from metadata.
    pub workload: Option<ObjectName>,
    /// `NAMESPACE`.
    pub namespace: Option<String>,
    /// `SERVICE_ACCOUNT`.
    pub account: Option<String>,
    /// `LABELS`.
    pub labels: Labels,
    /// `DNS_CAPTURE`: whether the proxy answers its workload's DNS questions.
    pub takes_dns: bool,
    /// `INTERCEPTION_MODE`.
    pub interception: Interception,
    /// The unix socket through which the workload's connections come.
    pub capture_pipe: Option<String>,
    /// Everything else that changes the output.
    pub facts: NodeFacts,
}

impl ProxyNode {
    /// Reads a node. Metadata that is missing or of another type is as if it were not there.
    #[must_use]
    pub fn read(node: &Node) -> Self {
        let empty = Struct::default();
        let fields = &node.metadata.as_ref().unwrap_or(&empty).fields;
        let text = |key: &str| {
            let found = fields.get(key).map(show)?;
            (!found.is_empty()).then_some(found)
        };
        let namespace = text("NAMESPACE");
        let workload = match (&namespace, text("WORKLOAD_NAME")) {
            (Some(namespace), Some(name)) => Some(ObjectName::new(namespace.as_str(), name)),
            _ => None,
        };
        let instance_ips = text("INSTANCE_IPS").unwrap_or_default();
        let kept = fields.iter().filter(|(key, _)| !UNIQUE_KEYS.contains(&key.as_str()));
        Self {
            id: node.id.clone(),
            workload,
            namespace,
            account: text("SERVICE_ACCOUNT"),
            labels: fields.get("LABELS").map(labels).unwrap_or_default(),
            takes_dns: text("DNS_CAPTURE").is_some_and(|value| is_true(&value)),
            interception: match text("INTERCEPTION_MODE").as_deref() {
                Some("NONE") => Interception::None,
                _ => Interception::Redirect,
            },
            capture_pipe: text("SLUIS_CAPTURE_PIPE"),
            facts: NodeFacts {
                has_alpn_filter: node.extensions.iter().any(|one| one.name == ALPN_FILTER),
                is_ours: node.extensions.iter().any(|one| one.name == CREDENTIALS_FILTER),
                is_grpc: text("GENERATOR").as_deref() == Some("grpc"),
                istio_version: text("ISTIO_VERSION").unwrap_or_default(),
                cluster_id: text("CLUSTER_ID").unwrap_or_default(),
                network: text("NETWORK").unwrap_or_default(),
                locality: locality(node),
                node_name: text("NODE_NAME").unwrap_or_default(),
                is_transparent: match text("INTERCEPTION_MODE").as_deref() {
                    Some("TPROXY") => Some(true),
                    Some("REDIRECT") => Some(false),
                    _ => None,
                },
                instance_ips: instance_ips
                    .split(',')
                    .filter_map(|ip| ip.trim().parse().ok())
                    .collect(),
                http_proxy_port: text("HTTP_PROXY_PORT")
                    .and_then(|port| port.parse().ok())
                    .unwrap_or_default(),
                metadata: kept.map(|(key, value)| (key.clone(), show(value))).collect(),
            },
        }
    }
}

/// What Istio writes into a node's id: `TYPE~IP~NAME.NAMESPACE~DOMAIN`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NodeId {
    /// What the proxy is.
    pub role: Role,
    /// Its address.
    pub address: IpAddr,
    /// The workload's name.
    pub name: ObjectName,
}

/// Why a node's id is not understood.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NodeIdError {
    /// It has not four parts.
    #[error("node id {0:?} is not of the form TYPE~IP~NAME.NAMESPACE~DOMAIN")]
    Shape(String),
    /// It is of a type that there is no translation for.
    #[error(
        "proxies of type {0:?} are not served: sidecar and router are, waypoints and ztunnels belong \
         to the ambient mode, which is not implemented"
    )]
    Type(String),
    /// Neither the id nor `INSTANCE_IPS` has an address.
    #[error("node id {0:?} has no IP address, and INSTANCE_IPS has none either")]
    Address(String),
}

impl NodeId {
    /// Reads the id of a node; namespace and addresses in its metadata win, as in Istio.
    ///
    /// # Errors
    ///
    /// A [`NodeIdError`] that says what is wrong with the id.
    pub fn read(node: &ProxyNode) -> Result<Self, NodeIdError> {
        let parts: Vec<&str> = node.id.split('~').collect();
        let [kind, address, name, domain] = parts[..] else {
            return Err(NodeIdError::Shape(node.id.clone()));
        };
        let role = match kind {
            "sidecar" => Role::Sidecar,
            "router" => Role::Gateway,
            other => return Err(NodeIdError::Type(other.to_owned())),
        };
        let address = match node.facts.instance_ips.first() {
            Some(first) => *first,
            None => address.parse().map_err(|_| NodeIdError::Address(node.id.clone()))?,
        };
        let (name, of_id) = name.rsplit_once('.').unwrap_or((name, ""));
        let of_domain = domain.split_once(".svc").map_or("", |(namespace, _)| namespace);
        let written = node.namespace.as_deref().unwrap_or_default();
        let found = [written, of_domain, of_id].into_iter().find(|namespace| !namespace.is_empty());
        let namespace = found.ok_or_else(|| NodeIdError::Shape(node.id.clone()))?;
        Ok(Self { role, address, name: ObjectName::new(namespace, name) })
    }
}

fn is_true(text: &str) -> bool {
    matches!(text, "true" | "1" | "True" | "TRUE")
}

fn labels(value: &Value) -> Labels {
    let Some(ValueKind::StructValue(fields)) = &value.kind else { return Labels::new() };
    let all: BTreeMap<&String, String> =
        fields.fields.iter().map(|(key, value)| (key, show(value))).collect();
    all.into_iter().collect()
}

fn locality(node: &Node) -> String {
    let Some(locality) = &node.locality else { return String::new() };
    let parts = [&locality.region, &locality.zone, &locality.sub_zone];
    let last = parts.iter().rposition(|part| !part.is_empty()).map_or(0, |last| last + 1);
    parts[..last].iter().map(|part| part.as_str()).collect::<Vec<_>>().join("/")
}

/// Text as it is, anything else as JSON with sorted keys.
fn show(value: &Value) -> String {
    match &value.kind {
        Some(ValueKind::StringValue(text)) => text.clone(),
        _ => json(value).to_string(),
    }
}

fn json(value: &Value) -> serde_json::Value {
    match &value.kind {
        None | Some(ValueKind::NullValue(_)) => serde_json::Value::Null,
        Some(ValueKind::BoolValue(value)) => (*value).into(),
        Some(ValueKind::NumberValue(value)) if is_whole(*value) => (*value as i64).into(),
        Some(ValueKind::NumberValue(value)) => (*value).into(),
        Some(ValueKind::StringValue(value)) => value.as_str().into(),
        Some(ValueKind::ListValue(list)) => list.values.iter().map(json).collect(),
        Some(ValueKind::StructValue(fields)) => {
            let sorted: BTreeMap<&String, serde_json::Value> =
                fields.fields.iter().map(|(key, value)| (key, json(value))).collect();
            sorted.into_iter().map(|(key, value)| (key.clone(), value)).collect()
        }
    }
}

/// Protobuf's JSON has no whole numbers: 15 arrives as 15.0.
fn is_whole(value: f64) -> bool {
    value.fract() == 0.0 && value.abs() < f64::from(i32::MAX)
}

#[cfg(test)]
mod tests;
