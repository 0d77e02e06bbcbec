//! What kinds are called on the command line, as `kubectl` has it.

use sluis_resources::Kind;

/// The names of one kind.
#[derive(Clone, Copy, Debug)]
pub(crate) struct KindNames {
    kind: Kind,
    /// `apiVersion`, the one to print where none was written.
    pub api: &'static str,
    /// The plural, in lower case.
    pub plural: &'static str,
    /// The abbreviation, as the kind's definition has it; empty where there is none.
    short: &'static str,
}

const fn row(
    kind: Kind,
    api: &'static str,
    plural: &'static str,
    short: &'static str,
) -> KindNames {
    KindNames { kind, api, plural, short }
}

const NETWORKING: &str = "networking.istio.io/v1";
const SECURITY: &str = "security.istio.io/v1";
const EGRESS: &str = "egress.sluis.dev/v1alpha1";
const GATEWAY_API: &str = "gateway.networking.k8s.io/v1";

/// All kinds, in the order in which `get all` shows them.
const ROWS: [KindNames; 32] = [
    row(Kind::Gateway, NETWORKING, "gateways", "gw"),
    row(Kind::VirtualService, NETWORKING, "virtualservices", "vs"),
    row(Kind::DestinationRule, NETWORKING, "destinationrules", "dr"),
    row(Kind::ServiceEntry, NETWORKING, "serviceentries", "se"),
    row(Kind::WorkloadEntry, NETWORKING, "workloadentries", "we"),
    row(Kind::WorkloadGroup, NETWORKING, "workloadgroups", "wg"),
    row(Kind::Sidecar, NETWORKING, "sidecars", ""),
    row(Kind::EnvoyFilter, "networking.istio.io/v1alpha3", "envoyfilters", ""),
    row(Kind::ProxyConfig, "networking.istio.io/v1beta1", "proxyconfigs", ""),
    row(Kind::PeerAuthentication, SECURITY, "peerauthentications", "pa"),
    row(Kind::RequestAuthentication, SECURITY, "requestauthentications", "ra"),
    row(Kind::AuthorizationPolicy, SECURITY, "authorizationpolicies", "ap"),
    row(Kind::Telemetry, "telemetry.istio.io/v1", "telemetries", "telemetry"),
    row(Kind::WasmPlugin, "extensions.istio.io/v1alpha1", "wasmplugins", ""),
    row(Kind::Credential, EGRESS, "credentials", "cred"),
    row(Kind::CredentialGrant, EGRESS, "credentialgrants", "credgrant"),
    row(Kind::GatewayClass, GATEWAY_API, "gatewayclasses", "gc"),
    row(Kind::KubernetesGateway, GATEWAY_API, "gateways", "gtw"),
    row(Kind::HttpRoute, GATEWAY_API, "httproutes", ""),
    row(Kind::GrpcRoute, GATEWAY_API, "grpcroutes", ""),
    row(Kind::TlsRoute, GATEWAY_API, "tlsroutes", ""),
    row(Kind::TcpRoute, "gateway.networking.k8s.io/v1alpha2", "tcproutes", ""),
    row(Kind::ReferenceGrant, "gateway.networking.k8s.io/v1beta1", "referencegrants", "refgrant"),
    row(Kind::BackendTlsPolicy, GATEWAY_API, "backendtlspolicies", "btlspolicy"),
    row(Kind::Service, "v1", "services", "svc"),
    row(Kind::EndpointSlice, "discovery.k8s.io/v1", "endpointslices", ""),
    row(Kind::Pod, "v1", "pods", "po"),
    row(Kind::NetworkPolicy, "networking.k8s.io/v1", "networkpolicies", "netpol"),
    row(Kind::ConfigMap, "v1", "configmaps", "cm"),
    row(Kind::Secret, "v1", "secrets", ""),
    row(Kind::Namespace, "v1", "namespaces", "ns"),
    row(Kind::Node, "v1", "nodes", "no"),
];

/// No kind has this name.
#[derive(Debug, thiserror::Error)]
#[error("the server doesn't have a resource type {0:?}")]
pub(crate) struct UnknownKind(pub String);

impl KindNames {
    /// The names of a kind.
    pub(crate) fn of(kind: Kind) -> Self {
        *ROWS.iter().find(|row| row.kind == kind).expect("every kind has a row, which is tested")
    }

    /// The group; empty for Kubernetes' core.
    fn group(self) -> &'static str {
        self.api.split_once('/').map_or("", |(group, _)| group)
    }

    /// The plural with its group.
    pub(crate) fn full(self) -> String {
        match self.group() {
            "" => self.plural.to_owned(),
            group => format!("{}.{group}", self.plural),
        }
    }

    /// Whether a word names this kind: plural, singular, or abbreviation, the first two also with the
    /// group or the beginning of it.
    fn is_named(self, word: &str) -> bool {
        let (name, group) = word.split_once('.').unwrap_or((word, ""));
        let is_kind = name == self.plural || name == self.kind.as_str().to_ascii_lowercase();
        let is_group = group.is_empty()
            || self.group() == group
            || self.group().strip_prefix(group).is_some_and(|rest| rest.starts_with('.'));
        (is_kind && is_group) || (!self.short.is_empty() && word == self.short)
    }
}

/// The kinds that a list of words such as `vs,httproutes` names, each once, in the order of the words.
/// `all` is every kind. A word without a group may name two: there are Gateways of Istio and of the
/// Gateway API.
///
/// # Errors
///
/// [`UnknownKind`] with the first word that names none.
pub(crate) fn kinds_named(words: &str) -> Result<Vec<Kind>, UnknownKind> {
    let mut kinds = Vec::new();
    for word in words.split(',').map(str::to_ascii_lowercase) {
        let found: Vec<Kind> = ROWS
            .iter()
            .filter(|row| word == "all" || row.is_named(&word))
            .map(|row| row.kind)
            .collect();
        if found.is_empty() {
            return Err(UnknownKind(word));
        }
        for kind in found {
            if !kinds.contains(&kind) {
                kinds.push(kind);
            }
        }
    }
    Ok(kinds)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(words: &str, expected: Option<&[Kind]>) {
        assert_eq!(kinds_named(words).ok().as_deref(), expected, "{words}");
    }

    #[test]
    fn kinds_are_named_as_kubectl_names_them() {
        check("vs", Some(&[Kind::VirtualService]));
        check("VirtualService", Some(&[Kind::VirtualService]));
        check("httproute,vs,httproutes", Some(&[Kind::HttpRoute, Kind::VirtualService]));
        check("gateways", Some(&[Kind::Gateway, Kind::KubernetesGateway]));
        check("gateways.networking.istio.io", Some(&[Kind::Gateway]));
        check("gateway.gateway", Some(&[Kind::KubernetesGateway]));
        check("gtw", Some(&[Kind::KubernetesGateway]));
        check("pods", Some(&[Kind::Pod]));
        for unknown in ["", "virtual", "vs.networking.k8s.io", "gateways.net", "vs,"] {
            check(unknown, None);
        }
    }

    #[test]
    fn every_kind_has_its_names() {
        for kind in Kind::ALL {
            assert_eq!(KindNames::of(kind).kind, kind);
        }
        assert_eq!(kinds_named("all").unwrap().len(), Kind::ALL.len());
    }
}
