//! Reads GatewayClass and Gateway.

use std::collections::BTreeMap;

use super::super::forms::{checked, read_fields};
use super::super::shared::{some_of, unique};
use crate::kinds::gateway_api::{
    FrontendTls, FrontendValidation, GatewayAddress, GatewayClass, GatewayListener,
    KubernetesGateway, ListenerTls, ObjectReference, RouteNamespaces,
};
use crate::value::{Fields, Value};

read_fields! {
    GatewayClass => class,
    KubernetesGateway => gateway,
    GatewayAddress => address,
    GatewayListener => listener,
    ListenerTls => listener_tls,
    Allowed => allowed,
    RouteNamespaces => namespaces,
    RouteKind => route_kind,
    Infrastructure => infrastructure,
    GatewayTls => gateway_tls,
    BackendTls => backend_tls,
    FrontendTls => frontend_tls,
    PortTls => port_tls,
    TlsConfig => tls_config,
    FrontendValidation => validation,
}

fn class(fields: &mut Fields<'_, '_>) -> Option<GatewayClass> {
    let controller = fields.req("controllerName");
    fields.ignore(&["description"]);
    fields.without_effect(&["parametersRef"]);
    Some(GatewayClass { controller: controller? })
}

fn gateway(fields: &mut Fields<'_, '_>) -> Option<KubernetesGateway> {
    let class = fields.req("gatewayClassName");
    let addresses = fields.or_default("addresses");
    let listeners: Option<Vec<GatewayListener>> = some_of(fields, "listeners");
    let names = listeners.iter().flatten().map(|listener| listener.name.as_str());
    unique(fields, "listeners", names, "the listener");
    let infrastructure: Option<Infrastructure> = fields.opt("infrastructure");
    let tls: GatewayTls = fields.or_default("tls");
    fields.without_effect(&["allowedListeners"]);
    Some(KubernetesGateway {
        class: class?,
        addresses,
        listeners: listeners?,
        parameters: infrastructure.and_then(|Infrastructure(parameters)| parameters),
        client_certificate: tls.client_certificate,
        frontend: tls.frontend,
    })
}

fn address(fields: &mut Fields<'_, '_>) -> Option<GatewayAddress> {
    let (kind, value) = (fields.opt("type"), fields.req("value"));
    Some(GatewayAddress { kind, value: value? })
}

fn listener(fields: &mut Fields<'_, '_>) -> Option<GatewayListener> {
    let name = fields.req("name");
    let hostname = fields.get("hostname").filter(Value::is_set).and_then(|value| value.read());
    let (port, protocol) = (fields.req("port"), fields.req("protocol"));
    let tls = fields.opt("tls");
    let allowed: Allowed = fields.or_default("allowedRoutes");
    Some(GatewayListener {
        at: fields.at(),
        name: name?,
        hostname,
        port: port?,
        protocol: protocol?,
        tls,
        namespaces: allowed.namespaces,
        kinds: allowed.kinds,
    })
}

fn listener_tls(fields: &mut Fields<'_, '_>) -> Option<ListenerTls> {
    let is_passthrough = fields.get("mode").and_then(|value| {
        checked(&value, |text| match text {
            "Terminate" => Ok(false),
            "Passthrough" => Ok(true),
            other => Err(format!("{other:?} is none of Terminate, Passthrough")),
        })
    });
    let (certificates, options) =
        (fields.or_default("certificateRefs"), fields.or_default("options"));
    Some(ListenerTls { at: fields.at(), is_passthrough, certificates, options })
}

/// `allowedRoutes`.
#[derive(Default)]
struct Allowed {
    namespaces: RouteNamespaces,
    kinds: Vec<(String, String)>,
}

fn allowed(fields: &mut Fields<'_, '_>) -> Option<Allowed> {
    let kinds: Vec<RouteKind> = fields.or_default("kinds");
    let kinds = kinds.into_iter().map(|RouteKind(group, kind)| (group, kind)).collect();
    Some(Allowed { namespaces: fields.or_default("namespaces"), kinds })
}

struct RouteKind(String, String);

fn route_kind(fields: &mut Fields<'_, '_>) -> Option<RouteKind> {
    let group: Option<String> = fields.opt("group");
    let kind = fields.req("kind");
    Some(RouteKind(group.unwrap_or_else(|| GROUP.to_owned()), kind?))
}

/// The group of the Gateway API.
const GROUP: &str = "gateway.networking.k8s.io";

fn namespaces(fields: &mut Fields<'_, '_>) -> Option<RouteNamespaces> {
    let from: Option<String> = fields.opt("from");
    let selector = fields.opt("selector");
    match (from.as_deref().unwrap_or("Same"), selector) {
        ("All", _) => Some(RouteNamespaces::All),
        ("Same", _) => Some(RouteNamespaces::Same),
        ("None", _) => Some(RouteNamespaces::None),
        ("Selector", Some(selector)) => Some(RouteNamespaces::Selector(selector)),
        ("Selector", None) => {
            fields.missing("selector");
            None
        }
        (other, _) => {
            fields.fault_at("from", format!("{other:?} is none of All, Same, Selector, None"));
            None
        }
    }
}

/// `infrastructure`.
struct Infrastructure(Option<ObjectReference>);

fn infrastructure(fields: &mut Fields<'_, '_>) -> Option<Infrastructure> {
    // Nothing is deployed here that could carry them.
    fields.without_effect(&["labels", "annotations"]);
    Some(Infrastructure(fields.opt("parametersRef")))
}

/// `tls` of a Gateway.
#[derive(Default)]
struct GatewayTls {
    client_certificate: Option<ObjectReference>,
    frontend: FrontendTls,
}

fn gateway_tls(fields: &mut Fields<'_, '_>) -> Option<GatewayTls> {
    let backend: Option<BackendTls> = fields.opt("backend");
    let client_certificate = backend.and_then(|BackendTls(reference)| reference);
    Some(GatewayTls { client_certificate, frontend: fields.or_default("frontend") })
}

struct BackendTls(Option<ObjectReference>);

fn backend_tls(fields: &mut Fields<'_, '_>) -> Option<BackendTls> {
    fields.not_carried_out(&["clientCertificateRef"]);
    Some(BackendTls(fields.opt("clientCertificateRef")))
}

fn frontend_tls(fields: &mut Fields<'_, '_>) -> Option<FrontendTls> {
    let default: Option<TlsConfig> = fields.opt("default");
    let per_port: Vec<PortTls> = fields.or_default("perPort");
    let per_port: BTreeMap<u16, _> =
        per_port.into_iter().map(|PortTls(port, validation)| (port, validation)).collect();
    Some(FrontendTls { default: default.and_then(|TlsConfig(validation)| validation), per_port })
}

struct PortTls(u16, Option<FrontendValidation>);

fn port_tls(fields: &mut Fields<'_, '_>) -> Option<PortTls> {
    let port = fields.req("port");
    let tls: Option<TlsConfig> = fields.opt("tls");
    Some(PortTls(port?, tls.and_then(|TlsConfig(validation)| validation)))
}

struct TlsConfig(Option<FrontendValidation>);

fn tls_config(fields: &mut Fields<'_, '_>) -> Option<TlsConfig> {
    Some(TlsConfig(fields.opt("validation")))
}

fn validation(fields: &mut Fields<'_, '_>) -> Option<FrontendValidation> {
    let authorities = some_of(fields, "caCertificateRefs");
    let is_insecure = fields.get("mode").and_then(|value| {
        checked(&value, |text| match text {
            "AllowValidOnly" => Ok(false),
            "AllowInsecureFallback" => Ok(true),
            other => Err(format!("{other:?} is none of AllowValidOnly, AllowInsecureFallback")),
        })
    });
    Some(FrontendValidation {
        authorities: authorities?,
        is_insecure: is_insecure.unwrap_or(false),
    })
}
