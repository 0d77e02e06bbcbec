//! What is not carried out is said when it is read, with its resource, field and line.

use super::super::dispatch::{NOT_CARRIED_OUT, PENDING, api_of};
use super::{faults, networking, parse};

#[test]
fn kinds_that_nobody_would_carry_out_are_errors() {
    for (api, kind) in [
        ("networking.k8s.io/v1", "Ingress"),
        ("policy.networking.k8s.io/v1alpha1", "AdminNetworkPolicy"),
        ("gateway.networking.k8s.io/v1", "UDPRoute"),
        ("cilium.io/v2", "CiliumNetworkPolicy"),
    ] {
        let text = format!("apiVersion: {api}\nkind: {kind}\nmetadata: {{name: x}}\nspec: {{}}\n");
        let parsed = parse("f.yaml", &text);
        assert!(parsed.has_errors() && parsed.resources.is_empty(), "{kind}");
        assert_eq!(parsed.faults[0].at.line, 2, "{kind}");
        assert_eq!(parsed.faults[0].resource, Some(format!("{kind} default/x")));
    }
}

#[test]
fn a_network_policy_says_who_enforces_it() {
    let text = "apiVersion: networking.k8s.io/v1\nkind: NetworkPolicy\nmetadata: {name: x}\n\
                spec: {podSelector: {}}\n";
    let parsed = parse("f.yaml", text);
    assert_eq!(parsed.resources.len(), 1);
    assert_eq!(parsed.faults.len(), 1, "{:?}", parsed.faults);
    let told = &parsed.faults[0];
    assert!(!told.is_error() && told.message.contains("sluis capture firewall"), "{told}");
}

#[test]
fn kinds_that_are_read_but_not_carried_out_are_told_at_their_name() {
    for kind in NOT_CARRIED_OUT {
        let text = format!("apiVersion: {}\nkind: {kind}\nmetadata: {{name: x}}\n", api_of(*kind));
        let parsed = parse("f.yaml", &text);
        let told = parsed.faults.iter().find(|fault| fault.message == PENDING);
        let told = told.unwrap_or_else(|| panic!("{kind}: {:#?}", parsed.faults));
        assert!(told.at.line == 2 && told.is_error(), "{kind}");
    }
}

const NONE: &str = "this field is known, and has no effect here";
const HERE: &str = "this has no effect: ";
const MESH: &str = "this path stands for the mesh's own certificate";

/// Checks that the object is taken with one warning, for this field.
#[track_caller]
fn check(kind: &str, spec: &str, path: &str, message: &str) {
    let parsed = parse("f.yaml", &networking(kind, spec));
    let [fault] = &parsed.faults[..] else { panic!("{spec}\n{:#?}", parsed.faults) };
    assert!(!fault.is_error(), "{spec}\n{fault}");
    assert_eq!(fault.path, path, "{spec}\n{fault}");
    assert!(fault.message.starts_with(message), "{spec}\n{fault}");
    assert!(fault.at.line > 5 && fault.resource.is_some(), "{fault}");
    assert_eq!(parsed.resources.len(), 1, "{spec}");
}

#[test]
fn what_routes_do_not_carry_out_is_said() {
    let check = |more: &str, path: &str, message: &str| {
        let spec =
            format!("hosts: [a.b]\nhttp: [{{route: [{{destination: {{host: a.b}}}}], {more}}}]");
        check("VirtualService", &spec, &format!("spec.http[0].{path}"), message);
    };
    let none = "without a percentage no request is touched";
    check("fault: {delay: {fixedDelay: 1s}}", "fault.delay", none);
    check("fault: {abort: {httpStatus: 503}}", "fault.abort", none);
    let of_gateway = "match: [{gateways: [g], sourceLabels: {a: b}}]";
    check(of_gateway, "match[0].sourceLabels", HERE);
    let spec = "hosts: [a.b]\ngateways: [g]\nhttp: [{match: [{sourceNamespace: a}], route: \
                [{destination: {host: a.b}}]}]";
    let itself = "at a gateway this is compared with what the gateway itself has";
    self::check("VirtualService", spec, "spec.http[0].match[0].sourceNamespace", itself);
}

#[test]
fn what_rules_do_not_carry_out_is_said() {
    let check = |more: &str, path: &str, message: &str| {
        let spec = format!("host: a\ntrafficPolicy: {{{more}}}");
        check("DestinationRule", &spec, &format!("spec.trafficPolicy.{path}"), message);
    };
    check("tls: {sni: a}", "tls.sni", HERE);
    check("tls: {mode: SIMPLE, privateKey: /k}", "tls.privateKey", HERE);
    let skip = "tls: {mode: ISTIO_MUTUAL, insecureSkipVerify: true}";
    check(skip, "tls.insecureSkipVerify", HERE);
    let old = "tls: {mode: SIMPLE, caCertificates: /etc/certs/root-cert.pem}";
    check(old, "tls.caCertificates", MESH);
}

#[test]
fn what_servers_and_entries_do_not_carry_out_is_said() {
    let server = |tls: &str, path: &str, message: &str| {
        let port = "{number: 1, name: a, protocol: HTTPS}";
        let spec = format!("servers: [{{port: {port}, hosts: [a.b], tls: {tls}}}]");
        check("Gateway", &spec, &format!("spec.servers[0].tls.{path}"), message);
    };
    let pair = "serverCertificate: /c, privateKey: /k";
    let old = "serverCertificate: /etc/certs/cert-chain.pem, privateKey: /etc/certs/key.pem";
    server(&format!("{{mode: SIMPLE, {pair}, subjectAltNames: [a]}}"), "subjectAltNames", HERE);
    server(&format!("{{mode: SIMPLE, {old}}}"), "serverCertificate", MESH);
    server("{privateKey: /k}", "privateKey", HERE);
    let selector = "hosts: [a.b]\nworkloadSelector: {labels: {a: b}}";
    check("ServiceEntry", selector, "spec.workloadSelector", HERE);
    let port = "{number: 1, name: a, protocol: TCP}";
    let gateway = format!("servers: [{{port: {port}, hosts: [a.b], defaultEndpoint: a}}]");
    check("Gateway", &gateway, "spec.servers[0].defaultEndpoint", NONE);
}

#[test]
fn annotations_of_our_own_are_known_or_refused() {
    let check = |kind: &str, annotation: &str, expected: Option<&str>| {
        let spec = "address: 127.0.0.1";
        let text = networking(kind, spec)
            .replace("name: x\n", &format!("name: x\n  annotations: {{{annotation}}}\n"));
        let faults = faults(&text);
        match expected {
            None => assert_eq!(faults, [""; 0], "{annotation}"),
            Some(expected) => assert!(faults[0].contains(expected), "{faults:?}"),
        }
    };
    check("WorkloadEntry", "sluis.dev/run: sidecar, sluis.dev/hide: keys", None);
    check("WorkloadEntry", "proxy.istio.io/config: ''", None);
    check("WorkloadEntry", "example.com/owner: me", None);
    let misspelled = "error: WorkloadEntry default/x: metadata.annotations.sluis.dev/hde: a \
                      WorkloadEntry has no such annotation (did you mean \"sluis.dev/hide\"?)";
    check("WorkloadEntry", "sluis.dev/hde: keys", Some(misspelled));
    check("WorkloadEntry", "sluis.dev/lua-globals: a", Some("has no such annotation"));
    let istio = "warning: WorkloadEntry default/x: metadata.annotations.sidecar.istio.io/inject: \
                 this annotation has no effect here";
    check("WorkloadEntry", "sidecar.istio.io/inject: 'true'", Some(istio));
}

#[test]
fn services_say_what_the_mesh_does_not_do_for_them() {
    let check = |spec: &str, expected: &[&str]| {
        let text = format!("apiVersion: v1\nkind: Service\nmetadata: {{name: x}}\nspec: {spec}\n");
        let faults = faults(&text);
        assert_eq!(faults.len(), expected.len(), "{faults:#?}");
        for (fault, expected) in faults.iter().zip(expected) {
            assert!(fault.contains(expected), "{fault}");
        }
    };
    check("{sessionAffinity: None, internalTrafficPolicy: Cluster, ports: [{port: 80}]}", &[]);
    check("{sessionAffinity: ClientIP}", &["warning: Service default/x: spec.sessionAffinity"]);
    check("{loadBalancerSourceRanges: [10.0.0.0/8]}", &["error: Service default/x: spec.load"]);
    check("{ports: [{port: 53, protocol: UDP}]}", &["spec.ports[0].protocol: this has no effect"]);
}
