//! The page `docs/reference/support.md`: every field that is read, and what becomes of it.
//!
//! In:    the readers, which are let loose on a value that has every field; the notes below.
//! Out:   Markdown.
//! Never: lists a field by hand: a field, its state and its names are what its reader says.
//!
//! A field's state is in its reader (`not_carried_out`, `without_effect`, `unsupported`); what else is
//! worth knowing of it is in [`NOTES`].

use std::fmt::Write;

use crate::read::describe;
use crate::value::{Field, Schema, Section, Shape, State};

/// What is worth knowing of a field beyond its state: the kind and path where its section stands on
/// the page, and the note.
const NOTES: &[(&str, &str)] = &[
    ("Gateway spec.selector", "the proxies with these labels; empty selects all gateways"),
    ("Gateway spec.servers[].bind", "an IP address; behind a unix socket nothing is served"),
    ("Gateway spec.servers[].port.number", "a Service in front maps it to the port that is bound"),
    ("Gateway spec.servers[].port.name", "part of the route table's name"),
    ("Gateway spec.servers[].port.targetPort", "refused where it is set, as in Istio"),
    ("Gateway spec.servers[].tls.httpsRedirect", "on a plain HTTP port"),
    (
        "Gateway spec.servers[].tls.serverCertificate",
        "files are read again when they change; `/etc/certs/…` of old Istio stands for the mesh's \
         certificate, with a warning",
    ),
    (
        "Gateway spec.servers[].tls.minProtocolVersion",
        "`sluis-proxy` refuses a listener below 1.2, by name",
    ),
    (
        "Gateway spec.servers[].tls.cipherSuites",
        "`sluis-proxy` takes those that are forward secret with AES-GCM or ChaCha20, and refuses a \
         listener whose list has none",
    ),
    (
        "Gateway spec.servers[].tls.credentialName",
        "a Secret that is missing or wrong is a fault, and its server refuses connections; it is of \
         the proxy's own namespace, with `tls.crt`, `tls.key`, `ca.crt`, `ca.crl` or `cert`, `key`, \
         `cacert`, `crl`, the CA also in `NAME-cacert`",
    ),
    (
        "AuthorizationPolicy spec.targetRefs",
        "a Gateway of the Gateway API; a ServiceEntry, which is guarded at each client's sidecar and at \
         every gateway that carries it; Services and GatewayClasses are refused, for only waypoints \
         look at them",
    ),
    (
        "AuthorizationPolicy spec.provider",
        "`envoyExtAuthzGrpc` or `envoyExtAuthzHttp`; one for a workload, as in Istio; a provider that \
         is missing refuses what the rules match",
    ),
    (
        "AuthorizationPolicy spec.rules[].when[].key",
        "all of Istio's but `experimental.envoy.filters.*`, which is refused",
    ),
    ("VirtualService spec.gateways", "`mesh` is the gateway of the sidecars"),
    (
        "VirtualService spec.http[].match[].sourceLabels",
        "a gateway does not see its clients' labels: it compares its own, as in Istio, and a \
         warning says so",
    ),
    (
        "VirtualService spec.http[].match[].sourceNamespace",
        "a gateway does not see its clients' namespace: it compares its own, as in Istio, and a \
         warning says so",
    ),
    ("VirtualService spec.http[].match[].headers", "header presence is `{}`"),
    (
        "VirtualService spec.http[].delegate",
        "one step; a rule that does not lie within the one that delegates is dropped with a fault",
    ),
    ("VirtualService spec.http[].timeout", "none where none is written"),
    (
        "VirtualService spec.http[].fault.delay.percentage",
        "without it no request is touched, as in Istio, and a warning says so",
    ),
    (
        "VirtualService spec.http[].fault.abort.percentage",
        "without it no request is touched, as in Istio, and a warning says so",
    ),
    ("VirtualService spec.http[].fault.delay.exponentialDelay", "refused by Istio too"),
    ("VirtualService spec.http[].fault.abort.http2Error", "refused by Istio too"),
    ("VirtualService spec.http[].websocketUpgrade", "WebSocket is always possible"),
    ("VirtualService spec.http[].redirect.redirectCode", "301, 302, 303, 307 or 308"),
    ("DestinationRule spec.trafficPolicy.tunnel", "for TCP and TLS routes, as in Istio"),
    (
        "DestinationRule spec.trafficPolicy.loadBalancer.localityLbSetting",
        "failover needs `outlierDetection`, as in Istio",
    ),
    (
        "DestinationRule spec.trafficPolicy.tls.sni",
        "without `subjectAltNames` it is also verified in the certificate; Istio verifies no name",
    ),
    (
        "DestinationRule spec.trafficPolicy.tls.credentialName",
        "on a gateway, or in a rule with a `workloadSelector`; elsewhere the cluster refuses all \
         traffic (Istio sends plain text)",
    ),
    ("DestinationRule spec.trafficPolicy.tls.caCertificates", "without it the system's roots"),
    ("ServiceEntry spec.ports[].protocol", "where none is written the first bytes tell it"),
    (
        "ServiceEntry spec.endpoints[].address",
        "an IP address, a name (DNS only), `unix://PATH` (STATIC only; abstract sockets with a real \
         Envoy only)",
    ),
    ("ServiceEntry spec.endpoints[].locality", "also label `istio-locality`"),
    (
        "ServiceEntry spec.endpoints[].network",
        "as label `topology.istio.io/network`; endpoints of other networks are reached directly",
    ),
    ("ServiceEntry spec.workloadSelector", "no effect with resolution NONE"),
    (
        "ServiceEntry spec.resolution",
        "DYNAMIC_DNS: HTTP by Host, TLS by server name; on gateways too",
    ),
    (
        "EnvoyFilter spec.configPatches[].applyTo",
        "BOOTSTRAP is left out with an error: it is never sent to a running proxy",
    ),
    (
        "EnvoyFilter spec.configPatches[].patch.value",
        "today's v3 messages; names of v2 messages and `inlineCode` are brought up to date",
    ),
    (
        "EnvoyFilter spec.configPatches[].patch.operation",
        "one that Istio does not carry out there is left out with an error",
    ),
    ("EnvoyFilter spec.configPatches[].patch.filterClass", "places an HTTP filter that is ADDed"),
    (
        "EnvoyFilter spec.configPatches[].match.proxy.proxyVersion",
        "a proxy that says no version matches none",
    ),
    (
        "EnvoyFilter spec.configPatches[].match.listener.portName",
        "of no effect, as in Istio, with a warning",
    ),
    ("EnvoyFilter spec.configPatches[].match.waypoint", "means no proxy here"),
    (
        "Sidecar spec.egress",
        "what it does not import is not configured; without any everything is imported",
    ),
    ("Credential spec.source", "by default the Secret of the Credential's own name"),
    ("Credential spec.source.secretRef.namespace", "only its own"),
    ("Credential spec.source.exec.command", "no shell; its standard output is a JSON object"),
    (
        "Credential spec.inject.hmac.stringToSign",
        "text and `{variable:encoding}`: `method`, `host`, `authority`, `path`, `query`, \
         `path_and_query`, `scheme`, `date`, `body_digest`, `header.NAME`; in `output` also \
         `secret.ENTRY` and `signature`; `hex`, `base64`, `base64url`, `lower`, `upper`",
    ),
    ("Credential spec.guard.hosts", "never `*` or everything below a top-level domain"),
    ("Credential spec.guard.onFailure", "`allowWithout` is warned of"),
    (
        "Credential spec.allowGrantsFrom",
        "other namespaces whose grants may name it; those of its own always may",
    ),
    ("CredentialGrant spec.credential", "NAME, or NAMESPACE/NAME where that one allows it"),
    ("CredentialGrant spec.from", "`source` of an AuthorizationPolicy; without it everybody"),
    ("CredentialGrant spec.to", "`operation` of an AuthorizationPolicy, of the request as sent"),
    ("Service spec.sessionAffinity", "where it is not `None`"),
    ("Service spec.externalTrafficPolicy", "where it is not `Cluster`"),
    ("Service spec.loadBalancerSourceRanges", "a restriction that nobody would enforce"),
    ("Service spec.ports[].protocol", "a port of UDP is left out with a warning, SCTP is refused"),
    ("Secret data", "for `credentialName`"),
    ("ConfigMap data", "`mesh` of `istio`, and what `configmap://NAME` names"),
    ("MeshConfig trustDomain", "read at the start"),
    (
        "MeshConfig meshMTLS.minProtocolVersion",
        "for servers in mode ISTIO_MUTUAL, and for what sidecars receive",
    ),
    ("MeshConfig meshMTLS.cipherSuites", "for what sidecars receive"),
    ("MeshConfig meshMTLS.ecdhCurves", "an error, as in Istio"),
    ("MeshConfig inboundTrafficPolicy", "for sidecars whose connections are redirected"),
    ("MeshConfig extensionProviders", "read; what names a provider is not carried out yet"),
];

/// Writes the page `docs/reference/support.md`.
pub fn support_page() -> String {
    let (schema, kinds) = describe();
    let mut page = String::from(HEAD);
    for kind in &kinds {
        let (state, note) = match kind.is_pending {
            false => ("yes", ""),
            true => ("refused", "read and checked; nothing carries it out yet"),
        };
        let (name, link) = (&kind.name, anchor(&kind.name));
        let _ = writeln!(page, "| [{name}](#{link}) | `{}` | {state} | {note} |", kind.api);
    }
    page.push_str(OTHERS);
    for section in &schema.sections {
        write_section(&mut page, &schema, section);
    }
    page
}

const HEAD: &str = "# What is supported of each kind

Written by `make support` from the readers of `crates/resources`; a test holds it to them.
What `sluis-proxy` understands of Envoy's own API is on [another page](../api-support.md).

A field that is not here is refused as unknown, with the name that was probably meant; \
`sluis_resources::Options::LENIENT` makes that a warning.

| state | what happens |
|---|---|
| yes | It is carried out, by `sluis-proxy` and by a real Envoy, unless the note says otherwise. |
| warning | It is read and checked, and not carried out yet. A warning names resource, field and line; \
the resource is used. What works without it works less well, and nothing is open that it would have \
closed. |
| no effect | It means nothing here. A warning says so. |
| refused | An error. The resource is not used: the last good one stays, and at the first start \
`sluis up` does not start. |
| ignored | Read over without a word, because it is Kubernetes' own housekeeping. |

What a field of the first state asks for and one proxy cannot do is an error where it bears on that \
proxy: the cluster, server or route that needs it is there and refuses traffic.
`sluis validate -f DIR` prints all of them, with file:line:column; `sluis up` does when it reads the \
files.

## Kinds

| kind | apiVersion | state | note |
|---|---|---|---|
";

const OTHERS: &str = "| Deployment, ServiceAccount, Role, … | | no effect | they say nothing about \
traffic |
| every other kind | | refused | a policy that nobody enforces must not look enforced |

The mesh configuration (MeshConfig below) is the key `mesh` of the ConfigMap `istio`; its names are \
taken in camelCase and in snake_case, as Istio takes them.
";

fn write_section(page: &mut String, schema: &Schema, section: &Section) {
    let title = title(section);
    let level = if section.path.is_empty() { "##" } else { "###" };
    let _ = writeln!(page, "\n{level} {title}\n");
    if section.fields.is_empty() {
        page.push_str("Takes no fields.\n");
        return;
    }
    page.push_str("| field | state | note |\n|---|---|---|\n");
    for field in &section.fields {
        let note = note(schema, section, field);
        let _ = writeln!(page, "| `{}` | {} | {note} |", field.name, word(field.state));
    }
    if section.is_open {
        page.push_str("\nOther fields are read over.\n");
    }
}

fn title(section: &Section) -> String {
    match section.path.as_str() {
        "" => section.kind.clone(),
        path => format!("{} {path}", section.kind),
    }
}

fn word(state: State) -> &'static str {
    match state {
        State::Supported => "yes",
        State::NotYet => "warning",
        State::NoEffect => "no effect",
        State::Refused => "refused",
        State::Ignored => "ignored",
    }
}

fn note(schema: &Schema, section: &Section, field: &Field) -> String {
    let mut parts: Vec<String> = Vec::new();
    match &field.shape {
        Shape::Plain => {}
        Shape::Names(names) => parts.push(format!("`{}`", names.join("`, `"))),
        Shape::Section(index) => {
            let title = title(&schema.sections[*index]);
            parts.push(format!("[{title}](#{})", anchor(&title)));
        }
    }
    parts.extend(field.why.clone());
    let key = key(section, field);
    parts.extend(NOTES.iter().filter(|(of, _)| *of == key).map(|(_, note)| (*note).to_owned()));
    parts.join("; ")
}

fn key(section: &Section, field: &Field) -> String {
    let dot = if section.path.is_empty() { "" } else { "." };
    format!("{} {}{dot}{}", section.kind, section.path, field.name)
}

/// Returns the link target of a heading, as GitHub makes it.
fn anchor(title: &str) -> String {
    let kept = title.chars().filter(|c| c.is_ascii_alphanumeric() || matches!(c, ' ' | '-' | '_'));
    kept.map(|c| if c == ' ' { '-' } else { c.to_ascii_lowercase() }).collect()
}

#[cfg(test)]
mod tests {
    use super::{NOTES, describe, key};

    #[test]
    fn each_note_is_about_a_field() {
        let (schema, _) = describe();
        let keys: Vec<String> = schema
            .sections
            .iter()
            .flat_map(|section| section.fields.iter().map(|field| key(section, field)))
            .collect();
        let lost: Vec<&str> = NOTES
            .iter()
            .map(|(of, _)| *of)
            .filter(|of| !keys.iter().any(|key| key == of))
            .collect();
        assert!(lost.is_empty(), "no such field: {lost:#?}");
    }
}
