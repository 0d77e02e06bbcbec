//! A mesh that changes at random: what proxies hold is always what they would be told from nothing.

use sluis_xds::Directory;

use super::{
    tests::{batch, node},
    *,
};

const WALKS: u64 = 6;
const STEPS: usize = 40;

/// Objects that come, go and change: each in its variants.
const OBJECTS: [&[&str]; 19] = [
    &[
        "kind: Service\nmetadata: {name: api, namespace: a}\nspec: {clusterIP: 10.0.0.1, selector: {app: api}, ports: [{port: 80, name: http}]}",
        "kind: Service\nmetadata: {name: api, namespace: a}\nspec: {clusterIP: None, selector: {app: api}, ports: [{port: 80, name: http}, {port: 90, name: tcp}]}",
    ],
    &[
        "kind: Service\nmetadata: {name: db, namespace: b}\nspec: {clusterIP: 10.0.0.2, selector: {app: db}, ports: [{port: 5432, name: tcp}]}",
        "kind: Service\nmetadata: {name: db, namespace: b}\nspec: {clusterIP: 10.0.0.2, selector: {app: web}, ports: [{port: 5432, name: tcp}]}",
    ],
    &[
        "kind: WorkloadEntry\nmetadata: {name: api-1, namespace: a, labels: {app: api, version: v1}}\nspec: {address: 10.1.0.1, serviceAccount: api}",
        "kind: WorkloadEntry\nmetadata: {name: api-1, namespace: a, labels: {app: api, version: v2}}\nspec: {address: 10.1.0.9, serviceAccount: api}",
    ],
    &[
        "kind: WorkloadEntry\nmetadata: {name: db-1, namespace: b, labels: {app: db}}\nspec: {address: 10.1.0.2}",
        "kind: WorkloadEntry\nmetadata: {name: db-1, namespace: b, labels: {app: web}}\nspec: {address: 10.1.0.2}",
    ],
    &[
        "kind: WorkloadEntry\nmetadata: {name: web-1, namespace: a, labels: {app: web, team: x}}\nspec: {address: 10.1.0.3}",
    ],
    &[
        "kind: ServiceEntry\nmetadata: {name: out, namespace: a}\nspec: {hosts: [out.example.com], ports: [{number: 443, name: tls, protocol: TLS}], resolution: DNS}",
        "kind: ServiceEntry\nmetadata: {name: out, namespace: a}\nspec: {hosts: [out.example.com], ports: [{number: 443, name: tls, protocol: TLS}], resolution: STATIC, workloadSelector: {labels: {app: api}}}",
    ],
    &[
        "kind: DestinationRule\nmetadata: {name: api, namespace: a}\nspec: {host: api.a.svc.cluster.local, subsets: [{name: v1, labels: {version: v1}}, {name: v2, labels: {version: v2}}]}",
        "kind: DestinationRule\nmetadata: {name: api, namespace: a}\nspec: {host: api.a.svc.cluster.local, workloadSelector: {matchLabels: {app: web}}, trafficPolicy: {tls: {mode: DISABLE}}}",
    ],
    &[
        "kind: VirtualService\nmetadata: {name: api, namespace: a}\nspec: {hosts: [api.a.svc.cluster.local], http: [{match: [{sourceLabels: {team: x}}], route: [{destination: {host: api.a.svc.cluster.local, subset: v2}}]}, {route: [{destination: {host: api.a.svc.cluster.local}}]}]}",
        "kind: VirtualService\nmetadata: {name: api, namespace: a}\nspec: {hosts: [api.a.svc.cluster.local], http: [{timeout: 3s, route: [{destination: {host: api.a.svc.cluster.local}}]}]}",
    ],
    &[
        "kind: VirtualService\nmetadata: {name: out, namespace: a}\nspec: {hosts: [out.example.com], tls: [{match: [{port: 443, sniHosts: [out.example.com]}], route: [{destination: {host: out.example.com, port: {number: 443}}}]}]}",
    ],
    &[
        "kind: Sidecar\nmetadata: {name: default, namespace: b}\nspec: {egress: [{hosts: ['./*']}]}",
        "kind: Sidecar\nmetadata: {name: default, namespace: b}\nspec: {egress: [{hosts: ['*/*']}]}",
    ],
    &[
        "kind: Sidecar\nmetadata: {name: web, namespace: a}\nspec: {workloadSelector: {labels: {app: web}}, egress: [{hosts: ['b/*']}]}",
    ],
    &[
        "kind: PeerAuthentication\nmetadata: {name: default, namespace: a}\nspec: {mtls: {mode: STRICT}}",
        "kind: PeerAuthentication\nmetadata: {name: default, namespace: a}\nspec: {mtls: {mode: DISABLE}}",
    ],
    &[
        "kind: EnvoyFilter\nmetadata: {name: patch, namespace: a}\nspec: {workloadSelector: {labels: {team: x}}, configPatches: [{applyTo: CLUSTER, match: {context: SIDECAR_OUTBOUND}, patch: {operation: MERGE, value: {connect_timeout: 7s}}}]}",
    ],
    &[
        "kind: Gateway\nmetadata: {name: edge, namespace: a}\nspec: {selector: {app: edge}, servers: [{port: {number: 80, name: http, protocol: HTTP}, hosts: ['*']}]}",
    ],
    &[
        "kind: Pod\nmetadata: {name: db-2, namespace: b, labels: {app: db, team: x}}\nspec: {serviceAccountName: db, containers: [{name: db, image: db}]}\nstatus: {podIP: 10.1.0.12, phase: Running, conditions: [{type: Ready, status: 'True'}]}",
        "kind: Pod\nmetadata: {name: db-2, namespace: b, labels: {app: db}}\nspec: {serviceAccountName: other, containers: [{name: db, image: db}]}\nstatus: {podIP: 10.1.0.12, phase: Running, conditions: [{type: Ready, status: 'False'}]}",
    ],
    &[
        "kind: EndpointSlice\nmetadata: {name: db-x, namespace: b, labels: {kubernetes.io/service-name: db}}\naddressType: IPv4\nports: [{name: tcp, port: 5433, protocol: TCP}]\nendpoints: [{addresses: [10.1.0.12], conditions: {ready: true}}]",
    ],
    &[
        "kind: Namespace\nmetadata: {name: a}",
        "kind: Namespace\nmetadata: {name: a, labels: {team: one}}",
    ],
    &[
        "kind: HTTPRoute\nmetadata: {name: db, namespace: b}\nspec: {parentRefs: [{group: '', kind: Service, name: api, namespace: a}], rules: [{backendRefs: [{name: api, namespace: a, port: 80}], timeouts: {request: 2s}}]}",
        "kind: HTTPRoute\nmetadata: {name: db, namespace: b}\nspec: {parentRefs: [{name: edge, namespace: a}], rules: [{backendRefs: [{name: db, port: 5432}]}]}",
    ],
    &[
        "kind: Gateway\nmetadata: {name: edge, namespace: a}\nspec: {gatewayClassName: istio, listeners: [{name: http, port: 8080, protocol: HTTP, allowedRoutes: {namespaces: {from: All}}}]}",
    ],
];

/// Who is connected: known and unknown workloads of both namespaces, and a gateway.
const PROXIES: [&str; 7] = [
    "sidecar~10.1.0.1~api-1.a~a.svc.cluster.local",
    "sidecar~10.1.0.3~web-1.a~a.svc.cluster.local",
    "sidecar~10.1.0.2~db-1.b~b.svc.cluster.local",
    "sidecar~10.1.0.7~other.a~a.svc.cluster.local",
    "sidecar~10.1.0.8~other.b~b.svc.cluster.local",
    "sidecar~10.1.0.12~db-2.b~b.svc.cluster.local",
    "router~10.1.0.9~edge.a~a.svc.cluster.local",
];

fn object(text: &str) -> String {
    let group = match text.split_whitespace().nth(1).unwrap() {
        "Service" | "Pod" | "Namespace" => "v1",
        "EndpointSlice" => "discovery.k8s.io/v1",
        "HTTPRoute" => "gateway.networking.k8s.io/v1",
        "Gateway" if text.contains("gatewayClassName") => "gateway.networking.k8s.io/v1",
        "PeerAuthentication" => "security.istio.io/v1",
        "EnvoyFilter" => "networking.istio.io/v1alpha3",
        _ => "networking.istio.io/v1",
    };
    format!("apiVersion: {group}\n{text}\n")
}

/// A pseudo-random sequence (Knuth's MMIX constants), the same in every run.
struct Dice(u64);

impl Dice {
    fn roll(&mut self, sides: usize) -> usize {
        self.0 =
            self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) as usize % sides
    }
}

#[test]
fn after_any_change_proxies_hold_what_they_would_be_told_from_nothing() {
    for walk in 0..WALKS {
        let mut dice = Dice(walk);
        let control = Control::new(TrustDomain::default());
        control.apply(Batch::default());
        let labels = [("DNS_CAPTURE", "true")];
        let connections: Vec<_> = PROXIES
            .iter()
            .map(|id| control.connect(&Peer::Local, &node(id, &labels)).unwrap())
            .collect();
        let mut there: BTreeMap<usize, String> = BTreeMap::new();
        for step in 0..STEPS {
            let index = dice.roll(OBJECTS.len());
            let variants = OBJECTS[index];
            let text = object(variants[dice.roll(variants.len())]);
            let change = if there.get(&index) == Some(&text) {
                there.remove(&index);
                let removals = batch(&text).upserts.iter().map(|one| one.key()).collect();
                Batch { upserts: Vec::new(), removals }
            } else {
                there.insert(index, text.clone());
                batch(&text)
            };
            control.apply(change);

            let fresh = Control::new(TrustDomain::default());
            fresh.apply(Batch {
                upserts: there.values().flat_map(|text| batch(text).upserts).collect(),
                removals: Vec::new(),
            });
            for (id, connection) in PROXIES.iter().zip(&connections) {
                let expected = fresh.connect(&Peer::Local, &node(id, &labels)).unwrap();
                let (held, expected) = (connection.sets.borrow(), expected.sets.borrow());
                for kind in Kind::ALL {
                    let names = |set: &EncodedSet| -> BTreeMap<String, String> {
                        set.of(kind).map(|one| (one.name.clone(), one.version.clone())).collect()
                    };
                    assert_eq!(
                        names(&held),
                        names(&expected),
                        "walk {walk}.{step} {kind} of {id}\n{text}"
                    );
                }
            }
        }
    }
}
