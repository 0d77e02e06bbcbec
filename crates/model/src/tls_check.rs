//! Whether clients and servers agree on TLS, as far as configuration tells.
//!
//! In:    a client; the policies, destination rules and endpoints of the mesh.
//! Out:   [`TlsCheck`]s: for each port of each service what the server takes, what the client sends, and
//!        which objects decide.
//! Never: looks at traffic.

use std::collections::BTreeMap;

use sluis_nouns::{Labels, ObjectName};
use sluis_resources::{ClientTlsMode, Location, Protocol, Resolution, SimpleLb};

use crate::{
    MeshPort, MeshService, MtlsMode, Policy, ServiceEndpoint, Snapshot, endpoint::EndpointAddress,
};

/// What a server takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum ServerTls {
    /// Only the mesh's mutual TLS.
    Strict,
    /// The mesh's mutual TLS and plain text.
    Permissive,
    /// A sidecar that takes no TLS of the mesh.
    Disable,
    /// No sidecar: the workload itself.
    NoSidecar,
    /// Outside of the mesh.
    External,
}

/// What a client sends.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum ClientSends {
    /// The mesh's mutual TLS.
    Mesh,
    /// Bytes as the client's workload sends them.
    Plain,
    /// TLS without a certificate of its own.
    Simple,
    /// Mutual TLS with certificates of the user's.
    Mutual,
}

/// One port of a service, as far as its endpoints are treated alike.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TlsCheck {
    /// The service's host.
    pub host: String,
    /// Its port.
    pub port: u16,
    /// What it says to speak.
    pub protocol: Protocol,
    /// What the server takes.
    pub server: ServerTls,
    /// What the client sends.
    pub client: ClientSends,
    /// Whether both agree: connections can be made.
    pub is_agreed: bool,
    /// The PeerAuthentication that decides; `None` for the default.
    pub policy: Option<ObjectName>,
    /// The DestinationRule that says something of TLS; `None` where automatic mutual TLS decides.
    pub rule: Option<ObjectName>,
    /// The endpoints that are meant, in order.
    pub endpoints: Vec<(EndpointAddress, u16)>,
}

impl Snapshot {
    /// What a client's proxy sends to each service that it sees, and what that takes. In order of host
    /// and port; endpoints of a port that differ have an entry each.
    #[must_use]
    pub fn tls_checks(&self, namespace: &str, labels: &Labels) -> Vec<TlsCheck> {
        let mut checks = Vec::new();
        for service in self.services(namespace) {
            let rule = self.rule(namespace, labels, service);
            for port in service.ports.iter().filter(|port| port.protocol != Protocol::Udp) {
                let policy = rule.map(|rule| rule.policy(None, port.number)).unwrap_or_default();
                let object = rule.filter(|_| policy.tls.is_some()).map(|rule| rule.object.clone());
                checks.extend(self.tls_of_port(service, port, &policy, object));
            }
        }
        checks
    }

    fn tls_of_port(
        &self,
        service: &MeshService,
        port: &MeshPort,
        policy: &Policy,
        rule: Option<ObjectName>,
    ) -> Vec<TlsCheck> {
        let endpoints = self.endpoints(service, port);
        let sees_none = endpoints.is_empty();
        let mut of: BTreeMap<_, Vec<(EndpointAddress, u16)>> = BTreeMap::new();
        for endpoint in endpoints.iter() {
            let (server, deciding) = self.takes(service, endpoint);
            let client = self.sends(service, policy, endpoint, &endpoints);
            let place = (endpoint.address.clone(), endpoint.port);
            of.entry((server, client, deciding)).or_default().push(place);
        }
        if sees_none {
            let labels = service.selector.clone().unwrap_or_default();
            let number = match &port.target {
                crate::PortTarget::Number(number) => *number,
                _ => port.number,
            };
            let key = if service.location == Location::MeshExternal {
                (ServerTls::External, sent_by_rule(policy).unwrap_or(ClientSends::Plain), None)
            } else {
                let (server, deciding) = self.mode_of(service.namespace(), &labels, number);
                let auto = if server == ServerTls::Disable {
                    ClientSends::Plain
                } else {
                    ClientSends::Mesh
                };
                (server, sent_by_rule(policy).unwrap_or(auto), deciding)
            };
            of.insert(key, Vec::new());
        }
        of.into_iter()
            .map(|((server, client, policy), endpoints)| TlsCheck {
                host: service.host.to_string(),
                port: port.number,
                protocol: port.protocol,
                server,
                client,
                is_agreed: is_agreed(port.protocol, server, client),
                policy,
                rule: rule.clone(),
                endpoints,
            })
            .collect()
    }

    fn takes(
        &self,
        service: &MeshService,
        endpoint: &ServiceEndpoint,
    ) -> (ServerTls, Option<ObjectName>) {
        if service.location == Location::MeshExternal {
            return (ServerTls::External, None);
        }
        if !endpoint.takes_mesh_tls {
            return (ServerTls::NoSidecar, None);
        }
        self.mode_of(&endpoint.workload.namespace, &endpoint.labels, endpoint.port)
    }

    fn mode_of(
        &self,
        namespace: &str,
        labels: &Labels,
        port: u16,
    ) -> (ServerTls, Option<ObjectName>) {
        let server = match self.mtls(namespace, labels).of_port(port) {
            MtlsMode::Strict => ServerTls::Strict,
            MtlsMode::Permissive => ServerTls::Permissive,
            MtlsMode::Disable => ServerTls::Disable,
        };
        (server, self.mtls_policy(namespace, labels, port))
    }

    /// As the translation has it: the rule's TLS; else mutual TLS where the endpoint takes it.
    fn sends(
        &self,
        service: &MeshService,
        policy: &Policy,
        endpoint: &ServiceEndpoint,
        all: &[ServiceEndpoint],
    ) -> ClientSends {
        if let Some(sent) = sent_by_rule(policy) {
            return sent;
        }
        let takes = |one: &ServiceEndpoint| {
            let mode = self.mtls(&one.workload.namespace, &one.labels).of_port(one.port);
            one.takes_mesh_tls && mode != MtlsMode::Disable
        };
        let is_off = !self.mesh().enable_auto_mtls
            || service.location == Location::MeshExternal
            || self.mtls_of_namespace(service.namespace()) == MtlsMode::Disable;
        let keeps_destination = service.resolution == Resolution::None
            || policy.load_balancer.as_ref().is_some_and(|lb| lb.simple == SimpleLb::Passthrough);
        let is_mesh = if keeps_destination { all.iter().all(takes) } else { takes(endpoint) };
        if is_mesh && !is_off { ClientSends::Mesh } else { ClientSends::Plain }
    }
}

fn sent_by_rule(policy: &Policy) -> Option<ClientSends> {
    Some(match policy.tls.as_ref()?.mode {
        ClientTlsMode::Disable => ClientSends::Plain,
        ClientTlsMode::Simple => ClientSends::Simple,
        ClientTlsMode::Mutual => ClientSends::Mutual,
        ClientTlsMode::IstioMutual => ClientSends::Mesh,
    })
}

/// Whether a connection can be made: as the chains of an inbound listener have it.
fn is_agreed(protocol: Protocol, server: ServerTls, client: ClientSends) -> bool {
    match (server, client) {
        (ServerTls::Strict, client) => client == ClientSends::Mesh,
        (ServerTls::Permissive, ClientSends::Mesh | ClientSends::Plain) => true,
        // TLS that is not the mesh's goes on to the workload, but not on a port that says HTTP.
        (ServerTls::Permissive, _) => !protocol.is_http(),
        (ServerTls::Disable | ServerTls::NoSidecar | ServerTls::External, client) => {
            client != ClientSends::Mesh
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Batch, apply};

    const MESH: &str = r#"
apiVersion: v1
kind: Service
metadata: {name: web, namespace: shop}
spec: {selector: {app: web}, ports: [{name: http, port: 80, targetPort: 8080}, {name: tcp-raw, port: 90}]}
---
apiVersion: networking.istio.io/v1
kind: WorkloadEntry
metadata: {name: a, namespace: shop}
spec: {address: 10.0.0.1, serviceAccount: web, labels: {app: web}}
---
apiVersion: networking.istio.io/v1
kind: WorkloadEntry
metadata: {name: bare, namespace: shop}
spec: {address: 10.0.0.2, labels: {app: web}}
---
apiVersion: networking.istio.io/v1
kind: ServiceEntry
metadata: {name: far, namespace: shop}
spec: {hosts: [far.example.com], ports: [{number: 443, name: tls, protocol: TLS}], resolution: DNS}
---
"#;

    fn checks(more: &str) -> Vec<String> {
        let parsed = sluis_resources::parse("mesh.yaml", &format!("{MESH}{more}"));
        assert!(!parsed.has_errors(), "{:?}", parsed.faults);
        let batch = Batch { upserts: parsed.resources, removals: Vec::new() };
        let (snapshot, _) = apply(&Snapshot::default(), batch);
        let name =
            |name: &Option<ObjectName>| name.as_ref().map_or("-".to_owned(), ToString::to_string);
        let show = |one: &TlsCheck| {
            let status = if one.is_agreed { "ok" } else { "conflict" };
            let (policy, rule) = (name(&one.policy), name(&one.rule));
            format!("{} {status} {:?} {:?} {policy} {rule}", one.port, one.server, one.client)
        };
        snapshot.tls_checks("shop", &Labels::new()).iter().map(show).collect()
    }

    fn policy(name: &str, spec: &str) -> String {
        format!(
            "apiVersion: security.istio.io/v1\nkind: PeerAuthentication\n\
             metadata: {{name: {name}, namespace: shop}}\nspec: {spec}\n---\n"
        )
    }

    fn rule(mode: &str) -> String {
        format!(
            "apiVersion: networking.istio.io/v1\nkind: DestinationRule\n\
             metadata: {{name: to-web, namespace: shop}}\n\
             spec: {{host: web, trafficPolicy: {{tls: {{mode: {mode}}}}}}}\n---\n"
        )
    }

    #[test]
    fn automatic_mutual_tls_goes_to_endpoints_with_a_sidecar() {
        assert_eq!(
            checks(""),
            [
                "443 ok External Plain - -",
                "80 ok Permissive Mesh - -",
                "80 ok NoSidecar Plain - -",
                "90 ok Permissive Mesh - -",
                "90 ok NoSidecar Plain - -",
            ]
        );
    }

    #[test]
    fn a_policy_and_a_rule_that_disagree_are_a_conflict() {
        let strict = policy("default", "{mtls: {mode: STRICT}}");
        let found = checks(&format!("{strict}{}", rule("DISABLE")));
        assert_eq!(found[1], "80 conflict Strict Plain shop/default shop/to-web");
        assert_eq!(found[2], "80 ok NoSidecar Plain - shop/to-web");
        let off = policy("default", "{mtls: {mode: DISABLE}}");
        let found = checks(&format!("{off}{}", rule("ISTIO_MUTUAL")));
        assert_eq!(found[1], "80 conflict Disable Mesh shop/default shop/to-web");
        assert_eq!(found[2], "80 conflict NoSidecar Mesh - shop/to-web");
        // Istio decides on automatic mutual TLS by the namespace: a stricter workload is not reached.
        let own = policy("own", "{selector: {matchLabels: {app: web}}, mtls: {mode: STRICT}}");
        let found = checks(&format!("{off}{own}"));
        assert_eq!(found[1], "80 conflict Strict Plain shop/own -");
        let simple = rule("SIMPLE");
        let found = checks(&simple);
        assert_eq!(found[1], "80 conflict Permissive Simple - shop/to-web");
        assert_eq!(found[3], "90 ok Permissive Simple - shop/to-web");
    }

    #[test]
    fn a_port_has_the_mode_of_the_workloads_port() {
        let own = policy(
            "own",
            "{selector: {matchLabels: {app: web}}, portLevelMtls: {8080: {mode: DISABLE}}}",
        );
        let found = checks(&own);
        assert_eq!(found[1], "80 ok Disable Plain shop/own -");
        assert_eq!(found[3], "90 ok Permissive Mesh - -");
    }
}
