//! TLS of a listener, in the terms of a Gateway's server.

use sluis_resources::{
    FrontendValidation, GatewayListener, Kind, KubernetesGateway, ListenerTls,
    MESH_CERTIFICATE_FILES, Meta, ObjectReference, ServerTls, ServerTlsMode, TlsFiles,
};

use super::super::{
    status::{Why, joined, named},
    world::{World, holds_pem},
};

/// The option that asks for another way of terminating.
const MODE: &str = "gateway.istio.io/tls-terminate-mode";

/// The option with a list of cipher suites.
const CIPHERS: &str = "gateway.istio.io/tls-cipher-suites";

/// The option by which a listener forwards the mesh's own TLS by its server name.
const LISTENER_MODE: &str = "gateway.istio.io/listener-protocol";

/// Most certificates of one listener, as in Istio: one of each key type.
const CERTIFICATES_MAX: usize = 2;

type Tls = Result<Option<ServerTls>, Why>;

/// The settings of a listener's server; `None` when it has none.
pub(super) fn of_listener(
    world: &World<'_>,
    meta: &Meta,
    gateway: &KubernetesGateway,
    listener: &GatewayListener,
) -> Tls {
    let Some(tls) = &listener.tls else { return Ok(None) };
    let mut made = ServerTls { at: tls.at.clone(), ..ServerTls::default() };
    if let Some(suites) = tls.options.get(CIPHERS) {
        let suites = suites.split(',').map(|suite| suite.trim().to_owned());
        made.cipher_suites = suites.filter(|suite| !suite.is_empty()).collect();
    }
    if tls.is_passthrough == Some(true) {
        made.mode = match is_automatic(meta, listener, tls) {
            true => ServerTlsMode::AutoPassthrough,
            false => ServerTlsMode::Passthrough,
        };
        return Ok(Some(made));
    }
    let asked = tls.options.get(MODE).map(String::as_str);
    made.mode = match asked {
        Some("MUTUAL") => ServerTlsMode::Mutual,
        Some("OPTIONAL_MUTUAL") => ServerTlsMode::OptionalMutual,
        Some("ISTIO_MUTUAL") => {
            made.mode = ServerTlsMode::IstioMutual;
            return Ok(Some(made));
        }
        Some("ISTIO_SIMPLE") => {
            let (certificate, key) = MESH_CERTIFICATE_FILES;
            made.files = TlsFiles {
                certificate: Some(certificate.to_owned()),
                private_key: Some(key.to_owned()),
                ca_certificates: None,
            };
            made.mode = ServerTlsMode::Simple;
            return Ok(Some(made));
        }
        _ => ServerTlsMode::Simple,
    };
    made.credential_names = certificates(world, meta, &tls.certificates)?;
    let default = &gateway.frontend.default;
    let validation = gateway.frontend.per_port.get(&listener.port).unwrap_or(default);
    if let Some(validation) = validation {
        made.ca_credential_name = Some(authority(world, meta, validation)?);
        let is_asked = matches!(asked, Some("MUTUAL" | "OPTIONAL_MUTUAL"));
        if !is_asked {
            made.insecure_skip_verify = validation.is_insecure;
            made.mode = match validation.is_insecure {
                true => ServerTlsMode::OptionalMutual,
                false => ServerTlsMode::Mutual,
            };
        }
    }
    Ok(Some(made))
}

/// Whether the listener is one for traffic between clusters: by its option, or by port and network.
fn is_automatic(meta: &Meta, listener: &GatewayListener, tls: &ListenerTls) -> bool {
    if tls.options.get(LISTENER_MODE).is_some_and(|mode| mode == "auto-passthrough") {
        return true;
    }
    let port = meta.labels.get("networking.istio.io/gatewayPort").unwrap_or("15443");
    meta.labels.get("topology.istio.io/network").is_some() && listener.port.to_string() == port
}

fn certificates(
    world: &World<'_>,
    meta: &Meta,
    references: &[ObjectReference],
) -> Result<Vec<String>, Why> {
    if references.len() > CERTIFICATES_MAX {
        let message = format!("a listener has at most {CERTIFICATES_MAX} certificates");
        return Err(Why::new("InvalidCertificateRef", message));
    }
    let (mut names, mut why) = (Vec::new(), None);
    for reference in references {
        match certificate(world, meta, reference, "InvalidCertificateRef") {
            Ok(name) => names.push(name),
            Err(one) => why = joined(why, Some(one)),
        }
    }
    match why {
        Some(why) if names.is_empty() => Err(why),
        _ => Ok(names),
    }
}

/// The credential's name of a Secret with certificate and key.
fn certificate(
    world: &World<'_>,
    meta: &Meta,
    reference: &ObjectReference,
    reason: &'static str,
) -> Result<String, Why> {
    let own = &*meta.name.namespace;
    let namespace = reference.namespace.as_deref().unwrap_or(own);
    if namespace != own
        && !world.is_granted(("Gateway", own), ("", "Secret", namespace, &reference.name))
    {
        return Err(not_permitted(reference, own));
    }
    let refuse = |why: &str| Err(Why::new(reason, format!("{}: {why}", named(reference))));
    if !reference.is_default("", "Secret") {
        return refuse("only a Secret can hold a certificate");
    }
    if world.get(Kind::Secret, namespace, &reference.name).is_none() {
        return refuse("there is no such Secret");
    }
    let entry = |names: &[&str]| world.data(Kind::Secret, namespace, &reference.name, names);
    let (chain, key) = (entry(&["tls.crt", "cert"]), entry(&["tls.key", "key"]));
    let is_chain = chain.is_some_and(|chain| holds_pem(&chain, "CERTIFICATE"));
    if !is_chain || !key.is_some_and(|key| holds_pem(&key, "PRIVATE KEY")) {
        return refuse("the Secret holds no certificate and key");
    }
    Ok(format!("kubernetes-gateway://{namespace}/{}", reference.name))
}

fn not_permitted(reference: &ObjectReference, own: &str) -> Why {
    let message = format!("{}: no ReferenceGrant lets a Gateway of {own} use it", named(reference));
    Why::new("RefNotPermitted", message)
}

/// The credential's name of the roots that clients' certificates are verified by.
fn authority(
    world: &World<'_>,
    meta: &Meta,
    validation: &FrontendValidation,
) -> Result<String, Why> {
    let [reference] = validation.authorities.as_slice() else {
        let message = "only one caCertificateRef is supported";
        return Err(Why::new("InvalidCACertificateRef", message));
    };
    let own = &*meta.name.namespace;
    let namespace = reference.namespace.as_deref().unwrap_or(own);
    let kind = match (reference.group.as_deref(), reference.kind.as_deref()) {
        (Some("" | "core"), Some("ConfigMap")) => Some(Kind::ConfigMap),
        (Some("" | "core"), Some("Secret")) => Some(Kind::Secret),
        _ => None,
    };
    let name = &*reference.name;
    let granted = kind.unwrap_or(Kind::ConfigMap).as_str();
    if namespace != own && !world.is_granted(("Gateway", own), ("", granted, namespace, name)) {
        return Err(not_permitted(reference, own));
    }
    let Some(kind) = kind else {
        let message = format!("{}: only Secret and ConfigMap are supported", named(reference));
        return Err(Why::new("InvalidCACertificateKind", message));
    };
    let found = world.data(kind, namespace, name, &["ca.crt", "cacert"]);
    if !found.is_some_and(|roots| holds_pem(&roots, "CERTIFICATE")) {
        let message = format!("{}: it holds no ca.crt, or is not there", named(reference));
        return Err(Why::new("InvalidCACertificateRef", message));
    }
    let scheme = if kind == Kind::Secret { "kubernetes-gateway" } else { "configmap" };
    Ok(format!("{scheme}://{namespace}/{name}-cacert"))
}

/// What is wrong with the certificate that the Gateway shows to backends.
pub(super) fn client_certificate(
    world: &World<'_>,
    meta: &Meta,
    gateway: &KubernetesGateway,
) -> Option<Why> {
    let reference = gateway.client_certificate.as_ref()?;
    certificate(world, meta, reference, "InvalidClientCertificateRef").err()
}
