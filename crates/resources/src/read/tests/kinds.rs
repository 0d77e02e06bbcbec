//! Kinds that are read whole: what their fields become, and what is refused of them.

use super::super::{object::Options, parse_with};
use super::parse;
use crate::resource::{Kind, Resource, Spec};
use crate::{
    CaptureMode, DefaultEndpoint, HostScope, MtlsMode, OutboundTrafficPolicy, Protocol,
    WorkloadAddress,
};

/// Reads one object; that its kind is not carried out yet is left aside.
#[track_caller]
pub(super) fn read(api: &str, kind: &str, rest: &str) -> (Option<Resource>, Vec<String>) {
    let text = format!("apiVersion: {api}\nkind: {kind}\nmetadata: {{name: x}}\n{rest}\n");
    let options = Options { pending: true, ..Options::default() };
    let mut parsed = parse_with("f.yaml", &text, &options);
    let faults = parsed.faults.iter().map(ToString::to_string).collect();
    (parsed.resources.pop(), faults)
}

#[track_caller]
pub(super) fn spec(api: &str, kind: &str, rest: &str) -> Spec {
    let (resource, faults) = read(api, kind, rest);
    assert_eq!(faults, [""; 0], "{rest}");
    resource.expect("no fault, so it is there").spec
}

#[track_caller]
pub(super) fn refused(api: &str, kind: &str, rest: &str, expected: &str) {
    let (resource, faults) = read(api, kind, rest);
    assert!(resource.is_none(), "{rest}");
    assert!(faults.iter().any(|fault| fault.contains(expected)), "{rest}\n{faults:#?}");
}

const NETWORKING: &str = "networking.istio.io/v1";
const SECURITY: &str = "security.istio.io/v1";

#[test]
fn a_sidecar_is_read_whole() {
    let text = "
spec:
  workloadSelector: {labels: {app: a}}
  ingress:
  - port: {number: 8443, protocol: HTTPS, name: https}
    bind: 127.0.0.2
    captureMode: NONE
    defaultEndpoint: '[::1]:8080'
    tls: {mode: SIMPLE, serverCertificate: a, privateKey: b}
    connectionPool: {tcp: {connectTimeout: 1s}}
  - {port: {number: 80}, defaultEndpoint: unix:///run/app}
  egress:
  - port: {number: 0, protocol: TCP}
    bind: unix:///run/out
    hosts: [./*]
  - hosts: ['*/*', '~other/*', '~/bad.example.com', 'ns/*.example.com']
  outboundTrafficPolicy:
    mode: ALLOW_ANY
    egressProxy: {host: out.egress.svc.cluster.local, port: {number: 443}}
  inboundConnectionPool: {http: {http2MaxRequests: 9}}
";
    let (resource, faults) = read(NETWORKING, "Sidecar", text);
    assert!(!faults.iter().any(|fault| fault.contains("error")), "{faults:#?}");
    let Spec::Sidecar(sidecar) = resource.unwrap().spec else { panic!() };
    let [https, http] = &sidecar.ingress[..] else { panic!() };
    assert_eq!((https.port.number, https.port.protocol), (8443, Protocol::Https));
    assert_eq!(https.bind, Some([127, 0, 0, 2].into()));
    assert_eq!(https.capture_mode, CaptureMode::None);
    let local = DefaultEndpoint::Address { ip: "::1".parse().unwrap(), port: 8080 };
    assert_eq!(https.default_endpoint, Some(local));
    assert!(https.tls.is_some() && https.connection_pool.is_some());
    assert_eq!(http.port.protocol, Protocol::Unknown);
    assert_eq!(http.default_endpoint, Some(DefaultEndpoint::Unix("/run/app".to_owned())));
    let [socket, all] = &sidecar.egress[..] else { panic!() };
    assert_eq!(socket.port.as_ref().unwrap().number, 0);
    assert_eq!(socket.hosts[0].namespace, HostScope::Same);
    let imported: Vec<_> =
        all.hosts.iter().map(|h| (h.exclude, h.namespace.clone(), h.host.as_str())).collect();
    assert_eq!(
        imported,
        [
            (false, HostScope::Any, "*"),
            (true, HostScope::Namespace("other".to_owned()), "*"),
            (true, HostScope::Any, "bad.example.com"),
            (false, HostScope::Namespace("ns".to_owned()), "*.example.com"),
        ]
    );
    let outbound = sidecar.outbound_traffic_policy.unwrap();
    assert_eq!(outbound.mode, OutboundTrafficPolicy::AllowAny);
    assert_eq!(outbound.egress_proxy.unwrap().port, Some(443));
}

#[test]
fn what_istio_refuses_of_a_sidecar_is_refused() {
    let check = |spec: &str, expected: &str| {
        refused(NETWORKING, "Sidecar", &format!("spec: {{{spec}}}"), expected);
    };
    check("", "one of egress, ingress");
    check("ingress: []", "one of egress, ingress");
    check("workloadSelector: {labels: {a: 'b*'}}, egress: [{hosts: [./*]}]", "wildcards");
    check("egress: [{hosts: []}]", "egress[0].hosts: this list must not be empty");
    check("egress: [{hosts: [a.b]}]", "must have the form namespace/host");
    check("egress: [{hosts: [ns/name]}]", "short name");
    check("egress: [{hosts: [ns/a*.b]}]", "spec.egress[0].hosts[0]");
    check("egress: [{hosts: ['n s/a.b']}]", "is not a namespace");
    check("egress: [{hosts: [./*]}, {hosts: [./*]}]", "must be the last");
    let twice = "egress: [{port: {number: 1}, hosts: [./*]}, {port: {number: 1}, hosts: [./*]}]";
    check(twice, "egress[1].port: two listeners have this port");
    check("egress: [{port: {number: 0}, hosts: [./*]}]", "bind: port 0 needs");
    check("egress: [{port: {number: 1}, bind: 'unix:///a', hosts: [./*]}]", "not an IP address");
    check("ingress: [{}]", "ingress[0].port: this field is required");
    check("ingress: [{port: {number: 0}}]", "0 is not a port");
    check("ingress: [{port: {number: 70000}}]", "port.number: this is not a port");
    check("ingress: [{port: {number: 1, protocol: SCTP}}]", "is not a protocol");
    check("ingress: [{port: {number: 1, targetPort: 2}}]", "has no targetPort");
    check("ingress: [{port: {number: 1}, defaultEndpoint: '10.0.0.1:80'}]", "is none of");
    check("ingress: [{port: {number: 1}, defaultEndpoint: '127.0.0.1:x'}]", "is not a port");
    let tls = "ingress: [{port: {number: 1, protocol: HTTP}, tls: {mode: PASSTHROUGH}}]";
    check(tls, "takes no TLS settings");
    let tls = "ingress: [{port: {number: 1, protocol: HTTPS}, tls: {mode: ISTIO_MUTUAL}}]";
    check(tls, "this mode is not possible for a sidecar");
    check("outboundTrafficPolicy: {mode: ALLOW_ANY_DYNAMIC_DNS}", "only in the mesh");
    let proxy = "outboundTrafficPolicy: {egressProxy: {host: a.b, port: {number: 1}}}";
    check(proxy, "this needs mode ALLOW_ANY");
}

#[test]
fn a_peer_authentication_is_read_whole() {
    let text = "spec: {selector: {matchLabels: {a: b}}, mtls: {mode: STRICT}, \
                portLevelMtls: {'80': {mode: DISABLE}, '81': {}}}";
    let Spec::PeerAuthentication(policy) = spec(SECURITY, "PeerAuthentication", text) else {
        panic!()
    };
    assert_eq!(policy.mtls, MtlsMode::Strict);
    assert_eq!(
        policy.port_level,
        [(80, MtlsMode::Disable), (81, MtlsMode::Unset)].into_iter().collect()
    );
    let check = |spec: &str, expected: &str| {
        refused(SECURITY, "PeerAuthentication", &format!("spec: {{{spec}}}"), expected);
    };
    check("mtls: {mode: strict}", "did you mean \"STRICT\"?");
    check("portLevelMtls: {'80': {}}", "spec.portLevelMtls: portLevelMtls needs a selector");
}

#[test]
fn where_workloads_are_is_read() {
    let text = "
addressType: IPv4
endpoints:
- {addresses: [10.0.0.1], conditions: {ready: false}, nodeName: node-1, zone: z,
   targetRef: {kind: Pod, name: p, namespace: default}}
- addresses: [10.0.0.2]
ports: [{name: http, port: 8080, protocol: TCP, appProtocol: http}]";
    let Spec::EndpointSlice(slice) = spec("discovery.k8s.io/v1", "EndpointSlice", text) else {
        panic!()
    };
    assert_eq!(slice.service, None);
    assert_eq!((slice.endpoints[0].ready, slice.endpoints[0].serving), (false, false));
    assert_eq!(slice.endpoints[0].pod.as_deref(), Some("p"));
    assert_eq!(slice.endpoints[1].addresses, [WorkloadAddress::Ip([10, 0, 0, 2].into())]);
    assert!(slice.endpoints[1].ready && slice.ports[0].is_tcp);
    let text = "addressType: IPv4\nendpoints: [{addresses: [a.b]}]";
    refused("discovery.k8s.io/v1", "EndpointSlice", text, "addresses[0]: this is not an IP");

    let text = "
spec:
  nodeName: node-1
  serviceAccountName: sa
  containers: [{name: c, image: i, ports: [{containerPort: 80, name: http}]}]
  initContainers: [{ports: [{containerPort: 1}]}, {restartPolicy: Always, ports: [{containerPort: 2}]}]
status:
  phase: Running
  podIP: 10.0.0.1
  podIPs: [{ip: 10.0.0.1}, {ip: 'fd00::1'}]
  conditions: [{type: Ready, status: 'True'}]";
    let Spec::Pod(pod) = spec("v1", "Pod", text) else { panic!() };
    assert_eq!((pod.ips.len(), pod.service_account.as_str()), (2, "sa"));
    assert_eq!(pod.ports.iter().map(|port| port.port).collect::<Vec<_>>(), [80, 2]);
    assert!(pod.ready && !pod.finished);

    let text = "status: {addresses: [{type: InternalIP, address: 10.0.0.9}]}";
    let (node, _) = read("v1", "Node", text);
    let node = node.unwrap();
    assert_eq!(node.key().to_string(), "Node x");
    let Spec::Node(node) = node.spec else { panic!() };
    assert_eq!(node.internal_ips, [std::net::IpAddr::from([10, 0, 0, 9])]);
}

#[test]
fn groups_and_settings_of_workloads_are_read() {
    let text = "spec: {template: {serviceAccount: sa, ports: {http: 1}}, \
                probe: {periodSeconds: 2, httpGet: {port: 80, scheme: HTTPS}}}";
    let Spec::WorkloadGroup(group) = spec(NETWORKING, "WorkloadGroup", text) else { panic!() };
    assert_eq!(group.template.service_account.as_deref(), Some("sa"));
    assert_eq!(group.probe.unwrap().period.as_secs(), 2);
    refused(NETWORKING, "WorkloadGroup", "spec: {template: {}, probe: {}}", "one of httpGet");

    let text = "spec: {concurrency: 2, environmentVariables: {A: b}}";
    let api = "networking.istio.io/v1beta1";
    let Spec::ProxyConfig(config) = spec(api, "ProxyConfig", text) else { panic!() };
    assert_eq!((config.concurrency, config.selector), (Some(2), None));
}

#[test]
fn a_list_counts_as_its_items() {
    let text = "apiVersion: v1\nkind: List\nmetadata: {resourceVersion: ''}\nitems:\n\
                - {apiVersion: v1, kind: Namespace, metadata: {name: a}}\n\
                - {apiVersion: v1, kind: Service, metadata: {name: b}, spec: {ports: [{port: 1}]}}\n";
    let parsed = parse("f.yaml", text);
    assert_eq!(parsed.faults, []);
    let kinds: Vec<Kind> = parsed.resources.iter().map(|resource| resource.meta.kind).collect();
    assert_eq!(kinds, [Kind::Namespace, Kind::Service]);
}
