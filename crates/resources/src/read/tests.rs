//! What is read, what is refused, and what the faults say.

mod credentials;
mod istio_rules;
mod kinds;
mod policies;
mod said;

use std::time::Duration;

use super::parse;
use crate::resource::{Resource, Spec};
use crate::{
    ApplyTo, ClientTlsMode, GatewayRef, HttpAction, OutboundTrafficPolicy, PatchContext,
    PatchOperation, Protocol, Resolution, ServerTlsMode, SimpleLb, StringMatch, TargetPort,
};

/// The manifests of an article of 2020, with its old versions and field names.
const ARTICLE: &str = include_str!("tests/article.yaml");

fn faults(text: &str) -> Vec<String> {
    parse("f.yaml", text).faults.iter().map(ToString::to_string).collect()
}

fn one(text: &str) -> Resource {
    let mut parsed = parse("f.yaml", text);
    assert!(!parsed.has_errors(), "{text}\n{:#?}", parsed.faults);
    assert_eq!(parsed.resources.len(), 1, "{text}");
    parsed.resources.remove(0)
}

/// An object of Istio's networking group with the given spec, which starts in line 6.
fn networking(kind: &str, spec: &str) -> String {
    let version = if kind == "EnvoyFilter" { "v1alpha3" } else { "v1" };
    let spec: String = spec.lines().map(|line| format!("  {line}\n")).collect();
    format!(
        "apiVersion: networking.istio.io/{version}\nkind: {kind}\nmetadata:\n  name: x\nspec:\n{spec}"
    )
}

#[test]
fn the_article_is_read_as_it_was_printed() {
    let parsed = parse("article.yaml", ARTICLE);
    assert_eq!(parsed.faults, []);
    let keys: Vec<String> = parsed.resources.iter().map(|r| r.key().to_string()).collect();
    assert_eq!(
        keys,
        [
            "Gateway egress/istio-egressgateway",
            "VirtualService egress/direct-data-source-through-egress-gateway",
            "DestinationRule egress/originate-tls-for-datasource",
            "DestinationRule egress/egressgateway-for-datasource",
            "ServiceEntry egress/internal-datasource",
            "EnvoyFilter egress/inject-credentials-in-api-calls",
        ]
    );
    let Spec::Gateway(gateway) = &parsed.resources[0].spec else { panic!() };
    let tls = gateway.servers[0].tls.as_ref().unwrap();
    assert_eq!(tls.mode, ServerTlsMode::Simple);
    assert_eq!(tls.files.private_key.as_deref(), Some("/etc/istio/egress-certs/tls.key"));
    assert_eq!(gateway.servers[0].port.at.to_string(), "article.yaml:11:17");

    let Spec::VirtualService(service) = &parsed.resources[1].spec else { panic!() };
    assert_eq!(service.gateways.len(), 2);
    assert!(service.gateways.contains(&GatewayRef::Mesh));
    let route = &service.tls[0];
    assert_eq!(route.at.to_string(), "article.yaml:33:7");
    assert_eq!(route.matches[0].port, Some(443));
    assert_eq!(route.route[0].destination.subset.as_deref(), Some("mitm"));
    assert_eq!(route.route[0].weight, 1);

    let Spec::DestinationRule(rule) = &parsed.resources[3].spec else { panic!() };
    let policy = rule.subsets[0].traffic_policy.as_ref().unwrap();
    assert_eq!(policy.load_balancer.as_ref().unwrap().simple, SimpleLb::RoundRobin);
    let tls = policy.port_level[0].tls.as_ref().unwrap();
    assert_eq!((tls.mode, tls.sni.as_deref()), (ClientTlsMode::Simple, Some("api.data.local")));

    let Spec::ServiceEntry(entry) = &parsed.resources[4].spec else { panic!() };
    assert_eq!(entry.resolution, Resolution::Dns);
    assert_eq!(entry.ports[0].protocol, Protocol::Https);

    let Spec::EnvoyFilter(filter) = &parsed.resources[5].spec else { panic!() };
    let patch = &filter.patches[0];
    assert_eq!(patch.apply_to, ApplyTo::HttpFilter);
    assert_eq!(patch.context, PatchContext::Gateway);
    assert_eq!(patch.operation, PatchOperation::InsertBefore);
    assert_eq!(patch.value["name"], "envoy.lua");
    let code = patch.value["typed_config"]["inlineCode"].as_str().unwrap();
    assert!(
        code.starts_with("local hash = require") && code.contains("\nfunction envoy_on_request")
    );
    assert_eq!(patch.value_at.to_string(), "article.yaml:124:11");
}

#[test]
fn faults_name_file_line_column_resource_and_field() {
    let check = |kind: &str, spec: &str, expected: &[&str]| {
        assert_eq!(faults(&networking(kind, spec)), expected, "{spec}");
    };
    let server = "servers:\n- port: {numer: 443, name: https, protocol: HTTP}\n  hosts: [a.b]\n";
    check(
        "Gateway",
        server,
        &[
            "f.yaml:7:11: error: Gateway default/x: spec.servers[0].port.number: this field is \
             required and missing",
            "f.yaml:7:12: error: Gateway default/x: spec.servers[0].port.numer: there is no such \
             field (did you mean \"number\"?)",
        ],
    );
    check(
        "ServiceEntry",
        "hosts: [a.b]\nports:\n- number: \"443\"\n  name: 80\n  protocol: HTPS\n",
        &[
            "f.yaml:8:13: error: ServiceEntry default/x: spec.ports[0].number: a port number is \
             expected, and this is a text",
            "f.yaml:9:11: error: ServiceEntry default/x: spec.ports[0].name: a text is expected, \
             and \"80\" without quotes is a number (write it in quotes)",
            "f.yaml:10:15: error: ServiceEntry default/x: spec.ports[0].protocol: \"HTPS\" is not \
             a protocol: HTTP, HTTPS, HTTP2, GRPC, GRPC-WEB, MONGO, TCP and TLS are",
        ],
    );
    check(
        "DestinationRule",
        "host: a\ntrafficPolicy: {loadBalancer: {backendUtilization: {}}, tls: {mode: SIMPEL}}\n",
        &[
            "f.yaml:7:54: error: DestinationRule default/x: \
             spec.trafficPolicy.loadBalancer.backendUtilization: this field is known, but not \
             supported",
            "f.yaml:7:71: error: DestinationRule default/x: spec.trafficPolicy.tls.mode: \
             \"SIMPEL\" is none of DISABLE, SIMPLE, MUTUAL, ISTIO_MUTUAL (did you mean \
             \"SIMPLE\"?)",
        ],
    );
}

#[test]
fn a_resource_with_a_fault_is_left_out_and_the_others_stay() {
    let text = format!(
        "{}---\n{}---\na: [\n---\n{}",
        networking("WorkloadEntry", "address: 127.0.0.1"),
        networking("WorkloadEntry", "adress: 127.0.0.1"),
        networking("WorkloadEntry", "address: 127.0.0.2"),
    );
    let parsed = parse("f.yaml", &text);
    assert_eq!(parsed.resources.len(), 2);
    assert_eq!(parsed.resources[1].meta.at.line, 17);
    assert_eq!(parsed.faults.len(), 3, "{:#?}", parsed.faults);
}

#[test]
fn kinds_that_are_not_supported_are_named() {
    let check = |api: &str, kind: &str, expected: &str| {
        let text = format!("apiVersion: {api}\nkind: {kind}\nmetadata: {{name: x}}\nspec: {{}}\n");
        let faults = faults(&text);
        assert_eq!(faults.len(), 1, "{faults:?}");
        assert!(faults[0].contains(expected), "{faults:?}");
        assert_eq!(parse("f", &text).resources, []);
    };
    check("networking.k8s.io/v1", "Ingress", "error: Ingress default/x: kind: this kind is not");
    check("gateway.networking.k8s.io/v1", "ListenerSet", "this kind is not supported");
    check("apps/v1", "Deployment", "warning: Deployment default/x: kind: this kind says nothing");
    check("v1", "ServiceAccount", "warning: ");
    check("networking.istio.io/v2", "Gateway", "there is no such version of this kind");
    check("v1", "Gateway", "did you mean apiVersion networking.istio.io/v1?");
    check("apps/v1", "Service", "did you mean apiVersion v1?");
    check("example.com/v1", "Thing", "this kind is unknown");
}

/// Checks that an object is refused with a fault that contains a text.
fn check_refused(kind: &str, spec: &str, expected: &str) {
    let faults = faults(&networking(kind, spec));
    let found = faults.iter().any(|fault| fault.contains(expected));
    assert!(
        found,
        "{spec}
wanted {expected}
got {faults:#?}"
    );
}

#[test]
fn a_gateway_that_istio_refuses_is_refused() {
    let tls = |port: &str, tls: &str| {
        format!(
            "servers: [{{port: {{number: 1, name: a, protocol: {port}}}, hosts: [a.b], {tls}}}]"
        )
    };
    for (protocol, settings, expected) in [
        ("HTTPS", "", "spec.servers[0].tls: a port with protocol HTTPS needs TLS settings"),
        ("HTTP", "tls: {mode: SIMPLE, credentialName: a}", "only httpsRedirect"),
        ("TCP", "tls: {}", "takes no TLS settings"),
        ("HTTPS", "tls: {mode: SIMPLE, serverCertificate: a}", "tls.privateKey: this mode needs"),
        ("HTTPS", "tls: {mode: MUTUAL, serverCertificate: a, privateKey: b}", "tls.caCertificates"),
        ("TLS", "tls: {mode: ISTIO_MUTUAL, privateKey: b}", "tls.privateKey: ISTIO_MUTUAL"),
        ("TLS", "tls: {credentialName: a, credentialNames: [b]}", "only one of"),
        ("TLS", "tls: {minProtocolVersion: TLSV1_3, maxProtocolVersion: TLSV1_2}", "above"),
    ] {
        check_refused("Gateway", &tls(protocol, settings), expected);
    }
}

#[test]
fn a_virtual_service_that_istio_refuses_is_refused() {
    let to = "{destination: {host: a}}";
    for (spec, expected) in [
        ("hosts: [a]", "one of http, tls and tcp is required"),
        ("hosts: []\nhttp: []", "spec.hosts: this list must not be empty"),
        ("hosts: ['*']\nhttp: [{route: [{destination: {host: a}}]}]", "gateway mesh"),
        ("hosts: [a, a]\nhttp: [{route: [{destination: {host: a}}]}]", "there twice"),
        ("hosts: [a]\nhttp: [{}]", "one of route, redirect, directResponse and delegate"),
        ("hosts: [a]\nhttp: [{route: [{destination: {host: '*'}}]}]", "\"*\" does not name"),
        (
            "hosts: [a]\nhttp: [{redirect: {uri: /}, route: [&t {destination: {host: a}}]}]",
            "only one",
        ),
        ("hosts: [a]\nhttp: [{redirect: {redirectCode: 200}}]", "200 is not a status code"),
        ("hosts: [a]\nhttp: [{match: [{uri: {regex: '('}}], redirect: {}}]", "not a regular"),
        ("hosts: [a]\nhttp: [{timeout: 0s, redirect: {}}]", "at least 1ms"),
        (
            "hosts: [a]\nhttp: [{headers: {request: {set: {'a b': c}}}, redirect: {}}]",
            "name of a header",
        ),
        ("hosts: [a]\ntls: [{route: [{destination: {host: a}}]}]", "tls[0].match: this field is"),
        (
            "hosts: [a]\ntls: [{match: [{sniHosts: [b]}], route: [{destination: {host: a}}]}]",
            "under none",
        ),
        ("hosts: [a]\ntcp: [{}]", "tcp[0].route: this field is required"),
        ("gateways: [mesh]\nhttp: [{redirect: {}}]", "spec.gateways: without hosts"),
    ] {
        check_refused("VirtualService", spec, expected);
    }
    let zero = format!("hosts: [a]\nhttp: [{{route: [{to}, {to}]}}]");
    check_refused("VirtualService", &zero, "add up to 0");
}

#[test]
fn a_destination_rule_that_istio_refuses_is_refused() {
    for (spec, expected) in [
        ("{}", "spec.host: this field is required"),
        ("host: a\nsubsets: [{name: b}, {name: b}]", "the name \"b\" is used twice"),
        ("host: a\ntrafficPolicy: {tls: {mode: MUTUAL}}", "tls.clientCertificate: MUTUAL needs"),
        (
            "host: a\ntrafficPolicy: {tls: {mode: ISTIO_MUTUAL, caCertificates: x}}",
            "ISTIO_MUTUAL uses",
        ),
        (
            "host: a\ntrafficPolicy: {portLevelSettings: [{tls: {}}]}",
            "portLevelSettings[0].port: this",
        ),
        (
            "host: a\ntrafficPolicy: {loadBalancer: {simple: RANDOM, consistentHash: {useSourceIp: true}}}",
            "only one of",
        ),
        ("host: a\ntrafficPolicy: {outlierDetection: {maxEjectionPercent: 101}}", "0 and 100"),
        (
            "host: a\ntrafficPolicy: {connectionPool: {tcp: {connectTimeout: 10}}}",
            "a text is expected",
        ),
    ] {
        check_refused("DestinationRule", spec, expected);
    }
}

#[test]
fn entries_and_filters_that_istio_refuses_are_refused() {
    check_refused("ServiceEntry", "hosts: ['*.a']\nresolution: DNS", "cannot be resolved by DNS");
    check_refused(
        "ServiceEntry",
        "hosts: [a]\nresolution: STATIC\nendpoints: [{address: b.c}]",
        "not an IP",
    );
    check_refused(
        "EnvoyFilter",
        "configPatches: [{applyTo: CLUSTER, match: {listener: {}}, patch: {operation: REMOVE}}]",
        "another kind of object",
    );
    check_refused(
        "EnvoyFilter",
        "configPatches: [{applyTo: CLUSTER, patch: {operation: ADD}}]",
        "patch.value: this",
    );
}

#[test]
fn http_routes_keep_what_they_say() {
    let spec = "\
hosts: [a]
gateways: [g, ns/h, old.ns.svc.cluster.local]
http:
- name: first
  match:
  - uri: {prefix: /v1}
    headers: {X-User: {exact: me}, X-Any: {}}
    port: 80
  route:
  - destination: {host: b, port: {number: 8080}}
    weight: 80
  - destination: {host: c}
    weight: 20
  timeout: 1.5s
  retries: {attempts: 3, perTryTimeout: 200ms, retryOn: 5xx}
  mirror: {host: d}
  mirror_percent: 10
- redirect: {uri: /, port: 8443}
- directResponse: {status: 503, body: {string: no}}
";
    // `no` without quotes is a boolean, in YAML as kubectl reads it.
    let quotes = faults(&networking("VirtualService", spec));
    assert!(quotes.iter().any(|fault| fault.contains("write it in quotes")), "{quotes:?}");
    let spec = spec.replace("{string: no}", "{string: 'no'}");
    let text = networking("VirtualService", &spec);
    let parsed = parse("f.yaml", &text);
    assert_eq!(parsed.faults.len(), 1, "{:?}", parsed.faults);
    assert!(parsed.faults[0].message.contains("never used"));
    let Spec::VirtualService(service) = &parsed.resources[0].spec else { panic!() };
    let named: Vec<_> = service
        .gateways
        .iter()
        .map(|gateway| match gateway {
            GatewayRef::Mesh => "mesh".to_owned(),
            GatewayRef::Gateway(name) => name.to_string(),
        })
        .collect();
    assert_eq!(named, ["default/g", "ns/h", "ns/old"]);
    let route = &service.http[0];
    assert_eq!(route.timeout, Some(Duration::from_millis(1500)));
    assert_eq!(route.retries.as_ref().unwrap().attempts, 3);
    assert_eq!(route.mirrors[0].percentage.millionths(), 100_000);
    let matched = &route.matches[0];
    assert_eq!(matched.headers["x-user"], Some(StringMatch::Exact("me".into())));
    assert_eq!(matched.headers["x-any"], None);
    let HttpAction::Route(to) = &route.action else { panic!() };
    assert_eq!(to.iter().map(|to| to.weight).collect::<Vec<_>>(), [80, 20]);
}

#[test]
fn the_mesh_configuration_is_read_and_its_faults_point_into_the_file() {
    let config = |mesh: &str| {
        format!(
            "apiVersion: v1\nkind: ConfigMap\nmetadata:\n  name: istio\n  namespace: istio-system\ndata:\n{mesh}"
        )
    };
    let text = config(
        "  mesh: |-\n    # strict\n    outboundTrafficPolicy: {mode: REGISTRY_ONLY}\n    access_log_file: /dev/stdout\n    defaultConfig:\n      concurrency: 2\n",
    );
    let Spec::ConfigMap(map) = one(&text).spec else { panic!() };
    let mesh = map.mesh.unwrap();
    assert_eq!(mesh.outbound_traffic_policy, OutboundTrafficPolicy::RegistryOnly);
    assert_eq!(mesh.access_log_file, "/dev/stdout");
    assert_eq!(mesh.default_config.concurrency, Some(2));
    assert!(mesh.enable_auto_mtls);

    let check = |mesh: &str, expected: &[&str]| assert_eq!(faults(&config(mesh)), expected);
    check(
        "  mesh: |-\n    # strict\n    outboundTrafficPolicy:\n      mod: REGISTRY_ONLY\n",
        &[
            "f.yaml:10:7: error: ConfigMap istio-system/istio: data.mesh.outboundTrafficPolicy.mod: \
           there is no such field (did you mean \"mode\"?)",
        ],
    );
    check(
        "  mesh: |\n    trustDomain: A b\n    enablePrometheusMerge: false\n",
        &[
            "f.yaml:8:18: error: ConfigMap istio-system/istio: data.mesh.trustDomain: \"A b\" is \
             not a trust domain: lower-case letters, digits, '.', '-' and '_' are allowed",
            "f.yaml:9:28: warning: ConfigMap istio-system/istio: data.mesh.enablePrometheusMerge: \
             this field is known, and has no effect here",
        ],
    );
    check(
        "  mesh: \"configSources: []\"\n",
        &["f.yaml:7:9: error: ConfigMap istio-system/istio: data.mesh.configSources: \
           this field is known, but not supported"],
    );
    let broken = faults(&config("  mesh: |\n    a: [\n"));
    assert!(broken[0].contains("data.mesh"), "{broken:?}");
}

#[test]
fn services_tell_the_protocol_of_their_ports() {
    let text = "\
apiVersion: v1
kind: Service
metadata: {name: s, namespace: ns, creationTimestamp: '2024-01-31T12:00:00Z'}
spec:
  clusterIP: None
  selector: {app: a}
  ports:
  - {name: https-api, port: 443, targetPort: 8443}
  - {name: x, port: 80, targetPort: web, appProtocol: http}
  - {name: dns, port: 53, protocol: UDP}
  - {name: other, port: 99}
";
    let resource = one(text);
    assert_eq!(resource.meta.created, Some(1_706_702_400));
    let Spec::Service(service) = resource.spec else { panic!() };
    assert!(service.headless && service.cluster_ips.is_empty());
    let ports: Vec<_> = service.ports.iter().map(|port| port.protocol).collect();
    assert_eq!(ports, [Protocol::Https, Protocol::Http, Protocol::Udp, Protocol::Unknown]);
    assert_eq!(service.ports[0].target_port, TargetPort::Number(8443));
    assert_eq!(service.ports[1].target_port, TargetPort::Name("web".into()));
    assert_eq!(service.ports[3].target_port, TargetPort::Number(99));
}

#[test]
fn secrets_do_not_show_in_debug_or_in_faults() {
    let text = "\
apiVersion: v1
kind: Secret
metadata: {name: s}
type: kubernetes.io/tls
data: {tls.key: aHVudGVyMg==}
stringData: {plain: hunter3}
";
    let resource = one(text);
    let shown = format!("{resource:?}");
    assert!(shown.contains("tls.key") && shown.contains("plain"), "{shown}");
    assert!(!shown.contains("hunter") && !shown.contains("104, 117"), "{shown}");
    let Spec::Secret(secret) = resource.spec else { panic!() };
    assert_eq!(secret.data["tls.key"].expose(), b"hunter2");

    let bad = "apiVersion: v1\nkind: Secret\nmetadata: {name: s}\ndata: {a: 's3cr!t'}\nstringData: {b: 271828}\n";
    let faults = faults(bad);
    assert_eq!(faults.len(), 2, "{faults:?}");
    assert!(faults.iter().all(|fault| !fault.contains("s3cr") && !fault.contains("2718")));
}

#[test]
fn lists_of_objects_are_their_items() {
    let text = "\
apiVersion: v1
kind: List
items:
- {apiVersion: v1, kind: Namespace, metadata: {name: a, labels: {x: z}}}
- {apiVersion: v1, kind: Namespace, metadata: {name: b}}
";
    let parsed = parse("f.yaml", text);
    assert_eq!(parsed.faults, []);
    assert_eq!(parsed.resources[0].key().to_string(), "Namespace a");
    assert_eq!(parsed.resources[1].meta.at.line, 5);
}

#[test]
fn text_that_is_not_an_object_is_a_fault() {
    for (text, expected) in [
        ("hello\n", "a map of fields is expected"),
        ("- a\n", "a map of fields is expected"),
        ("a: b\n", "apiVersion: this field is required and missing"),
        ("apiVersion: v1\nkind: Namespace\n", "metadata: this field is required"),
        ("apiVersion: v1\nkind: Namespace\nmetadata: {name: 'A_b'}\n", "is not a name"),
    ] {
        let faults = faults(text);
        assert!(faults.iter().any(|fault| fault.contains(expected)), "{text}: {faults:?}");
        assert!(
            faults
                .iter()
                .all(|fault| fault.starts_with("f.yaml:1:") || fault.starts_with("f.yaml:3:")),
            "{faults:?}"
        );
    }
    assert_eq!(parse("f", "\n---\n# nothing\n---\n").faults, []);
}

#[test]
fn the_list_of_faults_is_bounded_and_still_says_that_there_is_an_error() {
    let mut text = "apiVersion: v1\nkind: Namespace\nmetadata: {name: a}\n".to_owned();
    for key in 0..2000 {
        text.push_str(&format!("k{key}: 1\n"));
    }
    let parsed = parse("f.yaml", &text);
    assert_eq!(parsed.faults.len(), 501);
    assert!(parsed.faults[500].message.contains("1500 more"));
    assert!(parsed.has_errors() && parsed.resources.is_empty());
}
