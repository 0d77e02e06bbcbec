//! GatewayClasses and Gateways: one Gateway of Istio for each listener.
//!
//! In:    a Gateway of the Gateway API, and the mesh.
//! Out:   its status, and the parents that routes can be attached to.
//! Never: serves a listener whose TLS cannot be carried out.

mod tls;

use std::{collections::BTreeMap, sync::Arc};

use sluis_nouns::{HostPattern, Labels, ObjectName};
use sluis_resources::{
    Gateway, GatewayClass, GatewayHost, GatewayListener, HostScope, Kind, KubernetesGateway, Meta,
    Protocol, Resource, RouteNamespaces, Server, ServerPort, Spec,
};

use super::{
    GATEWAY_NAME_LABEL, SEMANTICS,
    status::{ApiCondition, ApiStatus, ListenerStatus, Why, refused, unless},
    world::{Controller, World, controller},
};
use crate::SERVICE_DOMAIN;

/// A listener, as routes refer to it.
pub(super) struct Parent {
    /// The Gateway of the Gateway API.
    pub(super) gateway: ObjectName,
    /// The Gateway of Istio that is made of the listener.
    pub(super) made: ObjectName,
    /// The listener's name.
    pub(super) section: String,
    pub(super) port: u16,
    pub(super) protocol: String,
    /// The listener's own host, where it has one.
    pub(super) hostname: Option<HostPattern>,
    /// Whose routes may bind to which host.
    pub(super) hosts: Vec<GatewayHost>,
    /// The kinds of routes that it takes.
    pub(super) kinds: Vec<&'static str>,
    /// What is made; nothing where the listener cannot be served.
    pub(super) resource: Option<Arc<Resource>>,
}

/// The status of a class; `None` when it is not ours.
pub(super) fn class(_: &Meta, class: &GatewayClass) -> Option<ApiStatus> {
    controller(&class.controller)?;
    let conditions = vec![unless("Accepted", "the class is served", None)];
    Some(ApiStatus { conditions, ..ApiStatus::default() })
}

/// The status of a Gateway and its parents; `None` when it is not ours.
pub(super) fn gateway(
    world: &World<'_>,
    meta: &Meta,
    gateway: &KubernetesGateway,
    parents: &mut Vec<Parent>,
) -> Option<ApiStatus> {
    if world.class(&gateway.class)? == Controller::Remote {
        let conditions = vec![
            unless("Accepted", "the Gateway is accepted", None),
            unless("Programmed", "the Gateway is remote: nothing is programmed for it", None),
        ];
        return Some(ApiStatus { conditions, ..ApiStatus::default() });
    }
    let serving = serving(world, meta, gateway);
    let mut accepted = serving.refused.clone();
    if accepted.is_none() {
        accepted = parameters(world, meta, gateway);
    }
    let client = tls::client_certificate(world, meta, gateway);
    let mut status = ApiStatus::default();
    let mut ports = Vec::new();
    let mut valid = 0;
    if !serving.is_hopeless {
        let conflicts = conflicts(&gateway.listeners);
        for (listener, conflict) in gateway.listeners.iter().zip(conflicts) {
            let made = one(world, meta, gateway, listener, conflict, serving.selector.as_ref());
            status.listeners.push(made.status);
            valid += usize::from(made.is_valid);
            ports.extend(made.parent.as_ref().map(|parent| parent.port));
            parents.extend(made.parent);
        }
    }
    let programmed = programmed(&serving, &ports);
    status.conditions = vec![
        accepted_condition(accepted.as_ref(), valid, status.listeners.len()),
        unless("Programmed", "the Gateway is programmed", programmed.as_ref()),
        unless("ResolvedRefs", "all references are resolved", client.as_ref()),
    ];
    let validations = gateway.frontend.per_port.values().chain([&gateway.frontend.default]);
    if validations.flatten().any(|validation| validation.is_insecure) {
        status.conditions.push(ApiCondition {
            kind: "InsecureFrontendValidationMode",
            holds: true,
            reason: "ConfigurationChanged",
            message: "clients' certificates need not be valid (AllowInsecureFallback)".to_owned(),
        });
    }
    Some(status)
}

fn accepted_condition(why: Option<&Why>, valid: usize, all: usize) -> ApiCondition {
    if why.is_some() || valid == all {
        return unless("Accepted", "the Gateway is accepted", why);
    }
    ApiCondition {
        kind: "Accepted",
        holds: valid > 0,
        reason: "ListenersNotValid",
        message: format!("{valid} of {all} listeners are valid"),
    }
}

/// Which workloads serve a Gateway.
struct Serving {
    /// Their labels; nothing where none can be told.
    selector: Option<Labels>,
    /// What is wrong with the addresses.
    refused: Option<Why>,
    /// Whether no address can be used at all.
    is_hopeless: bool,
    /// Why the selected workloads do not serve.
    trouble: Vec<Why>,
    /// The ports of the Service in front; `None` without one.
    ports: Option<Vec<u16>>,
}

fn serving(world: &World<'_>, meta: &Meta, gateway: &KubernetesGateway) -> Serving {
    let namespace = &*meta.name.namespace;
    let mut serving = Serving {
        selector: None,
        refused: None,
        is_hopeless: false,
        trouble: Vec::new(),
        ports: None,
    };
    let is_managed = match gateway.addresses.as_slice() {
        [] => true,
        [one] => matches!(one.kind.as_deref(), None | Some("IPAddress")),
        _ => false,
    };
    if is_managed {
        let mut selector = Labels::new();
        selector.insert(GATEWAY_NAME_LABEL, &*meta.name.name);
        if !world.has_workload(namespace, &selector) {
            let message = format!("no workload of the namespace is labelled {GATEWAY_NAME_LABEL}");
            serving.trouble.push(Why::new("AddressNotUsable", message));
        }
        serving.selector = Some(selector);
        return serving;
    }
    let is_host = |kind: &Option<String>| matches!(kind.as_deref(), None | Some("Hostname"));
    let (hosts, others): (Vec<_>, Vec<_>) =
        gateway.addresses.iter().partition(|address| is_host(&address.kind));
    if let Some(other) = others.first() {
        let message = format!("only Hostname is supported: {} is ignored", other.value);
        serving.refused = Some(Why::new("UnsupportedAddress", message));
        serving.is_hopeless = hosts.is_empty();
    }
    for address in hosts {
        let host = match address.value.contains('.') {
            true => address.value.clone(),
            false => format!("{}.{namespace}.svc.{SERVICE_DOMAIN}", address.value),
        };
        match world.host(&host, namespace) {
            None => {
                let message = format!("the namespace has no service {host}");
                serving.trouble.push(Why::new("AddressNotUsable", message));
            }
            Some((Some(selector), ports)) if serving.selector.is_none() => {
                if !world.has_workload(namespace, &selector) {
                    let message = format!("{host} has no workload");
                    serving.trouble.push(Why::new("AddressNotAssigned", message));
                }
                (serving.selector, serving.ports) = (Some(selector), Some(ports));
            }
            Some(_) => {
                let message = format!("{host} selects no workloads, or is the second address");
                serving.trouble.push(Why::new("AddressNotUsable", message));
            }
        }
    }
    serving
}

/// Why a Gateway is not programmed.
fn programmed(serving: &Serving, ports: &[u16]) -> Option<Why> {
    if serving.is_hopeless {
        return Some(Why::new("UnsupportedAddress", "no address can be used"));
    }
    let mut troubles = serving.trouble.clone();
    let known = serving.ports.iter().flat_map(|known| {
        ports.iter().filter(|port| !known.contains(port)).map(move |port| {
            let message =
                format!("the service of the address has no port {port}: it has {known:?}");
            Why::new("AddressNotUsable", message)
        })
    });
    troubles.extend(known);
    // One that cannot be mended by waiting tells more.
    troubles.sort_by_key(|why| why.reason == "AddressNotAssigned");
    let mut troubles = troubles.into_iter();
    let first = troubles.next()?;
    Some(troubles.fold(first, |all, one| all.and(Some(one))))
}

fn parameters(world: &World<'_>, meta: &Meta, gateway: &KubernetesGateway) -> Option<Why> {
    let reference = gateway.parameters.as_ref()?;
    let is_map =
        reference.group.as_deref() == Some("") && reference.kind.as_deref() == Some("ConfigMap");
    if !is_map {
        return Some(Why::new("InvalidParameters", "only a ConfigMap can hold parameters"));
    }
    let found = world.get(Kind::ConfigMap, &meta.name.namespace, &reference.name);
    let message = format!("there is no ConfigMap {}/{}", meta.name.namespace, reference.name);
    found.is_none().then(|| Why::new("InvalidParameters", message))
}

/// Why each listener loses against an earlier one of its port.
fn conflicts(listeners: &[GatewayListener]) -> Vec<Option<&'static str>> {
    let is_bytes = |one: &GatewayListener| matches!(one.protocol.as_str(), "TCP" | "UDP");
    let is_http = |one: &GatewayListener| matches!(one.protocol.as_str(), "HTTP" | "HTTPS" | "TLS");
    let mut winners: Vec<&GatewayListener> = Vec::new();
    let mut reasons = Vec::new();
    for listener in listeners {
        let clash = winners.iter().find(|other| {
            other.port == listener.port
                && if is_http(listener) && is_http(other) {
                    other.hostname == listener.hostname
                } else {
                    (is_bytes(listener) || is_http(listener)) && (is_bytes(other) || is_http(other))
                        || other.protocol == listener.protocol
                }
        });
        reasons.push(clash.map(|other| {
            if other.protocol != listener.protocol || is_bytes(listener) {
                "ProtocolConflict"
            } else {
                "HostnameConflict"
            }
        }));
        if clash.is_none() {
            winners.push(listener);
        }
    }
    reasons
}

/// What is made of one listener.
struct Made {
    status: ListenerStatus,
    parent: Option<Parent>,
    is_valid: bool,
}

fn one(
    world: &World<'_>,
    meta: &Meta,
    gateway: &KubernetesGateway,
    listener: &GatewayListener,
    conflict: Option<&'static str>,
    selector: Option<&Labels>,
) -> Made {
    let (kinds, are_known) = kinds(listener);
    let mut status = ListenerStatus {
        at: listener.at.clone(),
        name: listener.name.clone(),
        attached_routes: 0,
        supported_kinds: kinds.clone(),
        conditions: Vec::new(),
    };
    let unknown = Why::new("InvalidRouteKinds", "a kind of route is not supported here");
    let unknown = (!are_known).then_some(unknown);
    if let Some(reason) = conflict {
        let why = Why::new(reason, "another listener has the port");
        status.conditions = vec![refused("Accepted", &why), refused("Programmed", &why)];
        let mut condition = refused("Conflicted", &why);
        condition.holds = true;
        status.conditions.push(condition);
        status.conditions.extend(unknown.map(|why| refused("ResolvedRefs", &why)));
        return Made { status, parent: None, is_valid: false };
    }
    let tls = tls::of_listener(world, meta, gateway, listener);
    let protocol = protocol(&listener.protocol);
    status.conditions = conditions(&tls, &protocol, unknown);
    let is_valid = tls.is_ok() && protocol.is_ok();
    // TLS without settings: a place for sections that are not ours.
    if matches!(tls, Ok(None)) && matches!(listener.protocol.as_str(), "HTTPS" | "TLS") {
        return Made { status, parent: None, is_valid };
    }
    let hosts = hosts(world, meta, listener);
    let name = format!("{}-istio-autogenerated-k8s-gateway-{}", meta.name.name, listener.name);
    let made = ObjectName::new(meta.name.namespace.clone(), name);
    let resource = match (tls, protocol, selector) {
        (Ok(tls), Ok(protocol), Some(selector)) => {
            let port = ServerPort {
                at: listener.at.clone(),
                number: listener.port,
                protocol,
                name: "default".to_owned(),
                target_port: None,
            };
            let server = Server {
                at: listener.at.clone(),
                name: None,
                port,
                bind: None,
                hosts: hosts.clone(),
                tls,
                default_endpoint: None,
            };
            let spec = Gateway { selector: selector.clone(), servers: vec![server] };
            let meta = made_meta(meta, Kind::Gateway, &made);
            Some(Arc::new(Resource { meta, spec: Spec::Gateway(spec) }))
        }
        _ => None,
    };
    let parent = Parent {
        gateway: meta.name.clone(),
        made,
        section: listener.name.clone(),
        port: listener.port,
        protocol: listener.protocol.clone(),
        hostname: listener.hostname.clone(),
        hosts,
        kinds,
        resource,
    };
    Made { status, parent: Some(parent), is_valid }
}

/// The meta of an object that is made of another one.
pub(super) fn made_meta(of: &Meta, kind: Kind, name: &ObjectName) -> Meta {
    Meta {
        kind,
        name: name.clone(),
        labels: Labels::new(),
        annotations: BTreeMap::from([(SEMANTICS.to_owned(), "gateway".to_owned())]),
        created: of.created,
        at: of.at.clone(),
    }
}

fn conditions(
    tls: &Result<Option<sluis_resources::ServerTls>, Why>,
    protocol: &Result<Protocol, Why>,
    unknown_kinds: Option<Why>,
) -> Vec<ApiCondition> {
    const CA: [&str; 3] =
        ["InvalidCACertificateRef", "InvalidCACertificateKind", "RefNotPermitted"];
    let fine = "no errors found";
    let of_tls = tls.as_ref().err();
    let of_ca = of_tls
        .filter(|why| CA.contains(&why.reason))
        .map(|why| Why::new("NoValidCACertificate", why.message.clone()));
    let accepted = protocol.as_ref().err().or(of_ca.as_ref());
    let programmed = of_tls.map(|why| Why::new("Invalid", why.message.clone()));
    vec![
        unless("Accepted", fine, accepted),
        ApiCondition {
            kind: "Conflicted",
            holds: false,
            reason: "NoConflicts",
            message: fine.to_owned(),
        },
        unless("Programmed", fine, programmed.as_ref()),
        unless("ResolvedRefs", fine, unknown_kinds.as_ref().or(of_tls)),
    ]
}

fn protocol(written: &str) -> Result<Protocol, Why> {
    match written {
        "HTTP" => Ok(Protocol::Http),
        "HTTPS" => Ok(Protocol::Https),
        "TLS" => Ok(Protocol::Tls),
        "TCP" => Ok(Protocol::Tcp),
        other => {
            let message = format!("protocol {other:?} is not supported: HTTP, HTTPS, TLS, TCP are");
            Err(Why::new("UnsupportedProtocol", message))
        }
    }
}

/// The kinds of routes that a listener takes, and whether all that it names are among them.
fn kinds(listener: &GatewayListener) -> (Vec<&'static str>, bool) {
    let is_terminated = listener.tls.as_ref().is_some_and(|tls| tls.is_passthrough == Some(false));
    let by_protocol: &[&'static str] = match listener.protocol.as_str() {
        "HTTP" | "HTTPS" => &["HTTPRoute", "GRPCRoute"],
        "TCP" => &["TCPRoute"],
        "TLS" if is_terminated => &["TLSRoute", "TCPRoute"],
        "TLS" => &["TLSRoute"],
        _ => &[],
    };
    if listener.kinds.is_empty() {
        return (by_protocol.to_vec(), true);
    }
    let is_named = |own: &&str| {
        let mut named = listener.kinds.iter();
        named.any(|(group, kind)| group == "gateway.networking.k8s.io" && kind == own)
    };
    let both: Vec<&'static str> = by_protocol.iter().copied().filter(|own| is_named(own)).collect();
    let are_known = both.len() == listener.kinds.len();
    (both, are_known)
}

fn hosts(world: &World<'_>, meta: &Meta, listener: &GatewayListener) -> Vec<GatewayHost> {
    let host = listener.hostname.clone().unwrap_or_else(HostPattern::any);
    let made = |scope| GatewayHost { scope, host: host.clone(), at: listener.at.clone() };
    let of = |name: &str| made(HostScope::Namespace(name.to_owned()));
    // No namespace has this name.
    let nobody = || vec![of("~")];
    match &listener.namespaces {
        RouteNamespaces::All => vec![made(HostScope::Any)],
        RouteNamespaces::Same => vec![of(&meta.name.namespace)],
        RouteNamespaces::None => nobody(),
        RouteNamespaces::Selector(selector) => {
            let found = world.namespaces(selector);
            if found.is_empty() { nobody() } else { found.iter().map(|name| of(name)).collect() }
        }
    }
}
